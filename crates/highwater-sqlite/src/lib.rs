//! Snapshots as SQLite databases: whatever can be read page by page opens as a database, without a copy.
//! Reads come from the snapshot, writes stay in an overlay, and the overlay of a committed transaction is the
//! delta to append.
//!
//! | module | what it is for |
//! |---|---|
//! | [`SnapshotDb`] | a snapshot as a connection, and what was changed through it |
//! | [`query`] | one statement of somebody who is not trusted, within limits |
//! | `vfs` | what SQLite calls instead of the operating system; all unsafe code is there |
//! | `image` | the file that SQLite sees: the source's pages with the overlay above |
//! | `overlay`, `scratch` | written pages, and SQLite's own temporary files |
//!
//! SQLite sees page 1 with the rollback-journal bytes, so that it looks for no write-ahead log; the journal is
//! in memory. Each snapshot has exactly one connection, so nothing is ever locked. What comes out is canonical.

mod cache;
mod error;
mod image;
mod mounts;
mod overlay;
pub mod query;
mod scratch;
mod snapshot;
mod vfs;

pub use error::{Error, Result};
pub use snapshot::{Access, Changes, SnapshotDb};
