//! The real `litestream` (0.5.17) restores any database from the store of a running server, and the
//! server takes over what litestream replicated.
//!
//! The binary is `$HIGHWATER_LITESTREAM`, else `litestream` on the `PATH`; without either these
//! tests say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    clippy::cast_possible_truncation
)]
mod common;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use common::{DEVICE_A, DEVICE_B, Image, Rig};
use highwater_ltx::Position;
use highwater_server::{Limits, SnapshotPolicy, verify_store};
use rusqlite::Connection;

/// The binary, if there is one; a path that was given has to work.
fn litestream() -> Option<OsString> {
    let given = std::env::var_os("HIGHWATER_LITESTREAM");
    let binary = given.clone().unwrap_or_else(|| "litestream".into());
    if Command::new(&binary).arg("version").output().is_ok_and(|output| output.status.success()) {
        return Some(binary);
    }
    assert!(given.is_none(), "HIGHWATER_LITESTREAM cannot be run");
    eprintln!("skipped: no litestream binary; set HIGHWATER_LITESTREAM to its path");
    None
}

const STORY: &[&str] = &[
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); INSERT INTO t (a, b) VALUES ('first', 1);",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
     INSERT INTO t (a, b) SELECT hex(randomblob(60)), randomblob(100) FROM n;",
    "UPDATE t SET a = 'changed' WHERE id % 50 = 0;",
    "CREATE INDEX by_a ON t (a);",
    "DELETE FROM t WHERE id > 40;",
    "VACUUM;",
    "UPDATE t SET b = 'after the shrink' WHERE id = 7;",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
     INSERT INTO t (a, b) SELECT 'again', randomblob(150) FROM n;",
    "DROP INDEX by_a;",
];

fn restore(binary: &OsString, replica: &Path, out: &Path, txid: Option<u64>) -> Image {
    let mut command = Command::new(binary);
    command.args(["restore", "-integrity-check", "full", "-o"]).arg(out);
    if let Some(txid) = txid {
        command.args(["-txid", &format!("{txid:016x}")]);
    }
    let output = command.arg(format!("file://{}", replica.display())).output().unwrap();
    assert!(output.status.success(), "{txid:?}: {}", String::from_utf8_lossy(&output.stderr));
    let connection = Connection::open(out).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let _: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    drop(connection);
    let image = Image::of_file(out);
    std::fs::remove_file(out).unwrap();
    image
}

#[tokio::test(flavor = "multi_thread")]
async fn litestream_restores_every_point_of_a_servers_store() {
    let Some(binary) = litestream() else { return };
    for small_body in [8 << 20, 0] {
        let limits = Limits { small_body, ..Limits::default() };
        let rig = Rig::local(SnapshotPolicy { max_files: 3, outweigh: true }, limits);
        let folder = tempfile::tempdir().unwrap();
        let (db, out) = (folder.path().join("a.db"), folder.path().join("out.db"));
        let connection = Connection::open(&db).unwrap();
        let mut history: Vec<(Position, Image)> = Vec::new();
        for sql in STORY {
            connection.execute_batch(sql).unwrap();
            let image = Image::of_file(&db);
            let base = history.last().map(|(position, image)| (*position, image));
            let body = image.body(base.map(|(_, image)| image));
            let pushed = rig.sync("team/app", DEVICE_A, base.map(|(position, _)| position), body).await;
            history.push((pushed.position(), image));
            // Time for a snapshot.
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        let replica = rig.store_path().join("team/app");
        assert!(replica.join("ltx/9").read_dir().unwrap().count() >= 2, "snapshots were written");
        assert!(history.last().unwrap().0.generation.0 >= 3, "generations began");
        for (txid, (_, image)) in (1..).zip(&history) {
            assert_eq!(restore(&binary, &replica, &out, Some(txid)), *image, "{txid}");
        }
        assert_eq!(restore(&binary, &replica, &out, None), history.last().unwrap().1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_over_what_litestream_replicated() {
    let Some(binary) = litestream() else { return };
    for snapshot_at in [None, Some(5)] {
        let mut rig = Rig::local(SnapshotPolicy { max_files: 3, outweigh: false }, Limits::default());
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("a.db");
        let replica = rig.store_path().join("db");
        let connection = Connection::open(&db).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL;").unwrap();
        for (chapter, sql) in STORY.iter().enumerate() {
            connection.execute_batch(sql).unwrap();
            let mut command = Command::new(&binary);
            command.args(["replicate", "-once"]);
            if snapshot_at == Some(chapter) {
                command.arg("-force-snapshot");
            }
            let output = command.arg(&db).arg(format!("file://{}", replica.display())).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let image = Image::of_file(&db);
        assert_eq!(rig.snapshot("db/v1/snapshot").await, image);
        let before = rig.json("db/v1").await;
        rig.restart();
        assert_eq!(rig.json("db/v1").await, before, "the same positions after a restart");
        // And goes on from there.
        let head = &before["head"];
        let base: Position =
            format!("{}/{}/{}", head["generation"], head["frame"], head["state"].as_str().unwrap())
                .parse()
                .unwrap();
        let next = image.with(&[(2, 9), (image.count().0 + 1, 9)]);
        let pushed = rig.sync("db", DEVICE_A, Some(base), next.body(Some(&image))).await;
        assert_eq!(pushed.outcome, "pushed", "{pushed:?}");
        rig.restart();
        let pulled = rig.sync("db", DEVICE_B, Some(base), Vec::new()).await;
        assert_eq!(pulled.outcome, "pulled", "{pulled:?}");
        assert_eq!(image.apply(&pulled.body), next);
        assert_eq!(rig.snapshot("db/v1/snapshot").await, next);
        let report = verify_store(rig.server.as_ref().unwrap().store(), |_| {}).await.unwrap();
        assert!(report.is_ok(), "{report:#?}");
    }
}
