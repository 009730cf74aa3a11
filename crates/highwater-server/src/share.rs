//! What keeps a busy server from falling over: how often each caller may ask, how many requests are
//! worked on at once, and how much memory their bodies take together.
//!
//! Who comes too often is told when to come again; who comes when everything is taken waits a moment
//! and is then told the same. Health, readiness, version and metrics never pass through here.
//!
//! Memory is in two halves, one for requests and one for answers, so that no request that is done
//! waits for memory that requests hold.

mod memory;
mod rate;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::Limits;
pub(crate) use memory::{Charge, Charged, Metered};
pub(crate) use rate::TooOften;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shares {
    rate: Option<rate::Rate>,
    requests: Semaphore,
    queries: Arc<Semaphore>,
    wait: Duration,
    /// For the bodies of requests.
    pub(crate) incoming: memory::Budget,
    /// For the bodies of answers.
    pub(crate) outgoing: memory::Budget,
}

impl Shares {
    pub(crate) fn new(limits: &Limits) -> Self {
        let half = limits.memory / 2;
        Self {
            rate: (limits.rate > 0).then(|| rate::Rate::new(limits.rate, limits.burst)),
            requests: Semaphore::new(limits.requests.clamp(1, Semaphore::MAX_PERMITS)),
            queries: Arc::new(Semaphore::new(limits.queries.clamp(1, Semaphore::MAX_PERMITS))),
            wait: limits.wait,
            incoming: memory::Budget::new(half, limits.wait),
            outgoing: memory::Budget::new(half, limits.wait),
        }
    }

    /// Counts one request of a caller.
    pub(crate) fn count(&self, caller: &str) -> Result<(), TooOften> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(caller))
    }

    /// A place among the queries that run; `None` when there is none for too long.
    pub(crate) async fn query(&self) -> Option<OwnedSemaphorePermit> {
        tokio::time::timeout(self.wait, Arc::clone(&self.queries).acquire_owned()).await.ok()?.ok()
    }

    /// A place among the requests that are worked on; `None` when there is none for too long.
    pub(crate) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.requests.try_acquire() {
            return Some(permit);
        }
        tokio::time::timeout(self.wait, self.requests.acquire()).await.ok()?.ok()
    }
}
