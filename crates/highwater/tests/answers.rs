//! Answers that are lost, cut anywhere, or come twice; requests that are cut, repeated or arrive
//! late: the next sync carries on, and nothing is stored twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "tests write files as any program would")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{World, assert_same, fill, insert};
use highwater::{Action, Builder, Database};

/// What the proxy does to each exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The answer ends after so many bytes.
    CutAnswer(usize),
    /// The request ends after so many bytes.
    CutRequest(usize),
    /// The server gets the request twice; the client gets the first answer or the second.
    Twice {
        answer: usize,
    },
}

/// A proxy between client and server, for HTTP/1.1 with one connection for each exchange.
#[derive(Debug, Clone)]
struct Proxy {
    addr: SocketAddr,
    fault: Arc<Mutex<Fault>>,
    /// The last POST, as it was, and the size of the last answer.
    last: Arc<Mutex<(Vec<u8>, usize)>>,
}

impl Proxy {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            addr: listener.local_addr().unwrap(),
            fault: Arc::new(Mutex::new(Fault::None)),
            last: Arc::default(),
        };
        let handler = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (handler, client) = (handler.clone(), client.unwrap());
                std::thread::spawn(move || handler.exchange(client, server));
            }
        });
        proxy
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn answer_size(&self) -> usize {
        self.last.lock().unwrap().1
    }

    fn request(&self) -> Vec<u8> {
        self.last.lock().unwrap().0.clone()
    }

    fn exchange(&self, mut client: TcpStream, server: SocketAddr) {
        let Some(request) = message(&mut client, true) else { return };
        let fault = *self.fault.lock().unwrap();
        let answer = match fault {
            Fault::CutRequest(at) => {
                let mut upstream = TcpStream::connect(server).unwrap();
                let _ = upstream.write_all(&request[..at.min(request.len())]);
                let _ = upstream.shutdown(Shutdown::Both);
                return;
            }
            Fault::Twice { answer } => {
                let answers = [deliver(server, &request), deliver(server, &request)];
                answers[answer].clone()
            }
            _ => deliver(server, &request),
        };
        if request.starts_with(b"POST") {
            *self.last.lock().unwrap() = (request, answer.len());
        } else {
            self.last.lock().unwrap().1 = answer.len();
        }
        let end = if let Fault::CutAnswer(at) = fault { at.min(answer.len()) } else { answer.len() };
        let _ = client.write_all(&answer[..end]);
        let _ = client.shutdown(Shutdown::Both);
    }
}

/// Sends a request as it is, and returns the whole answer.
fn deliver(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut upstream = TcpStream::connect(server).unwrap();
    upstream.write_all(request).unwrap();
    message(&mut upstream, false).unwrap()
}

/// Reads one message: its head, and the body that the head announces.
fn message(stream: &mut TcpStream, is_request: bool) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        if let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let body = &bytes[head + 4..];
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let whole = match length {
                Some(length) => body.len() >= length.trim().parse().unwrap(),
                None if text.contains("transfer-encoding: chunked") => body.ends_with(b"0\r\n\r\n"),
                None => is_request || text.contains("content-length") || body.is_empty(),
            };
            if whole {
                return Some(bytes);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return (!is_request && !bytes.is_empty()).then_some(bytes),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

struct Fixture {
    world: World,
    proxy: Proxy,
}

impl Fixture {
    fn new() -> Self {
        let world = World::in_memory(|_| ());
        let url = world.url("app");
        let server = url["http://".len()..].split('/').next().unwrap().parse().unwrap();
        Self { world, proxy: Proxy::start(server) }
    }

    /// A copy that syncs through the proxy.
    fn open(&self, file: &str) -> Database {
        self.builder(file).open().unwrap()
    }

    fn builder(&self, file: &str) -> Builder {
        Builder::new(self.world.path(file)).remote(format!("http://{}/app", self.proxy.addr))
    }

    /// How many pushes the server has accepted.
    fn pushes(&self) -> usize {
        let remote = highwater::RemoteDatabase::new(&self.world.url("app"), None).unwrap();
        usize::try_from(remote.info_blocking().unwrap().txid).unwrap()
    }

    /// Syncs with a fault and without a retry; whatever comes of it, the proxy is sound again
    /// afterwards.
    fn sync_with(&self, db: &Database, fault: Fault) -> bool {
        let file = db.path().file_name().unwrap().to_str().unwrap();
        let once = self.builder(file).timeout(Duration::ZERO).open().unwrap();
        self.proxy.set(fault);
        let result = once.sync_blocking();
        self.proxy.set(Fault::None);
        result.is_ok()
    }
}

#[test]
fn the_answer_to_a_push_may_be_cut_at_every_byte() {
    let fixture = Fixture::new();
    let db = fixture.open("app.db");
    let connection = fill(&db, 20);
    db.sync_blocking().unwrap();
    insert(&connection, 1);
    db.sync_blocking().unwrap();
    let size = fixture.proxy.answer_size();
    assert!(size > 200);
    let mut pushes = fixture.pushes();
    let mut lost = 0;
    for at in 0..=size {
        for written in [false, true] {
            connection.execute("UPDATE t SET text = ?1 WHERE id = 1", [format!("{at} {written}")]).unwrap();
            lost += usize::from(!fixture.sync_with(&db, Fault::CutAnswer(at)));
            pushes += 1;
            assert_eq!(fixture.pushes(), pushes, "the push itself had arrived");
            if written {
                connection.execute("UPDATE t SET text = ?1 WHERE id = 2", [at.to_string()]).unwrap();
                pushes += 1;
            }
            let outcome = db.sync_blocking().unwrap();
            let expected = if written { Action::Pushed } else { Action::UpToDate };
            assert_eq!(outcome.action, expected, "cut at {at} of {size}");
            assert_eq!(outcome.pushed.frames, u64::from(written), "cut at {at}: no frame is sent twice");
            assert_eq!(fixture.pushes(), pushes, "cut at {at}: nothing is stored twice");
        }
    }
    assert!(lost > size, "{lost} answers were lost");
    assert_same(db.path(), &fixture.world.restored("app"));
}

#[test]
fn the_answer_to_a_pull_may_be_cut_at_every_byte() {
    let fixture = Fixture::new();
    let (writer, reader) = (fixture.open("writer.db"), fixture.open("reader.db"));
    let connection = fill(&writer, 20);
    writer.sync_blocking().unwrap();
    reader.sync_blocking().unwrap();
    insert(&connection, 1);
    writer.sync_blocking().unwrap();
    reader.sync_blocking().unwrap();
    let size = fixture.proxy.answer_size();
    let pushes = fixture.pushes();
    for at in 0..=size {
        connection.execute("UPDATE t SET text = ?1 WHERE id = 1", [at.to_string()]).unwrap();
        writer.sync_blocking().unwrap();
        fixture.sync_with(&reader, Fault::CutAnswer(at));
        let outcome = reader.sync_blocking().unwrap();
        assert!(matches!(outcome.action, Action::Pulled | Action::UpToDate), "cut at {at}: {outcome:?}");
        assert_eq!(outcome.pushed.frames, 0, "cut at {at}");
        if at % 50 == 0 {
            assert_same(writer.path(), reader.path());
        }
    }
    assert_same(writer.path(), reader.path());
    assert_eq!(fixture.pushes(), pushes + size + 1);
}

#[test]
fn a_first_copy_may_be_cut_at_every_byte() {
    let fixture = Fixture::new();
    let writer = fixture.open("writer.db");
    fill(&writer, 20);
    writer.sync_blocking().unwrap();
    fixture.open("first.db").sync_blocking().unwrap();
    let size = fixture.proxy.answer_size();
    for at in 0..size {
        let copy = fixture.open(&format!("copy-{at}.db"));
        assert!(!fixture.sync_with(&copy, Fault::CutAnswer(at)), "cut at {at} of {size}");
        assert!(!copy.path().exists(), "nothing half is published");
        assert_eq!(copy.sync_blocking().unwrap().action, Action::Bootstrapped, "cut at {at}");
        if at % 50 == 0 {
            assert_same(writer.path(), copy.path());
        }
    }
    let left: Vec<_> = std::fs::read_dir(fixture.world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".tmp-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_request_that_is_cut_anywhere_stores_nothing() {
    let fixture = Fixture::new();
    let db = fixture.open("app.db");
    let connection = fill(&db, 20);
    db.sync_blocking().unwrap();
    insert(&connection, 1);
    db.sync_blocking().unwrap();
    let size = fixture.proxy.request().len();
    let mut pushes = fixture.pushes();
    for at in (0..size).step_by(7) {
        insert(&connection, 1);
        assert!(!fixture.sync_with(&db, Fault::CutRequest(at)), "cut at {at} of {size}");
        assert_eq!(fixture.pushes(), pushes, "cut at {at}");
        assert_eq!(db.sync_blocking().unwrap().action, Action::Pushed, "cut at {at}");
        pushes += 1;
    }
    assert_same(db.path(), &fixture.world.restored("app"));
}

#[test]
fn a_request_that_comes_twice_or_late_is_stored_once() {
    let fixture = Fixture::new();
    let db = fixture.open("app.db");
    let connection = fill(&db, 20);
    for (number, answer) in [0, 1, 0, 1].into_iter().enumerate() {
        insert(&connection, 1);
        assert!(fixture.sync_with(&db, Fault::Twice { answer }), "round {number}");
        assert_eq!(fixture.pushes(), number + 1);
        assert_eq!(db.sync_blocking().unwrap().action, Action::UpToDate);
    }
    // Every push once more, long after others came.
    let mut requests = Vec::new();
    for _ in 0..3 {
        insert(&connection, 1);
        db.sync_blocking().unwrap();
        requests.push(fixture.proxy.request());
    }
    let server = fixture.world.url("app")["http://".len()..].split('/').next().unwrap().parse().unwrap();
    for request in &requests {
        deliver(server, request);
    }
    assert_eq!(fixture.pushes(), 7);
    assert_eq!(db.sync_blocking().unwrap().action, Action::UpToDate);
    assert_same(db.path(), &fixture.world.restored("app"));
}

#[test]
fn a_request_that_never_left_in_time_is_no_conflict_when_it_arrives_after_all() {
    let fixture = Fixture::new();
    let db = fixture.open("app.db");
    let connection = fill(&db, 20);
    db.sync_blocking().unwrap();
    insert(&connection, 1);
    // The server gets it, the client does not know.
    assert!(!fixture.sync_with(&db, Fault::CutAnswer(0)));
    for round in 0..3 {
        insert(&connection, 1);
        assert!(!fixture.sync_with(&db, Fault::CutAnswer(0)), "round {round}");
    }
    let outcome = db.sync_blocking().unwrap();
    assert!(matches!(outcome.action, Action::Pushed | Action::UpToDate), "{outcome:?}");
    assert_same(db.path(), &fixture.world.restored("app"));
}
