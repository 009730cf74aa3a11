//! Whether the server can do its work: `/readyz`.
//!
//! The store is tried for real, by writing and reading a small object, at most once a second however
//! many ask.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::log::Context;

/// What was found out holds for so long.
const FRESH: Duration = Duration::from_secs(1);
/// A store that takes longer is not ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last answer.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    last: Mutex<Option<(Instant, Result<(), &'static str>)>>,
}

impl Ready {
    /// Whether the server is ready; if not, why, as a clause.
    pub(crate) async fn check(&self, context: &Context) -> Result<(), &'static str> {
        if context.stopping.load(Ordering::SeqCst) {
            return Err("the server is stopping");
        }
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = *last
            && at.elapsed() < FRESH
        {
            return answer;
        }
        let answer = match tokio::time::timeout(PATIENCE, context.store.probe()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(error = %crate::error::chain(&error), "the store is not ready");
                Err("the store cannot be written and read")
            }
            Err(_) => {
                tracing::error!("the store is not ready: it takes too long to answer");
                Err("the store takes too long to answer")
            }
        };
        *last = Some((Instant::now(), answer));
        answer
    }
}
