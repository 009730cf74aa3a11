//! What answers at the URL: nobody, somebody else, somebody slow.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use highwater::{Action, At, Database, Error, ErrorKind, RemoteDatabase};

use crate::common::{World, assert_same, fill, insert, rows};
use crate::support::{Fake, builder, says};

/// A database with a row, which syncs with `url`.
fn database(world: &World, url: &str) -> Database {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = world.path(&format!("local-{number}.db"));
    let database = builder(&path, url).timeout(Duration::from_millis(300)).open().unwrap();
    fill(&database, 1);
    database
}

#[test]
fn a_url_that_cannot_be_one_is_wrong_usage_with_an_example() {
    let world = World::new();
    for (url, reason) in [
        ("", "no scheme"),
        ("guestbook", "no scheme"),
        ("127.0.0.1:8080/app", "no scheme"),
        ("ftp://host/app", "http or https"),
        ("http://127.0.0.1:8080", "no database name"),
        ("http://127.0.0.1:8080/", "no database name"),
        ("http:///app", "no host"),
        ("http://host/my app", "white space"),
        ("http://me:secret@host/app", "token"),
        ("http://host/app?x=1", "query"),
    ] {
        let error = builder(&world.path("app.db"), url).open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        says(&error, &[&format!("{url:?}"), &reason, &"http://127.0.0.1:8080/guestbook"]);
    }
    // What only the network can find out: a port or a host that no address has.
    for url in ["http://host:99999/app", "http://[::1/app", "http://exa mple/app", "http://ho%zzst/app"] {
        let error = match builder(&world.path("app.db"), url).open() {
            Ok(database) => database.sync_blocking().unwrap_err(),
            Err(error) => error,
        };
        says(&error, &[&url]);
        assert_eq!(error.kind(), ErrorKind::Usage, "{url}: {error}");
    }
}

#[test]
fn nobody_there_is_offline_and_says_why() {
    let world = World::new();
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, reason) in [
        (format!("http://{refused}/app"), "refused"),
        ("http://no-such-host.invalid/app".to_owned(), ""),
        ("https://no-such-host.invalid:8443/team/app".to_owned(), ""),
    ] {
        let local = database(&world, &url);
        let before = rows(local.path());
        let began = Instant::now();
        for attempt in [Database::sync_blocking, Database::push_blocking, Database::pull_blocking] {
            let error = attempt(&local).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Offline, "{error}");
            let text = says(&error, &[&url, &reason, &"could not be reached", &"local work goes on"]);
            assert!(!text.contains("error sending request"), "the cause and not its wrapping: {text}");
        }
        let missing =
            builder(&world.path("missing.db"), &url).timeout(Duration::from_millis(300)).open().unwrap();
        assert_eq!(missing.clone_blocking().unwrap_err().kind(), ErrorKind::Offline);
        assert!(!missing.path().exists());
        let remote = RemoteDatabase::new(&url, None).unwrap();
        assert_eq!(remote.info_blocking().unwrap_err().kind(), ErrorKind::Offline);
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        assert_eq!(rows(local.path()), before);
    }
}

#[test]
fn https_against_a_plain_server_says_that_it_is_not_tls() {
    let world = World::new();
    let url = world.url("app").replace("http://", "https://");
    let local = database(&world, &url);
    let error = local.sync_blocking().unwrap_err();
    says(&error, &[&url, &"TLS", &"http://"]);
}

#[test]
fn a_name_that_the_server_does_not_have_is_named() {
    let world = World::new();
    let copy = builder(&world.path("copy.db"), &world.url("missing")).open().unwrap();
    let error = copy.clone_blocking().unwrap_err();
    says(&error, &[&world.url("missing"), &"there is no database", &"check the name", &"highwater sync"]);
    assert!(!copy.path().exists());
    let remote = RemoteDatabase::new(&world.url("missing"), None).unwrap();
    for error in [
        remote.info_blocking().unwrap_err(),
        remote.log_blocking(None, 10).unwrap_err(),
        remote.restore_blocking(&world.path("out.db"), At::Head, |_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, Error::UnknownDatabase { .. }), "{error}");
    }
    assert!(!world.path("out.db").exists());
    // A name that no server has.
    for name in ["Upper", "a/b/c/d/e", "v1", "team/ltx", "%2e%2e.", "a%20b"] {
        let local = database(&world, &world.url(name));
        let error = local.sync_blocking().unwrap_err();
        says(&error, &[&world.url(name), &"name"]);
    }
}

/// Every request of the client against a server that is not Highwater's.
fn against(fake: &Fake, words: &[&str]) {
    let world = World::new();
    let url = fake.url("app");
    let local = database(&world, &url);
    let before = rows(local.path());
    let never = builder(&world.path("new.db"), &url).timeout(Duration::from_millis(300)).open().unwrap();
    let blank = builder(&world.path("blank.db"), &url).timeout(Duration::from_millis(300)).open().unwrap();
    let _open = blank.connect().unwrap();
    // One that was synced with a real server, which has been replaced.
    let synced = world.open("synced.db");
    let connection = fill(&synced, 2);
    synced.sync_blocking().unwrap();
    let replaced =
        builder(synced.path(), &url).switch_remote(true).timeout(Duration::from_millis(300)).open().unwrap();
    insert(&connection, 1);
    let remote = RemoteDatabase::new(&url, None).unwrap();
    let errors = [
        local.sync_blocking().unwrap_err(),
        local.push_blocking().unwrap_err(),
        local.pull_blocking().unwrap_err(),
        never.clone_blocking().unwrap_err(),
        never.sync_blocking().unwrap_err(),
        blank.sync_blocking().unwrap_err(),
        replaced.sync_blocking().unwrap_err(),
        remote.info_blocking().unwrap_err(),
        remote.log_blocking(None, 5).unwrap_err(),
        remote.restore_blocking(&world.path("out.db"), At::Head, |_| ()).unwrap_err(),
    ];
    for error in errors {
        let text = says(&error, &[&url]);
        assert!(matches!(error, Error::NotHighwater { .. }), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is missing in: {text}");
        }
        assert!(text.contains("not a Highwater server") && text.contains("check the URL"), "{text}");
    }
    assert_eq!(rows(local.path()), before);
    assert!(!world.path("new.db").exists() && !world.path("out.db").exists());
    // It goes on with the real one.
    assert_eq!(synced.sync_blocking().unwrap().action, Action::Pushed);
    assert_same(synced.path(), &world.restored("app"));
}

#[test]
fn a_web_server_is_recognised_whatever_it_answers() {
    let html = "<!doctype html><title>Welcome to nginx!</title>";
    against(&Fake::answering("200 OK", "content-type: text/html\r\n", html), &[]);
    against(&Fake::answering("404 Not Found", "content-type: text/html\r\n", html), &["404"]);
    against(&Fake::answering("405 Method Not Allowed", "allow: GET\r\n", ""), &["405"]);
    against(&Fake::answering("403 Forbidden", "", "no"), &["403"]);
    against(&Fake::answering("200 OK", "content-type: application/json\r\n", "{}"), &[]);
    against(&Fake::answering("200 OK", "content-type: application/json\r\n", "[1,2]"), &[]);
    against(&Fake::answering("200 OK", "", ""), &[]);
    against(&Fake::answering("204 No Content", "", ""), &[]);
    against(
        &Fake::answering("404 Not Found", "content-type: application/json\r\n", r#"{"error":"not found"}"#),
        &["404"],
    );
    against(
        &Fake::answering(
            "404 Not Found",
            "content-type: application/json\r\n",
            r#"{"error":"Namespace `app` doesn't exist"}"#,
        ),
        &["404"],
    );
}

#[test]
fn an_answer_that_leads_elsewhere_names_the_place() {
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let fake = Fake::answering(status, "location: https://elsewhere.example/app/v1/sync\r\n", "moved");
        against(&fake, &[&status[..3], "https://elsewhere.example/app/v1/sync"]);
    }
}

#[test]
fn a_server_that_does_not_speak_http_is_recognised() {
    let world = World::new();
    for greeting in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "220 mail.example ESMTP\r\n",
        "\u{15}\u{3}\u{1}\0\u{2}\u{2}F",
        "HTTP/9.9 what\r\n\r\n",
        "-ERR unknown command\r\n",
    ] {
        let fake = Fake::start(move |_, stream| drop(stream.write_all(greeting.as_bytes())));
        let local = database(&world, &fake.url("app"));
        let error = local.sync_blocking().unwrap_err();
        says(&error, &[&fake.url("app"), &"not a Highwater server", &"HTTP", &"check the URL"]);
    }
}

#[test]
fn a_proxy_whose_server_is_away_is_offline() {
    let world = World::new();
    for status in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        let fake = Fake::answering(status, "content-type: text/html\r\n", "<h1>sorry</h1>");
        let local = database(&world, &fake.url("app"));
        let error = local.sync_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Offline, "{error}");
        says(&error, &[&fake.url("app"), &&status[..3], &"local work goes on"]);
        assert!(fake.requests.load(std::sync::atomic::Ordering::SeqCst) > 1, "it is tried again");
    }
    let fake = Fake::answering("429 Too Many Requests", "retry-after: 3600\r\n", "");
    let local = database(&world, &fake.url("app"));
    let began = Instant::now();
    assert_eq!(local.sync_blocking().unwrap_err().kind(), ErrorKind::Offline);
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait beyond its own deadline");
}

/// All that a hanging server can do to a client: `hang` is given each connection.
fn hanging(hang: impl Fn(&mut TcpStream) + Send + Sync + 'static) {
    let world = World::new();
    let fake = Fake::start(move |_, stream| {
        hang(stream);
        std::thread::sleep(Duration::from_secs(60));
    });
    let url = fake.url("app");
    let impatient = |file: &str| {
        builder(&world.path(file), &url)
            .timeout(Duration::from_millis(500))
            .idle_timeout(Duration::from_millis(300))
            .open()
            .unwrap()
    };
    let local = impatient("app.db");
    fill(&local, 1);
    let began = Instant::now();
    for error in [local.sync_blocking(), local.pull_blocking(), impatient("new.db").clone_blocking()] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Offline, "{error}");
        says(&error, &[&url, &"local work goes on"]);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "bounded by the timeouts: {:?}", began.elapsed());
    assert!(!world.path("new.db").exists());
}

#[test]
fn a_server_that_hangs_is_given_up() {
    hanging(|_| ());
    hanging(|stream| drop(stream.write_all(b"HTTP/1.1 200 OK\r\nhighwater-outcome: pu")));
    hanging(|stream| {
        let head = "HTTP/1.1 200 OK\r\nhighwater-outcome: pulled\r\nhighwater-head: 1/1/00000000000000000000000000000001\r\nhighwater-txid: 1\r\ncontent-length: 5000\r\n\r\nLTX1";
        stream.write_all(head.as_bytes()).unwrap();
    });
}

#[test]
fn a_slow_upload_is_no_hanging_one() {
    let mut world = World::new();
    // Everything passes here at 6 MB a second towards the server.
    let proxy = slow_proxy(world.url("").trim_start_matches("http://").trim_end_matches('/').to_owned());
    let url = format!("http://{proxy}/app");
    let local = builder(&world.path("app.db"), &url)
        .idle_timeout(Duration::from_millis(1500))
        .timeout(Duration::from_secs(2))
        .open()
        .unwrap();
    let connection = fill(&local, 1);
    connection.execute_batch("CREATE TABLE b(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<24) INSERT INTO b SELECT randomblob(1000000) FROM n").unwrap();
    let began = Instant::now();
    let outcome = local.sync_blocking().unwrap();
    println!("24 MB in {:?}", began.elapsed());
    assert!(began.elapsed() > Duration::from_secs(3), "slow enough to mean anything: {:?}", began.elapsed());
    assert!(outcome.requests <= 2, "sent once, after one question: {outcome:?}");
    assert_same(local.path(), &world.restored("app"));
    world.stop_server();
}

/// Forwards to `target`, slowly in that direction, with little room for bytes under way.
fn slow_proxy(target: String) -> std::net::SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(16).unwrap().into_std().unwrap()
    });
    listener.set_nonblocking(false).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut server = TcpStream::connect(&target).unwrap();
            let (mut back_from, mut back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
            std::thread::spawn(move || {
                let mut chunk = vec![0; 60_000];
                while let Ok(read @ 1..) = client.read(&mut chunk) {
                    if server.write_all(&chunk[..read]).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(read as u64 / 6000));
                }
                let _ = server.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    addr
}
