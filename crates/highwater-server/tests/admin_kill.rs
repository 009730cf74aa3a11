//! The server killed at every named step of deleting and removing a database: the next one finishes,
//! and a new database of that name is clear of the old.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    clippy::cast_possible_truncation
)]
#[path = "common/child.rs"]
mod child;
mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use child::ChildServer;
use common::{DEVICE_A, Image};
use highwater_server::{Store, StoreUrl, verify_store};
use reqwest::{Client, StatusCode};

/// Deleted is removed at once.
const ENV: &[(&str, &str)] = &[("HIGHWATER_TEST_KEEP_MS", "0"), ("HIGHWATER_TEST_MAX_FILES", "2")];
const PUSHES: u32 = 4;

#[test]
fn serve_for_a_test() {
    child::serve_if_child();
}

fn start(store: &Path, more: &[(&str, &str)]) -> Option<ChildServer> {
    let env: Vec<_> = ENV.iter().chain(more).copied().collect();
    ChildServer::start("serve_for_a_test", store, &env)
}

/// Asks until the database is gone, or the server is.
async fn deleted(client: &Client, server: &ChildServer) -> bool {
    let url = format!("{}/admin/v1/databases/db", server.url);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match client.delete(&url).send().await.map(|answer| answer.status()) {
            Ok(StatusCode::NOT_FOUND) => return true,
            Ok(status) => assert!(status.is_success() || status == 503, "{status}"),
            Err(_) => return false,
        }
        assert!(Instant::now() < deadline, "it is not removed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A database is pushed, deleted and removed by a server that may die, and by the one after it.
async fn scenario(store: &Path, kill: &[(&str, &str)]) {
    let client = Client::new();
    let mut image = Image::new(512, 10, 1);
    let first = start(store, &[]).unwrap();
    let url = format!("{}/db/v1/sync", first.url);
    let mut base = common::sync(&client, &url, DEVICE_A, None, image.body(None)).await.position();
    for seed in 2..=PUSHES {
        let next = image.with(&[(3, seed as u8)]);
        base = common::sync(&client, &url, DEVICE_A, Some(base), next.body(Some(&image))).await.position();
        image = next;
    }
    first.kill();
    if let Some(server) = start(store, kill) {
        deleted(&client, &server).await;
    }
    let server = start(store, &[]).unwrap();
    assert!(deleted(&Client::new(), &server).await);
    let log = store.join("db/ltx/0");
    assert_eq!(std::fs::read_dir(log).map_or(0, Iterator::count), 0);
    let url = format!("{}/db/v1/sync", server.url);
    let other = Image::new(512, 4, 9);
    let fresh = common::sync(&Client::new(), &url, DEVICE_A, None, other.body(None)).await.position();
    assert_eq!(fresh.generation.0, base.generation.0 + 16);
    server.kill();
    let report =
        verify_store(&Store::open(&StoreUrl::Local(store.to_owned())).unwrap(), |_| {}).await.unwrap();
    assert!(report.is_ok() && report.databases[0].deleted_ms.is_none(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_a_deletion_the_next_server_finishes_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("passed");
    scenario(&folder.path().join("whole"), &[("HIGHWATER_KILL_LOG", log.to_str().unwrap())]).await;
    let mut points: BTreeMap<String, u32> = BTreeMap::new();
    for name in std::fs::read_to_string(&log).unwrap().lines() {
        if name.starts_with("server-admin") || name.starts_with("server-collect") {
            *points.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(points.len(), 5, "{points:?}");
    for (name, times) in points {
        for at in 1..=times {
            let store = folder.path().join(format!("{name}-{at}"));
            scenario(&store, &[("HIGHWATER_KILL_AT", &format!("{name}:{at}"))]).await;
        }
    }
}
