//! SQL on an overlay does what the same SQL does on a file, and the delta says exactly what it did.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_possible_truncation, clippy::disallowed_methods, unreachable_pub)]

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;

use common::{Memory, dump, overlay, read_only};
use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_pages::owners::PageSource;
use highwater_sqlite::{Access, Error, SnapshotDb};
use proptest::prelude::*;
use rusqlite::Connection;

#[derive(Debug, Clone, Copy)]
struct Shape {
    page_size: u32,
    reserved: u8,
    vacuum: &'static str,
    encoding: &'static str,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let sizes = prop::sample::select(vec![512, 1024, 4096, 4096, 8192, 65536]);
    let vacuums = prop::sample::select(vec!["none", "none", "full", "incremental"]);
    let encodings = prop::sample::select(vec!["UTF-8", "UTF-8", "UTF-16le", "UTF-16be"]);
    let reserved = prop::sample::select(vec![0, 0, 8, 32]);
    (sizes, reserved, vacuums, encodings).prop_map(|(page_size, reserved, vacuum, encoding)| Shape {
        page_size,
        reserved,
        vacuum,
        encoding,
    })
}

/// A database with a little of everything.
fn base(path: &Path, shape: Shape) {
    let connection = Connection::open(path).unwrap();
    let Shape { page_size, vacuum, encoding, .. } = shape;
    let settings = format!(
        "PRAGMA page_size={page_size}; PRAGMA auto_vacuum={vacuum}; PRAGMA encoding='{encoding}'; PRAGMA user_version=7"
    );
    connection.execute_batch(&settings).unwrap();
    connection.execute_batch("CREATE TABLE gone(x); DROP TABLE gone; VACUUM").unwrap();
    drop(connection);
    if shape.reserved > 0 && vacuum == "none" {
        reserve(path, page_size, shape.reserved);
    }
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB, n INTEGER);
             CREATE INDEX t_a ON t(a);
             CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
             CREATE TABLE big(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
             CREATE VIRTUAL TABLE f USING fts5(body);
             WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<300)
             INSERT INTO t SELECT n, 'text '||n, zeroblob(n%90), n*7%13 FROM c;
             INSERT INTO w SELECT 'key'||id, id FROM t WHERE id < 60;
             INSERT INTO big(v) SELECT zeroblob(n*999) FROM t WHERE id < 9;
             INSERT INTO f SELECT a||' word'||n FROM t;",
        )
        .unwrap();
}

/// Sets the reserved bytes of an empty database.
fn reserve(path: &Path, page_size: u32, bytes: u8) {
    let mut file = std::fs::read(path).unwrap();
    assert_eq!(file.len(), page_size as usize);
    assert_eq!(file[103..105], [0, 0], "no cells yet");
    file[20] = bytes;
    let content = ((page_size - u32::from(bytes)) as u16).to_be_bytes();
    file[105..107].copy_from_slice(&content);
    std::fs::write(path, file).unwrap();
}

/// One step of a history.
fn statement(kind: u8, x: u32) -> String {
    let (low, high) = (x % 400, x % 400 + x / 400 % 80);
    match kind {
        0 => format!("INSERT INTO t(a, b, n) VALUES('new {x}', zeroblob({}), {})", x % 3000, x % 13),
        1 => format!("UPDATE t SET a = a || ' {x}', n = n + 1 WHERE id BETWEEN {low} AND {high}"),
        2 => format!("DELETE FROM t WHERE id BETWEEN {low} AND {high}"),
        3 => format!("INSERT OR REPLACE INTO w VALUES('key{}', zeroblob({}))", x % 500, x % 2000),
        4 => format!("DELETE FROM w WHERE v < {}", x % 50),
        5 => format!("INSERT INTO big(v) VALUES(zeroblob({}))", x % 200_000),
        6 => format!("DELETE FROM big WHERE id = {}", x % 20),
        7 => format!("INSERT INTO f(body) VALUES('word{} other{x}')", x % 13),
        8 => format!("DELETE FROM f WHERE f MATCH 'word{}'", x % 13),
        9 => "INSERT INTO f(f) VALUES('optimize')".to_owned(),
        10 => "VACUUM".to_owned(),
        11 => format!("BEGIN; SAVEPOINT a{}", x % 3),
        12 => format!("ROLLBACK TO a{}", x % 3),
        13 => format!("SAVEPOINT a{}", x % 3),
        14 => "COMMIT".to_owned(),
        15 => "ROLLBACK".to_owned(),
        16 => format!("CREATE TABLE n{}(x, y DEFAULT 5); INSERT INTO n{}(x) SELECT b FROM t", x % 4, x % 4),
        17 => format!("DROP TABLE n{}", x % 4),
        18 => format!("ALTER TABLE t ADD COLUMN c{} DEFAULT {x}", x % 5),
        19 => format!("CREATE INDEX i{} ON t(n, b)", x % 4),
        20 => format!("PRAGMA cache_size = {}; PRAGMA cache_spill = 1", 2 + x % 20),
        21 => format!("PRAGMA incremental_vacuum({})", x % 40),
        22 => "REINDEX; ANALYZE".to_owned(),
        23 => "CREATE TEMP TABLE tt AS SELECT * FROM t; DROP TABLE tt".to_owned(),
        _ => format!("PRAGMA user_version = {x}"),
    }
}

fn same_history(shape: Shape, steps: &[(u8, u32)], memory: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain");
    base(&path, shape);
    let source = Memory::of_file(&path);
    let untouched = source.pages.clone();
    let plain = Connection::open(&path).unwrap();
    // Both know the schema before the first statement, or SQLite takes some of them differently.
    common::rows(&plain, "SELECT * FROM sqlite_schema");
    let snapshot = SnapshotDb::open_within(source.clone(), Access::Overlay, memory).unwrap();
    for (kind, x) in steps {
        let sql = statement(*kind, *x);
        let (here, there) = (snapshot.connection().execute_batch(&sql), plain.execute_batch(&sql));
        assert_eq!(
            here.as_ref().map_err(ToString::to_string),
            there.as_ref().map_err(ToString::to_string),
            "{sql}"
        );
    }
    for connection in [snapshot.connection(), &plain] {
        if !connection.is_autocommit() {
            connection.execute_batch("COMMIT").unwrap();
        }
    }
    let expected = dump(&plain);
    assert_eq!(dump(snapshot.connection()), expected);
    let changes = snapshot.into_changes().unwrap();
    assert!(changes.pages.is_sorted_by_key(|(page, _)| *page));
    for (page, data) in &changes.pages {
        assert!(highwater_pages::is_canonical(*page, data));
        assert_ne!(source.pages.get(page.0 as usize - 1), Some(data), "only what differs");
    }
    assert_eq!(dump(read_only(&source.with(&changes)).connection()), expected);
    assert_eq!(source.pages, untouched);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sql_on_an_overlay_is_sql_on_a_file(
        shape in shapes(),
        steps in prop::collection::vec((0..25_u8, 0..100_000_u32), 1..40),
        memory in prop::sample::select(vec![0, 20_000, 1 << 25]),
    ) {
        same_history(shape, &steps, memory);
    }
}

#[test]
fn a_database_grows_from_nothing() {
    for size in [512, 4096, 65536] {
        let empty = Memory::new(PageSize::new(size).unwrap(), Vec::new());
        let snapshot = overlay(&empty);
        snapshot.connection().execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES(5)").unwrap();
        let expected = dump(snapshot.connection());
        let changes = snapshot.into_changes().unwrap();
        assert_eq!(changes.page_count.0, 2);
        assert_eq!(dump(read_only(&empty.with(&changes)).connection()), expected);
    }
}

#[test]
fn what_is_written_and_taken_back_is_no_change() {
    let source = Memory::of_sql("CREATE TABLE t(a); INSERT INTO t VALUES(5), (6)");
    let snapshot = overlay(&source);
    snapshot.connection().execute_batch("BEGIN; DELETE FROM t; ROLLBACK; UPDATE t SET a = a").unwrap();
    let changes = snapshot.into_changes().unwrap();
    assert_eq!((changes.page_count.0, changes.pages), (2, Vec::new()));
}

#[test]
fn pages_that_a_shrunk_and_grown_file_left_out_are_in_the_delta() {
    let rows = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<400)";
    let source =
        Memory::of_sql(&format!("CREATE TABLE t(a); {rows} INSERT INTO t SELECT zeroblob(3000) FROM c"));
    let snapshot = overlay(&source);
    let again = format!(
        "DELETE FROM t; VACUUM;
         BEGIN; CREATE TABLE u(a); {rows} INSERT INTO u SELECT zeroblob(3000) FROM c; DELETE FROM u; COMMIT"
    );
    snapshot.connection().execute_batch(&again).unwrap();
    let expected = dump(snapshot.connection());
    let changes = snapshot.into_changes().unwrap();
    assert!(changes.page_count.0 > 200, "{}", changes.page_count.0);
    assert_eq!(dump(read_only(&source.with(&changes)).connection()), expected);
}

#[test]
fn another_page_size_is_said_and_not_made_a_delta() {
    let source = Memory::of_sql("CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(50000))");
    for size in [1024, 512, 16384, 65536] {
        let snapshot = overlay(&source);
        snapshot.connection().execute_batch(&format!("PRAGMA page_size={size}; VACUUM")).unwrap();
        dump(snapshot.connection());
        let error = snapshot.into_changes().unwrap_err();
        assert!(matches!(error, Error::PageSizeChanged { from: 4096, to } if to == size), "{error}");
    }
}

#[test]
fn an_open_transaction_is_not_a_change_yet() {
    let source = Memory::of_sql("CREATE TABLE t(a)");
    let snapshot = overlay(&source);
    snapshot.connection().execute_batch("BEGIN; INSERT INTO t VALUES(1)").unwrap();
    assert!(matches!(snapshot.into_changes(), Err(Error::OpenTransaction)));
}

/// A small database that says that it is large; what is beyond its pages is zeros.
struct Large(Arc<Memory>, PageCount);

impl PageSource for Large {
    fn page_size(&self) -> PageSize {
        self.0.size
    }

    fn page_count(&self) -> PageCount {
        self.1
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        if page.0 as usize > self.0.pages.len() {
            into.clear();
            into.resize(self.0.size.as_usize(), 0);
            return Ok(());
        }
        self.0.read(page, into)?;
        if page.0 == 1 {
            into[28..32].copy_from_slice(&self.1.0.to_be_bytes());
        }
        Ok(())
    }
}

#[test]
fn a_database_grows_beyond_the_lock_page_and_never_reads_or_writes_it() {
    for bytes in [512, 4096, 65536] {
        let lock = PageSize::new(bytes).unwrap().lock_page();
        let small =
            Memory::of_sql(&format!("PRAGMA page_size={bytes}; CREATE TABLE t(a); INSERT INTO t VALUES(1)"));
        for before in [PageCount(lock.0 - 1), PageCount(lock.0 + 1)] {
            let source = Arc::new(Large(small.clone(), before));
            let snapshot = SnapshotDb::open(source, Access::Overlay).unwrap();
            let long = bytes * 5;
            let sql =
                format!("PRAGMA cache_size=1; INSERT INTO t VALUES(zeroblob({long})), (randomblob({long}))");
            snapshot.connection().execute_batch(&sql).unwrap();
            let read = common::rows(snapshot.connection(), "SELECT length(a) FROM t WHERE rowid > 1");
            assert_eq!(read, [format!("Integer({long})"), format!("Integer({long})")]);
            let changes = snapshot.into_changes().unwrap();
            let numbers: Vec<_> = changes.pages.iter().map(|(page, _)| page.0).collect();
            let first = (lock.0 + 1).max(before.0 + 1);
            let new: Vec<_> = numbers.iter().copied().filter(|page| *page > before.0).collect();
            assert_eq!(new, (first..=changes.page_count.0).collect::<Vec<_>>(), "all but the lock page");
            assert!(!numbers.contains(&lock.0) && changes.page_count.0 > lock.0 + 5);
        }
    }
}
