//! The bytes of a b-tree page, read without trust.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#b_tree_pages>. What does not make sense is
//! left out.

use highwater_ltx::PageNo;

/// Where the b-tree starts within page 1, in bytes: behind the database's header.
const FIRST_PAGE_OFFSET: usize = 100;

/// A page of a b-tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    bytes: &'a [u8],
    usable: usize,
    /// Where the b-tree's own header starts.
    start: usize,
    interior: bool,
    /// Of a table with rowids; otherwise of an index or a table without.
    table: bool,
}

/// The content of a cell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a> {
    /// The whole size in bytes.
    pub(super) size: usize,
    /// The part that is in the page.
    pub(super) local: &'a [u8],
    /// The page where the rest starts.
    pub(super) overflow: Option<PageNo>,
}

/// The big-endian word at `offset`.
pub(super) fn word_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

/// The page number at `offset`; `None` for 0, which stands for no page.
pub(super) fn page_at(bytes: &[u8], offset: usize) -> Option<PageNo> {
    word_at(bytes, offset).filter(|page| *page != 0).map(PageNo)
}

/// A variable-length number and its length in bytes.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (n, byte) in bytes.iter().take(8).enumerate() {
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    bytes.get(8).map(|byte| (value << 8 | u64::from(*byte), 9))
}

impl<'a> Node<'a> {
    /// The page as a node; `None` if it is none. `usable` is the part of a page that is used.
    pub(super) fn parse(page: PageNo, bytes: &'a [u8], usable: usize) -> Option<Self> {
        let start = if page.0 == 1 { FIRST_PAGE_OFFSET } else { 0 };
        let (interior, table) = match bytes.get(start)? {
            2 => (true, false),
            5 => (true, true),
            10 => (false, false),
            13 => (false, true),
            _ => return None,
        };
        Some(Self { bytes: bytes.get(..usable)?, usable, start, interior, table })
    }

    /// The pages below; none for a leaf.
    pub(super) fn children(self) -> impl Iterator<Item = PageNo> + use<'a> {
        let left = self.cells().filter_map(move |cell| page_at(cell, 0));
        left.chain(page_at(self.bytes, self.start + 8)).take(if self.interior { usize::MAX } else { 0 })
    }

    /// What the cells hold; nothing in an interior page of a table.
    pub(super) fn payloads(self) -> impl Iterator<Item = Payload<'a>> + use<'a> {
        let none = self.interior && self.table;
        self.cells().filter_map(move |cell| self.payload(cell)).take(if none { 0 } else { usize::MAX })
    }

    /// The bytes from the start of each cell to the end of the page.
    fn cells(self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let half = move |at: usize| {
            self.bytes.get(at..)?.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes)))
        };
        let pointers = self.start + if self.interior { 12 } else { 8 };
        let count = half(self.start + 3).unwrap_or(0);
        (0..count).map_while(move |n| half(pointers + 2 * n)).filter_map(move |at| self.bytes.get(at..))
    }

    fn payload(self, cell: &'a [u8]) -> Option<Payload<'a>> {
        let mut rest = cell.get(if self.interior { 4 } else { 0 }..)?;
        let (size, length) = varint(rest)?;
        rest = rest.get(length..)?;
        if self.table {
            rest = rest.get(varint(rest)?.1..)?;
        }
        let size = usize::try_from(size).ok()?;
        let local = self.local_size(size);
        let overflow = if local < size { page_at(rest, local) } else { None };
        Some(Payload { size, local: rest.get(..local)?, overflow })
    }

    /// How many bytes of a payload are kept in the page.
    fn local_size(self, size: usize) -> usize {
        let most = if self.table { self.usable - 35 } else { (self.usable - 12) * 64 / 255 - 23 };
        if size <= most {
            return size;
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fitting = least + (size - least) % (self.usable - 4);
        if fitting <= most { fitting } else { least }
    }
}

impl Payload<'_> {
    /// How many pages the rest takes.
    pub(super) fn overflow_pages(&self, usable: usize) -> usize {
        (self.size - self.local.len()).div_ceil(usable - 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_are_read() {
        assert_eq!(varint(&[0x7f]), Some((0x7f, 1)));
        assert_eq!(varint(&[0x81, 0x00]), Some((0x80, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0xff; 8]), None);
        assert_eq!(varint(&[]), None);
    }
}
