//! One test for each rule of docs/MERGING.md.

use highwater::{Action, ConflictKind, Error, ErrorKind, Kept, MergePolicy, TxId};

use crate::{Pair, kinds, only, query, value};

const TASKS: &str = "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title TEXT, done INT);
     INSERT INTO tasks VALUES (1, 'Buy milk', 0), (2, 'Water plants', 0), (3, 'Call home', 0)";

#[test]
fn what_only_one_device_changed_is_on_both() {
    let pair = Pair::new(TASKS);
    let merged = pair.merge(
        "INSERT INTO tasks VALUES (10, 'phone', 0); DELETE FROM tasks WHERE id=3",
        "INSERT INTO tasks VALUES (20, 'tablet', 0); UPDATE tasks SET done=1 WHERE id=2",
    );
    assert_eq!(merged.conflicts, []);
    assert_eq!(
        pair.all("SELECT * FROM tasks"),
        ["1|Buy milk|0", "2|Water plants|1", "10|phone|0", "20|tablet|0"]
    );
}

#[test]
fn the_same_change_on_both_is_one_change() {
    let pair = Pair::new(TASKS);
    let same = "UPDATE tasks SET done=1 WHERE id=1; DELETE FROM tasks WHERE id=2";
    let merged = pair.merge(same, &format!("{same}; UPDATE tasks SET title='Call mum' WHERE id=3"));
    assert_eq!(merged.conflicts, []);
    assert_eq!(pair.all("SELECT * FROM tasks"), ["1|Buy milk|1", "3|Call mum|0"]);
}

#[test]
fn two_columns_of_one_row_carry_both_changes() {
    let pair = Pair::new(TASKS);
    let merged =
        pair.merge("UPDATE tasks SET title='Buy oat milk' WHERE id=1", "UPDATE tasks SET done=1 WHERE id=1");
    assert_eq!(merged.conflicts, []);
    assert_eq!(pair.all("SELECT * FROM tasks WHERE id=1"), ["1|Buy oat milk|1"]);
}

const OATS: &str = "UPDATE tasks SET title='Buy oat milk' WHERE id=1";
const CHEESE: &str = "UPDATE tasks SET title='Buy cheese' WHERE id=1";

#[test]
fn of_two_values_in_one_column_the_last_push_wins_and_the_other_one_is_recorded() {
    let pair = Pair::new(TASKS);
    let merged = pair.merge(OATS, CHEESE);
    assert_eq!(pair.all("SELECT title FROM tasks WHERE id=1"), ["Buy cheese"]);
    let conflict = only(&merged);
    assert_eq!((conflict.kind, conflict.kept), (ConflictKind::Update, Kept::Local));
    assert_eq!(conflict.columns, ["title"]);
    assert_eq!(value(Some(&conflict.key), "id"), "1");
    assert_eq!(value(conflict.base.as_ref(), "title"), "'Buy milk'");
    assert_eq!(value(conflict.local.as_ref(), "title"), "'Buy cheese'");
    assert_eq!(value(conflict.head.as_ref(), "title"), "'Buy oat milk'");
    // Whoever wants the other one runs what the record says.
    pair.on_phone.execute_batch(&conflict.put_back().unwrap()).unwrap();
    pair.settle();
    assert_eq!(pair.all("SELECT title FROM tasks WHERE id=1"), ["Buy oat milk"]);
}

#[test]
fn with_first_push_wins_the_first_value_stays_and_the_other_one_is_recorded() {
    let pair = Pair::new(TASKS);
    pair.on_phone.execute_batch(OATS).unwrap();
    pair.on_tablet.execute_batch(CHEESE).unwrap();
    pair.phone.sync_blocking().unwrap();
    let tablet = pair.world.builder("tablet.db").merge_policy(MergePolicy::FirstPushWins).open().unwrap();
    let merged = tablet.sync_blocking().unwrap();
    assert_eq!((merged.action, only(&merged).kept), (Action::Merged, Kept::Head));
    pair.settle();
    assert_eq!(pair.all("SELECT title FROM tasks WHERE id=1"), ["Buy oat milk"]);
    pair.on_tablet.execute_batch(&only(&merged).put_back().unwrap()).unwrap();
    pair.settle();
    assert_eq!(pair.all("SELECT title FROM tasks WHERE id=1"), ["Buy cheese"]);
}

#[test]
fn with_the_policy_to_fail_nothing_is_merged_and_the_rows_are_named() {
    let pair = Pair::new(TASKS);
    pair.on_phone.execute_batch(OATS).unwrap();
    pair.on_tablet.execute_batch(CHEESE).unwrap();
    pair.phone.sync_blocking().unwrap();
    let head = pair.phone.info_blocking().unwrap().head;
    let tablet = pair.world.builder("tablet.db").merge_policy(MergePolicy::Fail).open().unwrap();
    for _ in 0..3 {
        let error = tablet.sync_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let Error::Conflict { conflicts, .. } = &error else { panic!("{error}") };
        assert_eq!(conflicts[0].kind, ConflictKind::Update);
        let text = error.to_string();
        assert!(text.contains("tasks id = 1 in title") && text.contains("--policy"), "{text}");
        assert_eq!(pair.phone.info_blocking().unwrap().head, head, "nothing was stored");
        assert_eq!(query(&pair.on_tablet, "SELECT title FROM tasks WHERE id=1"), ["Buy cheese"]);
    }
    // What does not meet is merged with that policy, too.
    pair.on_tablet
        .execute_batch(
            "UPDATE tasks SET title='Buy milk', done=1 WHERE id=1; INSERT INTO tasks VALUES (9, 'x', 0)",
        )
        .unwrap();
    assert_eq!(tablet.sync_blocking().unwrap().action, Action::Merged);
    pair.settle();
    assert_eq!(pair.all("SELECT * FROM tasks WHERE id IN (1, 9)"), ["1|Buy oat milk|1", "9|x|0"]);
}

#[test]
fn a_change_survives_a_deletion_in_either_order_and_the_deletion_is_recorded() {
    for (phone, tablet) in
        [("DELETE FROM tasks WHERE id=1", CHEESE), (CHEESE, "DELETE FROM tasks WHERE id=1")]
    {
        let pair = Pair::new(TASKS);
        let merged = pair.merge(phone, tablet);
        assert_eq!(kinds(&merged), [(ConflictKind::UpdateDelete, "tasks")]);
        assert_eq!(pair.all("SELECT * FROM tasks WHERE id=1"), ["1|Buy cheese|0"]);
        pair.on_phone.execute_batch(&only(&merged).put_back().unwrap()).unwrap();
        pair.settle();
        assert_eq!(pair.all("SELECT count(*) FROM tasks"), ["2"]);
    }
}

#[test]
fn two_new_rows_with_one_declared_key_are_one_row() {
    let pair = Pair::new("CREATE TABLE settings(name TEXT PRIMARY KEY, value TEXT, note TEXT) WITHOUT ROWID");
    let merged = pair.merge(
        "INSERT INTO settings VALUES ('theme', 'dark', NULL), ('lang', 'de', NULL)",
        "INSERT INTO settings VALUES ('theme', 'light', NULL), ('lang', 'de', NULL)",
    );
    let conflict = only(&merged);
    assert_eq!(
        (conflict.kind, value(Some(&conflict.key), "name").as_str()),
        (ConflictKind::Update, "'theme'")
    );
    assert_eq!(pair.all("SELECT name, value FROM settings"), ["lang|de", "theme|light"]);
}

const PROJECTS: &str = "PRAGMA foreign_keys=ON;
     CREATE TABLE tasks(id INTEGER PRIMARY KEY, title TEXT);
     CREATE TABLE notes(id INTEGER PRIMARY KEY, task INT REFERENCES tasks(id), text TEXT);
     INSERT INTO tasks VALUES (1, 'first')";

#[test]
fn two_new_rows_with_one_id_both_live_and_foreign_keys_follow() {
    let pair = Pair::new(PROJECTS);
    let merged = pair.merge(
        "INSERT INTO tasks(title) VALUES ('Call Ada'); INSERT INTO notes(task, text) VALUES (2, 'Ada''s')",
        "INSERT INTO tasks(title) VALUES ('Call Bob'); INSERT INTO notes(task, text) VALUES (2, 'Bob''s'), (1, 'old')",
    );
    let renumbered = kinds(&merged);
    assert!(renumbered.iter().all(|(kind, _)| *kind == ConflictKind::Renumbered), "{renumbered:?}");
    assert!(merged.conflicts.iter().all(|conflict| conflict.put_back().is_none()));
    assert_eq!(
        pair.all("SELECT title, text FROM notes JOIN tasks ON tasks.id = task ORDER BY text"),
        ["Call Ada|Ada's", "Call Bob|Bob's", "first|old"]
    );
    let tasks = merged.conflicts.iter().find(|conflict| conflict.table == "tasks").unwrap();
    assert_eq!(value(Some(&tasks.key), "id"), "2");
    let id = value(Some(&tasks.other_key), "id");
    assert_eq!(pair.all("SELECT id FROM tasks WHERE title='Call Bob'"), [id]);
    assert_eq!(pair.all("PRAGMA foreign_key_check"), [""; 0]);
}

#[test]
fn equal_rows_in_a_table_without_a_key_are_as_many_as_were_written() {
    let pair = Pair::new("CREATE TABLE log(text); INSERT INTO log VALUES ('start')");
    pair.merge("INSERT INTO log VALUES ('tick'), ('tick')", "INSERT INTO log VALUES ('tick')");
    assert_eq!(pair.all("SELECT text FROM log ORDER BY text"), ["start", "tick", "tick", "tick"]);
    // And again, after a VACUUM on one side.
    pair.merge(
        "DELETE FROM log WHERE rowid=1; INSERT INTO log VALUES ('tock')",
        "VACUUM; INSERT INTO log VALUES ('tick')",
    );
    assert_eq!(pair.all("SELECT text FROM log ORDER BY text"), ["tick", "tick", "tick", "tick", "tock"]);
}

#[test]
fn a_row_that_breaks_a_constraint_is_recorded_whole_and_the_rest_is_applied() {
    let setup = "CREATE TABLE users(id TEXT PRIMARY KEY, email TEXT UNIQUE, age INT);
         INSERT INTO users VALUES ('u-1', 'eve@x', 30)";
    let pair = Pair::new(setup);
    let merged = pair.merge(
        "INSERT INTO users VALUES ('u-17', 'ada@x', 40)",
        "INSERT INTO users VALUES ('u-18', 'ada@x', 50), ('u-19', 'bob@x', 60); UPDATE users SET age=31",
    );
    assert_eq!(kinds(&merged), [(ConflictKind::Unique, "users")]);
    assert_eq!(value(only(&merged).local.as_ref(), "id"), "'u-18'");
    assert_eq!(value(only(&merged).local.as_ref(), "age"), "31");
    assert_eq!(
        pair.all("SELECT id, email, age FROM users"),
        ["u-1|eve@x|31", "u-17|ada@x|40", "u-19|bob@x|31"].map(str::to_owned)
    );
}

#[test]
fn a_row_that_points_to_a_deleted_one_is_recorded() {
    let pair = Pair::new(PROJECTS);
    let merged =
        pair.merge("DELETE FROM tasks WHERE id=1", "INSERT INTO notes VALUES (7, 1, 'about the first')");
    assert_eq!(kinds(&merged), [(ConflictKind::ForeignKey, "notes")]);
    assert_eq!(value(only(&merged).local.as_ref(), "text"), "'about the first'");
    assert_eq!(pair.all("SELECT count(*) FROM notes"), ["0"]);
    assert_eq!(pair.all("PRAGMA foreign_key_check"), [""; 0]);
}

#[test]
fn columns_that_both_added_are_all_there() {
    let pair = Pair::new(TASKS);
    let merged = pair.merge(
        "ALTER TABLE tasks ADD COLUMN due TEXT DEFAULT 'never'; UPDATE tasks SET due='today' WHERE id=1",
        "ALTER TABLE tasks ADD COLUMN who TEXT; UPDATE tasks SET who='Bob' WHERE id=1; \
         INSERT INTO tasks(id, title, who) VALUES (8, 'new', 'Eve')",
    );
    assert_eq!(merged.conflicts, []);
    assert_eq!(
        pair.all("SELECT id, due, who FROM tasks WHERE id IN (1, 2, 8)"),
        ["1|today|Bob", "2|never|NULL", "8|never|Eve"]
    );
    // The connections that stayed open write the right tables.
    pair.merge("UPDATE tasks SET due='x' WHERE id=2", "UPDATE tasks SET who='y' WHERE id=2");
    assert_eq!(pair.all("SELECT due, who FROM tasks WHERE id=2"), ["x|y"]);
}

#[test]
fn tables_and_indexes_of_both_are_there_and_the_same_migration_is_one() {
    let pair = Pair::new(TASKS);
    let same = "CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE);";
    pair.merge(
        &format!("{same} CREATE TABLE a(x); INSERT INTO a VALUES (1); INSERT INTO tags VALUES (1, 'red')"),
        &format!(
            "{same} CREATE TABLE b(x); INSERT INTO b VALUES (2); CREATE INDEX t ON tasks(title); INSERT INTO tags VALUES (2, 'blue')"
        ),
    );
    assert_eq!(
        pair.all("SELECT (SELECT x FROM a), (SELECT x FROM b), group_concat(name) FROM tags"),
        ["1|2|red,blue"]
    );
    assert_eq!(pair.all("SELECT count(*) FROM sqlite_schema WHERE name='t'"), ["1"]);
}

#[test]
fn two_definitions_of_one_table_leave_the_first_and_record_the_other_with_its_rows() {
    let pair = Pair::new(TASKS);
    let merged = pair.merge(
        "CREATE TABLE tags(name TEXT PRIMARY KEY); INSERT INTO tags VALUES ('red')",
        "CREATE TABLE tags(label TEXT, color INT); INSERT INTO tags VALUES ('mine', 7)",
    );
    let schema = merged.conflicts.iter().find(|conflict| conflict.kind == ConflictKind::Schema).unwrap();
    assert!(schema.sql.as_ref().unwrap().contains("label"), "{schema:?}");
    assert!(
        merged.conflicts.iter().any(|conflict| format!("{:?}", conflict.local).contains("color")),
        "the row is recorded: {merged:#?}"
    );
    assert_eq!(pair.all("SELECT name FROM tags WHERE name IS NOT NULL"), ["red"]);
}

#[test]
fn generated_columns_are_computed_from_the_merged_row() {
    let pair = Pair::new(
        "CREATE TABLE items(id INTEGER PRIMARY KEY, price INT, number INT, total INT AS (price * number) STORED);
         INSERT INTO items(id, price, number) VALUES (1, 2, 3)",
    );
    let merged = pair.merge("UPDATE items SET price=10 WHERE id=1", "UPDATE items SET number=100 WHERE id=1");
    assert_eq!(merged.conflicts, []);
    assert_eq!(pair.all("SELECT total FROM items"), ["1000"]);
}

#[test]
fn autoincrement_goes_on_behind_the_larger_number() {
    let pair =
        Pair::new("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, x); INSERT INTO t(x) VALUES (0)");
    pair.merge(
        "INSERT INTO t(x) VALUES (1), (2), (3); DELETE FROM t WHERE x=3",
        "INSERT INTO t(x) VALUES (4)",
    );
    pair.on_phone.execute_batch("INSERT INTO t(x) VALUES (9)").unwrap();
    pair.settle();
    assert_eq!(pair.all("SELECT group_concat(x, ',') FROM (SELECT x FROM t ORDER BY x)"), ["0,1,2,4,9"]);
    let sequence = pair.all("SELECT seq >= (SELECT max(id) FROM t) FROM sqlite_sequence WHERE name='t'");
    assert_eq!(sequence, ["1"]);
}

#[test]
fn an_id_of_autoincrement_that_either_side_gave_and_deleted_is_not_given_again() {
    let many = "INSERT INTO t(x) VALUES (1), (2), (3), (4); DELETE FROM t WHERE x=4";
    for (phone, tablet) in [(many, "INSERT INTO t(x) VALUES (5)"), ("INSERT INTO u VALUES (5)", many)] {
        let pair = Pair::new(
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, x); CREATE TABLE u(x); INSERT INTO t(x) VALUES (0)",
        );
        pair.merge(phone, tablet);
        pair.on_phone.execute_batch("INSERT INTO t(x) VALUES (9)").unwrap();
        pair.settle();
        assert_eq!(pair.all("SELECT id > 5 FROM t WHERE x=9"), ["1"], "{phone}");
    }
}

#[test]
fn triggers_do_not_fire_a_second_time() {
    let pair = Pair::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE TABLE audit(id TEXT PRIMARY KEY, what TEXT);
         CREATE TRIGGER noted AFTER INSERT ON t BEGIN INSERT INTO audit VALUES ('t' || new.id, 'inserted'); END",
    );
    pair.merge("INSERT INTO t VALUES (1, 'phone')", "INSERT INTO t VALUES (2, 'tablet')");
    assert_eq!(pair.all("SELECT id FROM audit"), ["t1", "t2"]);
}

#[test]
fn full_text_search_finds_what_both_wrote() {
    let pair = Pair::new(
        "CREATE VIRTUAL TABLE docs USING fts5(title, body); INSERT INTO docs VALUES ('a', 'apple pie')",
    );
    pair.merge(
        "INSERT INTO docs VALUES ('b', 'banana bread')",
        "INSERT INTO docs VALUES ('c', 'cherry pie'); UPDATE docs SET body='apple cake' WHERE title='a'",
    );
    let found =
        |word: &str| pair.all(&format!("SELECT title FROM docs WHERE docs MATCH '{word}' ORDER BY title"));
    assert_eq!(found("banana"), ["b"]);
    assert_eq!(found("pie"), ["c"]);
    assert_eq!(found("cake"), ["a"]);
    pair.on_phone.execute_batch("INSERT INTO docs(docs) VALUES ('integrity-check')").unwrap();
}

#[test]
fn an_r_tree_has_what_both_wrote() {
    let pair = Pair::new(
        "CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, y0, y1); INSERT INTO places VALUES (1, 0, 1, 0, 1)",
    );
    pair.merge("INSERT INTO places VALUES (2, 5, 6, 5, 6)", "INSERT INTO places VALUES (3, 7, 8, 7, 8)");
    assert_eq!(pair.all("SELECT id FROM places WHERE x0 >= 5 ORDER BY id"), ["2", "3"]);
    assert_eq!(pair.all("SELECT rtreecheck('places')"), ["ok"]);
}

#[test]
fn what_cannot_be_merged_is_refused_by_name_and_goes_on_when_one_side_has_none() {
    let pair = Pair::new(
        "CREATE VIRTUAL TABLE docs USING fts5(body, content=''); INSERT INTO docs(rowid, body) VALUES (1, 'x')",
    );
    pair.on_phone.execute_batch("INSERT INTO docs(rowid, body) VALUES (2, 'phone')").unwrap();
    pair.on_tablet.execute_batch("INSERT INTO docs(rowid, body) VALUES (3, 'tablet')").unwrap();
    pair.phone.sync_blocking().unwrap();
    let head = pair.phone.info_blocking().unwrap().head;
    let error = pair.tablet.sync_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        matches!(&error, Error::CannotMerge { object: Some(object), .. } if object == "docs"),
        "{error:?}"
    );
    assert!(error.to_string().contains("nothing was lost"), "{error}");
    assert_eq!(pair.phone.info_blocking().unwrap().head, head);
    assert_eq!(query(&pair.on_tablet, "SELECT rowid FROM docs WHERE docs MATCH 'tablet'"), ["3"]);
}

#[test]
fn conflicts_are_listed_for_everybody_until_somebody_has_seen_them() {
    let pair = Pair::new(TASKS);
    let merged = pair.merge(OATS, CHEESE);
    for db in [&pair.phone, &pair.tablet] {
        let merges = db.conflicts_blocking().unwrap();
        assert_eq!(merges.len(), 1);
        assert_eq!(merges[0].conflicts, merged.conflicts);
        assert_eq!(merges[0].device, pair.tablet.status().unwrap().device.unwrap().to_string());
    }
    let txid = TxId(pair.phone.conflicts_blocking().unwrap()[0].txid);
    assert!(pair.phone.resolve_conflicts_blocking(txid).unwrap().resolved);
    assert_eq!(pair.tablet.conflicts_blocking().unwrap(), []);
    let error = pair.phone.resolve_conflicts_blocking(TxId(1)).unwrap_err();
    assert!(matches!(error, Error::UnknownMerge { .. }), "{error}");
}

#[test]
fn a_pull_does_not_send_and_says_that_a_sync_merges() {
    let pair = Pair::new(TASKS);
    pair.on_phone.execute_batch(OATS).unwrap();
    pair.on_tablet.execute_batch("UPDATE tasks SET done=1").unwrap();
    pair.phone.sync_blocking().unwrap();
    let error = pair.tablet.pull_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("highwater sync"), "{error}");
    // A push with something to send is merged, and the copy becomes the result.
    assert_eq!(pair.tablet.push_blocking().unwrap().action, Action::Merged);
    pair.settle();
    assert_eq!(pair.all("SELECT * FROM tasks WHERE id=1"), ["1|Buy oat milk|1"]);
}
