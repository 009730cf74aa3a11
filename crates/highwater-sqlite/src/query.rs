//! One statement of somebody who is not trusted, on a snapshot, within limits.
//!
//! What keeps it harmless: the snapshot is read-only and no file can be reached through it; the statement must be one that only
//! reads, and an authorizer refuses the rest (`ATTACH`, transactions, pragmas that set something); the schema
//! of the database is not trusted either. What keeps it bounded: a deadline that both SQLite's steps
//! and the reading of pages look at, the size of values, of temporary files and of SQLite's memory, and of the answer.
//! A single function call is not interrupted: that is why values are small.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater_pages::owners::PageSource;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{ErrorCode, Rows, Statement};

use crate::snapshot::Settings;
use crate::vfs::{Quota, memory_used};
use crate::{Access, SnapshotDb};

/// The largest value, and row of a table, in bytes.
const LARGEST_VALUE: i32 = 4 << 20;

/// The longest statement, in bytes.
const LONGEST_STATEMENT: i32 = 100_000;

/// How much SQLite's memory in this process may grow while a query runs, in bytes.
const MEMORY: i64 = 256 << 20;

/// After how many of SQLite's steps the limits are looked at.
const STEPS: i32 = 100;

/// What a column costs in an answer besides its bytes.
const COLUMN_COST: usize = 8;

/// Pragmas that tell something and take no value.
const TELLING: [&str; 15] = [
    "application_id",
    "auto_vacuum",
    "collation_list",
    "compile_options",
    "data_version",
    "encoding",
    "freelist_count",
    "function_list",
    "module_list",
    "page_count",
    "page_size",
    "pragma_list",
    "schema_version",
    "table_list",
    "user_version",
];

/// Pragmas that tell something about what their value names.
const TELLING_ABOUT: [&str; 10] = [
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// How much a query may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long it may run.
    pub time: Duration,
    /// How many rows are in the answer at most.
    pub rows: usize,
    /// How many bytes of values are in the answer at most.
    pub bytes: usize,
}

/// Why an answer does not have all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// There are more rows than [`Limits::rows`].
    Rows,
    /// There are more bytes than [`Limits::bytes`].
    Bytes,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<V> {
    /// Their names.
    pub columns: Vec<String>,
    /// A value for each column.
    pub rows: Vec<Vec<V>>,
    /// Whether rows are missing.
    pub cut: Option<Cut>,
    /// How many pages were read for it.
    pub pages_read: u64,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite does not understand it, or it fails on these data.
    #[error("{0}")]
    Wrong(String),
    /// It wants to do what a query must not.
    #[error("{0}; a query is one statement that only reads")]
    NotAllowed(String),
    /// It ran for too long.
    #[error("the query was stopped after {} s; ask for less, or with an index", .0.as_secs_f32())]
    TimedOut(Duration),
    /// It takes too much memory or space.
    #[error("the query {0}; ask for less")]
    TooMuch(String),
    /// The snapshot could not be read.
    #[error(transparent)]
    Failed(#[from] crate::Error),
}

/// Why SQLite was told to stop.
const STOPPED_BY_TIME: u8 = 1;
const STOPPED_BY_MEMORY: u8 = 2;

/// What the hooks of a connection found.
#[derive(Debug, Default)]
struct Found {
    stopped: AtomicU8,
    refused: Mutex<Option<String>>,
}

/// Runs one statement on a snapshot, and converts its values.
///
/// # Errors
/// [`Error`], of which only [`Error::Failed`] is not the caller's own doing.
pub fn query<V>(
    pages: Arc<dyn PageSource>,
    sql: &str,
    limits: &Limits,
    mut convert: impl FnMut(ValueRef<'_>) -> V,
) -> Result<Answer<V>, Error> {
    let until = Instant::now() + limits.time;
    let settings = Settings { access: Access::ReadOnly, memory: 0, quota: Quota::Shared, until: Some(until) };
    let mut db = SnapshotDb::bare(pages, &settings).map_err(|error| match error {
        crate::Error::Source(cause) => failed(cause, (limits, until)),
        other => Error::Failed(other),
    })?;
    let found = Arc::new(Found::default());
    let hardened = harden(&mut db, &found, until);
    let explain = |error| explained(&db, &found, (limits, until), error);
    hardened.map_err(explain)?;
    let mut statement = db.connection().prepare(sql).map_err(explain)?;
    check(&statement)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let width = columns.len();
    let (mut kept, mut bytes, mut cut) = (Vec::new(), 0, None);
    let mut rows: Rows<'_> = statement.query([]).map_err(explain)?;
    while let Some(row) = rows.next().map_err(explain)? {
        let values = (0..width).map(|at| row.get_ref(at)).collect::<Result<Vec<_>, _>>().map_err(explain)?;
        bytes += values.iter().map(|value| cost(*value)).sum::<usize>();
        cut = if kept.len() >= limits.rows {
            Some(Cut::Rows)
        } else if bytes > limits.bytes {
            Some(Cut::Bytes)
        } else {
            None
        };
        if cut.is_some() {
            break;
        }
        kept.push(values.into_iter().map(&mut convert).collect());
    }
    drop(rows);
    drop(statement);
    Ok(Answer { columns, rows: kept, cut, pages_read: db.pages_read() })
}

fn cost(value: ValueRef<'_>) -> usize {
    let bytes = match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 8,
    };
    bytes + COLUMN_COST
}

/// Whether it is one statement, only reads, and gives rows.
fn check(statement: &Statement<'_>) -> Result<(), Error> {
    let no = |what: &str| Err(Error::NotAllowed(what.to_owned()));
    if !statement.readonly() {
        return no("this statement writes");
    }
    if statement.parameter_count() > 0 {
        return Err(Error::Wrong(
            "the query has parameters (? or :name); write the values into it".to_owned(),
        ));
    }
    if statement.column_count() == 0 {
        return no("there is no statement that gives rows");
    }
    Ok(())
}

fn harden(db: &mut SnapshotDb, found: &Arc<Found>, until: Instant) -> rusqlite::Result<()> {
    let connection = db.connection_mut();
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, LARGEST_VALUE),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, LONGEST_STATEMENT),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
        (Limit::SQLITE_LIMIT_VDBE_OP, 100_000),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    let (stops, before) = (Arc::clone(found), memory_used());
    let progress = move || {
        let why = if Instant::now() >= until {
            STOPPED_BY_TIME
        } else if memory_used() - before > MEMORY {
            STOPPED_BY_MEMORY
        } else {
            return false;
        };
        stops.stopped.store(why, Ordering::Relaxed);
        true
    };
    connection.progress_handler(STEPS, Some(progress))?;
    let refusals = Arc::clone(found);
    let authorizer = move |context: AuthContext<'_>| match refusal(context.action) {
        None => Authorization::Allow,
        Some(what) => {
            refusals.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
            Authorization::Deny
        }
    };
    connection.authorizer(Some(authorizer))
}

/// What is wrong with an action, if something is. Statements that write are not refused here, because R-Tree and
/// full-text tables prepare some before they read; [`check`] refuses those of the caller.
fn refusal(action: AuthAction<'_>) -> Option<String> {
    match action {
        AuthAction::Select
        | AuthAction::Recursive
        | AuthAction::Read { .. }
        | AuthAction::Insert { .. }
        | AuthAction::Update { .. }
        | AuthAction::Delete { .. } => None,
        AuthAction::Function { function_name } => {
            matches!(function_name, "load_extension" | "fts3_tokenizer")
                .then(|| format!("the function {function_name} is not available"))
        }
        AuthAction::Pragma { pragma_name, pragma_value } => {
            let name = pragma_name.to_ascii_lowercase();
            let known = TELLING_ABOUT.contains(&name.as_str())
                || pragma_value.is_none() && TELLING.contains(&name.as_str());
            (!known).then(|| match pragma_value {
                Some(_) => format!("PRAGMA {name} with a value is not available"),
                None => format!("PRAGMA {name} is not available"),
            })
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Some("ATTACH is not available".to_owned()),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            Some("transactions are not available".to_owned())
        }
        _ => Some("this statement writes".to_owned()),
    }
}

/// What a failure of the source means here: reading ends with the time.
fn failed(cause: Arc<io::Error>, (limits, until): (&Limits, Instant)) -> Error {
    if cause.kind() == io::ErrorKind::TimedOut && Instant::now() >= until {
        Error::TimedOut(limits.time)
    } else {
        Error::Failed(crate::Error::Source(cause))
    }
}

/// What an error of SQLite means here.
fn explained(
    db: &SnapshotDb,
    found: &Found,
    (limits, until): (&Limits, Instant),
    error: rusqlite::Error,
) -> Error {
    if let Some(cause) = db.source_error() {
        return failed(cause, (limits, until));
    }
    if let Some(what) = found.refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Error::NotAllowed(what);
    }
    match found.stopped.load(Ordering::Relaxed) {
        STOPPED_BY_TIME => return Error::TimedOut(limits.time),
        STOPPED_BY_MEMORY => return Error::TooMuch("needs more memory than a query gets".to_owned()),
        _ => {}
    }
    let message = match &error {
        rusqlite::Error::MultipleStatement => {
            return Error::NotAllowed("there is more than one statement".to_owned());
        }
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::TooMuch("needs more temporary space than there is".to_owned()),
        Some(ErrorCode::OutOfMemory) => Error::TooMuch("needs more memory than there is".to_owned()),
        Some(ErrorCode::TooBig) => {
            Error::TooMuch(format!("makes or reads a value of more than {} MiB", LARGEST_VALUE >> 20))
        }
        _ => Error::Wrong(message),
    }
}
