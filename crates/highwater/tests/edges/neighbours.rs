//! Others who use the same file at the same time: other syncs, applications with locks, readers,
//! writers that never pause, connections with cached schemas and pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use highwater::{Action, Builder, ErrorKind, Stage};
use rusqlite::Connection;

use crate::common::{World, assert_same, fill, insert, rows};
use crate::support::{Fake, Pair, accepted, builder, says};

#[test]
fn a_second_sync_of_a_file_waits_for_the_first() {
    let world = World::new();
    let first = world.open("app.db");
    let connection = fill(&first, 10);
    first.sync_blocking().unwrap();
    let waits = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..6)
        .map(|_| {
            let counter = Arc::clone(&waits);
            let builder = world.builder("app.db").on_progress(move |progress| {
                if progress.stage == Stage::Waiting {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
            let database = builder.open().unwrap();
            std::thread::spawn(move || {
                (0..5).map(|_| database.sync_blocking().unwrap().action).collect::<Vec<_>>()
            })
        })
        .collect();
    for _ in 0..20 {
        insert(&connection, 1);
    }
    for thread in threads {
        let actions = thread.join().unwrap();
        assert!(
            actions.iter().all(|action| matches!(action, Action::Pushed | Action::UpToDate)),
            "{actions:?}"
        );
    }
    first.sync_blocking().unwrap();
    assert!(waits.load(Ordering::SeqCst) > 0, "somebody had to wait and was told");
    assert_same(first.path(), &world.restored("app"));
    assert_eq!(accepted(&first) as u64, first.info_blocking().unwrap().txid);
}

#[test]
fn a_sync_that_waited_long_enough_says_so() {
    let world = World::new();
    let silent = Fake::start(|_, _| std::thread::sleep(Duration::from_secs(3)));
    let slow = Builder::new(world.path("app.db"))
        .remote(silent.url("app"))
        .idle_timeout(Duration::from_millis(1500));
    let slow = slow.timeout(Duration::from_millis(100)).open().unwrap();
    let _connection = fill(&slow, 1);
    let running = std::thread::spawn(move || slow.sync_blocking().unwrap_err());
    while silent.requests.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    for (patience, least) in [(0, 0), (200, 200)] {
        let second = world
            .builder("app.db")
            .remote(silent.url("app"))
            .lock_timeout(Duration::from_millis(patience))
            .open()
            .unwrap();
        let began = Instant::now();
        let error = second.sync_blocking().unwrap_err();
        assert!(
            began.elapsed() >= Duration::from_millis(least) && began.elapsed() < Duration::from_millis(1200),
            "{:?}",
            began.elapsed()
        );
        let text = says(&error, &[&second.path().display(), &"another sync", &"try again", &"lock timeout"]);
        assert!(error.is_passing(), "{text}");
    }
    assert_eq!(running.join().unwrap().kind(), ErrorKind::Offline);
}

/// How many rows have this text.
fn texts(path: &std::path::Path, text: &str) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.query_row("SELECT count(*) FROM t WHERE text=?1", [text], |row| row.get(0)).unwrap()
}

#[test]
fn an_open_write_transaction_delays_a_pull_and_not_a_push() {
    let world = World::new();
    let pair = Pair::new(&world, "locks");
    let on_a = fill(&pair.a, 10);
    pair.sync();
    let on_b = pair.b.connect().unwrap();
    // A push reads what is committed, and only that.
    insert(&on_a, 1);
    on_a.execute_batch("BEGIN IMMEDIATE; INSERT INTO t(text) VALUES('not yet')").unwrap();
    assert_eq!(pair.a.sync_blocking().unwrap().action, Action::Pushed);
    assert_eq!(texts(&world.restored("locks"), "not yet"), 0);
    on_a.execute_batch("ROLLBACK").unwrap();
    // A pull waits for as long as it was told, and then says so.
    let before = rows(pair.b.path());
    on_b.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let error = pair.b.sync_blocking().unwrap_err();
    assert!(
        began.elapsed() >= Duration::from_millis(450) && began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    says(
        &error,
        &[&pair.b.path().display(), &"locked by another connection", &"nothing was lost", &"sync again"],
    );
    assert!(error.is_passing(), "{error}");
    assert_eq!(rows(pair.b.path()), before);
    on_b.execute_batch("ROLLBACK").unwrap();
    assert_eq!(pair.b.sync_blocking().unwrap().action, Action::Pulled);
    // One that ends in time is waited for.
    insert(&on_a, 1);
    pair.a.sync_blocking().unwrap();
    on_b.execute_batch("BEGIN IMMEDIATE").unwrap();
    let b = pair.b.clone();
    let syncing = std::thread::spawn(move || b.sync_blocking());
    std::thread::sleep(Duration::from_millis(200));
    on_b.execute_batch("ROLLBACK").unwrap();
    assert_eq!(syncing.join().unwrap().unwrap().action, Action::Pulled);
    assert_same(pair.a.path(), pair.b.path());
}

#[test]
fn a_write_that_is_committed_while_a_pull_waits_is_merged() {
    let world = World::new();
    let pair = Pair::new(&world, "late");
    let on_a = fill(&pair.a, 10);
    pair.sync();
    let on_b = pair.b.connect().unwrap();
    insert(&on_a, 1);
    pair.a.sync_blocking().unwrap();
    on_b.execute_batch("BEGIN IMMEDIATE; INSERT INTO t(text) VALUES('while it waits')").unwrap();
    let b = pair.b.clone();
    let syncing = std::thread::spawn(move || b.sync_blocking());
    std::thread::sleep(Duration::from_millis(200));
    on_b.execute_batch("COMMIT").unwrap();
    assert_eq!(syncing.join().unwrap().unwrap().action, Action::Merged);
    assert_eq!(texts(pair.b.path(), "while it waits"), 1);
    pair.a.sync_blocking().unwrap();
    assert_same(pair.a.path(), pair.b.path());
    assert_same(pair.a.path(), &world.restored("late"));
}

#[test]
fn an_exclusively_locked_file_is_busy_and_nothing_is_lost() {
    let world = World::new();
    for wal in [true, false] {
        let name = format!("exclusive-{wal}");
        let database =
            builder(&world.path(&format!("{name}.db")), &world.url(&name)).wal(wal).open().unwrap();
        let connection = fill(&database, 10);
        database.sync_blocking().unwrap();
        drop(connection);
        let holder = Connection::open(database.path()).unwrap();
        holder.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; INSERT INTO t(text) VALUES('mine alone'); COMMIT").unwrap();
        let began = Instant::now();
        let error = database.sync_blocking().unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        says(
            &error,
            &[
                &database.path().display(),
                &"locked by another connection",
                &"locking_mode=EXCLUSIVE",
                &"sync again",
            ],
        );
        assert!(error.is_passing(), "{error}");
        let count: i64 = holder.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 11);
        drop(holder);
        assert_eq!(database.sync_blocking().unwrap().action, Action::Pushed);
        assert_same(database.path(), &world.restored(&name));
    }
}

#[test]
fn an_open_reader_keeps_its_snapshot_while_pages_are_applied() {
    let world = World::new();
    let pair = Pair::new(&world, "reader");
    let on_a = fill(&pair.a, 2000);
    pair.sync();
    let reader = pair.b.connect().unwrap();
    let sum = |connection: &Connection| -> (i64, i64) {
        connection
            .query_row("SELECT count(*), sum(length(text)) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
    };
    reader.execute_batch("BEGIN").unwrap();
    let old = sum(&reader);
    let mut statement = reader.prepare("SELECT text FROM t ORDER BY id").unwrap();
    let mut half_read = statement.query([]).unwrap();
    half_read.next().unwrap().unwrap();
    on_a.execute_batch("DELETE FROM t WHERE id > 50; UPDATE t SET text='new'; VACUUM").unwrap();
    pair.a.sync_blocking().unwrap();
    assert_eq!(pair.b.sync_blocking().unwrap().action, Action::Pulled);
    let mut rest = 1;
    while half_read.next().unwrap().is_some() {
        rest += 1;
    }
    assert_eq!(rest, 2000, "the statement that was being read goes on");
    drop(half_read);
    drop(statement);
    assert_eq!(sum(&reader), old);
    assert_eq!(sum(&pair.b.connect().unwrap()), (50, 150), "a new reader sees the new state");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(sum(&reader), (50, 150));
    assert_same(pair.a.path(), pair.b.path());
}

#[test]
fn a_writer_that_never_pauses_is_answered_in_bounded_time() {
    let world = World::new();
    let pair = Pair::new(&world, "busy");
    let on_a = fill(&pair.a, 10);
    pair.sync();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, b) = (Arc::clone(&stop), pair.b.clone());
    let writer = std::thread::spawn(move || {
        let on_b = b.connect().unwrap();
        let mut written = 0;
        while !stopped.load(Ordering::SeqCst) {
            on_b.execute("INSERT INTO t(text) VALUES('without end')", []).unwrap();
            written += 1;
        }
        written
    });
    // Alone it is simply pushed, again and again.
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..5 {
        let began = Instant::now();
        let action = pair.b.sync_blocking().unwrap().action;
        // On a machine with much to do, the writer may not have come to its turn.
        assert!(matches!(action, Action::Pushed | Action::UpToDate), "{action:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    // With another device's change on the server, it is merged, or told that it never paused.
    while pair.a.sync_blocking().unwrap().action != Action::Pulled {}
    insert(&on_a, 1);
    assert_eq!(pair.a.sync_blocking().unwrap().action, Action::Pushed);
    let error = pair.b.pull_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    says(&error, &[&pair.b.path().display(), &"nothing was lost", &"highwater sync"]);
    let began = Instant::now();
    match pair.b.sync_blocking() {
        Ok(outcome) => assert_eq!(outcome.action, Action::Merged),
        Err(error) => assert!(error.is_passing(), "{error}"),
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    stop.store(true, Ordering::SeqCst);
    let written: i64 = writer.join().unwrap();
    let on_b = pair.b.connect().unwrap();
    let kept: i64 =
        on_b.query_row("SELECT count(*) FROM t WHERE text='without end'", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, written);
    pair.b.sync_blocking().unwrap();
    pair.a.sync_blocking().unwrap();
    assert_same(pair.a.path(), pair.b.path());
    assert_same(pair.a.path(), &world.restored("busy"));
}

#[test]
fn open_connections_and_prepared_statements_see_what_was_pulled() {
    let world = World::new();
    for wal in [true, false] {
        let pair = Pair::new(&world, &format!("schema-{wal}"));
        let on_a = fill(&pair.a, 100);
        pair.sync();
        let on_b = Connection::open(pair.b.path()).unwrap();
        if !wal {
            let mode: String = on_b.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "delete");
        }
        let second = Connection::open(pair.b.path()).unwrap();
        let mut all = on_b.prepare("SELECT * FROM t WHERE id=1").unwrap();
        let mut count = second.prepare("SELECT count(*) FROM t").unwrap();
        let mut counted = || count.query_row([], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((all.column_count(), counted()), (2, 100));
        on_a.execute_batch("ALTER TABLE t ADD COLUMN extra DEFAULT 'x'; CREATE INDEX later ON t(extra); CREATE TABLE u(y); INSERT INTO u VALUES(7)").unwrap();
        insert(&on_a, 11);
        pair.a.sync_blocking().unwrap();
        assert_eq!(pair.b.sync_blocking().unwrap().action, Action::Pulled);
        let row =
            all.query_row([], |row| Ok((row.as_ref().column_count(), row.get::<_, String>(2)?))).unwrap();
        assert_eq!(row, (3, "x".to_owned()), "the statement was prepared before the column existed");
        assert_eq!(counted(), 111);
        assert_eq!(on_b.query_row("SELECT y FROM u", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
        // Only rows change now, and no schema: cached pages must not be used.
        on_a.execute_batch("UPDATE t SET text='changed'").unwrap();
        pair.a.sync_blocking().unwrap();
        pair.b.sync_blocking().unwrap();
        let changed = |c: &Connection| {
            c.query_row("SELECT count(*) FROM t WHERE text='changed'", [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!((changed(&on_b), changed(&second)), (111, 111));
        // What the open connection writes next fits the new schema and is pushed.
        on_b.execute("INSERT INTO t(text, extra) VALUES('b', 'y')", []).unwrap();
        on_a.execute_batch("SELECT 1").unwrap();
        assert_eq!(pair.b.sync_blocking().unwrap().action, Action::Pushed);
        pair.a.sync_blocking().unwrap();
        on_a.execute_batch("DROP TABLE u; DROP INDEX later").unwrap();
        pair.a.sync_blocking().unwrap();
        pair.b.sync_blocking().unwrap();
        let gone = on_b.query_row("SELECT y FROM u", [], |row| row.get::<_, i64>(0)).unwrap_err();
        assert!(gone.to_string().contains("no such table"), "{gone}");
        let mode: String = on_b.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(
            mode,
            if wal { "wal" } else { "delete" },
            "a pull does not change how the file is journaled"
        );
        assert_same(pair.a.path(), pair.b.path());
    }
}
