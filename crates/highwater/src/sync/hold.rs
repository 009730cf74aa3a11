//! Holding the application's writes back for a moment, when it commits so often that no answer ever fits.
//!
//! The pages of an answer fit the state that was sent, so nothing may be committed here between a capture and the
//! commit of the answer. An application that commits faster than a request takes would never get the other devices'
//! changes. So after some rounds the write lock is taken before the capture; and given back after a fixed short time, whether
//! or not the answer has come by then: a slow network must not stop an application.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_pages::{Replica, WriteLock};

use crate::error::{Error, Result};

/// The longest that an application is held back, the commit itself not counted.
const LONGEST: Duration = Duration::from_millis(250);

/// A write lock that gives itself back.
pub(crate) struct Hold {
    lock: Arc<Mutex<Option<WriteLock>>>,
    /// Dropped when the hold is over.
    _over: Sender<()>,
}

impl Hold {
    /// Takes the write lock.
    pub(super) fn take(replica: &Replica) -> Result<Self> {
        let lock = Arc::new(Mutex::new(Some(replica.lock_writes()?)));
        let (over, is_over) = channel::<()>();
        let watched = Arc::clone(&lock);
        let watch = move || {
            if is_over.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                tracing::debug!("the answer takes too long; the application may write again");
                drop(watched.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
        };
        std::thread::Builder::new().spawn(watch).map_err(|_| Error::Stopped)?;
        Ok(Self { lock, _over: over })
    }

    /// The lock, if it is still held.
    pub(super) fn lock(&self) -> Option<WriteLock> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.lock());
    }
}
