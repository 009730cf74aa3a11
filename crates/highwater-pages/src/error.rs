//! What can go wrong between Highwater and a database file.

use std::path::{Path, PathBuf};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a database could not be read or written, as a sentence with a next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite was built without the table that Highwater reads and writes pages through.
    #[error(
        "this program's SQLite was built without the `sqlite_dbpage` table; build it with the environment variable LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB (in `.cargo/config.toml`: [env] LIBSQLITE3_FLAGS = \"-DSQLITE_ENABLE_DBPAGE_VTAB\")"
    )]
    NoDbpage,

    /// The file does not hold a database.
    #[error("{path} is not an SQLite database (or it is encrypted); it was not touched")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },

    /// SQLite cannot name the file.
    #[error("the path {path:?} is not valid UTF-8, which SQLite needs; rename the file")]
    PathNotUtf8 {
        /// The path.
        path: PathBuf,
    },

    /// Another connection held a lock for longer than the busy timeout.
    #[error(
        "{path} stayed locked by another connection while {doing}; nothing was lost. End its long transaction (or its locking_mode=EXCLUSIVE) and sync again"
    )]
    Busy {
        /// The file.
        path: PathBuf,
        /// What Highwater wanted to do.
        doing: &'static str,
    },

    /// The file, its folder or its file system is read-only.
    #[error(
        "{path} cannot be written to ({doing} failed); the file and its folder must be writable, because SQLite and Highwater keep files beside it"
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What Highwater wanted to do.
        doing: &'static str,
    },

    /// No space left.
    #[error("the disk is full while {doing} {path}; free some space and sync again: nothing was lost")]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// What Highwater wanted to do.
        doing: &'static str,
    },

    /// SQLite says that the file is damaged.
    #[error(
        "{path} is damaged ({source}); nothing was sent. Restore it with `highwater restore URL -o NEWFILE`, or repair it with the SQLite shell's .recover"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },

    /// The database changed between being read and being written; nothing was written.
    #[error("{path} was changed while new pages were on their way; nothing was overwritten")]
    ChangedSince {
        /// The file.
        path: PathBuf,
    },

    /// Pages of another size than the file has, and the file cannot be converted now.
    #[error(
        "{path} is empty but was made with pages of {local} bytes where {wanted} are needed, and another connection has it open; close it and sync again"
    )]
    PageSizeFixed {
        /// The file.
        path: PathBuf,
        /// The file's page size in bytes.
        local: u32,
        /// The page size of what is to be written, in bytes.
        wanted: u32,
    },

    /// Any other refusal of SQLite.
    #[error("SQLite failed while {doing} {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What Highwater wanted to do.
        doing: &'static str,
        /// SQLite's reason.
        source: rusqlite::Error,
    },

    /// The file system refused.
    #[error("{doing} {path} failed: {source}{}", next_step(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What Highwater wanted to do: "writing".
        doing: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// The `-shm` file of a database in WAL mode could not be given its size: SQLite does not say that
/// the disk is full, but next to nothing else keeps a file from growing.
const IOERR_SHMSIZE: i32 = 10 | (19 << 8);

impl Error {
    /// Sorts an error of SQLite by what its reader can do about it.
    pub(crate) fn sqlite(path: &Path, doing: &'static str, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.to_path_buf();
        if source.sqlite_error().is_some_and(|error| error.extended_code == IOERR_SHMSIZE) {
            return Self::DiskFull { path, doing };
        }
        match source.sqlite_error_code() {
            Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) => {
                Self::Busy { path, doing }
            }
            Some(Code::ReadOnly | Code::PermissionDenied) => Self::ReadOnly { path, doing },
            Some(Code::DiskFull) => Self::DiskFull { path, doing },
            Some(Code::NotADatabase) => Self::NotADatabase { path },
            Some(Code::DatabaseCorrupt) => Self::Corrupt { path, source },
            _ => Self::Sqlite { path, doing, source },
        }
    }

    /// Sorts an error of the file system.
    pub(crate) fn io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let path = path.to_path_buf();
        match source.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => Self::DiskFull { path, doing },
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Self::ReadOnly { path, doing },
            _ => Self::Io { path, doing, source },
        }
    }
}

/// What to do about what the file system said, where there is something to do.
#[must_use]
pub fn next_step(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Kind;
    match source.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "; free some space and sync again: nothing was lost",
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => {
            "; Highwater keeps its files beside the database, so the folder must be writable"
        }
        Kind::NotFound => "; check the path, and create its folder if that does not exist",
        Kind::IsADirectory => "; that is a folder: name a database file in it",
        Kind::NotADirectory => "; a part of the path is a file and not a folder: check the path",
        _ => "",
    }
}
