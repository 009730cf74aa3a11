//! The bytes of a request's body, as a blocking reader: in memory when they are few, else handed
//! over while they arrive. At most a few megabytes wait in between.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use bytes::{Buf, Bytes};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::PushError;
use crate::http_api::Announced;
use crate::share::Charge;

/// Up to so many bytes are gathered before the reader starts.
const AT_FIRST: usize = 1 << 20;
/// Pieces that may wait for the reader. Each is at most what the connection reads at once.
const WAITING: usize = 16;
/// How much of a body that nobody wants is still read, in bytes, so that the client can finish
/// sending and read why.
const DRAINED: usize = 64 << 20;

/// How a body is compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Zstd,
}

/// Why the bytes of a body ended too early. Travels within an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyFault {
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("nothing of the body arrived for {} seconds", .0.as_secs())]
    Idle(Duration),
    #[error("the connection broke within the body")]
    Broken,
}

impl From<BodyFault> for io::Error {
    fn from(fault: BodyFault) -> Self {
        Self::other(fault)
    }
}

/// A body on its way.
#[derive(Debug)]
pub(crate) struct Incoming {
    first: VecDeque<Bytes>,
    rest: Option<mpsc::Receiver<Result<Bytes, BodyFault>>>,
}

impl Incoming {
    /// Waits for the beginning of a body; a task of `tasks` hands over the rest.
    pub(super) async fn begin(body: Body, idle: Duration, tasks: &TaskTracker) -> Result<Self, BodyFault> {
        let mut stream = body.into_data_stream();
        let mut first = VecDeque::new();
        let mut size = 0;
        while size <= AT_FIRST {
            match piece(&mut stream, idle).await {
                Some(Ok(bytes)) => {
                    size += bytes.len();
                    first.push_back(bytes);
                }
                Some(Err(fault)) => return Err(fault),
                None => return Ok(Self { first, rest: None }),
            }
        }
        let (sender, rest) = mpsc::channel(WAITING);
        tasks.spawn(hand_over(stream, idle, sender));
        Ok(Self { first, rest: Some(rest) })
    }

    /// Its size in bytes, when all of it has arrived.
    pub(super) fn in_memory(&self) -> Option<usize> {
        self.rest.is_none().then(|| self.first.iter().map(Bytes::len).sum())
    }

    /// Whether it can be what was announced. What is not all here yet has checksums of its own.
    pub(super) fn can_be(&self, announced: Announced) -> bool {
        self.rest.is_some() || announced.fits(self.first.iter().map(Bytes::as_ref))
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.in_memory() == Some(0)
    }
}

/// Waits for all of a body that must fit into memory. It takes memory as it arrives: what a client
/// announces keeps nobody else waiting.
pub(crate) async fn read_whole(
    body: Body,
    idle: Duration,
    limit: usize,
    charge: &Charge,
) -> Result<Vec<u8>, PushError> {
    let too_large = || PushError::TooLarge { limit: limit as u64 };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(bytes) = piece(&mut stream, idle).await {
        let bytes = bytes?;
        let size = whole.len() + bytes.len();
        if size > limit {
            return Err(too_large());
        }
        charge.cover(size as u64).await?;
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// Reads the rest of a body that nobody wants, so that the client can finish sending and read why.
pub(crate) fn discard(body: Body, idle: Duration, tasks: &TaskTracker) {
    let (sender, _) = mpsc::channel(1);
    tasks.spawn(hand_over(body.into_data_stream(), idle, sender));
}

async fn piece(stream: &mut BodyDataStream, idle: Duration) -> Option<Result<Bytes, BodyFault>> {
    match tokio::time::timeout(idle, stream.next()).await {
        Ok(Some(Ok(bytes))) => Some(Ok(bytes)),
        Ok(Some(Err(error))) => {
            tracing::debug!(%error, "the connection broke within a body");
            Some(Err(BodyFault::Broken))
        }
        Ok(None) => None,
        Err(_) => Some(Err(BodyFault::Idle(idle))),
    }
}

async fn hand_over(
    mut stream: BodyDataStream,
    idle: Duration,
    sender: mpsc::Sender<Result<Bytes, BodyFault>>,
) {
    let mut unwanted = 0;
    while unwanted < DRAINED {
        let Some(piece) = piece(&mut stream, idle).await else { return };
        let ended = piece.is_err();
        let size = piece.as_ref().map_or(0, Bytes::len);
        if sender.send(piece).await.is_err() {
            unwanted += size;
        }
        if ended {
            return;
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(bytes) = self.first.front_mut() {
                if bytes.is_empty() {
                    self.first.pop_front();
                    continue;
                }
                let taken = bytes.len().min(out.len());
                bytes.copy_to_slice(out.get_mut(..taken).unwrap_or_default());
                return Ok(taken);
            }
            match self.rest.as_mut().and_then(mpsc::Receiver::blocking_recv) {
                Some(Ok(bytes)) => self.first.push_back(bytes),
                Some(Err(fault)) => {
                    self.rest = None;
                    return Err(fault.into());
                }
                None => return Ok(0),
            }
        }
    }
}

/// Refuses to read more than `left` bytes, so that a small body cannot become an endless one.
pub(super) struct Limited<R> {
    reader: R,
    left: u64,
    limit: u64,
}

impl<R> Limited<R> {
    pub(super) fn new(reader: R, limit: u64) -> Self {
        Self { reader, left: limit, limit }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(out)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::from(BodyFault::TooLarge(self.limit)))?;
        Ok(read)
    }
}
