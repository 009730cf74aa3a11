//! What can go wrong in a merge.

use std::io;

/// Why a merge failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A page could not be read.
    #[error("a page of the database could not be read")]
    Read(#[from] io::Error),
    /// A snapshot could not be opened or read as a database.
    #[error("a state of the database could not be opened")]
    Snapshot(#[from] highwater_sqlite::Error),
    /// The pages of a table could not be compared.
    #[error("the changed rows of the database could not be found")]
    Rows(#[from] highwater_rows::Error),
    /// SQLite found something wrong.
    #[error("SQLite could not {what}")]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The database is not well-formed.
    #[error("the database is damaged: {0}")]
    Damaged(String),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
