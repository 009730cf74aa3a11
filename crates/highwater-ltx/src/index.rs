//! The page index: where in the file each page's frame stands.
//!
//! Frames follow each other without gaps from the end of the header, six zero bytes end them, and
//! then comes the index; so an index is checked against its own place in the file. Its length
//! stands right before the trailer, so that one read of the file's end finds it.

use crate::order::PageOrder;
use crate::{Error, Header, PageNo, Result, Trailer, varint};

/// The bytes that end the page frames: a frame header of zeros.
pub(crate) const END_OF_PAGES: [u8; 6] = [0; 6];
/// The bytes behind the index: its own length, and the trailer.
const BEHIND: usize = 8 + Trailer::SIZE;

/// Where one page's frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The page.
    pub page: PageNo,
    /// Where its frame begins, in bytes from the start of the file.
    pub offset: u64,
    /// The size of the whole frame in bytes, its header included.
    pub size: u32,
}

/// The page frames of one file, in ascending order of pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageIndex(Vec<IndexEntry>);

/// What the end of a file told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailIndex {
    /// The whole index was in it.
    Complete(PageIndex),
    /// The index begins before it: read that many bytes from the end of the file, and ask again.
    NeedMore {
        /// How long the tail must be, in bytes.
        bytes: u64,
    },
}

impl PageIndex {
    /// A tail of this many bytes is enough to be told how long the tail has to be.
    pub const MIN_TAIL: usize = BEHIND;

    /// Reads the index from the last bytes of a file that is `file_size` bytes long.
    ///
    /// It proves that the index is whole and fits the file's size. It does not prove the file's
    /// checksum, which only [`Decoder`](crate::Decoder) can; and it does not know the header: ask
    /// [`PageIndex::check`] for that.
    ///
    /// # Errors
    /// [`Error::Truncated`] when the file is too small to be whole, [`Error::Corrupt`] when the
    /// index contradicts itself or the file's size.
    pub fn decode_tail(tail: &[u8], file_size: u64) -> Result<TailIndex> {
        let least = (Header::SIZE + END_OF_PAGES.len() + 1 + BEHIND) as u64;
        if file_size < least || tail.len() as u64 > file_size {
            return Err(Error::Truncated { at: file_size, part: "page index" });
        }
        let Some((before, behind)) = tail.split_last_chunk::<BEHIND>() else {
            return Ok(TailIndex::NeedMore { bytes: BEHIND as u64 });
        };
        let length = behind.first_chunk().map_or(0, |length| u64::from_be_bytes(*length));
        if length == 0 || length > file_size - least + 1 {
            let what = format!("the page index says that it is {length} bytes long");
            return Err(Error::corrupt(file_size - BEHIND as u64, what));
        }
        let start = usize::try_from(length).ok().and_then(|l| before.len().checked_sub(l));
        match start.and_then(|at| before.get(at..)) {
            None => Ok(TailIndex::NeedMore { bytes: length + BEHIND as u64 }),
            Some(bytes) => Self::decode(bytes, file_size - BEHIND as u64 - length).map(TailIndex::Complete),
        }
    }

    /// Reads the entries and the mark behind them; `at` is where they begin in the file.
    fn decode(bytes: &[u8], at: u64) -> Result<Self> {
        let mut entries = Vec::new();
        let mut rest = bytes.iter();
        let (mut previous, mut end) = (0, Header::SIZE as u64);
        loop {
            let here = at + (bytes.len() - rest.len()) as u64;
            let corrupt = |what: &'static str| Error::corrupt(here, what);
            let mut number = || {
                varint::read(|| rest.next().copied().ok_or(()))
                    .ok()
                    .flatten()
                    .ok_or_else(|| corrupt("the page index ends within an entry"))
            };
            let page = number()?;
            if page == 0 {
                break;
            }
            let (offset, size) = (number()?, number()?);
            let (Ok(page), Ok(size)) = (u32::try_from(page), u32::try_from(size)) else {
                return Err(corrupt("the page index holds a number that no file has"));
            };
            if page <= previous {
                return Err(corrupt("the page index is out of order"));
            }
            if offset != end || size == 0 {
                return Err(corrupt("the page index leaves a gap between two pages"));
            }
            previous = page;
            end = offset.saturating_add(u64::from(size));
            entries.push(IndexEntry { page: PageNo(page), offset, size });
        }
        if rest.next().is_some() || end.saturating_add(END_OF_PAGES.len() as u64) != at {
            return Err(Error::corrupt(at, "the page index does not fit the file"));
        }
        entries.shrink_to_fit();
        Ok(Self(entries))
    }

    /// Whether these are pages that a file with this header may hold.
    ///
    /// # Errors
    /// [`Error::Corrupt`] names the page that is missing or must not be there.
    pub fn check(&self, header: &Header) -> Result<()> {
        let mut order = PageOrder::new(header);
        for entry in &self.0 {
            order.admit(entry.page).map_err(|what| Error::corrupt(entry.offset, what))?;
        }
        order.finish().map_err(|what| Error::corrupt(self.end(), what))
    }

    /// The entry of `page`, if the file holds it.
    #[must_use]
    pub fn get(&self, page: PageNo) -> Option<&IndexEntry> {
        let at = self.0.binary_search_by_key(&page, |entry| entry.page).ok()?;
        self.0.get(at)
    }

    /// All entries, by ascending page.
    pub fn iter(&self) -> std::slice::Iter<'_, IndexEntry> {
        self.0.iter()
    }

    /// How many pages the file holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the file holds no page: the database has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Room for `pages` entries.
    pub(crate) fn with_capacity(pages: usize) -> Self {
        Self(Vec::with_capacity(pages))
    }

    /// Adds the frame of `page`, right behind the frames so far.
    pub(crate) fn push(&mut self, page: PageNo, size: u32) {
        self.0.push(IndexEntry { page, offset: self.end(), size });
    }

    /// Where the next frame begins, in bytes from the start of the file.
    pub(crate) fn end(&self) -> u64 {
        self.0.last().map_or(Header::SIZE as u64, |last| last.offset + u64::from(last.size))
    }

    /// Gives the index as it stands in a file to `take`, in pieces of a few kilobytes; then its
    /// own length, which counts all bytes before.
    pub(crate) fn encode(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut length = 0;
        let mut piece = Vec::with_capacity(16 << 10);
        for entry in &self.0 {
            varint::put(&mut piece, u64::from(entry.page.0));
            varint::put(&mut piece, entry.offset);
            varint::put(&mut piece, u64::from(entry.size));
            if piece.len() + 3 * varint::MAX_LEN > piece.capacity() {
                take(&piece)?;
                length += piece.len() as u64;
                piece.clear();
            }
        }
        varint::put(&mut piece, 0);
        length += piece.len() as u64;
        piece.extend_from_slice(&length.to_be_bytes());
        take(&piece)
    }
}

impl<'a> IntoIterator for &'a PageIndex {
    type Item = &'a IndexEntry;
    type IntoIter = std::slice::Iter<'a, IndexEntry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
