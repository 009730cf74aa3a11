//! SQLite databases as pages: capture what changed in a live database, and commit a delta to it,
//! beside any other program that uses the same file.
//!
//! | module | what it is for |
//! |---|---|
//! | [`hash`](page_hash), [`canonical`](canonical()) | the form in which pages are compared, and their names by content |
//! | [`Replica`] | a connection that sees a live file as pages |
//! | [`Mark`], [`wal`] | what may have changed since the last look |
//! | [`Snapshot`], [`Delta`] | capture: a consistent image, and what differs from a base |
//! | [`Image`] | a consistent image that can be kept while the file is written to |
//! | [`PageSums`] | the hash of every page at the base, in memory and as a file |
//! | [`NewPages`], [`LocalState`] | commit: pages into a live file, in one transaction |
//! | [`NewDatabase`] | a new file, published whole |
//! | [`owners`] | which tables pages belong to |
//! | [`durable`] | fsync and rename, for the whole workspace |
//!
//! The crate knows nothing of HTTP or servers.

mod canonical;
mod capture;
mod checkpoint;
mod commit;
pub mod durable;
mod error;
mod hash;
mod image;
mod kill;
mod mark;
mod newdb;
pub mod owners;
mod replica;
mod sums;
pub mod wal;

pub use canonical::{JOURNAL_MODE_BYTES, WAL_MODE, canonical, canonicalise_first_page, is_canonical};
pub use capture::{Delta, Snapshot};
pub use commit::{LocalState, NewPages, WriteLock};
pub use error::{Error, Result, next_step};
pub use hash::{PageHash, StateSum, page_hash};
pub use image::Image;
pub use kill::kill_point;
pub use mark::{FileMark, Mark, Suspects};
pub use newdb::NewDatabase;
pub use replica::{JournalMode, Replica, beside};
pub use sums::{Loaded as LoadedSums, PageSums};
pub use wal::WalMark;
