//! A query of somebody who is not trusted reads, and does nothing else, within its limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_possible_truncation, clippy::disallowed_methods, unreachable_pub)]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::Memory;
use highwater_sqlite::query::{Answer, Cut, Error, Limits, query};

const LIMITS: Limits = Limits { time: Duration::from_secs(20), rows: 100, bytes: 100_000 };

fn ask_within(source: &Arc<Memory>, sql: &str, limits: &Limits) -> Result<Answer<String>, Error> {
    query(source.clone(), sql, limits, |value| format!("{value:?}"))
}

fn ask(source: &Arc<Memory>, sql: &str) -> Result<Answer<String>, Error> {
    ask_within(source, sql, &LIMITS)
}

fn database() -> Arc<Memory> {
    Memory::of_sql(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a);
         WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<1000)
         INSERT INTO t SELECT n, 'text'||n FROM c;
         CREATE TABLE big(v); INSERT INTO big VALUES(zeroblob(5000000));
         CREATE VIEW v AS SELECT id, upper(a) AS b FROM t;
         CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f SELECT a FROM t;
         CREATE VIRTUAL TABLE r USING rtree(id, x0, x1); INSERT INTO r VALUES(1, 0, 5), (2, 7, 9);
         CREATE VIRTUAL TABLE f4 USING fts4(body); INSERT INTO f4 SELECT a FROM t;",
    )
}

#[test]
fn what_reads_is_answered() {
    let source = database();
    let first = |sql: &str| {
        let answer = ask(&source, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        (answer.columns.join(","), answer.rows.first().map(|row| row.join(",")).unwrap_or_default())
    };
    let own = |columns: &str, row: &str| (columns.to_owned(), row.to_owned());
    assert_eq!(
        first("SELECT id, a FROM t WHERE id = 7"),
        own("id,a", "Integer(7),Text([116, 101, 120, 116, 55])")
    );
    assert_eq!(first("SELECT id FROM t WHERE id > 5000"), own("id", ""));
    assert_eq!(first("SELECT count(*) AS n FROM v"), own("n", "Integer(1000)"));
    assert_eq!(first("SELECT count(*) AS n FROM f WHERE f MATCH 'text9*'"), own("n", "Integer(111)"));
    assert_eq!(first("SELECT count(*) AS n FROM f4 WHERE f4 MATCH 'text99'"), own("n", "Integer(1)"));
    assert_eq!(first("SELECT id FROM r WHERE x0 > 6"), own("id", "Integer(2)"));
    assert_eq!(first("SELECT length(v) AS n FROM big"), own("n", "Integer(5000000)"));
    assert_eq!(first("SELECT count(*) AS n FROM pragma_table_info('t')"), own("n", "Integer(2)"));
    assert_eq!(first("PRAGMA user_version"), own("user_version", "Integer(0)"));
    assert_eq!(first("PRAGMA table_info(t)").1.split(',').next().unwrap(), "Integer(0)");
    assert_eq!(first("PRAGMA integrity_check"), own("integrity_check", "Text([111, 107])"));
    assert_eq!(first("EXPLAIN QUERY PLAN SELECT * FROM t").0, "id,parent,notused,detail");
    assert_eq!(first("SELECT 1 AS one; -- and a remark"), own("one", "Integer(1)"));
    let point = ask(&source, "SELECT a FROM t WHERE id = 500").unwrap();
    assert!(point.pages_read < 8 && point.cut.is_none(), "{}", point.pages_read);
}

#[test]
fn what_does_more_than_read_is_refused_by_name() {
    let source = database();
    for (sql, why) in [
        ("INSERT INTO t VALUES(5000, 'x')", "writes"),
        ("DELETE FROM t", "writes"),
        ("UPDATE t SET a = 1 RETURNING a", "writes"),
        ("CREATE TABLE u(x)", "writes"),
        ("CREATE TEMP TABLE u AS SELECT 1", "writes"),
        ("DROP TABLE t", "writes"),
        ("ALTER TABLE t ADD COLUMN x", "writes"),
        ("REINDEX", "writes"),
        ("ANALYZE", "writes"),
        ("VACUUM", "writes"),
        ("VACUUM INTO '/tmp/x'", "writes"),
        ("INSERT INTO sqlite_dbpage(pgno, data) VALUES(1, zeroblob(4096))", "writes"),
        ("BEGIN", "transactions"),
        ("SAVEPOINT x", "transactions"),
        ("ATTACH '/etc/passwd' AS p", "ATTACH"),
        ("DETACH main", "ATTACH"),
        ("PRAGMA journal_mode", "PRAGMA journal_mode is"),
        ("PRAGMA user_version = 7", "PRAGMA user_version with a value"),
        ("PRAGMA writable_schema = ON", "PRAGMA writable_schema with a value"),
        ("PRAGMA temp_store_directory = '/tmp'", "temp_store_directory"),
        ("PRAGMA hard_heap_limit = 1", "hard_heap_limit"),
        ("SELECT load_extension('x')", "load_extension"),
        ("SELECT 1; SELECT 2", "more than one"),
        ("", "no statement"),
        ("-- nothing", "no statement"),
    ] {
        let error = ask(&source, sql).unwrap_err();
        assert!(matches!(error, Error::NotAllowed(_)), "{sql}: {error:?}");
        assert!(error.to_string().contains(why), "{sql}: {error}");
    }
}

#[test]
fn a_mistake_is_told_in_sqlites_words() {
    let source = database();
    for (sql, why) in [
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("SELEC 1", "near \"SELEC\": syntax error"),
        ("SELECT a FROM t WHERE id = ?", "parameters"),
        ("SELECT json_extract('{', '$')", "malformed JSON"),
    ] {
        let error = ask(&source, sql).unwrap_err();
        assert!(matches!(error, Error::Wrong(_)), "{sql}: {error:?}");
        assert!(error.to_string().contains(why), "{sql}: {error}");
    }
}

#[test]
fn a_query_that_does_not_end_is_ended() {
    let source = database();
    let limits = Limits { time: Duration::from_millis(200), ..LIMITS };
    for sql in [
        "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) SELECT count(*) FROM c",
        "SELECT count(*) FROM t a, t b, t c, t d WHERE a.id + b.id = c.id * d.id",
        "SELECT count(*) FROM t a, t b, t c ORDER BY random()",
    ] {
        let start = Instant::now();
        let error = ask_within(&source, sql, &limits).unwrap_err();
        assert!(matches!(error, Error::TimedOut(_)), "{sql}: {error:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    let over = Limits { time: Duration::ZERO, ..LIMITS };
    assert!(matches!(ask_within(&source, "SELECT 1 FROM t", &over), Err(Error::TimedOut(_))));
}

#[test]
fn a_large_result_is_cut_and_says_so() {
    let source = database();
    let answer = ask(&source, "SELECT id FROM t").unwrap();
    assert_eq!((answer.rows.len(), answer.cut), (100, Some(Cut::Rows)));
    let exactly = ask(&source, "SELECT id FROM t LIMIT 100").unwrap();
    assert_eq!((exactly.rows.len(), exactly.cut), (100, None));
    let bytes = ask(&source, "SELECT zeroblob(40000) FROM t").unwrap();
    assert_eq!((bytes.rows.len(), bytes.cut), (2, Some(Cut::Bytes)));
    let none = ask(&source, "SELECT zeroblob(400000)").unwrap();
    assert_eq!((none.rows.len(), none.cut), (0, Some(Cut::Bytes)));
}

#[test]
fn values_that_are_too_large_are_refused_and_not_made() {
    let source = database();
    for sql in [
        "SELECT v FROM big",
        "SELECT hex(zeroblob(4000000))",
        "SELECT group_concat(hex(zeroblob(1000))) FROM t a, t b",
    ] {
        let error = ask(&source, sql).unwrap_err();
        assert!(matches!(error, Error::TooMuch(_)), "{sql}: {error:?}");
    }
}

#[test]
fn a_hostile_schema_gets_no_more_than_a_hostile_query() {
    let source = Memory::of_sql(
        "CREATE TABLE t(a);
         CREATE VIEW v AS SELECT load_extension('x') FROM t;
         CREATE VIEW w AS WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) SELECT n FROM c;",
    );
    assert!(ask(&source, "SELECT * FROM v").is_err());
    let limits = Limits { time: Duration::from_millis(100), ..LIMITS };
    assert!(matches!(ask_within(&source, "SELECT max(n) FROM w", &limits), Err(Error::TimedOut(_))));
}

#[test]
fn a_source_that_fails_is_no_mistake_of_the_query() {
    let source = database();
    source.fails.store(3, Ordering::Relaxed);
    let error = ask(&source, "PRAGMA integrity_check").unwrap_err();
    assert!(matches!(error, Error::Failed(_)), "{error:?}");
    source.fails.store(1, Ordering::Relaxed);
    assert!(matches!(ask(&source, "SELECT * FROM t"), Err(Error::Failed(_))));
}
