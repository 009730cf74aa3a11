//! A Highwater copy beside libSQL clients, which push the frames of their write-ahead logs. The released clients are
//! tried in `interop/`; here they are a SQLite file whose log is posted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    missing_docs,
    unreachable_pub
)]

mod common;

use common::{World, rows};
use highwater::Action;
use rusqlite::Connection;

const FRAME: usize = 24 + 4096;

/// A database of a libSQL client.
struct Device {
    connection: Connection,
    path: std::path::PathBuf,
    url: String,
    durable: usize,
}

impl Device {
    fn new(world: &World) -> Self {
        let path = world.path("libsql.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        Self { connection, path, url: world.url("app"), durable: 0 }
    }

    async fn run(&mut self, sql: &str) {
        self.connection.execute_batch(sql).unwrap();
        let log = std::fs::read(self.path.with_extension("db-wal")).unwrap();
        let frames = log[32 + self.durable * FRAME..].to_vec();
        let end = self.durable + frames.len() / FRAME;
        let url = format!("{}/sync/1/{}/{}", self.url, self.durable + 1, end + 1);
        let answer = reqwest::Client::new().post(url).body(frames).send().await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!((&answer["status"], &answer["max_frame_no"]), (&"ok".into(), &end.into()), "{answer}");
        self.durable = end;
    }
}

#[tokio::test]
async fn rows_pass_between_a_libsql_client_and_a_copy() {
    let world = World::new();
    let mut device = Device::new(&world);
    device.run("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT NOT NULL)").await;
    let copy = world.open("copy.db");
    copy.sync().await.unwrap();
    for text in ["one", "two"] {
        device.run(&format!("INSERT INTO t (text) VALUES ('{text}')")).await;
    }
    let pulled = copy.sync().await.unwrap();
    assert_eq!(rows(copy.path()), rows(&device.path));
    assert_eq!(pulled.position.unwrap().place().frame.0, device.durable as u64);
}

/// All libSQL clients look like one device in the log, and are not.
#[tokio::test]
async fn a_row_that_a_libsql_client_deleted_does_not_come_back_through_a_copy_without_metadata() {
    let world = World::new();
    let mut device = Device::new(&world);
    device.run("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT NOT NULL)").await;
    let many = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < 600)
                INSERT INTO t (text) SELECT hex(randomblob(40)) FROM n";
    device.run(many).await;
    let copy = world.open("copy.db");
    copy.sync().await.unwrap();
    drop(copy);
    for suffix in ["-info", "-sums"] {
        std::fs::remove_file(format!("{}{suffix}", world.path("copy.db").display())).unwrap();
    }
    device.run("DELETE FROM t WHERE id = 5").await;
    Connection::open(world.path("copy.db"))
        .unwrap()
        .execute_batch("INSERT INTO t (id, text) VALUES (1000, 'of the copy')")
        .unwrap();
    let copy = world.open("copy.db");
    assert_eq!(copy.sync().await.unwrap().action, Action::Merged);
    let there = rows(&world.restored("app"));
    assert!(there.iter().any(|row| row.contains("Integer(1000) ")), "what the copy wrote is there");
    assert!(!there.iter().any(|row| row.contains("Integer(5) ")), "the deleted row is back");
}
