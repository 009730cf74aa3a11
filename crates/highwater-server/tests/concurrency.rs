//! Many at once: exactly one push wins each round, on one server and on two that share a store.
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

use common::{DEVICE_A, Image, Rig, sync};
use highwater_ltx::DeviceId;
use highwater_server::{Embedded, Limits, SnapshotPolicy};
use reqwest::Client;

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_pushes_at_once_exactly_one_wins_each_round() {
    let rig = Rig::local(SnapshotPolicy { max_files: 3, outweigh: false }, Limits::default());
    let other = Embedded::start(rig.config.clone(), ([127, 0, 0, 1], 0).into()).unwrap();
    let urls = [rig.url("db/v1/sync"), format!("{}/db/v1/sync", other.url())];
    let client = Client::new();
    let mut image = Image::new(512, 60, 1);
    let mut base = sync(&client, &urls[1], DEVICE_A, None, image.body(None)).await.position();
    for round in 0..6u64 {
        let mut tasks = tokio::task::JoinSet::new();
        for device in 0..50u32 {
            // Each device changes its own page: conflicts are about the history, not the content.
            let next = image.with(&[(device + 2, 100 + round as u8)]);
            let (client, url) = (client.clone(), urls[device as usize % 2].clone());
            let body = next.body(Some(&image));
            tasks.spawn(async move {
                (sync(&client, &url, DeviceId((u128::from(device) + 1) << 64), Some(base), body).await, next)
            });
        }
        let mut winner = None;
        while let Some(done) = tasks.join_next().await {
            let (synced, next) = done.unwrap();
            match synced.status.as_u16() {
                200 => {
                    assert_eq!((synced.outcome.as_str(), synced.txid), ("pushed", round + 2));
                    assert!(winner.replace((synced.position(), next)).is_none(), "two pushes won");
                }
                409 => {}
                status => panic!("{status}: {:?}", synced.error()),
            }
        }
        (base, image) = winner.expect("one push wins");
    }
    for url in &urls {
        let pulled = sync(&client, url, DEVICE_A, None, Vec::new()).await;
        assert_eq!(Image::empty().apply(&pulled.body), image);
    }
    other.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_exactly_one_wins() {
    let rig = Rig::memory();
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..20u8 {
        let (client, url) = (rig.client.clone(), rig.url("new/v1/sync"));
        let body = Image::new(512, 3, seed).body(None);
        tasks.spawn(async move {
            sync(&client, &url, DeviceId((u128::from(seed) + 1) << 64), None, body).await.status.as_u16()
        });
    }
    let mut statuses = tasks.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses[1..].iter().all(|status| *status == 410), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_are_closed_for_others_lose_nothing() {
    let rig = Rig::local(SnapshotPolicy::default(), Limits { open_databases: 2, ..Limits::default() });
    let mut bases = Vec::new();
    for number in 0..8u8 {
        let image = Image::new(512, 3, number);
        bases.push((
            rig.sync(&format!("db{number}"), DEVICE_A, None, image.body(None)).await.position(),
            image,
        ));
    }
    for (number, (base, image)) in bases.iter().enumerate() {
        let next = image.with(&[(2, 99)]);
        let name = format!("db{number}");
        assert_eq!(rig.sync(&name, DEVICE_A, Some(*base), next.body(Some(image))).await.txid, 2);
        assert_eq!(rig.snapshot(&format!("{name}/v1/snapshot")).await, next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_was_accepted() {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let image = Image::new(4096, 3000, 1);
    let task = {
        let (client, url, body) = (rig.client.clone(), rig.url("db/v1/sync"), image.body(None));
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
        tokio::spawn(async move {
            for chunk in body.chunks(256 << 10) {
                sender.send(Ok(chunk.to_vec())).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        tokio::spawn(async move {
            let stream = futures::stream::unfold(receiver, async |mut r| Some((r.recv().await?, r)));
            let request = client.post(url).header("highwater-device", DEVICE_A.to_string());
            common::synced(request.body(reqwest::Body::wrap_stream(stream)).send().await.unwrap()).await
        })
    };
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    let server = rig.server.take().unwrap();
    let began = std::time::Instant::now();
    tokio::task::spawn_blocking(move || server.stop().unwrap()).await.unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
    let pushed = task.await.unwrap();
    assert_eq!(pushed.outcome, "pushed");
    let again = Embedded::start(rig.config.clone(), ([127, 0, 0, 1], 0).into()).unwrap();
    rig.server = Some(again);
    assert_eq!(rig.snapshot("db/v1/snapshot").await, image);
}
