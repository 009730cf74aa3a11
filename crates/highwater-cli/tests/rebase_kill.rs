//! A client that is killed (SIGKILL) while it rebases what its application commits onto the answer, at every step that it passes; and a
//! server that is killed when it stores what such a client tells it. Every row is there once afterwards.
//!
//! A relay commits for the application whenever an answer comes by, so every sync gets to rebase.
#![cfg(all(unix, debug_assertions))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    missing_docs
)]

mod common_kill;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common_kill::process::{self, Served, dies, first_and_last, named_in_sources, points, succeeds};
use common_kill::proof::database;
use rusqlite::Connection;

const SETUP: &str = "PRAGMA journal_mode=WAL; CREATE TABLE log(text TEXT);
     CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)";

/// Passes everything on; when it is told to, it commits a row in `db` before each answer to a sync arrives. It ends with the test program.
fn relay(served: &Served, db: PathBuf, commits: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/app", listener.local_addr().unwrap());
    let server = format!("127.0.0.1:{}", served.port);
    std::thread::spawn(move || {
        let mut row = 0;
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&server) else { continue };
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            // A connection that breaks is part of the game.
            std::thread::spawn(move || pump(from, to, |_| ()));
            pump(server, client, |answer| {
                if commits.load(Ordering::SeqCst)
                    && answer.starts_with(b"HTTP/1.1 200")
                    && answer.windows(17).any(|at| at.eq_ignore_ascii_case(b"highwater-outcome"))
                {
                    row += 1;
                    commit(&db, &format!("while {row}"));
                }
            });
        }
    });
    url
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        look(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// What the application does: a row without a key, and one whose id the other device gives, too.
fn commit(db: &Path, text: &str) {
    let connection = Connection::open(db).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection
        .execute_batch(&format!(
            "BEGIN; INSERT INTO log VALUES ('{text}'); INSERT INTO t(x) VALUES ('{text}'); COMMIT"
        ))
        .unwrap();
}

/// Two copies that both wrote; the second one syncs through the relay.
struct Case {
    folder: tempfile::TempDir,
    direct: String,
    /// Through the relay.
    url: String,
    commits: Arc<AtomicBool>,
}

impl Case {
    fn new(served: &Served, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let direct = served.url(name);
        let (phone, tablet) = (folder.path().join("phone.db"), folder.path().join("tablet.db"));
        Connection::open(&phone).unwrap().execute_batch(SETUP).unwrap();
        let commits: Arc<AtomicBool> = Arc::default();
        let url = relay(served, tablet.clone(), Arc::clone(&commits)).replace("/app", &format!("/{name}"));
        database(&phone, &direct).sync_blocking().unwrap();
        database(&tablet, &url).sync_blocking().unwrap();
        for text in ["phone", "phone again", "and again"] {
            commit(&phone, text);
        }
        database(&phone, &direct).sync_blocking().unwrap();
        commit(&tablet, "tablet");
        commits.store(true, Ordering::SeqCst);
        Self { folder, direct, url, commits }
    }

    fn tablet(&self) -> PathBuf {
        self.folder.path().join("tablet.db")
    }

    /// A sync of the tablet.
    fn sync(&self) -> std::process::Command {
        process::sync(&self.tablet(), &self.url)
    }

    /// Every row of both is in both, once.
    fn prove(&self, what: &str) {
        let (phone, tablet) = (self.folder.path().join("phone.db"), self.tablet());
        self.commits.store(false, Ordering::SeqCst);
        let sync = |db: &Path| {
            let url = if db == tablet { &self.url } else { &self.direct };
            database(db, url).sync_blocking().unwrap_or_else(|error| panic!("{what}: {error}"))
        };
        for db in [&tablet, &phone, &tablet] {
            sync(db);
        }
        let rows = |db: &Path, table: &str| -> Vec<String> {
            let connection = Connection::open(db).unwrap();
            let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
            let last = statement.column_count() - 1;
            statement.query_map([], |row| row.get(last)).unwrap().map(Result::unwrap).collect()
        };
        for table in ["log", "t"] {
            let found = rows(&phone, table);
            assert_eq!(found, rows(&tablet, table), "{what}");
            let mut once = found.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), found.len(), "{what}: rows that came twice in {table}: {found:?}");
            let written: Vec<_> = once.iter().filter(|text| text.starts_with("while")).collect();
            assert_eq!(
                once.len(),
                4 + written.len() + usize::from(once.iter().any(|text| text == "after")),
                "{what}: {once:?}"
            );
            for (at, text) in written.iter().enumerate() {
                assert_eq!(
                    **text,
                    format!("while {}", at + 1),
                    "{what}: rows that are missing in {table}: {once:?}"
                );
            }
        }
    }
}

#[test]
fn a_client_killed_while_it_rebases_carries_on() {
    let store = tempfile::tempdir().unwrap();
    let served = Served::start(store.path());
    let number = AtomicU64::new(0);
    let case = || Case::new(&served, &format!("app-{}", number.fetch_add(1, Ordering::SeqCst)));
    let dry = case();
    let log = dry.folder.path().join("points");
    let mut command = dry.sync();
    command.env("HIGHWATER_KILL_LOG", &log);
    succeeds(command, "the dry run");
    dry.prove("the dry run");
    let passed = points(&log);
    for name in named_in_sources(&["highwater"]).iter().filter(|name| name.starts_with("rebase.")) {
        assert!(passed.contains_key(name), "the dry run does not pass {name}: {passed:?}");
    }
    let steps = first_and_last(&passed);
    eprintln!("{} steps: {}", steps.len(), steps.join(" "));
    for (nth, at) in steps.iter().enumerate() {
        let case = case();
        dies(case.sync(), at);
        if nth % 2 == 0 {
            commit(&case.tablet(), "after");
        }
        case.prove(&format!("killed at {at}"));
    }
}

#[test]
fn ids_that_rows_got_on_a_device_are_recorded_though_the_server_is_killed_over_it() {
    let store = tempfile::tempdir().unwrap();
    let mut served = Served::start(store.path());
    served.kill();
    served.again(&[("HIGHWATER_KILL_AT", "server-rebased-stored")]);
    let case = Case::new(&served, "app");
    // What has come is there, and that it was not told yet is no failure.
    succeeds(case.sync(), "the sync");
    assert!(served.ended().is_some(), "the server was not killed");
    served.again(&[]);
    case.prove("after the kill");
    let merges = database(&case.tablet(), &case.direct).conflicts_blocking().unwrap();
    let ids: Vec<_> =
        merges.iter().flat_map(|merge| &merge.conflicts).filter(|found| found.table == "t").collect();
    let told = |text: &str| {
        let has =
            |row: &highwater::RowJson| row.iter().any(|(_, value)| value.to_string() == format!("'{text}'"));
        ids.iter().filter(|found| found.local.as_ref().is_some_and(has)).count()
    };
    assert_eq!((told("tablet"), told("while 2")), (1, 1), "{ids:#?}");
}
