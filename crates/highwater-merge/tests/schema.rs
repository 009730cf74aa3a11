//! Changes of the schema on one side and on both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    dead_code,
    missing_docs,
    unreachable_pub
)]

mod common;

use common::{Scene, merged, refused};
use highwater_merge::Options;
use highwater_wire::ConflictKind::{NoPlace, Schema};
use highwater_wire::{Kept, MergePolicy};

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT, body TEXT);
    INSERT INTO notes VALUES (1, 'a', 'x'), (2, 'b', 'y');";

#[test]
fn a_new_table_index_view_and_trigger_of_the_device_arrive() {
    let result = merged(
        NOTES,
        "CREATE TABLE tags (note INT REFERENCES notes(id), tag TEXT);
         CREATE INDEX by_title ON notes(title);
         CREATE VIEW titles AS SELECT title FROM notes;
         CREATE TRIGGER tidy AFTER DELETE ON notes BEGIN DELETE FROM tags WHERE note = old.id; END;
         INSERT INTO tags VALUES (1, 'red');",
        "INSERT INTO notes VALUES (3, 'c', 'z')",
    )
    .peaceful();
    let names =
        result.rows("SELECT type || ' ' || name FROM sqlite_schema WHERE name <> 'always' ORDER BY 1");
    assert_eq!(names, ["index by_title", "table notes", "table tags", "trigger tidy", "view titles"]);
    assert_eq!(result.rows("SELECT * FROM tags"), ["1|red"]);
    assert_eq!(result.rows("SELECT * FROM titles"), ["a", "b", "c"]);
    result.db.execute_batch("DELETE FROM notes WHERE id = 1").unwrap();
    assert!(result.rows("SELECT * FROM tags").is_empty());
}

#[test]
fn what_only_the_head_changed_stays_and_its_rows_take_the_devices() {
    let result = merged(
        NOTES,
        "UPDATE notes SET title = 'A' WHERE id = 1; INSERT INTO notes VALUES (3, 'c', 'z')",
        "ALTER TABLE notes ADD COLUMN pinned INT DEFAULT 0; CREATE INDEX by_title ON notes(title);
         CREATE TABLE other (x); INSERT INTO other VALUES (1); UPDATE notes SET pinned = 1 WHERE id = 1",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM notes"), ["1|A|x|1", "2|b|y|0", "3|c|z|0"]);
    assert_eq!(result.rows("SELECT * FROM other"), ["1"]);
    assert_eq!(result.rows("SELECT count(*) FROM sqlite_schema WHERE name = 'by_title'"), ["1"]);
}

#[test]
fn what_the_device_dropped_goes() {
    let result = merged(
        &format!(
            "{NOTES} CREATE TABLE old (a); INSERT INTO old VALUES (1); CREATE INDEX by_a ON old(a);
             CREATE INDEX by_title ON notes(title); CREATE VIEW v AS SELECT 1;
             CREATE TRIGGER t AFTER INSERT ON notes BEGIN SELECT 1; END;"
        ),
        "DROP TABLE old; DROP INDEX by_title; DROP VIEW v; DROP TRIGGER t",
        "INSERT INTO notes VALUES (3, 'c', 'z')",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT name FROM sqlite_schema"), ["always", "notes"]);
}

#[test]
fn a_table_that_the_device_dropped_stays_when_the_head_changed_rows() {
    let result = merged(
        &format!("{NOTES} CREATE INDEX by_title ON notes(title);"),
        "DROP TABLE notes",
        "UPDATE notes SET title = 'A' WHERE id = 1",
    );
    assert_eq!(result.kinds(), [(Schema, "notes")]);
    assert_eq!((result.conflicts()[0].kept, &result.conflicts()[0].sql), (Kept::Head, &None));
    assert_eq!(result.rows("SELECT title FROM notes INDEXED BY by_title ORDER BY title"), ["A", "b"]);
}

#[test]
fn a_table_that_the_head_dropped_stays_dropped_and_changed_rows_are_recorded() {
    let result = merged(NOTES, "UPDATE notes SET title = 'A' WHERE id = 1", "DROP TABLE notes");
    assert_eq!(result.kinds(), [(NoPlace, "notes")]);
    let quiet = merged(NOTES, "INSERT INTO always VALUES (1)", "DROP TABLE notes").peaceful();
    assert_eq!(quiet.rows("SELECT name FROM sqlite_schema"), ["always"]);
}

#[test]
fn a_table_that_the_head_dropped_and_the_device_altered_is_recorded() {
    let result = merged(NOTES, "ALTER TABLE notes ADD COLUMN pinned", "DROP TABLE notes");
    assert_eq!(result.kinds(), [(Schema, "notes")]);
    assert!(result.conflicts()[0].sql.as_ref().unwrap().contains("pinned"));
}

#[test]
fn columns_added_on_both_sides_are_all_there() {
    let result = merged(
        NOTES,
        "ALTER TABLE notes ADD COLUMN colour TEXT DEFAULT 'red'; UPDATE notes SET colour = 'blue' WHERE id = 1;
         INSERT INTO notes VALUES (3, 'c', 'z', 'green')",
        "ALTER TABLE notes ADD COLUMN pinned INT DEFAULT 0; UPDATE notes SET pinned = 1 WHERE id = 2;
         INSERT INTO notes VALUES (4, 'd', 'w', 1)",
    )
    .peaceful();
    assert_eq!(result.columns("notes"), ["id", "title", "body", "pinned", "colour"]);
    assert_eq!(
        result.rows("SELECT * FROM notes"),
        ["1|a|x|0|blue", "2|b|y|1|red", "3|c|z|0|green", "4|d|w|1|red"]
    );
}

#[test]
fn the_same_column_added_on_both_sides_is_there_once() {
    let result = merged(
        NOTES,
        "ALTER TABLE notes ADD COLUMN colour TEXT; UPDATE notes SET colour = 'blue' WHERE id = 1",
        "ALTER TABLE notes ADD COLUMN  Colour text; UPDATE notes SET colour = 'red' WHERE id = 2",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM notes"), ["1|a|x|blue", "2|b|y|red"]);
}

#[test]
fn the_same_column_with_two_definitions_is_the_heads_and_values_map_by_name() {
    let result = merged(
        NOTES,
        "ALTER TABLE notes ADD COLUMN n INTEGER DEFAULT 7; UPDATE notes SET n = 1 WHERE id = 1",
        "ALTER TABLE notes ADD COLUMN n TEXT; UPDATE notes SET n = 'two' WHERE id = 2",
    );
    assert_eq!(result.kinds(), [(Schema, "notes")]);
    assert!(result.conflicts()[0].sql.as_ref().unwrap().contains("n INTEGER DEFAULT 7"));
    assert_eq!(result.rows("SELECT id, n, typeof(n) FROM notes WHERE id = 1"), ["1|1|text"]);
    assert_eq!(result.rows("SELECT n FROM notes WHERE id = 2"), ["two"]);
}

#[test]
fn a_column_that_gets_another_type_changes_no_row() {
    let retype =
        "CREATE TABLE m (id INTEGER PRIMARY KEY, n INTEGER, r REAL, t TEXT); INSERT INTO m SELECT * FROM t;
        DROP TABLE t; ALTER TABLE m RENAME TO t;";
    let base = "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, r, t INTEGER);
        INSERT INTO t VALUES (1, '5', 1, 1), (2, '6', 2, 2), (3, 'x', '3', 3)";
    let change = "UPDATE t SET n = '7', t = 9 WHERE id = 1; DELETE FROM t WHERE id = 2";
    for (local, head) in [(retype, change), (change, retype)] {
        for policy in [MergePolicy::LastPushWins, MergePolicy::FirstPushWins] {
            let options = Options { policy, ..Options::default() };
            let result = Scene::new(base, local, head).done(&options).peaceful();
            let rows = result.rows("SELECT id, n, typeof(n), r, typeof(r), t, typeof(t) FROM t");
            assert_eq!(rows, ["1|7|integer|1|real|9|text", "3|x|text|3|real|3|text"], "{local}");
        }
    }
    let retype = "CREATE TABLE m (n INTEGER, v); INSERT INTO m SELECT * FROM t; DROP TABLE t; ALTER TABLE m RENAME TO t;";
    let base = "CREATE TABLE t (n TEXT, v); INSERT INTO t VALUES ('1', 'a'), ('2', 'b'), ('3', 'c')";
    for (local, head) in
        [("UPDATE t SET v = 'B' WHERE n = 2", retype), (retype, "UPDATE t SET v = 'B' WHERE n = '2'")]
    {
        let result = merged(base, local, head).peaceful();
        assert_eq!(
            result.rows("SELECT n, typeof(n), v FROM t"),
            ["1|integer|a", "2|integer|B", "3|integer|c"]
        );
    }
}

#[test]
fn a_column_renamed_on_either_side_is_renamed_and_keeps_the_others_values() {
    let base =
        format!("{NOTES} CREATE INDEX by_body ON notes(body); CREATE VIEW v AS SELECT body FROM notes;");
    let rename = "ALTER TABLE notes RENAME COLUMN body TO content";
    let change = "UPDATE notes SET body = 'changed' WHERE id = 2";
    for (local, head) in [(rename, change), (change, rename)] {
        let result = merged(&base, local, head).peaceful();
        assert_eq!(result.columns("notes"), ["id", "title", "content"]);
        assert_eq!(result.rows("SELECT content FROM notes INDEXED BY by_body"), ["changed", "x"]);
        assert_eq!(result.rows("SELECT * FROM v ORDER BY 1"), ["changed", "x"]);
    }
}

#[test]
fn a_column_renamed_on_both_sides_has_the_heads_name() {
    let result = merged(
        NOTES,
        "ALTER TABLE notes RENAME COLUMN body TO content; UPDATE notes SET content = 'there' WHERE id = 1",
        "ALTER TABLE notes RENAME COLUMN body TO words; UPDATE notes SET words = 'here' WHERE id = 2",
    );
    assert_eq!(result.kinds(), [(Schema, "notes")]);
    assert_eq!(result.rows("SELECT words FROM notes"), ["there", "here"]);
}

#[test]
fn columns_renamed_and_added_crosswise_all_arrive() {
    let result = merged(
        NOTES,
        "ALTER TABLE notes RENAME COLUMN body TO content; ALTER TABLE notes ADD COLUMN a",
        "ALTER TABLE notes RENAME COLUMN title TO name; ALTER TABLE notes ADD COLUMN b",
    )
    .peaceful();
    assert_eq!(result.columns("notes"), ["id", "name", "content", "b", "a"]);
    assert_eq!(result.rows("SELECT name, content FROM notes"), ["a|x", "b|y"]);
}

#[test]
fn a_dropped_column_goes_and_values_written_to_it_are_recorded() {
    let (drop, write) = ("ALTER TABLE notes DROP COLUMN body", "UPDATE notes SET body = 'new' WHERE id = 2");
    for (local, head, kept) in [(drop, write, Kept::Local), (write, drop, Kept::Head)] {
        let result = merged(NOTES, local, head);
        assert_eq!(result.columns("notes"), ["id", "title"]);
        assert_eq!(result.kinds(), [(NoPlace, "notes")]);
        let record = &result.conflicts()[0];
        assert_eq!((record.columns.as_slice(), record.kept), (["body".to_owned()].as_slice(), kept));
        let row = record.local.as_ref().filter(|_| kept == Kept::Head).or(record.head.as_ref()).unwrap();
        assert!(format!("{row:?}").contains(&format!("{:?}", highwater_wire::SqlValue::text("new"))));
    }
    let quiet = merged(NOTES, drop, "UPDATE notes SET title = 'A' WHERE id = 1").peaceful();
    assert_eq!(quiet.rows("SELECT * FROM notes"), ["1|A", "2|b"]);
}

#[test]
fn a_column_changed_on_one_side_and_dropped_on_the_other_is_as_the_head_has_it() {
    let constrain = "CREATE TABLE n2 (id INTEGER PRIMARY KEY, title TEXT, body TEXT CHECK (body <> ''));
        INSERT INTO n2 SELECT * FROM notes; DROP TABLE notes; ALTER TABLE n2 RENAME TO notes";
    let drop = "ALTER TABLE notes DROP COLUMN body";
    let result = merged(NOTES, constrain, drop);
    assert_eq!(result.kinds()[0], (Schema, "notes"));
    assert_eq!(result.columns("notes"), ["id", "title"]);
    let result = merged(NOTES, drop, constrain);
    assert_eq!(result.kinds()[0], (Schema, "notes"));
    assert_eq!(result.columns("notes"), ["id", "title", "body"]);
}

#[test]
fn a_definition_changed_in_two_ways_stays_the_heads() {
    let to = |kind: &str| {
        format!(
            "CREATE TABLE n2 (id INTEGER PRIMARY KEY, title {kind}, body TEXT); INSERT INTO n2 SELECT * FROM notes;
             DROP TABLE notes; ALTER TABLE n2 RENAME TO notes"
        )
    };
    let result = merged(NOTES, &to("TEXT NOT NULL"), &to("TEXT COLLATE NOCASE"));
    assert_eq!(result.kinds(), [(Schema, "notes")]);
    assert!(result.conflicts()[0].sql.as_ref().unwrap().contains("NOT NULL"));
    assert!(result.rows("SELECT sql FROM sqlite_schema WHERE name = 'notes'")[0].contains("NOCASE"));
}

#[test]
fn a_table_rebuilt_by_the_device_is_rebuilt_with_the_heads_rows_indexes_and_triggers() {
    let result = merged(
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a, b); INSERT INTO t VALUES (9, 1, 2);
         DELETE FROM t; INSERT INTO t(a, b) VALUES (1, 2); CREATE INDEX i ON t(a);
         CREATE TABLE c (t INT REFERENCES t(id)); INSERT INTO c VALUES (10);",
        "PRAGMA legacy_alter_table = ON;
         CREATE TABLE n (id INTEGER PRIMARY KEY AUTOINCREMENT, a INT NOT NULL DEFAULT 5 CHECK (a > 0), c AS (a + 1), b);
         INSERT INTO n(id, a, b) SELECT id, a, b FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; CREATE INDEX i ON t(a);",
        "INSERT INTO t(a, b) VALUES (3, 4); CREATE INDEX mine ON t(b); DELETE FROM t WHERE a = 3;
         CREATE TRIGGER watch AFTER INSERT ON t BEGIN SELECT 1; END; INSERT INTO t(a, b) VALUES (5, 6); ANALYZE;",
    )
    .peaceful();
    assert_eq!(result.columns("t"), ["id", "a", "c", "b"]);
    assert_eq!(result.rows("SELECT id, a, c, b FROM t"), ["10|1|2|2", "12|5|6|6"]);
    let names = result.rows("SELECT name FROM sqlite_schema WHERE tbl_name = 't' ORDER BY 1");
    assert_eq!(names, ["i", "mine", "t", "watch"]);
    assert_eq!(result.rows("SELECT seq FROM sqlite_sequence WHERE name = 't'"), ["12"]);
    assert_eq!(result.rows("SELECT count(*) FROM sqlite_stat1 WHERE tbl = 't'"), ["2"]);
    assert!(result.rows("SELECT sql FROM sqlite_schema WHERE name = 'c'")[0].contains("REFERENCES t(id)"));
    assert!(result.rows("PRAGMA foreign_key_check").is_empty());
}

#[test]
fn rows_keep_their_rowid_when_a_table_is_rebuilt() {
    let result = merged(
        "CREATE TABLE t (a, b); INSERT INTO t(rowid, a) VALUES (5, 'x'), (8, 'y');",
        "CREATE TABLE n (a TEXT, b); INSERT INTO n(rowid, a) SELECT rowid, a FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t;",
        "INSERT INTO t(rowid, a) VALUES (11, 'z')",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT rowid, a FROM t"), ["5|x", "8|y", "11|z"]);
}

#[test]
fn a_column_that_alter_table_cannot_add_arrives() {
    let rebuilt = |column: &str, values: &str| {
        format!(
            "CREATE TABLE n (id INTEGER PRIMARY KEY, title TEXT, body TEXT, {column});
             INSERT INTO n SELECT id, title, body{values} FROM notes; DROP TABLE notes; ALTER TABLE n RENAME TO notes"
        )
    };
    let head = "UPDATE notes SET title = 'A' WHERE id = 1";
    let unique = merged(NOTES, &rebuilt("slug TEXT NOT NULL UNIQUE", ", title"), head).peaceful();
    assert_eq!(unique.rows("SELECT title, slug FROM notes"), ["A|a", "b|b"]);
    let stored = merged(NOTES, &rebuilt("g INT AS (id * 2) STORED", ""), head).peaceful();
    assert_eq!(stored.rows("SELECT title, g FROM notes"), ["A|2", "b|4"]);
    let computed = merged(NOTES, &rebuilt("at TEXT DEFAULT (hex(1))", ", 'q'"), head).peaceful();
    assert_eq!(computed.rows("SELECT title, at FROM notes"), ["A|q", "b|q"]);
}

#[test]
fn a_definition_that_the_heads_rows_do_not_fit_is_recorded_and_values_stay() {
    let result = merged(
        NOTES,
        "CREATE TABLE n (id INTEGER PRIMARY KEY, title TEXT, body TEXT, slug TEXT NOT NULL);
         INSERT INTO n SELECT *, title FROM notes; DROP TABLE notes; ALTER TABLE n RENAME TO notes",
        "INSERT INTO notes VALUES (3, 'c', 'z')",
    );
    assert_eq!(result.kinds(), [(Schema, "notes")]);
    assert!(result.conflicts()[0].sql.as_ref().unwrap().contains("slug TEXT NOT NULL"));
    assert_eq!(result.rows("SELECT id, slug FROM notes"), ["1|a", "2|b", "3|NULL"]);
}

#[test]
fn a_renamed_table_takes_the_other_sides_rows() {
    let base = format!("{NOTES} CREATE INDEX by_title ON notes(title); CREATE VIEW v AS SELECT title FROM notes;
        CREATE TABLE c (n INT REFERENCES notes(id)); CREATE TRIGGER t AFTER DELETE ON notes BEGIN DELETE FROM c; END;");
    let rename = "ALTER TABLE notes RENAME TO pages";
    let change = "UPDATE notes SET title = 'A' WHERE id = 1; INSERT INTO notes VALUES (3, 'c', 'z')";
    for (local, head) in [(rename, change), (change, rename)] {
        let result = merged(&base, local, head).peaceful();
        assert_eq!(result.rows("SELECT * FROM pages"), ["1|A|x", "2|b|y", "3|c|z"]);
        assert_eq!(result.rows("SELECT * FROM v"), ["A", "b", "c"]);
        assert_eq!(result.rows("SELECT count(*) FROM sqlite_schema WHERE tbl_name = 'pages'"), ["3"]);
        assert!(result.rows("SELECT sql FROM sqlite_schema WHERE name = 'c'")[0].contains("\"pages\""));
        assert_eq!(result.rows("SELECT count(*) FROM sqlite_schema WHERE name = 'notes'"), ["0"]);
    }
}

#[test]
fn a_view_that_is_of_no_use_does_not_stand_in_the_way_of_a_new_name() {
    let base = format!(
        "{NOTES} CREATE TABLE other (x); CREATE VIEW v AS SELECT x FROM other;
        CREATE VIEW w AS SELECT title FROM notes; CREATE TABLE c (n INT REFERENCES notes(id));"
    );
    let rename = "ALTER TABLE notes RENAME TO pages; ALTER TABLE pages RENAME COLUMN body TO text;
        INSERT INTO c VALUES (1)";
    let result =
        merged(&base, rename, "DROP TABLE other; UPDATE notes SET body = 'z' WHERE id = 2").peaceful();
    assert_eq!(result.rows("SELECT text FROM pages"), ["x", "z"]);
    assert_eq!(result.rows("SELECT * FROM w"), ["a", "b"]);
    assert_eq!(result.rows("SELECT count(*) FROM sqlite_schema WHERE name IN ('v', 'notes')"), ["1"]);
    assert!(result.rows("SELECT sql FROM sqlite_schema WHERE name = 'c'")[0].contains("\"pages\""));
}

#[test]
fn a_table_renamed_and_extended_is_still_the_same_table() {
    let result = merged(
        NOTES,
        "ALTER TABLE notes RENAME TO pages; ALTER TABLE pages ADD COLUMN n; UPDATE pages SET n = 1 WHERE id = 1",
        "UPDATE notes SET title = 'A' WHERE id = 1",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM pages"), ["1|A|x|1", "2|b|y|NULL"]);
    assert_eq!(result.rows("SELECT count(*) FROM sqlite_schema WHERE name = 'notes'"), ["0"]);
}

#[test]
fn a_table_renamed_on_both_sides_has_the_heads_name_and_one_set_of_rows() {
    let result = merged(
        NOTES,
        "ALTER TABLE notes RENAME TO there; UPDATE there SET title = 'A' WHERE id = 1; CREATE INDEX i ON there(title)",
        "ALTER TABLE notes RENAME TO here; UPDATE here SET body = 'Y' WHERE id = 2",
    );
    assert_eq!(result.kinds(), [(Schema, "here")]);
    assert_eq!(result.rows("SELECT * FROM here INDEXED BY i ORDER BY title"), ["1|A|x", "2|b|Y"]);
    assert_eq!(result.rows("SELECT count(*) FROM sqlite_schema WHERE name = 'there'"), ["0"]);
}

#[test]
fn the_same_objects_made_on_both_sides_are_there_once() {
    let migration = "CREATE TABLE tags (id INTEGER PRIMARY KEY, tag TEXT); CREATE INDEX by_tag ON tags(tag);
        CREATE VIEW v AS SELECT tag FROM tags; CREATE TRIGGER t AFTER INSERT ON tags BEGIN SELECT 1; END;
        ALTER TABLE notes ADD COLUMN colour;";
    let head = migration.replace("tags (", "tags\n  (").replace("VIEW", "view");
    let result = merged(
        NOTES,
        &format!("{migration} INSERT INTO tags VALUES (5, 'mine'); PRAGMA user_version = 2"),
        &format!("{head} INSERT INTO tags VALUES (7, 'yours'); PRAGMA user_version = 2"),
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM tags"), ["5|mine", "7|yours"]);
    assert_eq!(result.rows("SELECT count(*) FROM sqlite_schema WHERE tbl_name IN ('tags', 'v')"), ["4"]);
}

#[test]
fn two_tables_of_one_name_stay_the_heads_and_values_map_by_name() {
    let result = merged(
        NOTES,
        "CREATE TABLE tags (id INTEGER PRIMARY KEY, tag TEXT, extra); INSERT INTO tags VALUES (1, 'mine', 'e')",
        "CREATE TABLE tags (id INTEGER PRIMARY KEY, n INT, tag TEXT); INSERT INTO tags VALUES (2, 9, 'yours')",
    );
    assert_eq!(result.kinds(), [(Schema, "tags"), (NoPlace, "tags")]);
    assert_eq!(result.rows("SELECT * FROM tags"), ["1|NULL|mine", "2|9|yours"]);
}

#[test]
fn a_row_of_a_table_with_other_columns_is_recorded_and_no_empty_row_is_made() {
    for (local, head) in [("a", "b"), ("id INTEGER PRIMARY KEY, a", "k PRIMARY KEY, b")] {
        let local = format!("CREATE TABLE t ({local}); INSERT INTO t(a) VALUES ('mine')");
        let head = format!("CREATE TABLE t ({head}); INSERT INTO t(b) VALUES ('theirs')");
        let result = merged("", &local, &head);
        assert_eq!(result.rows("SELECT b FROM t"), ["theirs"]);
        assert_eq!(result.kinds(), [(Schema, "t"), (NoPlace, "t")]);
        let row = result.conflicts()[1].local.as_ref().unwrap();
        assert!(row.contains(&("a".to_owned(), highwater_wire::SqlValue::Text(b"mine".to_vec()))), "{row:?}");
    }
}

#[test]
fn nothing_that_was_written_over_a_default_stays_nothing() {
    let local = "ALTER TABLE notes ADD COLUMN mark DEFAULT 'new'; UPDATE notes SET mark = NULL WHERE id = 1";
    let result = merged(NOTES, local, "UPDATE notes SET body = 'z'").peaceful();
    assert_eq!(result.rows("SELECT body, mark FROM notes"), ["z|NULL", "z|new"]);
}

#[test]
fn a_table_of_the_device_under_the_name_of_a_view_of_the_head_is_recorded_with_its_rows() {
    let result = merged(NOTES, "CREATE TABLE v (a); INSERT INTO v VALUES (1)", "CREATE VIEW v AS SELECT 2");
    assert_eq!(result.kinds(), [(Schema, "v"), (NoPlace, "v")]);
    assert_eq!(result.rows("SELECT * FROM v"), ["2"]);
}

#[test]
fn an_index_view_and_trigger_changed_in_two_ways_stay_the_heads() {
    let make = |column: &str| {
        format!(
            "CREATE INDEX i ON notes({column}); CREATE VIEW v AS SELECT {column} FROM notes;
             CREATE TRIGGER t AFTER UPDATE OF {column} ON notes BEGIN SELECT 1; END;"
        )
    };
    let change = |column: &str| format!("DROP INDEX i; DROP VIEW v; DROP TRIGGER t; {}", make(column));
    let base = format!("{NOTES} {}", make("id"));
    let result = merged(&base, &change("title"), &change("body"));
    assert_eq!(result.kinds(), [(Schema, "i"), (Schema, "v"), (Schema, "t")]);
    assert!(result.conflicts().iter().all(|lost| lost.sql.as_ref().unwrap().contains("title")));
    let texts = result.rows("SELECT sql FROM sqlite_schema WHERE name IN ('i', 'v', 't')").join(" ");
    assert!(texts.contains("body") && !texts.contains("title"));

    let one = merged(&base, &change("title"), "UPDATE notes SET body = 'q'").peaceful();
    let texts = one.rows("SELECT sql FROM sqlite_schema WHERE name IN ('i', 'v', 't')");
    assert!(texts.len() == 3 && texts.iter().all(|text| text.contains("title")));

    let dropped = merged(&base, "DROP INDEX i; DROP VIEW v; DROP TRIGGER t", &change("body"));
    assert_eq!(dropped.kinds(), [(Schema, "i"), (Schema, "v"), (Schema, "t")]);
    assert_eq!(dropped.rows("SELECT count(*) FROM sqlite_schema WHERE name IN ('i', 'v', 't')"), ["3"]);
}

#[test]
fn a_unique_index_that_the_heads_rows_break_is_not_made_and_recorded() {
    let result =
        merged(NOTES, "CREATE UNIQUE INDEX u ON notes(title)", "INSERT INTO notes VALUES (3, 'a', 'z')");
    assert_eq!(result.kinds(), [(Schema, "u")]);
    assert!(result.conflicts()[0].message.contains("UNIQUE"), "{}", result.conflicts()[0].message);
    assert_eq!(result.rows("SELECT count(*) FROM notes"), ["3"]);
}

#[test]
fn a_device_that_removes_duplicates_and_then_declares_them_unique_is_right() {
    let base = format!("{NOTES} INSERT INTO notes VALUES (3, 'a', 'again');");
    let result = merged(
        &base,
        "DELETE FROM notes WHERE id = 3; CREATE UNIQUE INDEX u ON notes(title)",
        "UPDATE notes SET body = 'Y' WHERE id = 2",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM notes INDEXED BY u ORDER BY title"), ["1|a|x", "2|b|Y"]);
    let rebuilt = merged(
        &base,
        "DELETE FROM notes WHERE id = 3; CREATE TABLE n (id INTEGER PRIMARY KEY, title TEXT UNIQUE, body TEXT, n);
         INSERT INTO n SELECT *, 5 FROM notes; DROP TABLE notes; ALTER TABLE n RENAME TO notes",
        "UPDATE notes SET body = 'Y' WHERE id = 2",
    )
    .peaceful();
    assert_eq!(rebuilt.rows("SELECT * FROM notes"), ["1|a|x|5", "2|b|Y|5"]);
    assert!(rebuilt.rows("SELECT sql FROM sqlite_schema WHERE name = 'notes'")[0].contains("UNIQUE"));
}

#[test]
fn a_view_and_a_trigger_that_need_a_column_that_the_head_dropped_are_recorded() {
    let result = merged(
        NOTES,
        "CREATE VIEW v AS SELECT body FROM notes;
         CREATE TRIGGER t AFTER UPDATE ON notes BEGIN UPDATE notes SET body = 1; END;
         CREATE TRIGGER fine AFTER UPDATE ON notes BEGIN SELECT 1; END",
        "ALTER TABLE notes DROP COLUMN body",
    );
    assert_eq!(result.kinds(), [(Schema, "v"), (Schema, "t")]);
    assert_eq!(result.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger'"), ["fine"]);
}

#[test]
fn a_view_that_is_replaced_keeps_the_triggers_that_nobody_touched() {
    let result = merged(
        &format!(
            "{NOTES} CREATE VIEW v AS SELECT id, title FROM notes;
             CREATE TRIGGER t INSTEAD OF DELETE ON v BEGIN DELETE FROM notes WHERE id = old.id; END;"
        ),
        "DROP VIEW v; CREATE VIEW v AS SELECT id, body FROM notes;
         CREATE TRIGGER t INSTEAD OF DELETE ON v BEGIN DELETE FROM notes WHERE id = old.id; END;",
        "INSERT INTO notes VALUES (3, 'c', 'z')",
    )
    .peaceful();
    result.db.execute_batch("DELETE FROM v WHERE id = 2").unwrap();
    assert_eq!(result.rows("SELECT * FROM v"), ["1|x", "3|z"]);
}

#[test]
fn a_new_index_on_a_table_that_the_head_renamed_is_made_there() {
    let result = merged(
        NOTES,
        "CREATE INDEX i ON notes(title); CREATE VIEW v AS SELECT title FROM notes",
        "ALTER TABLE notes RENAME TO pages; ALTER TABLE pages RENAME COLUMN title TO name",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM v"), ["a", "b"]);
    assert_eq!(result.rows("SELECT tbl_name FROM sqlite_schema WHERE name = 'i'"), ["pages"]);
}

#[test]
fn statistics_and_sequences_are_nobodys_schema() {
    let base =
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a); CREATE INDEX i ON t(a); INSERT INTO t VALUES (1, 1);";
    let result = merged(
        base,
        "ANALYZE; CREATE TABLE s (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO s VALUES (4)",
        "INSERT INTO t VALUES (2, 2)",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT name FROM sqlite_schema WHERE name LIKE 'sqlite_stat%'"), [""; 0]);
    assert_eq!(result.rows("SELECT * FROM sqlite_sequence"), ["s|4"]);
}

#[test]
fn strict_without_rowid_quoted_and_generated_tables_are_changed_like_others() {
    let base =
        "CREATE TABLE [my \"table\"] (`the key` TEXT, \"va,lue\" INT DEFAULT (1 + 1), -- a comment, with (
        g ANY AS (\"va,lue\" * 2) VIRTUAL, PRIMARY KEY (`the key`)) STRICT, WITHOUT ROWID;
        INSERT INTO \"my \"\"table\"\"\" VALUES ('a', 1), ('b', 2);";
    let result = merged(
        base,
        "ALTER TABLE \"my \"\"table\"\"\" ADD COLUMN \"new one\" TEXT DEFAULT 'x,y'; UPDATE \"my \"\"table\"\"\" SET \"new one\" = 'set' WHERE \"the key\" = 'a'",
        "ALTER TABLE \"my \"\"table\"\"\" ADD COLUMN other REAL; UPDATE \"my \"\"table\"\"\" SET other = 0.5, \"va,lue\" = 7 WHERE \"the key\" = 'a'",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM \"my \"\"table\"\"\""), ["a|7|14|0.5|set", "b|2|4|NULL|x,y"]);
}

#[test]
fn an_index_with_a_function_that_the_server_lacks_is_refused_by_name() {
    let add = |name: &str| {
        format!(
            "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql)
             VALUES ('view', '{name}', '{name}', 0, 'CREATE VIEW {name} AS SELECT nobody_has(1)');"
        )
    };
    // A view is only text: it arrives.
    let result = merged(NOTES, &add("v"), "INSERT INTO notes VALUES (3, 'c', 'z')").peaceful();
    assert_eq!(result.rows("SELECT count(*) FROM sqlite_schema WHERE name = 'v'"), ["1"]);

    let checked = "PRAGMA writable_schema = ON; CREATE TABLE checked (a CHECK (abs(a) > 0));
        UPDATE sqlite_schema SET sql = replace(sql, 'abs', 'nobody_has') WHERE name = 'checked'";
    let why = refused(NOTES, checked, "INSERT INTO notes VALUES (3, 'c', 'z')");
    assert_eq!(why.object.as_deref(), Some("checked"));
    assert!(why.reason.contains("nobody_has"), "{}", why.reason);
}

#[test]
fn a_vacuumed_device_changes_no_schema() {
    let result = merged(
        &format!(
            "{NOTES} CREATE TABLE gone (a); INSERT INTO gone VALUES (zeroblob(20000)); CREATE TABLE last (a); DROP TABLE gone;"
        ),
        "VACUUM; INSERT INTO last VALUES (1)",
        "INSERT INTO last VALUES (2)",
    );
    assert!(result.kinds().iter().all(|(kind, _)| *kind != Schema));
    assert_eq!(result.rows("SELECT a FROM last ORDER BY a"), ["1", "2"]);
}

#[test]
fn a_table_at_the_place_of_a_dropped_one_is_another_table() {
    let result = merged(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO users VALUES (1, 'ann'), (2, 'bob');",
        "DROP TABLE users; CREATE TABLE posts (id INTEGER PRIMARY KEY, title TEXT, body TEXT); INSERT INTO posts VALUES (1, 'hello', 'x')",
        "UPDATE users SET name = 'Ann' WHERE id = 1",
    );
    assert_eq!(result.kinds(), [(Schema, "users")]);
    assert_eq!(result.rows("SELECT * FROM posts"), ["1|hello|x"]);
    assert_eq!(result.rows("SELECT * FROM users"), ["1|Ann", "2|bob"]);
}

#[test]
fn a_column_at_the_place_of_a_dropped_one_is_another_column() {
    let (swap, write) = (
        "ALTER TABLE notes DROP COLUMN body; ALTER TABLE notes ADD COLUMN colour TEXT; UPDATE notes SET colour = 'red'",
        "UPDATE notes SET body = 'new' WHERE id = 2",
    );
    for (local, head) in [(swap, write), (write, swap)] {
        let result = merged(NOTES, local, head);
        assert_eq!(result.kinds(), [(NoPlace, "notes")]);
        assert_eq!(result.rows("SELECT * FROM notes"), ["1|a|red", "2|b|red"]);
    }
}

#[test]
fn rows_that_get_another_key_are_the_devices_or_are_still_told_apart() {
    let base = "CREATE TABLE t (x, id); INSERT INTO t(rowid, x, id) VALUES (1, 'a', NULL), (2, 'b', 20), (3, 'c', NULL);";
    let rekey = "CREATE TABLE n (id INTEGER PRIMARY KEY, x); INSERT INTO n SELECT id, x FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t";
    let whole = merged(base, rekey, "INSERT INTO always VALUES (1)").peaceful();
    assert_eq!(whole.rows("SELECT * FROM t"), ["1|a", "20|b", "21|c"]);
    let both = merged(base, rekey, "UPDATE t SET x = 'B' WHERE rowid = 2");
    assert_eq!(both.rows("SELECT id, x FROM t WHERE x = 'B'"), ["20|B"]);
    let drop = merged(
        base,
        "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, x)",
        "INSERT INTO always VALUES (1)",
    )
    .peaceful();
    assert!(drop.rows("SELECT * FROM t").is_empty());
}
