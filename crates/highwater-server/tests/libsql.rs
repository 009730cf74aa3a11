//! The rules of libSQL's protocol, over real sockets. The released clients themselves are tried in
//! `interop/`; here is what they do rarely, and what they must never be answered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation
)]

mod common;
#[path = "libsql/client.rs"]
mod device;

use std::time::Duration;

use common::{DEVICE_A, Image, Random, Rig};
use device::{Device, FRAME, Frame, commit_of, page_of};
use highwater_ltx::Position;
use highwater_server::{Config, LibsqlConfig, Limits, SnapshotPolicy, StoreUrl};
use serde_json::json;

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)";

async fn device(rig: &Rig, db: &str) -> Device {
    Device::open(rig.url(db)).await
}

async fn with_notes(rig: &Rig, db: &str) -> Device {
    let mut device = device(rig, db).await;
    device.run(NOTES);
    device.sync().await.unwrap();
    device
}

/// One transaction of more than `batches` batches.
fn large(device: &Device, batches: usize) {
    device.run(&format!(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < {})
         INSERT INTO notes (text) SELECT hex(randomblob(1000)) FROM n",
        batches * 256
    ));
}

async fn head(rig: &Rig, db: &str) -> Position {
    let info = rig.json(&format!("{db}/v1")).await;
    let head = &info["head"];
    let text = |name: &str| head[name].as_str().map_or_else(|| head[name].to_string(), str::to_owned);
    format!("{}/{}/{}", text("generation"), text("frame"), text("state")).parse().unwrap()
}

#[tokio::test]
async fn what_one_client_pushes_every_client_of_either_protocol_has() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "team/app").await;
    for text in ["one", "two", "three"] {
        a.run(&format!("INSERT INTO notes (text) VALUES ('{text}')"));
    }
    a.sync().await.unwrap();
    assert_eq!(a.durable, a.last());
    let at = head(&rig, "team/app").await;
    assert_eq!((at.generation.0, at.frame.0), (1, a.last()), "a push of k frames spans k numbers");
    let native = rig.snapshot("team/app/v1/snapshot").await;
    assert_eq!(native.pages.concat(), a.image());
    let b = device(&rig, "team/app").await;
    assert_eq!((b.durable, b.image()), (a.durable, a.image()));
    assert_eq!(b.text("SELECT group_concat(text) FROM notes"), "one,two,three");
    b.check();
}

#[tokio::test]
async fn a_native_push_of_k_pages_is_k_frames() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    let before = head(&rig, "app").await;
    let image = rig.snapshot("app/v1/snapshot").await;
    let after = image.with(&[(2, 77), (3, 5)]);
    let pushed = rig.sync("app", DEVICE_A, Some(before), after.body(Some(&image))).await;
    assert_eq!(pushed.position().frame.0, before.frame.0 + 2);
    let frames = a.get(1, a.durable + 1).await.unwrap();
    assert_eq!(frames.iter().map(|f| (page_of(f), commit_of(f))).collect::<Vec<_>>(), [(2, 0), (3, 3)]);
    a.sync().await.unwrap();
    assert_eq!((a.durable, a.image()), (before.frame.0 + 2, after.pages.concat()));
}

#[tokio::test]
async fn nothing_of_a_transaction_is_visible_before_its_commit() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    let before = head(&rig, "app").await;
    large(&a, 3);
    let (frames, start) = (a.frames()[a.durable as usize..].to_vec(), a.durable + 1);
    assert!(frames.len() > 384);
    let (_, answer) = a.post((1, start), &frames[..128], None).await;
    assert_eq!((&answer["status"], &answer["max_frame_no"]), (&json!("ok"), &json!(start + 127)));
    let staging = answer["generation"].as_u64().unwrap();
    assert!(staging >= 1 << 31 && staging % 16 == 0, "{staging} is far from every other generation");
    assert_eq!(head(&rig, "app").await, before);
    assert_eq!(a.get(1, start).await.unwrap_err(), (400, json!({ "generation": 1 })));
    let baton = answer["baton"].as_str().unwrap().to_owned();
    let (_, answer) = a.post((1, start + 128), &frames[128..256], Some(&baton)).await;
    assert_eq!(answer["generation"], staging, "all batches of a sync wait in one place");
    let baton = answer["baton"].as_str().unwrap().to_owned();
    let (_, answer) = a.post((1, start + 256), &frames[256..], Some(&baton)).await;
    assert_eq!((&answer["generation"], &answer["max_frame_no"]), (&json!(1), &json!(a.last())));
    assert_eq!(head(&rig, "app").await.frame.0, a.last());
    (a.generation, a.durable) = (1, a.last());
    let b = device(&rig, "app").await;
    assert_eq!(b.image(), a.image());
    b.check();
}

#[tokio::test]
async fn a_push_that_was_killed_and_comes_again_is_known_as_far_as_it_came() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    for round in 0..6 {
        for _ in 0..100 {
            a.run("INSERT INTO notes (text) VALUES (hex(randomblob(300)))");
        }
        if round % 2 == 1 {
            large(&a, 2);
        }
        a.push(1 + round).await.unwrap();
        a.run("INSERT INTO notes (text) VALUES ('written after the crash')");
        a.push(usize::MAX).await.unwrap();
        assert_eq!(head(&rig, "app").await.frame.0, a.last());
        assert_eq!(rig.snapshot("app/v1/snapshot").await.pages.concat(), a.image());
    }
    let log = rig.json("app/v1/log").await;
    let frames: u64 = log["entries"].as_array().unwrap().iter().map(|e| e["pages"].as_u64().unwrap()).sum();
    assert_eq!(frames, a.last(), "no frame was stored twice");
}

#[tokio::test]
async fn pulled_frames_that_are_pushed_back_are_known() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    let start = a.durable + 1;
    large(&a, 2);
    a.sync().await.unwrap();
    a.run("UPDATE notes SET text = 'short' WHERE id < 200");
    a.sync().await.unwrap();
    let before = head(&rig, "app").await;
    // Both pushes, served as two transactions; the client's own log gave them other salts.
    let mut frames: Vec<Frame> = a.get(1, start).await.unwrap();
    while start + (frames.len() as u64) <= a.last() {
        frames.extend(a.get(1, start + frames.len() as u64).await.unwrap());
    }
    assert_eq!(frames.len() as u64, a.last() + 1 - start);
    frames.iter_mut().for_each(|frame| frame[8..24].fill(0xab));
    let (mut at, mut baton) = (0, None::<String>);
    while at < frames.len() {
        let batch = &frames[at..frames.len().min(at + 128)];
        let (_, answer) = a.post((1, start + at as u64), batch, baton.as_deref()).await;
        at += batch.len();
        assert_eq!(
            (&answer["status"], &answer["max_frame_no"]),
            (&json!("ok"), &json!(start + at as u64 - 1))
        );
        baton = Some(answer["baton"].as_str().unwrap().to_owned());
        if at == frames.len() {
            assert_eq!(answer["generation"], 1);
        }
    }
    assert_eq!(head(&rig, "app").await, before, "nothing was stored again");
}

#[tokio::test]
async fn a_server_that_restarts_between_batches_goes_on() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut a = with_notes(&rig, "app").await;
    large(&a, 4);
    let (frames, start) = (a.frames()[a.durable as usize..].to_vec(), a.durable + 1);
    let (mut at, mut baton) = (0, None::<String>);
    while at < frames.len() {
        let batch = &frames[at..frames.len().min(at + 128)];
        let (_, answer) = a.post((1, start + at as u64), batch, baton.as_deref()).await;
        assert_eq!(answer["max_frame_no"], start + (at + batch.len()) as u64 - 1);
        rig.restart();
        a.url = rig.url("app");
        // The answer was lost: the same batch with the same baton again.
        if baton.is_some() {
            let (_, again) = a.post((1, start + at as u64), batch, baton.as_deref()).await;
            assert_eq!(answer["max_frame_no"], again["max_frame_no"]);
        }
        baton = Some(answer["baton"].as_str().unwrap().to_owned());
        at += batch.len();
    }
    a.durable = a.last();
    assert_eq!(rig.snapshot("app/v1/snapshot").await.pages.concat(), a.image());
    assert_eq!(head(&rig, "app").await.frame.0, a.last());
}

#[tokio::test]
async fn what_is_not_proven_is_asked_for_from_the_beginning_and_recognised() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    large(&a, 2);
    a.run("INSERT INTO notes (text) VALUES ('x')");
    a.sync().await.unwrap();
    let before = head(&rig, "app").await;
    let next = a.frames()[..1].to_vec();
    let inside = a.last() - 20;
    let unproven =
        [(1, inside, None), (1, a.last() + 100, None), (77, inside, None), (2_147_483_664, 5, None)];
    let stale = [
        (1, a.last() + 1, Some("log.1.3")),
        (1, a.last() + 1, Some("branch.2147483664.9")),
        (1, a.last() + 1, Some("junk")),
    ];
    for (generation, start, baton) in unproven.into_iter().chain(stale) {
        let (status, answer) = a.post((generation, start), &next, baton).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            (&answer["status"], &answer["max_frame_no"]),
            (&json!("ok"), &json!(0)),
            "{generation}/{start} {baton:?}"
        );
    }
    // The whole log, whatever the client thinks where it is.
    for (generation, durable) in [(1, inside), (2_147_483_664, inside), (9, a.last() - 1), (1, 0)] {
        (a.generation, a.durable) = (generation, durable);
        a.run("INSERT INTO notes (text) VALUES ('y')");
        a.sync().await.unwrap();
        assert_eq!((a.generation, a.durable), (1, a.last()));
        assert_eq!(rig.snapshot("app/v1/snapshot").await.pages.concat(), a.image());
    }
    assert_eq!(head(&rig, "app").await.frame.0 - before.frame.0, 4);
}

fn soon(quiet: Duration) -> Config {
    Config {
        store: StoreUrl::Memory,
        snapshot: SnapshotPolicy { max_files: 3, outweigh: false },
        libsql: LibsqlConfig { quiet_period: quiet, ..LibsqlConfig::default() },
        ..Config::default()
    }
}

/// Pushes another image natively until the generation is at least `generation`.
async fn native_until(rig: &Rig, generation: u32) -> Image {
    for seed in 1..60 {
        let base = head(rig, "app").await;
        let image = rig.snapshot("app/v1/snapshot").await;
        if base.generation.0 >= generation {
            return image;
        }
        let after = image.with(&[(2, seed)]);
        rig.sync("app", DEVICE_A, Some(base), after.body(Some(&image))).await.position();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no generation {generation} ever began");
}

#[tokio::test]
async fn a_client_that_is_generations_behind_moves_on() {
    let rig = Rig::start(soon(Duration::ZERO), None);
    let mut a = with_notes(&rig, "app").await;
    let image = native_until(&rig, 4).await;
    assert_eq!(a.get(1, a.durable + 1).await.unwrap().len(), head_frames(&rig, 1).await - a.durable as usize);
    a.sync().await.unwrap();
    assert_eq!((a.generation, a.image()), (4, image.pages.concat()));
    let b = device(&rig, "app").await;
    assert_eq!((b.generation, b.image()), (4, image.pages.concat()));
    // An image of the beginning of every generation, and the frames since, lead to the same.
    for generation in 1..=4 {
        let got = a.http.get(format!("{}/export/{generation}", a.url)).send().await.unwrap();
        assert_eq!(got.status(), 200);
        assert_eq!(got.bytes().await.unwrap().is_empty(), generation == 1);
    }
    assert_eq!(a.http.get(format!("{}/export/5", a.url)).send().await.unwrap().status(), 404);
}

async fn head_frames(rig: &Rig, generation: u64) -> usize {
    let log = rig.json("app/v1/log?limit=1000").await;
    let entries = log["entries"].as_array().unwrap().iter();
    let of = entries.filter(|entry| entry["position"]["generation"] == generation);
    of.map(|entry| entry["pages"].as_u64().unwrap()).sum::<u64>() as usize
}

#[tokio::test]
async fn no_generation_begins_while_libsql_clients_push() {
    let rig = Rig::start(soon(Duration::from_secs(3600)), None);
    let mut a = with_notes(&rig, "app").await;
    for _ in 0..12 {
        a.run("INSERT INTO notes (text) VALUES ('x')");
        a.sync().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let base = head(&rig, "app").await;
    let image = rig.snapshot("app/v1/snapshot").await;
    let after = image.with(&[(2, 9)]);
    let pushed = rig.sync("app", DEVICE_A, Some(base), after.body(Some(&image))).await;
    assert_eq!((base.generation.0, pushed.position().generation.0), (1, 1));
}

#[tokio::test]
async fn pages_that_sqlite_never_wrote_are_free_ones_or_the_push_is_refused() {
    let rig = Rig::memory();
    let a = with_notes(&rig, "app").await;
    a.run("BEGIN");
    large(&a, 2);
    a.run("DELETE FROM notes WHERE id > 1; UPDATE notes SET text = 'kept'; COMMIT");
    let free = free_leaves(&a.image());
    assert!(free.len() > 100);
    let (start, frames) = (a.durable + 1, a.frames()[a.durable as usize..].to_vec());
    let size = commit_of(frames.last().unwrap()).to_be_bytes();
    let mut frames: Vec<Frame> = frames.into_iter().filter(|frame| !free.contains(&page_of(frame))).collect();
    frames.last_mut().unwrap()[4..8].copy_from_slice(&size);
    let (_, answer) = a.post((1, start), &frames, None).await;
    assert_eq!(answer["max_frame_no"], start + frames.len() as u64 - 1, "{answer}");
    let mut a = device(&rig, "app").await;
    let mut b = device(&rig, "app").await;
    b.check();
    assert_eq!(b.text("SELECT text FROM notes"), "kept");
    large(&b, 1);
    b.sync().await.unwrap();
    a.sync().await.unwrap();
    a.check();
    let served = rig.snapshot("app/v1/snapshot").await.pages.concat();
    let free = free_leaves(&served);
    let used = |image: Vec<u8>| -> Vec<Vec<u8>> {
        let pages = image.chunks(device::PAGE).map(<[u8]>::to_vec).zip(1..);
        pages.filter(|(_, number)| !free.contains(number)).map(|(page, _)| page).collect()
    };
    let (a, b, served) = (used(a.image()), used(b.image()), used(served));
    assert!(a == b && a == served, "free pages may differ, others may not");
    // The same frames without those that fill other pages are of another database.
    let other = device(&rig, "other").await;
    other.run("PRAGMA user_version = 1; CREATE TABLE t (a); CREATE TABLE u (a); INSERT INTO t VALUES (1)");
    let torn: Vec<Frame> = other.frames().into_iter().filter(|frame| page_of(frame) != 2).collect();
    let (status, answer) = other.post((1, 1), &torn, None).await;
    assert_eq!((status.as_u16(), &answer["code"]), (422, &json!("corrupt_body")), "{answer}");
    assert_eq!(rig.get("other/v1").await.status(), 404);
}

/// The pages that the freelist has as leaves.
fn free_leaves(image: &[u8]) -> Vec<u32> {
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
    let (mut leaves, mut trunk) = (Vec::new(), number(32) as usize);
    while trunk > 0 {
        let at = (trunk - 1) * device::PAGE;
        leaves.extend((0..number(at + 4) as usize).map(|leaf| number(at + 8 + leaf * 4)));
        trunk = number(at) as usize;
    }
    leaves
}

#[tokio::test]
async fn vacuum_and_shrinking_reach_the_others() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    let mut b = device(&rig, "app").await;
    for _ in 0..3 {
        large(&a, 2);
        a.sync().await.unwrap();
        a.run("DELETE FROM notes WHERE id % 7 > 0; VACUUM; PRAGMA user_version = 3");
        a.sync().await.unwrap();
        b.sync().await.unwrap();
        b.check();
        assert_eq!(a.image(), b.image());
    }
}

#[tokio::test]
async fn nonsense_is_refused_with_a_sentence_and_changes_nothing() {
    let rig = Rig::memory();
    let a = with_notes(&rig, "app").await;
    let before = head(&rig, "app").await;
    let good = a.frames()[0].clone();
    let start = a.durable + 1;
    let mut page_zero = good.clone();
    page_zero[..4].fill(0);
    let mut no_header = good.clone();
    no_header[24..40].fill(b'x');
    let bodies = [vec![good[..FRAME - 1].to_vec()], vec![page_zero], vec![good.clone(), vec![1; 5]]];
    for body in bodies {
        let (status, answer) = a.post((1, start), &body, None).await;
        assert_eq!((status.as_u16(), &answer["code"]), (422, &json!("corrupt_body")), "{answer}");
    }
    no_header[..8].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]);
    let (status, _) = a.post((1, start), &[no_header], None).await;
    assert_eq!(status, 422);
    for path in ["sync/1/1/3", "sync/1/0/1", "sync/1/5/4"] {
        let sent = a.http.post(format!("{}/{path}", a.url)).body(good.clone()).send().await.unwrap();
        assert_eq!(sent.status(), 422, "{path}");
    }
    for path in ["sync/9/5/133", "sync/1/0/128", "sync/1/999/1127", "sync/2147483664/3/131"] {
        let got = a.http.get(format!("{}/{path}", a.url)).send().await.unwrap();
        assert!(matches!(got.status().as_u16(), 404 | 410), "{path}: {}", got.status());
    }
    assert_eq!(head(&rig, "app").await, before);
    // A database that the protocol cannot carry.
    rig.sync("large", DEVICE_A, None, Image::new(8192, 3, 1).body(None)).await.position();
    for path in ["sync/1/1/129", "export/1"] {
        let got = rig.get(&format!("large/{path}")).await;
        assert_eq!(got.status(), 422, "{path}");
        assert!(got.text().await.unwrap().contains("8192"));
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_empty_and_is_made_by_the_first_push() {
    let rig = Rig::memory();
    assert_eq!(rig.json("/new//info").await, json!({ "current_generation": 1 }));
    let export = rig.get("new/export/1").await;
    assert_eq!((export.status().as_u16(), export.bytes().await.unwrap().len()), (200, 0));
    let pull = rig.get("new/sync/1/1/129").await;
    assert_eq!(pull.status(), 400);
    assert_eq!(rig.get("new/v1").await.status(), 404, "asking does not make it");
    with_notes(&rig, "new").await;
    assert_eq!(rig.get("new/v1").await.status(), 200);
}

#[tokio::test]
async fn random_histories_with_crashes_converge() {
    let seed = std::env::var("HIGHWATER_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("HIGHWATER_TEST_SEED={seed}");
    let mut random = Random(seed);
    // Large pushes go through a file of the store.
    let limits = Limits { small_body: 300_000, ..Limits::default() };
    let mut rig = Rig::local(SnapshotPolicy { max_files: 7, outweigh: true }, limits);
    with_notes(&rig, "app").await;
    let mut devices = [device(&rig, "app").await, device(&rig, "app").await];
    for round in 0..40 {
        let [a, b] = &mut devices;
        let (writer, reader) = if random.next().is_multiple_of(2) { (a, b) } else { (b, a) };
        writer.sync().await.unwrap();
        for _ in 0..random.next() % 4 {
            match random.next() % 6 {
                0 => large(writer, 1 + random.next() as usize % 3),
                1 => writer.run("DELETE FROM notes WHERE id % 3 = 1"),
                2 => writer.run(&format!("CREATE TABLE t{round}_{} (a, b)", random.next())),
                3 => writer.run("VACUUM"),
                _ => writer.run("INSERT INTO notes (text) SELECT hex(randomblob(700)) FROM notes LIMIT 9"),
            }
        }
        writer.push(1 + random.next() as usize % 4).await.unwrap();
        if random.next().is_multiple_of(4) {
            rig.restart();
            (writer.url, reader.url) = (rig.url("app"), rig.url("app"));
        }
        writer.push(usize::MAX).await.unwrap();
        reader.sync().await.unwrap();
        assert_eq!(writer.image(), reader.image(), "round {round}");
        reader.check();
    }
}
