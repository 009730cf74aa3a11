//! Only one sync of a database file runs at a time, across processes: an advisory lock on a file
//! beside it. The lock ends with the process that holds it; the file stays, empty.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often a waiting sync looks again.
const POLL: Duration = Duration::from_millis(20);

/// The held lock.
#[derive(Debug)]
pub(crate) struct SyncLock(#[expect(dead_code, reason = "held until it is dropped")] File);

impl SyncLock {
    /// Waits up to `patience` for the lock of `db`; `waiting` is called once if it has to wait.
    pub(crate) fn acquire(
        lock_path: &Path,
        db: &Path,
        patience: Duration,
        waiting: impl FnOnce(),
    ) -> Result<Self> {
        let failed = |source| Error::Io { what: "locking", path: lock_path.to_path_buf(), source };
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(lock_path).map_err(failed)?;
        let began = Instant::now();
        let mut waiting = Some(waiting);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
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
