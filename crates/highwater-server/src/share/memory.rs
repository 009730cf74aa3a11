//! A budget of memory for bodies, in steps of a kibibyte.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, Result};

/// What everybody may take without asking, in bytes: most pushes never wait.
const FREE: u64 = 256 << 10;
/// A body in memory takes about this many times its size: the pages, the file made of them, the
/// decompressor's window.
const TIMES: u64 = 3;
/// A body of unknown size asks for this much at a time, in bytes.
const STEP: u64 = 1 << 20;

/// Memory that requests share.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    all: u32,
    wait: Duration,
}

impl Budget {
    pub(super) fn new(bytes: u64, wait: Duration) -> Self {
        let all = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(all as usize)), all, wait }
    }

    /// Nothing of it yet, for one request whose buffers take at most `most` bytes.
    pub(crate) fn charge(&self, most: u64) -> Charge {
        Charge { budget: self.clone(), most, held: Arc::default() }
    }
}

/// What one request holds of a budget, until its last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Charge {
    budget: Budget,
    most: u64,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Charge {
    /// Waits until it holds what a body of `bytes` bytes takes in memory.
    pub(crate) async fn cover(&self, bytes: u64) -> Result<()> {
        let missing = self.missing(bytes);
        if missing == 0 {
            return Ok(());
        }
        let acquire = Arc::clone(&self.budget.free).acquire_many_owned(missing);
        let permit = tokio::time::timeout(self.budget.wait, acquire).await;
        self.hold(permit.map_err(|_| Error::Overloaded)?.map_err(|_| Error::Overloaded)?);
        Ok(())
    }

    /// [`Charge::cover`] for code that is not async: it waits on a thread that may block, else it does
    /// not wait.
    pub(crate) fn cover_now(&self, bytes: u64, runtime: Option<&Handle>) -> Result<()> {
        let missing = self.missing(bytes);
        if missing == 0 {
            return Ok(());
        }
        match (Arc::clone(&self.budget.free).try_acquire_many_owned(missing), runtime) {
            (Ok(permit), _) => {
                self.hold(permit);
                Ok(())
            }
            (Err(_), Some(runtime)) => runtime.block_on(self.cover(bytes)),
            (Err(_), None) => Err(Error::Overloaded),
        }
    }

    fn hold(&self, permit: OwnedSemaphorePermit) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
    }

    /// Steps that it lacks for a body of that size; never more than there are at all.
    fn missing(&self, bytes: u64) -> u32 {
        if bytes <= FREE {
            return 0;
        }
        let steps = bytes.saturating_mul(TIMES).min(self.most).div_ceil(1 << 10);
        let steps = u32::try_from(steps).unwrap_or(u32::MAX).min(self.budget.all);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        steps.saturating_sub(u32::try_from(held).unwrap_or(u32::MAX))
    }
}

/// A reader that asks for memory as it is read; for a thread that may block. Make it within the
/// runtime.
pub(crate) struct Metered<R> {
    reader: R,
    charge: Charge,
    runtime: Handle,
    read: u64,
    covered: u64,
}

impl<R> Metered<R> {
    pub(crate) fn new(reader: R, charge: Charge) -> Self {
        Self { reader, charge, runtime: Handle::current(), read: 0, covered: FREE }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.read >= self.covered {
            self.covered = self.read + STEP;
            self.charge.cover_now(self.covered, Some(&self.runtime)).map_err(io::Error::other)?;
        }
        let read = self.reader.read(out)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// A body that holds a charge until it was sent.
pub(crate) struct Charged {
    body: Body,
    _charge: Charge,
}

impl Charged {
    pub(crate) fn body(body: Body, charge: Charge) -> Body {
        Body::new(Self { body, _charge: charge })
    }
}

impl HttpBody for Charged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::new(12 << 20, Duration::from_millis(20))
    }

    #[tokio::test]
    async fn small_bodies_never_wait_and_large_ones_share() {
        let budget = budget();
        let (first, second) = (budget.charge(64 << 20), budget.charge(64 << 20));
        first.cover(3 << 20).await.unwrap();
        second.cover(1 << 20).await.unwrap();
        assert!(matches!(second.cover(2 << 20).await, Err(Error::Overloaded)));
        second.cover(FREE).await.unwrap();
        drop(first);
        second.cover(2 << 20).await.unwrap();
    }

    #[tokio::test]
    async fn a_body_larger_than_the_budget_takes_all_of_it() {
        let budget = budget();
        let charge = budget.charge(u64::MAX);
        charge.cover(1 << 40).await.unwrap();
        charge.cover(1 << 41).await.unwrap();
        drop(charge);
        assert_eq!(budget.free.available_permits(), budget.all as usize);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_asks_as_it_is_read() {
        let budget = budget();
        let taken = budget.charge(u64::MAX);
        taken.cover(3 << 20).await.unwrap();
        let charge = budget.charge(64 << 20);
        let work = tokio::task::spawn_blocking(move || {
            io::copy(&mut Metered::new(io::repeat(0).take(16 << 20), charge), &mut io::sink())
        });
        assert!(work.await.unwrap().is_err(), "what it decompresses to is more than there is");
        assert_eq!(budget.free.available_permits(), (3 << 20 >> 10) as usize);
    }
}
