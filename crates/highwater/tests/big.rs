//! Databases of more than 1 GiB: the page that holds byte 2^30, which SQLite keeps for its locks and
//! never uses, is neither sent nor stored, everything around it arrives, and neither client nor server
//! holds the database in memory.
//!
//! Client and server are processes of their own: this test program started again, so that the most
//! memory that each ever used can be read from the system. `HIGHWATER_TEST_BIG_PAGES=512,8192` adds
//! page sizes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater::{At, Builder, PageCount, PageSize, RemoteDatabase, StateHash};
use highwater_ltx::Decoder;
use highwater_pages::{Replica, Suspects};
use highwater_server::{Config, Embedded, StoreUrl};
use rusqlite::Connection;

/// What a child process shall do: `serve STORE`, `sync DB URL`, `clone DB URL` or `restore DB URL`.
const ROLE: &str = "HIGHWATER_TEST_BIG_ROLE";
/// Most memory of any process, in bytes, whatever the size of the database. Builds for tests are not
/// the leanest.
const BOUND: u64 = 192 << 20;
/// On top of it, for each page above the first half million: hashes are kept by page.
const BOUND_PER_PAGE: u64 = 64;
/// The byte that SQLite locks.
const LOCK_BYTE: u64 = 1 << 30;

/// Two of these at a time would take all of the disk's speed and a lot of its room.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn a_database_beyond_the_lock_page_with_pages_of_4096() {
    // As it is when pages are encrypted or compressed already: all of it crosses the wire.
    crosses_the_lock_page(4096, 1 << 20, 400);
}

#[test]
fn a_database_beyond_the_lock_page_with_pages_of_65536() {
    crosses_the_lock_page(65536, 100_000, 1060);
}

#[test]
fn a_database_beyond_the_lock_page_with_pages_of_other_sizes() {
    let sizes = std::env::var("HIGHWATER_TEST_BIG_PAGES").unwrap_or_default();
    sizes
        .split(',')
        .filter(|size| !size.is_empty())
        .for_each(|size| crosses_the_lock_page(size.parse().unwrap(), 50_000, 1060));
}

/// Not a test of its own: what a child process does.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split('\n').collect();
    let database = || Builder::new(words[1]).remote(words[2]).open().unwrap();
    let moved = match words[0] {
        "serve" => return serve(Path::new(words[1])),
        "sync" => database().sync_blocking().unwrap(),
        "clone" => database().clone_blocking().unwrap(),
        "restore" => {
            let remote = RemoteDatabase::new(words[2], None).unwrap();
            let restored = remote.restore_blocking(Path::new(words[1]), At::Head, |_| ()).unwrap();
            return println!("DID 0 0 {} {} {}", restored.page_count.0, restored.bytes, peak("self"));
        }
        other => panic!("{other}"),
    };
    let bytes = moved.pushed.bytes + moved.pulled.bytes;
    println!(
        "DID {} {} {} {bytes} {}",
        moved.requests,
        moved.pushed.frames,
        moved.pulled.frames,
        peak("self")
    );
}

fn serve(store: &Path) {
    let config = Config { store: StoreUrl::Local(store.to_path_buf()), ..Config::default() };
    let server = Embedded::start(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    println!("SERVING {}", server.url());
    loop {
        std::thread::park();
    }
}

/// The most memory that a process ever used, in bytes.
fn peak(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// This test program as a process of its own, killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(role: &[&str]) -> (Self, BufReader<std::process::ChildStdout>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role.join("\n"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        (Self(child), output)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a client did.
#[derive(Debug)]
struct Did {
    requests: u64,
    pushed: u64,
    pulled: u64,
    bytes: u64,
}

/// Runs a client to its end, and checks how much memory it took.
fn client(verb: &str, db: &Path, url: &str, bound: u64) -> Did {
    let began = Instant::now();
    let (mut process, output) = Process::start(&[verb, db.to_str().unwrap(), url]);
    let said: Vec<String> = output.lines().map(Result::unwrap).collect();
    assert!(process.0.wait().unwrap().success(), "{verb}: {said:#?}");
    let line = said.iter().find_map(|line| line.split_once("DID ")).unwrap_or_else(|| panic!("{said:#?}")).1;
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let did = Did { requests: numbers[0], pushed: numbers[1], pulled: numbers[2], bytes: numbers[3] };
    println!("  {verb}: {:?}, client's peak {} MiB, {did:?}", began.elapsed(), numbers[4] >> 20);
    assert!(numbers[4] < bound, "the client took {} MiB for {verb}", numbers[4] >> 20);
    did
}

/// A database of some more than 1 GiB in which pages on both sides of the lock page are in use.
fn create(path: &Path, page_size: u32, random: u32) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch(&format!(
        "PRAGMA page_size={page_size}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
         CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB); CREATE TABLE small(id INTEGER PRIMARY KEY, text TEXT);
         BEGIN;
         {}
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000)
            INSERT INTO small SELECT i, 'beyond the lock page ' || i FROM n;
         COMMIT;",
        blobs(1, 1040, random)
    ))
    .unwrap();
    let mode: String = db.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    db
}

/// A statement that inserts rows of 1 MiB, of which so many bytes are random and the others zero.
fn blobs(first: u32, last: u32, random: u32) -> String {
    let zero = (1 << 20) - random;
    format!(
        "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i+1 FROM n WHERE i<{last})
         INSERT INTO t SELECT i, CAST(randomblob({random}) || zeroblob({zero}) AS BLOB) FROM n;"
    )
}

/// The size and the state of a database file, by its pages.
fn state(path: &Path) -> (PageCount, StateHash) {
    let mut replica = Replica::open(path, Duration::from_secs(5)).unwrap();
    let all = replica.snapshot(None).unwrap().diff(None, &Suspects::ALL, &mut |_, _| ()).unwrap();
    (all.page_count, all.state)
}

fn assert_sound(path: &Path) {
    let db = Connection::open(path).unwrap();
    let check: String = db.query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok", "{}", path.display());
}

/// Reads every file of the store, and returns how many pages are in each.
fn stored_pages(store: &Path, size: PageSize) -> Vec<u64> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![store.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let pages = |path: &PathBuf| {
        let file = std::fs::File::open(path).unwrap();
        let mut decoder = Decoder::new(BufReader::with_capacity(1 << 20, file)).unwrap();
        let (mut count, mut data) = (0, Vec::new());
        while let Some(page) = decoder.next_page(&mut data).unwrap() {
            assert_ne!(page, size.lock_page(), "{}", path.display());
            count += 1;
        }
        count
    };
    files.iter().map(pages).collect()
}

/// Of each MiB, `random` bytes do not compress; after shrinking, the database grows to `regrown` MiB.
fn crosses_the_lock_page(page_size: u32, random: u32, regrown: u32) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let [a, b, restored] = ["a.db", "b.db", "restored.db"].map(|name| folder.path().join(name));
    let store = folder.path().join("store");
    let size = PageSize::new(page_size).unwrap();
    let began = Instant::now();
    let step = |what: &str| println!("{:6.2} s: {what}", began.elapsed().as_secs_f64());

    println!("pages of {page_size} bytes, the lock page is {}", size.lock_page().0);
    let db = create(&a, page_size, random);
    let (server, mut output) = Process::start(&["serve", store.to_str().unwrap()]);
    let mut line = String::new();
    while !line.contains("SERVING ") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the server did not start");
    }
    let url = format!("{}/big", line.split_once("SERVING ").unwrap().1.trim());

    let pages = db.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0)).map(u64::from).unwrap();
    let bound = BOUND + BOUND_PER_PAGE * pages.saturating_sub(1 << 19);
    step("first push");
    let first = client("sync", &a, &url, bound);
    assert!(pages * u64::from(page_size) > LOCK_BYTE + (4 << 20));
    assert_eq!(first.pushed, pages - 1, "every page but the lock page");
    let idle = client("sync", &a, &url, bound);
    assert_eq!((idle.requests, idle.pushed, idle.bytes), (1, 0, 0));

    step("first copy");
    assert_eq!(client("clone", &b, &url, bound).pulled, pages - 1);

    step("a change on both sides of the lock page, and growth");
    db.execute_batch(
        "UPDATE t SET data = zeroblob(1000) WHERE id IN (3, 1030);
         UPDATE small SET text = 'changed' WHERE id % 1000 = 1;
         INSERT INTO t VALUES(5000, randomblob(3000000));",
    )
    .unwrap();
    let second = client("sync", &a, &url, bound);
    assert!(second.pushed > 0 && second.pushed * u64::from(page_size) < 16 << 20, "{second:?}");
    assert_eq!(client("sync", &b, &url, bound).pulled, second.pushed);

    step("restore");
    client("restore", &restored, &url, bound);
    let expected = state(&a);
    assert_eq!(state(&b), expected);
    assert_eq!(state(&restored), expected);
    step("checks");
    assert_sound(&b);
    assert_eq!(stored_pages(&store, size)[..2], [first.pushed, second.pushed]);

    step("shrinking below the lock page, and growing again");
    db.execute_batch("DELETE FROM t WHERE id > 60; DELETE FROM small; VACUUM").unwrap();
    let shrunk = client("sync", &a, &url, bound);
    assert_eq!(client("sync", &b, &url, bound).pulled, shrunk.pushed);
    assert_eq!(state(&b), state(&a));
    db.execute_batch(&blobs(61, regrown, 30_000)).unwrap();
    let grown = client("sync", &a, &url, bound);
    assert!(grown.pushed * u64::from(page_size) > u64::from(regrown - 60) << 20, "{grown:?}");
    assert_eq!(client("sync", &b, &url, bound).pulled, grown.pushed, "all of it at once");
    assert_eq!(state(&b), state(&a));
    assert_sound(&b);
    let peak = peak(&server.0.id().to_string());
    step(&format!("done; the server's peak was {} MiB", peak >> 20));
    assert!(peak < bound, "the server took {} MiB", peak >> 20);
}
