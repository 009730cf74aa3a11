//! No token reaches a log, however much is logged.
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

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use common::{DEVICE_A, Image, sync};
use highwater_auth::{Access, Claims, KeyPair, Timestamp};
use highwater_server::{AuthConfig, Config, Embedded, StoreUrl};
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tracing_subscriber::filter::LevelFilter;

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_logged_at_any_level() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let folder = tempfile::tempdir().unwrap();
    let (keys, revoked) = (folder.path().join("keys"), folder.path().join("revoked"));
    let pair = KeyPair::generate().unwrap();
    std::fs::write(&keys, pair.private.reveal()).unwrap();
    let mut claims = Claims::new("alice\n\u{1b}[31mforged line", Timestamp::now());
    claims.grant.databases.push("db".parse().unwrap());
    claims.grant.access.insert(Access::Create);
    std::fs::write(&revoked, "somebody\n").unwrap();
    let good = pair.private.sign(&claims).unwrap().reveal().to_owned();
    let bad = KeyPair::generate().unwrap().private.sign(&claims).unwrap().reveal().to_owned();
    let auth =
        AuthConfig { keys: Some(keys.clone()), revoked: Some(revoked.clone()), ..AuthConfig::default() };
    let config = Config { store: StoreUrl::Memory, auth, ..Config::default() };
    let server = Embedded::start(config, ([127, 0, 0, 1], 0).into()).unwrap();
    let url = |path: &str| format!("{}/{path}", server.url());
    for second in [false, true] {
        for token in [&good, &bad] {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            value.set_sensitive(true);
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            let client = Client::builder().default_headers(headers);
            let client = if second { client.http2_prior_knowledge() } else { client }.build().unwrap();
            sync(&client, &url("db/v1/sync"), DEVICE_A, None, Image::new(4096, 3, 1).body(None)).await;
            for path in ["db/v1", "other/v1", "db/info", "db/sync/1/1/9", "metrics", "nothing", "db/../x/v1"]
            {
                client.get(url(path)).send().await.unwrap();
            }
        }
    }
    // Somebody took the path for the place of the token.
    for path in [format!("/{good}/info"), format!("/db/{good}/v1"), format!("/db/sync/1/1/9/{good}")] {
        let mut stream = std::net::TcpStream::connect(server.addr()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Broken files are complained about without their content.
    std::fs::write(&keys, format!("{good}\n")).unwrap();
    std::fs::write(&revoked, format!("{good}\n")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    Client::new().get(url("db/v1")).bearer_auth(&good).send().await.unwrap();
    server.stop().unwrap();
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(
        log.contains("TRACE") && log.contains("forged line") && log.contains("cannot be used"),
        "too little is logged"
    );
    assert!(!log.contains('\u{1b}') && !log.contains("alice\n"), "a subject breaks a line");
    for secret in [&good, &bad] {
        for part in secret.split('.').skip(1) {
            let line = log.lines().find(|line| line.contains(part) || line.contains(&part[..20]));
            assert_eq!(line, None, "a token is logged");
        }
    }
    let key = pair.private.reveal().lines().nth(1).unwrap();
    assert!(!log.contains(key), "a key is logged");
}
