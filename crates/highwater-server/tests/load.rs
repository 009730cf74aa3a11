//! The server's memory with many databases, many connections, thousands of idle ones, and bodies that
//! decompress to far more than they are. The numbers stand in docs/OPERATIONS.md ("Sizing").
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

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use child::ChildServer;
use common::{DEVICE_A, Image, sync};
use highwater_ltx::DeviceId;
use reqwest::Client;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Most memory of a server with 1,000 open databases and 500 connections that push at once, in bytes.
const BUSY: u64 = 256 << 20;
/// Most memory with 10,000 idle connections, in bytes.
const CROWDED: u64 = 512 << 20;
/// Most memory while bodies decompress to gigabytes, in bytes.
const BOMBED: u64 = 512 << 20;

#[test]
fn serve_for_a_test() {
    child::serve_if_child();
}

/// As many open files as the system allows, here and in the servers that are started.
fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.unwrap_or(u64::MAX)
}

fn server(folder: &std::path::Path, env: &[(&str, &str)]) -> ChildServer {
    raise_open_files();
    ChildServer::start("serve_for_a_test", folder, env).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_databases_and_five_hundred_connections_at_once_stay_small() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), &[]);
    let began = Instant::now();
    let (image, url) = (Arc::new(Image::new(4096, 20, 1)), Arc::new(server.url.clone()));
    let first = image.body(None);
    let start = Arc::new(tokio::sync::Barrier::new(500));
    let mut tasks = JoinSet::new();
    for number in 0..500u32 {
        let (image, url, first, start) = (image.clone(), url.clone(), first.clone(), start.clone());
        tasks.spawn(async move {
            // A client of its own is a connection of its own.
            let client = Client::builder().http1_only().timeout(Duration::from_secs(50)).build().unwrap();
            let device = DeviceId(number.into());
            start.wait().await;
            for half in 0..2 {
                let db = format!("{url}/db{}/v1/sync", number * 2 + half);
                let pushed = sync(&client, &db, device, None, first.clone()).await;
                let next = image.with(&[(3, 77)]);
                let body = next.body(Some(&image));
                assert_eq!(sync(&client, &db, device, Some(pushed.position()), body).await.outcome, "pushed");
            }
            client
        });
    }
    let clients = tasks.join_all().await;
    let (peak, now) = server.memory();
    println!("{:?}: peak {} MiB, now {} MiB", began.elapsed(), peak >> 20, now >> 20);
    let metrics = clients[0].get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let value =
        |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(value("highwater_databases_open "), "1000");
    assert_eq!(value("highwater_connections_open "), "500");
    assert!(peak < BUSY, "the server took {} MiB", peak >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_ten_thousand_idle_connections_a_client_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), &[]);
    let crowd = 11_000.min(raise_open_files() - 500);
    let client = Client::new();
    let url = format!("{}/db/v1/sync", server.url);
    let mut image = Image::new(512, 10, 1);
    let mut base = sync(&client, &url, DEVICE_A, None, image.body(None)).await.position();
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut idle = Vec::new();
    for round in 0..10u8 {
        for _ in 0..crowd / 10 {
            idle.push(TcpStream::connect(&address).await.unwrap());
        }
        // A new connection, too.
        let client = Client::new();
        let next = image.with(&[(3, 100 + round)]);
        let began = Instant::now();
        let pushed = sync(&client, &url, DEVICE_A, Some(base), next.body(Some(&image))).await;
        (base, image) = (pushed.position(), next);
        assert!(began.elapsed() < Duration::from_secs(5), "it waited {:?}", began.elapsed());
    }
    let (peak, now) = server.memory();
    println!("{} idle connections: peak {} MiB, now {} MiB", idle.len(), peak >> 20, now >> 20);
    assert!(peak < CROWDED, "the server took {} MiB", peak >> 20);
}

/// Zeros that compress to nearly nothing, behind a beginning.
fn bomb(beginning: &[u8], gigabytes: usize) -> Vec<u8> {
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zstd.write_all(beginning).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..gigabytes * 1024).for_each(|_| zstd.write_all(&zeros).unwrap());
    zstd.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_decompress_to_gigabytes_are_refused_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), &[("HIGHWATER_TEST_PUSH_BYTES", "100000000")]);
    // The beginning of a real push, so that it is not refused for its first bytes.
    let whole = Image::new(4096, 2000, 1).body(None);
    let bodies = [
        ("v1/sync", bomb(&[], 1)),
        ("v1/sync", bomb(&whole[..whole.len() / 2], 1)),
        ("v1/locate", bomb(&[], 1)),
    ];
    let client = Client::builder().timeout(Duration::from_secs(40)).build().unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..60 {
        let (path, body) = bodies[number % 3].clone();
        assert!(body.len() < 4 << 20);
        let request = client
            .post(format!("{}/db{number}/{path}", server.url))
            .header("highwater-device", DEVICE_A.to_string())
            .header("content-encoding", "zstd")
            .body(body);
        tasks.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    for status in tasks.join_all().await {
        assert!(matches!(status, 413 | 422 | 503), "{status}");
    }
    let (peak, now) = server.memory();
    println!("bombs: peak {} MiB, now {} MiB", peak >> 20, now >> 20);
    assert!(peak < BOMBED, "the server took {} MiB", peak >> 20);
    let pushed = sync(&client, &format!("{}/db/v1/sync", server.url), DEVICE_A, None, whole).await;
    assert_eq!(pushed.outcome, "pushed");
}
