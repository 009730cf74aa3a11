//! The header of a database and its list of tables and indexes, read without trust.

use std::collections::{BTreeSet, HashSet};
use std::io;

use highwater_ltx::{PageNo, PageSize};

use super::btree::{self, Node, Payload, varint};
use super::{FIRST, Owner, Search};

/// What the names of the hidden tables of virtual tables end in: those of FTS5, FTS3/4 and R-tree.
const SHADOWS: [&str; 11] =
    ["data", "idx", "content", "docsize", "config", "segments", "segdir", "stat", "node", "parent", "rowid"];

/// Overflow pages read of one row of the list, at most: names stand in front of the SQL.
const MAX_ROW_PAGES: usize = 64;

/// Rows of the list that are read, at most.
const MAX_ROWS: usize = 1_000_000;

/// SQLite uses at least this much of a page, in bytes.
const MIN_USABLE: usize = 480;

/// How the database is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// The part of each page that is used, in bytes.
    pub(super) usable: usize,
    /// The first page of the list of unused pages.
    pub(super) first_free: Option<PageNo>,
    auto_vacuum: bool,
    encoding: Encoding,
}

#[derive(Debug, Clone, Copy)]
enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

impl Layout {
    /// From the bytes of page 1; `None` if that is not the first page of a database.
    pub(super) fn of(head: &[u8], size: PageSize) -> Option<Self> {
        let reserved = usize::from(*head.get(20)?);
        let usable = size.as_usize().checked_sub(reserved).filter(|usable| *usable >= MIN_USABLE)?;
        head.starts_with(b"SQLite format 3\0").then_some(Self {
            usable,
            first_free: btree::page_at(head, 32),
            auto_vacuum: btree::word_at(head, 52)? != 0,
            encoding: match btree::word_at(head, 56)? {
                2 => Encoding::Utf16Le,
                3 => Encoding::Utf16Be,
                _ => Encoding::Utf8,
            },
        })
    }

    /// Whether the page says where other pages belong: the second page of an auto-vacuum database,
    /// and every so many after it. One that would fall on the lock page comes right behind it.
    #[allow(clippy::cast_possible_truncation, reason = "a page has less than 2^16 bytes to a fifth")]
    pub(super) fn is_pointer_map(&self, page: PageNo, size: PageSize) -> bool {
        let group = (self.usable / 5 + 1) as u32;
        let lock = size.lock_page().0;
        let Some(behind) = page.0.checked_sub(2).filter(|_| self.auto_vacuum) else { return false };
        if lock >= 2 && (lock - 2).is_multiple_of(group) && page.0 == lock + 1 {
            return true;
        }
        behind.is_multiple_of(group) && page.0 != lock
    }
}

/// A row of the list.
struct Row {
    kind: String,
    name: String,
    table: String,
    root: Option<PageNo>,
}

/// Every b-tree of the database, the list of tables first.
pub(super) fn trees(search: &mut Search<'_>, layout: &Layout) -> io::Result<Vec<(Owner, PageNo)>> {
    let mut pages = Vec::new();
    search.walk(FIRST, &mut HashSet::new(), &mut |_, page| {
        pages.push(page);
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    let mut rows = Vec::new();
    for page in pages {
        let Some(bytes) = search.read(page)? else { continue };
        let Some(node) = Node::parse(page, &bytes, layout.usable) else { continue };
        for payload in node.payloads() {
            rows.extend(row(search, payload, layout)?);
        }
        if rows.len() >= MAX_ROWS {
            break;
        }
    }
    let virtual_tables: BTreeSet<&str> = rows
        .iter()
        .filter(|row| row.kind == "table" && row.root.is_none())
        .map(|row| row.name.as_str())
        .collect();
    let owner = |table: &str| {
        let shadowed = table
            .rsplit_once('_')
            .filter(|(name, end)| SHADOWS.contains(end) && virtual_tables.contains(name))
            .map(|(name, _)| name);
        Owner::Table(shadowed.unwrap_or(table).to_owned())
    };
    let trees = rows.iter().filter_map(|row| Some((owner(&row.table), row.root?)));
    Ok(std::iter::once((Owner::Schema, FIRST)).chain(trees).collect())
}

/// Reads as much of the row as its first four columns need.
fn row(search: &Search<'_>, payload: Payload<'_>, layout: &Layout) -> io::Result<Option<Row>> {
    let mut bytes = payload.local.to_vec();
    let mut next = payload.overflow;
    for _ in 0..MAX_ROW_PAGES {
        if let Some(row) = parse_row(&bytes, layout.encoding) {
            return Ok(Some(row));
        }
        let Some(page) = next else { break };
        let Some(overflow) = search.read(page)? else { break };
        bytes.extend_from_slice(overflow.get(4..layout.usable).unwrap_or_default());
        next = btree::page_at(&overflow, 0);
    }
    Ok(parse_row(&bytes, layout.encoding))
}

/// The columns `type, name, tbl_name, rootpage` of a record; `None` if they are not all there.
fn parse_row(record: &[u8], encoding: Encoding) -> Option<Row> {
    let (header_size, mut at) = varint(record)?;
    let mut body = usize::try_from(header_size).ok()?;
    let mut column = || {
        let (kind, length) = varint(record.get(at..)?)?;
        at += length;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => (kind - 12) / 2,
        };
        let end = body.checked_add(usize::try_from(size).ok()?)?;
        let bytes = record.get(body..end)?;
        body = end;
        Some((kind, bytes))
    };
    let text = |(_, bytes): (u64, &[u8])| decode(bytes, encoding);
    Some(Row {
        kind: text(column()?),
        name: text(column()?),
        table: text(column()?),
        root: column().map(|(kind, bytes)| integer(kind, bytes))?,
    })
}

/// The page number in a column; `None` for 0 and for what is none.
fn integer(kind: u64, bytes: &[u8]) -> Option<PageNo> {
    let value = match kind {
        9 => 1,
        1..=6 => bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)),
        _ => 0,
    };
    u32::try_from(value).ok().filter(|page| *page != 0).map(PageNo)
}

fn decode(bytes: &[u8], encoding: Encoding) -> String {
    let (pairs, _) = bytes.as_chunks::<2>();
    match encoding {
        Encoding::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
        Encoding::Utf16Le => decode_utf16(pairs.iter().map(|pair| u16::from_le_bytes(*pair))),
        Encoding::Utf16Be => decode_utf16(pairs.iter().map(|pair| u16::from_be_bytes(*pair))),
    }
}

fn decode_utf16(units: impl Iterator<Item = u16>) -> String {
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
