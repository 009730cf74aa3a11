//! What can go wrong for an application that embeds Highwater, one variant for each thing that it
//! or its user can act on.

use std::path::PathBuf;
use std::time::Duration;

use highwater_ltx::PageSize;
use highwater_wire::{Conflict, ConflictDetail, ErrorCode};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something failed, as a sentence with a next step. [`Error::kind`] sorts them coarsely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server could not be reached. Nothing is wrong with the local file; work goes on.
    #[error(
        "the server at {remote} could not be reached ({reason}); local work goes on and the next sync will catch up"
    )]
    Offline {
        /// The database's URL.
        remote: String,
        /// The innermost cause, in words.
        reason: String,
    },

    /// Another device has pushed since the last sync, this one has changed something too, and the two were not to be
    /// merged: the policy forbids it where they meet, or it was a pull.
    #[error(
        "both this device and another have changed {db} since the last sync: {summary}; nothing was pushed and nothing was lost. {advice}"
    )]
    Conflict {
        /// The local file.
        db: PathBuf,
        /// Which tables, in words.
        summary: String,
        /// The commands that resolve it.
        advice: String,
        /// Positions, pages and tables.
        detail: Box<ConflictDetail>,
        /// Where the two changes meet, row by row, if the server said it.
        conflicts: Vec<Conflict>,
    },

    /// Another device has pushed since the last sync, this one has changed something too, and the two cannot be merged.
    #[error(
        "both this device and another have changed {db} since the last sync, and that cannot be merged: {}{reason}; nothing was pushed and nothing was lost. {advice}",
        object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default()
    )]
    CannotMerge {
        /// The local file.
        db: PathBuf,
        /// The table, index, view or trigger that stands in the way.
        object: Option<String>,
        /// Why, in the server's words.
        reason: String,
        /// What to do next.
        advice: String,
    },

    /// The local file has content that is no state of the server's database.
    #[error("{db} already has content that does not come from {remote}, so it was not touched. {advice}")]
    Stranger {
        /// The local file.
        db: PathBuf,
        /// The database's URL.
        remote: String,
        /// The commands that resolve it.
        advice: String,
    },

    /// The file is already synced with another URL.
    #[error(
        "{db} is synced with {recorded}, not with {given}; to switch it, run `highwater sync {db} --remote {given} --switch-remote` (or call `Builder::switch_remote`)"
    )]
    OtherRemote {
        /// The local file.
        db: PathBuf,
        /// The URL in the metadata file.
        recorded: String,
        /// The URL that was asked for.
        given: String,
    },

    /// No URL was given and none is remembered.
    #[error("{db} has no remote yet; name one once with `--remote URL` (or `Builder::remote`)")]
    NoRemote {
        /// The local file.
        db: PathBuf,
    },

    /// The URL cannot be a database's.
    #[error(transparent)]
    InvalidRemote(#[from] highwater_wire::InvalidRemote),

    /// The token cannot be one.
    #[error(
        "the token is empty or has characters that no token has; check HIGHWATER_AUTH_TOKEN or `--token`"
    )]
    InvalidToken,

    /// The server has no database of that name.
    #[error(
        "there is no database at {remote}; check the name, or create it by syncing a local file there: `highwater sync FILE --remote {remote}`"
    )]
    UnknownDatabase {
        /// The URL.
        remote: String,
    },

    /// The server does not know a database that it had at the last sync.
    #[error(
        "the server at {remote} no longer has this database (it was at {last} when {db} was last synced); if that is meant, push it anew with `highwater sync {db} --remote {remote} --forget`"
    )]
    Gone {
        /// The local file.
        db: PathBuf,
        /// The database's URL.
        remote: String,
        /// The last known position, `G/F`.
        last: String,
    },

    /// An administrator deleted the database on the server. The local file is untouched.
    #[error(
        "the database at {remote} was deleted on the server; the local file is whole and work goes on. An administrator can bring it back with `highwater admin undelete`; else sync this copy to another name"
    )]
    Deleted {
        /// The URL.
        remote: String,
    },

    /// Something answers at the URL, but it is not a Highwater server.
    #[error("what answers at {remote} is not a Highwater server ({found}); check the URL")]
    NotHighwater {
        /// The URL.
        remote: String,
        /// What was seen, in words.
        found: String,
    },

    /// The local file and the server's database have different page sizes.
    #[error(
        "{db} has pages of {local} bytes and {remote} has pages of {server}; a database keeps the page size of its first push. Sync it to a new name, or convert it with `PRAGMA journal_mode=DELETE; PRAGMA page_size={server}; VACUUM;`"
    )]
    PageSize {
        /// The local file.
        db: PathBuf,
        /// Its page size.
        local: PageSize,
        /// The database's URL.
        remote: String,
        /// Its page size.
        server: PageSize,
    },

    /// Another sync of the same file went on for longer than the lock timeout.
    #[error(
        "another sync of {db} is running{}; try again when it has ended, or raise the lock timeout",
        if waited.is_zero() { String::new() } else { format!(" and did not end within {}", humantime::format_duration(*waited)) }
    )]
    SyncRunning {
        /// The local file.
        db: PathBuf,
        /// How long this one waited.
        waited: Duration,
    },

    /// The application kept the local database locked, or kept writing, for too long.
    #[error(
        "{db} was busy for the whole of this sync ({reason}); nothing was lost, and the next sync will carry on"
    )]
    Busy {
        /// The local file.
        db: PathBuf,
        /// What kept it busy, in words.
        reason: String,
    },

    /// The token is missing or not valid.
    #[error("{remote} asks for a valid token: {message}; set one with `--token` or HIGHWATER_AUTH_TOKEN")]
    Unauthenticated {
        /// The URL.
        remote: String,
        /// The server's words.
        message: String,
    },

    /// The token does not allow this.
    #[error("{remote} refused: {message}; ask for a token that allows it")]
    Forbidden {
        /// The URL.
        remote: String,
        /// The server's words.
        message: String,
    },

    /// The server answered with an error that is none of the above.
    #[error("{remote} could not do it: {message}{}", request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default())]
    Server {
        /// The URL.
        remote: String,
        /// What kind.
        code: ErrorCode,
        /// The server's words.
        message: String,
        /// The request's identity in the server's log.
        request_id: Option<String>,
    },

    /// The server's answer contradicts itself or the protocol; nothing of it was applied.
    #[error(
        "the answer of {remote} cannot be right ({what}), so nothing of it was applied; sync again, and if it stays so check the server with `highwater verify STORE`"
    )]
    BadAnswer {
        /// The URL.
        remote: String,
        /// What is wrong with it.
        what: String,
    },

    /// The position or time asked for is not in the history.
    #[error("{remote}: {message}; `highwater log {remote}` lists what there is")]
    UnknownPosition {
        /// The URL.
        remote: String,
        /// The server's words.
        message: String,
    },

    /// The transaction is no merge, or none that is on record.
    #[error("{remote}: {message}; `highwater conflicts list {remote} --all` lists the merges there are")]
    UnknownMerge {
        /// The URL.
        remote: String,
        /// The server's words.
        message: String,
    },

    /// A file that would have been overwritten.
    #[error("{path} already exists and was not touched; choose another name or move it away")]
    Exists {
        /// The file.
        path: PathBuf,
    },

    /// Reading or writing the local database failed.
    #[error(transparent)]
    Local(#[from] highwater_pages::Error),

    /// SQLite refused to open a connection for the application.
    #[error("opening {db} failed: {source}")]
    Sqlite {
        /// The local file.
        db: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },

    /// A file beside the database could not be read or written.
    #[error("{what} {path} failed: {source}{}", highwater_pages::next_step(source))]
    Io {
        /// What was being done: "writing".
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The library's own thread or task ended before its work did.
    #[error("the sync was stopped before it ended; the next one will carry on")]
    Stopped,
}

/// What a caller does about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Try again later; nothing is wrong.
    Offline,
    /// Decide between two histories.
    Conflict,
    /// Correct the call: a URL, a name, a token, an option.
    Usage,
    /// Anything else.
    Failure,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Offline { .. } => ErrorKind::Offline,
            Self::Conflict { .. } | Self::CannotMerge { .. } => ErrorKind::Conflict,
            Self::OtherRemote { .. }
            | Self::NoRemote { .. }
            | Self::InvalidRemote(_)
            | Self::InvalidToken => ErrorKind::Usage,
            _ => ErrorKind::Failure,
        }
    }

    /// Whether the same call may succeed a little later, with nothing changed by anybody.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        use highwater_pages::Error as Local;
        matches!(
            self,
            Self::Offline { .. }
                | Self::Busy { .. }
                | Self::SyncRunning { .. }
                | Self::Local(Local::Busy { .. } | Local::ChangedSince { .. })
        )
    }
}
