//! Bodies that notice who keeps whom waiting.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::watch::{Active, crawls};

/// The largest piece of an answer that is handed on at once, in bytes. Smaller than what connections
/// buffer, so that handing on the next piece says that the client took the ones before.
const PIECE: usize = 256 << 10;

/// The client let the server wait too long for too little.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly: less than {slowest} bytes a second")]
pub(super) struct TooSlow {
    slowest: u64,
}

/// The body of a request. Only the time in which the server waits for the client counts.
pub(super) struct Paced<B> {
    body: B,
    patience: Duration,
    slowest: u64,
    bytes: u64,
    waited: Duration,
    waiting: Option<Instant>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, patience: Duration, slowest: u64) -> Self {
        Self { body, patience, slowest, bytes: 0, waited: Duration::ZERO, waiting: None }
    }
}

impl<B> HttpBody for Paced<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.waiting.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        let waited = self.waiting.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.waited += waited;
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        };
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if self.waited > self.patience && crawls(self.bytes, self.waited, self.slowest) {
            let slow = TooSlow { slowest: self.slowest };
            tracing::debug!(error = %slow, "gave up on a body");
            return Poll::Ready(Some(Err(slow.into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, in pieces; the connection learns how they are taken.
pub(super) struct Answer {
    body: Body,
    /// What is left of a frame that was too large.
    rest: Bytes,
    active: Active,
}

impl Answer {
    pub(super) fn new(body: Body, active: Active) -> Self {
        Self { body, rest: Bytes::new(), active }
    }

    fn hand(&mut self, mut data: Bytes) -> Frame<Bytes> {
        if data.len() > PIECE {
            self.rest = data.split_off(PIECE);
        }
        self.active.handed(data.len());
        Frame::data(data)
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.active.asked();
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(self.hand(rest))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => self.hand(data),
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
