//! A large body on its way to the network: cut into chunks, each compressed on its own or not at all.
//!
//! Compressing is slower than a fast network and faster than a slow one. Which of the two it is shows
//! while sending, from how long this thread has to wait for room in the channel: not at all, while
//! it compresses, and the network could carry more, so that the next chunks go as they are; longer
//! than compressing would take, while it does not, and compressing costs nothing. Either way each
//! chunk is one zstd frame, and the body a row of them, which every decoder reads as one.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_pages::kill_point;
use tokio::sync::mpsc;

/// The size of a chunk before compression.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Chunks after which it is decided anew whether to compress.
const WINDOW: u32 = 8;
/// The network could carry more when this thread waits for less than this share of its work.
const NOT_AT_ALL: u32 = 8;
/// The most bytes in one block of a zstd frame.
const BLOCK_BYTES: usize = 128 << 10;

/// Gathers what is written into chunks and sends each as soon as it is full.
pub(crate) struct ChunkSender<'a> {
    chunks: mpsc::Sender<Bytes>,
    plain: Vec<u8>,
    pool: Pool,
    packer: Option<Packer>,
    sent: u64,
    done: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> ChunkSender<'a> {
    /// With a zstd level, the chunks are zstd frames. `progress` is told bytes before compression.
    pub(crate) fn new(
        chunks: mpsc::Sender<Bytes>,
        level: Option<i32>,
        progress: &'a mut dyn FnMut(u64),
    ) -> io::Result<Self> {
        let packer = level.map(Packer::new).transpose()?;
        let pool = Pool::default();
        Ok(Self { chunks, plain: pool.take(), pool, packer, sent: 0, done: 0, progress })
    }

    /// Bytes that went to the network.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends what was gathered, however little.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let mut chunk = self.pool.take();
        self.done += self.plain.len() as u64;
        match &mut self.packer {
            None => std::mem::swap(&mut chunk, &mut self.plain),
            Some(packer) => packer.pack(&self.plain, &mut chunk)?,
        }
        self.plain.clear();
        self.sent += chunk.len() as u64;
        (self.progress)(self.done);
        let began = Instant::now();
        let sent = self.chunks.blocking_send(self.pool.lend(chunk));
        if let Some(packer) = &mut self.packer {
            packer.waited(began.elapsed());
        }
        kill_point("push.chunk_sent");
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for ChunkSender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES.saturating_sub(self.plain.len()));
        self.plain.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.plain.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes zstd frames, and decides whether to compress.
struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
    compresses: bool,
    /// Chunks from the last decision to the next.
    window: u32,
    /// Chunks until the next decision.
    left: u32,
    /// Waiting for room in the channel since the last decision.
    waiting: Duration,
    /// Compressing since the last decision.
    working: Duration,
    /// What compressing a chunk takes, as it was measured last.
    work: Duration,
    /// How long not to compress counts as tried, in chunks: longer each time that it did not pay.
    pause: u32,
}

impl Packer {
    fn new(level: i32) -> io::Result<Self> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(level)?,
            compresses: true,
            window: WINDOW,
            left: WINDOW,
            waiting: Duration::ZERO,
            working: Duration::ZERO,
            work: Duration::ZERO,
            pause: WINDOW,
        })
    }

    fn pack(&mut self, plain: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
        if !self.compresses {
            store(plain, into);
            return Ok(());
        }
        let began = Instant::now();
        into.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        self.compressor.compress_to_buffer(plain, into)?;
        self.working += began.elapsed();
        Ok(())
    }

    /// A chunk went into the channel, after waiting so long.
    fn waited(&mut self, time: Duration) {
        self.waiting += time;
        self.left -= 1;
        if self.left > 0 {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting) / self.window;
        let working = std::mem::take(&mut self.working) / self.window;
        self.window = WINDOW;
        if self.compresses {
            self.work = working;
            self.compresses = waiting >= working / NOT_AT_ALL;
        } else if waiting > self.work {
            // The network is slower than compressing: it may be a long while until that changes.
            self.compresses = true;
            self.window = self.pause;
            self.pause = self.pause.saturating_mul(2);
        }
        self.left = self.window;
    }
}

/// A zstd frame that holds the bytes as they are (RFC 8878, 3.1.1): a single segment that says its
/// size in four bytes, and raw blocks.
fn store(plain: &[u8], into: &mut Vec<u8>) {
    const MAGIC_AND_DESCRIPTOR: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
    into.extend_from_slice(&MAGIC_AND_DESCRIPTOR);
    into.extend_from_slice(&word(plain.len()));
    let mut blocks = plain.chunks(BLOCK_BYTES).peekable();
    while let Some(block) = blocks.next() {
        let last = usize::from(blocks.peek().is_none());
        let [a, b, c, _] = word(block.len() << 3 | last);
        into.extend_from_slice(&[a, b, c]);
        into.extend_from_slice(block);
    }
}

/// A number of at most a chunk's size.
fn word(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

/// Buffers that are used again: touching fresh memory is slower than most networks.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| Vec::with_capacity(zstd::zstd_safe::compress_bound(CHUNK_BYTES)))
    }

    /// The buffer returns when its last reader drops it.
    fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Loan { bytes, pool: self.clone() })
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of few letters, which compresses well.
    fn content(bytes: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"abcdefgh"[(state >> 29) as usize]
        };
        (0..bytes).map(|_| next()).collect()
    }

    /// The chunks of the content, for a network that makes this thread wait so long for each.
    fn packed(content: &[u8], wait: Duration) -> Vec<Vec<u8>> {
        let mut packer = Packer::new(1).unwrap();
        let pack = |plain: &[u8]| {
            let mut chunk = Vec::new();
            packer.pack(plain, &mut chunk).unwrap();
            packer.waited(wait);
            chunk
        };
        content.chunks(CHUNK_BYTES).map(pack).collect()
    }

    #[test]
    fn a_body_of_both_kinds_of_chunks_is_read_as_one() {
        let content = content(24 * CHUNK_BYTES + 12_345);
        let chunks = packed(&content, Duration::ZERO);
        assert_eq!(zstd::decode_all(&*chunks.concat()).unwrap(), content);
        assert!(chunks[0].len() < CHUNK_BYTES / 2, "it begins with trying");
        assert!(chunks[23].len() > CHUNK_BYTES, "the network waits for it: no more trying");
    }

    #[test]
    fn what_a_slow_network_has_to_carry_is_compressed() {
        let content = content(24 * CHUNK_BYTES);
        let chunks = packed(&content, Duration::from_secs(3600));
        assert_eq!(zstd::decode_all(&*chunks.concat()).unwrap(), content);
        assert!(chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES / 2));
    }

    #[test]
    fn everything_that_is_written_is_sent() {
        let content = content(3 * CHUNK_BYTES + 12_345);
        let (chunks, mut receiver) = mpsc::channel::<Bytes>(2);
        let network = std::thread::spawn(move || {
            let mut all = Vec::new();
            while let Some(chunk) = receiver.blocking_recv() {
                all.extend_from_slice(&chunk);
            }
            all
        });
        let mut done = 0;
        let mut progress = |bytes| done = bytes;
        let mut sender = ChunkSender::new(chunks, Some(1), &mut progress).unwrap();
        content.chunks(5000).for_each(|piece| sender.write_all(piece).unwrap());
        sender.send().unwrap();
        let bytes = sender.sent();
        drop(sender);
        let all = network.join().unwrap();
        assert_eq!((bytes, done), (all.len() as u64, content.len() as u64));
        assert_eq!(zstd::decode_all(&*all).unwrap(), content);
    }

    #[test]
    fn stored_frames_of_every_size_are_valid() {
        for size in [1, 255, 256, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, CHUNK_BYTES] {
            let plain = content(size);
            let mut frame = Vec::new();
            store(&plain, &mut frame);
            assert_eq!(zstd::decode_all(&*frame).unwrap(), plain);
        }
    }
}
