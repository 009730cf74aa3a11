//! Any process may checkpoint, truncate or restart the log, vacuum the file or switch its journal
//! mode at any moment: the server's image always equals some committed state, in the end the last.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

#[path = "checkpoints/bank.rs"]
mod bank;
mod common;
#[path = "checkpoints/live.rs"]
mod live;

use std::path::Path;
use std::time::Duration;

use common::{Dice, World, assert_same, fill, insert, rows};
use highwater::{Action, Database, Generation, Position};
use highwater_ltx::{FrameNo, StateHash};
use highwater_pages::{Delta, Mark, PageSums, Replica, Snapshot, Suspects};
use rusqlite::Connection;

/// The hash of the file's content, every page of it.
fn state_of(db: &Path) -> StateHash {
    let mut replica = Replica::open(db, Duration::from_secs(5)).unwrap();
    let snapshot = replica.snapshot(None).unwrap();
    all_of(&snapshot).state
}

fn all_of(snapshot: &Snapshot<'_>) -> Delta {
    snapshot.diff(None, &Suspects::ALL, &mut |_, _| ()).unwrap()
}

/// A sync after which the server has what the file has, page for page and row for row.
fn synced(world: &World, db: &Database, case: &str) -> highwater::SyncOutcome {
    let outcome = db.sync_blocking().unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(state_of(db.path()), outcome.position.unwrap().state, "{case}");
    assert_same(&world.restored("app"), db.path());
    let again = db.sync_blocking().unwrap();
    assert_eq!((again.action, again.pushed.frames), (Action::UpToDate, 0), "{case}");
    outcome
}

fn checkpoint(db: &Path, kind: &str) {
    let connection = Connection::open(db).unwrap();
    // A busy checkpoint is an answer, not an error.
    connection.query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |_| Ok(())).unwrap();
    // Leaves the log as it is.
    let _ = connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

/// What others do between two steps of a capture.
struct Others {
    app: Connection,
    dice: Dice,
}

impl Others {
    fn act(&mut self) {
        let n = self.dice.below(12);
        let sql = match n {
            0 | 1 => return,
            2 => "VACUUM",
            3 => "BEGIN; INSERT INTO t SELECT NULL, randomblob(300) FROM n; ROLLBACK",
            4 => "DELETE FROM t WHERE id % 3 = 0; PRAGMA incremental_vacuum(5)",
            // Pages that are taken and freed in one transaction are never written to the log.
            5 => {
                "BEGIN; INSERT INTO t SELECT NULL, zeroblob(3000) FROM n; DELETE FROM t WHERE length(v) = 3000; COMMIT"
            }
            _ => "INSERT INTO t(v) VALUES (randomblob(90)); UPDATE t SET v=randomblob(40) WHERE id % 7 = 1",
        };
        self.run(sql);
        match self.dice.below(6) {
            0 => self.run("PRAGMA wal_checkpoint(TRUNCATE)"),
            1 => self.run("PRAGMA wal_checkpoint(RESTART)"),
            2 => self.run("PRAGMA wal_checkpoint(PASSIVE)"),
            3 => (0..2).for_each(|_| {
                self.run("PRAGMA wal_checkpoint(RESTART)");
                self.run("INSERT INTO t(v) VALUES (randomblob(10))");
            }),
            _ => {}
        }
    }

    fn run(&self, sql: &str) {
        // What a reader keeps from happening does not happen.
        if let Err(error) = self.app.execute_batch(sql) {
            assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{sql}: {error}");
            let _ = self.app.execute_batch("ROLLBACK");
        }
    }
}

/// One capture with others at work between every two of its steps: what the log points to is all
/// that differs, at this capture and at the next.
fn capture(
    replica: &mut Replica,
    others: &mut Others,
    sums: &mut PageSums,
    mark: &mut Option<Mark>,
    seed: u64,
) {
    others.act();
    let since = *mark;
    let snapshot = replica.snapshot(since.as_ref()).unwrap();
    others.act();
    let suspects = snapshot.suspects(since.as_ref()).unwrap();
    others.act();
    let delta = snapshot.diff(Some(sums), &suspects, &mut |_, _| ()).unwrap();
    others.act();
    let next = snapshot.next_mark().unwrap();
    others.act();
    let all = all_of(&snapshot);
    assert_eq!(delta.state, all.state, "seed {seed}: {suspects:?}");
    assert_eq!(delta.changed, all.against(sums).changed, "seed {seed}: {suspects:?}");
    let position = Position { generation: Generation(1), frame: FrameNo(1), state: delta.state };
    sums.apply(&delta.changed, delta.page_count, position);
    assert_eq!(sums.state(), delta.state, "seed {seed}");
    *mark = Some(next);
}

#[test]
fn nothing_that_happens_between_two_steps_of_a_capture_is_missed() {
    let seed = common::seed(20_240);
    for seed in seed..seed + u64::from(common::rounds(60)) {
        let world = World::in_memory(|_| ());
        let path = world.path("app.db");
        let app = Connection::open(&path).unwrap();
        let size = [512, 1024, 4096][seed as usize % 3];
        let vacuum = ["NONE", "FULL", "INCREMENTAL"][(seed / 3) as usize % 3];
        let limit = [-1, 0, 5_000, 100_000][(seed / 9) as usize % 4];
        app.execute_batch(&format!(
            "PRAGMA page_size={size}; PRAGMA auto_vacuum={vacuum}; PRAGMA journal_mode=WAL;
             PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=8;
             PRAGMA journal_size_limit={limit};
             CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); CREATE TABLE n(i);
             WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<50) INSERT INTO n SELECT i FROM c;
             INSERT INTO t SELECT NULL, randomblob(100) FROM n;"
        ))
        .unwrap();
        app.busy_timeout(Duration::ZERO).unwrap();
        let mut others = Others { app, dice: Dice::new(seed) };
        let mut replica = Replica::open(&path, Duration::from_secs(5)).unwrap();
        let (mut mark, mut sums) = {
            let snapshot = replica.snapshot(None).unwrap();
            let all = all_of(&snapshot);
            let position = Position { generation: Generation(1), frame: FrameNo(1), state: all.state };
            let mut sums = PageSums::new(position, all.page_size, all.page_count);
            sums.apply(&all.changed, all.page_count, position);
            (Some(snapshot.next_mark().unwrap()), sums)
        };
        for _ in 0..25 {
            capture(&mut replica, &mut others, &mut sums, &mut mark, seed);
        }
    }
}

#[test]
fn a_log_that_was_restarted_or_truncated_between_two_syncs_hides_nothing() {
    let world = World::in_memory(|_| ());
    let db = world.open("app.db");
    let application = fill(&db, 200);
    synced(&world, &db, "first");
    for kinds in [
        &["RESTART"][..],
        &["RESTART", "RESTART"],
        &["TRUNCATE"],
        &["TRUNCATE", "TRUNCATE"],
        &["PASSIVE", "RESTART", "TRUNCATE", "RESTART"],
        &["RESTART"; 5],
    ] {
        for (number, kind) in kinds.iter().enumerate() {
            insert(&application, 3 + number as u32);
            checkpoint(db.path(), kind);
        }
        // Without and with something in the new round.
        let outcome = synced(&world, &db, &format!("{kinds:?}"));
        assert_eq!(outcome.action, Action::Pushed, "{kinds:?}");
        insert(&application, 1);
        assert_eq!(synced(&world, &db, &format!("{kinds:?}, then a row")).action, Action::Pushed);
    }
}

#[test]
fn a_log_with_a_size_limit_hides_nothing() {
    for limit in [0, 1, 4096, 4152 * 3 + 32, 50_000] {
        let world = World::in_memory(|_| ());
        let db = world.open("app.db");
        let application = fill(&db, 300);
        application.pragma_update_and_check(None, "journal_size_limit", limit, |_| Ok(())).unwrap();
        for round in 0..8 {
            (0..5).for_each(|_| insert(&application, 40));
            if round % 2 == 0 {
                synced(&world, &db, &format!("limit {limit}, round {round}"));
            }
            checkpoint(db.path(), ["RESTART", "TRUNCATE", "PASSIVE"][round % 3]);
            insert(&application, 1);
            synced(&world, &db, &format!("limit {limit}, round {round}, checkpointed"));
        }
    }
}

const GROW: &str = "INSERT INTO t(text) SELECT hex(randomblob(700)) FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<60) SELECT i FROM c)";
const SHRINK: &str = "DELETE FROM t WHERE id > 20; PRAGMA incremental_vacuum";
const STEP: &str = "INSERT INTO steps SELECT count(*) FROM steps";

fn with_auto_vacuum(world: &World, mode: &str) -> (Database, Connection) {
    let db = world.open("app.db");
    let plain = Connection::open(db.path()).unwrap();
    plain.execute_batch(&format!("PRAGMA auto_vacuum={mode}; VACUUM")).unwrap();
    drop(plain);
    let application = fill(&db, 20);
    application.execute_batch("PRAGMA wal_autocheckpoint=0; CREATE TABLE steps(step)").unwrap();
    application.execute_batch(GROW).unwrap();
    db.sync_blocking().unwrap();
    (db, application)
}

/// A file that shrinks and grows again gets pages back that were never written to the log; what
/// they hold can even depend on when the log was checkpointed.
#[test]
fn pages_that_come_back_without_a_frame_are_as_the_file_has_them() {
    // The file grows, and what it grew by is free at once: nobody writes those pages.
    let hollow = format!("BEGIN; {GROW}; DELETE FROM t WHERE id > 20; COMMIT");
    for mode in ["NONE", "FULL", "INCREMENTAL"] {
        for mask in 0..32_u32 {
            let world = World::in_memory(|_| ());
            let (db, application) = with_auto_vacuum(&world, mode);
            for (step, sql) in [SHRINK, &hollow, GROW, SHRINK, &hollow].into_iter().enumerate() {
                application.execute_batch(sql).unwrap();
                let case = format!("auto_vacuum {mode}, mask {mask:b}, step {step}");
                if mask >> step & 1 == 1 {
                    // (A file that shrinks under a truncated log: see the next tests.)
                    checkpoint(db.path(), ["TRUNCATE", "RESTART", "TRUNCATE", "PASSIVE", "RESTART"][step]);
                }
                application.execute_batch(STEP).unwrap();
                let outcome = db.sync_blocking().unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(state_of(db.path()), outcome.position.unwrap().state, "{case}");
            }
            checkpoint(db.path(), "TRUNCATE");
            synced(&world, &db, &format!("auto_vacuum {mode}, mask {mask:b}, end"));
        }
    }
}

/// A file that shrinks to what it once was gets pages back that are as they were then: those of the
/// structure even if the rows tell that it is no older copy. Here every row of `steps` tells.
#[test]
fn a_file_that_shrinks_to_what_it_was_is_no_older_copy() {
    for mode in ["NONE", "FULL", "INCREMENTAL"] {
        let world = World::in_memory(|_| ());
        let (db, application) = with_auto_vacuum(&world, mode);
        for sql in [SHRINK, GROW, SHRINK, GROW, SHRINK] {
            application.execute_batch(sql).unwrap();
            application.execute_batch(STEP).unwrap();
            checkpoint(db.path(), "TRUNCATE");
            assert_eq!(synced(&world, &db, &format!("auto_vacuum {mode}")).action, Action::Pushed);
            application.execute_batch(STEP).unwrap();
            assert_eq!(synced(&world, &db, &format!("auto_vacuum {mode}, a step")).action, Action::Pushed);
        }
    }
}

/// Two copies of a database, the first one synced when it has empty tables on its pages 2 to 5, `second` on page 3.
fn with_four_tables(world: &World, second: &str) -> (Database, Database, Connection) {
    let (db, other) = (world.open("app.db"), world.open("other.db"));
    let application = Connection::open(db.path()).unwrap();
    application
        .execute_batch(&format!(
            "PRAGMA page_size=1024; PRAGMA journal_mode=WAL;
             CREATE TABLE gone(a); CREATE TABLE {second}; CREATE TABLE uses(a); CREATE TABLE last(a)"
        ))
        .unwrap();
    db.sync_blocking().unwrap();
    (db, other, application)
}

/// VACUUM lays every table anew, and an empty one comes to where another table was empty once. Nothing counts on in a log:
/// the connection that wrote last writes the counter of its last commit once more.
#[test]
fn a_file_that_was_vacuumed_is_no_older_copy() {
    let world = World::in_memory(|_| ());
    let (db, other, application) = with_four_tables(&world, "bag(born, a)");
    let bag = "INSERT INTO bag(rowid, born) VALUES (1, 'one'), (20, 'two'), (21, 'three')";
    application.execute_batch(bag).unwrap();
    db.sync_blocking().unwrap();
    other.sync_blocking().unwrap();
    let there = Connection::open(other.path()).unwrap();
    there.execute_batch("DROP TABLE gone").unwrap();
    other.sync_blocking().unwrap();
    // Its bag comes to where there was `gone`, and `uses` to where there was the bag, when that was empty.
    there.execute_batch("VACUUM").unwrap();
    drop(there);
    assert_eq!(other.sync_blocking().unwrap().action, Action::Pushed);
    assert_eq!(db.sync_blocking().unwrap().action, Action::Pulled);
    assert_same(db.path(), other.path());
    assert_eq!(rows(db.path()).iter().filter(|row| row.starts_with("bag")).count(), 3);
}

/// The same, where no row is left as it came: each still shows a value that could hardly be anybody's. Taken for the older copy, this
/// one would have written all of its rows itself, and they would win over what another device made of them since.
#[test]
fn a_file_that_was_vacuumed_and_whose_every_row_was_changed_is_no_older_copy() {
    let world = World::in_memory(|_| ());
    let (db, other, application) = with_four_tables(&world, "tasks(id INTEGER PRIMARY KEY, title, done)");
    application
        .execute_batch("INSERT INTO tasks VALUES (1, 'Buy milk', 0), (2, 'Call Ada', 0), (3, 'Call Bob', 0)")
        .unwrap();
    db.sync_blocking().unwrap();
    application.execute_batch("DROP TABLE gone").unwrap();
    db.sync_blocking().unwrap();
    other.sync_blocking().unwrap();
    let there = Connection::open(other.path()).unwrap();
    // `tasks` comes to where there was `gone`, and `uses` to where there were the tasks, when there were none.
    there.execute_batch("UPDATE tasks SET done = 1; VACUUM").unwrap();
    drop(there);
    application.execute_batch("UPDATE tasks SET title = 'Buy oat milk' WHERE id = 1").unwrap();
    db.sync_blocking().unwrap();
    let outcome = other.sync_blocking().unwrap();
    assert_eq!(outcome.action, Action::Merged);
    assert!(outcome.conflicts.is_empty(), "{:?}", outcome.conflicts);
    db.sync_blocking().unwrap();
    assert_same(db.path(), other.path());
    let titles = "SELECT group_concat(title || done, ', ') FROM tasks";
    let titles: String = application.query_row(titles, [], |row| row.get(0)).unwrap();
    assert_eq!(titles, "Buy oat milk1, Call Ada1, Call Bob1");
}

#[test]
fn a_transaction_that_spilled_into_the_log_and_was_rolled_back_is_not_sent() {
    let world = World::in_memory(|_| ());
    let db = world.open("app.db");
    let application = fill(&db, 50);
    application.pragma_update(None, "cache_size", 5).unwrap();
    synced(&world, &db, "first");
    for round in 0..6 {
        application.execute_batch("BEGIN").unwrap();
        insert(&application, 20_000);
        let open = db.sync_blocking().unwrap();
        assert_eq!(open.action, Action::UpToDate, "round {round}: an open transaction is nobody's business");
        assert!(std::fs::metadata(world.path("app.db-wal")).unwrap().len() > 100_000, "it has spilled");
        application.execute_batch("ROLLBACK").unwrap();
        let rolled_back = synced(&world, &db, &format!("round {round}, rolled back"));
        assert_eq!((rolled_back.action, rolled_back.pushed.frames), (Action::UpToDate, 0));
        insert(&application, 2);
        let outcome = synced(&world, &db, &format!("round {round}, written on"));
        assert!(outcome.pushed.frames < 5, "round {round}: {outcome:?}");
        if round % 2 == 1 {
            checkpoint(db.path(), "RESTART");
        }
    }
}

#[test]
fn an_application_that_does_without_fsync_is_synced_all_the_same() {
    let world = World::in_memory(|_| ());
    let db = world.open("app.db");
    let application = fill(&db, 100);
    application.execute_batch("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=7").unwrap();
    synced(&world, &db, "first");
    for round in 0..15 {
        (0..10).for_each(|_| insert(&application, 5));
        assert_eq!(synced(&world, &db, &format!("round {round}")).action, Action::Pushed);
    }
}

#[test]
fn a_journal_mode_switched_and_back_hides_nothing() {
    let world = World::in_memory(|_| ());
    let db = world.open("app.db");
    drop(fill(&db, 200));
    synced(&world, &db, "first");
    for mode in ["DELETE", "WAL", "TRUNCATE", "WAL", "PERSIST", "DELETE", "WAL"] {
        let plain = Connection::open(db.path()).unwrap();
        insert(&plain, 2);
        let now: String =
            plain.query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0)).unwrap();
        assert_eq!(now, mode.to_lowercase());
        assert_eq!(synced(&world, &db, &format!("switched to {mode}")).action, Action::Pushed);
        insert(&plain, 2);
        assert_eq!(synced(&world, &db, &format!("written in {mode}")).action, Action::Pushed);
        drop(plain);
        assert_eq!(db.sync_blocking().unwrap().action, Action::UpToDate, "closed in {mode}");
    }
}
