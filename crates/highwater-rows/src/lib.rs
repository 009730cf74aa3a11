//! Which rows changed between two snapshots of a database, read from the pages that changed.
//!
//! The cost follows the size of the change, not of the database.
