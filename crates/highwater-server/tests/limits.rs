//! What a busy server says, and that nothing is lost by it: too often, too many, too large together;
//! readiness; stopping.
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

mod common;

use std::time::{Duration, Instant};

use common::{DEVICE_A, DEVICE_B, Image, Rig, sync, synced};
use highwater_ltx::DeviceId;
use highwater_server::{Limits, SnapshotPolicy};
use highwater_wire::ErrorCode;
use reqwest::{Body, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{Sender, channel};

fn rig(limits: Limits) -> Rig {
    Rig::local(SnapshotPolicy::default(), limits)
}

fn retry_after(response: &Response) -> u64 {
    response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

/// A push that sends what is given to the sender.
fn slow_push(rig: &Rig, db: &str) -> (Sender<Vec<u8>>, tokio::task::JoinHandle<common::Synced>) {
    let (sender, receiver) = channel::<Vec<u8>>(1);
    let stream = futures::stream::unfold(receiver, async |mut receiver| {
        Some((Ok::<_, std::io::Error>(receiver.recv().await?), receiver))
    });
    let request =
        rig.client.post(rig.url(&format!("{db}/v1/sync"))).header("highwater-device", DEVICE_A.to_string());
    let request = request.body(Body::wrap_stream(stream));
    (sender, tokio::spawn(async move { synced(request.send().await.unwrap()).await }))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let rig = rig(Limits { rate: 1, burst: 3, ..Limits::default() });
    let image = Image::new(512, 3, 1);
    assert_eq!(rig.sync("db", DEVICE_A, None, image.body(None)).await.outcome, "pushed");
    assert_eq!(rig.get("db/v1").await.status(), 200);
    assert_eq!(rig.get("db/info").await.status(), 200, "libSQL's requests count like all others");
    let refused = rig.get("db/v1").await;
    assert_eq!((refused.status().as_u16(), retry_after(&refused)), (429, 1));
    assert_eq!(rig.get("db/info").await.status(), 429);
    let pushed = rig.sync("db", DEVICE_B, None, Vec::new()).await;
    assert_eq!(pushed.error().code, ErrorCode::TooManyRequests);
    for path in ["healthz", "readyz", "version", "metrics"] {
        for _ in 0..5 {
            assert_eq!(rig.get(path).await.status(), 200, "{path} has no limit");
        }
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(rig.get("db/v1").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_wait_a_moment_and_are_then_refused() {
    let wait = Duration::from_millis(300);
    let rig = rig(Limits { requests: 1, wait, ..Limits::default() });
    let body = Image::new(512, 3, 1).body(None);
    let (sender, push) = slow_push(&rig, "db");
    sender.send(body[..100].to_vec()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let refused = rig.get("other/v1").await;
    assert_eq!((refused.status().as_u16(), retry_after(&refused)), (503, 1));
    assert!(began.elapsed() >= wait, "it waits for its turn");
    assert_eq!(rig.get("readyz").await.status(), 200);
    let waiting = tokio::spawn({
        let url = rig.url("other/v1");
        let client = rig.client.clone();
        async move { client.get(url).send().await.unwrap().status() }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    sender.send(body[100..].to_vec()).await.unwrap();
    drop(sender);
    assert_eq!(push.await.unwrap().outcome, "pushed");
    assert_eq!(waiting.await.unwrap(), 404, "its turn came");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_share_their_memory_and_small_ones_do_not_wait_for_it() {
    // Half of it is for requests: one body of 2 MB takes nearly all.
    let limits = Limits { memory: 14 << 20, wait: Duration::from_millis(200), ..Limits::default() };
    let rig = rig(limits);
    let large = Image::new(4096, 500, 1);
    let body = large.body(None);
    let (sender, push) = slow_push(&rig, "first");
    sender.send(body[..body.len() - 100].to_vec()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refused = rig.sync("second", DEVICE_A, None, body.clone()).await;
    assert_eq!(refused.error().code, ErrorCode::Unavailable, "{refused:?}");
    let small = Image::new(4096, 3, 1);
    assert_eq!(rig.sync("third", DEVICE_A, None, small.body(None)).await.outcome, "pushed");
    sender.send(body[body.len() - 100..].to_vec()).await.unwrap();
    drop(sender);
    assert_eq!(push.await.unwrap().outcome, "pushed");
    assert_eq!(rig.sync("second", DEVICE_A, None, body).await.outcome, "pushed", "a retry is enough");
    assert_eq!(rig.snapshot("second/v1/snapshot").await, large);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_announced_and_does_not_come_takes_no_memory_from_others() {
    let limits = Limits { memory: 14 << 20, wait: Duration::from_millis(200), ..Limits::default() };
    let most = limits.body_memory as u64;
    let rig = rig(limits);
    let mut held = Vec::new();
    for length in [1 << 20, most, u64::MAX >> 1] {
        let mut stream = tokio::net::TcpStream::connect(rig.server.as_ref().unwrap().addr()).await.unwrap();
        let head = format!("POST /a/sync/1/1/2 HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nx");
        stream.write_all(head.as_bytes()).await.unwrap();
        if length > most {
            let mut said = vec![0; 12];
            stream.read_exact(&mut said).await.unwrap();
            assert_eq!(said, b"HTTP/1.1 413", "more than is ever taken is refused before it comes");
        }
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let large = Image::new(4096, 400, 1);
    assert_eq!(rig.sync("db", DEVICE_A, None, large.body(None)).await.outcome, "pushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_pushes_at_once_all_end_and_memory_is_given_back() {
    let rig = rig(Limits { memory: 40 << 20, wait: Duration::from_millis(50), ..Limits::default() });
    let body = Image::new(4096, 1000, 1).body(None);
    for _ in 0..2 {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..12u32 {
            let (client, url, body) =
                (rig.client.clone(), rig.url(&format!("db{number}/v1/sync")), body.clone());
            tasks.spawn(async move {
                for _ in 0..200 {
                    let pushed = sync(&client, &url, DeviceId(number.into()), None, body.clone()).await;
                    match pushed.status.as_u16() {
                        200 => return,
                        503 => tokio::time::sleep(Duration::from_millis(100)).await,
                        _ => panic!("{pushed:?}"),
                    }
                }
                panic!("never its turn");
            });
        }
        let all = tokio::time::timeout(Duration::from_secs(40), tasks.join_all()).await;
        assert!(all.is_ok(), "some wait for ever");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_are_closed_when_they_take_too_much_memory_and_lose_nothing() {
    let rig = rig(Limits { open_bytes: 300_000, ..Limits::default() });
    let open = async || {
        let text = rig.get("metrics").await.text().await.unwrap();
        let line =
            text.lines().find(|line| line.starts_with("highwater_databases_open ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let image = Image::new(512, 2000, 1);
    let mut bases = Vec::new();
    for number in 0..8 {
        let pushed = rig.sync(&format!("db{number}"), DEVICE_A, None, image.body(None)).await;
        bases.push(pushed.position());
    }
    // Each takes about 112 kB; they are counted when one is opened.
    assert!((1..=4).contains(&open().await), "{} are open", open().await);
    for (number, base) in bases.into_iter().enumerate() {
        let next = image.with(&[(7, 9)]);
        let pushed = rig.sync(&format!("db{number}"), DEVICE_A, Some(base), next.body(Some(&image))).await;
        assert_eq!(pushed.outcome, "pushed");
    }
    assert!((1..=4).contains(&open().await), "{} are open", open().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_store_fails_is_alive_but_not_ready() {
    let rig = rig(Limits::default());
    assert_eq!(rig.get("readyz").await.status(), 200);
    assert_eq!(rig.json("readyz").await["status"], "ready");
    let reserved = rig.store_path().join(".highwater");
    std::fs::remove_dir_all(&reserved).unwrap();
    std::fs::write(&reserved, "in the way").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let refused = rig.get("readyz").await;
    assert_eq!((refused.status().as_u16(), retry_after(&refused)), (503, 1));
    assert_eq!(rig.get("healthz").await.status(), 200);
    std::fs::remove_file(&reserved).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(rig.get("readyz").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_often_whether_it_is_ready_does_not_work_the_store() {
    let rig = rig(Limits::default());
    let writes = async || {
        let text = rig.get("metrics").await.text().await.unwrap();
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        let name = "highwater_store_seconds_count{operation=\"create\"}";
        text.lines().find(|line| line.starts_with(name)).map_or(0, count)
    };
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(rig.get("readyz").await.status(), 200);
    }
    assert!(writes().await <= 1 + began.elapsed().as_secs() + 1, "{} writes", writes().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_first_says_that_it_is_not_ready_and_still_takes_requests() {
    let mut rig = rig(Limits { drain: Duration::from_millis(1500), ..Limits::default() });
    let image = Image::new(512, 3, 1);
    let (sender, push) = slow_push(&rig, "slow");
    let body = image.body(None);
    sender.send(body[..100].to_vec()).await.unwrap();
    assert_eq!(rig.get("readyz").await.status(), 200);
    let (ready, url) = (rig.url("readyz"), rig.url("late/v1/sync"));
    let server = rig.server.take().unwrap();
    let stopping = tokio::task::spawn_blocking(move || server.stop().unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    // New connections: a load balancer looks from elsewhere.
    let other = reqwest::Client::new();
    assert_eq!(other.get(&ready).send().await.unwrap().status(), 503);
    assert_eq!(sync(&other, &url, DEVICE_B, None, image.body(None)).await.outcome, "pushed");
    tokio::time::sleep(Duration::from_millis(1700)).await;
    assert!(reqwest::Client::new().get(&ready).send().await.is_err(), "no new connections after the drain");
    sender.send(body[100..].to_vec()).await.unwrap();
    drop(sender);
    assert_eq!(push.await.unwrap().outcome, "pushed", "what was accepted is finished and acknowledged");
    tokio::time::timeout(Duration::from_secs(10), stopping).await.unwrap().unwrap();
}
