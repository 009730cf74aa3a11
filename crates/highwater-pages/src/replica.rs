//! A connection through which Highwater sees a live database as pages.
//!
//! Its *main* database is `:memory:`; the file is attached beside it under the name `replica`.
//! (On a connection whose main database is the file itself, schema reloads in the middle of a
//! commit of raw pages spoil it.) Invariants of every such connection:
//!
//! - it never checkpoints, not even when it is the last to close: SQLite before 3.51.3 can corrupt
//!   a database when two connections write and checkpoint at once, and the application's own
//!   SQLite may be that old;
//! - it never creates the file;
//! - no file descriptor of Highwater's own ever opens the database file: closing one would drop
//!   the POSIX locks that SQLite holds in this process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_ltx::{PageCount, PageNo, PageSize};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};

/// How often opening is tried when the file is replaced meanwhile.
const ATTEMPTS: u32 = 3;

/// The name under which the file is attached.
pub(crate) const SCHEMA: &str = "replica";

/// SQLite attaches a database only to one of the same text encoding.
const ENCODINGS: [&str; 3] = ["UTF-8", "UTF-16le", "UTF-16be"];

/// How SQLite journals a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalMode {
    /// Write-ahead log.
    Wal,
    /// Any of the rollback journals.
    Rollback,
}

/// An open database file, seen as pages.
#[derive(Debug)]
pub struct Replica {
    pub(crate) conn: Connection,
    pub(crate) path: PathBuf,
    /// Which file this is, whatever stands at its path later.
    identity: Option<FileIdentity>,
    busy_timeout: Duration,
}

impl Replica {
    /// Opens an existing database file. `busy_timeout` is how long to wait for other connections.
    pub fn open(path: &Path, busy_timeout: Duration) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let identity = FileIdentity::of(path);
            let mut opened = Self::attach(path, busy_timeout)?;
            if FileIdentity::of(path) == identity {
                opened.identity = identity;
                return Ok(opened);
            }
            // Replaced just now: it is not known which of the two was opened.
        }
        Err(Error::ChangedSince { path: path.to_path_buf() })
    }

    fn attach(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let opening = |source| Error::sqlite(path, "opening", source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let uri = uri(path)?;
        for encoding in ENCODINGS {
            let conn = Connection::open_in_memory_with_flags(flags).map_err(opening)?;
            conn.busy_timeout(busy_timeout).map_err(opening)?;
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(opening)?;
            conn.pragma_update(None, "wal_autocheckpoint", 0).map_err(opening)?;
            conn.pragma_update(None, "encoding", encoding).map_err(opening)?;
            check_dbpage(&conn)?;
            match conn.execute(&format!("ATTACH ?1 AS {SCHEMA}"), [&uri]) {
                Ok(_) => return Ok(Self { conn, path: path.to_path_buf(), identity: None, busy_timeout }),
                Err(source) if is_of_another_encoding(&source) => {}
                Err(source) => return Err(explain_attach(path, source)),
            }
        }
        Err(Error::NotADatabase { path: path.to_path_buf() })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its write-ahead log, whether or not it exists.
    #[must_use]
    pub fn wal_path(&self) -> PathBuf {
        beside(&self.path, "-wal")
    }

    /// Whether both are connections to one file, and that file still stands at its path.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        self.identity == other.identity && self.identity == FileIdentity::of(&self.path)
    }

    /// Another connection to the same path.
    pub(crate) fn reopen(&self) -> Result<Self> {
        Self::open(&self.path, self.busy_timeout)
    }

    /// The size of the file's pages; for an empty file, of those that it would get.
    pub fn page_size(&self) -> Result<PageSize> {
        let bytes: u32 = self.pragma("page_size")?;
        PageSize::new(bytes).map_err(|_| Error::NotADatabase { path: self.path.clone() })
    }

    /// The size of the database.
    pub fn page_count(&self) -> Result<PageCount> {
        self.pragma("page_count").map(PageCount)
    }

    /// How the file is journaled now.
    pub fn journal_mode(&self) -> Result<JournalMode> {
        let mode: String = self.pragma("journal_mode")?;
        Ok(if mode.eq_ignore_ascii_case("wal") { JournalMode::Wal } else { JournalMode::Rollback })
    }

    /// Puts the file into WAL mode if nobody else holds it open in another one.
    pub fn enable_wal(&self) -> Result<JournalMode> {
        let sql = format!("PRAGMA {SCHEMA}.journal_mode=WAL");
        let mode: String = self
            .conn
            .query_row(&sql, [], |row| row.get(0))
            .map_err(|source| self.failed("switching to WAL", source))?;
        Ok(if mode.eq_ignore_ascii_case("wal") { JournalMode::Wal } else { JournalMode::Rollback })
    }

    /// A number that changes whenever another connection commits. Only differences mean anything.
    pub(crate) fn data_version(&self) -> Result<i64> {
        self.pragma("data_version")
    }

    /// Whether the database holds nothing: no page, or a first page that no schema was ever
    /// written to. The `VACUUM` that gives a blank database another page size counts its schema
    /// version up by one, and a database with a single view has that version too.
    pub fn is_blank(&self) -> Result<bool> {
        if self.page_count()?.0 > 1 {
            return Ok(false);
        }
        let cookie: i64 = self.pragma("schema_version")?;
        let user: i64 = self.pragma("user_version")?;
        let application: i64 = self.pragma("application_id")?;
        if cookie > 1 || user != 0 || application != 0 {
            return Ok(false);
        }
        let sql = format!("SELECT count(*)=0 FROM {SCHEMA}.sqlite_schema");
        self.conn.query_row(&sql, [], |row| row.get(0)).map_err(|source| self.failed("reading", source))
    }

    pub(crate) fn pragma<T: rusqlite::types::FromSql>(&self, name: &str) -> Result<T> {
        self.conn
            .query_row(&format!("PRAGMA {SCHEMA}.{name}"), [], |row| row.get(0))
            .map_err(|source| self.failed("reading", source))
    }

    /// Runs statements that return nothing.
    pub(crate) fn execute(&self, doing: &'static str, sql: &str) -> Result<()> {
        self.conn.execute_batch(sql).map_err(|source| self.failed(doing, source))
    }

    /// `BEGIN IMMEDIATE` succeeds on a file that cannot be written to, and only reads.
    pub(crate) fn refuse_read_only(&self) -> Result<()> {
        let read_only = self.conn.is_readonly(SCHEMA).map_err(|source| self.failed("opening", source))?;
        if read_only { Err(Error::ReadOnly { path: self.path.clone(), doing: "writing" }) } else { Ok(()) }
    }

    pub(crate) fn failed(&self, doing: &'static str, source: rusqlite::Error) -> Error {
        Error::sqlite(&self.path, doing, source)
    }

    /// The change counter of page 1 (bytes 24..28); 0 for a database without pages.
    pub(crate) fn change_counter(&self, page_count: PageCount) -> Result<u32> {
        if page_count.0 == 0 {
            return Ok(0);
        }
        let mut first = Vec::new();
        self.read_page(PageNo(1), &mut first)?;
        Ok(first.get(24..28).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes))
    }

    /// Reads one page as it stands, without making it canonical.
    pub(crate) fn read_page(&self, page: PageNo, into: &mut Vec<u8>) -> Result<()> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT data FROM sqlite_dbpage('replica') WHERE pgno=?1")
            .map_err(|source| self.failed("reading", source))?;
        statement
            .query_row([page.0], |row| {
                into.clear();
                into.extend_from_slice(row.get_ref(0)?.as_blob()?);
                Ok(())
            })
            .map_err(|source| self.failed("reading", source))
    }
}

/// Device and inode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity(u64, u64);

impl FileIdentity {
    /// None when there is no file, or the system does not tell.
    #[cfg(unix)]
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|meta| Self(meta.dev(), meta.ino()))
    }

    #[cfg(not(unix))]
    fn of(_path: &Path) -> Option<Self> {
        None
    }
}

/// A file beside the database: its whole name with `suffix` appended.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn check_dbpage(conn: &Connection) -> Result<()> {
    conn.prepare("SELECT data FROM sqlite_dbpage").map(drop).map_err(|_| Error::NoDbpage)
}

/// The file as a URI that SQLite will open but never create.
fn uri(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| Error::PathNotUtf8 { path: path.to_path_buf() })?;
    let absolute = if path.is_absolute() { "" } else { "./" };
    let mut uri = String::with_capacity(text.len() + 16);
    uri.push_str("file:");
    uri.push_str(absolute);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri.push_str("?mode=rw");
    Ok(uri)
}

fn is_of_another_encoding(error: &rusqlite::Error) -> bool {
    // SQLite has no code of its own for this refusal.
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown)
        && error.to_string().contains("must use the same text encoding")
}

fn explain_attach(path: &Path, source: rusqlite::Error) -> Error {
    if source.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen) {
        match std::fs::metadata(path) {
            Err(missing) => return Error::io(path, "opening", missing),
            Ok(meta) if meta.is_dir() => {
                return Error::io(path, "opening", std::io::ErrorKind::IsADirectory.into());
            }
            Ok(_) => return Error::ReadOnly { path: path.to_path_buf(), doing: "opening it" },
        }
    }
    Error::sqlite(path, "opening", source)
}
