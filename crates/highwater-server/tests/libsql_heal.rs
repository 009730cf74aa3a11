//! Clients of libSQL's protocol that wrote while others did: they are merged, and brought to the head by their next
//! pulls. The released clients themselves are tried in `interop/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation
)]

#[path = "common/child.rs"]
mod child;
mod common;
#[path = "libsql/client.rs"]
mod device;

use std::collections::BTreeSet;

use common::{Random, Rig};
use device::{Device, Failed, Frame};
use highwater_server::{Limits, SnapshotPolicy, StoreUrl, verify_store};
use serde_json::json;

/// A table with ids, and one without any key: rows that come twice are seen there.
const SCHEMA: &str =
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, mark TEXT); CREATE TABLE events (what TEXT)";

async fn device(rig: &Rig) -> Device {
    Device::open(rig.url("app")).await
}

async fn founder(rig: &Rig) -> Device {
    let mut device = device(rig).await;
    device.run(SCHEMA);
    device.run("INSERT INTO notes VALUES (1, 'first', 'first')");
    device.sync().await.unwrap();
    device
}

fn event(device: &Device, what: &str) {
    device.run(&format!("INSERT INTO events VALUES ('{what}')"));
}

fn events(device: &Device) -> String {
    device.text("SELECT coalesce(group_concat(what), '') FROM (SELECT what FROM events ORDER BY what)")
}

fn large(device: &Device, rows: usize) {
    device.run(&format!(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < {rows})
         INSERT INTO notes (text) SELECT hex(randomblob(1000)) FROM n"
    ));
}

fn is_private(generation: u32) -> bool {
    generation >= 1 << 31 && generation.is_multiple_of(16)
}

/// Everybody syncs until nobody has anything new; then all are the same.
async fn settle(rig: &Rig, devices: &mut [&mut Device]) {
    for _ in 0..3 {
        for device in devices.iter_mut() {
            device.sync().await.unwrap();
        }
    }
    let served = rig.snapshot("app/v1/snapshot").await.pages.concat();
    for device in devices {
        assert!(device.image() == served, "a copy differs from the head");
        device.check();
    }
}

#[tokio::test]
async fn two_clients_that_both_wrote_both_have_the_rows_of_both() {
    let rig = Rig::memory();
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    event(&a, "of a");
    a.run("UPDATE notes SET text = 'a' WHERE id = 1");
    event(&b, "of b");
    b.run("UPDATE notes SET mark = 'b' WHERE id = 1");
    a.sync().await.unwrap();
    let start = b.durable;
    b.sync().await.unwrap();
    assert!(is_private(b.generation) && b.durable == b.last() && b.durable > start, "all of it was taken in");
    b.sync().await.unwrap();
    assert_eq!(events(&b), "of a,of b");
    assert_eq!(b.text("SELECT text || mark FROM notes"), "ab");
    a.sync().await.unwrap();
    assert_eq!(a.generation, 1, "who did not diverge stays where it is");
    settle(&rig, &mut [&mut a, &mut b]).await;
    // And again, from where they are.
    for round in 0..4 {
        event(&a, &format!("a{round}"));
        event(&b, &format!("b{round}"));
        let (first, second) = if round % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        first.sync().await.unwrap();
        second.sync().await.unwrap();
        settle(&rig, &mut [&mut a, &mut b]).await;
    }
    assert_eq!(events(&a), "a0,a1,a2,a3,b0,b1,b2,b3,of a,of b");
    let mut c = device(&rig).await;
    assert_eq!(c.generation, 1, "a new client begins in the log");
    settle(&rig, &mut [&mut a, &mut b, &mut c]).await;
}

#[tokio::test]
async fn a_client_that_only_ever_writes_is_merged_again_and_again() {
    let rig = Rig::memory();
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    let mut expected = BTreeSet::new();
    for round in 0..6 {
        for (name, device) in [("a", &mut a), ("b", &mut b)] {
            event(device, &format!("{name}{round}"));
            expected.insert(format!("{name}{round}"));
            device.sync().await.unwrap();
        }
    }
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert_eq!(events(&b), expected.into_iter().collect::<Vec<_>>().join(","));
}

#[tokio::test]
async fn two_rows_with_one_id_both_live() {
    let rig = Rig::memory();
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    a.run("INSERT INTO notes VALUES (2, 'of a', '')");
    b.run("INSERT INTO notes VALUES (2, 'of b', '')");
    a.sync().await.unwrap();
    b.sync().await.unwrap();
    // Its own id is another one at the server; what it does to the row goes there.
    b.run("UPDATE notes SET mark = 'later' WHERE text = 'of b'");
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert_eq!(
        a.text("SELECT group_concat(text || mark) FROM (SELECT * FROM notes WHERE id > 1 ORDER BY text)"),
        "of a,of blater"
    );
}

#[tokio::test]
async fn a_lost_answer_and_more_rows_do_not_bring_a_row_twice() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    event(&a, "a");
    a.sync().await.unwrap();
    for round in 0..5 {
        event(&a, &format!("a{round}"));
        a.sync().await.unwrap();
        event(&b, &format!("b{round}"));
        // What the copy is told, the device never hears.
        b.copy().sync().await.unwrap();
        if round % 2 == 0 {
            rig.restart();
            (a.url, b.url) = (rig.url("app"), rig.url("app"));
        }
        if round % 3 > 0 {
            event(&b, &format!("b{round}more"));
        }
        b.sync().await.unwrap();
        assert_eq!(b.durable, b.last());
        if round == 3 {
            settle(&rig, &mut [&mut a, &mut b]).await;
        }
    }
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert_eq!(events(&a), "a,a0,a1,a2,a3,a4,b0,b1,b1more,b2,b2more,b3,b4,b4more");
}

#[tokio::test]
async fn what_a_pull_brought_is_served_again_as_it_was_and_known_when_pushed_back() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    event(&a, "a");
    event(&b, "b");
    a.sync().await.unwrap();
    b.sync().await.unwrap();
    let place = (b.generation, b.durable + 1);
    let served = b.get(place.0, place.1).await.unwrap();
    // The head moves on; the server is another one.
    event(&a, "more");
    a.sync().await.unwrap();
    a.sync().await.unwrap();
    rig.restart();
    (a.url, b.url) = (rig.url("app"), rig.url("app"));
    assert!(b.get(place.0, place.1).await.unwrap()[..] == served[..]);
    // Killed before it noted what it pulled, the client sends it with what it wrote since.
    let mut back: Vec<Frame> = served.clone();
    back.iter_mut().for_each(|frame| frame[8..24].fill(0xab));
    b.log();
    let salts = b.salts.get().unwrap();
    back.iter_mut().for_each(|frame| frame[8..16].copy_from_slice(&salts));
    let (_, answer) = b.post(place, &back, None).await;
    let end = place.1 + served.len() as u64 - 1;
    assert_eq!(
        (&answer["status"], &answer["generation"], &answer["max_frame_no"]),
        (&json!("ok"), &json!(place.0), &json!(end))
    );
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert_eq!(events(&b), "a,b,more");
}

#[tokio::test]
async fn a_client_on_its_detour_that_writes_alone_goes_straight_to_the_head() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    event(&a, "a");
    event(&b, "b");
    a.sync().await.unwrap();
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
    let generation = b.generation;
    let merges = |log: &serde_json::Value| log["entries"].as_array().unwrap().len();
    let before = merges(&rig.json("app/v1/log").await);
    for round in 0..3 {
        event(&b, &format!("b{round}"));
        b.sync().await.unwrap();
        assert_eq!(rig.snapshot("app/v1/snapshot").await.pages.concat(), b.image(), "appended as it is");
        rig.restart();
        (a.url, b.url) = (rig.url("app"), rig.url("app"));
    }
    assert_eq!((b.generation, merges(&rig.json("app/v1/log").await)), (generation, before + 3));
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert_eq!(events(&a), "a,b,b0,b1,b2");
}

#[tokio::test]
async fn copies_of_a_client_s_files_that_both_write_are_both_merged() {
    let rig = Rig::memory();
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    event(&a, "a");
    event(&b, "b");
    a.sync().await.unwrap();
    b.sync().await.unwrap();
    let mut copy = b.copy();
    event(&b, "b1");
    event(&copy, "copy1");
    b.sync().await.unwrap();
    copy.sync().await.unwrap();
    assert_ne!(b.generation, copy.generation, "a number means one history");
    settle(&rig, &mut [&mut a, &mut b, &mut copy]).await;
    assert_eq!(events(&a), "a,b,b1,copy1");
    // A copy that only reads is shown what the other one did.
    let mut reader = b.copy();
    event(&b, "b2");
    b.sync().await.unwrap();
    event(&a, "a2");
    a.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b, &mut reader]).await;
    assert_eq!(reader.generation, b.generation);
}

/// A client fills its batches; one whose last batch is full may have ended within what another one pushed at the same
/// numbers. That it did not is certain when it pulls.
#[tokio::test]
async fn a_client_whose_last_batch_was_full_is_merged_when_it_pulls() {
    let rig = Rig::memory();
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    event(&b, "shown");
    b.sync().await.unwrap();
    a.sync().await.unwrap();
    for number in 0..300 {
        event(&a, &format!("a{number}"));
    }
    a.sync().await.unwrap();
    let mut number = 0;
    while b.last() - b.durable < 128 {
        event(&b, &format!("b{number}"));
        number += 1;
    }
    while b.last() - b.durable < 256 && !(b.last() - b.durable).is_multiple_of(128) {
        event(&b, &format!("b{number}"));
        number += 1;
    }
    assert!((b.last() - b.durable).is_multiple_of(128));
    let wrote = number;
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert_eq!(events(&a).split(',').filter(|what| what.starts_with('b')).count(), wrote);
    event(&b, "later");
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert!(events(&a).ends_with("later,shown"));
}

/// The same for one that was asked to show what it has, and a server that did not see that.
#[tokio::test]
async fn a_client_that_showed_less_than_others_pushed_is_merged_when_it_pulls() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut a = founder(&rig).await;
    event(&a, "shown");
    a.sync().await.unwrap();
    // What a real client pulled is in its log: here it is one that wrote it.
    let mut b = a.copy();
    for number in 0..3 {
        event(&a, &format!("a{number}"));
    }
    a.sync().await.unwrap();
    event(&b, "b");
    for _ in 0..2 {
        rig.restart();
        (a.url, b.url) = (rig.url("app"), rig.url("app"));
        b.sync().await.unwrap();
    }
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert_eq!(events(&a), "a0,a1,a2,b,shown");
}

/// Another program put the client's log into its file: what its frames continue is not known.
#[tokio::test]
async fn a_foreign_checkpoint_on_a_detour_ends_at_the_head_and_spoils_nothing() {
    let rig = Rig::memory();
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    event(&a, "a");
    event(&b, "b");
    a.sync().await.unwrap();
    b.sync().await.unwrap();
    for number in 0..30 {
        event(&b, &format!("b{number}"));
    }
    b.sync().await.unwrap();
    a.sync().await.unwrap();
    let before = rig.snapshot("app/v1/snapshot").await;
    b.run("PRAGMA wal_checkpoint(TRUNCATE)");
    event(&b, "nobody knows what this continues");
    while b.last() <= b.durable {
        b.run("UPDATE notes SET text = hex(randomblob(100)) WHERE id = 1");
    }
    let generation = b.generation;
    b.sync().await.unwrap();
    assert!(rig.snapshot("app/v1/snapshot").await == before, "nothing of it was merged");
    assert_ne!(b.generation, generation);
    event(&b, "nor this");
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
    event(&b, "later");
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
    let found = events(&a);
    assert!(found.ends_with(",later") && !found.contains("nobody"), "{found}");
}

#[tokio::test]
async fn schemas_that_both_changed_are_merged() {
    let rig = Rig::memory();
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    a.run("CREATE TABLE of_a (x); INSERT INTO of_a VALUES ('a'); ALTER TABLE notes ADD COLUMN seen INTEGER");
    b.run("CREATE TABLE of_b (x); INSERT INTO of_b VALUES ('b'); CREATE INDEX by_text ON notes (text)");
    let cookies = [&a, &b].map(|device| device.text("PRAGMA schema_version").parse::<i64>().unwrap());
    a.sync().await.unwrap();
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
    let merged: i64 = a.text("PRAGMA schema_version").parse().unwrap();
    assert!(cookies.iter().all(|cookie| merged > *cookie), "{merged} is higher than {cookies:?}");
    for device in [&a, &b] {
        assert_eq!(device.text("SELECT (SELECT x FROM of_a) || (SELECT x FROM of_b)"), "ab");
        device.run("UPDATE notes SET seen = 1");
    }
    a.sync().await.unwrap();
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
}

#[tokio::test]
async fn a_push_of_many_batches_is_merged_whole() {
    let limits = Limits { small_body: 300_000, ..Limits::default() };
    let mut rig = Rig::local(SnapshotPolicy::default(), limits);
    let mut a = founder(&rig).await;
    let mut b = device(&rig).await;
    event(&a, "a");
    a.sync().await.unwrap();
    large(&b, 1000);
    event(&b, "b");
    // Killed in the middle, with another server after it.
    b.push(1).await.unwrap();
    rig.restart();
    (a.url, b.url) = (rig.url("app"), rig.url("app"));
    b.sync().await.unwrap();
    large(&b, 300);
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert_eq!((events(&a), a.text("SELECT count(*) FROM notes")), ("a,b".into(), "1301".into()));
}

#[tokio::test]
async fn what_cannot_be_merged_is_a_conflict_until_the_reason_is_gone() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut a = founder(&rig).await;
    a.run("CREATE VIRTUAL TABLE search USING fts5 (text, content='')");
    a.run("INSERT INTO search (rowid, text) VALUES (1, 'one')");
    a.sync().await.unwrap();
    let mut b = device(&rig).await;
    a.run("INSERT INTO search (rowid, text) VALUES (2, 'of a')");
    b.run("INSERT INTO search (rowid, text) VALUES (3, 'of b')");
    event(&b, "b");
    a.sync().await.unwrap();
    let before = rig.snapshot("app/v1/snapshot").await;
    for _ in 0..2 {
        assert_eq!(b.sync().await, Err(Failed::Conflict));
    }
    assert!(rig.snapshot("app/v1/snapshot").await == before, "nothing was stored");
    assert_eq!(events(&b), "b");
    // The record says why, once, however often it is tried, and after a restart; with its pages.
    let refused = async |rig: &Rig, query: &str| {
        let page = rig.json(&format!("app/v1/conflicts{query}")).await;
        page["refused"].as_array().cloned().unwrap_or_default()
    };
    let listed = refused(&rig, "").await;
    let [record] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((&record["object"], &record["resolved"]), (&json!("search"), &json!(false)), "{record}");
    assert!(record["reason"].as_str().unwrap().contains("cannot be merged"), "{record}");
    assert!(
        record["pages"].as_u64().unwrap() > 0 && !record["client"].as_str().unwrap().is_empty(),
        "{record}"
    );
    rig.restart();
    (a.url, b.url) = (rig.url("app"), rig.url("app"));
    assert_eq!(b.sync().await, Err(Failed::Conflict));
    assert_eq!(refused(&rig, "").await, listed, "the same push is one record");
    event(&b, "more");
    assert_eq!(b.sync().await, Err(Failed::Conflict));
    let longer = refused(&rig, "?all=1").await;
    assert_eq!((longer.len(), &longer[0]["id"]), (1, &record["id"]), "a longer push takes its place");
    assert!(longer[0]["frames"].as_u64() > record["frames"].as_u64());
    let kept = |rig: &Rig| {
        let StoreUrl::Local(folder) = &rig.config.store else { panic!() };
        let names =
            std::fs::read_dir(folder.join("app/merge")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().ends_with(".ltx")).count()
    };
    assert_eq!(kept(&rig), 1);
    b.run("DROP TABLE search");
    a.run("DROP TABLE search");
    a.sync().await.unwrap();
    b.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b]).await;
    assert_eq!(events(&a), "b,more");
    assert!(refused(&rig, "").await.is_empty(), "it got through");
    rig.restart();
    let record = rig.json(&format!("app/v1/conflicts/{}", record["id"].as_str().unwrap())).await;
    assert_eq!(record["resolved"], json!(true));
    assert!(refused(&rig, "").await.is_empty());
    assert_eq!(kept(&rig), 1, "of what was merged; what was refused is in it");
}

/// Both were made where there was no network, by an application that creates its tables.
#[tokio::test]
async fn two_clients_that_both_began_with_an_empty_database_both_have_the_rows_of_both() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut a = device(&rig).await;
    let mut b = device(&rig).await;
    let mut c = device(&rig).await;
    for (name, device) in [("a", &a), ("b", &b), ("c", &c)] {
        device.run(SCHEMA);
        device.run(&format!("INSERT INTO notes VALUES (1, 'of {name}', '')"));
        event(device, name);
    }
    // More than a batch, and full to its end or not.
    large(&c, 200);
    c.run("CREATE TABLE of_c (x); INSERT INTO of_c VALUES ('c')");
    a.sync().await.unwrap();
    // The answer is lost, the server is another one, and more comes.
    b.copy().sync().await.unwrap();
    rig.restart();
    for device in [&mut a, &mut b, &mut c] {
        device.url = rig.url("app");
    }
    event(&b, "b later");
    b.sync().await.unwrap();
    c.sync().await.unwrap();
    settle(&rig, &mut [&mut a, &mut b, &mut c]).await;
    assert_eq!(events(&a), "a,b,b later,c");
    assert_eq!(
        a.text(
            "SELECT group_concat(text) FROM (SELECT text FROM notes WHERE text LIKE 'of %' ORDER BY text)"
        ),
        "of a,of b,of c"
    );
    assert_eq!(a.text("SELECT count(*) || (SELECT x FROM of_c) FROM notes"), "203c");
    rig.restart();
    for (name, device) in [("a", &mut a), ("b", &mut b), ("c", &mut c)] {
        device.url = rig.url("app");
        event(device, &format!("{name} again"));
        device.sync().await.unwrap();
    }
    settle(&rig, &mut [&mut a, &mut b, &mut c]).await;
    assert_eq!(events(&b), "a,a again,b,b again,b later,c,c again");
}

/// Its log begins anew, with all of its pages: that it is a database of its own, nobody knows.
#[tokio::test]
async fn a_whole_log_of_a_client_that_is_not_new_is_never_taken_for_a_new_database() {
    let rig = Rig::memory();
    let mut a = founder(&rig).await;
    let mut b = a.copy();
    event(&a, "a");
    a.sync().await.unwrap();
    b.log();
    b.run("PRAGMA wal_checkpoint(TRUNCATE)");
    event(&b, "b");
    b.run("VACUUM");
    while b.last() <= b.durable {
        b.run("UPDATE notes SET text = hex(randomblob(100)) WHERE id = 1");
        b.run("VACUUM");
    }
    let before = rig.snapshot("app/v1/snapshot").await;
    assert_eq!(b.sync().await, Err(Failed::Conflict));
    assert!(rig.snapshot("app/v1/snapshot").await == before, "no row is there twice");
}

#[tokio::test]
async fn two_servers_of_one_store_heal_one_client() {
    let one = Rig::local(SnapshotPolicy::default(), Limits::default());
    let two = Rig::start(one.config.clone(), None);
    let mut a = founder(&one).await;
    let mut b = device(&one).await;
    for round in 0..8 {
        let urls = [one.url("app"), two.url("app")];
        event(&a, &format!("a{round}"));
        event(&b, &format!("b{round}"));
        (a.url, b.url) = (urls[round % 2].clone(), urls[(round / 2) % 2].clone());
        a.sync().await.unwrap();
        b.sync().await.unwrap();
        b.url.clone_from(&urls[(round + 1) % 2]);
        b.sync().await.unwrap();
    }
    settle(&two, &mut [&mut a, &mut b]).await;
    assert_eq!(events(&a).split(',').count(), 16);
}

#[tokio::test]
async fn random_histories_of_clients_that_all_write_converge() {
    let seed = std::env::var("HIGHWATER_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("HIGHWATER_TEST_SEED={seed}");
    let mut random = Random(seed);
    let limits = Limits { small_body: 300_000, ..Limits::default() };
    let mut rig = Rig::local(SnapshotPolicy { max_files: 7, outweigh: true }, limits);
    let mut devices = [founder(&rig).await, device(&rig).await, device(&rig).await];
    let mut written = BTreeSet::new();
    for round in 0..60 {
        let who = random.next() as usize % devices.len();
        for number in 0..random.next() % 3 {
            let what = format!("{round:03}-{who}-{number}");
            let device = &mut devices[who];
            match random.next() % 12 {
                0 => large(device, 200),
                1 => device.run("DELETE FROM notes WHERE id % 3 = 0"),
                2 => device.run(&format!("CREATE TABLE t{round}_{who}_{number} (a, b)")),
                3 => device.run("VACUUM"),
                4 => device.run(&format!("UPDATE notes SET mark = '{what}' WHERE id % 5 = 1")),
                _ => {
                    event(device, &what);
                    written.insert(what);
                }
            }
        }
        let device = &mut devices[who];
        match random.next() % 4 {
            0 => device.push(1 + random.next() as usize % 2).await.unwrap(),
            1 => {
                // Taken in, and the answer is lost.
                device.copy().sync().await.unwrap();
            }
            _ => device.sync().await.unwrap(),
        }
        if random.next().is_multiple_of(6) {
            rig.restart();
            devices.iter_mut().for_each(|device| device.url = rig.url("app"));
        }
    }
    let mut all: Vec<&mut Device> = devices.iter_mut().collect();
    settle(&rig, &mut all).await;
    assert_eq!(events(&devices[0]), written.into_iter().collect::<Vec<_>>().join(","));
}

#[test]
fn serve_for_a_test() {
    child::serve_if_child();
}

const ENV: &[(&str, &str)] = &[("HIGHWATER_TEST_MAX_FILES", "3")];

fn serve(folder: &std::path::Path, more: &[(&str, &str)]) -> Option<child::ChildServer> {
    let env: Vec<_> = ENV.iter().chain(more).copied().collect();
    child::ChildServer::start("serve_for_a_test", folder, &env)
}

/// Syncs; a client whose server went away knows what it knew before.
async fn survives(device: &mut Device) -> bool {
    use futures::FutureExt;
    let mut copy = device.copy();
    let synced = std::panic::AssertUnwindSafe(copy.sync()).catch_unwind().await;
    if let Ok(result) = synced {
        result.unwrap();
        *device = copy;
        return true;
    }
    false
}

/// Two clients that both write, until the server is killed; then with another server. Nothing is lost, and nothing
/// comes twice.
async fn killed(folder: &std::path::Path, kill: (&str, &str)) {
    let server = serve(folder, &[]).unwrap();
    let mut a = Device::open(format!("{}/app", server.url)).await;
    a.run(SCHEMA);
    a.sync().await.unwrap();
    let mut b = Device::open(a.url.clone()).await;
    server.kill();
    let mut expected = BTreeSet::new();
    if let Some(server) = serve(folder, &[kill]) {
        (a.url, b.url) = (format!("{}/app", server.url), format!("{}/app", server.url));
        for round in 0..5 {
            for (name, device) in [("a", &a), ("b", &b)] {
                event(device, &format!("{name}{round}"));
                expected.insert(format!("{name}{round}"));
            }
            if !(survives(&mut a).await && survives(&mut b).await && survives(&mut b).await) {
                break;
            }
            if round == 2 {
                large(&b, 200);
            }
        }
    }
    let server = serve(folder, &[]).unwrap();
    (a.url, b.url) = (format!("{}/app", server.url), format!("{}/app", server.url));
    // More than what was sent: the server finds out what of it came.
    event(&b, "last");
    expected.insert("last".into());
    for _ in 0..3 {
        a.sync().await.unwrap();
        b.sync().await.unwrap();
    }
    assert!(a.image() == b.image(), "{kill:?}");
    a.check();
    assert_eq!(events(&a), expected.into_iter().collect::<Vec<_>>().join(","), "{kill:?}");
    server.kill();
    let store = highwater_server::Store::open(&StoreUrl::Local(folder.to_owned())).unwrap();
    let report = verify_store(&store, |_| {}).await.unwrap();
    assert!(report.is_ok(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_a_merge_it_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("passed");
    killed(&folder.path().join("0"), ("HIGHWATER_KILL_LOG", log.to_str().unwrap())).await;
    let mut points = std::collections::BTreeMap::<String, usize>::new();
    for name in std::fs::read_to_string(&log).unwrap().lines().filter(|name| !name.contains("-open")) {
        *points.entry(name.to_owned()).or_default() += 1;
    }
    for name in ["before-merge", "merged", "before-step", "step"] {
        assert!(points.contains_key(&format!("server-libsql-{name}")), "nothing passes {name}: {points:?}");
    }
    for (number, (name, times)) in (1..).zip(points) {
        for at in BTreeSet::from([1, times.div_ceil(2), times]) {
            let store = folder.path().join(format!("{number}-{at}"));
            killed(&store, ("HIGHWATER_KILL_AT", &format!("{name}:{at}"))).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_before_it_recorded_a_refused_push_records_it_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = |device: &mut Device, server: &child::ChildServer| device.url = format!("{}/app", server.url);
    let server = serve(folder.path(), &[]).unwrap();
    let mut a = Device::open(format!("{}/app", server.url)).await;
    a.run(SCHEMA);
    a.run("CREATE VIRTUAL TABLE search USING fts5 (text, content='')");
    a.sync().await.unwrap();
    let mut b = Device::open(a.url.clone()).await;
    a.run("INSERT INTO search (rowid, text) VALUES (2, 'of a')");
    b.run("INSERT INTO search (rowid, text) VALUES (3, 'of b')");
    a.sync().await.unwrap();
    server.kill();
    let server = serve(folder.path(), &[("HIGHWATER_KILL_AT", "server-refused-before-record")]).unwrap();
    at(&mut b, &server);
    assert!(!survives(&mut b).await, "the server is killed");
    let server = serve(folder.path(), &[]).unwrap();
    at(&mut b, &server);
    for _ in 0..2 {
        assert_eq!(b.sync().await, Err(Failed::Conflict));
    }
    let names = std::fs::read_dir(folder.path().join("app/merge")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let records = names.iter().filter(|name| name.starts_with("refused-") && name.ends_with(".json"));
    assert_eq!(records.count(), 1, "{names:?}");
    server.kill();
}
