//! What can go wrong with a snapshot as a database.

use std::io;
use std::sync::Arc;

/// Why a snapshot could not be opened, read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source of the pages failed: the database itself may be fine.
    #[error("a page of the snapshot could not be read or written; try again, the log has the cause")]
    Source(#[source] Arc<io::Error>),

    /// What SQLite says.
    #[error("SQLite could not {doing}")]
    Sqlite {
        /// What was tried.
        doing: &'static str,
        /// What it says.
        source: rusqlite::Error,
    },

    /// SQLite does not take the module through which it reads snapshots.
    #[error("this program's SQLite refuses another file system (code {0}); link a build that allows it")]
    Register(i32),

    /// A transaction is open, so it is not known what the change is.
    #[error("a transaction on the snapshot is still open; commit or roll it back before asking what changed")]
    OpenTransaction,

    /// The pages have another size now, so they cannot be a change to the source.
    #[error("the size of the pages changed from {from} to {to} bytes; such a change cannot be a delta")]
    PageSizeChanged {
        /// In the source, in bytes.
        from: u32,
        /// Now, in bytes.
        to: u32,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// As many owners as an error may have: SQLite gets a number, the caller the cause.
pub(crate) fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
