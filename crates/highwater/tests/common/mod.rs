//! What the tests of the client share: a real server on a real socket, real files, and comparison
//! by rows, by integrity check and by content.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::{Builder, Database};
use highwater_server::{Config, Embedded, StoreUrl};
use rusqlite::Connection;

/// A folder with a server's store and any number of local files.
pub struct World {
    pub folder: tempfile::TempDir,
    pub server: Option<Embedded>,
    addr: std::net::SocketAddr,
}

impl World {
    /// Starts a server over a fresh store.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Embedded::start(config(folder.path()), "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = server.addr();
        Self { folder, server: Some(server), addr }
    }

    pub fn with_config(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        let server = Embedded::start(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = server.addr();
        Self { folder, server: Some(server), addr }
    }

    /// The URL of a database.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.addr)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// A local copy of the database `app` in the file `file`.
    pub fn open(&self, file: &str) -> Database {
        self.builder(file).open().unwrap()
    }

    pub fn builder(&self, file: &str) -> Builder {
        Builder::new(self.path(file)).remote(self.url("app")).timeout(Duration::from_secs(5))
    }

    pub fn stop_server(&mut self) {
        self.server.take().unwrap().stop().unwrap();
    }

    /// Starts the server again over the same store, at the same address.
    pub fn start_server(&mut self) {
        self.server = Some(Embedded::start(config(self.folder.path()), self.addr).unwrap());
    }

    /// A database on the server, restored into a new file.
    pub fn restored(&self, name: &str) -> PathBuf {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let out = self.path(&format!("restored-{number}.db"));
        let remote = highwater::RemoteDatabase::new(&self.url(name), None).unwrap();
        remote.restore_blocking(&out, highwater::At::Head, |_| ()).unwrap();
        out
    }
}

fn config(folder: &Path) -> Config {
    let store: StoreUrl = folder.join("store").to_str().unwrap().parse().unwrap();
    Config { store, ..Config::default() }
}

/// Every row of every table, in a form that can be compared, after an integrity check.
pub fn rows(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok", "{}", path.display());
    let mut tables = connection
        .prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")
        .unwrap();
    let tables: Vec<(String, String)> =
        tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let mut all = Vec::new();
    for (table, sql) in tables {
        all.push(sql);
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> =
                (0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap())).collect();
            all.push(format!("{table}: {}", values.join(" | ")));
        }
    }
    all
}

/// Both files hold the same rows in sound databases.
pub fn assert_same(left: &Path, right: &Path) {
    assert_eq!(rows(left), rows(right), "{} and {}", left.display(), right.display());
}

/// Makes a table with `count` rows.
pub fn fill(database: &Database, count: u32) -> Connection {
    let connection = database.connect().unwrap();
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        .unwrap();
    insert(&connection, count);
    connection
}

/// Adds `count` rows in one transaction.
pub fn insert(connection: &Connection, count: u32) {
    connection
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<?1) \
             INSERT INTO t(text) SELECT 'row ' || i || ' of ' || ?1 FROM n",
            [count],
        )
        .unwrap();
}

impl World {
    /// A world whose folder is in memory where the system has such a folder: for tests of
    /// thousands of cases that are not about the disk.
    pub fn in_memory(change: impl FnOnce(&mut Config)) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        let server = Embedded::start(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = server.addr();
        Self { folder, server: Some(server), addr }
    }
}

/// The seed of a random test: `HIGHWATER_TEST_SEED`, or else `default`. To be printed by the test.
pub fn seed(default: u64) -> u64 {
    std::env::var("HIGHWATER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default)
}

/// How much of a long test to run: `HIGHWATER_TEST_ROUNDS`, or else `default`.
pub fn rounds(default: u32) -> u32 {
    std::env::var("HIGHWATER_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

/// Numbers that depend on the seed alone.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Warnings and errors that this thread's syncs log, until the guard is dropped.
#[derive(Debug, Clone, Default)]
pub struct Warnings(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Warnings {
    /// Collects on this thread, and on the threads of its syncs.
    pub fn collect() -> (Self, tracing::subscriber::DefaultGuard) {
        use tracing_subscriber::layer::SubscriberExt;
        let warnings = Self::default();
        let subscriber = tracing_subscriber::registry().with(warnings.clone());
        (warnings, tracing::subscriber::set_default(subscriber))
    }

    /// Those since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                use std::fmt::Write;
                write!(self.0, "{}={value:?} ", field.name()).unwrap();
            }
        }
        if *event.metadata().level() <= tracing::Level::WARN {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}
