//! The first 100 bytes of a database.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#the_database_header>.

use highwater_ltx::{PageNo, PageSize};
use highwater_pages::owners::PageSource;

use crate::error::{Result, damaged};

/// Where a database begins.
pub(crate) const FIRST: PageNo = PageNo(1);

/// SQLite uses at least this much of a page, in bytes.
const MIN_USABLE: usize = 480;

/// How text is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// UTF-8.
    #[default]
    Utf8,
    /// UTF-16, the lower byte first.
    Utf16Le,
    /// UTF-16, the higher byte first.
    Utf16Be,
}

/// What the header of a database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The size of a page.
    pub page_size: PageSize,
    /// Bytes at the end of every page that SQLite leaves alone.
    pub reserved: u8,
    /// How text is stored.
    pub encoding: Encoding,
    /// `PRAGMA schema_version`.
    pub schema_cookie: u32,
    /// The format of the schema, 1 to 4; 0 in a database that never had a table.
    pub schema_format: u32,
    /// The first trunk page of the list of unused pages.
    pub first_free: Option<PageNo>,
    /// How many pages are unused.
    pub free_pages: u32,
    /// Whether pages say where they belong (auto-vacuum, full or incremental).
    pub auto_vacuum: bool,
    /// Whether auto-vacuum is incremental.
    pub incremental_vacuum: bool,
    /// `PRAGMA user_version`.
    pub user_version: u32,
    /// `PRAGMA application_id`.
    pub application_id: u32,
}

impl Header {
    /// The part of each page that SQLite uses, in bytes.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.page_size.as_usize() - usize::from(self.reserved)
    }

    /// From the bytes of page 1.
    pub(crate) fn parse(head: &[u8], page_size: PageSize) -> Result<Self> {
        if !head.starts_with(b"SQLite format 3\0") {
            return damaged(FIRST, "does not begin as a database does");
        }
        let reserved = head.get(20).copied().unwrap_or(0);
        if page_size.as_usize() - usize::from(reserved) < MIN_USABLE {
            return damaged(FIRST, "leaves too little of every page");
        }
        let word = |at| word_at(head, at).unwrap_or(0);
        Ok(Self {
            page_size,
            reserved,
            encoding: match word(56) {
                2 => Encoding::Utf16Le,
                3 => Encoding::Utf16Be,
                _ => Encoding::Utf8,
            },
            schema_cookie: word(40),
            schema_format: word(44),
            first_free: page_at(head, 32),
            free_pages: word(36),
            auto_vacuum: word(52) != 0,
            incremental_vacuum: word(52) != 0 && word(64) != 0,
            user_version: word(60),
            application_id: word(68),
        })
    }

    /// The page that says where `page` belongs; `None` without auto-vacuum.
    #[allow(clippy::cast_possible_truncation, reason = "a fifth of a page is far below 2^32 bytes")]
    pub(crate) fn pointer_map(&self, page: PageNo) -> Option<PageNo> {
        let group = (self.usable() / 5 + 1) as u32;
        let behind = page.0.checked_sub(2).filter(|_| self.auto_vacuum)?;
        let map = behind / group * group + 2;
        // A map that would fall on the lock page comes right behind it.
        let map = if map == self.page_size.lock_page().0 { map + 1 } else { map };
        Some(PageNo(map))
    }

    /// Whether the page can hold rows, or parts of rows: neither the lock page nor a pointer map.
    pub(crate) fn holds_data(&self, page: PageNo) -> bool {
        page != self.page_size.lock_page() && self.pointer_map(page) != Some(page)
    }
}

/// Reads the header of a database; `None` for a database without pages.
pub fn header(pages: &dyn PageSource) -> Result<Option<Header>> {
    if pages.page_count().0 == 0 {
        return Ok(None);
    }
    let mut head = Vec::new();
    pages.read(FIRST, &mut head)?;
    Header::parse(&head, pages.page_size()).map(Some)
}

/// The big-endian word at `offset`.
pub(crate) fn word_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

/// The page number at `offset`; `None` for 0, which stands for no page.
pub(crate) fn page_at(bytes: &[u8], offset: usize) -> Option<PageNo> {
    word_at(bytes, offset).filter(|page| *page != 0).map(PageNo)
}
