//! libSQL's clients when their database is deleted, brought back, or replaced by another of its name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::cast_possible_truncation
)]

mod common;
#[path = "libsql/client.rs"]
mod device;

use std::time::{Duration, Instant};

use common::Rig;
use device::{Device, Failed};
use highwater_server::{Config, DeletionPolicy, StoreUrl};
use serde_json::json;

async fn with_note(rig: &Rig, text: &str) -> Device {
    let mut device = Device::open(rig.url("app")).await;
    device.run("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)");
    device.run(&format!("INSERT INTO notes (text) VALUES ('{text}')"));
    device.sync().await.unwrap();
    device
}

async fn admin(rig: &Rig, method: reqwest::Method, rest: &str) -> u16 {
    let url = rig.url(&format!("admin/v1/databases/app{rest}"));
    rig.client.request(method, url).send().await.unwrap().status().as_u16()
}

fn rig(keep: Duration) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::memory();
    rig.config = Config {
        store: StoreUrl::Local(folder.path().to_owned()),
        deletion: DeletionPolicy { keep, check: Duration::from_millis(20) },
        ..Config::default()
    };
    rig.folder = Some(folder);
    rig.restart();
    rig
}

#[tokio::test]
async fn a_deleted_database_refuses_and_when_it_is_back_the_client_goes_on() {
    let rig = rig(Duration::from_secs(60));
    let mut a = with_note(&rig, "one").await;
    a.run("INSERT INTO notes (text) VALUES ('two')");
    assert_eq!(admin(&rig, reqwest::Method::DELETE, "").await, 200);
    assert_eq!(a.sync().await, Err(Failed::Status(410)));
    assert_eq!(rig.get("app/info").await.status(), 410);
    assert_eq!(admin(&rig, reqwest::Method::POST, "/undelete").await, 200);
    a.sync().await.unwrap();
    let b = Device::open(rig.url("app")).await;
    assert_eq!(b.text("SELECT group_concat(text) FROM notes"), "one,two");
}

#[tokio::test]
async fn a_client_of_a_removed_database_is_never_taken_for_one_of_the_new() {
    let rig = rig(Duration::ZERO);
    let mut old = with_note(&rig, "old").await;
    let mut silent = Device::open(rig.url("app")).await;
    assert_eq!(admin(&rig, reqwest::Method::DELETE, "").await, 200);
    let deadline = Instant::now() + Duration::from_secs(10);
    while admin(&rig, reqwest::Method::GET, "").await != 404 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.json("app/info").await, json!({ "current_generation": 17 }));
    assert_eq!(rig.get("app/export/17").await.status(), 200);
    // As many frames as the old one had, at the same numbers.
    let mut new = with_note(&rig, "new").await;
    assert_eq!(new.last(), old.last());
    assert_eq!(silent.sync().await, Err(Failed::Status(410)), "it pulls");
    old.run("INSERT INTO notes (text) VALUES ('more')");
    assert_eq!(old.sync().await, Err(Failed::Conflict));
    new.run("INSERT INTO notes (text) VALUES ('newer')");
    new.sync().await.unwrap();
    let copy = Device::open(rig.url("app")).await;
    assert_eq!((copy.image(), copy.generation), (new.image(), 17));
    assert_eq!(copy.text("SELECT group_concat(text) FROM notes"), "new,newer");
}
