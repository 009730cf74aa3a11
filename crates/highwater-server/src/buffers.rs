//! A bounded channel of large buffers from a thread that writes to a task that reads. The buffers
//! are used again: touching fresh memory for the first time is slower than a disk.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// The size of one buffer in bytes.
pub(crate) const BUFFER: usize = 1 << 20;

/// Buffers that came back.
#[derive(Debug, Clone, Default)]
struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER))
    }

    fn wrap(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Loan { bytes, pool: self.clone() })
    }
}

/// A full buffer on its way; it returns to the pool when the last reader drops it.
struct Loan {
    bytes: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

/// The writing end, for a thread that may block. When the reader is gone, writing fails with
/// [`io::ErrorKind::BrokenPipe`]; when it does not read for too long, with
/// [`io::ErrorKind::TimedOut`].
pub(crate) struct ChannelWriter {
    buffer: Vec<u8>,
    pool: Pool,
    sender: mpsc::Sender<Bytes>,
    whole: Arc<AtomicBool>,
    patience: Duration,
    runtime: Handle,
}

/// The reading end.
pub(crate) struct Buffers {
    receiver: mpsc::Receiver<Bytes>,
    /// Set by a writer that came to its end.
    whole: Arc<AtomicBool>,
}

/// A writer, and where its buffers come out; at most `depth` full ones wait between them.
///
/// Call it from within the runtime that the reader runs in.
pub(crate) fn channel(depth: usize, patience: Duration) -> (ChannelWriter, Buffers) {
    let (sender, receiver) = mpsc::channel(depth);
    let (pool, whole) = (Pool::default(), Arc::new(AtomicBool::new(false)));
    let buffers = Buffers { receiver, whole: Arc::clone(&whole) };
    let buffer = pool.take();
    (ChannelWriter { buffer, pool, sender, whole, patience, runtime: Handle::current() }, buffers)
}

impl ChannelWriter {
    /// Sends the rest, and tells the reader that this was all. A writer that is only dropped leaves
    /// the reader with an error.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.whole.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, self.pool.take());
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone");
        let full = match self.sender.try_send(self.pool.wrap(full)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(gone()),
            Err(TrySendError::Full(full)) => full,
        };
        let send = async { tokio::time::timeout(self.patience, self.sender.send(full)).await };
        match self.runtime.block_on(send) {
            Ok(sent) => sent.map_err(|_| gone()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the reader stopped reading")),
        }
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BUFFER.saturating_sub(self.buffer.len());
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.buffer.len() >= BUFFER {
            self.send()?;
        }
        Ok(taken)
    }

    /// Sends what is there, however little.
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

impl Buffers {
    /// The next buffer; an error when the writer stopped before its end, `None` after the end.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if let Some(buffer) = self.receiver.recv().await {
            return Some(Ok(buffer));
        }
        let whole = self.whole.swap(true, Ordering::SeqCst);
        (!whole).then(|| Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the writer did not finish")))
    }
}
