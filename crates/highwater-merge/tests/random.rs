//! What holds for every merge, on random changes of both sides to tables of every kind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_methods, clippy::cast_possible_truncation, unreachable_pub, dead_code)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::{Memory, Scene, texts};
use highwater_merge::{Merged, Options};
use highwater_wire::{Conflict, MergePolicy, SqlValue};
use proptest::prelude::*;
use rusqlite::Connection;

const SCHEMA: &str = "
    CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, mail INTEGER UNIQUE);
    CREATE TABLE orders(id INTEGER PRIMARY KEY AUTOINCREMENT, customer INTEGER REFERENCES customer(id),
        n INTEGER CHECK (n < 9), what TEXT, twice INTEGER AS (n * 2) STORED, CHECK (customer + n < 14));
    CREATE TABLE line(orders INTEGER REFERENCES orders(id), n INTEGER, what TEXT, note TEXT,
        PRIMARY KEY (orders, n)) WITHOUT ROWID;
    CREATE TABLE mark(orders INTEGER, n INTEGER, what TEXT, FOREIGN KEY (orders, n) REFERENCES line ON DELETE CASCADE);
    CREATE TABLE setting(name TEXT COLLATE NOCASE PRIMARY KEY, value TEXT, n INTEGER);
    CREATE TABLE log(what TEXT, n INTEGER);
    CREATE TABLE node(id INTEGER PRIMARY KEY, up INTEGER REFERENCES node(id) ON DELETE SET NULL, what TEXT);
    CREATE TABLE profile(id INTEGER PRIMARY KEY REFERENCES customer(id) ON DELETE CASCADE, what TEXT, more TEXT);
    CREATE TABLE seat(id INTEGER PRIMARY KEY, n INTEGER UNIQUE ON CONFLICT REPLACE, what TEXT NOT NULL);
    CREATE INDEX lines ON line(note); CREATE INDEX logs ON log(what, n);
    WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM c WHERE n < 5)
    INSERT INTO customer SELECT n, 'c' || n || '.', n FROM c;
    INSERT INTO orders(id, customer, n, what) SELECT id, id, id, 'o' || id || '.' FROM customer;
    INSERT INTO line SELECT id, id % 3, 'i' || id || '.', NULL FROM orders;
    INSERT INTO mark SELECT orders, n, 'm' || orders || '.' FROM line;
    INSERT INTO log SELECT 'g' || id || '.', id FROM orders; DELETE FROM log WHERE rowid = 2;
    INSERT INTO node SELECT id, id / 2 + (id < 2), 'n' || id || '.' FROM orders;
    INSERT INTO seat SELECT id, id, 's' || id || '.' FROM orders;
    INSERT INTO setting SELECT char(id + 70), 'v' || id || '.', id FROM orders;";

/// A statement with two small numbers; `?1` and `?2`, and a text that nobody else writes.
const STATEMENTS: &[&str] = &[
    "INSERT INTO customer(name, mail) VALUES ('T', ?1)",
    "INSERT INTO customer VALUES (?1, 'T', ?2)",
    "UPDATE customer SET name = 'T' WHERE id = ?1",
    "UPDATE customer SET mail = ?2 WHERE id = ?1",
    "DELETE FROM customer WHERE id = ?1",
    "INSERT INTO orders(customer, n, what) VALUES (?1, ?2, 'T')",
    "INSERT INTO orders(customer, n, what) SELECT max(id), ?2, 'T' FROM customer",
    "UPDATE orders SET what = 'T' WHERE id = ?1",
    "UPDATE orders SET customer = ?2 WHERE id = ?1",
    "UPDATE orders SET n = ?2 WHERE id = ?1",
    "DELETE FROM orders WHERE id = ?1",
    "INSERT INTO line SELECT max(id), ?2, 'T', 'note' FROM orders",
    "INSERT INTO line VALUES (?1, ?2, 'T', NULL)",
    "UPDATE line SET what = 'T' WHERE orders = ?1 AND n = (SELECT max(n) FROM line WHERE orders = ?1)",
    "UPDATE line SET note = 'T' WHERE orders = ?1 AND n = (SELECT max(n) FROM line WHERE orders = ?1)",
    "DELETE FROM line WHERE orders = ?1",
    "INSERT INTO mark SELECT orders, n, 'T' FROM line WHERE orders >= ?1 LIMIT 1",
    "DELETE FROM mark WHERE orders = ?1",
    "INSERT INTO setting VALUES (char(?1 + 70), 'T', ?2)",
    "INSERT INTO setting VALUES (char(?1 + 102), 'T', ?2)",
    "UPDATE setting SET value = 'T' WHERE name = char(?1 + 70)",
    "UPDATE setting SET name = lower(name), n = ?2 WHERE name = char(?1 + 70)",
    "DELETE FROM setting WHERE name = char(?1 + 70)",
    "INSERT INTO log VALUES ('T', ?1)",
    "UPDATE log SET what = 'T' WHERE rowid = ?1",
    "UPDATE log SET n = ?2 WHERE rowid = ?1",
    "DELETE FROM log WHERE rowid = ?1",
    "INSERT INTO node(up, what) VALUES (?1, 'T')",
    "INSERT INTO node(up, what) SELECT max(id), 'T' FROM node",
    "UPDATE node SET up = ?2 WHERE id = ?1",
    "UPDATE node SET what = 'T' WHERE id = ?1",
    "DELETE FROM node WHERE id = ?1",
    "INSERT INTO profile VALUES (?1, 'T', NULL)",
    "INSERT INTO profile SELECT max(id), 'T', NULL FROM customer",
    "UPDATE profile SET more = 'T' WHERE id = ?1",
    "INSERT INTO seat(n, what) VALUES (?2, 'T')",
    "UPDATE seat SET n = ?2 WHERE id = ?1",
    "UPDATE seat SET n = -1 - n; UPDATE seat SET n = (?1 + ?2 - n) % 11 WHERE n < 0",
    "UPDATE seat SET what = 'T' WHERE id = ?1",
    "DELETE FROM seat WHERE id = ?1",
    "VACUUM",
];

type Steps = Vec<(usize, u8, u8)>;

fn steps(most: usize) -> impl Strategy<Value = Steps> {
    prop::collection::vec((0..STATEMENTS.len(), 1..8_u8, 0..10_u8), 0..most)
}

/// Runs what the constraints allow.
fn run(path: &Path, steps: &Steps, who: &str) -> Memory {
    let db = Connection::open(path).unwrap();
    db.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY").unwrap();
    for (at, (statement, one, two)) in steps.iter().enumerate() {
        let sql = STATEMENTS[*statement].replace("'T'", &format!("'{who}{at}.'"));
        let sql = sql.replace("?1", &one.to_string()).replace("?2", &two.to_string());
        if db.execute_batch(&format!("BEGIN; {sql}; COMMIT")).is_err() {
            let _ = db.execute_batch("ROLLBACK");
        }
        if sql == "VACUUM" {
            db.execute_batch(&sql).unwrap();
        }
    }
    assert_eq!(texts(&db, "PRAGMA foreign_key_check"), [""; 0]);
    drop(db);
    Memory::of_file(path)
}

fn scene(base: &Steps, local: &Steps, head: &Steps) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let db = Connection::open(path("base")).unwrap();
    db.execute_batch(&format!("PRAGMA synchronous = OFF; {SCHEMA}")).unwrap();
    drop(db);
    let base = run(&path("base"), base, "b");
    for side in ["local", "head"] {
        std::fs::copy(path("base"), path(side)).unwrap();
    }
    Scene::of(base, run(&path("local"), local, "l"), run(&path("head"), head, "h"))
}

fn tables(db: &Connection) -> Vec<String> {
    texts(db, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY 1")
}

fn contents(db: &Connection) -> BTreeMap<String, Vec<String>> {
    let rows = |table: &String| {
        let mut rows = texts(db, &format!("SELECT * FROM {table}"));
        rows.sort();
        rows
    };
    tables(db).into_iter().map(|table| (table.clone(), rows(&table))).collect()
}

/// What was written, and how often it is there.
fn tokens<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for value in texts.filter(|text| text.ends_with('.')) {
        *found.entry(value.to_owned()).or_insert(0) += 1;
    }
    found
}

fn tokens_of(db: &Connection) -> BTreeMap<String, usize> {
    let all = contents(db);
    tokens(all.values().flatten().flat_map(|row| row.split('|')))
}

fn recorded(conflicts: &[Conflict]) -> BTreeSet<String> {
    let rows = conflicts.iter().flat_map(|conflict| [&conflict.base, &conflict.local, &conflict.head]);
    let text = |(_, value): &(String, SqlValue)| match value {
        SqlValue::Text(text) => Some(String::from_utf8(text.clone()).unwrap()),
        _ => None,
    };
    rows.flatten().flatten().filter_map(text).collect()
}

/// The answer to the first merge was lost, and both sides went on: the next one starts from what the device had.
fn goes_on([base, local, head, later, meanwhile]: [&Steps; 5]) {
    let first = scene(base, local, head);
    let pending = first.local.clone();
    let result = first.done(&Options::default());
    let folder = tempfile::tempdir().unwrap();
    let went_on = |from: &Memory, name: &str, steps: &Steps| {
        let path = folder.path().join(name);
        drop(from.open(&path));
        run(&path, steps, name)
    };
    let (device, server) =
        (went_on(&pending, "later", later), went_on(&result.pages, "meanwhile", meanwhile));
    let [before, mine, theirs] =
        [&pending, &device, &server].map(|side| tokens_of(&side.open(&folder.path().join("look"))));
    let options = Options {
        renumbered: result.merge.renumbered.clone(),
        rejected: result.merge.rejected.clone(),
        ..Options::default()
    };
    let second = Scene::of(pending, device, server).done(&options);
    assert_eq!(second.rows("PRAGMA foreign_key_check"), [""; 0], "{:#?}", second.conflicts());
    let now = tokens_of(&second.db);
    let recorded = recorded(second.conflicts());
    for (token, count) in &now {
        assert_eq!(*count, 1, "{token} is there more than once");
        assert!(mine.contains_key(token) || theirs.contains_key(token), "nobody has {token}");
    }
    let new = |token: &&String| !before.contains_key(*token);
    for token in mine.keys().chain(theirs.keys()).filter(new) {
        assert!(now.contains_key(token) || recorded.contains(token), "{token} is lost");
    }
}

fn holds(base: &Steps, local: &Steps, head: &Steps, policy: MergePolicy) {
    let scene = scene(base, local, head);
    let folder = tempfile::tempdir().unwrap();
    let open = |of: &Memory, name: &str| of.open(&folder.path().join(name));
    let [before, mine, theirs] = [(&scene.base, "b"), (&scene.local, "l"), (&scene.head, "h")]
        .map(|(side, name)| tokens_of(&open(side, name)));
    let old = contents(&open(&scene.head, "old"));
    let result = scene.done(&Options { policy, ..Options::default() });
    assert_eq!(result.rows("PRAGMA foreign_key_check"), [""; 0], "{:#?}", result.conflicts());

    let recorded = recorded(result.conflicts());
    let now = tokens_of(&result.db);
    for (token, count) in &now {
        assert_eq!(*count, 1, "{token} is there more than once");
        let known = [&before, &mine, &theirs].iter().any(|side| side.contains_key(token));
        assert!(known, "nobody wrote {token}");
    }
    for token in mine.keys().filter(|token| !before.contains_key(*token) || theirs.contains_key(*token)) {
        assert!(now.contains_key(token) || recorded.contains(token), "{token} of the device is lost");
    }
    for token in theirs.keys().filter(|token| !before.contains_key(*token)) {
        assert!(now.contains_key(token) || recorded.contains(token), "{token} of the server is lost");
    }
    if result.merge.pages.is_empty() {
        assert_eq!(contents(&result.db), old);
    }
}

proptest! {
    #![proptest_config(common::tries(120))]

    #[test]
    fn every_row_of_both_sides_is_in_the_result_or_in_a_record(
        base in steps(40), local in steps(20), head in steps(20), first in any::<bool>(),
    ) {
        holds(&base, &local, &head, if first { MergePolicy::FirstPushWins } else { MergePolicy::LastPushWins });
    }
}

proptest! {
    #![proptest_config(common::tries(40))]

    #[test]
    fn after_a_lost_answer_nothing_is_doubled_and_nothing_missing(
        base in steps(10), local in steps(15), head in steps(15), later in steps(15), meanwhile in steps(15),
    ) {
        goes_on([&base, &local, &head, &later, &meanwhile]);
    }

    #[test]
    fn one_side_alone_is_the_result(base in steps(40), other in steps(25)) {
        let scene = scene(&base, &Steps::new(), &other);
        let same = Scene::of(scene.base.clone(), scene.base.clone(), scene.head.clone()).done(&Options::default());
        prop_assert_eq!(&same.merge.pages, &[]);
        prop_assert_eq!(same.conflicts(), &[]);
        let folder = tempfile::tempdir().unwrap();
        let wanted = contents(&scene.head.open(&folder.path().join("wanted")));
        let taken = Scene::of(scene.base.clone(), scene.head.clone(), scene.base.clone()).done(&Options::default());
        prop_assert_eq!(taken.conflicts(), &[]);
        prop_assert_eq!(contents(&taken.db), wanted);
    }

    #[test]
    fn changes_of_different_rows_never_conflict(rows in prop::collection::vec((1..40_u8, any::<bool>(), 0..3_u8), 1..30)) {
        let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
                    CREATE TABLE u(k TEXT UNIQUE PRIMARY KEY, v);
                    WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM c WHERE n < 39)
                    INSERT INTO t SELECT n, 'old' FROM c; INSERT INTO w SELECT id, v FROM t; INSERT INTO u SELECT id, v FROM t";
        let owner: BTreeMap<u8, (bool, u8)> = rows.iter().map(|(id, who, what)| (*id, (*who, *what))).collect();
        let sql = |side: bool| -> String {
            owner.iter().filter(|(_, (who, _))| *who == side).map(|(id, (_, what))| {
                let statement = |table: &str, key: &str| match what {
                    0 => format!("DELETE FROM {table} WHERE {key} = {id};"),
                    1 => format!("UPDATE {table} SET v = '{side}' WHERE {key} = {id};"),
                    _ => format!("INSERT INTO {table} VALUES ({}, '{side}');", 100 + u16::from(*id)),
                };
                [("t", "id"), ("w", "k"), ("u", "k")].map(|(table, key)| statement(table, key)).concat()
            }).collect()
        };
        let scene = Scene::new(base, &sql(true), &sql(false));
        let fail = Options { policy: MergePolicy::Fail, ..Options::default() };
        let Merged::Done(merge) = scene.merged(&fail) else { panic!("a conflict") };
        prop_assert_eq!(&merge.conflicts, &[]);
        let both = Scene::new(base, &(sql(true) + &sql(false)), "");
        let result = scene.done(&fail);
        let folder = tempfile::tempdir().unwrap();
        prop_assert_eq!(contents(&result.db), contents(&both.local.open(&folder.path().join("both"))));
    }
}
