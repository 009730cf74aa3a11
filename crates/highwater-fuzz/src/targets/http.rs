//! Requests to a server that has one database, in memory. An input is a request as text: a line with
//! method and path, lines with headers, an empty line, the body.

use axum::body::Body;
use axum::http::{Request, Response};
use highwater_ltx::{DeviceId, PageEncoding, Position};
use highwater_server::{Config, Server, StoreUrl};
use highwater_wire::{BASE, DEVICE, HEAD};
use tower::ServiceExt;

use crate::sample;
use crate::{both, seen};

/// A server with a database `app`, for one input.
pub(crate) struct Lab {
    runtime: tokio::runtime::Runtime,
    server: Server,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Option<Position>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The error's code; empty when there is none.
    pub(crate) fn code(&self) -> String {
        self.field("code")
    }

    /// The error's sentence.
    pub(crate) fn message(&self) -> String {
        self.field("message")
    }

    fn field(&self, name: &str) -> String {
        let json = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        json.get(name).and_then(|text| text.as_str()).unwrap_or_default().to_owned()
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = Config { store: StoreUrl::Memory, ..Config::default() };
        let server = runtime.block_on(Server::open(config)).unwrap();
        let lab = Self { runtime, server };
        let made = lab.sync(1, None, sample::push(&[], sample::base(), PageEncoding::Lz4));
        assert_eq!(made.status, 200, "{}", String::from_utf8_lossy(&made.body));
        lab
    }

    pub(crate) fn send(&self, request: Request<Body>) -> Answer {
        self.runtime.block_on(async {
            let Ok(response): Result<Response<Body>, _> = self.server.router().oneshot(request).await;
            let status = response.status().as_u16();
            let head = response.headers().get(HEAD).and_then(|text| text.to_str().ok()?.parse().ok());
            let body = axum::body::to_bytes(response.into_body(), 64 << 20).await;
            let body = body.map(|bytes| bytes.to_vec()).unwrap_or_default();
            assert!(status != 500, "an internal error: {}", String::from_utf8_lossy(&body));
            Answer { status, head, body }
        })
    }

    pub(crate) fn sync(&self, device: u128, base: Option<Position>, body: Vec<u8>) -> Answer {
        let mut request = Request::post("/app/v1/sync").header(DEVICE, DeviceId(device << 64).to_string());
        if let Some(base) = base {
            request = request.header(BASE, base.to_string());
        }
        self.send(request.body(Body::from(body)).unwrap())
    }
}

/// Any request.
#[must_use]
pub fn request(data: &[u8]) -> u64 {
    let end = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let head = String::from_utf8_lossy(&data[..end]);
    let body = data.get(end + 2..).unwrap_or_default();
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap_or_default().split_once(' ').unwrap_or(("GET", "/"));
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        request = request.header(name.trim(), value.trim());
    }
    let Ok(request) = request.body(Body::from(body.to_vec())) else { return 1 };
    let lab = Lab::new();
    let answer = lab.send(request);
    // The server goes on as before.
    let after = lab.send(Request::get("/app/v1").body(Body::empty()).unwrap());
    both(seen(format!("{} {}", word(answer.status), answer.code())), seen(after.status == 200))
}

/// A number in letters, for what is seen has no digits.
pub(crate) fn word(number: u16) -> String {
    number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
}

/// One request of each kind.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let (base, head) = (sample::base(), sample::head());
    let position = format!("1/{}/{}", base.len() / sample::SIZE, sample::state(base));
    let push = sample::push(base, head, PageEncoding::Lz4);
    let sync = format!(
        "POST /app/v1/sync\nhighwater-device: 0000000000000002000000000000000\nhighwater-base: {position}\n"
    );
    let other =
        "highwater-pending: 00000000000000000000000000000001\nhighwater-confirm: 1\nhighwater-policy: fail\n";
    let mut locate = b"HWLOCA01".to_vec();
    locate.extend_from_slice(&512_u32.to_be_bytes());
    locate.extend_from_slice(&((base.len() / sample::SIZE) as u32).to_be_bytes());
    locate.extend_from_slice(&[7; 16]);
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut add = |head: &str, body: &[u8]| all.push([head.as_bytes(), b"\n", body].concat());
    add(&sync, &push);
    add(&format!("{sync}{other}"), &push);
    add(
        "POST /new/v1/sync\nhighwater-device: 00000000000000020000000000000000\n",
        &sample::push(&[], head, PageEncoding::Literal),
    );
    add(&sync, b"");
    add("POST /app/v1/locate\n", &[locate.as_slice(), &[0]].concat());
    add("POST /app/v1/locate\n", &[locate.as_slice(), &[1], &[3; 160]].concat());
    add(
        "POST /app/v1/query\ncontent-type: application/json\n",
        br#"{"sql":"SELECT * FROM t WHERE id < ?","params":[5],"at":"1/3"}"#,
    );
    for path in [
        "",
        "/log?after=1/1&limit=5",
        "/snapshot",
        "/snapshot?at=1/2",
        "/sums",
        "/conflicts?all=1&limit=3",
        "/merges/2",
    ] {
        add(&format!("GET /app/v1{path}\nif-none-match: x\nrange: bytes=0-5\n"), b"");
    }
    for path in [
        "/healthz",
        "/readyz",
        "/version",
        "/metrics",
        "/admin/v1/databases",
        "/app/info",
        "/app/export/1",
        "/app/sync/1/1/3",
    ] {
        add(&format!("GET {path}\nauthorization: Bearer eyJ\n"), b"");
    }
    add("POST /admin/v1/databases\n", br#"{"name":"b"}"#);
    add("DELETE /admin/v1/databases/app\n", b"");
    let frame = [&[0, 0, 0, 1, 0, 0, 0, 3][..], &[0; 16], &base[..sample::SIZE]].concat();
    add("POST /lib/sync/1/1/2\n", &frame);
    add("POST /app/sync/1/9/11/b.1\n", &[frame.as_slice(), &frame].concat());
    all
}
