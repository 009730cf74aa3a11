//! What can go wrong while rows are read from pages.

use std::io;

use highwater_ltx::PageNo;

/// The result of reading a snapshot.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A page does not hold what SQLite would have written there.
    #[error(
        "the database is damaged: page {page} {what}. Check it with `PRAGMA integrity_check` and restore an \
         earlier state"
    )]
    Damaged {
        /// The page.
        page: PageNo,
        /// What is wrong with it, as the end of a sentence.
        what: &'static str,
    },
    /// A page could not be read.
    #[error("a page of the database could not be read")]
    Read(#[from] io::Error),
}

/// A damaged page.
pub(crate) fn damaged<T>(page: PageNo, what: &'static str) -> Result<T> {
    Err(Error::Damaged { page, what })
}
