//! A snapshot is opened without a copy, cannot be written by mistake, and says why it cannot be read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_possible_truncation, clippy::disallowed_methods, unreachable_pub)]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{Memory, dump, overlay, read_only, rows};
use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_pages::owners::PageSource;
use highwater_sqlite::{Access, Error, SnapshotDb};

/// Over 2,000 pages.
fn large() -> Arc<Memory> {
    let source = Memory::of_sql(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a);
         WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<9000)
         INSERT INTO t SELECT n, zeroblob(1000) FROM c",
    );
    assert!(source.pages.len() > 2000);
    source
}

#[test]
fn a_point_query_reads_a_few_pages_of_a_large_database() {
    let source = large();
    let snapshot = read_only(&source);
    assert_eq!(rows(snapshot.connection(), "SELECT length(a) FROM t WHERE id = 4711"), ["Integer(1000)"]);
    assert!(snapshot.pages_read() < 8, "{}", snapshot.pages_read());
    assert_eq!(snapshot.pages_read(), source.reads.load(Ordering::Relaxed));

    let snapshot = overlay(&source);
    snapshot.connection().execute_batch("UPDATE t SET a = zeroblob(999) WHERE id = 4711").unwrap();
    let reads = source.reads.load(Ordering::Relaxed);
    let changes = snapshot.into_changes().unwrap();
    assert_eq!(changes.pages.len(), 1, "one leaf");
    assert_eq!(source.reads.load(Ordering::Relaxed), reads, "what was read is remembered for the comparison");
    assert!(reads < 20, "{reads}");
}

#[test]
fn a_page_is_read_once() {
    let source = Memory::of_sql("CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(100000)), (1), (2)");
    let snapshot = overlay(&source);
    for _ in 0..5 {
        dump(snapshot.connection());
        snapshot.connection().execute_batch("UPDATE t SET a = a").unwrap();
    }
    let mut seen = std::mem::take(&mut *source.seen.lock().unwrap());
    seen.sort_unstable();
    let all: Vec<u32> = (1..=source.pages.len() as u32).collect();
    assert_eq!(seen, all);
}

#[test]
fn a_read_only_snapshot_refuses_to_be_written() {
    let source = Memory::of_sql("CREATE TABLE t(a)");
    let snapshot = read_only(&source);
    for sql in ["INSERT INTO t VALUES(1)", "CREATE TABLE u(a)", "PRAGMA user_version = 3", "VACUUM"] {
        let error = snapshot.connection().execute_batch(sql).unwrap_err().to_string();
        assert!(error.contains("readonly"), "{sql}: {error}");
    }
    assert_eq!(snapshot.into_changes().unwrap().pages, []);
}

#[test]
fn a_source_that_fails_is_named_as_the_cause() {
    let source = large();
    source.fails.store(1500, Ordering::Relaxed);
    let snapshot = read_only(&source);
    let failed =
        snapshot.connection().query_row("SELECT count(length(a)) FROM t", [], |_| Ok(())).unwrap_err();
    assert_eq!(failed.sqlite_error_code(), Some(rusqlite::ErrorCode::SystemIoFailure));
    let Error::Source(cause) = snapshot.explain("count rows", failed) else { panic!("not the source") };
    assert_eq!(cause.to_string(), "the store went away");
    assert!(snapshot.source_error().is_none(), "told once");
    // It heals.
    source.fails.store(0, Ordering::Relaxed);
    assert_eq!(rows(snapshot.connection(), "SELECT count(*) FROM t"), ["Integer(9000)"]);

    source.fails.store(1, Ordering::Relaxed);
    let error = SnapshotDb::open(source, Access::Overlay).unwrap_err();
    assert!(matches!(error, Error::Source(_)), "{error}");
}

/// Says more pages than it has, or pages of a wrong length, or panics.
struct Broken(u8, Arc<Memory>);

impl PageSource for Broken {
    fn page_size(&self) -> PageSize {
        self.1.size
    }

    fn page_count(&self) -> PageCount {
        self.1.page_count()
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> std::io::Result<()> {
        self.1.read(page, into)?;
        match self.0 {
            _ if page.0 == 1 => Ok(()),
            0 => panic!("a defect of a source"),
            _ => {
                into.pop();
                Ok(())
            }
        }
    }
}

#[test]
fn a_defect_of_a_source_is_an_error_and_not_the_end_of_the_process() {
    let source = Memory::of_sql("CREATE TABLE t(a)");
    for kind in 0..2 {
        let snapshot = SnapshotDb::open(Arc::new(Broken(kind, source.clone())), Access::ReadOnly).unwrap();
        assert!(snapshot.connection().query_row("SELECT * FROM t", [], |_| Ok(())).is_err());
    }
}

#[test]
fn snapshots_live_side_by_side_on_many_threads() {
    let source = large();
    let one = overlay(&source);
    let other = overlay(&source);
    one.connection().execute_batch("DELETE FROM t").unwrap();
    assert_eq!(rows(other.connection(), "SELECT count(*) FROM t"), ["Integer(9000)"]);
    let threads: Vec<_> = (0..16)
        .map(|n| {
            let source = source.clone();
            std::thread::spawn(move || {
                let snapshot = overlay(&source);
                snapshot.connection().execute_batch(&format!("DELETE FROM t WHERE id > {n}")).unwrap();
                let changes = std::thread::spawn(move || snapshot.into_changes().unwrap()).join().unwrap();
                let result = source.with(&changes);
                rows(read_only(&result).connection(), "SELECT count(*) FROM t")
            })
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), [format!("Integer({n})")]);
    }
    assert_eq!(rows(one.connection(), "SELECT count(*) FROM t"), ["Integer(0)"]);
}

#[test]
fn no_file_of_the_machine_can_be_opened_through_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    rusqlite::Connection::open(&secret).unwrap().execute_batch("CREATE TABLE s(a)").unwrap();
    let source = Memory::of_sql("CREATE TABLE t(a)");
    let snapshot = overlay(&source);
    let error = snapshot.connection().execute("ATTACH ? AS s", [secret.to_str().unwrap()]).unwrap_err();
    assert!(error.to_string().contains("unable to open"), "{error}");
    assert!(snapshot.connection().execute_batch("ATTACH 'snapshot-1' AS s").is_err());
}

#[test]
fn a_write_ahead_log_is_refused_and_nothing_breaks() {
    let source = Memory::of_sql("CREATE TABLE t(a)");
    let snapshot = overlay(&source);
    let connection = snapshot.connection();
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "memory");
    for mode in ["delete", "truncate", "persist", "off"] {
        connection.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
        connection.execute_batch("BEGIN; INSERT INTO t VALUES(1); COMMIT").unwrap();
    }
    assert_eq!(rows(connection, "SELECT count(*) FROM t"), ["Integer(4)"]);
}

#[test]
fn sorting_more_than_memory_holds_goes_to_temporary_files() {
    let source = large();
    let snapshot = read_only(&source);
    let sql = "SELECT count(*), sum(n) FROM (SELECT row_number() OVER (ORDER BY a, -id) AS n FROM
               (SELECT t.id, t.a || x.value AS a FROM t, json_each('[1,2,3,4,5]') x))";
    assert_eq!(rows(snapshot.connection(), sql), ["Integer(45000)|Integer(1012522500)"]);
}
