//! How often each caller may ask: a bucket for each, which fills at a steady rate.
//!
//! Written here because it is this short: the crates for it bring a concurrent map, clocks and
//! generics for cases that a server with one lock for a few nanoseconds does not have.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many callers are remembered before those that are quiet are forgotten.
const REMEMBERED: usize = 10_000;

/// A caller has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOften {
    /// Until the next request is allowed.
    pub(crate) wait: Duration,
}

/// A bucket, told by when it will be full.
#[derive(Debug)]
pub(super) struct Rate {
    /// The time that one request takes to be forgotten.
    each: Duration,
    /// A bucket that is full after this much time is empty now.
    depth: Duration,
    full_at: Mutex<HashMap<String, Instant>>,
}

impl Rate {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self { each, depth: each.saturating_mul(burst.max(1)), full_at: Mutex::default() }
    }

    /// Takes one request out of the caller's bucket.
    pub(super) fn take(&self, caller: &str) -> Result<(), TooOften> {
        self.take_at(caller, Instant::now())
    }

    fn take_at(&self, caller: &str, now: Instant) -> Result<(), TooOften> {
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED && !all.contains_key(caller) {
            // A full bucket is as good as none.
            all.retain(|_, full_at| *full_at > now);
        }
        let full_at = all.get(caller).copied().unwrap_or(now).max(now) + self.each;
        let missing = full_at.duration_since(now);
        if missing > self.depth {
            return Err(TooOften { wait: missing.saturating_sub(self.depth) });
        }
        all.insert(caller.to_owned(), full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let rate = Rate::new(10, 5);
        let now = Instant::now();
        for _ in 0..5 {
            assert_eq!(rate.take_at("a", now), Ok(()));
        }
        let wait = rate.take_at("a", now).unwrap_err().wait;
        assert_eq!(wait, Duration::from_millis(100));
        assert!(rate.take_at("b", now).is_ok(), "every caller has a bucket of its own");
        assert!(rate.take_at("a", now + wait).is_ok());
        assert!(rate.take_at("a", now + wait).is_err());
        let later = now + Duration::from_secs(60);
        assert_eq!(
            (0..9).filter(|_| rate.take_at("a", later).is_ok()).count(),
            5,
            "a pause fills the bucket"
        );
    }

    #[test]
    fn refused_requests_cost_nothing() {
        let rate = Rate::new(1, 1);
        let now = Instant::now();
        rate.take_at("a", now).unwrap();
        assert!((0..100).all(|_| rate.take_at("a", now).is_err()));
        assert!(rate.take_at("a", now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn quiet_callers_are_forgotten() {
        let rate = Rate::new(1, 1);
        let now = Instant::now();
        for caller in 0..REMEMBERED {
            rate.take_at(&caller.to_string(), now).unwrap();
        }
        rate.take_at("x", now + Duration::from_secs(2)).unwrap();
        assert_eq!(rate.full_at.lock().unwrap().len(), 1);
    }
}
