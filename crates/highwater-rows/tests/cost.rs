//! Reading what changed costs what the change costs, however large the database is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

mod common;

use common::Image;
use highwater_rows::{Key, RowChange, changed_rows};
use rusqlite::Connection;

/// Pages read to find the 100 rows that `update` changes in a table of so many rows, and pages of the database.
fn cost(create: &str, rows: u32, update: &str) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let (now, then) = (folder.path().join("now.db"), folder.path().join("then.db"));
    let db = Connection::open(&now).unwrap();
    db.execute_batch(&format!(
        "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; {};",
        create.replace("$rows", &rows.to_string())
    ))
    .unwrap();
    std::fs::copy(&now, &then).unwrap();
    let step = rows / 100;
    db.execute_batch(&update.replace("$step", &step.to_string())).unwrap();
    let (before, after) =
        (Image::new(std::fs::read(&then).unwrap()), Image::new(std::fs::read(&now).unwrap()));
    let trees = common::trees(&Connection::open(&then).unwrap(), &db, "t");
    let found = changed_rows(&before, &after, &trees, &before.changed(&after)).unwrap();
    assert_eq!(found.rows[0].len(), 100);
    assert!(found.rows[0].iter().all(|row| row.before && row.after));
    let reads = before.reads.into_inner() + after.reads.into_inner();
    assert_eq!(found.pages_read, reads as u64);
    (found.pages_read, (after.bytes.len() / after.size.as_usize()) as u64)
}

fn assert_cheap(create: &str, small: u32, large: u32, update: &str) {
    let (small, large) = (cost(create, small, update), cost(create, large, update));
    assert!(large.1 > 50 * small.1, "{large:?} {small:?}");
    assert!(large.0 <= 3 * small.0, "{large:?} {small:?}");
    assert!(large.0 * 20 < large.1, "{large:?}");
}

const NUMBERS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $rows)";

#[test]
fn rows_of_a_large_table_cost_as_much_as_those_of_a_small_one() {
    let create = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
         {NUMBERS} INSERT INTO t SELECT i, 'some text that takes its place ' || i, i * 7 FROM n"
    );
    assert_cheap(&create, 10_000, 1_000_000, "UPDATE t SET b = -1 WHERE id % $step = 0");
}

#[test]
fn rows_without_rowid_cost_no_more() {
    let create = format!(
        "CREATE TABLE t(k TEXT PRIMARY KEY, a, i) WITHOUT ROWID;
         {NUMBERS} INSERT INTO t SELECT printf('key %08d', i), 'some text', i FROM n"
    );
    assert_cheap(&create, 10_000, 1_000_000, "UPDATE t SET a = 'another' WHERE i % $step = 0");
}

#[test]
fn long_values_that_are_overwritten_in_place_are_found_nearby() {
    let create = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a);
         {NUMBERS} INSERT INTO t SELECT i, zeroblob(9000 + i % 5000) FROM n"
    );
    let update = "UPDATE t SET a = CAST(zeroblob(length(a) - 1) || 'x' AS BLOB) WHERE id % $step = 0";
    assert_cheap(&create, 200, 20_000, update);
}

#[test]
fn rows_that_a_vacuum_moved_cancel() {
    let create = format!(
        "CREATE TABLE gone(a); CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
         CREATE TABLE w(k TEXT PRIMARY KEY, a) WITHOUT ROWID;
         {NUMBERS} INSERT INTO gone SELECT zeroblob(100) FROM n;
         {NUMBERS} INSERT INTO t SELECT i, 'some text that takes its place ' || i, zeroblob(i % 99 * 90) FROM n;
         INSERT INTO w SELECT a, b FROM t; DROP TABLE gone"
    );
    let folder = tempfile::tempdir().unwrap();
    let (now, then) = (folder.path().join("now.db"), folder.path().join("then.db"));
    let db = Connection::open(&now).unwrap();
    db.execute_batch(&create.replace("$rows", "3000")).unwrap();
    std::fs::copy(&now, &then).unwrap();
    db.execute_batch("UPDATE t SET a = 'changed' WHERE id = 77; VACUUM").unwrap();
    let before = Image::new(std::fs::read(&then).unwrap());
    let after = Image::new(std::fs::read(&now).unwrap());
    let old = Connection::open(&then).unwrap();
    let trees: Vec<_> = ["t", "w"].iter().flat_map(|name| common::trees(&old, &db, name)).collect();
    let changed = before.changed(&after);
    let pages = before.bytes.len() / 4096 + after.bytes.len() / 4096;
    assert!(changed.len() > 2000, "{} {pages}", changed.len());
    let found = changed_rows(&before, &after, &trees, &changed).unwrap();
    assert_eq!(found.rows, [vec![RowChange { key: Key::Rowid(77), before: true, after: true }], vec![]]);
    assert!(found.pages_read < 3 * pages as u64, "{} {pages}", found.pages_read);
}
