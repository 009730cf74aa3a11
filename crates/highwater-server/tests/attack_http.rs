//! Hostile clients on real sockets: slow, half, endless, garbled, many. Whatever they do, they are let
//! go, nothing is left behind, and a client beside them syncs as if they were not there.
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

use std::time::{Duration, Instant};

use common::{DEVICE_A, Image, Random, Rig};
use highwater_server::{Limits, SnapshotPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// No attack may take longer to be over.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server that loses patience after a second.
fn rig() -> Rig {
    let soon = Duration::from_secs(1);
    let limits =
        Limits { header_timeout: soon, idle_timeout: soon, write_timeout: soon, ..Limits::default() };
    Rig::local(SnapshotPolicy::default(), limits)
}

async fn connect(rig: &Rig) -> TcpStream {
    TcpStream::connect(rig.server.as_ref().unwrap().addr()).await.unwrap()
}

/// Everything that the server says until it closes the connection.
async fn said(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut all)).await;
    assert!(read.is_ok(), "the server keeps the connection: {:?}", String::from_utf8_lossy(&all));
    String::from_utf8_lossy(&all).into_owned()
}

async fn metric(rig: &Rig, name: &str) -> i64 {
    let text = rig.get("metrics").await.text().await.unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits until only the request that asks is left.
async fn quiet(rig: &Rig) {
    let began = Instant::now();
    while metric(rig, "highwater_requests_in_flight").await > 1 {
        assert!(began.elapsed() < DEADLINE, "requests of hostile clients are still held");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Syncs for as long as the attack lasts; every sync must be quick.
async fn beside<T>(rig: &Rig, attack: impl Future<Output = T>) -> T {
    let mut attack = std::pin::pin!(timeout(DEADLINE * 2, attack));
    let mut image = Image::new(512, 10, 1);
    let mut base = rig.sync("healthy", DEVICE_A, None, image.body(None)).await.position();
    let mut round = 100u8;
    loop {
        tokio::select! {
            done = attack.as_mut() => {
                quiet(rig).await;
                assert_eq!(rig.snapshot("healthy/v1/snapshot").await, image);
                return done.expect("the attack is over in time");
            }
            () = tokio::time::sleep(Duration::from_millis(30)) => {}
        }
        round = round.wrapping_add(1);
        let next = image.with(&[(u32::from(round % 9) + 2, round)]);
        let began = Instant::now();
        let pushed = rig.sync("healthy", DEVICE_A, Some(base), next.body(Some(&image))).await;
        base = pushed.position();
        image = next;
        assert!(began.elapsed() < Duration::from_secs(5), "a healthy client waited {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_never_end_are_cut() {
    let rig = rig();
    let attack = async {
        let mut tasks = JoinSet::new();
        for _ in 0..200 {
            let mut stream = connect(&rig).await;
            tasks.spawn(async move {
                let began = Instant::now();
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
                while stream.write_all(b"x-slow: 1\r\n").await.is_ok() {
                    assert!(began.elapsed() < DEADLINE, "a head that never ends is read for ever");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        tasks.join_all().await;
    };
    beside(&rig, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_are_closed() {
    let rig = rig();
    let attack = async {
        for beginning in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /a/v1/sync HTTP/1.1\r\n"] {
            let mut stream = connect(&rig).await;
            stream.write_all(beginning.as_bytes()).await.unwrap();
            said(&mut stream).await;
        }
    };
    beside(&rig, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_stop_or_crawl_are_given_up() {
    let rig = rig();
    let paths = ["a/v1/sync", "a/v1/locate", "a/sync/1/1/2"];
    let attack = async {
        let mut tasks = JoinSet::new();
        for (path, crawling) in paths.iter().flat_map(|path| [(path, true), (path, false)]) {
            let mut stream = connect(&rig).await;
            let head = format!(
                "POST /{path} HTTP/1.1\r\nHost: x\r\nhighwater-device: {DEVICE_A}\r\nContent-Length: 1000000\r\n\r\n"
            );
            tasks.spawn(async move {
                stream.write_all(head.as_bytes()).await.unwrap();
                let (mut reader, mut writer) = stream.split();
                let crawl = async {
                    while crawling && writer.write_all(b"x").await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                let mut all = Vec::new();
                let read = async {
                    // The answer, or the end.
                    let _ = reader.read_buf(&mut all).await;
                };
                let both = futures::future::select(Box::pin(crawl), Box::pin(read));
                assert!(timeout(DEADLINE, both).await.is_ok(), "a body that crawls is waited for");
            });
        }
        tasks.join_all().await;
    };
    beside(&rig, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_leave_nothing_behind() {
    let rig = rig();
    let whole = {
        let body = Image::new(512, 20, 3).body(None);
        let head = format!(
            "POST /half/v1/sync HTTP/1.1\r\nHost: x\r\nhighwater-device: {DEVICE_A}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    };
    let attack = async {
        let mut random = Random(7);
        for _ in 0..300 {
            let mut stream = connect(&rig).await;
            let end = random.next() as usize % (whole.len() - 1);
            // The server may have closed it already.
            let _ = stream.write_all(&whole[..end]).await;
            if random.next().is_multiple_of(2) {
                let _ = stream.shutdown().await;
            }
        }
    };
    beside(&rig, attack).await;
    assert_eq!(rig.get("half/v1").await.status(), 404, "half a push makes no database");
    assert!(!rig.store_path().join("half").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_or_closed() {
    let rig = rig();
    let attack = async {
        let mut random = Random(3);
        let mut noise = vec![0; 3000];
        for round in 0..100 {
            let mut stream = connect(&rig).await;
            random.fill(&mut noise);
            let beginning: &[u8] = match round % 5 {
                0 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                1 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                2 => b"GET / HTTP/9.9\r\n\r\n",
                3 => b"GET\0/ HTTP/1.1\r\n",
                _ => b"",
            };
            let _ = stream.write_all(&[beginning, &noise].concat()).await;
            let _ = stream.shutdown().await;
            let mut all = Vec::new();
            let read = timeout(DEADLINE, stream.read_to_end(&mut all)).await;
            assert!(read.is_ok(), "round {round}: garbage holds a connection");
            assert!(!all.starts_with(b"HTTP/1.1 2"), "round {round}: garbage is no request");
        }
    };
    beside(&rig, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused() {
    let rig = rig();
    let attack = async {
        let many: String = (0..500).map(|number| format!("x-{number}: y\r\n")).collect();
        let large = format!("x: {}\r\n", "y".repeat(1 << 20));
        let long = "a".repeat(1 << 20);
        for head in [
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{large}\r\n"),
            format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        ] {
            let mut stream = connect(&rig).await;
            let _ = stream.write_all(head.as_bytes()).await;
            let answer = said(&mut stream).await;
            // A client that sends on while it is refused may find the connection reset instead.
            let refused = ["HTTP/1.1 431", "HTTP/1.1 414", "HTTP/1.1 400"];
            assert!(answer.is_empty() || refused.iter().any(|r| answer.starts_with(r)), "{answer}");
        }
    };
    beside(&rig, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_in_two_ways_hides_no_second_request() {
    let rig = rig();
    let hidden = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    let shapes = [
        format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Content-Length: 5\r\nContent-Length: 6\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Content-Length: -1\r\n\r\n{hidden}"),
        format!("Content-Length: +5\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Content-Length : 5\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n-1\r\n{hidden}"),
    ];
    let attack = async {
        for shape in &shapes {
            let mut stream = connect(&rig).await;
            let head = "POST /a/v1/locate HTTP/1.1\r\nHost: x\r\n";
            stream.write_all(format!("{head}{shape}").as_bytes()).await.unwrap();
            let answer = said(&mut stream).await;
            assert!(!answer.contains("protocols"), "{shape:?} hid a request: {answer}");
            assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{shape:?}: {answer}");
        }
    };
    beside(&rig, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_streams_that_are_reset_at_once_cost_the_connection() {
    let rig = rig();
    let attack = async {
        let (mut client, connection) = h2::client::handshake(connect(&rig).await).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut opened = 0u32;
        for _ in 0..20_000 {
            let Ok(ready) = timeout(DEADLINE, client.clone().ready()).await.unwrap() else { break };
            client = ready;
            let request = http::Request::get("http://x/a/v1").body(()).unwrap();
            let Ok((_, mut stream)) = client.send_request(request, false) else { break };
            stream.send_reset(h2::Reason::CANCEL);
            opened += 1;
        }
        drop(client);
        let ended = timeout(DEADLINE, driver).await.expect("the connection ends").unwrap();
        println!("{opened} streams, then {ended:?}");
        assert!(ended.is_err(), "20,000 resets are not put up with");
    };
    beside(&rig, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_connection_has_no_more_streams_than_allowed() {
    let rig = rig();
    let attack = async {
        let (client, connection) = h2::client::handshake(connect(&rig).await).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut streams = Vec::new();
        let mut client = client.ready().await.unwrap();
        // The first answer tells the client the limits.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..1000 {
            let request = http::Request::post("http://x/a/v1/locate").body(()).unwrap();
            let Ok(Ok(ready)) = timeout(Duration::from_millis(200), client.clone().ready()).await else {
                break;
            };
            client = ready;
            let Ok(stream) = client.send_request(request, false) else { break };
            streams.push(stream);
        }
        // The client's library holds back what the server does not allow.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let held = metric(&rig, "highwater_requests_in_flight").await;
        assert!((50..=110).contains(&held), "{held} requests of one connection at once");
        drop((streams, client));
        driver.abort();
    };
    beside(&rig, attack).await;
}

/// A database whose copy is far more than sockets buffer.
async fn large(rig: &Rig) {
    let mut image = Image::new(65536, 600, 5);
    let mut random = Random(1);
    image.pages[1..].iter_mut().for_each(|page| random.fill(page));
    assert_eq!(rig.sync("large", DEVICE_A, None, image.body(None)).await.outcome, "pushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_are_given_up() {
    let rig = rig();
    large(&rig).await;
    let attack = async {
        let mut streams = Vec::new();
        for _ in 0..10 {
            let mut stream = connect(&rig).await;
            stream.write_all(b"GET /large/v1/snapshot HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            streams.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(metric(&rig, "highwater_requests_in_flight").await > 10);
        quiet(&rig).await;
        drop(streams);
    };
    beside(&rig, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_window_that_stays_shut_is_no_way_to_hold_memory() {
    let rig = rig();
    large(&rig).await;
    let attack = async {
        let before = metric(&rig, "highwater_connections_open").await;
        let (client, connection) = h2::client::handshake(connect(&rig).await).await.unwrap();
        // It answers pings, and never lets the server send more.
        let driver = tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let mut held = Vec::new();
        for _ in 0..5 {
            let request = http::Request::get("http://x/large/v1/snapshot").body(()).unwrap();
            held.push(client.send_request(request, true).unwrap());
        }
        let mut answers = Vec::new();
        for (answer, _) in &mut held {
            answers.push(timeout(DEADLINE, answer).await.unwrap().unwrap());
        }
        let ended = timeout(DEADLINE, driver).await;
        assert!(ended.is_ok(), "the connection is kept for ever");
        let began = Instant::now();
        while metric(&rig, "highwater_connections_open").await > before {
            assert!(began.elapsed() < DEADLINE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    beside(&rig, attack).await;
}
