//! Syncing in the background: at an interval, and soon after local commits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::database::Database;
use crate::error::{ErrorKind, Result};
use crate::outcome::SyncOutcome;

/// How often the file is asked whether anybody committed. A few microseconds each.
const POLL: Duration = Duration::from_millis(50);
/// Longer than anybody waits; clocks cannot count to the largest durations.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// After failures the pause between two tries grows up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When to sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// To fetch other devices' changes. Default: 5 s.
    pub interval: Duration,
    /// How long after the last local commit. Default: 100 ms.
    pub after_commit: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), after_commit: Duration::from_millis(100) }
    }
}

/// Syncs a database until it is stopped or dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Database {
    /// Syncs now, then at an interval and soon after every local commit, whichever process made it.
    /// `on_event` is given every result; failures do not end it, except those that no retry mends
    /// (a conflict is tried again when something changed).
    pub fn watch(
        &self,
        options: WatchOptions,
        on_event: impl FnMut(Result<SyncOutcome>) + Send + 'static,
    ) -> Watch {
        let (stop, stopped) = channel();
        let database = self.clone();
        let watcher = Watcher { database, options, stopped, on_event: Box::new(on_event), file: None };
        let thread = std::thread::Builder::new().name("highwater-watch".to_owned()).spawn(|| watcher.run());
        let thread =
            thread.inspect_err(|error| tracing::warn!(%error, "no thread could be started to watch")).ok();
        Watch { stop: Some(stop), thread }
    }
}

impl Watch {
    /// Stops after the sync that is under way, if any.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the watching thread had failed");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

struct Watcher {
    database: Database,
    options: WatchOptions,
    stopped: Receiver<()>,
    on_event: Box<dyn FnMut(Result<SyncOutcome>) + Send>,
    file: Option<CommitCount>,
}

impl Watcher {
    fn run(mut self) {
        let mut failures = 0;
        loop {
            // Before the sync: a commit during it must not go unnoticed.
            let seen = self.commits();
            let result = self.database.sync_blocking();
            let conflict = matches!(&result, Err(error) if error.kind() == ErrorKind::Conflict);
            let offline = result.is_err() && !conflict;
            failures = if offline { failures + 1 } else { 0 };
            (self.on_event)(result);
            // A failing network is not asked more often because the application writes.
            let pause = self.options.interval.saturating_mul(1 << failures.min(4)).min(LONGEST_PAUSE);
            // A conflict is tried again when something was committed here, or now and then.
            let pause = if conflict { LONGEST_PAUSE } else { pause }.max(self.options.interval);
            if !self.wait(pause, (failures == 0).then_some(seen)) {
                return;
            }
        }
    }

    /// Waits for the interval to end or for a commit after `seen`, and then for a moment of quiet.
    /// False: stopped.
    fn wait(&mut self, interval: Duration, mut seen: Option<Option<i64>>) -> bool {
        let end = Instant::now() + interval.min(FOREVER);
        let mut due = end;
        loop {
            let now = Instant::now();
            if now >= due {
                return true;
            }
            match self.stopped.recv_timeout(POLL.min(due - now)) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return false,
            }
            if let Some(seen) = &mut seen {
                let commits = self.commits();
                if commits != *seen {
                    *seen = commits;
                    due = (Instant::now() + self.options.after_commit).min(end);
                }
            }
        }
    }

    /// A number that changes with every commit of anybody; None while the file does not exist.
    fn commits(&mut self) -> Option<i64> {
        if self.file.is_none() {
            self.file = CommitCount::open(self.database.path());
        }
        let count = self.file.as_ref().and_then(CommitCount::read);
        if count.is_none() {
            self.file = None;
        }
        count
    }
}

/// A connection that only counts other connections' commits.
struct CommitCount {
    connection: Connection,
    file: Arc<PathBuf>,
    identity: Option<(u64, u64)>,
}

impl CommitCount {
    fn open(db: &std::path::Path) -> Option<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(db, flags).ok()?;
        // It must never be the one that checkpoints.
        let config = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(config, true).ok()?;
        connection.pragma_update(None, "wal_autocheckpoint", 0).ok()?;
        Some(Self { connection, file: Arc::new(db.to_path_buf()), identity: identity(db) })
    }

    fn read(&self) -> Option<i64> {
        if identity(&self.file) != self.identity {
            return None;
        }
        self.connection.query_row("PRAGMA data_version", [], |row| row.get(0)).ok()
    }
}

#[cfg(unix)]
fn identity(db: &std::path::Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(db).ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity(db: &std::path::Path) -> Option<(u64, u64)> {
    db.exists().then_some((0, 0))
}
