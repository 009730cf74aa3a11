//! Holding the application's writes back for a moment, when it commits so often that no answer ever fits.
//!
//! The pages of an answer fit the state that was sent, so nothing may be committed here between a capture and the
//! commit of the answer, unless what was committed can be rebased ([`super::rebase`]). Where it cannot, an application that commits faster than a
//! request takes would never get the other devices' changes. So after some rounds the write lock is taken before the capture; and given back when it was held for twice as long as the
//! quickest round took (the next time four times, and so on), and never later than after [`LONGEST`], whether or not the answer has come by
//! then. Where no round was quick enough to end within that time, the lock is not taken at all: the application would wait
//! for nothing.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater_pages::{Replica, WriteLock};

use crate::error::{Error, Result};

/// The longest that an application is held back, the commit itself not counted.
const LONGEST: Duration = Duration::from_millis(250);

/// The shortest: below it, a thread that wakes late decides.
const SHORTEST: Duration = Duration::from_millis(25);

/// How long writes may be held back when the quickest round took `quickest`, after `earlier` holds that did not suffice. None: a round does
/// not fit into the longest time.
pub(super) fn time_for(quickest: Duration, earlier: u32) -> Option<Duration> {
    let wanted = quickest.saturating_mul(2u32.saturating_pow(earlier.saturating_add(1)));
    (quickest <= LONGEST).then(|| wanted.clamp(SHORTEST, LONGEST))
}

/// A write lock that gives itself back.
pub(crate) struct Hold {
    began: Instant,
    most: Duration,
    lock: Arc<Mutex<Option<WriteLock>>>,
    /// Dropped when the hold is over.
    _over: Sender<()>,
}

impl Hold {
    /// Takes the write lock.
    pub(super) fn take(replica: &Replica, most: Duration) -> Result<Self> {
        let began = Instant::now();
        let lock = Arc::new(Mutex::new(Some(replica.lock_writes()?)));
        let (over, is_over) = channel::<()>();
        let watched = Arc::clone(&lock);
        let watch = move || {
            if is_over.recv_timeout(most) == Err(RecvTimeoutError::Timeout) {
                tracing::debug!("the answer takes too long; the application may write again");
                drop(watched.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
        };
        std::thread::Builder::new().spawn(watch).map_err(|_| Error::Stopped)?;
        Ok(Self { began, most, lock, _over: over })
    }

    /// For how long writes are held back so far.
    pub(super) fn lasted(&self) -> Duration {
        self.began.elapsed().min(self.most)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_held_back_for_as_long_as_a_round_takes_and_never_for_long() {
        let millis = Duration::from_millis;
        assert_eq!(time_for(millis(2), 0), Some(SHORTEST));
        assert_eq!(time_for(millis(20), 0), Some(millis(40)));
        assert_eq!(time_for(millis(20), 2), Some(millis(160)));
        assert_eq!(time_for(millis(20), 40), Some(LONGEST));
        assert_eq!(time_for(millis(200), 0), Some(LONGEST));
        assert_eq!(time_for(millis(251), 0), None, "the answer would come too late");
    }
}
