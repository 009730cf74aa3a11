//! A long value that is overwritten in place leaves its leaf as it was; its row is found all the same.
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
use highwater_ltx::PageNo;
use highwater_rows::{Changes, Key, RowChange, changed_rows};
use highwater_wire::SqlValue;
use rusqlite::Connection;

const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)";

/// What is found in table `t` after `change`; asserts that no page of a b-tree changed but the first.
fn found(create: &str, change: &dyn Fn(&Connection)) -> Changes {
    let folder = tempfile::tempdir().unwrap();
    let (now, then) = (folder.path().join("now.db"), folder.path().join("then.db"));
    let db = Connection::open(&now).unwrap();
    db.execute_batch("PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF").unwrap();
    db.execute_batch(create).unwrap();
    std::fs::copy(&now, &then).unwrap();
    change(&db);
    let (before, after) =
        (Image::new(std::fs::read(&then).unwrap()), Image::new(std::fs::read(&now).unwrap()));
    let changed = before.changed(&after);
    let of_trees: Vec<u32> = db
        .prepare("SELECT rootpage FROM sqlite_schema WHERE rootpage > 1")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(changed.len() > 1 && !changed.iter().any(|page| of_trees.contains(&page.0)));
    let is_node = |page: &PageNo| [2, 5, 10, 13].contains(&after.bytes[(page.0 as usize - 1) * 4096]);
    assert!(!changed.iter().any(is_node), "{changed:?}");
    let trees = common::trees(&Connection::open(&then).unwrap(), &db, "t");
    changed_rows(&before, &after, &trees, &changed).unwrap()
}

fn row(rowid: i64) -> RowChange {
    RowChange { key: Key::Rowid(rowid), before: true, after: true }
}

/// Long values that lie far from their leaves, because they came later.
fn far_away(options: &str) -> String {
    format!(
        "{options}; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
         {ROWS} INSERT INTO t SELECT i, i, 'some text to fill a page with ' || i FROM n;
         CREATE TABLE other(a); {ROWS} INSERT INTO other SELECT 'text ' || i FROM n;
         UPDATE t SET b = zeroblob(20000) WHERE id IN (7, 2500)"
    )
}

fn same_size(db: &Connection) {
    let sql = "UPDATE t SET b = CAST(substr(b, 1, length(b) - 1) || 'x' AS BLOB) WHERE id = 2500";
    db.execute_batch(sql).unwrap();
}

#[test]
fn an_update_by_a_value_of_the_same_size_is_found_wherever_its_pages_lie() {
    assert_eq!(found(&far_away(""), &same_size).rows, [[row(2500)]]);
}

#[test]
fn the_pointer_map_of_an_auto_vacuum_database_leads_to_the_row() {
    let found_with = found(&far_away("PRAGMA auto_vacuum=FULL"), &same_size);
    let found_without = found(&far_away(""), &same_size);
    assert_eq!(found_with.rows, [[row(2500)]]);
    assert!(found_with.pages_read < 30, "{found_with:?}");
    assert!(found_with.pages_read * 2 < found_without.pages_read, "{found_with:?} {found_without:?}");
}

#[test]
fn what_incremental_blob_io_wrote_is_found() {
    let create = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); {ROWS} INSERT INTO t SELECT i, i, zeroblob(9000) FROM n"
    );
    let found = found(&create, &|db| {
        for rowid in [70, 4000] {
            let mut blob = db.blob_open("main", "t", "b", rowid, false).unwrap();
            blob.write_at(b"x", 8000).unwrap();
        }
    });
    assert_eq!(found.rows, [[row(70), row(4000)]]);
}

#[test]
fn a_row_without_rowid_is_found_too() {
    let create = format!(
        "CREATE TABLE t(id TEXT PRIMARY KEY, b) WITHOUT ROWID;
         {ROWS} INSERT INTO t SELECT i, 'some text to fill a page with ' || i FROM n;
         UPDATE t SET b = zeroblob(20000) WHERE id IN ('7', '2500')"
    );
    let key = Key::Values(vec![SqlValue::text("2500")]);
    assert_eq!(found(&create, &same_size).rows, [[RowChange { key, before: true, after: true }]]);
}

#[test]
fn a_long_value_of_a_table_that_was_not_asked_for_is_nobodys() {
    let create = far_away("") + "; UPDATE other SET a = CAST(zeroblob(8999) || 'a' AS BLOB) WHERE rowid = 3";
    let change = |db: &Connection| {
        db.execute_batch("UPDATE other SET a = zeroblob(9000) WHERE rowid = 3").unwrap();
    };
    assert_eq!(found(&create, &change).rows, [[]]);
}
