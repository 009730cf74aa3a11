//! The first 100 bytes of an LTX file, and what Highwater says in them.
//!
//! Highwater keeps to the standard fields, so that other tools read its files, and gives the ones
//! about a write-ahead log its own meaning: `WALSalt1` is the generation, `WALOffset` and `WALSize`
//! place the file's frames in the virtual log that holds the generation from its first frame. The
//! reserved bytes carry the hash of the state after the file, then `HW01`; only headers with that
//! mark have a generation and frame numbers.

use std::borrow::Cow;

use crate::checksum::CHECKSUM_FLAG;
use crate::units::WAL_HEADER_SIZE;
use crate::{DeviceId, Error, FrameNo, Generation, PageCount, PageSize, Place, Result, StateHash, TxId};

const MAGIC: &[u8; 4] = b"LTX1";
const STATE_MARK: &[u8; 4] = b"HW01";
const FLAG_NO_CHECKSUM: u32 = 1 << 1;

/// What a file says about itself before its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The size of every page.
    pub page_size: PageSize,
    /// The size of the database after this file.
    pub commit: PageCount,
    /// The first transaction that the file covers. If it is 1, the file is a snapshot.
    pub min_txid: TxId,
    /// The last transaction that the file covers.
    pub max_txid: TxId,
    /// When it was written, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Whether the file carries LTX's own database checksums. Never in Highwater's files.
    pub checksums: bool,
    /// LTX's checksum of the database before this file; 0 without checksums and in a snapshot.
    pub pre_apply_checksum: u64,
    /// Where the pages stood in a write-ahead log, in bytes; 0 when they came from none.
    pub wal_offset: u64,
    /// How much of a write-ahead log the pages took, in bytes.
    pub wal_size: u64,
    /// The first salt of that write-ahead log; in Highwater's files the generation.
    pub salt1: u32,
    /// The second salt of that write-ahead log; 0 in Highwater's files.
    pub salt2: u32,
    /// Who wrote the file, 0 when not said; in Highwater's files [`DeviceId::node_id`].
    pub node_id: u64,
    /// The state after this file; `None` in files that other programs wrote.
    pub state: Option<StateHash>,
}

impl Header {
    /// Its size in bytes.
    pub const SIZE: usize = 100;

    /// The header of one accepted push: `frames` frames from `first_frame` on.
    #[must_use]
    #[allow(clippy::too_many_arguments, reason = "each has its own type; this is a record")]
    pub fn new_push(
        page_size: PageSize,
        commit: PageCount,
        txid: TxId,
        timestamp_ms: i64,
        generation: Generation,
        first_frame: FrameNo,
        frames: u64,
        device: DeviceId,
        state: StateHash,
    ) -> Self {
        Self {
            min_txid: txid,
            max_txid: txid,
            wal_offset: frame_offset(first_frame.0, page_size),
            wal_size: frames.saturating_mul(page_size.frame_size()),
            salt1: generation.0,
            node_id: device.node_id(),
            ..Self::plain(page_size, commit, timestamp_ms, state)
        }
    }

    /// The header of a snapshot: the whole database as it is at `at`, after transaction `txid`.
    #[must_use]
    pub fn new_snapshot(
        page_size: PageSize,
        commit: PageCount,
        txid: TxId,
        timestamp_ms: i64,
        at: Place,
        state: StateHash,
    ) -> Self {
        Self {
            max_txid: txid,
            wal_offset: frame_offset(at.frame.0.saturating_add(1), page_size),
            salt1: at.generation.0,
            ..Self::plain(page_size, commit, timestamp_ms, state)
        }
    }

    fn plain(page_size: PageSize, commit: PageCount, timestamp_ms: i64, state: StateHash) -> Self {
        Self {
            page_size,
            commit,
            min_txid: TxId::FIRST,
            max_txid: TxId::FIRST,
            timestamp_ms,
            checksums: false,
            pre_apply_checksum: 0,
            wal_offset: 0,
            wal_size: 0,
            salt1: 0,
            salt2: 0,
            node_id: 0,
            state: Some(state),
        }
    }

    /// Whether the file holds every page of the database: it does if it covers transaction 1.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.min_txid == TxId::FIRST
    }

    /// The generation that the file belongs to; `None` in files of other programs.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        (self.state.is_some() && self.salt1 != 0).then_some(Generation(self.salt1))
    }

    /// The file's first frame; `None` when it has no frames (a snapshot made of other files) or
    /// comes from another program.
    #[must_use]
    pub fn first_frame(&self) -> Option<FrameNo> {
        if self.wal_size == 0 {
            return None;
        }
        self.frames_before(self.wal_offset)?.checked_add(1).map(FrameNo)
    }

    /// The last frame that belongs to the state after this file; `None` in files of other programs.
    #[must_use]
    pub fn last_frame(&self) -> Option<FrameNo> {
        self.frames_before(self.wal_offset.checked_add(self.wal_size)?).map(FrameNo)
    }

    /// Where the database is after this file; `None` in files of other programs.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        Some(Place { generation: self.generation()?, frame: self.last_frame()? })
    }

    /// How many frames end at or before `offset` in the generation's virtual write-ahead log.
    fn frames_before(&self, offset: u64) -> Option<u64> {
        self.generation()?;
        let frames = offset.checked_sub(WAL_HEADER_SIZE)?;
        let size = self.page_size.frame_size();
        frames.is_multiple_of(size).then(|| frames / size)
    }

    /// Whether this is a header that a file may have.
    ///
    /// # Errors
    /// [`Error::Refused`] says which rule of the format it breaks.
    pub fn validate(&self) -> Result<()> {
        self.problem().map_or(Ok(()), |(_, what)| Err(Error::refused(what)))
    }

    /// The first broken rule: where in the header it shows, and what it is as a clause.
    fn problem(&self) -> Option<(u64, Cow<'static, str>)> {
        let broken = |at, what: &'static str| Some((at, Cow::Borrowed(what)));
        if self.min_txid.0 == 0 {
            return broken(16, "it covers transaction 0, which does not exist");
        }
        if self.min_txid > self.max_txid {
            return broken(24, "its last transaction comes before its first");
        }
        let checksum_allowed = self.checksums && !self.is_snapshot();
        if !checksum_allowed && self.pre_apply_checksum != 0 {
            return broken(40, "it has a checksum of the database before it, where none is allowed");
        }
        if checksum_allowed && self.pre_apply_checksum & CHECKSUM_FLAG == 0 {
            return broken(40, "it lacks the checksum of the database before it");
        }
        if i64::try_from(self.wal_offset).is_err() {
            return broken(48, "its place in the write-ahead log is past every log's end");
        }
        if i64::try_from(self.wal_size).is_err() {
            return broken(56, "its part of the write-ahead log is past every log's size");
        }
        if self.wal_offset == 0 && self.wal_size != 0 {
            return broken(56, "it has a size, but no place in the write-ahead log");
        }
        if self.wal_offset == 0 && (self.salt1 != 0 || self.salt2 != 0) {
            return broken(64, "it has the salts of a write-ahead log, but no place in it");
        }
        None
    }

    /// The bytes as they stand in a file. Of a header that [`Header::validate`] accepts,
    /// [`Header::decode`] reads the same back.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let flags = if self.checksums { 0 } else { FLAG_NO_CHECKSUM };
        let mut bytes = [0; Self::SIZE];
        let mut at = bytes.as_mut_slice();
        // The fields fill the first 80 bytes exactly, the state and its mark the other 20.
        let mut put = |field: &[u8]| {
            if let Some((here, rest)) = std::mem::take(&mut at).split_at_mut_checked(field.len()) {
                here.copy_from_slice(field);
                at = rest;
            }
        };
        put(MAGIC);
        put(&flags.to_be_bytes());
        put(&self.page_size.get().to_be_bytes());
        put(&self.commit.0.to_be_bytes());
        put(&self.min_txid.0.to_be_bytes());
        put(&self.max_txid.0.to_be_bytes());
        put(&self.timestamp_ms.to_be_bytes());
        put(&self.pre_apply_checksum.to_be_bytes());
        put(&self.wal_offset.to_be_bytes());
        put(&self.wal_size.to_be_bytes());
        put(&self.salt1.to_be_bytes());
        put(&self.salt2.to_be_bytes());
        put(&self.node_id.to_be_bytes());
        if let Some(state) = self.state {
            put(&state.to_bytes());
            put(STATE_MARK);
        }
        bytes
    }

    /// Reads a header from the first [`Header::SIZE`] bytes of a file; more may follow.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::NotLtx`], [`Error::Unsupported`] for flags of a newer
    /// format, [`Error::Corrupt`] for fields that contradict each other.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(bytes) = bytes.first_chunk::<{ Self::SIZE }>() else {
            if !MAGIC.iter().zip(bytes).all(|(wanted, found)| wanted == found) {
                return Err(Error::NotLtx);
            }
            return Err(Error::Truncated { at: bytes.len() as u64, part: "header" });
        };
        let mut fields = Fields(bytes);
        if fields.take::<4>() != *MAGIC {
            return Err(Error::NotLtx);
        }
        let flags = fields.u32();
        if flags & !FLAG_NO_CHECKSUM != 0 {
            return Err(Error::Unsupported { what: format!("the flags {flags:#x}").into() });
        }
        let page_size =
            PageSize::new(fields.u32()).map_err(|invalid| Error::corrupt(8, invalid.to_string()))?;
        let mut header = Self {
            page_size,
            commit: PageCount(fields.u32()),
            min_txid: TxId(fields.u64()),
            max_txid: TxId(fields.u64()),
            timestamp_ms: i64::from_be_bytes(fields.take()),
            checksums: flags & FLAG_NO_CHECKSUM == 0,
            pre_apply_checksum: fields.u64(),
            wal_offset: fields.u64(),
            wal_size: fields.u64(),
            salt1: fields.u32(),
            salt2: fields.u32(),
            node_id: fields.u64(),
            state: None,
        };
        let state = StateHash::from_bytes(fields.take());
        header.state = (fields.take::<4>() == *STATE_MARK).then_some(state);
        match header.problem() {
            Some((at, what)) => Err(Error::Corrupt { at, what }),
            None => Ok(header),
        }
    }
}

/// [`FrameNo::wal_offset`] that stops at the largest number: [`Header::validate`] refuses that.
fn frame_offset(frame: u64, page_size: PageSize) -> u64 {
    frame.saturating_sub(1).saturating_mul(page_size.frame_size()).saturating_add(WAL_HEADER_SIZE)
}

/// The rest of a header's bytes. The fields add up to its size, so none is ever cut.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}
