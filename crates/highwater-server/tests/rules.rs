//! The rules of sync, one after the other, over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod common;

use common::{DEVICE_A, DEVICE_B, Image, Rig, synced};
use highwater_ltx::{Position, StateHash};
use highwater_server::{Limits, SnapshotPolicy};
use highwater_wire::{BASE, DEVICE, ErrorCode};

#[tokio::test]
async fn a_first_push_creates_the_database_and_a_second_device_gets_it() {
    let rig = Rig::memory();
    let image = Image::new(4096, 5, 1);
    let pushed = rig.sync("team/app", DEVICE_A, None, image.body(None)).await;
    assert_eq!((pushed.outcome.as_str(), pushed.txid, pushed.body.len()), ("pushed", 1, 0));
    assert_eq!(pushed.position().to_string(), format!("1/5/{}", image.state()));
    assert_eq!(rig.snapshot("team/app/v1/snapshot").await, image);
    // With nothing at all, a sync is a first copy.
    let pulled = rig.sync("team/app", DEVICE_B, None, Vec::new()).await;
    assert_eq!(pulled.outcome, "pulled");
    assert_eq!(Image::empty().apply(&pulled.body), image);
    let info = rig.json("team/app/v1").await;
    assert_eq!(
        (&info["page_count"], &info["head"]["frame"], &info["txid"]),
        (&5.into(), &5.into(), &1.into())
    );
    // Its name's beginning is another database.
    assert_eq!(rig.get("team/v1").await.status(), 404);
}

#[tokio::test]
async fn a_push_on_the_head_is_appended_and_the_other_device_pulls_only_what_changed() {
    let rig = Rig::memory();
    let first = Image::new(512, 40, 1);
    let base = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
    let second = first.with(&[(3, 9), (41, 9)]);
    let pushed = rig.sync("db", DEVICE_A, Some(base), second.body(Some(&first))).await;
    assert_eq!(pushed.outcome, "pushed");
    assert_eq!(pushed.position().to_string(), format!("1/42/{}", second.state()));
    let third = second.shrunk(20).with(&[(1, 7)]);
    let head = rig.sync("db", DEVICE_A, pushed.head, third.body(Some(&second))).await.position();
    let nothing = rig.sync("db", DEVICE_A, Some(head), Vec::new()).await;
    assert_eq!((nothing.outcome.as_str(), nothing.body.len()), ("up-to-date", 0));
    let pulled = rig.sync("db", DEVICE_B, Some(base), Vec::new()).await;
    assert_eq!(pulled.outcome, "pulled");
    assert!(pulled.body.len() < 3 * 600, "{}", pulled.body.len());
    assert_eq!(first.apply(&pulled.body), third);
    assert_eq!(pulled.head, Some(head));
}

#[tokio::test]
async fn a_lost_answer_is_recognised_and_nothing_is_stored_twice() {
    let rig = Rig::memory();
    let first = Image::new(4096, 3, 1);
    for outcome in ["pushed", "up-to-date"] {
        let again = rig.sync("db", DEVICE_A, None, first.body(None)).await;
        assert_eq!((again.outcome.as_str(), again.txid), (outcome, 1));
    }
    let base = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
    let second = first.with(&[(2, 5)]);
    for outcome in ["pushed", "up-to-date", "up-to-date"] {
        let again = rig.sync("db", DEVICE_A, Some(base), second.body(Some(&first))).await;
        assert_eq!((again.outcome.as_str(), again.txid, again.body.len()), (outcome, 2, 0));
    }
    let at_second = rig.sync("db", DEVICE_A, Some(base), second.body(Some(&first))).await.position();
    let third = second.with(&[(3, 5)]);
    rig.sync("db", DEVICE_B, Some(at_second), third.body(Some(&second))).await.position();
    // Its answer was lost and another device pushed since: it is told what it lacks.
    let late = rig.sync("db", DEVICE_A, Some(base), second.body(Some(&first))).await;
    assert_eq!((late.outcome.as_str(), late.txid), ("pulled", 3));
    assert_eq!(second.apply(&late.body), third);
    assert_eq!(rig.json("db/v1/log").await["entries"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn going_back_to_an_older_content_is_a_change() {
    let rig = Rig::memory();
    let first = Image::new(512, 3, 1);
    let second = first.with(&[(2, 5)]);
    let at_first = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
    let at_second = rig.sync("db", DEVICE_A, Some(at_first), second.body(Some(&first))).await.position();
    let back = rig.sync("db", DEVICE_A, Some(at_second), first.body(Some(&second))).await;
    assert_eq!((back.outcome.as_str(), back.txid), ("pushed", 3));
    assert_eq!(rig.snapshot("db/v1/snapshot").await, first);
    // A device still at the first position is not at the head, although the content is the same.
    let other = first.with(&[(3, 8)]);
    let conflict = rig.sync("db", DEVICE_B, Some(at_first), other.body(Some(&first))).await;
    assert_eq!(conflict.status, 409);
}

#[tokio::test]
async fn what_cannot_be_merged_stores_nothing_and_says_where_both_wrote() {
    let rig = Rig::memory();
    let first = Image::new(512, 6, 1);
    let base = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
    let theirs = first.with(&[(2, 5), (3, 5)]);
    let head = rig.sync("db", DEVICE_A, Some(base), theirs.body(Some(&first))).await.position();
    let ours = first.with(&[(3, 6), (4, 6)]);
    let conflict = rig.sync("db", DEVICE_B, Some(base), ours.body(Some(&first))).await;
    assert_eq!(conflict.status, 409);
    assert_eq!(conflict.head, Some(head));
    let error = conflict.error();
    // Pages that are no database are not merged.
    assert_eq!(error.code, ErrorCode::CannotMerge);
    let detail = error.conflict.unwrap();
    assert_eq!((detail.local_pages, detail.remote_pages, detail.both_pages), (2, 2, vec![3]));
    assert_eq!(detail.devices, vec!["000000000000000a".to_owned()]);
    assert_eq!(rig.snapshot("db/v1/snapshot").await, theirs);
}

#[tokio::test]
async fn an_unknown_base_is_told_to_locate() {
    let rig = Rig::memory();
    let first = Image::new(512, 3, 1);
    let base = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
    let stranger = Image::new(512, 3, 2);
    // The right place with the wrong state, another place with the wrong state, and no base.
    let wrong = Position { state: StateHash(1), ..base };
    let elsewhere = Position { frame: highwater_ltx::FrameNo(77), ..wrong };
    for base in [Some(wrong), Some(elsewhere), None] {
        let refused = rig.sync("db", DEVICE_B, base, stranger.body(None)).await;
        assert_eq!(refused.status, 410, "{base:?}");
        assert_eq!(refused.error().code, ErrorCode::UnknownBase);
    }
    assert_eq!(rig.sync("db", DEVICE_B, Some(wrong), Vec::new()).await.status, 410);
    // A known state at a place that is not of this history is accepted.
    let moved = Position { frame: highwater_ltx::FrameNo(77), ..base };
    assert_eq!(rig.sync("db", DEVICE_B, Some(moved), Vec::new()).await.outcome, "up-to-date");
    // An unknown database is no unknown base.
    let nowhere = rig.sync("other", DEVICE_B, Some(base), Vec::new()).await;
    assert_eq!((nowhere.status.as_u16(), nowhere.error().code), (404, ErrorCode::UnknownDatabase));
    assert_eq!(rig.sync("other", DEVICE_B, None, Vec::new()).await.status, 404);
}

#[tokio::test]
async fn a_body_may_be_compressed_as_a_whole() {
    let rig = Rig::memory();
    let first = Image::new(4096, 30, 1);
    let body = zstd::bulk::compress(&first.body(None), 1).unwrap();
    let send = |body: Vec<u8>| {
        let request = rig.client.post(rig.url("db/v1/sync")).header(DEVICE, DEVICE_A.to_string());
        request.header("content-encoding", "zstd").body(body).send()
    };
    let pushed = synced(send(body).await.unwrap()).await;
    assert_eq!(pushed.outcome, "pushed");
    let response = rig.client.get(rig.url("db/v1/snapshot")).header("accept-encoding", "gzip, zstd;q=0.9");
    let response = response.send().await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "zstd");
    let file = zstd::bulk::decompress(&response.bytes().await.unwrap(), 1 << 20).unwrap();
    assert_eq!(Image::empty().apply(&file), first);
    let plain = rig.client.get(rig.url("db/v1/snapshot")).send().await.unwrap();
    assert!(plain.headers().get("content-encoding").is_none());
}

#[tokio::test]
async fn a_body_too_large_for_memory_takes_the_other_path_to_the_same_result() {
    let limits = Limits { small_body: 4000, small_answer: 2000, ..Limits::default() };
    let mut rig = Rig::local(SnapshotPolicy::default(), limits);
    let first = Image::new(512, 300, 1);
    let base = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
    let mut second = first.clone();
    (1..200).step_by(3).for_each(|page| second.set(page, 77));
    (301..400).for_each(|page| second.set(page, 78));
    let body = second.body(Some(&first));
    let pushed = rig.sync("db", DEVICE_A, Some(base), body.clone()).await;
    assert_eq!((pushed.outcome.as_str(), pushed.txid), ("pushed", 2));
    // A lost answer (this one compressed), a conflict and an unknown base of a large body.
    let zstd = zstd::bulk::compress(&body, 1).unwrap();
    let request = rig.client.post(rig.url("db/v1/sync")).header(DEVICE, DEVICE_A.to_string());
    let request = request.header(BASE, base.to_string()).header("content-encoding", "zstd").body(zstd);
    assert_eq!(synced(request.send().await.unwrap()).await.outcome, "up-to-date");
    let again = rig.sync("db", DEVICE_A, Some(base), body).await;
    assert_eq!((again.outcome.as_str(), again.txid), ("up-to-date", 2));
    let other = first.with(&(1..250).map(|page| (page, 99)).collect::<Vec<_>>());
    let conflict = rig.sync("db", DEVICE_B, Some(base), other.body(Some(&first))).await;
    assert_eq!(conflict.error().conflict.unwrap().local_pages, 249);
    assert_eq!(rig.sync("db", DEVICE_B, None, other.body(None)).await.status, 410);
    // Streamed answers.
    assert_eq!(first.apply(&rig.sync("db", DEVICE_B, Some(base), Vec::new()).await.body), second);
    assert_eq!(rig.snapshot("db/v1/snapshot").await, second);
    let uploads = rig.store_path().join("db/uploads");
    assert!(!uploads.exists() || uploads.read_dir().unwrap().next().is_none(), "nothing is left behind");
    rig.restart();
    assert_eq!(rig.snapshot("db/v1/snapshot").await, second);
}

#[tokio::test]
async fn every_page_size_syncs() {
    let rig = Rig::memory();
    for bits in 9..=16 {
        let db = format!("db{bits}");
        let first = Image::new(1 << bits, 4, 1);
        let base = rig.sync(&db, DEVICE_A, None, first.body(None)).await.position();
        let second = first.with(&[(2, 3), (5, 3)]);
        rig.sync(&db, DEVICE_A, Some(base), second.body(Some(&first))).await.position();
        assert_eq!(first.apply(&rig.sync(&db, DEVICE_B, Some(base), Vec::new()).await.body), second);
        // Another page size is told apart from damage.
        let other = Image::new(if bits == 9 { 1024 } else { 512 }, 4, 1);
        let refused = rig.sync(&db, DEVICE_B, Some(base), other.body(None)).await;
        assert_eq!((refused.status.as_u16(), refused.error().code), (422, ErrorCode::WrongPageSize));
    }
}

#[tokio::test]
async fn a_push_without_a_device_is_refused() {
    let rig = Rig::memory();
    let body = Image::new(512, 1, 1).body(None);
    let request = rig.client.post(rig.url("db/v1/sync")).header(BASE, "1/2/x").body(body.clone());
    assert_eq!(synced(request.send().await.unwrap()).await.error().code, ErrorCode::BadRequest);
    let request = rig.client.post(rig.url("db/v1/sync")).body(body);
    assert_eq!(synced(request.send().await.unwrap()).await.error().code, ErrorCode::BadRequest);
    assert_eq!(rig.get("db/v1").await.status(), 404);
}
