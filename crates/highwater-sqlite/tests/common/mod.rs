//! A database in memory as a source of pages, and databases compared.
#![allow(dead_code)]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_pages::canonicalise_first_page;
use highwater_pages::owners::PageSource;
use highwater_sqlite::{Access, Changes, SnapshotDb};
use rusqlite::Connection;

/// Pages in memory, canonical. `fails` is a page that cannot be read (0: none).
pub struct Memory {
    pub size: PageSize,
    pub pages: Vec<Vec<u8>>,
    pub reads: AtomicU64,
    pub fails: AtomicU32,
    pub seen: Mutex<Vec<u32>>,
}

impl Memory {
    pub fn new(size: PageSize, pages: Vec<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self { size, pages, reads: 0.into(), fails: 0.into(), seen: Mutex::default() })
    }

    pub fn of_file(path: &Path) -> Arc<Self> {
        let bytes = std::fs::read(path).unwrap();
        let size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65536,
            other => u32::from(other),
        };
        let size = PageSize::new(size).unwrap();
        let mut pages: Vec<_> = bytes.chunks(size.as_usize()).map(<[u8]>::to_vec).collect();
        canonicalise_first_page(&mut pages[0]);
        Self::new(size, pages)
    }

    pub fn of_sql(sql: &str) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        Self::of_file(&path)
    }

    pub fn with(&self, changes: &Changes) -> Arc<Self> {
        let mut pages = self.pages.clone();
        pages.resize(changes.page_count.0 as usize, Vec::new());
        for (page, data) in &changes.pages {
            pages[page.0 as usize - 1].clone_from(data);
        }
        let lock = self.size.lock_page().0 as usize;
        assert!(
            pages.iter().enumerate().all(|(n, page)| n + 1 == lock || page.len() == self.size.as_usize())
        );
        Self::new(self.size, pages)
    }
}

impl PageSource for Memory {
    fn page_size(&self) -> PageSize {
        self.size
    }

    fn page_count(&self) -> PageCount {
        PageCount(self.pages.len().try_into().unwrap())
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.seen.lock().unwrap().push(page.0);
        assert_ne!(page, self.size.lock_page(), "the lock page has no content to be read");
        if page.0 == self.fails.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the store went away"));
        }
        into.clear();
        into.extend_from_slice(&self.pages[page.0 as usize - 1]);
        Ok(())
    }
}

pub fn overlay(source: &Arc<Memory>) -> SnapshotDb {
    SnapshotDb::open(source.clone(), Access::Overlay).unwrap()
}

pub fn read_only(source: &Arc<Memory>) -> SnapshotDb {
    SnapshotDb::open(source.clone(), Access::ReadOnly).unwrap()
}

pub fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let values: Vec<_> = (0..columns).map(|n| format!("{:?}", row.get_ref_unwrap(n))).collect();
        Ok(values.join("|"))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Everything in a database, and that it is well-formed.
pub fn dump(connection: &Connection) -> Vec<String> {
    assert_eq!(rows(connection, "PRAGMA integrity_check"), ["Text([111, 107])"]);
    let mut all = rows(connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name, type");
    for setting in ["user_version", "encoding", "auto_vacuum", "page_size", "page_count", "freelist_count"] {
        all.push(format!("{setting} {:?}", rows(connection, &format!("PRAGMA {setting}"))));
    }
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")
        .unwrap();
    let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for name in names {
        all.push(name.clone());
        let mut content = rows(connection, &format!("SELECT * FROM \"{name}\""));
        content.sort_unstable();
        all.extend(content);
    }
    all
}
