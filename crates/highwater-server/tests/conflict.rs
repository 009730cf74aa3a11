//! Two devices that changed real databases: the conflict names the tables.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    clippy::cast_possible_truncation
)]
mod common;

use common::{DEVICE_A, DEVICE_B, Image, Rig};
use highwater_server::{Config, Limits, MergeConfig, StoreUrl};
use highwater_wire::MergePolicy;
use rusqlite::Connection;

/// The database after these statements, on top of a copy of `from`.
fn after(folder: &std::path::Path, from: Option<&str>, name: &str, sql: &str) -> Image {
    let path = folder.join(name);
    if let Some(from) = from {
        std::fs::copy(folder.join(from), &path).unwrap();
    }
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    Image::of_file(&path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_names_the_tables_of_both_sides() {
    for small_body in [8 << 20, 0] {
        let folder = tempfile::tempdir().unwrap();
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000) INSERT INTO";
        let first = after(
            folder.path(),
            None,
            "first.db",
            &format!(
                "CREATE TABLE orders(id INTEGER PRIMARY KEY, t TEXT); CREATE TABLE people(id INTEGER PRIMARY KEY, t TEXT);
                 CREATE TABLE quiet(id INTEGER PRIMARY KEY, t TEXT); CREATE INDEX by_text ON people(t);
                 {many} orders SELECT i, hex(randomblob(20)) FROM n; {many} people SELECT i, hex(randomblob(20)) FROM n;
                 {many} quiet SELECT i, hex(randomblob(20)) FROM n;"
            ),
        );
        let limits = Limits { small_body, ..Limits::default() };
        let merge = MergeConfig { policy: MergePolicy::Fail, ..MergeConfig::default() };
        let rig = Rig::start(Config { store: StoreUrl::Memory, limits, merge, ..Config::default() }, None);
        let base = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
        let theirs = after(
            folder.path(),
            Some("first.db"),
            "theirs.db",
            "UPDATE people SET t='x' WHERE id=1000; UPDATE orders SET t='y' WHERE id=1",
        );
        rig.sync("db", DEVICE_A, Some(base), theirs.body(Some(&first))).await.position();
        let ours = after(
            folder.path(),
            Some("first.db"),
            "ours.db",
            "UPDATE orders SET t='z' WHERE id IN (1, 1900); CREATE TABLE new(x); INSERT INTO new VALUES (1)",
        );
        let conflict = rig.sync("db", DEVICE_B, Some(base), ours.body(Some(&first))).await;
        let detail = conflict.error().conflict.unwrap();
        assert_eq!(detail.remote_tables, ["orders", "people"]);
        let named: Vec<_> = detail.local_tables.iter().filter(|name| *name != "sqlite_schema").collect();
        assert_eq!(named, ["new", "orders"]);
        assert_eq!(detail.both_tables, ["orders"]);
        assert_eq!(rig.snapshot("db/v1/snapshot").await, theirs);
    }
}
