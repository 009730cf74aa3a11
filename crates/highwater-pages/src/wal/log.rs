//! The bytes of a `-wal` file: its header, its frames, and the checksums that chain them.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>. A frame is valid if it
//! carries the salts of its round and the checksum that continues the chain of the frame before.
//! All reads are through one buffer, in order, and none trusts the file to stay as it is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use highwater_ltx::{FrameNo, PageNo, PageSize, WAL_FRAME_HEADER_SIZE, WAL_HEADER_SIZE};

use crate::error::{Error, Result};

/// The two numbers that tell a round of the log from the next: the first grows by one, the second
/// is random.
pub(super) type Salts = (u32, u32);

/// The running checksum after a frame, or after the header.
pub(super) type Checksum = (u32, u32);

/// The last bit of the magic number says whether checksums read words as big-endian.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// The header's size as a length of a buffer.
#[allow(clippy::cast_possible_truncation, reason = "it is 32")]
const HEADER_BYTES: usize = WAL_HEADER_SIZE as usize;

/// The size of a frame's header as a length of a buffer.
#[allow(clippy::cast_possible_truncation, reason = "it is 24")]
const FRAME_HEADER_BYTES: usize = WAL_FRAME_HEADER_SIZE as usize;

/// How much is read at first: most of the time there is little to read, and fresh memory is slow.
const FIRST_READ: usize = 32 << 10;

/// How much is read at once when there is much.
const READ_SIZE: usize = 1 << 20;

/// The header of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogHeader {
    pub(super) page_size: PageSize,
    pub(super) salts: Salts,
    pub(super) checksum: Checksum,
    big_endian: bool,
}

/// What the header of a log turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderRead {
    Valid(LogHeader),
    /// No file, or not even a header in it.
    Empty,
    /// A header that is half written or not one of a log.
    Invalid,
}

/// The header of a frame. `commit` is the size of the database in pages after the transaction that
/// the frame ends, 0 if it ends none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) page: PageNo,
    pub(super) commit: u32,
    pub(super) salts: Salts,
    pub(super) checksum: Checksum,
    /// A checksum of the frame's data alone, if it is a commit: equal data has equal ones.
    pub(super) content: Checksum,
}

/// Where a walk along the chain begins or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) salts: Salts,
    /// Valid frames so far, from the start of the log.
    pub(super) frames: u64,
    pub(super) checksum: Checksum,
}

/// Why a walk along the chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The file ends with the last valid frame.
    EndOfFile,
    /// The file ends within the next frame.
    PartialFrame,
    /// The next frame is whole but not of this chain.
    OtherFrame,
    /// The limit of frames was reached.
    Limit,
}

/// An open log.
pub(super) struct LogFile {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl LogFile {
    /// Opens the log; `None` if there is no file.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self { file, path: path.to_owned(), buffer: Vec::new() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, "opening", error)),
        }
    }

    /// Reads the header of the log as it is now.
    pub(super) fn header(&mut self) -> Result<HeaderRead> {
        let mut bytes = [0; HEADER_BYTES];
        if self.read_at(0, &mut bytes)? < bytes.len() {
            return Ok(HeaderRead::Empty);
        }
        Ok(parse_header(&bytes).map_or(HeaderRead::Invalid, HeaderRead::Valid))
    }

    /// Reads the header of frame `number` (from 1); `None` if the file does not hold the whole
    /// frame.
    pub(super) fn frame_header(&mut self, number: u64, page_size: PageSize) -> Result<Option<FrameHeader>> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let offset = FrameNo(number).wal_offset(page_size);
        if self.length()? < offset + page_size.frame_size() || self.read_at(offset, &mut bytes)? < bytes.len()
        {
            return Ok(None);
        }
        Ok(Some(parse_frame_header(&bytes)))
    }

    /// Reads the page in frame `number` (from 1); `false` if the file does not hold all of it.
    pub(super) fn frame_page(&mut self, number: u64, size: PageSize, into: &mut Vec<u8>) -> Result<bool> {
        into.resize(size.as_usize(), 0);
        let offset = FrameNo(number).wal_offset(size) + WAL_FRAME_HEADER_SIZE;
        Ok(self.read_at(offset, into)? == into.len())
    }

    /// Whether frame `chain.frames` still is what the chain says. A chain without frames is at
    /// the header, which its caller has compared.
    pub(super) fn holds(&mut self, chain: Chain, page_size: PageSize) -> Result<bool> {
        if chain.frames == 0 {
            return Ok(true);
        }
        let frame = self.frame_header(chain.frames, page_size)?;
        Ok(frame.is_some_and(|f| f.salts == chain.salts && f.checksum == chain.checksum))
    }

    /// Follows the chain from `start` as far as it is valid, at most up to frame number `limit`,
    /// and shows each frame with the chain up to and including it.
    pub(super) fn follow(
        &mut self,
        header: &LogHeader,
        start: Chain,
        limit: u64,
        mut see: impl FnMut(&FrameHeader, &Chain),
    ) -> Result<(Chain, Stop)> {
        let frame_size = header.page_size.as_usize() + FRAME_HEADER_BYTES;
        let whole_frames = |bytes: usize| (bytes / frame_size).max(1) * frame_size;
        let mut chain = start;
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.len() < whole_frames(FIRST_READ) || !buffer.len().is_multiple_of(frame_size) {
            buffer.resize(whole_frames(FIRST_READ), 0);
        }
        let stop = 'read: loop {
            let offset = FrameNo(chain.frames + 1).wal_offset(header.page_size);
            let length = self.read_at(offset, &mut buffer)?;
            let bytes = buffer.get(..length).unwrap_or_default();
            let mut whole = bytes.chunks_exact(frame_size);
            for frame in &mut whole {
                if chain.frames >= limit {
                    break 'read Stop::Limit;
                }
                match next_in_chain(frame, &chain, header.big_endian) {
                    Some((frame, next)) => {
                        chain = next;
                        see(&frame, &chain);
                    }
                    None => break 'read Stop::OtherFrame,
                }
            }
            if length < buffer.len() {
                // The file may have become shorter than where this read began.
                let end = FrameNo(chain.frames + 1).wal_offset(header.page_size);
                break if self.length()? == end { Stop::EndOfFile } else { Stop::PartialFrame };
            }
            buffer.resize(whole_frames(READ_SIZE).max(buffer.len()), 0);
        };
        self.buffer = buffer;
        Ok((chain, stop))
    }

    /// The file's length in bytes.
    fn length(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.len()).map_err(|error| Error::io(&self.path, "reading", error))
    }

    /// Fills the buffer from `offset` as far as the file goes.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut read = || {
            self.file.seek(SeekFrom::Start(offset))?;
            let mut filled = 0;
            while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match self.file.read(rest) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(filled)
        };
        read().map_err(|error| Error::io(&self.path, "reading", error))
    }
}

impl LogHeader {
    /// The chain before the first frame.
    pub(super) fn chain(&self) -> Chain {
        Chain { salts: self.salts, frames: 0, checksum: self.checksum }
    }
}

fn parse_header(bytes: &[u8; HEADER_BYTES]) -> Option<LogHeader> {
    let magic = word(bytes, 0);
    if magic & !1 != MAGIC || word(bytes, 4) != VERSION {
        return None;
    }
    let big_endian = magic & 1 == 1;
    let checksum = (word(bytes, 24), word(bytes, 28));
    if add_to_checksum((0, 0), bytes.get(..24)?, big_endian) != checksum {
        return None;
    }
    let page_size = PageSize::new(word(bytes, 8)).ok()?;
    Some(LogHeader { page_size, salts: (word(bytes, 16), word(bytes, 20)), checksum, big_endian })
}

fn parse_frame_header(bytes: &[u8]) -> FrameHeader {
    FrameHeader {
        page: PageNo(word(bytes, 0)),
        commit: word(bytes, 4),
        salts: (word(bytes, 8), word(bytes, 12)),
        checksum: (word(bytes, 16), word(bytes, 20)),
        content: (0, 0),
    }
}

/// The frame, if it is the valid next one after `chain`, and the chain with it.
fn next_in_chain(bytes: &[u8], chain: &Chain, big_endian: bool) -> Option<(FrameHeader, Chain)> {
    let (head, data) = bytes.split_at_checked(FRAME_HEADER_BYTES)?;
    let mut frame = parse_frame_header(head);
    if frame.page.0 == 0 || frame.salts != chain.salts {
        return None;
    }
    let checksum = add_to_checksum(chain.checksum, head.get(..8)?, big_endian);
    let checksum = add_to_checksum(checksum, data, big_endian);
    if checksum != frame.checksum {
        return None;
    }
    if frame.commit != 0 {
        frame.content = add_to_checksum((0, 0), data, big_endian);
    }
    Some((frame, Chain { salts: chain.salts, frames: chain.frames + 1, checksum }))
}

/// The checksum of a write-ahead log: two sums that feed each other, over pairs of words.
fn add_to_checksum(seed: Checksum, bytes: &[u8], big_endian: bool) -> Checksum {
    if big_endian { sum(seed, bytes, u32::from_be_bytes) } else { sum(seed, bytes, u32::from_le_bytes) }
}

#[inline]
fn sum((mut a, mut b): Checksum, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> Checksum {
    let (pairs, _) = bytes.as_chunks::<8>();
    for &[x0, x1, x2, x3, y0, y1, y2, y3] in pairs {
        a = a.wrapping_add(word([x0, x1, x2, x3])).wrapping_add(b);
        b = b.wrapping_add(word([y0, y1, y2, y3])).wrapping_add(a);
    }
    (a, b)
}

/// The big-endian word at `offset`. Callers pass constants within arrays of fixed size.
fn word(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_be_bytes(*word))
}
