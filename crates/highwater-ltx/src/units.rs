//! The numbers that every layer of Highwater speaks of, one type for each unit.
//!
//! They live in the lowest crate so that storage, pages, wire, client and server mean the same
//! thing by a page, a frame, a generation and a position.

use std::fmt;
use std::str::FromStr;

/// The offset of SQLite's lock bytes. The page that holds this byte never carries data.
pub const LOCK_BYTE: u64 = 1 << 30;

/// The size of a write-ahead log's own header, in bytes.
pub const WAL_HEADER_SIZE: u64 = 32;

/// The size of the header before each frame in a write-ahead log, in bytes.
pub const WAL_FRAME_HEADER_SIZE: u64 = 24;

/// A value that is not of the form its unit demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct InvalidUnit {
    /// What was found.
    pub value: String,
    /// What it should have been, as the end of a sentence: "a page size (…)".
    pub expected: &'static str,
}

impl InvalidUnit {
    fn new(value: impl Into<String>, expected: &'static str) -> Self {
        Self { value: value.into(), expected }
    }
}

/// The size of a database page in bytes: a power of two from 512 to 65536.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// SQLite's default.
    pub const DEFAULT: Self = Self(4096);

    /// Checks that `bytes` is a page size that SQLite knows.
    pub fn new(bytes: u32) -> Result<Self, InvalidUnit> {
        if bytes.is_power_of_two() && (512..=65536).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(InvalidUnit::new(bytes.to_string(), "a page size (a power of two from 512 to 65536)"))
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// In bytes, as a length of a buffer.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// The page that holds the lock byte (2^30): SQLite never stores anything in it.
    #[must_use]
    pub const fn lock_page(self) -> PageNo {
        // 2^30 / 512 + 1 is far below 2^32.
        PageNo((LOCK_BYTE / self.0 as u64) as u32 + 1)
    }

    /// The size of one frame in a write-ahead log of this page size, header included, in bytes.
    #[must_use]
    pub const fn frame_size(self) -> u64 {
        WAL_FRAME_HEADER_SIZE + self.0 as u64
    }
}

/// The number of a page, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNo(pub u32);

/// A number of pages; the size of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PageCount(pub u32);

impl PageCount {
    /// Whether a database of this size has that page.
    #[must_use]
    pub const fn contains(self, page: PageNo) -> bool {
        page.0 >= 1 && page.0 <= self.0
    }

    /// The size of a database of this many pages, in bytes.
    #[must_use]
    pub const fn bytes(self, size: PageSize) -> u64 {
        self.0 as u64 * size.0 as u64
    }

    /// Every page that carries data: 1 to the last one, without the lock page.
    pub fn data_pages(self, size: PageSize) -> impl Iterator<Item = PageNo> + Clone {
        let lock = size.lock_page();
        (1..=self.0).map(PageNo).filter(move |page| *page != lock)
    }

    /// How many pages carry data: all but the lock page.
    #[must_use]
    pub const fn data_page_count(self, size: PageSize) -> u32 {
        if self.0 >= size.lock_page().0 { self.0 - 1 } else { self.0 }
    }
}

/// The number of an accepted push in a database's log, from 1, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub u64);

impl TxId {
    /// The first transaction of every log.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for TxId {
    /// Sixteen hex digits, as in file names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An epoch of a database's history, from 1. Frame numbers restart in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// Where every database begins.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The number of a frame within its generation, from 1. As the end of a position, 0 means "before
/// the first frame": the state that the generation starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameNo(pub u64);

impl FrameNo {
    /// Where this frame would begin in a write-ahead log that held its generation from the start,
    /// in bytes. For frame n+1 that is where frame n ends.
    #[must_use]
    pub const fn wal_offset(self, size: PageSize) -> u64 {
        WAL_HEADER_SIZE + self.0.saturating_sub(1) * size.frame_size()
    }
}

macro_rules! plain_number {
    ($($unit:ident),*) => {$(
        impl fmt::Display for $unit {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
plain_number!(PageSize, PageNo, PageCount, Generation, FrameNo);

/// The hash of a whole database image: 128 bits that no other state of the database shares.
///
/// How it is computed is the business of `highwater-pages`; here it is only carried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateHash(pub u128);

impl StateHash {
    /// Big-endian, as it stands in files and bodies.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The reverse of [`StateHash::to_bytes`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for StateHash {
    /// 32 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({self})")
    }
}

impl FromStr for StateHash {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = || InvalidUnit::new(text, "a state hash (32 hex digits)");
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| invalid())
    }
}

/// A point in a database's history: where it is, and the hash of the whole image there.
///
/// Written `G/F/HASH`, for example `1/9/00000000000000000000000000000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch.
    pub generation: Generation,
    /// The last frame that belongs to the state.
    pub frame: FrameNo,
    /// The state itself.
    pub state: StateHash,
}

impl Position {
    /// The place without the hash: `G/F`.
    #[must_use]
    pub const fn place(self) -> Place {
        Place { generation: self.generation, frame: self.frame }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.generation, self.frame, self.state)
    }
}

impl FromStr for Position {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = || InvalidUnit::new(text, "a position (GENERATION/FRAME/HASH)");
        let (place, state) = text.rsplit_once('/').ok_or_else(invalid)?;
        let Place { generation, frame } = place.parse().map_err(|_| invalid())?;
        Ok(Self { generation, frame, state: state.parse()? })
    }
}

/// A place in a history without the hash, as a person writes it: `G/F`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The epoch.
    pub generation: Generation,
    /// The last frame.
    pub frame: FrameNo,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.generation, self.frame)
    }
}

impl FromStr for Place {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = || InvalidUnit::new(text, "a place in the history (GENERATION/FRAME)");
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let (generation, frame) = text.split_once('/').ok_or_else(invalid)?;
        if !digits(generation) || !digits(frame) {
            return Err(invalid());
        }
        Ok(Self {
            generation: Generation(generation.parse().map_err(|_| invalid())?),
            frame: FrameNo(frame.parse().map_err(|_| invalid())?),
        })
    }
}

/// The identity of one copy of a database: 128 random bits, made once for each database file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId(pub u128);

impl DeviceId {
    /// The first half, which LTX files carry as their node id.
    #[must_use]
    pub const fn node_id(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

impl fmt::Display for DeviceId {
    /// 32 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

impl FromStr for DeviceId {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        text.parse::<StateHash>()
            .map(|bits| Self(bits.0))
            .map_err(|_| InvalidUnit::new(text, "a device id (32 hex digits)"))
    }
}
