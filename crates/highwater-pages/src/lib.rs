//! SQLite databases as pages: see the modules.
mod canonical;
pub mod durable;
mod error;
mod hash;
mod kill;
mod sums;
pub mod wal;

pub use canonical::{JOURNAL_MODE_BYTES, WAL_MODE, canonical, canonicalise_first_page, is_canonical};
pub use error::{Error, Result};
pub use hash::{PageHash, StateSum, page_hash};
pub use kill::kill_point;
pub use sums::{Loaded, PageSums};
