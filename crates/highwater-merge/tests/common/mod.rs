//! Three databases from SQL, merged, and the result open for questions.

use std::io;
use std::path::Path;
use std::sync::Arc;

use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_merge::{Merge, Merged, Options, Sides, merge};
use highwater_pages::canonicalise_first_page;
use highwater_pages::owners::PageSource;
use highwater_wire::{CannotMerge, Conflict, ConflictKind};
use rusqlite::Connection;
use tempfile::TempDir;

/// Pages in memory, canonical.
#[derive(Clone, PartialEq)]
pub struct Memory {
    size: PageSize,
    pages: Vec<Vec<u8>>,
}

impl Memory {
    pub fn of_file(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65536,
            other => u32::from(other),
        };
        let mut pages: Vec<_> = bytes.chunks(size as usize).map(<[u8]>::to_vec).collect();
        canonicalise_first_page(&mut pages[0]);
        Self { size: PageSize::new(size).unwrap(), pages }
    }

    /// The database in a file, open.
    pub fn open(&self, path: &Path) -> Connection {
        let mut bytes = self.pages.concat();
        (bytes[18], bytes[19]) = (1, 1);
        std::fs::write(path, bytes).unwrap();
        let db = Connection::open(path).unwrap();
        db.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        db
    }

    pub fn with(&self, merge: &Merge) -> Self {
        let mut pages = self.pages.clone();
        pages.resize(merge.page_count.0 as usize, vec![0; self.size.as_usize()]);
        for (page, data) in &merge.pages {
            pages[page.0 as usize - 1].clone_from(data);
        }
        Self { size: self.size, pages }
    }

    /// Pages that both have and that differ.
    pub fn differing(&self, other: &Self) -> Vec<PageNo> {
        let pairs = self.pages.iter().zip(&other.pages).zip(1..);
        pairs.filter(|((a, b), _)| a != b).map(|(_, page)| PageNo(page)).collect()
    }

    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.pages[0][at..at + 4].try_into().unwrap())
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
        into.clear();
        into.extend_from_slice(&self.pages[page.0 as usize - 1]);
        Ok(())
    }
}

/// Three states of one database.
pub struct Scene {
    folder: TempDir,
    pub base: Memory,
    pub local: Memory,
    pub head: Memory,
}

/// The result of a merge.
pub struct Result {
    pub db: Connection,
    pub merge: Merge,
    pub pages: Memory,
    _folder: TempDir,
}

impl Scene {
    pub fn new(base: &str, local: &str, head: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, sql: &str| {
            let db = Connection::open(path(name)).unwrap();
            db.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
            db.execute_batch(sql).unwrap_or_else(|error| panic!("{name}: {error}"));
            drop(db);
            Memory::of_file(&path(name))
        };
        let from_base = |name: &str, sql: &str| {
            std::fs::copy(path("base"), path(name)).unwrap();
            write(name, sql)
        };
        let base = write("base", &format!("CREATE TABLE always (there); {base}"));
        let (local, head) = (from_base("local", local), from_base("head", head));
        Self { folder, base, local, head }
    }

    /// As [`Scene::new`], but what SQLite refuses is left out.
    pub fn of_statements(base: &[String], local: &[String], head: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, statements: &[String]| {
            let db = Connection::open(path(name)).unwrap();
            db.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
            for statement in statements {
                let _refused = db.execute_batch(statement);
            }
            drop(db);
            Memory::of_file(&path(name))
        };
        let mut all = vec!["CREATE TABLE always (there)".to_owned()];
        all.extend_from_slice(base);
        let base = write("base", &all);
        for side in ["local", "head"] {
            std::fs::copy(path("base"), path(side)).unwrap();
        }
        let (local, head) = (write("local", local), write("head", head));
        Self { folder, base, local, head }
    }

    /// Of three states that are there already.
    pub fn of(base: Memory, local: Memory, head: Memory) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), base, local, head }
    }

    pub fn sides(&self) -> Sides {
        Sides {
            base: Arc::new(self.base.clone()),
            local: Arc::new(self.local.clone()),
            head: Arc::new(self.head.clone()),
            local_changed: self.base.differing(&self.local),
            head_changed: self.base.differing(&self.head),
        }
    }

    pub fn merged(&self, options: &Options) -> Merged {
        merge(&self.sides(), options).unwrap()
    }

    /// Merges, and checks what holds for every merge.
    pub fn done(self, options: &Options) -> Result {
        let merge = match self.merged(options) {
            Merged::Done(merge) => *merge,
            other => panic!("{other:?}"),
        };
        let Merged::Done(again) = self.merged(options) else { panic!("not deterministic") };
        assert_eq!(again.pages, merge.pages, "a merge is deterministic");
        let pages = self.head.with(&merge);
        let db = pages.open(&self.folder.path().join("merged"));
        assert_eq!(texts(&db, "PRAGMA integrity_check"), ["ok"]);
        let cookie = |of: &Memory| of.number(40);
        for side in [&self.local, &self.head] {
            let open = |of: &Memory| {
                let db = of.open(&self.folder.path().join("look"));
                texts(&db, "SELECT format('%s %s %d %s', type, name, rootpage, sql) FROM sqlite_schema")
            };
            let differ = open(&pages) != open(side);
            assert!(
                cookie(&pages) >= cookie(side) + u32::from(differ),
                "an open connection sees the schema change"
            );
        }
        for table in virtual_tables(&db) {
            db.execute_batch(&table).unwrap_or_else(|error| panic!("{table}: {error}"));
        }
        for table in texts(&db, "SELECT name FROM sqlite_schema WHERE sql LIKE '%USING rtree%'") {
            assert_eq!(texts(&db, &format!("SELECT rtreecheck('{table}')")), ["ok"]);
        }
        Result { db, merge, pages, _folder: self.folder }
    }
}

/// Checks of full-text tables against their content.
fn virtual_tables(db: &Connection) -> Vec<String> {
    let sql = "SELECT 'INSERT INTO \"' || name || '\"(\"' || name || '\") VALUES (''integrity-check'')' \
               FROM sqlite_schema WHERE sql LIKE '%USING fts%'";
    texts(db, sql)
}

/// What becomes of `base` when one side runs `local` on it and the other `head`.
pub fn merged(base: &str, local: &str, head: &str) -> Result {
    Scene::new(base, local, head).done(&Options::default())
}

/// Why it cannot be merged.
pub fn refused(base: &str, local: &str, head: &str) -> CannotMerge {
    match Scene::new(base, local, head).merged(&Options::default()) {
        Merged::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

impl Result {
    /// The rows of a query, values separated by `|`.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        texts(&self.db, sql)
    }

    pub fn conflicts(&self) -> &[Conflict] {
        &self.merge.conflicts
    }

    /// Kind and table of every conflict.
    pub fn kinds(&self) -> Vec<(ConflictKind, &str)> {
        self.merge.conflicts.iter().map(|conflict| (conflict.kind, conflict.table.as_str())).collect()
    }

    /// Nothing was lost, and nothing was renumbered.
    pub fn peaceful(self) -> Self {
        assert_eq!(self.merge.conflicts, []);
        self
    }

    pub fn columns(&self, table: &str) -> Vec<String> {
        self.rows(&format!("SELECT name FROM pragma_table_xinfo('{table}') ORDER BY cid"))
    }
}

/// The rows of a query, values separated by `|`.
pub fn texts(db: &Connection, sql: &str) -> Vec<String> {
    let mut statement = db.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let count = statement.column_count();
    let rows = statement.query_map([], |row| {
        let value = |at| match row.get_ref(at).unwrap() {
            rusqlite::types::ValueRef::Null => "NULL".to_owned(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            rusqlite::types::ValueRef::Real(number) => number.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Blob(bytes) => format!("{bytes:02x?}"),
        };
        Ok((0..count).map(value).collect::<Vec<_>>().join("|"))
    });
    rows.unwrap().map(std::result::Result::unwrap).collect()
}

/// What random tests try: the same few cases every time, so that a failure is the change's; with
/// `HIGHWATER_CASES=N` as many others, found anew each time (`PROPTEST_RNG_SEED` repeats them).
pub fn tries(few: u32) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    let more = std::env::var("HIGHWATER_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config { failure_persistence: None, max_shrink_iters: 3000, ..Config::default() };
    match more {
        Some(cases) => Config { cases, ..config },
        None => Config { cases: few, rng_seed: RngSeed::Fixed(1), ..config },
    }
}
