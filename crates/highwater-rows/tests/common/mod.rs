//! Databases as images of their pages.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_pages::owners::PageSource;
use highwater_rows::{Collation, KeyColumn, Tree, TreeKind};
use rusqlite::Connection;

/// The content of a database file.
pub(crate) struct Image {
    pub(crate) size: PageSize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) reads: AtomicUsize,
}

impl Image {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let size = match bytes.get(16..18) {
            None => 4096,
            Some([0, 1]) => 65536,
            Some(word) => u32::from(word[0]) << 8 | u32::from(word[1]),
        };
        Self { size: PageSize::new(size).unwrap(), bytes, reads: AtomicUsize::new(0) }
    }

    fn page(&self, page: u32) -> &[u8] {
        let size = self.size.as_usize();
        let start = (page as usize - 1) * size;
        &self.bytes[start..start + size]
    }

    /// The pages that both have and that differ.
    pub(crate) fn changed(&self, other: &Self) -> Vec<PageNo> {
        let common = self.page_count().0.min(other.page_count().0);
        if self.size != other.size {
            return Vec::new();
        }
        (1..=common).filter(|page| self.page(*page) != other.page(*page)).map(PageNo).collect()
    }
}

impl PageSource for Image {
    fn page_size(&self) -> PageSize {
        self.size
    }

    fn page_count(&self) -> PageCount {
        PageCount((self.bytes.len() / self.size.as_usize()) as u32)
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        self.reads.fetch_add(1, Relaxed);
        into.clear();
        into.extend_from_slice(self.page(page.0));
        Ok(())
    }
}

/// The root and the kind of a table, as SQLite tells them.
pub(crate) fn table(db: &Connection, name: &str) -> Option<(PageNo, TreeKind)> {
    let sql = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ? AND rootpage > 0";
    let root = db.query_row(sql, [name], |row| row.get(0)).map(PageNo).ok()?;
    let sql = "SELECT name FROM pragma_index_list(?) WHERE origin = 'pk'";
    let without_rowid: bool =
        db.query_row("SELECT wr FROM pragma_table_list WHERE name = ?", [name], |row| row.get(0)).unwrap();
    if !without_rowid {
        return Some((root, TreeKind::Rowid));
    }
    let index: String = db.query_row(sql, [name], |row| row.get(0)).unwrap();
    let sql = "SELECT coll, \"desc\" FROM pragma_index_xinfo(?) WHERE key ORDER BY seqno";
    let mut statement = db.prepare(sql).unwrap();
    let key = statement
        .query_map([index], |row| {
            let name: String = row.get(0)?;
            Ok(KeyColumn { collation: Collation::named(&name), descending: row.get(1)? })
        })
        .unwrap();
    Some((root, TreeKind::WithoutRowid { key: key.map(Result::unwrap).collect() }))
}

/// The trees of a table that two databases may have; two if it is not stored in the same way.
pub(crate) fn trees(before: &Connection, after: &Connection, name: &str) -> Vec<Tree> {
    match (table(before, name), table(after, name)) {
        (Some((before, kind)), Some((after, other))) if kind == other => {
            vec![Tree { before: Some(before), after: Some(after), kind }]
        }
        (before, after) => {
            let before = before.map(|(root, kind)| Tree { before: Some(root), after: None, kind });
            let after = after.map(|(root, kind)| Tree { before: None, after: Some(root), kind });
            before.into_iter().chain(after).collect()
        }
    }
}
