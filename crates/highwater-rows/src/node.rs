//! A page of a b-tree, read without trust.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#b_tree_pages>.

use std::ops::Range;
use std::rc::Rc;

use highwater_ltx::PageNo;

use crate::error::{Result, damaged};
use crate::header::{FIRST, page_at};

/// Where the b-tree starts within page 1, in bytes: behind the database's header.
const FIRST_PAGE_OFFSET: usize = 100;

/// The bytes of a page.
pub(crate) type Page = Rc<[u8]>;

/// The two kinds of b-trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Rows by rowid, in the leaves.
    Table,
    /// Records in their own order, in all pages.
    Index,
}

/// A page of a b-tree.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) page: PageNo,
    bytes: Page,
    usable: usize,
    /// Where the b-tree's own header starts.
    start: usize,
    pub(crate) interior: bool,
    pub(crate) shape: Shape,
    /// How many cells there are.
    pub(crate) cells: usize,
}

/// What a cell holds.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    /// The whole size in bytes.
    pub(crate) size: u64,
    /// The part in the page.
    pub(crate) local: Range<usize>,
    /// The page where the rest starts.
    pub(crate) overflow: Option<PageNo>,
}

/// A variable-length number and its length in bytes.
pub(crate) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (n, byte) in bytes.iter().take(8).enumerate() {
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    bytes.get(8).map(|byte| (value << 8 | u64::from(*byte), 9))
}

/// Whether the page is interior, and of which kind of b-tree; `None` if it looks like neither.
pub(crate) fn role(page: PageNo, bytes: &[u8]) -> Option<(bool, Shape)> {
    match bytes.get(start_of(page))? {
        2 => Some((true, Shape::Index)),
        5 => Some((true, Shape::Table)),
        10 => Some((false, Shape::Index)),
        13 => Some((false, Shape::Table)),
        _ => None,
    }
}

const fn start_of(page: PageNo) -> usize {
    if page.0 == FIRST.0 { FIRST_PAGE_OFFSET } else { 0 }
}

impl Node {
    /// The page as a node. `usable` is the part of a page that is used, in bytes.
    pub(crate) fn parse(page: PageNo, bytes: Page, usable: usize) -> Result<Self> {
        let start = start_of(page);
        let Some((interior, shape)) = role(page, &bytes) else { return damaged(page, "is not of a b-tree") };
        let mut node = Self { page, bytes, usable, start, interior, shape, cells: 0 };
        node.cells = node.half(start + 3)?;
        if node.pointer(node.cells) > usable {
            return damaged(page, "says that it has more cells than fit");
        }
        Ok(node)
    }

    /// How many pages are below.
    pub(crate) fn children(&self) -> usize {
        if self.interior { self.cells + 1 } else { 0 }
    }

    /// The page below, left of that cell; the last one is right of all cells.
    pub(crate) fn child(&self, n: usize) -> Result<PageNo> {
        let at = if n < self.cells { self.cell(n)? } else { self.start + 8 };
        page_at(&self.bytes, at).map_or_else(|| damaged(self.page, "has a child without a page"), Ok)
    }

    /// The rowid of a cell of a table; of an interior page, the largest rowid that may be below it.
    pub(crate) fn rowid(&self, n: usize) -> Result<i64> {
        let at = self.cell(n)?;
        let at = at + if self.interior { 4 } else { self.varint(at)?.1 };
        Ok(self.varint(at)?.0.cast_signed())
    }

    /// What a cell holds. Not for interior pages of tables: they hold no rows.
    pub(crate) fn payload(&self, n: usize) -> Result<Payload> {
        let mut at = self.cell(n)? + if self.interior { 4 } else { 0 };
        let (size, length) = self.varint(at)?;
        at += length;
        if self.shape == Shape::Table {
            at += self.varint(at)?.1;
        }
        let local = self.local_size(size);
        let end = at + local;
        let overflow = if local as u64 == size {
            None
        } else {
            let page = page_at(&self.bytes, end).filter(|_| end + 4 <= self.usable);
            Some(page.map_or_else(|| damaged(self.page, "has a long row that is cut off"), Ok)?)
        };
        if end > self.usable {
            return damaged(self.page, "has a row that does not end in it");
        }
        Ok(Payload { size, local: at..end, overflow })
    }

    /// Bytes of the page.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// Where a cell starts.
    fn cell(&self, n: usize) -> Result<usize> {
        let at = self.half(self.pointer(n))?;
        if n < self.cells && at >= self.pointer(self.cells) && at < self.usable {
            Ok(at)
        } else {
            damaged(self.page, "has a cell outside the place for cells")
        }
    }

    const fn pointer(&self, n: usize) -> usize {
        self.start + if self.interior { 12 } else { 8 } + 2 * n
    }

    fn half(&self, at: usize) -> Result<usize> {
        let half = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        half.map_or_else(
            || damaged(self.page, "is cut off"),
            |half| Ok(usize::from(u16::from_be_bytes(*half))),
        )
    }

    fn varint(&self, at: usize) -> Result<(u64, usize)> {
        let found = self.bytes.get(at..self.usable).and_then(varint);
        found.map_or_else(|| damaged(self.page, "has a cell that does not end in it"), Ok)
    }

    /// How many bytes of a payload are kept in the page.
    fn local_size(&self, size: u64) -> usize {
        let usable = self.usable;
        let most = match self.shape {
            Shape::Table => usable - 35,
            Shape::Index => (usable - 12) * 64 / 255 - 23,
        };
        match usize::try_from(size) {
            Ok(size) if size <= most => return size,
            _ => {}
        }
        let least = (usable - 12) * 32 / 255 - 23;
        let rest = (size - least as u64) % (usable as u64 - 4);
        let fitting = usize::try_from(rest).map_or(usize::MAX, |rest| least + rest);
        if fitting <= most { fitting } else { least }
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
