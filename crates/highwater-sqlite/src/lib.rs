//! Snapshots as SQLite databases: whatever can be read page by page opens as a database, without a copy.
//! Reads come from the snapshot, writes stay in an overlay, and the overlay of a committed transaction is the
//! delta to append.
