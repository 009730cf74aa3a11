//! What a server with keys admits, and every way around them that was thought of.
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

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{DEVICE_A, DEVICE_B, Image, Rig};
use highwater_auth::{Access, Claims, KeyPair, Timestamp};
use highwater_server::{AuthConfig, Config, Embedded, Error, StoreUrl};
use highwater_wire::{ErrorBody, ErrorCode};
use proptest::prelude::*;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode};

/// A server with a key, and what its operator has.
struct Guarded {
    rig: Rig,
    pair: KeyPair,
    folder: tempfile::TempDir,
}

fn claims(databases: &[&str], access: &[Access]) -> Claims {
    let mut claims = Claims::new("alice", Timestamp::now());
    claims.expires = Some(Timestamp::now().after(Duration::from_secs(3600)));
    claims.grant.databases = databases.iter().map(|pattern| pattern.parse().unwrap()).collect();
    claims.grant.access = access.iter().copied().collect();
    claims
}

impl Guarded {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut AuthConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate().unwrap();
        let keys = folder.path().join("keys.pem");
        std::fs::write(&keys, &pair.public_text).unwrap();
        let mut auth = AuthConfig { keys: Some(keys), ..AuthConfig::default() };
        change(&mut auth);
        let config = Config { store: StoreUrl::Memory, auth, ..Config::default() };
        let server = Embedded::start(config.clone(), ([127, 0, 0, 1], 0).into()).unwrap();
        let rig = Rig { server: Some(server), config, client: Client::new(), folder: None };
        Self { rig, pair, folder }
    }

    fn token(&self, databases: &[&str], access: &[Access]) -> String {
        self.sign(&claims(databases, access))
    }

    fn sign(&self, claims: &Claims) -> String {
        self.pair.private.sign(claims).unwrap().reveal().to_owned()
    }

    /// From here on everything is asked for with this token.
    fn use_token(&mut self, token: &str) {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        value.set_sensitive(true);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        self.rig.client = Client::builder().default_headers(headers).build().unwrap();
    }

    /// Reading the database `db` with a header as it is given.
    async fn ask(&self, authorization: &[u8]) -> Response {
        let value = HeaderValue::from_bytes(authorization).unwrap();
        Client::new().get(self.rig.url("db/v1")).header(AUTHORIZATION, value).send().await.unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

async fn refused(response: Response, code: ErrorCode) -> ErrorBody {
    let status = response.status();
    let challenged = response.headers().contains_key(WWW_AUTHENTICATE);
    let body: ErrorBody = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!((body.code, status.as_u16()), (code, code.status()), "{}", body.message);
    assert_eq!(challenged, code == ErrorCode::Unauthenticated);
    body
}

fn image() -> Image {
    Image::new(4096, 3, 7)
}

/// What a libSQL client would push to make the database that `image` is.
fn frames(image: &Image) -> Vec<u8> {
    let count = image.pages.len() as u32;
    let frame = |(at, page): (usize, &Vec<u8>)| {
        let number = at as u32 + 1;
        let commit = if number == count { count } else { 0 };
        [&number.to_be_bytes()[..], &commit.to_be_bytes(), &[0; 16], page].concat()
    };
    image.pages.iter().enumerate().flat_map(frame).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_but_the_servers_health_is_told() {
    let guarded = Guarded::start();
    for header in ["", "Bearer", "Bearer ", "bearer", "Bearer    "] {
        let body = refused(guarded.ask(header.as_bytes()).await, ErrorCode::Unauthenticated).await;
        assert!(body.message.contains("asks for a token"), "{header:?}: {}", body.message);
    }
    for header in ["Basic YTpi", "Token x", "x", "Bearerx", "Bearer\tx", "Bearer a b", "Bearer a, Bearer b"] {
        refused(guarded.ask(header.as_bytes()).await, ErrorCode::Unauthenticated).await;
    }
    for path in [
        "db/v1",
        "db/v1/log",
        "db/v1/sums",
        "db/v1/snapshot",
        "db/info",
        "db/export/1",
        "db/sync/1/1/9",
        "metrics",
        "admin/v1/databases",
        "admin/v1/stats",
    ] {
        refused(guarded.rig.get(path).await, ErrorCode::Unauthenticated).await;
    }
    for path in ["db/v1/sync", "db/v1/locate", "db/sync/1/1/2"] {
        let response =
            guarded.rig.client.post(guarded.rig.url(path)).body(vec![0; 4120]).send().await.unwrap();
        refused(response, ErrorCode::Unauthenticated).await;
    }
    for path in ["healthz", "version"] {
        assert_eq!(guarded.rig.get(path).await.status(), 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_right_opens_nothing_and_is_not_repeated() {
    let mut guarded = Guarded::start();
    guarded.use_token(&guarded.token(&["*"], &[Access::Create]));
    guarded.rig.sync("db", DEVICE_A, None, image().body(None)).await.position();
    let good = claims(&["*"], &[Access::Read]);
    let now = Timestamp::now();
    assert_eq!(guarded.ask(format!("Bearer {}", guarded.sign(&good)).as_bytes()).await.status(), 200);
    let other = KeyPair::generate().unwrap().private.sign(&good).unwrap();
    let part = |token: &str, at: usize| token.split('.').nth(at).unwrap().to_owned();
    let (read, all) = (guarded.sign(&good), guarded.sign(&claims(&["*"], &[Access::Admin])));
    let ago = |seconds| Timestamp(now.0 - seconds);
    let later = now.after(Duration::from_secs(600));
    let tokens = [
        ("another key", other.reveal().to_owned()),
        ("expired", guarded.sign(&Claims { expires: Some(ago(60)), ..good.clone() })),
        ("not yet valid", guarded.sign(&Claims { not_before: Some(later), ..good.clone() })),
        ("made in the future", guarded.sign(&Claims { issued: Some(later), ..good.clone() })),
        ("another audience", guarded.sign(&Claims { audience: vec!["x".to_owned()], ..good.clone() })),
        ("other claims", format!("{}.{}.{}", part(&read, 0), part(&all, 1), part(&read, 2))),
        ("no signature", format!("{}.{}.", part(&read, 0), part(&read, 1))),
        ("two parts", format!("{}.{}", part(&read, 0), part(&read, 1))),
        ("alg none", format!("eyJhbGciOiJub25lIn0.{}.", part(&read, 1))),
        ("alg none, signed", format!("eyJhbGciOiJub25lIn0.{}.{}", part(&read, 1), part(&read, 2))),
        ("cut", read[..read.len() - 4].to_owned()),
        ("twice", format!("{read}{read}")),
        ("huge", format!("{}.{}.{}", part(&read, 0), "A".repeat(9000), part(&read, 2))),
    ];
    for (what, token) in tokens {
        let body =
            refused(guarded.ask(format!("Bearer {token}").as_bytes()).await, ErrorCode::Unauthenticated)
                .await;
        for part in token.split('.').filter(|part| part.len() > 8) {
            assert!(!body.message.contains(part), "{what}: {}", body.message);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_key_is_no_secret_to_sign_with() {
    use base64::Engine;
    let guarded = Guarded::start();
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let payload = encode(&serde_json::to_vec(&claims(&["*"], &[Access::Read])).unwrap());
    let message = format!("{}.{payload}", encode(br#"{"alg":"HS256","typ":"JWT"}"#));
    let text = guarded.pair.public_text.as_bytes();
    for secret in [text, text.trim_ascii(), b""] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let token = format!("{message}.{}", encode(aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref()));
        refused(guarded.ask(format!("Bearer {token}").as_bytes()).await, ErrorCode::Unauthenticated).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_headers_and_bytes_that_are_no_text_are_refused() {
    let guarded = Guarded::start();
    let good = format!("Bearer {}", guarded.token(&["*"], &[Access::Read]));
    for second in [good.as_str(), "", "Bearer x"] {
        let request = Client::new().get(guarded.rig.url("db/v1"));
        let request = request.header(AUTHORIZATION, &good).header(AUTHORIZATION, second);
        refused(request.send().await.unwrap(), ErrorCode::Unauthenticated).await;
    }
    for bytes in [b"Bearer \xff\xfe".to_vec(), "Bearer ä.ö.ü".into(), [good.as_bytes(), b"\xc3\xa4"].concat()]
    {
        refused(guarded.ask(&bytes).await, ErrorCode::Unauthenticated).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_is_asked_for_must_be_named() {
    let guarded = Guarded::with(|auth| auth.audience = Some("here".to_owned()));
    let named = |names: &[&str]| {
        let audience = names.iter().map(|name| (*name).to_owned()).collect();
        guarded.sign(&Claims { audience, ..claims(&["*"], &[Access::Read]) })
    };
    for names in [&[][..], &["there"], &["HERE"]] {
        let body = refused(
            guarded.ask(format!("Bearer {}", named(names)).as_bytes()).await,
            ErrorCode::Unauthenticated,
        )
        .await;
        assert!(body.message.contains("audience"), "{}", body.message);
    }
    let response = guarded.ask(format!("bearer {}", named(&["there", "here"])).as_bytes()).await;
    assert_eq!(response.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_pulls_by_both_protocols_and_pushes_by_neither() {
    let mut guarded = Guarded::start();
    guarded.use_token(&guarded.token(&["team/*"], &[Access::Create]));
    let first = image();
    let base = guarded.rig.sync("team/app", DEVICE_A, None, first.body(None)).await.position();
    guarded.use_token(&guarded.token(&["team/*"], &[Access::Read]));
    let pulled = guarded.rig.sync("team/app", DEVICE_B, None, Vec::new()).await;
    assert_eq!((pulled.outcome.as_str(), Image::empty().apply(&pulled.body)), ("pulled", first.clone()));
    for path in ["v1", "v1/log", "v1/sums", "v1/snapshot", "info", "export/1", "sync/1/1/129"] {
        assert_eq!(guarded.rig.get(&format!("team/app/{path}")).await.status(), 200, "{path}");
    }
    let push =
        guarded.rig.sync("team/app", DEVICE_B, Some(base), first.with(&[(2, 9)]).body(Some(&first))).await;
    assert_eq!(push.status, StatusCode::FORBIDDEN);
    assert_eq!(push.error().message, "the token of alice allows read on team/app; this needs write");
    // Of unknown length, nothing at all is something.
    let chunked =
        reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(Vec::<u8>::new())]));
    let chunked = guarded.rig.client.post(guarded.rig.url("team/app/v1/sync")).body(chunked);
    refused(chunked.send().await.unwrap(), ErrorCode::Forbidden).await;
    let libsql = guarded.rig.client.post(guarded.rig.url("team/app/sync/1/4/7")).body(frames(&first));
    refused(libsql.send().await.unwrap(), ErrorCode::Forbidden).await;
    assert_eq!(guarded.rig.snapshot("team/app/v1/snapshot").await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn making_a_database_needs_create_by_both_protocols() {
    let mut guarded = Guarded::start();
    guarded.use_token(&guarded.token(&["team/*"], &[Access::Write]));
    let first = image();
    let push = guarded.rig.sync("team/new", DEVICE_A, None, first.body(None)).await;
    assert_eq!(push.error().code, ErrorCode::Forbidden);
    assert!(push.error().message.contains("create"), "{push:?}");
    let libsql = guarded.rig.client.post(guarded.rig.url("team/new/sync/1/1/4")).body(frames(&first));
    refused(libsql.send().await.unwrap(), ErrorCode::Forbidden).await;
    refused(guarded.rig.get("team/new/v1").await, ErrorCode::UnknownDatabase).await;
    guarded.use_token(&guarded.token(&["team/*"], &[Access::Create]));
    let base = guarded.rig.sync("team/new", DEVICE_A, None, first.body(None)).await.position();
    guarded.use_token(&guarded.token(&["team/*"], &[Access::Write]));
    let next = first.with(&[(2, 9)]);
    assert_eq!(
        guarded.rig.sync("team/new", DEVICE_A, Some(base), next.body(Some(&first))).await.outcome,
        "pushed"
    );
    // The first push of a device that has no answer yet is recognised, and makes nothing.
    assert_eq!(guarded.rig.sync("team/new", DEVICE_A, None, next.body(None)).await.outcome, "up-to-date");
}

#[tokio::test(flavor = "multi_thread")]
async fn administering_and_using_databases_are_apart() {
    let mut guarded = Guarded::start();
    guarded.use_token(&guarded.token(&["*"], &[Access::Create]));
    refused(guarded.rig.get("metrics").await, ErrorCode::Forbidden).await;
    refused(guarded.rig.get("admin/v1/databases").await, ErrorCode::Forbidden).await;
    guarded.use_token(&guarded.token(&["*"], &[Access::Admin]));
    assert_eq!(guarded.rig.get("metrics").await.status(), 200);
    assert_eq!(guarded.rig.get("admin/v1/databases").await.status(), 200);
    refused(guarded.rig.get("db/v1").await, ErrorCode::Forbidden).await;
    guarded.use_token(&guarded.token(&[], &[]));
    let body = refused(guarded.rig.get("db/v1").await, ErrorCode::Forbidden).await;
    assert!(body.message.contains("is not for db"), "{}", body.message);
}

/// One request as it is, and the whole answer.
fn raw(rig: &Rig, request: &str) -> String {
    let address = rig.server.as_ref().unwrap().addr();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trick_with_a_path_reaches_another_tenant() {
    let mut guarded = Guarded::start();
    guarded.use_token(&guarded.token(&["*"], &[Access::Create]));
    let secret = image();
    for name in ["other/app", "teamx/app", "team", "team-x", "app", "other"] {
        guarded.rig.sync(name, DEVICE_A, None, secret.body(None)).await.position();
    }
    let own = guarded.token(&["team/*"], &[Access::Create]);
    let body = String::from_utf8_lossy(&[b'x'; 32]).into_owned();
    let names = [
        "other/app",
        "teamx/app",
        "team",
        "team-x",
        "TEAM/app",
        "Team/app",
        "team/../other/app",
        "team/app/../../other/app",
        "team/./../other",
        "team/%2e%2e/other/app",
        "team/%2E%2E/other/app",
        "team/..%2fother/app",
        "team%2f..%2fother/app",
        "team//../other/app",
        "//other/app",
        "team/..;/other/app",
        "team\\..\\other",
        "team/app/../../../other",
        "other/app.",
        "other./app",
        "team/%00/../other",
        "./other/app",
        ".",
        "..",
        "team/*/../other",
        "team/app?/../../other",
        "team/app#/other",
        "http://127.0.0.1/other/app",
        "team/v1/../../other/app",
        "other/app/v1/../../team/app",
        "team/app/v1/sync/../../../other",
    ];
    for name in names {
        for (method, rest) in [
            ("GET", "v1"),
            ("GET", "v1/log"),
            ("GET", "v1/snapshot"),
            ("POST", "v1/sync"),
            ("POST", "v1/locate"),
            ("GET", "info"),
            ("GET", "export/1"),
            ("GET", "sync/1/1/129"),
            ("POST", "sync/1/4/5"),
            ("DELETE", "v1"),
        ] {
            let payload = if method == "POST" { body.as_str() } else { "" };
            let slash = if name.starts_with("http:") { "" } else { "/" };
            let answer = raw(
                &guarded.rig,
                &format!(
                    "{method} {slash}{name}/{rest} HTTP/1.1\r\nHost: other\r\nAuthorization: Bearer {own}\r\nX-Original-Url: /other/app/v1\r\n\
                     Connection: close\r\nContent-Length: {}\r\n\r\n{payload}",
                    payload.len()
                ),
            );
            let status: u16 = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
            // `?` ends the path: that one means the own database, which does not exist.
            assert!(matches!(status, 400 | 403 | 404 | 405), "{method} {name}/{rest}: {answer}");
            assert!(!answer.contains("SQLite format") && !answer.contains("\"head\""), "{answer}");
        }
    }
    for name in ["other/app", "teamx/app", "team", "team-x", "app", "other"] {
        assert_eq!(guarded.rig.snapshot(&format!("{name}/v1/snapshot")).await, secret);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_tell_whether_a_database_exists() {
    let mut guarded = Guarded::start();
    guarded.use_token(&guarded.token(&["*"], &[Access::Create]));
    guarded.rig.sync("other/here", DEVICE_A, None, image().body(None)).await.position();
    guarded.use_token(&guarded.token(&["team/*"], &[Access::Create]));
    for rest in ["v1", "v1/log", "v1/snapshot?at=9/9", "info", "export/1", "sync/1/1/9"] {
        let mut answers = Vec::new();
        for name in ["here", "gone"] {
            let response = guarded.rig.get(&format!("other/{name}/{rest}")).await;
            let body = refused(response, ErrorCode::Forbidden).await;
            answers.push(body.message.replace(name, "NAME"));
        }
        assert_eq!(answers[0], answers[1]);
    }
}

/// Waits until an answer has this status: files are looked at once a second.
async fn until(guarded: &Guarded, token: &str, status: u16) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = guarded.ask(format!("Bearer {token}").as_bytes()).await.status();
        if now == status {
            return;
        }
        assert!(Instant::now() < deadline, "it stays {now}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_revoked_by_name_or_by_subject_while_the_server_runs() {
    let mut list = PathBuf::new();
    let guarded = Guarded::with(|auth| {
        list = auth.keys.clone().unwrap().with_file_name("revoked");
        auth.revoked = Some(list.clone());
    });
    let (one, two) = (claims(&["*"], &[Access::Read]), claims(&["*"], &[Access::Read]));
    let bob = guarded.sign(&Claims { subject: Some("bob".to_owned()), ..claims(&["*"], &[Access::Read]) });
    let (token, other) = (guarded.sign(&one), guarded.sign(&two));
    until(&guarded, &token, 404).await;
    std::fs::write(&list, format!("# lost\n{}\n", one.id.unwrap())).unwrap();
    until(&guarded, &token, 401).await;
    let body =
        refused(guarded.ask(format!("Bearer {token}").as_bytes()).await, ErrorCode::Unauthenticated).await;
    assert!(body.message.contains("revoked"), "{}", body.message);
    until(&guarded, &other, 404).await;
    std::fs::write(&list, "sub:bob\n").unwrap();
    until(&guarded, &bob, 401).await;
    until(&guarded, &token, 404).await;
    // A list that is gone is not an empty list.
    std::fs::remove_file(&list).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(guarded.ask(format!("Bearer {bob}").as_bytes()).await.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_while_the_server_runs_and_broken_ones_change_nothing() {
    let guarded = Guarded::start();
    let new = KeyPair::generate().unwrap();
    let old_token = guarded.token(&["*"], &[Access::Read]);
    let new_token = new.private.sign(&claims(&["*"], &[Access::Read])).unwrap().reveal().to_owned();
    until(&guarded, &new_token, 401).await;
    std::fs::write(guarded.file("keys.pem"), format!("{}{}", guarded.pair.public_text, new.public_text))
        .unwrap();
    until(&guarded, &new_token, 404).await;
    until(&guarded, &old_token, 404).await;
    std::fs::write(guarded.file("keys.pem"), "nothing that is a key").unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    until(&guarded, &new_token, 404).await;
    std::fs::write(guarded.file("keys.pem"), &new.public_text).unwrap();
    until(&guarded, &old_token, 401).await;
    until(&guarded, &new_token, 404).await;
}

#[test]
fn a_server_without_keys_is_not_opened_to_other_machines_by_accident() {
    let start = |auth: AuthConfig| {
        let config = Config { store: StoreUrl::Memory, auth, ..Config::default() };
        Embedded::start(config, ([0, 0, 0, 0], 0).into())
    };
    assert!(matches!(start(AuthConfig::default()), Err(Error::Unprotected { .. })));
    start(AuthConfig { open_to_network: true, ..AuthConfig::default() }).unwrap().stop().unwrap();
    let guarded = Guarded::start();
    start(guarded.rig.config.auth.clone()).unwrap().stop().unwrap();
    let missing = AuthConfig { keys: Some(guarded.file("nowhere")), ..AuthConfig::default() };
    assert!(matches!(start(missing), Err(Error::Auth(_))));
}

/// A server for many small questions.
fn shared() -> &'static Guarded {
    static SHARED: OnceLock<Guarded> = OnceLock::new();
    SHARED.get_or_init(Guarded::start)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_random_is_admitted(bytes in proptest::collection::vec(any::<u8>(), 0..200), prefix in any::<bool>()) {
        let bytes: Vec<u8> = bytes.into_iter().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)).collect();
        let address = shared().rig.server.as_ref().unwrap().addr();
        let mut stream = TcpStream::connect(address).unwrap();
        let scheme: &[u8] = if prefix { b"Bearer " } else { b"" };
        let head = b"GET /db/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: ";
        stream.write_all(&[head, scheme, &bytes, b"\r\n\r\n"].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        // Control characters are a request that cannot be read at all.
        prop_assert!(answer.starts_with(b"HTTP/1.1 401") || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    }
}
