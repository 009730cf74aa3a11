//! A situation that can be repeated: one local database, one server, and the files beside the
//! database as a case wants them. A sync of the situation with intact files says what every other
//! case has to come to.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use highwater::{Action, Database, Position, RemoteDatabase, SyncOutcome, TxId};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::common::{Warnings, World, assert_same, insert, rows};

/// What happened in the local file since the last sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// New rows.
    Inserts,
    /// Rows changed, on other pages than those that the last push changed.
    Apart,
    /// The same row changed that the last push changed.
    Again,
    /// Nothing here, but another device has pushed.
    Elsewhere,
}

/// What became of the write-ahead log since the last sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    Continues,
    /// Checkpointed and truncated, and the application has closed the file.
    Gone,
}

/// The files beside a database. None: there is no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    pub info: Option<Vec<u8>>,
    pub sums: Option<Vec<u8>>,
}

/// What a sync comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Result {
    action: Action,
    position: Option<Position>,
    txid: Option<TxId>,
    pushed: u64,
    pulled: u64,
}

impl From<&SyncOutcome> for Result {
    fn from(outcome: &SyncOutcome) -> Self {
        Self {
            action: outcome.action,
            position: outcome.position,
            txid: outcome.txid,
            pushed: outcome.pushed.frames,
            pulled: outcome.pulled.frames,
        }
    }
}

pub struct Bench {
    pub world: World,
    pub db: Database,
    /// The files beside the database after its last sync.
    pub intact: Beside,
    /// Those after the syncs before, oldest first.
    pub older: Vec<Beside>,
    /// What a sync with intact files comes to.
    pub expected: Result,
    pub name: String,
    /// As they are before each case; None where there is no file.
    local: [(PathBuf, Option<Vec<u8>>); 2],
    /// The rows after the sync.
    rows: Vec<String>,
    pushes: BTreeSet<OsString>,
    /// Keeps the log in place.
    _application: Option<Connection>,
    warnings: Warnings,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Bench {
    /// `rows`: how many there are at first; 500 bytes hold 30.
    pub fn new(change: Change, log: Log, count: u32) -> Self {
        // One open database, so that asking for another makes the server forget this one.
        let world = World::in_memory(|config| config.limits.open_databases = 1);
        let size = highwater::PageSize::new(512).unwrap();
        let db = world.builder("app.db").page_size(size).open().unwrap();
        let application = application(&db);
        application.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT NOT NULL)").unwrap();
        insert(&application, count);
        db.sync_blocking().unwrap();
        let mut older = vec![Beside::read(db.path())];
        for row in [5, i64::from(count / 2)] {
            set(&application, row, "pushed");
            insert(&application, 3);
            db.sync_blocking().unwrap();
            older.push(Beside::read(db.path()));
        }
        let intact = older.pop().unwrap();
        match change {
            Change::Nothing => {}
            Change::Inserts => insert(&application, 4),
            Change::Apart => set(&application, i64::from(count / 4), "local"),
            Change::Again => set(&application, i64::from(count / 2), "local"),
            Change::Elsewhere => elsewhere(&world, i64::from(count / 4 * 3)),
        }
        let application = match log {
            // The file is replaced under the connection, so there must be none.
            Log::Continues if change == Change::Elsewhere => None,
            Log::Continues => Some(application),
            Log::Gone => {
                application.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
                drop(application);
                remove(&beside(db.path(), "-wal"));
                None
            }
        };
        let local = [db.path().to_path_buf(), beside(db.path(), "-wal")].map(|path| {
            let bytes = std::fs::read(&path).ok();
            (path, bytes)
        });
        let (warnings, guard) = Warnings::collect();
        let mut bench = Self {
            pushes: pushes(&world),
            name: format!("{change:?}, log {log:?}, {count} rows"),
            expected: Result { action: Action::NothingYet, position: None, txid: None, pushed: 0, pulled: 0 },
            rows: Vec::new(),
            _application: application,
            _guard: guard,
            world,
            db,
            intact,
            older,
            local,
            warnings,
        };
        bench.reset(&bench.intact);
        let outcome = bench.db.sync_blocking().unwrap();
        bench.expected = Result::from(&outcome);
        bench.rows = rows(bench.db.path());
        assert_same(bench.db.path(), &bench.world.restored("app"));
        let action = match change {
            Change::Nothing => Action::UpToDate,
            Change::Elsewhere => Action::Pulled,
            _ => Action::Pushed,
        };
        assert_eq!(bench.expected.action, action, "{}", bench.name);
        assert_eq!(bench.warnings.take(), [""; 0], "{}", bench.name);
        bench
    }

    /// Puts everything back, the server included, and the given files beside the database.
    pub fn reset(&self, beside_it: &Beside) {
        for (path, bytes) in &self.local {
            if self._application.is_none() {
                put(path, bytes.as_deref());
            }
        }
        if self._application.is_none() {
            remove(&beside(self.db.path(), "-shm"));
        }
        beside_it.write(self.db.path());
        for push in pushes(&self.world).difference(&self.pushes) {
            std::fs::remove_file(store(&self.world).join(push)).unwrap();
        }
        // The server has this database in memory no longer.
        let decoy = RemoteDatabase::new(&self.world.url("decoy"), None).unwrap();
        decoy.info_blocking().unwrap_err();
    }

    /// Runs one case: a sync with these files beside the database comes to what one with intact
    /// files comes to. Returns its warnings.
    pub fn case(&self, case: &str, beside_it: &Beside) -> Vec<String> {
        let case = format!("{} ({})", case, self.name);
        self.reset(beside_it);
        self.warnings.take();
        let outcome = self.db.sync_blocking().unwrap_or_else(|error| panic!("{case}: {error}"));
        let warnings = self.warnings.take();
        assert_eq!(Result::from(&outcome), self.expected, "{case}: {warnings:?}");
        self.check(&case);
        warnings
    }

    /// Runs a case in which nobody can know what is new here: it is merged with what the server has, and nothing that is
    /// here is lost. (A row may be there twice: which of two equal ones it is, nobody can say.)
    pub fn unknowable(&self, case: &str, beside_it: &Beside) {
        if self.name.contains("log Continues") {
            // What is merged is written into the log of an open connection, which cannot be set back under it.
            return;
        }
        let case = format!("{} ({})", case, self.name);
        self.reset(beside_it);
        let before = texts(self.db.path());
        self.db.sync_blocking().unwrap_or_else(|error| panic!("{case}: {error}"));
        let after = texts(self.db.path());
        assert!(before.is_subset(&after), "{case}: {:?}", before.difference(&after));
        assert_same(&self.world.restored("app"), self.db.path());
        assert_eq!(self.db.sync_blocking().unwrap().action, Action::UpToDate, "{case}");
        self.reset(&self.intact);
        self.db.sync_blocking().unwrap();
        self.warnings.take();
    }

    /// The database and its log are as before.
    fn check_local(&self, case: &str) {
        for (path, bytes) in &self.local {
            let now = std::fs::read(path).ok().filter(|bytes| !bytes.is_empty());
            let before = bytes.clone().filter(|bytes| !bytes.is_empty());
            assert!(now == before, "{case}: {} was rewritten", path.display());
        }
    }

    /// Everything is as after the intact sync, and healed.
    pub fn check(&self, case: &str) {
        if self.expected.action == Action::Pulled {
            assert_eq!(rows(self.db.path()), self.rows, "{case}");
        } else {
            self.check_local(case);
        }
        let status = self.db.status().unwrap();
        assert_eq!(status.base, self.expected.position, "{case}");
        assert_eq!((status.txid, status.unpushed_pages), (self.expected.txid, Some(0)), "{case}");
        assert_eq!(status.warning, None, "{case}");
        let again = self.db.sync_blocking().unwrap_or_else(|error| panic!("{case}, again: {error}"));
        assert_eq!((again.action, again.requests), (Action::UpToDate, 1), "{case}, again");
        assert_eq!(again.position, self.expected.position, "{case}, again");
        assert_eq!(self.warnings.take(), [""; 0], "{case}, again");
    }

    /// The server ends with the same rows too. (That it ends at the same position says so already;
    /// this is for those who do not believe in hashes.)
    pub fn check_server(&self) {
        assert_same(&self.world.restored("app"), self.db.path());
    }

    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }
}

impl Beside {
    pub fn read(db: &Path) -> Self {
        Self { info: std::fs::read(beside(db, "-info")).ok(), sums: std::fs::read(beside(db, "-sums")).ok() }
    }

    pub fn write(&self, db: &Path) {
        put(&beside(db, "-info"), self.info.as_deref());
        put(&beside(db, "-sums"), self.sums.as_deref());
    }

    pub fn with_info(&self, info: &[u8]) -> Self {
        Self { info: Some(info.to_vec()), sums: self.sums.clone() }
    }

    pub fn with_sums(&self, sums: &[u8]) -> Self {
        Self { info: self.info.clone(), sums: Some(sums.to_vec()) }
    }
}

fn texts(db: &Path) -> BTreeSet<String> {
    let connection = Connection::open(db).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    let mut statement = connection.prepare("SELECT text FROM t").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(rusqlite::Result::unwrap).collect()
}

pub fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A connection as applications have it, but that leaves the log behind when it is closed.
fn application(db: &Database) -> Connection {
    let connection = db.connect().unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection
}

/// Another device pulls, changes something and pushes.
fn elsewhere(world: &World, row: i64) {
    let db = world.open("other.db");
    db.sync_blocking().unwrap();
    let connection = application(&db);
    set(&connection, row, "elsewhere");
    insert(&connection, 2);
    db.sync_blocking().unwrap();
}

fn set(connection: &Connection, row: i64, text: &str) {
    let changed = connection.execute("UPDATE t SET text=?2 || id WHERE id=?1", (row, text)).unwrap();
    assert_eq!(changed, 1);
}

fn store(world: &World) -> PathBuf {
    world.path("store/app/ltx/0")
}

fn pushes(world: &World) -> BTreeSet<OsString> {
    std::fs::read_dir(store(world)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn put(path: &Path, bytes: Option<&[u8]>) {
    match bytes {
        // In place: the file stays the same one.
        Some(bytes) => std::fs::write(path, bytes).unwrap(),
        None => remove(path),
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", path.display());
    }
}
