//! Answers that are lost, cut at every byte, doubled or late, and requests that are cut, come twice or
//! long after their client gave up, took back what it had sent, or went on; other devices in between.
//! The next sync carries on, nothing is stored twice, and nobody is told of a conflict with himself.
//!
//! Everything goes through a relay on raw sockets between the client and a real server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod common;
#[allow(dead_code, reason = "each test program uses a part")]
mod proxy;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{World, assert_same, fill, insert, rows};
use highwater::{
    Action, At, Builder, Database, ErrorKind, FrameNo, Generation, LogEntry, Place, RemoteDatabase,
};
use proxy::{Fault, Proxy};
use rusqlite::Connection;

/// A server, the relay in front of it, and one device behind the relay.
struct Line {
    world: World,
    proxy: Proxy,
}

impl Line {
    fn new() -> Self {
        let world = World::new();
        let proxy = Proxy::start(world.server.as_ref().unwrap().addr());
        Self { world, proxy }
    }

    fn builder(&self, file: &str) -> Builder {
        Builder::new(self.world.path(file)).remote(self.proxy.url("app"))
    }

    /// A device that gives up at the first failure.
    fn hasty(&self, file: &str) -> Database {
        self.builder(file).timeout(Duration::ZERO).open().unwrap()
    }

    /// A device that soon gives up waiting does so, after its request was taken.
    fn gives_up(&self, file: &str, fault: Fault) {
        let builder = self.builder(file).timeout(Duration::ZERO).idle_timeout(Duration::from_millis(200));
        let hasty = builder.open().unwrap();
        let before = self.proxy.seen();
        self.proxy.plan([fault]);
        is_offline(&hasty);
        let began = Instant::now();
        while self.proxy.seen() == before {
            assert!(began.elapsed() < Duration::from_secs(10), "the request does not arrive");
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Fault::Slow(ms) = fault {
            // Its answer comes when nobody waits for it any more.
            std::thread::sleep(Duration::from_millis(ms));
        }
    }

    /// A device that tries again.
    fn patient(&self, file: &str) -> Database {
        self.builder(file).timeout(Duration::from_secs(10)).open().unwrap()
    }

    fn log(&self) -> Vec<LogEntry> {
        let remote = RemoteDatabase::new(&self.world.url("app"), None).unwrap();
        let mut all: Vec<LogEntry> = Vec::new();
        loop {
            let page = remote.log_blocking(all.last().map(place), 1000).unwrap();
            all.extend(page.entries);
            if !page.more {
                return all;
            }
        }
    }

    fn pushes(&self) -> usize {
        self.log().len()
    }

    /// The device and the server have the same rows and pages; every push changed something, and
    /// everything in it (looked at for the newest pushes).
    fn prove(&self, db: &Database) {
        let idle = db.sync_blocking().unwrap();
        assert_eq!((idle.action, idle.requests), (Action::UpToDate, 1), "{idle:?}");
        assert_same(db.path(), &self.world.restored("app"));
        let log = self.log();
        for pair in log.windows(2) {
            assert_ne!(pair[0].position.state, pair[1].position.state, "a push that changes nothing");
        }
        let mut before: Option<Vec<u8>> = None;
        for entry in log.iter().skip(log.len().saturating_sub(20)) {
            let image = self.image(entry);
            if let Some(before) = before {
                let size = image.len() / entry.page_count as usize;
                let old: Vec<_> = before.chunks(size).collect();
                let changed = image.chunks(size).enumerate().filter(|(at, page)| old.get(*at) != Some(page));
                assert_eq!(entry.pages as usize, changed.count(), "only what changed is stored: {entry:?}");
            }
            before = Some(image);
        }
    }

    fn image(&self, entry: &LogEntry) -> Vec<u8> {
        let out = self.world.path("image.db");
        let remote = RemoteDatabase::new(&self.world.url("app"), None).unwrap();
        remote.restore_blocking(&out, At::Place(place(entry)), |_| ()).unwrap();
        let bytes = std::fs::read(&out).unwrap();
        std::fs::remove_file(&out).unwrap();
        bytes
    }
}

fn place(entry: &LogEntry) -> Place {
    Place { generation: Generation(entry.position.generation), frame: FrameNo(entry.position.frame) }
}

fn is_offline(db: &Database) {
    let error = db.sync_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Offline, "{error}");
}

/// The sync was cut short. Messages differ by a few bytes in size: a cut behind the end of one does no
/// harm, and then this says no.
fn was_cut(db: &Database, cut: usize, size: impl Fn() -> usize) -> bool {
    match db.sync_blocking() {
        Ok(_) => {
            assert!(cut >= size(), "cut at byte {cut} of {}", size());
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Offline, "{error}");
            true
        }
    }
}

/// Only the files that belong to a database are beside it.
fn assert_tidy(folder: &Path, db: &str) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = ["", "-wal", "-shm", "-info", "-sums", "-lock"].map(|suffix| format!("{db}{suffix}"));
        assert!(known.contains(&name), "left behind: {name}");
    }
}

fn change(connection: &Connection, flag: usize) {
    connection.execute("UPDATE t SET text=?1 WHERE id=1", [format!("flag {flag}")]).unwrap();
}

#[test]
fn a_push_whose_answer_is_cut_anywhere_is_stored_once() {
    let line = Line::new();
    let (hasty, patient) = (line.hasty("app.db"), line.patient("app.db"));
    let connection = fill(&patient, 3);
    patient.sync_blocking().unwrap();
    let mut pushes = 1;
    for cut in 0_usize.. {
        change(&connection, cut);
        line.proxy.plan([Fault::CutAnswer(cut)]);
        pushes += 1;
        if !was_cut(&hasty, cut, || line.proxy.last_answer()) {
            break;
        }
        let mut expected = Action::UpToDate;
        if cut % 2 == 1 {
            change(&connection, cut + 1_000_000);
            pushes += 1;
            expected = Action::Pushed;
        }
        let outcome = patient.sync_blocking().unwrap();
        assert_eq!(outcome.action, expected, "the answer was cut at byte {cut}");
        assert_eq!(outcome.txid.unwrap().0, pushes, "pushes after the answer was cut at byte {cut}");
    }
    assert!(pushes > 300, "{pushes}");
    line.prove(&patient);
}

#[test]
fn a_pull_whose_answer_is_cut_anywhere_is_made_good() {
    let line = Line::new();
    let there = line.world.open("there.db");
    let writer = fill(&there, 3);
    there.sync_blocking().unwrap();
    let (hasty, patient) = (line.hasty("app.db"), line.patient("app.db"));
    patient.sync_blocking().unwrap();
    let mut cuts = 0;
    for cut in 0_usize.. {
        change(&writer, cut);
        there.sync_blocking().unwrap();
        let before = rows(patient.path());
        line.proxy.plan([Fault::CutAnswer(cut)]);
        if !was_cut(&hasty, cut, || line.proxy.last_answer()) {
            break;
        }
        assert_eq!(rows(patient.path()), before, "nothing of half an answer is applied");
        assert_eq!(patient.sync_blocking().unwrap().action, Action::Pulled, "cut at byte {cut}");
        assert_same(patient.path(), there.path());
        cuts += 1;
    }
    assert!(cuts > 300, "{cuts}");
    line.prove(&patient);
}

#[test]
fn a_first_copy_whose_answer_is_cut_anywhere_leaves_nothing_and_is_made_good() {
    let line = Line::new();
    let there = line.world.open("there.db");
    fill(&there, 30);
    there.sync_blocking().unwrap();
    let probe = line.patient("probe.db");
    probe.sync_blocking().unwrap();
    let size = line.proxy.last_answer();
    for cut in 0..size {
        let folder = format!("copy-{cut}");
        std::fs::create_dir(line.world.path(&folder)).unwrap();
        let file = format!("{folder}/app.db");
        let (hasty, patient) = (line.hasty(&file), line.patient(&file));
        // Every third copy goes into an empty database that is open.
        let open = (cut % 3 == 2).then(|| patient.connect().unwrap());
        line.proxy.plan([Fault::CutAnswer(cut)]);
        is_offline(&hasty);
        assert_eq!(patient.path().exists(), open.is_some(), "cut at byte {cut}");
        assert_tidy(&line.world.path(&folder), "app.db");
        assert_eq!(patient.sync_blocking().unwrap().action, Action::Bootstrapped, "cut at byte {cut}");
        assert_same(patient.path(), there.path());
        assert_eq!(patient.sync_blocking().unwrap().action, Action::UpToDate);
    }
    assert_eq!(line.pushes(), 1);
}

#[test]
fn a_request_that_is_cut_anywhere_stores_nothing() {
    let line = Line::new();
    let (hasty, patient) = (line.hasty("app.db"), line.patient("app.db"));
    let connection = fill(&patient, 3);
    patient.sync_blocking().unwrap();
    let mut pushes = 1;
    for cut in 0_usize.. {
        change(&connection, cut);
        line.proxy.plan([Fault::CutRequest(cut)]);
        if !was_cut(&hasty, cut, || line.proxy.last_request()) {
            break;
        }
        if cut.is_multiple_of(16) {
            assert_eq!(line.pushes(), pushes, "cut at byte {cut}");
        }
        if cut % 2 == 1 {
            change(&connection, cut + 1_000_000);
        }
        let outcome = patient.sync_blocking().unwrap();
        pushes += 1;
        let found = (outcome.action, outcome.txid.unwrap().0);
        assert_eq!(found, (Action::Pushed, pushes as u64), "cut at byte {cut}");
    }
    assert!(pushes > 300, "{pushes}");
    line.prove(&patient);
}

#[test]
fn a_first_push_whose_answer_is_cut_anywhere_is_stored_once() {
    let line = Line::new();
    let db = line.builder("probe.db").open().unwrap();
    fill(&db, 3);
    db.sync_blocking().unwrap();
    let size = line.proxy.last_answer();
    for cut in 0..size {
        let name = format!("first-{cut}");
        let url = line.proxy.url(&name);
        let builder = || Builder::new(line.world.path(&format!("{name}.db"))).remote(&url);
        let hasty = builder().timeout(Duration::ZERO).open().unwrap();
        let connection = fill(&hasty, 3);
        line.proxy.plan([Fault::CutAnswer(cut)]);
        is_offline(&hasty);
        match cut % 3 {
            0 => {}
            1 => insert(&connection, 2),
            // Nothing remains of what was pushed.
            _ => {
                connection.execute("UPDATE t SET text='other'", []).unwrap();
            }
        }
        let patient = builder().open().unwrap();
        let outcome = patient.sync_blocking().unwrap_or_else(|error| panic!("cut at byte {cut}: {error}"));
        assert_eq!(outcome.txid.unwrap().0, if cut % 3 == 0 { 1 } else { 2 }, "cut at byte {cut}");
        if cut % 10 < 3 {
            assert_same(patient.path(), &line.world.restored(&name));
        }
    }
}

#[test]
fn a_recovery_whose_answers_are_cut_anywhere_is_made_good_by_the_next() {
    let line = Line::new();
    let (hasty, patient) = (line.hasty("app.db"), line.patient("app.db"));
    let connection = fill(&patient, 3);
    patient.sync_blocking().unwrap();
    let mut pushes = 1;
    // How many requests a recovery makes.
    insert(&connection, 1);
    line.proxy.plan([Fault::CutAnswer(0)]);
    is_offline(&hasty);
    insert(&connection, 1);
    pushes += 2;
    let before = line.proxy.seen();
    patient.sync_blocking().unwrap();
    let requests = line.proxy.seen() - before;
    assert!(requests >= 2, "{requests}");
    for request in 0..requests {
        for cut in (0..).step_by(5) {
            insert(&connection, 1);
            line.proxy.plan([Fault::CutAnswer(0)]);
            is_offline(&hasty);
            insert(&connection, 1);
            let faults = std::iter::repeat_n(Fault::Pass, request).chain([Fault::CutAnswer(cut)]);
            line.proxy.plan(faults);
            let ended = hasty.sync_blocking();
            pushes += 2;
            let whole = ended.is_ok();
            if let Err(error) = ended {
                assert_eq!(error.kind(), ErrorKind::Offline, "{error}");
            }
            if cut % 2 == 1 {
                insert(&connection, 1);
            }
            let outcome = patient.sync_blocking().unwrap();
            let log = line.pushes() as u64;
            // The work after the last lost answer is a push of its own, or came with the one before.
            let most = pushes + u64::from(cut % 2 == 1);
            assert!(log == most || log + 1 == most, "request {request} cut at {cut}: {log} of {most} pushes");
            assert_eq!(outcome.txid.unwrap().0, log);
            pushes = log;
            if whole {
                break;
            }
        }
    }
    line.prove(&patient);
}

/// A file most of which changed since its last sync, with one page that is as it once was: a server takes it for an
/// older state, and its rows alone say what it descends from.
fn moved_far(line: &Line, name: &str) -> (Database, Database) {
    let builder = || Builder::new(line.world.path(&format!("{name}.db"))).remote(line.proxy.url(name));
    let patient = builder().timeout(Duration::from_secs(10)).open().unwrap();
    let there = Builder::new(line.world.path(&format!("{name}-there.db")));
    let there = there.remote(line.world.url(name)).open().unwrap();
    let connection = patient.connect().unwrap();
    let insert = |connection: &Connection, count: u32| {
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<?1) \
                   INSERT INTO t(text, at) SELECT 'row ' || i, abs(random()) | 1048576 FROM n";
        connection.execute(sql, [count]).unwrap();
    };
    connection
        .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, text, at); CREATE TABLE s(v); INSERT INTO s VALUES ('one'); VACUUM")
        .unwrap();
    insert(&connection, 3);
    patient.sync_blocking().unwrap();
    connection.execute("INSERT INTO s VALUES ('two')", []).unwrap();
    insert(&connection, 20);
    patient.sync_blocking().unwrap();
    there.sync_blocking().unwrap();
    insert(&there.connect().unwrap(), 1);
    there.sync_blocking().unwrap();
    connection
        .execute_batch(
            "DELETE FROM s WHERE v='two'; UPDATE t SET text='changed'; CREATE TABLE z(x); VACUUM; PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .unwrap();
    (builder().timeout(Duration::ZERO).open().unwrap(), patient)
}

#[test]
fn a_sync_that_fails_anywhere_while_it_finds_its_base_anew_makes_its_file_no_stranger() {
    let line = Line::new();
    for request in 0.. {
        let name = format!("far-{request}");
        let (hasty, patient) = moved_far(&line, &name);
        line.proxy.plan(std::iter::repeat_n(Fault::Pass, request).chain([Fault::CutRequest(0)]));
        let failed = hasty.sync_blocking().is_err();
        patient.sync_blocking().unwrap_or_else(|error| panic!("after request {request} failed: {error}"));
        let found: (i64, i64, i64) = Connection::open(patient.path())
            .unwrap()
            .query_row("SELECT count(*), sum(text='changed'), (SELECT count(*) FROM s) FROM t", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!(found, (24, 23, 1), "after request {request} failed");
        assert_same(patient.path(), &line.world.restored(&name));
        if !failed {
            assert!(request > 6, "{request}");
            break;
        }
    }
}

#[test]
fn a_sync_makes_good_by_itself_what_happens_once() {
    let line = Line::new();
    let patient = line.patient("app.db");
    let connection = fill(&patient, 3);
    let once = [
        Fault::CutAnswer(0),
        Fault::CutAnswer(40),
        Fault::CutRequest(0),
        Fault::CutRequest(400),
        Fault::Twice,
        Fault::TwiceAtOnce,
        Fault::AnswerTwice,
        Fault::Slow(300),
    ];
    let mut pushes = 0;
    for round in 0..3 {
        for fault in once {
            insert(&connection, 1);
            line.proxy.plan([fault]);
            patient.sync_blocking().unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            pushes += 1;
            assert_eq!(line.pushes(), pushes, "round {round}: {fault:?}");
        }
    }
    line.prove(&patient);
}

#[test]
fn every_request_of_a_history_may_arrive_again() {
    let line = Line::new();
    let (a, b) = (line.patient("a.db"), line.patient("b.db"));
    let on_a = fill(&a, 3);
    a.sync_blocking().unwrap();
    b.sync_blocking().unwrap();
    let on_b = b.connect().unwrap();
    for round in 0..12 {
        let (writer, here, there) = if round % 2 == 0 { (&on_a, &a, &b) } else { (&on_b, &b, &a) };
        insert(writer, 1);
        if round % 5 == 0 {
            change(writer, round);
        }
        here.sync_blocking().unwrap();
        there.sync_blocking().unwrap();
    }
    let log = line.log();
    let requests = line.proxy.requests();
    for _ in 0..2 {
        for request in requests.iter().rev().chain(&requests) {
            line.proxy.replay(request);
        }
    }
    assert_eq!(line.log(), log, "old requests change nothing");
    line.prove(&a);
    line.prove(&b);
}

#[test]
fn a_doubled_push_with_another_devices_push_on_top_is_no_conflict() {
    let line = Line::new();
    let (hasty, a) = (line.hasty("a.db"), line.patient("a.db"));
    let b = line.world.open("b.db");
    let on_a = fill(&a, 3);
    a.sync_blocking().unwrap();
    b.sync_blocking().unwrap();
    let on_b = b.connect().unwrap();
    for _ in 0..3 {
        // The answer to this push is lost; another device builds on it; then it comes again.
        insert(&on_a, 1);
        line.proxy.plan([Fault::CutAnswer(0)]);
        is_offline(&hasty);
        b.sync_blocking().unwrap();
        insert(&on_b, 1);
        b.sync_blocking().unwrap();
        let pushes = line.pushes();
        assert_eq!(a.sync_blocking().unwrap().action, Action::Pulled);
        assert_eq!(line.pushes(), pushes);
        assert_same(a.path(), b.path());
    }
    line.prove(&a);
}

/// What is written between the sync that gave up and the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    Insert,
    /// What was pushed is taken back: the file is as it was.
    Undo,
}

#[test]
fn a_push_that_arrives_after_its_client_gave_up_is_no_conflict() {
    for between in [Between::Nothing, Between::Insert, Between::Undo] {
        for late in ["before", "within", "after", "long after"] {
            arrives(between, late);
        }
    }
}

fn arrives(between: Between, late: &str) {
    let what = format!("{between:?}, arriving {late} the next sync");
    let line = Line::new();
    let patient = line.patient("app.db");
    let connection = fill(&patient, 3);
    change(&connection, 0);
    patient.sync_blocking().unwrap();
    change(&connection, 1);
    line.gives_up("app.db", Fault::Hold);
    match between {
        Between::Nothing => {}
        Between::Insert => insert(&connection, 1),
        Between::Undo => change(&connection, 0),
    }
    match late {
        "before" => {
            line.proxy.deliver();
        }
        // After the question whether it arrived, before the push.
        "within" => line.proxy.plan([Fault::Pass, Fault::AfterHeld]),
        _ => {}
    }
    let sync = || patient.sync_blocking().unwrap_or_else(|error| panic!("{what}: {error}"));
    sync();
    if late == "long after" {
        insert(&connection, 1);
        sync();
    }
    line.proxy.deliver();
    sync();
    insert(&connection, 1);
    sync();
    let expected = if between == Between::Undo { "flag 0" } else { "flag 1" };
    let flag: String = connection.query_row("SELECT text FROM t WHERE id=1", [], |row| row.get(0)).unwrap();
    assert_eq!(flag, expected, "{what}: the device's last word counts");
    line.prove(&patient);
}

#[test]
fn answers_that_come_too_late_are_asked_for_again() {
    let line = Line::new();
    let there = line.world.open("there.db");
    let writer = fill(&there, 3);
    there.sync_blocking().unwrap();
    let patient = line.patient("app.db");
    line.gives_up("app.db", Fault::Slow(500));
    assert_eq!(patient.sync_blocking().unwrap().action, Action::Bootstrapped);
    insert(&writer, 1);
    there.sync_blocking().unwrap();
    line.gives_up("app.db", Fault::Slow(500));
    assert_eq!(patient.sync_blocking().unwrap().action, Action::Pulled);
    let connection = patient.connect().unwrap();
    for _ in 0..3 {
        let pushes = line.pushes();
        insert(&connection, 1);
        line.gives_up("app.db", Fault::Slow(500));
        insert(&connection, 1);
        patient.sync_blocking().unwrap();
        assert_eq!(line.pushes(), pushes + 2);
    }
    line.prove(&patient);
}

#[test]
fn a_streamed_push_whose_answer_is_lost_is_stored_once() {
    let line = Line::new();
    let (hasty, patient) = (line.hasty("app.db"), line.patient("app.db"));
    let connection = fill(&patient, 3);
    patient.sync_blocking().unwrap();
    connection.execute_batch("CREATE TABLE b(data BLOB)").unwrap();
    let blobs = |count: u32| {
        for _ in 0..count {
            connection.execute("INSERT INTO b VALUES(randomblob(1048576))", []).unwrap();
        }
    };
    blobs(33);
    line.proxy.plan([Fault::CutAnswer(0)]);
    is_offline(&hasty);
    insert(&connection, 1);
    let outcome = patient.sync_blocking().unwrap();
    assert_eq!(line.pushes(), 3);
    assert!(outcome.pushed.frames < 5, "only what came later: {:?}", outcome.pushed);
    // And by the same call.
    connection.execute("UPDATE b SET data=randomblob(1048576)", []).unwrap();
    line.proxy.plan([Fault::CutAnswer(100)]);
    patient.sync_blocking().unwrap();
    assert_eq!(line.pushes(), 4);
    line.proxy.plan([Fault::CutRequest(20 << 20)]);
    connection.execute("UPDATE b SET data=randomblob(1048576)", []).unwrap();
    patient.sync_blocking().unwrap();
    assert_eq!(line.pushes(), 5);
    line.prove(&patient);
}

#[test]
fn a_refusal_that_is_cut_anywhere_is_a_broken_connection_and_not_another_server() {
    let line = Line::new();
    let nobody = |file: &str| line.builder(file).timeout(Duration::ZERO).open().unwrap();
    let probe = nobody("probe.db").clone_blocking().unwrap_err();
    assert!(matches!(probe, highwater::Error::UnknownDatabase { .. }), "{probe}");
    for cut in 0..line.proxy.last_answer() {
        line.proxy.plan([Fault::CutAnswer(cut)]);
        let error = nobody("copy.db").clone_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Offline, "cut at byte {cut}: {error}");
    }
}

#[test]
fn a_push_that_arrives_after_the_one_that_took_its_place_changes_nothing() {
    let line = Line::new();
    let patient = line.patient("app.db");
    let connection = fill(&patient, 3);
    patient.sync_blocking().unwrap();
    for merged in [false, true] {
        insert(&connection, 2);
        line.gives_up("app.db", Fault::Hold);
        if merged {
            let other = line.world.open("other.db");
            other.sync_blocking().unwrap();
            insert(&other.connect().unwrap(), 1);
            other.sync_blocking().unwrap();
        }
        insert(&connection, 1);
        patient.sync_blocking().unwrap();
        let (pushes, before) = (line.pushes(), rows(patient.path()));
        assert_eq!(line.proxy.deliver(), 1);
        assert_eq!(line.pushes(), pushes, "merged: {merged}");
        patient.sync_blocking().unwrap();
        assert_eq!(rows(patient.path()), before);
    }
    line.prove(&patient);
}
