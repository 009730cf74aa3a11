//! The bytes of a `<db>-sums` file: a header, a table in blocks, segments. All big-endian.
//!
//! Each part ends with a CRC-32C of that part which starts from the CRC of the part before.

use highwater_ltx::{FrameNo, Generation, PageCount, PageNo, PageSize, Position, StateHash};

pub(super) const MAGIC: [u8; 8] = *b"HWSUMS01";
pub(super) const SEGMENT_MAGIC: [u8; 4] = *b"SEG1";

/// The header of the file with its checksum, in bytes.
pub(super) const HEADER_SIZE: usize = 48;
/// The header of a segment, in bytes; entries and a checksum follow.
pub(super) const SEGMENT_HEADER_SIZE: usize = 40;
/// Page hashes in a block of the table; the last one may hold fewer.
pub(super) const BLOCK_ENTRIES: usize = 256;
/// A page hash in the table, in bytes.
pub(super) const HASH_SIZE: usize = 16;
/// A page number and its hash in a segment, in bytes.
pub(super) const ENTRY_SIZE: usize = 20;
/// Every checksum, in bytes.
pub(super) const CRC_SIZE: usize = 4;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) position: Position,
    pub(super) page_size: PageSize,
    pub(super) count: PageCount,
}

/// A change of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) position: Position,
    pub(super) count: PageCount,
    /// Ascending.
    pub(super) entries: Vec<(PageNo, u128)>,
}

/// The checksum of `bytes` behind a part whose checksum was `before`.
pub(super) fn crc(before: u32, bytes: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&before.to_be_bytes());
    digest.update(bytes);
    // A CRC-32 has 32 bits.
    u32::try_from(digest.finalize()).unwrap_or_default()
}

/// The size of a table of so many pages on disk, in bytes.
pub(super) fn table_size(count: PageCount) -> u64 {
    let blocks = u64::from(count.0).div_ceil(BLOCK_ENTRIES as u64);
    u64::from(count.0) * HASH_SIZE as u64 + blocks * CRC_SIZE as u64
}

impl Header {
    /// The bytes of the header, and its checksum.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(HEADER_SIZE);
        bytes.extend(MAGIC);
        put_position(&mut bytes, &self.position);
        bytes.extend(self.page_size.get().to_be_bytes());
        bytes.extend(self.count.0.to_be_bytes());
        let sum = crc(0, &bytes);
        bytes.extend(sum.to_be_bytes());
        (bytes, sum)
    }

    /// The header and its checksum, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<(Self, u32), &'static str> {
        let mut parts = Parts(bytes);
        if parts.take() != Some(MAGIC) {
            return Err("it is not a file of page sums, or one of a newer version");
        }
        let decoded = (|| {
            let position = parts.position()?;
            let page_size = PageSize::new(parts.u32()?).ok();
            let count = PageCount(parts.u32()?);
            Some((position, page_size, count, parts.u32()?))
        })();
        let Some((position, page_size, count, sum)) = decoded else { return Err("it is too short") };
        if bytes.split_last_chunk::<CRC_SIZE>().map(|(body, _)| crc(0, body)) != Some(sum) {
            return Err("the checksum of its header is wrong");
        }
        let page_size = page_size.ok_or("its page size is none that SQLite knows")?;
        Ok((Self { position, page_size, count }, sum))
    }
}

impl Segment {
    /// The bytes of the segment, and its checksum.
    pub(super) fn encode(&self, before: u32) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend(SEGMENT_MAGIC);
        put_position(&mut bytes, &self.position);
        bytes.extend(self.count.0.to_be_bytes());
        // There are at most as many entries as there are page numbers.
        bytes.extend(u32::try_from(self.entries.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (page, hash) in &self.entries {
            bytes.extend(page.0.to_be_bytes());
            bytes.extend(hash.to_be_bytes());
        }
        let sum = crc(before, &bytes);
        bytes.extend(sum.to_be_bytes());
        (bytes, sum)
    }

    /// The size of the segment on disk, in bytes.
    pub(super) fn size(&self) -> usize {
        SEGMENT_HEADER_SIZE + self.entries.len() * ENTRY_SIZE + CRC_SIZE
    }

    /// The first segment in `bytes`, its checksum, and what follows it. `None` for anything but a
    /// whole and valid segment.
    pub(super) fn decode(bytes: &[u8], before: u32) -> Option<(Self, u32, &[u8])> {
        let mut parts = Parts(bytes);
        if parts.take()? != SEGMENT_MAGIC {
            return None;
        }
        let position = parts.position()?;
        let count = PageCount(parts.u32()?);
        let entry_count = parts.u32()? as usize;
        let body = SEGMENT_HEADER_SIZE.checked_add(entry_count.checked_mul(ENTRY_SIZE)?)?;
        let sum = crc(before, bytes.get(..body)?);
        let mut entries = Vec::with_capacity(entry_count);
        for _ in 0..entry_count {
            entries.push((PageNo(parts.u32()?), u128::from_be_bytes(parts.take()?)));
        }
        (parts.u32()? == sum).then_some((Self { position, count, entries }, sum, parts.0))
    }
}

fn put_position(bytes: &mut Vec<u8>, position: &Position) {
    bytes.extend(position.generation.0.to_be_bytes());
    bytes.extend(position.frame.0.to_be_bytes());
    bytes.extend(position.state.to_bytes());
}

/// Bytes that are taken apart from the front.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position {
            generation: Generation(self.u32()?),
            frame: FrameNo(self.take().map(u64::from_be_bytes)?),
            state: StateHash::from_bytes(self.take()?),
        })
    }
}
