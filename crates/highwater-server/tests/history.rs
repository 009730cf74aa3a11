//! The history: kept whole, found again after a restart, cut into generations by snapshots.
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

use std::time::Duration;

use common::{DEVICE_A, DEVICE_B, Image, Random, Rig};
use highwater_ltx::Position;
use highwater_server::{Limits, SnapshotPolicy, verify_store};
use highwater_wire::ErrorCode;

/// A change of every kind: rewritten pages, growth, shrinking.
fn changed(image: &Image, rng: &mut Random) -> Image {
    let mut next = image.clone();
    if rng.next().is_multiple_of(4) && next.count().0 > 10 {
        next = next.shrunk(next.count().0 - rng.next() % 8);
    }
    for _ in 0..=rng.next() % 5 {
        let page = 1 + rng.next() % (next.count().0 + 3);
        (next.count().0 + 1..=page).for_each(|grown| next.set(grown, rng.next() as u8));
        next.set(page, rng.next() as u8);
    }
    // A state that was there before would be a lost answer.
    next.set(1, rng.next() as u8);
    next
}

async fn wait_for_generation_after(rig: &Rig, files: usize) {
    for _ in 0..200 {
        let folder = rig.store_path().join("db/ltx/9");
        if folder.exists() && folder.read_dir().unwrap().count() > files {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no snapshot was written");
}

#[tokio::test]
async fn every_retained_position_gives_what_was_pushed_there_even_after_restarts() {
    for small_body in [8 << 20, 0] {
        // With no body small enough for memory, everything goes through files.
        let limits = Limits { small_body, small_answer: 4000, ..Limits::default() };
        let policy = SnapshotPolicy { max_files: 7, outweigh: false };
        let mut rig = Rig::local(policy, limits);
        let mut rng = Random(7);
        let mut image = Image::new(512, 20, 1);
        let mut history: Vec<(Position, Image)> = Vec::new();
        let mut base = rig.sync("db", DEVICE_A, None, image.body(None)).await.position();
        history.push((base, image.clone()));
        for round in 0..40 {
            let next = changed(&image, &mut rng);
            let pushed = rig.sync("db", DEVICE_A, Some(base), next.body(Some(&image))).await;
            assert_eq!((pushed.outcome.as_str(), pushed.txid), ("pushed", round + 2));
            (base, image) = (pushed.position(), next);
            history.push((base, image.clone()));
            if round % 11 == 5 {
                rig.restart();
            }
        }
        let generations = base.generation.0;
        assert!(generations > 2, "snapshots begin generations, but there are {generations}");
        rig.restart();
        for (position, image) in &history {
            let at = position.place();
            assert_eq!(rig.snapshot(&format!("db/v1/snapshot?at={at}")).await, *image);
            let sums = rig.get(&format!("db/v1/sums?at={at}")).await;
            assert_eq!(sums.headers()["highwater-page-count"], image.count().0.to_string().as_str());
            let expected: Vec<u8> = image.sums().iter().flat_map(|sum| sum.to_be_bytes()).collect();
            assert_eq!(sums.bytes().await.unwrap(), expected);
            let pulled = rig.sync("db", DEVICE_B, Some(*position), Vec::new()).await;
            let after = if pulled.body.is_empty() { image.clone() } else { image.apply(&pulled.body) };
            assert_eq!(after, history.last().unwrap().1);
        }
        let log = rig.json("db/v1/log?limit=10000").await;
        let entries = log["entries"].as_array().unwrap();
        let logged: Vec<_> =
            entries.iter().map(|entry| entry["position"]["state"].as_str().unwrap()).collect();
        let pushed: Vec<_> = history.iter().map(|(position, _)| position.state.to_string()).collect();
        assert_eq!(logged, pushed);
        let report = verify_store(rig.server.as_ref().unwrap().store(), |_| {}).await.unwrap();
        assert!(report.is_ok(), "{report:#?}");
        assert_eq!(report.databases[0].head, Some(base.to_string()));
        assert_eq!(report.databases[0].pushes, 41);
    }
}

#[tokio::test]
async fn the_push_after_a_snapshot_begins_a_generation_and_a_restart_decides_the_same() {
    let policy = SnapshotPolicy { max_files: 3, outweigh: false };
    let mut rig = Rig::local(policy, Limits::default());
    let mut image = Image::new(512, 4, 1);
    let mut base = rig.sync("db", DEVICE_A, None, image.body(None)).await.position();
    for seed in 2..5 {
        let next = image.with(&[(2, seed)]);
        base = rig.sync("db", DEVICE_A, Some(base), next.body(Some(&image))).await.position();
        image = next;
        assert_eq!(base.generation.0, 1);
    }
    wait_for_generation_after(&rig, 0).await;
    rig.restart();
    let next = image.with(&[(2, 9), (3, 9)]);
    let pushed = rig.sync("db", DEVICE_A, Some(base), next.body(Some(&image))).await.position();
    assert_eq!(pushed.place().to_string(), "2/2");
    // The start of the generation is the end of the one before.
    let alias =
        Position { generation: pushed.generation, frame: highwater_ltx::FrameNo(0), state: base.state };
    assert_eq!(image.apply(&rig.sync("db", DEVICE_B, Some(alias), Vec::new()).await.body), next);
    assert_eq!(rig.snapshot("db/v1/snapshot?at=2/0").await, image);
    rig.restart();
    assert_eq!(rig.json("db/v1").await["head"]["frame"], 2);
    let again = next.with(&[(2, 10)]);
    let pushed = rig.sync("db", DEVICE_A, Some(pushed), again.body(Some(&next))).await.position();
    assert_eq!(pushed.place().to_string(), "2/3");
}

#[tokio::test]
async fn pushes_that_outweigh_the_database_cause_a_snapshot_but_the_first_push_does_not() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut image = Image::new(4096, 300, 1);
    let mut rng = Random(1);
    let mut noise = |image: &mut Image| {
        for page in 1..300 {
            rng.fill(&mut image.pages[page]);
        }
    };
    noise(&mut image);
    let mut base = rig.sync("db", DEVICE_A, None, image.body(None)).await.position();
    assert!(!rig.store_path().join("db/ltx/9").exists());
    let mut next = image.clone();
    noise(&mut next);
    base = rig.sync("db", DEVICE_A, Some(base), next.body(Some(&image))).await.position();
    wait_for_generation_after(&rig, 0).await;
    rig.restart();
    let last = next.with(&[(1, 3)]);
    let pushed = rig.sync("db", DEVICE_A, Some(base), last.body(Some(&next))).await.position();
    assert_eq!(pushed.place().to_string(), "2/1");
}

#[tokio::test]
async fn a_store_whose_older_pushes_are_gone_still_opens_from_its_snapshot() {
    let mut rig = Rig::local(SnapshotPolicy { max_files: 2, outweigh: false }, Limits::default());
    let mut image = Image::new(512, 4, 1);
    let mut base = rig.sync("db", DEVICE_A, None, image.body(None)).await.position();
    for seed in 2..4 {
        let next = image.with(&[(2, seed), (5, seed)]);
        base = rig.sync("db", DEVICE_A, Some(base), next.body(Some(&image))).await.position();
        image = next;
    }
    wait_for_generation_after(&rig, 0).await;
    for txid in 1..=3 {
        let name = format!("{txid:016x}");
        std::fs::remove_file(rig.store_path().join(format!("db/ltx/0/{name}-{name}.ltx"))).unwrap();
    }
    rig.restart();
    assert_eq!(rig.json("db/v1").await["head"]["state"], base.state.to_string());
    assert_eq!(rig.snapshot("db/v1/snapshot").await, image);
    let next = image.with(&[(3, 9)]);
    let pushed = rig.sync("db", DEVICE_A, Some(base), next.body(Some(&image))).await;
    assert_eq!((pushed.txid, pushed.position().place().to_string().as_str()), (4, "2/1"));
    rig.restart();
    assert_eq!(image.apply(&rig.sync("db", DEVICE_B, Some(base), Vec::new()).await.body), next);
    assert_eq!(rig.snapshot("db/v1/snapshot?at=2/0").await, image);
    let report = verify_store(rig.server.as_ref().unwrap().store(), |_| {}).await.unwrap();
    assert!(report.is_ok(), "{report:#?}");
}

#[tokio::test]
async fn a_position_or_time_that_is_not_kept_is_named_with_what_is() {
    let rig = Rig::memory();
    let first = Image::new(512, 4, 1);
    let before = humantime::format_rfc3339_millis(std::time::SystemTime::now() - Duration::from_secs(5));
    let base = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = humantime::format_rfc3339_millis(std::time::SystemTime::now());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let second = first.with(&[(2, 2)]);
    rig.sync("db", DEVICE_A, Some(base), second.body(Some(&first))).await.position();
    assert_eq!(rig.snapshot(&format!("db/v1/snapshot?time={between}")).await, first);
    assert_eq!(rig.snapshot("db/v1/snapshot?time=2100-01-01T00:00:00Z").await, second);
    for query in ["at=1/3".to_owned(), "at=3/1".to_owned(), format!("time={before}")] {
        let response = rig.get(&format!("db/v1/snapshot?{query}")).await;
        assert_eq!(response.status(), 404, "{query}");
        let error: highwater_wire::ErrorBody =
            serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(error.code, ErrorCode::UnknownPosition);
        assert!(error.message.contains("1/4") && error.message.contains("1/5"), "{}", error.message);
    }
    for query in ["at=x", "time=yesterday", "at=1/4&time=2100-01-01T00:00:00Z", "limit=3", "x=y"] {
        assert_eq!(rig.get(&format!("db/v1/snapshot?{query}")).await.status(), 400, "{query}");
    }
    let log = rig.json("db/v1/log?after=1/4").await;
    assert_eq!(log["entries"].as_array().unwrap().len(), 1);
    assert_eq!(log["entries"][0]["device"], "000000000000000a");
    assert_eq!(rig.json("db/v1/log?limit=1").await["more"], true);
    assert_eq!(rig.get("db/v1/log?limit=0").await.status(), 400);
}

#[tokio::test]
async fn a_damaged_newest_file_is_an_error_that_names_it_and_never_skipped() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let first = Image::new(512, 4, 1);
    let base = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
    let second = first.with(&[(2, 2)]);
    rig.sync("db", DEVICE_A, Some(base), second.body(Some(&first))).await.position();
    let name = "db/ltx/0/0000000000000002-0000000000000002.ltx";
    let path = rig.store_path().join(name);
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 50, 120, whole.len() - 1] {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut as u64).unwrap();
        rig.restart();
        let response = rig.get("db/v1").await;
        assert_eq!(response.status(), 500, "{cut}");
        let error: highwater_wire::ErrorBody =
            serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert!(error.message.contains(name), "{}", error.message);
        assert_eq!(rig.sync("db", DEVICE_A, Some(base), Vec::new()).await.status, 500);
        let report = verify_store(rig.server.as_ref().unwrap().store(), |_| {}).await.unwrap();
        assert_eq!(report.databases[0].faults.len(), 1, "{report:#?}");
        assert_eq!(report.databases[0].faults[0].object, name);
        std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), &whole).unwrap();
    }
    // Mended, it is served again without a restart.
    assert_eq!(rig.snapshot("db/v1/snapshot").await, second);
    let missing = rig.store_path().join("db/ltx/0/0000000000000001-0000000000000001.ltx");
    std::fs::remove_file(missing).unwrap();
    rig.restart();
    assert_eq!(rig.get("db/v1").await.status(), 500);
}
