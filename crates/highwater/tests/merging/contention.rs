//! An application that writes all the time while its database is merged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use highwater::Action;

use crate::{Pair, query};

/// How a writer fared.
#[derive(Debug, Default)]
struct Writer {
    rows: u32,
    longest: Duration,
}

/// Inserts a row every millisecond or two until it is told to stop, each in its own transaction.
fn write(db: &highwater::Database, stop: &AtomicBool) -> Writer {
    let connection = db.connect().unwrap();
    let mut writer = Writer::default();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let text = format!("tablet {}", writer.rows);
        connection.execute("INSERT INTO log VALUES (?1)", [text]).unwrap();
        writer.longest = writer.longest.max(began.elapsed());
        writer.rows += 1;
        std::thread::sleep(Duration::from_micros(1000 + u64::from(writer.rows % 7) * 150));
    }
    writer
}

#[test]
fn an_application_that_writes_all_the_time_is_neither_starved_nor_starves_the_sync() {
    let pair = Pair::new("CREATE TABLE log(text TEXT); CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)");
    let stop = AtomicBool::new(false);
    let (mut merged, mut from_phone) = (0, 0);
    let mut held = Vec::new();
    let writer = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&pair.tablet, &stop));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(6) {
            from_phone += 1;
            pair.on_phone.execute("INSERT INTO t(x) VALUES (?1)", [format!("phone {from_phone}")]).unwrap();
            pair.phone.sync_blocking().unwrap();
            let outcome = pair.tablet.sync_blocking().unwrap();
            merged += u32::from(outcome.action == Action::Merged);
            held.push(outcome.held);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    held.sort_unstable();
    let (median, most) = (held[held.len() / 2], held[held.len() - 1]);
    eprintln!(
        "{merged} of {from_phone} syncs merged, none gave up; held back {median:?} (median), {most:?} (most); the writer: {writer:?}"
    );
    assert!(merged * 2 > from_phone, "{merged} of {from_phone} syncs merged");
    assert!(writer.rows > 200, "{writer:?}");
    assert!(writer.longest < Duration::from_secs(2), "{writer:?}");
    pair.settle();
    let counts = "SELECT count(*), count(DISTINCT text) FROM log";
    assert_eq!(query(&pair.on_phone, counts), [format!("{0}|{0}", writer.rows)]);
    assert_eq!(pair.all("SELECT count(DISTINCT x) FROM t"), [from_phone.to_string()]);
}

#[test]
fn an_application_that_pauses_is_held_back_by_nothing_but_the_commit() {
    let pair = Pair::new("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)");
    let merged = pair.merge("INSERT INTO t(x) VALUES ('phone')", "INSERT INTO t(x) VALUES ('tablet')");
    assert_eq!((merged.action, merged.held), (Action::Merged, Duration::ZERO));
    let told = serde_json::to_value(&merged).unwrap();
    assert!(told.get("held_ms").is_none(), "{told}");
}
