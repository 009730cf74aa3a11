//! Everything arrives once: answers that are lost, requests that come late, and an application that goes on writing.

use std::time::{Duration, Instant};

use highwater::{Action, Database, ErrorKind};
use rusqlite::Connection;

use crate::proxy::{Fault, Proxy};
use crate::{Pair, query};

/// A pair whose tablet is behind a relay. Its table has no key: what comes twice would be seen.
struct Line {
    pair: Pair,
    proxy: Proxy,
    written: u32,
}

const SETUP: &str = "CREATE TABLE log(text TEXT); CREATE TABLE flags(id INTEGER PRIMARY KEY, flag INT);
     INSERT INTO flags VALUES (1, 0); INSERT INTO log VALUES ('begin')";

impl Line {
    fn new() -> Self {
        let pair = Pair::new(SETUP);
        let proxy = Proxy::start(pair.world.server.as_ref().unwrap().addr());
        let line = Self { pair, proxy, written: 1 };
        line.patient().sync_blocking().unwrap();
        line
    }

    fn tablet(&self, timeout: Duration) -> Database {
        let builder = highwater::Builder::new(self.pair.tablet.path()).remote(self.proxy.url("app"));
        builder.switch_remote(true).timeout(timeout).idle_timeout(Duration::from_secs(2)).open().unwrap()
    }

    /// Gives up at the first failure.
    fn hasty(&self) -> Database {
        self.tablet(Duration::ZERO)
    }

    fn patient(&self) -> Database {
        self.tablet(Duration::from_secs(10))
    }

    /// Adds a row that no other is like.
    fn write(&mut self, on: fn(&Pair) -> &Connection) {
        self.written += 1;
        let text = format!("row {}", self.written);
        on(&self.pair).execute("INSERT INTO log VALUES (?1)", [text]).unwrap();
    }

    /// The phone writes and syncs.
    fn phone_goes_ahead(&mut self) {
        self.write(|pair| &pair.on_phone);
        self.pair.phone.sync_blocking().unwrap();
    }

    fn loses_the_answer(&self) {
        self.proxy.plan([Fault::CutAnswer(0)]);
        let error = self.hasty().sync_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Offline, "{error}");
    }

    /// Both sides have every row once.
    fn prove(&self, what: &str) {
        let (phone, tablet) = (&self.pair.phone, self.patient());
        for db in [&tablet, phone, &tablet] {
            db.sync_blocking().unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        for db in [&tablet, phone] {
            let idle = db.sync_blocking().unwrap();
            assert_eq!((idle.action, idle.requests), (Action::UpToDate, 1), "{what}: {idle:?}");
        }
        for connection in [&self.pair.on_phone, &self.pair.on_tablet] {
            let twice = query(connection, "SELECT text, count(*) FROM log GROUP BY text HAVING count(*) > 1");
            assert_eq!(twice, [""; 0], "{what}: rows that came twice");
            let rows = query(connection, "SELECT count(*) FROM log");
            assert_eq!(rows, [self.written.to_string()], "{what}: rows that are missing");
        }
        crate::assert_same(phone.path(), tablet.path());
        crate::assert_same(phone.path(), &self.pair.world.restored("app"));
    }
}

fn tablet(pair: &Pair) -> &Connection {
    &pair.on_tablet
}

#[test]
fn a_file_that_is_moved_before_it_heard_the_answer_is_merged_once() {
    let mut line = Line::new();
    line.phone_goes_ahead();
    line.write(tablet);
    line.loses_the_answer();
    line.write(tablet);
    // The application ends, and its file gets another name: it goes on as another device, and may be moved again.
    line.pair.on_tablet.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let old = line.pair.tablet.path().to_owned();
    for name in ["moved.db", "moved-again.db"] {
        let new = old.with_file_name(name);
        let from = if name == "moved.db" { old.clone() } else { old.with_file_name("moved.db") };
        for suffix in ["", "-info", "-sums"] {
            let with = |path: &std::path::Path| format!("{}{suffix}", path.display());
            std::fs::copy(with(&from), with(&new)).unwrap();
        }
        line.pair.tablet = line.pair.world.open(name);
        line.pair.on_tablet = line.pair.tablet.connect().unwrap();
        if name == "moved.db" {
            // Nobody answers here: nothing but the metadata is written.
            line.proxy.plan([Fault::CutRequest(0)]);
            line.hasty().sync_blocking().unwrap_err();
        }
    }
    line.prove("after the moves");
}

#[test]
fn a_merge_whose_answer_is_cut_anywhere_is_merged_once() {
    let mut line = Line::new();
    let mut merges = 0;
    for cut in (0_usize..).step_by(29) {
        line.phone_goes_ahead();
        line.write(tablet);
        let txid = line.pair.phone.info_blocking().unwrap().txid;
        line.proxy.plan([Fault::CutAnswer(cut)]);
        let cut_short = line.hasty().sync_blocking().is_err();
        merges += 1;
        let outcome = line.patient().sync_blocking().unwrap();
        let expected = if cut_short { Action::Merged } else { Action::UpToDate };
        assert_eq!(outcome.action, expected, "the answer was cut at byte {cut}");
        assert_eq!(outcome.txid.unwrap().0, txid + 1, "cut at byte {cut}: one merge is one entry");
        if !cut_short {
            break;
        }
    }
    assert!(merges > 10, "{merges}");
    line.prove("after all cuts");
}

#[test]
fn what_is_committed_after_a_lost_answer_is_all_that_is_added() {
    let mut line = Line::new();
    for round in 0..4 {
        line.phone_goes_ahead();
        // Each sync sends more, on top of what has arrived already and is not known to have.
        for _ in 0..=round {
            line.write(tablet);
            line.loses_the_answer();
            if round == 2 {
                line.phone_goes_ahead();
            }
        }
        line.write(tablet);
        assert_eq!(line.patient().sync_blocking().unwrap().action, Action::Merged, "round {round}");
        line.prove(&format!("round {round}"));
    }
}

#[test]
fn a_hundred_lost_answers_in_a_row_lose_nothing_and_add_nothing() {
    let mut line = Line::new();
    line.phone_goes_ahead();
    for _ in 0..100 {
        line.write(tablet);
        let requests = line.patient_requests();
        line.proxy.plan((0..requests).map(|_| Fault::Pass).chain([Fault::CutAnswer(0)]));
        let _ = line.hasty().sync_blocking();
    }
    line.prove("after a hundred lost answers");
}

impl Line {
    /// How many questions a sync asks before it sends: one for each answer that is missing.
    fn patient_requests(&self) -> usize {
        let info = std::fs::read_to_string(self.pair.tablet.path().with_extension("db-info")).unwrap();
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        info["pending"].as_array().map_or(0, Vec::len)
    }
}

#[test]
fn what_is_committed_during_the_round_trip_is_merged_by_the_same_sync() {
    let mut line = Line::new();
    for round in 0..3 {
        line.phone_goes_ahead();
        line.write(tablet);
        line.proxy.plan([Fault::Slow(300)]);
        let (db, seen) = (line.patient(), line.proxy.seen());
        let syncing = std::thread::spawn(move || db.sync_blocking());
        let began = Instant::now();
        while line.proxy.seen() == seen {
            assert!(began.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(50));
        line.write(tablet);
        let outcome = syncing.join().unwrap().unwrap();
        assert_eq!(outcome.action, Action::Merged, "round {round}: {outcome:?}");
        line.prove(&format!("round {round}"));
    }
}

/// What was sent and merged is taken back, so that the file is as it was before.
#[test]
fn what_is_taken_back_after_a_lost_answer_is_taken_back_everywhere() {
    for lost_again in [false, true] {
        for goes_on in [false, true] {
            let what = format!("the undo's answer is lost: {lost_again}, more is written: {goes_on}");
            let mut line = Line::new();
            line.phone_goes_ahead();
            line.pair.on_tablet.execute_batch("UPDATE flags SET flag=1").unwrap();
            line.loses_the_answer();
            line.pair.on_tablet.execute_batch("UPDATE flags SET flag=0").unwrap();
            if lost_again {
                line.proxy.plan([Fault::Pass, Fault::CutAnswer(0)]);
                assert_eq!(line.hasty().sync_blocking().unwrap_err().kind(), ErrorKind::Offline, "{what}");
            }
            if goes_on {
                line.write(tablet);
                line.phone_goes_ahead();
            }
            line.prove(&what);
            assert_eq!(line.pair.all("SELECT flag FROM flags"), ["0"], "{what}");
        }
    }
}

#[test]
fn a_push_that_arrives_when_its_client_has_long_gone_on_changes_nothing() {
    for others in [false, true] {
        let mut line = Line::new();
        if others {
            line.phone_goes_ahead();
        }
        line.write(tablet);
        // It is under way, and the client gives up.
        let hasty = highwater::Builder::new(line.pair.tablet.path()).timeout(Duration::ZERO);
        let hasty = hasty.idle_timeout(Duration::from_millis(200)).open().unwrap();
        line.proxy.plan([Fault::Hold]);
        assert_eq!(hasty.sync_blocking().unwrap_err().kind(), ErrorKind::Offline);
        line.write(tablet);
        line.patient().sync_blocking().unwrap();
        let head = line.pair.phone.info_blocking().unwrap().head;
        assert_eq!(line.proxy.deliver(), 1);
        assert_eq!(line.pair.phone.info_blocking().unwrap().head, head, "others wrote: {others}");
        line.prove(&format!("others wrote: {others}"));
    }
}

/// Killed after the merged pages were committed here, and before that was noted; then something is written.
#[test]
fn a_merge_that_was_applied_and_not_noted_is_recognised() {
    for write_after in [false, true] {
        for committed in [false, true] {
            let what = format!("the pages were committed: {committed}, written after: {write_after}");
            let mut line = Line::new();
            let beside = |suffix: &str| line.pair.tablet.path().with_extension(format!("db{suffix}"));
            let (info, sums) = (beside("-info"), beside("-sums"));
            line.phone_goes_ahead();
            line.write(tablet);
            line.loses_the_answer();
            let noted = std::fs::read(&info).unwrap();
            if committed {
                line.patient().sync_blocking().unwrap();
                std::fs::write(&info, noted).unwrap();
                assert!(sums.exists());
            }
            if write_after {
                line.write(tablet);
            }
            line.prove(&what);
        }
    }
}

impl Line {
    /// The application commits this while pages arrive at the tablet, and then the network is gone.
    fn pulls_nothing_because_of(&self, sql: String) {
        let path = self.pair.tablet.path().to_owned();
        let once = std::sync::Once::new();
        let report = move |progress: highwater::Progress| {
            if progress.stage == highwater::Stage::Receiving {
                once.call_once(|| Connection::open(&path).unwrap().execute_batch(&sql).unwrap());
            }
        };
        self.proxy.plan([Fault::Pass, Fault::CutRequest(0)]);
        let builder = highwater::Builder::new(self.pair.tablet.path()).remote(self.proxy.url("app"));
        let hasty = builder.timeout(Duration::ZERO).on_progress(report).open().unwrap();
        let error = hasty.sync_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Offline, "{error}");
    }
}

/// Both sides grow by the same number of pages, so that the first page of both is the same.
#[test]
fn pages_that_came_and_were_not_committed_make_nothing_look_deleted_afterwards() {
    let mut line = Line::new();
    let insert = |text: &str| format!("INSERT INTO log VALUES ('{}')", text.repeat(3000));
    line.pair.on_phone.execute_batch(&insert("phone")).unwrap();
    line.pair.phone.sync_blocking().unwrap();
    line.pulls_nothing_because_of(insert("tab let"));
    line.written += 2;
    line.prove("after pages that were not committed");
}

/// As before, but the log is emptied, and cannot tell any more that those pages were never committed. Both devices wrote on every page
/// that came; one of those is the same on both.
#[test]
fn pages_that_came_and_were_not_committed_prove_nothing_when_the_log_is_gone() {
    let mut line = Line::new();
    let write = |who| format!("INSERT INTO log VALUES ('{who}'); UPDATE flags SET flag=1");
    line.pair.on_phone.execute_batch(&write("phone")).unwrap();
    line.pair.phone.sync_blocking().unwrap();
    line.pulls_nothing_because_of(write("tablet"));
    line.pair.on_tablet.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    line.written += 2;
    line.prove("after pages that were not committed");
}

/// The first attempt was merged, its answer was lost, and the second one of the same sync was refused.
#[test]
fn a_refusal_says_nothing_of_an_attempt_before_it_whose_answer_was_lost() {
    let afterwards = [
        ("nothing", ""),
        ("more is written", "INSERT INTO log VALUES ('more')"),
        ("what was sent is changed", "UPDATE log SET text=text || '!' WHERE text LIKE 'row %'"),
        ("what was sent is taken back", "DELETE FROM log WHERE text LIKE 'row %'"),
    ];
    for (what, sql) in afterwards {
        let mut line = Line::new();
        line.pair.on_phone.execute_batch("INSERT INTO log VALUES ('phone')").unwrap();
        line.pair.phone.sync_blocking().unwrap();
        line.write(tablet);
        let before = line.pair.phone.info_blocking().unwrap().txid;
        // Without a seal it is asked for once more.
        line.proxy.plan([Fault::CutAnswer(0), Fault::FalseConflict, Fault::FalseConflict]);
        let error = line.patient().sync_blocking().unwrap_err();
        assert!(error.to_string().contains("there is a conflict"), "{what}: {error}");
        assert_eq!(line.pair.phone.info_blocking().unwrap().txid, before + 1, "{what}: it was merged");
        line.pair.on_tablet.execute_batch(sql).unwrap();
        line.written = query(&line.pair.on_tablet, "SELECT count(*) + 1 FROM log")[0].parse().unwrap();
        line.prove(what);
    }
}

/// A value is set back to what it was before the base. By content alone the file is taken for a copy of that older state.
#[test]
fn requests_that_arrive_damaged_make_no_client_forget_what_it_is_based_on() {
    for damaged in [0, 1, 2, 3, 4] {
        let mut line = Line::new();
        line.pair.on_phone.execute_batch("UPDATE flags SET flag=1").unwrap();
        line.pair.phone.sync_blocking().unwrap();
        line.patient().sync_blocking().unwrap();
        line.pair.on_tablet.execute_batch("UPDATE flags SET flag=0").unwrap();
        line.write(tablet);
        line.proxy.plan([Fault::Corrupt].repeat(damaged));
        let _ = line.patient().sync_blocking();
        line.prove(&format!("{damaged} damaged requests"));
        assert_eq!(line.pair.all("SELECT flag FROM flags"), ["0"], "{damaged} damaged requests");
    }
}
