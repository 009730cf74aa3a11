//! Only one sync of a database file runs at a time, across processes: an advisory lock on a file
//! beside it. The lock ends with the process that holds it; the file stays, empty, unless there
//! turns out to be no database. Whoever gets a lock makes sure that its file still has its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often a waiting sync looks again.
const POLL: Duration = Duration::from_millis(20);

/// The held lock.
#[derive(Debug)]
pub(crate) struct SyncLock {
    /// Held until it is closed.
    file: File,
    path: PathBuf,
}

impl SyncLock {
    /// Waits up to `patience` for the lock of `db`; `waiting` is called once if it has to wait.
    pub(crate) fn acquire(
        lock_path: &Path,
        db: &Path,
        patience: Duration,
        waiting: impl FnOnce(),
    ) -> Result<Self> {
        let failed = |source| Error::Io { what: "locking", path: lock_path.to_path_buf(), source };
        let open = || OpenOptions::new().create(true).truncate(false).write(true).open(lock_path);
        let mut lock = Self { file: open().map_err(failed)?, path: lock_path.to_path_buf() };
        let began = Instant::now();
        let mut waiting = Some(waiting);
        loop {
            match lock.file.try_lock() {
                Ok(()) if lock.has_its_name() => return Ok(lock),
                Ok(()) => {
                    lock.file = open().map_err(failed)?;
                    continue;
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) => {}
            }
            if began.elapsed() >= patience {
                return Err(Error::SyncRunning { db: db.to_path_buf(), waited: patience });
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            std::thread::sleep(POLL.min(patience));
        }
    }
}

impl SyncLock {
    /// Takes the file away with the lock: there is no database that it would be for.
    pub(crate) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the lock file stays behind");
        }
    }

    #[cfg(unix)]
    fn has_its_name(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    /// Elsewhere an open file cannot lose its name.
    #[cfg(not(unix))]
    fn has_its_name(&self) -> bool {
        true
    }
}
