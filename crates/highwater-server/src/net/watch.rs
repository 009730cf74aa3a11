//! What one connection is doing: how many requests it has, since when it has none, and whether it
//! takes the answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::Limits;

/// One connection as seen by everything that keeps an eye on it.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    /// Cancelled when the connection must make room.
    pub(super) evicted: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// Requests whose answer is not handed on yet.
    active: usize,
    /// Since when there is none.
    idle_since: Instant,
    answers: HashMap<u64, Taking>,
    next: u64,
}

/// How an answer is taken.
#[derive(Debug, Default)]
struct Taking {
    /// Since when the client owes it to take more; `None` while the server owes it more.
    since: Option<Instant>,
    /// For how long it let the server wait so far.
    waited: Duration,
    bytes: u64,
}

/// What should happen to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// It has had no request for too long.
    Idle,
    /// An answer is not taken, or not fast enough.
    Stalled,
}

impl Watch {
    pub(super) fn new() -> Self {
        let state = State { active: 0, idle_since: Instant::now(), answers: HashMap::new(), next: 0 };
        Self { state: Mutex::new(state), evicted: CancellationToken::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when it has no request; `None` while it has one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.active == 0).then_some(state.idle_since)
    }

    /// A good deal was written to the network just now.
    pub(super) fn wrote(&self) {
        self.state().idle_since = Instant::now();
    }

    pub(super) fn verdict(&self, limits: &Limits) -> Verdict {
        let state = self.state();
        if state.active == 0 {
            let idle = state.idle_since.elapsed() >= limits.header_timeout;
            return if idle { Verdict::Idle } else { Verdict::Fine };
        }
        let stalled = |taking: &Taking| {
            let now = taking.since.map_or(Duration::ZERO, |since| since.elapsed());
            now >= limits.write_timeout
                || (taking.waited > limits.write_timeout
                    && crawls(taking.bytes, taking.waited, limits.slowest))
        };
        if state.answers.values().any(stalled) { Verdict::Stalled } else { Verdict::Fine }
    }
}

/// Whether so many bytes in that time are fewer than `slowest` a second.
pub(super) fn crawls(bytes: u64, took: Duration, slowest: u64) -> bool {
    u128::from(bytes) * 1000 < u128::from(slowest) * took.as_millis()
}

/// A request of a connection, until its answer is handed on or given up.
#[derive(Debug)]
pub(super) struct Active {
    watch: Arc<Watch>,
    id: u64,
}

impl Active {
    pub(super) fn new(watch: &Arc<Watch>) -> Self {
        let mut state = watch.state();
        state.active += 1;
        state.next += 1;
        let id = state.next;
        drop(state);
        Self { watch: Arc::clone(watch), id }
    }

    /// So many bytes of the answer were handed on: the client's turn.
    pub(super) fn handed(&self, bytes: usize) {
        let mut state = self.watch.state();
        let taking = state.answers.entry(self.id).or_default();
        taking.bytes += bytes as u64;
        taking.since = Some(Instant::now());
    }

    /// More of the answer is asked for.
    pub(super) fn asked(&self) {
        let mut state = self.watch.state();
        let taking = state.answers.entry(self.id).or_default();
        taking.waited += taking.since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        state.active = state.active.saturating_sub(1);
        state.idle_since = Instant::now();
        state.answers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let soon = Duration::from_millis(20);
        Limits { header_timeout: soon, write_timeout: soon, ..Limits::default() }
    }

    fn pause() {
        std::thread::sleep(Duration::from_millis(30));
    }

    #[test]
    fn a_connection_is_idle_only_without_requests() {
        let watch = Arc::new(Watch::new());
        let active = Active::new(&watch);
        pause();
        assert_eq!(watch.verdict(&limits()), Verdict::Fine, "the server is working");
        drop(active);
        assert_eq!(watch.verdict(&limits()), Verdict::Fine);
        pause();
        assert_eq!(watch.verdict(&limits()), Verdict::Idle);
    }

    #[test]
    fn only_the_client_can_stall_an_answer() {
        let watch = Arc::new(Watch::new());
        let active = Active::new(&watch);
        active.handed(1000);
        active.asked();
        pause();
        assert_eq!(watch.verdict(&limits()), Verdict::Fine, "the server owes more");
        active.handed(1000);
        pause();
        assert_eq!(watch.verdict(&limits()), Verdict::Stalled);
    }

    #[test]
    fn crawling_is_less_than_so_many_bytes_a_second() {
        assert!(crawls(1023, Duration::from_secs(1), 1024));
        assert!(!crawls(1024, Duration::from_secs(1), 1024));
        assert!(!crawls(0, Duration::from_secs(9), 0));
    }
}
