//! What an application commits in every round trip of a sync: the answer never fits, and the sync comes to an end all the same.

use std::path::Path;
use std::sync::{Arc, Mutex};

use highwater::{Action, Builder, ConflictKind, Database, Progress, Stage, SyncOutcome};
use rusqlite::Connection;

use crate::{Pair, kinds, only, query};

const SETUP: &str = "CREATE TABLE log(text TEXT);
     CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT);
     CREATE TABLE child(id INTEGER PRIMARY KEY, t INTEGER REFERENCES t(id), x TEXT);
     CREATE TABLE u(name TEXT UNIQUE, x TEXT);
     INSERT INTO t VALUES (1, 'a', 'b'), (2, 'a', 'b'), (3, 'a', 'b');
     INSERT INTO log VALUES ('begin')";

/// The tablet, with an application that commits the next of these whenever an answer arrives.
fn busy(pair: &Pair, commits: &[&str]) -> Database {
    let mut rest: Vec<String> = commits.iter().rev().map(|sql| (*sql).to_owned()).collect();
    busy_with(pair, move |connection| {
        if let Some(sql) = rest.pop() {
            connection.execute_batch(&sql).unwrap();
        }
    })
}

/// The tablet, with an application that does this whenever an answer arrives.
fn busy_with(pair: &Pair, commit: impl FnMut(&Connection) + Send + 'static) -> Database {
    let connection = Connection::open(pair.tablet.path()).unwrap();
    let application = Arc::new(Mutex::new((connection, commit)));
    let report = move |progress: Progress| {
        // Once for each answer: with its first page.
        if progress.stage == Stage::Receiving && progress.done <= 4096 {
            let mut application = application.lock().unwrap();
            let (connection, commit) = &mut *application;
            commit(connection);
        }
    };
    Builder::new(pair.tablet.path()).on_progress(report).open().unwrap()
}

/// Both wrote; then the tablet syncs while its application commits, once or twice.
fn rebased(pair: &Pair, phone: &str, tablet: &str, commits: &[&str]) -> SyncOutcome {
    pair.on_phone.execute_batch(phone).unwrap();
    pair.on_tablet.execute_batch(tablet).unwrap();
    pair.phone.sync_blocking().unwrap();
    let outcome = busy(pair, commits).sync_blocking().unwrap();
    assert_eq!(outcome.action, Action::Merged, "{outcome:?}");
    pair.settle();
    outcome
}

#[test]
fn a_sync_ends_in_its_second_round_though_something_is_committed_in_each() {
    let pair = Pair::new(SETUP);
    pair.on_phone.execute_batch("INSERT INTO log VALUES ('phone')").unwrap();
    pair.phone.sync_blocking().unwrap();
    pair.on_tablet.execute_batch("INSERT INTO log VALUES ('tablet')").unwrap();
    let mut row = 0;
    let endless = busy_with(&pair, move |connection| {
        row += 1;
        connection.execute("INSERT INTO log VALUES (?1)", [format!("while {row}")]).unwrap();
    });
    let outcome = endless.sync_blocking().unwrap();
    assert_eq!(outcome.action, Action::Merged, "{outcome:?}");
    assert!(!outcome.held.is_zero(), "{outcome:?}");
    // Two rounds, and the record of the merge.
    assert_eq!(outcome.requests, 3, "{outcome:?}");
    pair.settle();
    let rows = pair.all("SELECT text FROM log ORDER BY text");
    assert_eq!(rows, ["begin", "phone", "tablet", "while 1", "while 2"]);
}

#[test]
fn rows_with_and_without_a_key_keep_what_both_sides_did() {
    let pair = Pair::new(SETUP);
    let outcome = rebased(
        &pair,
        "UPDATE t SET a='phone' WHERE id=1; DELETE FROM t WHERE id=3; INSERT INTO log VALUES ('phone')",
        "UPDATE t SET b='tablet' WHERE id=2",
        &[
            "INSERT INTO log VALUES ('first')",
            "UPDATE t SET b='while' WHERE id=1; INSERT INTO log VALUES ('second'); DELETE FROM log WHERE text='begin'",
        ],
    );
    assert_eq!(kinds(&outcome), [], "{outcome:?}");
    assert_eq!(pair.all("SELECT * FROM t"), ["1|phone|while", "2|a|tablet"]);
    assert_eq!(pair.all("SELECT text FROM log ORDER BY text"), ["first", "phone", "second"]);
}

#[test]
fn a_row_that_got_another_id_at_the_server_is_still_the_one_that_the_application_changes() {
    let pair = Pair::new(SETUP);
    let outcome = rebased(
        &pair,
        "INSERT INTO t VALUES (4, 'phone', 'b')",
        "INSERT INTO t VALUES (4, 'tablet', 'b')",
        &[
            "INSERT INTO log VALUES ('first')",
            "UPDATE t SET b='while' WHERE id=4; INSERT INTO child VALUES (1, 4, 'of the tablet')",
        ],
    );
    assert_eq!(kinds(&outcome), [(ConflictKind::Renumbered, "t")], "{outcome:?}");
    assert_eq!(pair.all("SELECT * FROM t WHERE id > 3"), ["4|phone|b", "5|tablet|while"]);
    assert_eq!(pair.all("SELECT t.a FROM child JOIN t ON t.id = child.t"), ["tablet"]);
}

#[test]
fn an_id_that_was_given_twice_while_the_answer_was_under_way_is_told() {
    let pair = Pair::new(SETUP);
    let outcome = rebased(
        &pair,
        "INSERT INTO t VALUES (4, 'phone', 'b'), (5, 'phone', 'b')",
        "INSERT INTO log VALUES ('tablet')",
        &["INSERT INTO log VALUES ('first')", "INSERT INTO t VALUES (4, 'while', 'b')"],
    );
    let conflict = only(&outcome);
    assert_eq!((conflict.kind, conflict.table.as_str()), (ConflictKind::Renumbered, "t"), "{conflict:?}");
    assert_eq!(outcome.conflict_count, 1);
    assert_eq!(pair.all("SELECT id, a FROM t WHERE id > 3"), ["4|phone", "5|phone", "6|while"]);
    // Everybody can read it at the server.
    let merges = pair.phone.conflicts_blocking().unwrap();
    let found: Vec<_> = merges.iter().flat_map(|merge| &merge.conflicts).collect();
    assert_eq!(found, [conflict]);
}

#[test]
fn a_schema_that_changes_while_the_answer_is_under_way_is_the_schema() {
    let pair = Pair::new(SETUP);
    rebased(
        &pair,
        "CREATE TABLE of_the_phone(x); INSERT INTO of_the_phone VALUES (1); INSERT INTO log VALUES ('phone')",
        "INSERT INTO log VALUES ('tablet')",
        &[
            "CREATE TABLE first(x); INSERT INTO first VALUES (1)",
            "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'c'; CREATE TABLE second(x); INSERT INTO second VALUES (2); VACUUM",
        ],
    );
    assert_eq!(
        pair.all("SELECT x FROM of_the_phone UNION SELECT x FROM first UNION SELECT x FROM second"),
        ["1", "2"]
    );
    assert_eq!(pair.all("SELECT c FROM t WHERE id=1"), ["c"]);
}

#[test]
fn a_file_that_shrinks_or_grows_a_lot_meanwhile_is_rebased_too() {
    let big = |text: &str| {
        format!(
            "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 60)
             INSERT INTO log SELECT '{text} ' || value || printf('%.3000c', 'x') FROM n"
        )
    };
    let pair = Pair::new(SETUP);
    pair.on_tablet.execute_batch(&big("old")).unwrap();
    pair.settle();
    rebased(
        &pair,
        &big("phone"),
        "INSERT INTO log VALUES ('tablet')",
        &[
            "INSERT INTO log VALUES ('first')",
            &format!("DELETE FROM log WHERE text LIKE 'old%'; {}; VACUUM", big("while")),
        ],
    );
    assert_eq!(pair.all("SELECT count(*) FROM log"), ["123"]);
    rebased(
        &pair,
        "DELETE FROM log WHERE text LIKE 'phone%'; VACUUM",
        "INSERT INTO log VALUES ('again')",
        &["INSERT INTO log VALUES ('third')", "DELETE FROM log WHERE text LIKE 'while%'; VACUUM"],
    );
    assert_eq!(
        pair.all("SELECT text FROM log ORDER BY text"),
        ["again", "begin", "first", "tablet", "third"]
    );
}

/// The device itself never decides whose value is lost: the server does, and has a record of it.
#[test]
fn what_has_to_be_decided_between_two_devices_is_decided_and_recorded_by_the_server() {
    let pair = Pair::new(SETUP);
    rebased(
        &pair,
        "UPDATE t SET a='phone' WHERE id=1; DELETE FROM t WHERE id=2; INSERT INTO u VALUES ('name', 'phone')",
        "INSERT INTO log VALUES ('tablet')",
        &[
            "INSERT INTO log VALUES ('first')",
            "UPDATE t SET a='tablet' WHERE id=1",
            "UPDATE t SET a='tablet' WHERE id=2",
            "INSERT INTO u VALUES ('name', 'tablet')",
        ],
    );
    let merges = pair.tablet.conflicts_blocking().unwrap();
    let mut found: Vec<_> =
        merges.iter().flat_map(|merge| &merge.conflicts).map(|conflict| conflict.kind).collect();
    found.sort();
    assert_eq!(found, [ConflictKind::Update, ConflictKind::UpdateDelete, ConflictKind::Unique]);
    assert_eq!(pair.all("SELECT a FROM t"), ["tablet", "tablet", "a"]);
    assert_eq!(pair.all("SELECT x FROM u"), ["phone"]);
}

/// The files of a database.
struct Files(Vec<(std::path::PathBuf, Option<Vec<u8>>)>);

impl Files {
    fn of(path: &Path, suffixes: &[&str]) -> Self {
        let file = |suffix: &&str| path.with_extension(format!("db{suffix}"));
        Self(suffixes.iter().map(file).map(|path| (path.clone(), std::fs::read(path).ok())).collect())
    }

    fn put_back(&self) {
        for (path, content) in &self.0 {
            match content {
                Some(content) => std::fs::write(path, content).unwrap(),
                None => drop(std::fs::remove_file(path)),
            }
        }
    }
}

/// Killed before the commit of what was rebased, or after it and before it was noted; then something is written, and perhaps the log is
/// emptied.
#[test]
fn a_rebase_that_was_cut_short_is_taken_for_what_it_was() {
    for committed in [false, true] {
        for then in ["", "write", "write over", "checkpoint", "write, checkpoint"] {
            let what = format!("committed: {committed}, then: {then}");
            let Pair { world, phone, tablet, on_phone, on_tablet } = Pair::new(SETUP);
            on_phone
                .execute_batch("INSERT INTO log VALUES ('phone'); UPDATE t SET a='phone' WHERE id=3")
                .unwrap();
            phone.sync_blocking().unwrap();
            on_tablet.execute_batch("INSERT INTO log VALUES ('tablet')").unwrap();
            let path = tablet.path().to_owned();
            let before: Arc<Mutex<Option<Files>>> = Arc::default();
            let pair = Pair { world, phone, tablet, on_phone, on_tablet };
            let (saved, at) = (Arc::clone(&before), path.clone());
            let mut answers = 0;
            let db = busy_with(&pair, move |connection| {
                answers += 1;
                connection.execute("INSERT INTO log VALUES (?1)", [format!("while {answers}")]).unwrap();
                *saved.lock().unwrap() = Some(Files::of(&at, &["", "-wal", "-info"]));
            });
            let outcome = db.sync_blocking().unwrap();
            assert_eq!((outcome.action, outcome.requests), (Action::Merged, 3), "{what}: {outcome:?}");
            let Pair { world, phone, tablet, on_phone, on_tablet } = pair;
            drop(db);
            let kept = Files::of(&path, &["", "-wal"]);
            drop(on_tablet);
            let _ = std::fs::remove_file(path.with_extension("db-shm"));
            before.lock().unwrap().take().unwrap().put_back();
            if committed {
                kept.put_back();
            }
            let on_tablet = Connection::open(&path).unwrap();
            let mut rows = 5;
            if then.starts_with("write") {
                on_tablet.execute_batch("INSERT INTO log VALUES ('after')").unwrap();
                rows += 1;
            }
            if then == "write over" {
                on_tablet.execute_batch("UPDATE t SET b='after'; UPDATE log SET text=text || '!'").unwrap();
            }
            if then.ends_with("checkpoint") {
                on_tablet.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            }
            let pair = Pair { world, phone, tablet, on_phone, on_tablet };
            pair.tablet.sync_blocking().unwrap_or_else(|error| panic!("{what}: {error}"));
            pair.settle();
            let counts = "SELECT count(*), count(DISTINCT rtrim(text, '!')) FROM log";
            assert_eq!(
                pair.all(counts),
                [format!("{rows}|{rows}")],
                "{what}: {:?}",
                query(&pair.on_phone, "SELECT * FROM log")
            );
            assert_eq!(pair.all("SELECT a FROM t WHERE id=3"), ["phone"], "{what}");
        }
    }
}
