//! SQL over HTTP, on the database as it was at any position: it reads, and does nothing else, within its limits.
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

use std::path::Path;
use std::time::{Duration, Instant};

use common::{DEVICE_A, Image, Rig};
use highwater_ltx::Position;
use highwater_server::{Config, Limits, SnapshotPolicy, StoreUrl};
use highwater_wire::{ErrorBody, ErrorCode, QueryAnswer, QueryCut, SqlValue};
use rusqlite::Connection;

/// The database in `folder` after these statements.
fn after(folder: &Path, sql: &str) -> Image {
    let path = folder.join("app.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    Image::of_file(&path)
}

async fn post(rig: &Rig, path: &str, body: String) -> reqwest::Response {
    rig.client.post(rig.url(path)).body(body).send().await.unwrap()
}

async fn ask(rig: &Rig, sql: &str, at: Option<&str>) -> Result<QueryAnswer, ErrorBody> {
    let body = serde_json::json!({ "sql": sql, "at": at }).to_string();
    let response = post(rig, "app/v1/query", body).await;
    let good = response.status() == 200;
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    if good {
        return Ok(serde_json::from_slice(&bytes).unwrap());
    }
    let error: ErrorBody = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(status, error.code.status());
    Err(error)
}

async fn number(rig: &Rig, sql: &str, at: Option<&str>) -> i64 {
    match ask(rig, sql, at).await.unwrap().rows[0][0] {
        SqlValue::Integer(number) => number,
        ref other => panic!("{other:?}"),
    }
}

/// Pushes the database after each of these statements; the positions.
async fn pushed(rig: &Rig, folder: &Path, steps: &[&str]) -> Vec<Position> {
    let (mut positions, mut before) = (Vec::<Position>::new(), None::<Image>);
    for step in steps {
        let image = after(folder, step);
        let body = image.body(before.as_ref());
        let base = positions.last().copied();
        positions.push(rig.sync("app", DEVICE_A, base, body).await.position());
        before = Some(image);
    }
    positions
}

const FIRST: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB, r REAL);
    INSERT INTO t VALUES(1, 'one', x'01ff', 0.5), (2, NULL, x'', 2.0);
    CREATE TABLE many(v);
    WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c WHERE n<20000)
    INSERT INTO many SELECT hex(randomblob(50)) FROM c;";

#[tokio::test(flavor = "multi_thread")]
async fn every_retained_position_answers_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    // Snapshots and generations come in between.
    let mut rig = Rig::local(SnapshotPolicy { max_files: 3, outweigh: false }, Limits::default());
    let more = "UPDATE t SET a = a || '!' WHERE id = 1; INSERT INTO t(a) VALUES('more')";
    let steps = [FIRST, more, more, more, "DELETE FROM many WHERE rowid % 2; VACUUM", more, more];
    let positions = pushed(&rig, folder.path(), &steps).await;
    for _ in 0..2 {
        for (n, position) in positions.iter().enumerate() {
            let at = position.place().to_string();
            let answer = ask(&rig, "SELECT count(*), min(a) FROM t", Some(&at)).await.unwrap();
            let inserted = [0, 1, 2, 3, 3, 4, 5][n];
            assert_eq!(answer.rows[0][0], SqlValue::Integer(2 + inserted), "{at}");
            assert_eq!(answer.position.state, position.state.to_string());
            let many = if n < 4 { 20_000 } else { 10_000 };
            assert_eq!(number(&rig, "SELECT count(*) FROM many", Some(&at)).await, many, "{at}");
            let whole = ask(&rig, "PRAGMA integrity_check", Some(&at)).await.unwrap();
            assert_eq!(whole.rows, [[SqlValue::text("ok")]]);
        }
        let head = ask(&rig, "SELECT id, a, b, r FROM t WHERE id < 3", None).await.unwrap();
        assert_eq!(head.columns, ["id", "a", "b", "r"]);
        let blob = |bytes: &[u8]| SqlValue::Blob(bytes.to_vec());
        let one = [SqlValue::Integer(1), SqlValue::text("one!!!!!"), blob(&[1, 255]), SqlValue::Real(0.5)];
        assert_eq!(head.rows[0], one);
        assert_eq!(head.rows[1], [SqlValue::Integer(2), SqlValue::Null, blob(&[]), SqlValue::Real(2.0)]);
        assert_eq!((head.cut, head.txid), (None, 7));
        assert_eq!(number(&rig, "SELECT count(*) FROM t", Some("2101-01-01T00:00:00Z")).await, 7);
        rig.restart();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_query_of_an_old_position_reads_a_few_pages() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let positions = pushed(&rig, folder.path(), &[FIRST, "UPDATE many SET v = v || 'x'"]).await;
    for position in positions {
        let at = position.place().to_string();
        let answer = ask(&rig, "SELECT v FROM many WHERE rowid = 10000", Some(&at)).await.unwrap();
        assert!(answer.pages_read < 8, "{} pages", answer.pages_read);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_query_is_refused_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::memory();
    let positions = pushed(&rig, folder.path(), &[FIRST]).await;
    for (sql, why) in [
        ("INSERT INTO t(a) VALUES('x')", "writes"),
        ("UPDATE t SET a = 'x' RETURNING a", "writes"),
        ("DROP TABLE t", "writes"),
        ("CREATE TEMP TABLE x AS SELECT 1", "writes"),
        ("PRAGMA user_version = 5", "PRAGMA user_version with a value"),
        ("PRAGMA journal_mode", "PRAGMA journal_mode"),
        ("ATTACH '/etc/passwd' AS p", "ATTACH"),
        ("SELECT 1; DELETE FROM t", "more than one statement"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("SELEC", "syntax error"),
        ("", "no statement"),
        ("SELECT ?", "parameters"),
    ] {
        let error = ask(&rig, sql, None).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest, "{sql}");
        assert!(error.message.contains(why), "{sql}: {}", error.message);
    }
    for at in ["9/9", "2001-01-01T00:00:00Z"] {
        let error = ask(&rig, "SELECT 1", Some(at)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::UnknownPosition, "{}", error.message);
    }
    for at in ["yesterday", "1", "", "1/2/3"] {
        let error = ask(&rig, "SELECT 1", Some(at)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest, "{}", error.message);
        assert!(error.message.contains("1/9"), "{}", error.message);
    }
    for body in ["", "SELECT 1", "{}", r#"{"sql":1}"#, r#"{"sql":"SELECT 1","params":[1]}"#] {
        assert_eq!(post(&rig, "app/v1/query", body.to_owned()).await.status(), 400, "{body}");
    }
    let long = serde_json::json!({ "sql": format!("SELECT '{}'", "x".repeat(300_000)) }).to_string();
    assert_eq!(post(&rig, "app/v1/query", long).await.status(), 413);
    assert_eq!(post(&rig, "other/v1/query", r#"{"sql":"SELECT 1"}"#.to_owned()).await.status(), 404);
    assert_eq!(rig.get("app/v1/query").await.status(), 405);
    // Nothing of it did anything.
    assert_eq!(number(&rig, "SELECT count(*) FROM t", None).await, 2);
    assert_eq!(rig.json("app/v1").await["head"]["state"], positions[0].state.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_much_is_stopped_or_cut() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { query_timeout: Duration::from_millis(300), ..Limits::default() };
    let rig = Rig::start(Config { store: StoreUrl::Memory, limits, ..Config::default() }, None);
    pushed(&rig, folder.path(), &[FIRST]).await;
    let endless = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) SELECT count(*) FROM c";
    let start = Instant::now();
    let error = ask(&rig, endless, None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert!(error.message.contains("stopped after 0.3 s"), "{}", error.message);
    assert!(start.elapsed() < Duration::from_secs(5));

    let rows = ask(&rig, "SELECT 1 FROM many", None).await.unwrap();
    assert_eq!((rows.rows.len(), rows.cut), (10_000, Some(QueryCut::Rows)));
    let bytes = ask(&rig, "SELECT zeroblob(100000) FROM many", None).await.unwrap();
    assert_eq!((bytes.rows.len(), bytes.cut), (83, Some(QueryCut::Bytes)));
    let value = ask(&rig, "SELECT hex(zeroblob(10000000))", None).await.unwrap_err();
    assert_eq!(value.code, ErrorCode::TooLarge, "{}", value.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_queries_wait_for_each_other_and_nothing_else_waits_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        queries: 1,
        query_timeout: Duration::from_secs(2),
        wait: Duration::from_millis(100),
        ..Limits::default()
    };
    let rig = Rig::start(Config { store: StoreUrl::Memory, limits, ..Config::default() }, None);
    pushed(&rig, folder.path(), &[FIRST]).await;
    let endless = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c) SELECT count(*) FROM c";
    let other = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let refused = ask(&rig, "SELECT 1", None).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unavailable, "{}", refused.message);
        let start = Instant::now();
        assert_eq!(rig.get("app/v1").await.status(), 200);
        assert!(start.elapsed() < Duration::from_millis(500));
    };
    let (stopped, ()) = tokio::join!(ask(&rig, endless, None), other);
    assert_eq!(stopped.unwrap_err().code, ErrorCode::TooLarge);
    assert_eq!(number(&rig, "SELECT 1", None).await, 1);
}
