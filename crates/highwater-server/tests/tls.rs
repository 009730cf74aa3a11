//! HTTPS with a real client: the certificate, a new one while connections are open, and one that
//! cannot be used.
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

use std::path::Path;
use std::time::{Duration, Instant};

use common::{DEVICE_A, Image, sync};
use highwater_server::{Config, Embedded, Error, Limits, StoreUrl, TlsFiles};
use reqwest::{Certificate, Client, Version};

/// A self-signed certificate for this machine, as PEM, and its key.
fn certificate() -> (String, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn install(folder: &Path, (cert, key): &(String, String)) {
    std::fs::write(folder.join("cert.pem"), cert).unwrap();
    std::fs::write(folder.join("key.pem"), key).unwrap();
}

fn files(folder: &Path) -> TlsFiles {
    let check_every = Duration::from_millis(50);
    TlsFiles { check_every, ..TlsFiles::new(folder.join("cert.pem"), folder.join("key.pem")) }
}

fn start(folder: &Path, limits: Limits) -> Embedded {
    let config = Config { store: StoreUrl::Memory, tls: Some(files(folder)), limits, ..Config::default() };
    Embedded::start(config, ([127, 0, 0, 1], 0).into()).unwrap()
}

/// A client that trusts this certificate and no other.
fn client(cert: &str) -> Client {
    let cert = Certificate::from_pem(cert.as_bytes()).unwrap();
    Client::builder().tls_certs_only([cert]).timeout(Duration::from_secs(10)).build().unwrap()
}

async fn healthy(client: &Client, server: &Embedded) -> bool {
    client.get(format!("{}/healthz", server.url())).send().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_sync_over_https_with_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let pair = certificate();
    install(folder.path(), &pair);
    let server = start(folder.path(), Limits::default());
    let client = client(&pair.0);
    let image = Image::new(4096, 5000, 1);
    let url = format!("{}/db/v1/sync", server.url());
    assert!(url.starts_with("https://"));
    let pushed = sync(&client, &url, DEVICE_A, None, image.body(None)).await;
    assert_eq!(pushed.outcome, "pushed");
    let copy = client.get(format!("{}/db/v1/snapshot", server.url())).send().await.unwrap();
    assert_eq!(copy.version(), Version::HTTP_2);
    assert_eq!(Image::empty().apply(&copy.bytes().await.unwrap()), image);
    let old = reqwest::get(server.url().replace("https", "http")).await;
    assert!(old.is_err(), "plain HTTP is not answered");
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_up_and_open_connections_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (certificate(), certificate());
    install(folder.path(), &first);
    let server = start(folder.path(), Limits::default());
    let (before, after) = (client(&first.0), client(&second.0));
    assert!(healthy(&before, &server).await);
    assert!(!healthy(&after, &server).await);
    install(folder.path(), &second);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !healthy(&after, &server).await {
        assert!(Instant::now() < deadline, "the new certificate is not taken up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(healthy(&before, &server).await, "its connection goes on");
    assert!(!healthy(&client(&first.0), &server).await, "a new connection gets the new certificate");
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_pair_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (certificate(), certificate());
    install(folder.path(), &first);
    let server = start(folder.path(), Limits::default());
    for broken in [
        (second.0.clone(), first.1.clone()),
        (String::new(), second.1.clone()),
        (second.0.clone(), "no key".to_owned()),
    ] {
        install(folder.path(), &broken);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(healthy(&client(&first.0), &server).await);
    }
    std::fs::remove_file(folder.path().join("cert.pem")).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(healthy(&client(&first.0), &server).await);
    install(folder.path(), &second);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(healthy(&client(&second.0), &server).await, "a whole pair is still taken up afterwards");
    server.stop().unwrap();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (certificate(), certificate());
    let fault = || match files(folder.path()).check() {
        Err(Error::Tls { path, what }) => (path.rsplit('/').next().unwrap().to_owned(), what),
        other => panic!("{other:?}"),
    };
    assert_eq!(fault().0, "cert.pem");
    install(folder.path(), &(first.0.clone(), second.1.clone()));
    assert_eq!(fault().0, "key.pem");
    install(folder.path(), &(second.1.clone(), second.1.clone()));
    assert_eq!(fault(), ("cert.pem".to_owned(), "there is no certificate in it".to_owned()));
    install(folder.path(), &first);
    files(folder.path()).check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_never_ends_holds_nobody_up() {
    use tokio::io::AsyncReadExt;
    let folder = tempfile::tempdir().unwrap();
    let pair = certificate();
    install(folder.path(), &pair);
    let limits = Limits { handshake_timeout: Duration::from_secs(1), ..Limits::default() };
    let server = start(folder.path(), limits);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(server.addr()).await.unwrap());
    }
    let began = Instant::now();
    assert!(healthy(&client(&pair.0), &server).await);
    assert!(began.elapsed() < Duration::from_millis(900), "it waited for the silent ones");
    for stream in &mut silent {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0; 16])).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "a silent connection is closed");
    }
    server.stop().unwrap();
}
