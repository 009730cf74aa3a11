//! Bad input: the documented error, nothing stored, memory bounded.
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

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{DEVICE_A, DEVICE_B, Image, Rig, Synced, synced};
use highwater_ltx::{
    DeviceId, Encoder, FrameNo, Generation, Header, PageCount, PageEncoding, PageNo, Position, StateHash,
    TxId,
};
use highwater_server::{Limits, SnapshotPolicy};
use highwater_wire::{BASE, DEVICE, ErrorBody, ErrorCode};

/// The store's files with their sizes.
fn files(rig: &Rig) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![rig.store_path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.display().to_string(), path.metadata().unwrap().len()));
            }
        }
    }
    found.sort();
    found
}

/// A server with one database, and what a client of it has.
async fn rig(limits: Limits) -> (Rig, Image, Position) {
    let rig = Rig::local(SnapshotPolicy::default(), limits);
    let first = Image::new(512, 40, 1);
    let base = rig.sync("db", DEVICE_A, None, first.body(None)).await.position();
    (rig, first, base)
}

fn encode(header: Header, pages: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), header, PageEncoding::Lz4).unwrap();
    pages.iter().for_each(|(page, data)| encoder.page(PageNo(*page), data).unwrap());
    encoder.finish().unwrap().0
}

fn refused(answer: &Synced, code: ErrorCode) {
    let error = answer.error();
    assert_eq!((error.code, answer.status.as_u16()), (code, code.status()), "{}", error.message);
    assert!(error.request_id.is_some());
}

#[tokio::test]
async fn a_truncated_or_flipped_body_is_corrupt_and_nothing_is_stored() {
    // Both paths: in memory and streamed.
    for small_body in [8 << 20, 512] {
        let (rig, first, base) = rig(Limits { small_body, ..Limits::default() }).await;
        let before = files(&rig);
        let next = first.with(&[(2, 9), (3, 9), (41, 9)]);
        let body = next.body(Some(&first));
        for cut in (1..body.len()).step_by(97) {
            refused(
                &rig.sync("db", DEVICE_A, Some(base), body[..cut].to_vec()).await,
                ErrorCode::CorruptBody,
            );
        }
        let mut caught = 0;
        for at in (0..body.len()).step_by(29) {
            // Fields of the header that the server does not read change nothing but the checksum.
            let mut flipped = body.clone();
            flipped[at] ^= 0x10;
            let answer = rig.sync("db", DEVICE_A, Some(base), flipped).await;
            assert!(matches!(answer.status.as_u16(), 422), "byte {at}: {answer:?}");
            caught += 1;
        }
        assert!(caught > 50);
        let padded = [body.as_slice(), b"more"].concat();
        refused(&rig.sync("db", DEVICE_A, Some(base), padded).await, ErrorCode::CorruptBody);
        assert_eq!(files(&rig), before);
        assert_eq!(rig.sync("db", DEVICE_A, Some(base), body).await.outcome, "pushed");
    }
}

#[tokio::test]
async fn a_delta_that_does_not_make_what_it_claims_is_corrupt() {
    for small_body in [8 << 20, 512] {
        let (rig, first, base) = rig(Limits { small_body, ..Limits::default() }).await;
        let before = files(&rig);
        let next = first.with(&[(2, 9), (45, 9)]);
        let header = |count: u32, state| {
            let count = PageCount(count);
            Header::new_push(first.size, count, TxId(2), 0, Generation(1), FrameNo(1), 2, DEVICE_A, state)
        };
        let page = |image: &Image, page: u32| (page, image.pages[page as usize - 1].clone());
        let pages = [page(&next, 2), page(&next, 45)];
        let wrong_first = |change: fn(&mut Vec<u8>)| {
            let mut image = next.clone();
            change(&mut image.pages[0]);
            let pages = [page(&image, 1), page(&image, 2)];
            encode(header(40, Image { size: first.size, pages: image.pages[..40].to_vec() }.state()), &pages)
        };
        for (what, body) in [
            ("a wrong state", encode(header(40, StateHash(1)), &pages[..1])),
            ("pages 41 to 44 missing", encode(header(45, next.state()), &pages)),
            ("no state at all", encode(Header { state: None, ..header(45, next.state()) }, &pages)),
            ("a change counter", wrong_first(|page| page[27] = 1)),
            ("journal mode delete", wrong_first(|page| page[18] = 1)),
            ("another page size in page 1", wrong_first(|page| page[16] = 0x10)),
            ("not SQLite", wrong_first(|page| page[0] = b's')),
            ("no page count", encode(Header { commit: PageCount(0), ..header(45, next.state()) }, &[])),
            ("not LTX", b"hello, this is not an LTX file".to_vec()),
        ] {
            let answer = rig.sync("db", DEVICE_A, Some(base), body).await;
            assert_eq!(answer.status, 422, "{what}: {answer:?}");
            refused(&answer, ErrorCode::CorruptBody);
        }
        assert_eq!(files(&rig), before);
        // A first push must hold all pages.
        let part = encode(header(40, first.state()), &[page(&first, 2), page(&first, 3)]);
        refused(&rig.sync("new", DEVICE_A, None, part).await, ErrorCode::CorruptBody);
        assert_eq!(files(&rig), before);
    }
}

#[tokio::test]
async fn pages_out_of_order_or_out_of_bounds_are_corrupt() {
    let (rig, first, base) = rig(Limits::default()).await;
    let body = first.with(&[(2, 9), (3, 9)]).body(Some(&first));
    // The numbers of the two pages stand right at the beginning of their frames.
    let second = 100 + (body.len() - 100) / 2;
    let at = (second - 60..second + 60).find(|at| body[*at..*at + 6] == [0, 0, 0, 3, 0, 1]).unwrap();
    for number in [1u32, 2, 41, 0, u32::MAX, (1 << 30) / 512 + 1] {
        let mut wrong = body.clone();
        wrong[at..at + 4].copy_from_slice(&number.to_be_bytes());
        refused(&rig.sync("db", DEVICE_A, Some(base), wrong).await, ErrorCode::CorruptBody);
    }
}

#[tokio::test]
async fn too_large_a_body_is_refused_before_and_while_it_arrives() {
    let (rig, first, base) = rig(Limits { push_bytes: 100_000, ..Limits::default() }).await;
    let before = files(&rig);
    let mut big = first.clone();
    (1..400).for_each(|page| big.set(page, 3));
    let body = big.body(Some(&first));
    assert!(body.len() > 150_000);
    refused(&rig.sync("db", DEVICE_A, Some(base), body.clone()).await, ErrorCode::TooLarge);
    // Told before all of it is sent, and still read.
    let huge = vec![0; 30 << 20];
    refused(&rig.sync("db", DEVICE_A, Some(base), huge.clone()).await, ErrorCode::TooLarge);
    refused(&rig.sync("A", DEVICE_A, None, huge).await, ErrorCode::BadRequest);
    let request = || {
        let request = rig.client.post(rig.url("db/v1/sync")).header(DEVICE, DEVICE_A.to_string());
        request.header(BASE, base.to_string())
    };
    // Without a length, and compressed to far less than the limit.
    let chunks = body.chunks(10_000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()));
    let stream = reqwest::Body::wrap_stream(futures::stream::iter(chunks.collect::<Vec<_>>()));
    refused(&synced(request().body(stream).send().await.unwrap()).await, ErrorCode::TooLarge);
    let zeros = [body[..100].to_vec(), vec![0; 300 << 20]].concat();
    let bomb = zstd::bulk::compress(&zeros, 3).unwrap();
    assert!(bomb.len() < 100_000);
    let answer = request().header("content-encoding", "zstd").body(bomb).send().await.unwrap();
    refused(&synced(answer).await, ErrorCode::CorruptBody);
    let pages: Vec<u8> = (0..400).flat_map(|_| body.iter().copied()).collect();
    let bomb = zstd::bulk::compress(&pages, 3).unwrap();
    let answer = request().header("content-encoding", "zstd").body(bomb).send().await.unwrap();
    assert!(matches!(synced(answer).await.status.as_u16(), 413 | 422));
    // A window that would take more memory than the protocol allows.
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(&vec![7; 64 << 20]).unwrap();
    let answer = request().header("content-encoding", "zstd").body(wide.finish().unwrap());
    refused(&synced(answer.send().await.unwrap()).await, ErrorCode::CorruptBody);
    for (name, body) in [("zstd", b"not zstd at all".to_vec()), ("gzip", body)] {
        let code = if name == "zstd" { ErrorCode::CorruptBody } else { ErrorCode::BadRequest };
        let answer = request().header("content-encoding", name).body(body).send().await.unwrap();
        refused(&synced(answer).await, code);
    }
    assert_eq!(files(&rig), before);
}

/// Sends a request as it is, over a plain socket.
fn raw(rig: &Rig, request: &[u8]) -> (u16, String) {
    let mut socket = TcpStream::connect(rig.server.as_ref().unwrap().addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_bad_requests_and_reach_no_file() {
    let (rig, first, _) = rig(Limits::default()).await;
    let before = files(&rig);
    let body = first.body(None);
    let long = "a".repeat(10_000);
    for name in [
        "..",
        "../..",
        "%2e%2e",
        "%2E%2E/%2e",
        "a/../b",
        "./a",
        "a//b",
        "/etc/passwd",
        "/",
        "a%00b",
        "a%2fb",
        "A",
        "a b",
        "ltx",
        "db/ltx/0",
        "db/uploads",
        "c:\\x",
        "a/b/c/d/e",
        &long,
        "%",
        "ä",
    ] {
        for (method, rest) in [("POST", "/sync"), ("GET", ""), ("GET", "/snapshot")] {
            let mut request = format!(
                "{method} /{name}/v1{rest} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{DEVICE}: {DEVICE_A}\r\ncontent-length: {}\r\n\r\n",
                if method == "POST" { body.len() } else { 0 }
            )
            .into_bytes();
            if method == "POST" {
                request.extend_from_slice(&body);
            }
            let (status, text) = raw(&rig, &request);
            assert_eq!(status, 400, "{name:.40} {rest}: {text:.300}");
            assert!(text.len() < 2000);
        }
    }
    assert_eq!(files(&rig), before);
}

#[tokio::test]
async fn wrong_paths_methods_and_headers_are_told_in_json() {
    let (rig, first, base) = rig(Limits::default()).await;
    for (path, status) in [
        ("", 404),
        ("v1", 404),
        ("db", 404),
        ("db/v2", 404),
        ("db/v1/", 404),
        ("db/v1/nothing", 404),
        ("other/v1", 404),
    ] {
        let response = rig.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        let error: ErrorBody = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert!(!error.message.is_empty() && error.request_id.is_some());
    }
    let response = rig.get("db/v1/sync").await;
    assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(rig.client.delete(rig.url("db/v1")).send().await.unwrap().status(), 405);
    for (name, value) in [
        (BASE, "1/2"),
        (BASE, "1/2/3"),
        (BASE, "99999999999/1/00000000000000000000000000000000"),
        (DEVICE, "x"),
        (DEVICE, "\u{e4}"),
    ] {
        let mut request = rig.client.post(rig.url("db/v1/sync")).header(name, value.as_bytes());
        if name == BASE {
            request = request.header(DEVICE, DEVICE_A.to_string());
        }
        let answer = synced(request.body(first.body(None)).send().await.unwrap()).await;
        refused(&answer, ErrorCode::BadRequest);
    }
    let twice =
        rig.client.post(rig.url("db/v1/sync")).header(BASE, base.to_string()).header(BASE, base.to_string());
    refused(&synced(twice.send().await.unwrap()).await, ErrorCode::BadRequest);
    assert_eq!(rig.json("healthz").await["status"], "ok");
    let version = rig.json("version").await;
    assert_eq!((&version["server"], &version["protocols"][0]), (&"highwater".into(), &"v1".into()));
    let head = rig.client.head(rig.url("db/v1")).send().await.unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_or_falls_silent_leaves_nothing_behind() {
    let limits = Limits { small_body: 512, idle_timeout: Duration::from_millis(400), ..Limits::default() };
    let (rig, first, base) = rig(limits).await;
    let before = files(&rig);
    let mut next = first.clone();
    (1..4000).for_each(|page| next.set(page, 9));
    let body = next.body(Some(&first));
    assert!(body.len() > 2_000_000);
    let head = format!(
        "POST /db/v1/sync HTTP/1.1\r\nhost: x\r\n{DEVICE}: {DEVICE_B}\r\n{BASE}: {base}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for part in [10, 5000, 1_500_000] {
        let mut socket = TcpStream::connect(rig.server.as_ref().unwrap().addr()).unwrap();
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(&body[..part]).unwrap();
        drop(socket);
        // And one that stays connected but sends no more: it is told, and dropped.
        let mut request = head.clone().into_bytes();
        request.extend_from_slice(&body[..part]);
        let began = std::time::Instant::now();
        let (status, text) = raw(&rig, &request);
        assert!(status == 503 && text.contains("unavailable"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    for _ in 0..100 {
        if files(&rig) == before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(files(&rig), before);
    assert_eq!(rig.sync("db", DEVICE_A, Some(base), body).await.outcome, "pushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_the_network_cuts_is_asked_for_again() {
    let (rig, first, base) = rig(Limits::default()).await;
    let before = files(&rig);
    let mut next = first.clone();
    next.set(2, 9);
    let body = next.body(Some(&first));
    let head = format!(
        "POST /db/v1/sync HTTP/1.1\r\nhost: x\r\n{DEVICE}: {DEVICE_B}\r\n{BASE}: {base}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(rig.server.as_ref().unwrap().addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(&[head.as_bytes(), &body[..body.len() / 2]].concat()).unwrap();
    // One direction ends, the other still carries an answer.
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    // Whoever hears it tries again; "bad request" would be the end of a sync.
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after"),
        "{answer}"
    );
    assert_eq!(files(&rig), before);
    assert_eq!(rig.sync("db", DEVICE_B, Some(base), body).await.outcome, "pushed");
}

#[test]
fn random_bytes_never_stop_the_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (rig, first, base) = rig(Limits::default()).await;
        let mut random = common::Random(99);
        let good = first.with(&[(2, 9)]).body(Some(&first));
        for _ in 0..200 {
            let mut body = good.clone();
            for _ in 0..1 + random.next() % 6 {
                let at = random.next() as usize % body.len();
                body[at] = random.next() as u8;
            }
            if random.next().is_multiple_of(3) {
                body.truncate(random.next() as usize % body.len() + 1);
            }
            if body == good {
                continue;
            }
            let answer = rig.sync("db", DeviceId(1), Some(base), body).await;
            assert!(matches!(answer.status.as_u16(), 422 | 413), "{answer:?}");
        }
        assert_eq!(rig.snapshot("db/v1/snapshot").await, first);
    });
}
