//! The server killed at every named step of a merge: the device that sends its change again finds it merged once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    clippy::cast_possible_truncation
)]
#[path = "common/child.rs"]
mod child;
mod common;

use std::path::Path;

use child::ChildServer;
use common::{DEVICE_A, DEVICE_B, Image};
use highwater_ltx::DeviceId;
use highwater_server::{Store, StoreUrl, verify_store};
use highwater_wire::{BASE, DEVICE, PENDING};
use reqwest::Client;
use rusqlite::Connection;

#[test]
fn serve_for_a_test() {
    child::serve_if_child();
}

/// The steps of the sources that only a merge passes.
fn steps() -> Vec<String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/log/merge.rs");
    let text = std::fs::read_to_string(source).unwrap();
    let mut steps: Vec<String> =
        text.split("kill_point(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    steps.sort();
    steps
}

/// The database after these statements, on top of another one.
fn after(folder: &Path, from: &Image, sql: &str) -> Image {
    let path = folder.join("made.db");
    let mut bytes = from.pages.concat();
    if !bytes.is_empty() {
        bytes[18..20].fill(1);
    }
    std::fs::write(&path, bytes).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    Image::of_file(&path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_was_killed_at_any_step_is_made_once() {
    if !cfg!(debug_assertions) {
        return;
    }
    let steps = steps();
    assert!(steps.len() >= 3, "{steps:?}");
    for small_body in ["8388608", "0"] {
        for step in &steps {
            killed_at(step, small_body).await;
        }
    }
}

async fn killed_at(step: &str, small_body: &str) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let small = ("HIGHWATER_TEST_SMALL_BODY", small_body);
    let server =
        ChildServer::start("serve_for_a_test", &store, &[small, ("HIGHWATER_KILL_AT", &format!("{step}:1"))]);
    let server = server.unwrap();
    let url = format!("{}/db/v1/sync", server.url);
    let client = Client::new();
    let first =
        after(folder.path(), &Image::empty(), "CREATE TABLE log(line TEXT); INSERT INTO log VALUES ('a')");
    let base = common::sync(&client, &url, DEVICE_A, None, first.body(None)).await.position();
    let theirs = after(folder.path(), &first, "INSERT INTO log VALUES ('theirs')");
    common::sync(&client, &url, DEVICE_A, Some(base), theirs.body(Some(&first))).await.position();
    let ours = after(folder.path(), &first, "INSERT INTO log VALUES ('ours')");
    let ask = async |client: &Client, url: &str, device: DeviceId| {
        let request = client.post(url).header(DEVICE, device.to_string()).header(BASE, base.to_string());
        request.header(PENDING, ours.state().to_string()).body(ours.body(Some(&first))).send().await
    };
    assert!(ask(&client, &url, DEVICE_B).await.is_err(), "{step} must kill the server");
    server.kill();
    let server = ChildServer::start("serve_for_a_test", &store, &[small]).unwrap();
    let client = Client::new();
    let url = format!("{}/db/v1/sync", server.url);
    for _ in 0..2 {
        let answer = common::synced(ask(&client, &url, DEVICE_B).await.unwrap()).await;
        assert_eq!((answer.outcome.as_str(), answer.txid), ("merged", 3), "{step}");
        let merged = ours.apply(&answer.body);
        let path = folder.path().join("merged.db");
        let mut bytes = merged.pages.concat();
        bytes[18..20].fill(1);
        std::fs::write(&path, bytes).unwrap();
        let lines: String = Connection::open(&path)
            .unwrap()
            .query_row("SELECT group_concat(line) FROM (SELECT line FROM log ORDER BY 1)", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(lines, "a,ours,theirs", "{step}");
    }
    server.kill();
    let store = Store::open(&StoreUrl::Local(store)).unwrap();
    let report = verify_store(&store, |_| {}).await.unwrap();
    assert!(report.is_ok(), "{step}: {report:#?}");
}
