//! What `GET /metrics` says of requests over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod common;

use std::time::{Duration, Instant};

use common::{DEVICE_A, DEVICE_B, Image, Rig};
use highwater_server::{Limits, SnapshotPolicy};

/// The value of a series; 0 when there is none.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Asks until a series has a value: a request is counted when its answer was handed on whole, which
/// the client may notice a moment earlier.
async fn until(rig: &Rig, series: &str, expected: f64) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = rig.get("metrics").await.text().await.unwrap();
        if value(&text, series) == expected {
            return text;
        }
        assert!(Instant::now() < deadline, "{series} is not {expected}:\n{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let rig = Rig::local(SnapshotPolicy { max_files: 2, outweigh: false }, Limits::default());
    let first = Image::new(4096, 5, 1);
    let body = first.body(None);
    let sent = body.len() as f64;
    let base = rig.sync("app", DEVICE_A, None, body).await.position();
    let second = first.with(&[(2, 9), (3, 9)]);
    let head = rig.sync("app", DEVICE_A, Some(base), second.body(Some(&first))).await.position();
    rig.sync("app", DEVICE_B, Some(base), Vec::new()).await.position();
    let diverged = first.with(&[(2, 5)]);
    assert_eq!(rig.sync("app", DEVICE_B, Some(base), diverged.body(Some(&first))).await.status, 409);
    rig.sync("app", DEVICE_A, Some(head), Vec::new()).await.position();
    rig.get("nothing/here").await;

    let text =
        until(&rig, r#"highwater_requests_total{route="other",protocol="none",status="404"}"#, 1.0).await;
    let sync =
        |status| format!(r#"highwater_requests_total{{route="sync",protocol="native",status="{status}"}}"#);
    assert_eq!(value(&text, &sync(200)), 4.0, "{text}");
    assert_eq!(value(&text, &sync(409)), 1.0, "{text}");
    let native = |name: &str| value(&text, &format!(r#"highwater_{name}_total{{protocol="native"}}"#));
    assert_eq!(native("pushes"), 2.0);
    assert_eq!(native("pulls"), 1.0);
    assert_eq!(native("conflicts"), 1.0);
    assert_eq!(native("frames_received"), 7.0);
    assert_eq!(native("frames_sent"), 2.0);
    assert!(native("received_bytes") > sent, "{text}");
    assert!(native("sent_bytes") > 0.0);
    assert_eq!(value(&text, r#"highwater_refusals_total{code="cannot_merge"}"#), 1.0);
    assert_eq!(value(&text, r#"highwater_request_seconds_count{route="sync"}"#), 5.0);
    assert_eq!(value(&text, r#"highwater_store_seconds_count{operation="create"}"#), 2.0);
    assert_eq!(value(&text, "highwater_databases_open"), 1.0);
    assert_eq!(value(&text, "highwater_databases_opened_total"), 1.0);
    assert_eq!(value(&text, "highwater_requests_in_flight"), 1.0, "the one that asks");
    assert!(value(&text, "highwater_connections_open") >= 1.0);
    assert!(text.contains(concat!("highwater_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")));
    assert!(text.ends_with("# EOF\n"));
    assert!(
        !text.contains("highwater_store_errors_total"),
        "an object that is not there is no error: {text}"
    );
    if cfg!(target_os = "linux") {
        assert!(value(&text, "process_resident_memory_bytes") > 1e6);
        assert!(value(&text, "process_open_fds") > 3.0);
    }
}

#[tokio::test]
async fn snapshots_and_generations_are_counted() {
    let rig = Rig::local(SnapshotPolicy { max_files: 2, outweigh: false }, Limits::default());
    let mut image = Image::new(4096, 5, 1);
    let mut base = rig.sync("app", DEVICE_A, None, image.body(None)).await.position();
    for seed in 2..4 {
        let next = image.with(&[(2, seed)]);
        base = rig.sync("app", DEVICE_A, Some(base), next.body(Some(&image))).await.position();
        image = next;
    }
    until(&rig, r#"highwater_snapshots_total{result="written"}"#, 1.0).await;
    let next = image.with(&[(2, 9)]);
    rig.sync("app", DEVICE_A, Some(base), next.body(Some(&image))).await.position();
    until(&rig, "highwater_generations_begun_total", 1.0).await;
}

#[tokio::test]
async fn no_name_becomes_a_label() {
    let rig = Rig::memory();
    rig.sync("very-secret-name", DEVICE_A, None, Image::new(4096, 2, 1).body(None)).await.position();
    rig.get("very-secret-name/v1").await;
    rig.get("very-secret-name/v1/nonsense").await;
    rig.get("very-secret-name").await;
    let text =
        until(&rig, r#"highwater_requests_total{route="other",protocol="none",status="404"}"#, 2.0).await;
    assert!(!text.contains("secret") && !text.contains("nonsense"), "{text}");
    assert!(!text.contains(&DEVICE_A.to_string()), "{text}");
}

#[tokio::test]
async fn metrics_say_how_they_are_to_be_read() {
    let rig = Rig::memory();
    let answer = rig.get("metrics").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert_eq!(rig.client.post(rig.url("metrics")).send().await.unwrap().status(), 405);
}
