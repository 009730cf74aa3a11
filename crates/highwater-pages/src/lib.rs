//! SQLite databases as pages: see the modules.
mod canonical;
mod hash;

pub use canonical::{JOURNAL_MODE_BYTES, WAL_MODE, canonical, canonicalise_first_page, is_canonical};
pub use hash::{PageHash, StateSum, page_hash};
