//! Every rule about rows: what stays when a device and the server changed the same things.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_methods, unreachable_pub, dead_code)]

mod common;

use common::{Result, Scene, merged, refused};
use highwater_merge::{Merged, Options};
use highwater_wire::ConflictKind::{
    Check, ForeignKey, NotNull, Renumbered as NewId, Unique, Update, UpdateDelete,
};
use highwater_wire::{Kept, MergeCounts, MergePolicy, Renumbered, SqlValue};

const NOTES: &str = "CREATE TABLE note(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
                     INSERT INTO note VALUES (1, 'one', 'eins'), (2, 'two', 'zwei'), (3, 'three', 'drei');";

const SHOP: &str = "CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer(id), what TEXT);
    CREATE TABLE line(orders INTEGER REFERENCES orders, n INTEGER, what TEXT, PRIMARY KEY (orders, n)) WITHOUT ROWID;
    CREATE TABLE mark(orders INTEGER, n INTEGER, word TEXT, FOREIGN KEY (orders, n) REFERENCES line(orders, n));
    INSERT INTO customer VALUES (1, 'Ada'); INSERT INTO orders VALUES (1, 1, 'first');
    INSERT INTO line VALUES (1, 1, 'pen');";

fn with(base: &str, local: &str, head: &str, policy: MergePolicy) -> Result {
    Scene::new(base, local, head).done(&Options { policy, ..Options::default() })
}

fn counts(inserted: u64, updated: u64, deleted: u64, same: u64) -> MergeCounts {
    MergeCounts { inserted, updated, deleted, same }
}

fn renumbered(table: &str, from: i64, to: i64) -> Renumbered {
    Renumbered { table: table.to_owned(), from, to }
}

#[test]
fn what_only_one_side_changed_stays() {
    let local = "UPDATE note SET body = 'l' WHERE id = 1; DELETE FROM note WHERE id = 2; INSERT INTO note VALUES (9, 'n', 'n')";
    let result = merged(NOTES, local, "UPDATE note SET body = 'h' WHERE id = 3").peaceful();
    assert_eq!(result.rows("SELECT id, body FROM note"), ["1|l", "3|h", "9|n"]);
    assert_eq!(result.merge.counts, counts(1, 1, 1, 0));
}

#[test]
fn a_device_that_changed_nothing_gets_the_head_as_it_is() {
    let result = merged(NOTES, "", "UPDATE note SET body = 'h'; VACUUM").peaceful();
    assert_eq!(result.merge.pages, []);
    let result = merged(NOTES, "", "").peaceful();
    assert_eq!(result.merge.pages, []);
}

#[test]
fn a_head_that_did_not_move_becomes_what_the_device_has() {
    let local = "UPDATE note SET body = 'l' WHERE id = 1; DELETE FROM note WHERE id = 2";
    let result = merged(NOTES, local, "").peaceful();
    assert_eq!(result.rows("SELECT * FROM note"), ["1|one|l", "3|three|drei"]);
}

#[test]
fn the_same_change_on_both_sides_happens_once() {
    let change = "UPDATE note SET body = 'x' WHERE id = 1; DELETE FROM note WHERE id = 2";
    let result = merged(NOTES, change, change).peaceful();
    assert_eq!(result.rows("SELECT id, body FROM note"), ["1|x", "3|drei"]);
    assert_eq!(result.merge.pages, []);
    assert_eq!(result.merge.counts, counts(0, 0, 0, 2));
}

#[test]
fn changes_of_different_columns_are_both_kept() {
    let (local, head) =
        ("UPDATE note SET title = 'l' WHERE id = 1", "UPDATE note SET body = 'h' WHERE id = 1");
    for policy in [MergePolicy::LastPushWins, MergePolicy::FirstPushWins, MergePolicy::Fail] {
        let result = with(NOTES, local, head, policy).peaceful();
        assert_eq!(result.rows("SELECT * FROM note WHERE id = 1"), ["1|l|h"]);
    }
}

#[test]
fn of_two_values_for_one_column_the_policy_keeps_one_and_the_record_both() {
    let local = "UPDATE note SET title = 'lt', body = 'l' WHERE id = 1";
    let head = "UPDATE note SET body = 'h' WHERE id = 1";
    let result = with(NOTES, local, head, MergePolicy::LastPushWins);
    assert_eq!(result.rows("SELECT * FROM note WHERE id = 1"), ["1|lt|l"]);
    let conflict = &result.conflicts()[0];
    assert_eq!(
        (conflict.kind, conflict.kept, &conflict.columns[..]),
        (Update, Kept::Local, &["body".to_owned()][..])
    );
    assert_eq!(conflict.key, [("id".to_owned(), SqlValue::Integer(1))]);
    assert_eq!(conflict.head.as_ref().unwrap()[2].1, SqlValue::text("h"));
    assert_eq!(conflict.local.as_ref().unwrap()[2].1, SqlValue::text("l"));
    assert_eq!(conflict.base.as_ref().unwrap()[2].1, SqlValue::text("eins"));

    let result = with(NOTES, local, head, MergePolicy::FirstPushWins);
    assert_eq!(result.rows("SELECT * FROM note WHERE id = 1"), ["1|lt|h"]);
    assert_eq!(result.conflicts()[0].kept, Kept::Head);

    let refused =
        Scene::new(NOTES, local, head).merged(&Options { policy: MergePolicy::Fail, ..Options::default() });
    let Merged::Conflicts(conflicts) = refused else { panic!("{refused:?}") };
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].kind, Update);
}

#[test]
fn one_and_one_point_zero_are_different_values() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1)";
    let result = merged(base, "UPDATE t SET v = 1.0", "").peaceful();
    assert_eq!(result.rows("SELECT typeof(v) FROM t"), ["real"]);
    let result = merged(base, "UPDATE t SET v = x'31'", "UPDATE t SET v = '1'");
    assert_eq!(result.kinds(), [(Update, "t")]);
}

#[test]
fn a_change_survives_a_deletion_in_both_directions() {
    let (change, delete) = ("UPDATE note SET body = 'x' WHERE id = 1", "DELETE FROM note WHERE id = 1");
    for policy in [MergePolicy::LastPushWins, MergePolicy::FirstPushWins] {
        let result = with(NOTES, change, delete, policy);
        assert_eq!(result.rows("SELECT * FROM note WHERE id = 1"), ["1|one|x"]);
        assert_eq!(result.kinds(), [(UpdateDelete, "note")]);
        assert_eq!(result.conflicts()[0].kept, Kept::Local);
        assert_eq!(result.conflicts()[0].head, None);

        let result = with(NOTES, delete, change, policy);
        assert_eq!(result.rows("SELECT * FROM note WHERE id = 1"), ["1|one|x"]);
        assert_eq!(result.kinds(), [(UpdateDelete, "note")]);
        assert_eq!(result.conflicts()[0].kept, Kept::Head);
        assert_eq!(result.conflicts()[0].local, None);
        assert_eq!(result.merge.pages, []);
    }
}

#[test]
fn two_rows_with_the_same_declared_key_become_one() {
    let base = "CREATE TABLE setting(name TEXT PRIMARY KEY, value, by TEXT)";
    for suffix in ["", " WITHOUT ROWID"] {
        let base = format!("{base}{suffix}");
        let local = "INSERT INTO setting VALUES ('color', 'red', 'l'), ('size', 1, 'both'), ('mine', 0, 'l')";
        let head =
            "INSERT INTO setting VALUES ('other', 0, 'h'), ('size', 1, 'both'), ('color', 'blue', 'h')";
        let result = merged(&base, local, head);
        let rows = ["color|red|l", "mine|0|l", "other|0|h", "size|1|both"];
        assert_eq!(result.rows("SELECT * FROM setting ORDER BY name"), rows);
        assert_eq!(result.kinds(), [(Update, "setting")]);
        assert_eq!(result.conflicts()[0].columns, ["value", "by"]);
        assert_eq!(result.conflicts()[0].key, [("name".to_owned(), SqlValue::text("color"))]);
        assert_eq!(result.merge.counts, counts(1, 1, 0, 1));
        assert_eq!(result.merge.renumbered, []);
    }
}

#[test]
fn rows_with_composite_keys_are_matched_by_all_of_the_key() {
    let base = "CREATE TABLE seat(hall TEXT, n INTEGER, who TEXT, note TEXT, PRIMARY KEY (n, hall));
                INSERT INTO seat VALUES ('a', 1, 'x', ''), ('b', 1, 'y', ''), ('a', 2, 'z', '')";
    let local = "UPDATE seat SET who = 'l' WHERE hall = 'a' AND n = 1; DELETE FROM seat WHERE n = 2";
    let head = "UPDATE seat SET note = 'h' WHERE n = 1; INSERT INTO seat VALUES ('b', 2, 'w', '')";
    for suffix in ["", " WITHOUT ROWID"] {
        let result = merged(&base.replace("hall));", &format!("hall)){suffix};")), local, head).peaceful();
        let rows = ["a|1|l|h", "b|1|y|h", "b|2|w|"];
        assert_eq!(result.rows("SELECT * FROM seat ORDER BY n, hall"), rows);
    }
}

#[test]
fn keys_are_compared_as_their_collation_demands() {
    let base = "CREATE TABLE tag(name TEXT COLLATE NOCASE PRIMARY KEY, n INTEGER); INSERT INTO tag VALUES ('Red', 1)";
    for suffix in ["", " WITHOUT ROWID"] {
        let base = base.replace("INTEGER);", &format!("INTEGER){suffix};"));
        let result = merged(&base, "UPDATE tag SET name = 'RED'", "UPDATE tag SET n = 2").peaceful();
        assert_eq!(result.rows("SELECT * FROM tag"), ["RED|2"]);
        let result =
            merged(&base, "INSERT INTO tag VALUES ('blue', 7)", "INSERT INTO tag VALUES ('BLUE', 7)");
        assert_eq!(result.kinds(), [(Update, "tag")]);
        assert_eq!(result.rows("SELECT * FROM tag WHERE n = 7"), ["blue|7"]);
    }
}

#[test]
fn a_key_that_changes_is_a_deletion_and_an_insertion() {
    let base =
        "CREATE TABLE setting(name TEXT PRIMARY KEY, value); INSERT INTO setting VALUES ('a', 1), ('b', 2)";
    let result = merged(
        base,
        "UPDATE setting SET name = 'c' WHERE name = 'a'",
        "UPDATE setting SET value = 9 WHERE name = 'b'",
    );
    assert_eq!(result.rows("SELECT * FROM setting ORDER BY name"), ["b|9", "c|1"]);
    let result = merged(
        base,
        "UPDATE setting SET name = 'c' WHERE name = 'a'",
        "UPDATE setting SET value = 9 WHERE name = 'a'",
    );
    assert_eq!(result.rows("SELECT * FROM setting ORDER BY name"), ["a|9", "b|2", "c|1"]);
    assert_eq!(result.kinds(), [(UpdateDelete, "setting")]);
}

#[test]
fn two_rows_with_the_same_id_both_live() {
    let local = "INSERT INTO note VALUES (4, 'l', 'L'), (5, 'l5', 'L5')";
    let result = merged(NOTES, local, "INSERT INTO note VALUES (4, 'h', 'H')");
    assert_eq!(result.rows("SELECT * FROM note WHERE id > 3"), ["4|h|H", "5|l5|L5", "6|l|L"]);
    assert_eq!(result.kinds(), [(NewId, "note")]);
    let conflict = &result.conflicts()[0];
    assert_eq!(conflict.key, [("id".to_owned(), SqlValue::Integer(4))]);
    assert_eq!(conflict.other_key, [("id".to_owned(), SqlValue::Integer(6))]);
    assert_eq!(conflict.kept, Kept::Both);
    assert_eq!(conflict.local.as_ref().unwrap()[0].1, SqlValue::Integer(4));
    assert_eq!(conflict.head.as_ref().map(|row| row[1].1.clone()), Some(SqlValue::text("h")));
    assert_eq!(result.merge.renumbered, [renumbered("note", 4, 6)]);
    let policy = MergePolicy::Fail;
    assert_eq!(
        with(NOTES, local, "INSERT INTO note VALUES (4, 'h', 'H')", policy).kinds(),
        [(NewId, "note")]
    );
}

#[test]
fn equal_rows_with_the_same_id_are_two_rows() {
    let insert = "INSERT INTO note VALUES (4, 'same', 'same')";
    let result = merged(NOTES, insert, insert);
    assert_eq!(result.rows("SELECT * FROM note WHERE id > 3"), ["4|same|same", "5|same|same"]);
}

#[test]
fn new_ids_do_not_reuse_what_autoincrement_gave_away() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO t VALUES (1, 'a')";
    let local = "INSERT INTO t(v) VALUES ('l')";
    let result =
        merged(base, local, "INSERT INTO t(v) VALUES ('h'), ('h'), ('h'); DELETE FROM t WHERE id > 2");
    assert_eq!(result.rows("SELECT * FROM t"), ["1|a", "2|h", "5|l"]);
    assert_eq!(result.rows("SELECT * FROM sqlite_sequence"), ["t|5"]);
    let result = merged(
        base,
        "INSERT INTO t VALUES (90, 'l'); DELETE FROM t WHERE id = 90",
        "INSERT INTO t(v) VALUES ('h')",
    );
    assert_eq!(result.rows("SELECT * FROM sqlite_sequence"), ["t|90"]);
}

#[test]
fn an_id_is_found_when_the_largest_is_taken() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (9223372036854775807, 'max')";
    let result =
        merged(base, "INSERT INTO t VALUES (1, 'l'), (2, 'l')", "INSERT INTO t VALUES (1, 'h'), (2, 'h')");
    assert_eq!(result.rows("SELECT count(*), count(DISTINCT id) FROM t"), ["5|5"]);
    assert_eq!(result.merge.renumbered[0].to, i64::MAX - 1);
}

#[test]
fn foreign_keys_of_the_same_push_follow_a_new_id() {
    let local = "INSERT INTO customer VALUES (2, 'Bob'); INSERT INTO orders VALUES (2, 2, 'l');
                 INSERT INTO line VALUES (2, 1, 'ink'), (1, 2, 'cap'); INSERT INTO mark VALUES (2, 1, 'l'), (1, 2, 'l')";
    let head = "INSERT INTO customer VALUES (2, 'Eve'), (3, 'Zoe'); INSERT INTO orders VALUES (2, 2, 'h');
                INSERT INTO line VALUES (2, 1, 'saw'); INSERT INTO mark VALUES (2, 1, 'h')";
    let result = merged(SHOP, local, head);
    assert_eq!(result.rows("SELECT * FROM customer WHERE id > 1"), ["2|Eve", "3|Zoe", "4|Bob"]);
    assert_eq!(result.rows("SELECT * FROM orders WHERE id > 1"), ["2|2|h", "3|4|l"]);
    assert_eq!(result.rows("SELECT * FROM line"), ["1|1|pen", "1|2|cap", "2|1|saw", "3|1|ink"]);
    assert_eq!(result.rows("SELECT * FROM mark ORDER BY word, orders"), ["2|1|h", "1|2|l", "3|1|l"]);
    assert_eq!(result.rows("PRAGMA foreign_key_check"), [""; 0]);
    let both = [renumbered("customer", 2, 4), renumbered("mark", 1, 3), renumbered("orders", 2, 3)];
    assert_eq!(result.merge.renumbered, both);
}

#[test]
fn references_of_a_table_to_itself_follow_too() {
    let base = "CREATE TABLE node(id INTEGER PRIMARY KEY, up INTEGER REFERENCES node, v); INSERT INTO node VALUES (1, NULL, 'root')";
    let local = "INSERT INTO node VALUES (2, 1, 'l2'), (3, 2, 'l3'), (4, 4, 'l4')";
    let head = "INSERT INTO node VALUES (2, 1, 'h2'), (3, 2, 'h3'), (4, 3, 'h4')";
    let result = merged(base, local, head);
    let rows = ["1|NULL|root", "2|1|h2", "3|2|h3", "4|3|h4", "5|1|l2", "6|5|l3", "7|7|l4"];
    assert_eq!(result.rows("SELECT * FROM node"), rows);
}

#[test]
fn a_row_that_shares_the_id_of_its_parent_follows_it() {
    let base = "CREATE TABLE user(id INTEGER PRIMARY KEY, name); INSERT INTO user VALUES (1, 'both');
                CREATE TABLE profile(user INTEGER PRIMARY KEY REFERENCES user(id), bio TEXT)";
    let local = "INSERT INTO user VALUES (2, 'l'); INSERT INTO profile VALUES (2, 'L'), (1, 'mine')";
    let head = "INSERT INTO user VALUES (2, 'h'); INSERT INTO profile VALUES (2, 'H'), (1, 'theirs')";
    let result = merged(base, local, head);
    assert_eq!(
        result.rows("SELECT name, bio FROM user JOIN profile ON user = id ORDER BY id"),
        ["both|mine", "h|H", "l|L"]
    );
    assert_eq!(result.kinds(), [(NewId, "user"), (Update, "profile"), (NewId, "profile")]);
}

#[test]
fn rows_without_a_key_are_all_kept() {
    let base = "CREATE TABLE log(line TEXT); INSERT INTO log VALUES ('a'), ('b'), ('a')";
    let local = "INSERT INTO log VALUES ('l'), ('same'); DELETE FROM log WHERE rowid = 1";
    let head = "INSERT INTO log VALUES ('h'), ('same'); UPDATE log SET line = 'B' WHERE line = 'b'";
    let result = merged(base, local, head);
    assert_eq!(result.rows("SELECT line FROM log ORDER BY line"), ["B", "a", "h", "l", "same", "same"]);
    assert_eq!(result.conflicts(), [], "a rowid that has no name is nobody's concern");
    assert_eq!(result.merge.renumbered.len(), 2);
}

#[test]
fn vacuum_moves_no_rows_of_tables_without_a_key() {
    let base = "CREATE TABLE log(line TEXT, n INTEGER); INSERT INTO log VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4), ('e', 5);
                DELETE FROM log WHERE line IN ('a', 'c')";
    let result =
        merged(base, "VACUUM", "UPDATE log SET n = 9 WHERE line = 'b'; INSERT INTO log VALUES ('h', 6)")
            .peaceful();
    assert_eq!(result.rows("SELECT * FROM log ORDER BY line"), ["b|9", "d|4", "e|5", "h|6"]);
    let result =
        merged(base, "UPDATE log SET n = 9 WHERE line = 'd'; DELETE FROM log WHERE line = 'b'", "VACUUM")
            .peaceful();
    assert_eq!(result.rows("SELECT * FROM log ORDER BY line"), ["d|9", "e|5"]);
    let result =
        merged(base, "VACUUM; INSERT INTO log VALUES ('l', 7)", "VACUUM; INSERT INTO log VALUES ('h', 6)");
    assert_eq!(result.rows("SELECT * FROM log ORDER BY line"), ["b|2", "d|4", "e|5", "h|6", "l|7"]);
}

#[test]
fn a_row_that_vacuum_moved_is_merged_with_what_the_other_side_made_of_it() {
    let base = "CREATE TABLE t(name, a, b); INSERT INTO t VALUES ('w', 0, 0), ('x', 0, 0), ('y', 0, 0), ('z', 0, 0);";
    let gone = "DELETE FROM t WHERE name = 'w';";
    let mine = "UPDATE t SET a = 1 WHERE name = 'y';";
    let theirs = "UPDATE t SET b = 2 WHERE name = 'y';";
    for (local, head) in [("VACUUM;", ""), ("", "VACUUM;"), ("VACUUM;", "VACUUM;")] {
        let local = format!("{gone} {mine} {local}");
        let head = format!("{gone} {theirs} {head}");
        let result = merged(base, &local, &head).peaceful();
        assert_eq!(result.rows("SELECT * FROM t"), ["x|0|0", "y|1|2", "z|0|0"], "{local} {head}");
    }
    let result = merged(base, &format!("{mine} {gone} VACUUM"), "DELETE FROM t WHERE name = 'y'");
    assert_eq!(result.rows("SELECT * FROM t ORDER BY name"), ["x|0|0", "y|1|0", "z|0|0"]);
    assert_eq!(result.kinds(), [(UpdateDelete, "t")]);
}

/// No row stayed what it was, so only that one stands in a gap now tells of the VACUUM.
#[test]
fn rows_that_vacuum_moved_are_found_though_none_of_them_stayed_what_it_was() {
    let one = "CREATE TABLE t(name, a, b); INSERT INTO t(rowid, name, a) VALUES (366, 'x', 0);";
    let two = "CREATE TABLE t(name, a, b); INSERT INTO t(rowid, name, a) VALUES (7, 'x', 0), (9, 'y', 0);";
    for (base, rows) in [(one, &["x|1|2"][..]), (two, &["x|1|2", "y|1|2"])] {
        for (local, head) in [("VACUUM", ""), ("", "VACUUM"), ("VACUUM", "VACUUM")] {
            let (local, head) =
                (format!("UPDATE t SET a = 1; {local}"), format!("UPDATE t SET b = 2; {head}"));
            let result = merged(base, &local, &head).peaceful();
            assert_eq!(result.rows("SELECT * FROM t"), rows, "{local} {head}");
        }
        // What both made of one column: one is in the row, the other in a record.
        let result = merged(base, "UPDATE t SET a = 'mine'; VACUUM", "UPDATE t SET a = 'theirs'");
        assert_eq!(result.rows("SELECT DISTINCT a FROM t"), ["mine"]);
        assert_eq!(result.kinds().len(), rows.len());
    }
}

/// Nothing tells that they were one: both live, whatever moved.
#[test]
fn rows_that_vacuum_moved_and_nothing_tells_apart_live_twice_and_lose_nothing() {
    let base = "CREATE TABLE t(a, b); INSERT INTO t(rowid, a) VALUES (3, 'x'), (5, 'x');";
    let result =
        merged(base, "UPDATE t SET b = 'mine' || rowid; VACUUM", "UPDATE t SET b = 'theirs' || rowid");
    assert_eq!(result.rows("SELECT b FROM t ORDER BY b"), ["mine3", "mine5", "theirs3", "theirs5"]);
}

#[test]
fn a_column_that_the_device_added_and_filled_is_kept_where_rows_have_no_key() {
    for vacuum in ["", "DELETE FROM t WHERE a = 'x'; VACUUM;"] {
        let base = "CREATE TABLE t(a); INSERT INTO t VALUES ('x'), ('y'), ('z');";
        let local = format!("ALTER TABLE t ADD COLUMN b; UPDATE t SET b = a || '!' WHERE a = 'y'; {vacuum}");
        let result = merged(base, &local, "INSERT INTO t VALUES ('h')").peaceful();
        assert_eq!(result.rows("SELECT b FROM t WHERE a = 'y'"), ["y!"], "{vacuum}");
    }
}

#[test]
fn vacuum_does_not_disturb_rows_with_a_declared_key() {
    let base = "CREATE TABLE setting(name TEXT PRIMARY KEY, value); INSERT INTO setting VALUES ('x', 0), ('a', 1), ('b', 2), ('c', 3);
                DELETE FROM setting WHERE name = 'x'";
    let result = merged(
        base,
        "VACUUM; UPDATE setting SET value = 8 WHERE name = 'a'",
        "UPDATE setting SET value = 9 WHERE name = 'b'",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM setting ORDER BY name"), ["a|8", "b|9", "c|3"]);
    let result = merged(
        base,
        "UPDATE setting SET value = 8 WHERE name = 'a'",
        "VACUUM; UPDATE setting SET value = 9 WHERE name = 'b'",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM setting ORDER BY name"), ["a|8", "b|9", "c|3"]);
}

#[test]
fn a_row_that_breaks_unique_is_recorded_whole_and_the_rest_is_applied() {
    let base = "CREATE TABLE user(id INTEGER PRIMARY KEY, mail TEXT UNIQUE, name TEXT); INSERT INTO user VALUES (1, 'a@x', 'A')";
    let local = "INSERT INTO user VALUES (10, 'b@x', 'L'), (11, 'c@x', 'fine'); UPDATE user SET name = 'AA' WHERE id = 1";
    let result = merged(base, local, "INSERT INTO user VALUES (20, 'b@x', 'H')");
    assert_eq!(result.rows("SELECT * FROM user"), ["1|a@x|AA", "11|c@x|fine", "20|b@x|H"]);
    assert_eq!(result.kinds(), [(Unique, "user")]);
    let conflict = &result.conflicts()[0];
    assert_eq!(conflict.columns, ["mail"]);
    assert_eq!(conflict.key, [("id".to_owned(), SqlValue::Integer(10))]);
    assert_eq!(conflict.other_key, [("id".to_owned(), SqlValue::Integer(20))]);
    assert_eq!(conflict.local.as_ref().unwrap()[2].1, SqlValue::text("L"));
    assert_eq!(conflict.kept, Kept::Head);
}

#[test]
fn conflict_clauses_of_a_table_neither_delete_nor_skip_rows() {
    for clause in ["REPLACE", "IGNORE"] {
        let base = format!(
            "CREATE TABLE user(id INTEGER PRIMARY KEY, mail TEXT UNIQUE ON CONFLICT {clause}, n INT CHECK (n < 9))"
        );
        let result =
            merged(&base, "INSERT INTO user VALUES (1, 'b@x', 1)", "INSERT INTO user VALUES (2, 'b@x', 2)");
        assert_eq!(result.rows("SELECT id FROM user"), ["2"]);
        assert_eq!(result.kinds(), [(Unique, "user")]);
    }
    let base = "CREATE TABLE word(w TEXT PRIMARY KEY ON CONFLICT REPLACE, n NOT NULL ON CONFLICT IGNORE)";
    let result = merged(base, "INSERT INTO word VALUES ('a', 1)", "INSERT INTO word VALUES ('a', 2)");
    assert_eq!(result.rows("SELECT * FROM word"), ["a|1"]);
}

#[test]
fn unique_values_may_change_hands() {
    let base = "CREATE TABLE seat(id INTEGER PRIMARY KEY, n INTEGER UNIQUE, who TEXT); INSERT INTO seat VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')";
    let swap = "UPDATE seat SET n = 10 WHERE id = 1; UPDATE seat SET n = 1 WHERE id = 2; UPDATE seat SET n = 2 WHERE id = 1";
    let result = merged(base, swap, "UPDATE seat SET who = 'A' WHERE id = 1").peaceful();
    assert_eq!(result.rows("SELECT * FROM seat"), ["1|2|A", "2|1|b", "3|3|c"]);
    let shift = "UPDATE seat SET n = n + 10; UPDATE seat SET n = n - 9; INSERT INTO seat VALUES (4, 1, 'd')";
    let result = merged(base, shift, "UPDATE seat SET who = 'C' WHERE id = 3").peaceful();
    assert_eq!(result.rows("SELECT * FROM seat"), ["1|2|a", "2|3|b", "3|4|C", "4|1|d"]);
    // The server gave 2's new number away: 2 keeps its own, so 1 cannot have it.
    let result = merged(
        base,
        "UPDATE seat SET n = 7 WHERE id = 2; UPDATE seat SET n = 2 WHERE id = 1",
        "INSERT INTO seat VALUES (9, 7, 'h')",
    );
    assert_eq!(result.rows("SELECT * FROM seat"), ["1|1|a", "2|2|b", "3|3|c", "9|7|h"]);
    assert_eq!(result.kinds(), [(Unique, "seat"), (Unique, "seat")]);
}

#[test]
fn rows_that_break_checks_are_recorded() {
    let base = "CREATE TABLE span(id INTEGER PRIMARY KEY, low INT NOT NULL, high INT, CHECK (low <= high)); INSERT INTO span VALUES (1, 1, 9), (2, 1, 9)";
    let result = merged(
        base,
        "UPDATE span SET low = 8 WHERE id = 1; UPDATE span SET low = 2 WHERE id = 2",
        "UPDATE span SET high = 4",
    );
    assert_eq!(result.rows("SELECT * FROM span"), ["1|1|4", "2|2|4"]);
    assert_eq!(result.kinds(), [(Check, "span")]);
    assert_eq!(result.conflicts()[0].local.as_ref().unwrap()[1].1, SqlValue::Integer(8));
}

#[test]
fn strict_tables_and_values_of_all_sizes_merge() {
    let base = "CREATE TABLE file(name TEXT PRIMARY KEY, data BLOB, note TEXT) STRICT; INSERT INTO file VALUES ('a', zeroblob(100000), ''), ('b', randomblob(70000), '')";
    let result = merged(
        base,
        "UPDATE file SET note = 'l'; INSERT INTO file VALUES ('c', zeroblob(200000), 'n')",
        "UPDATE file SET data = zeroblob(50000) WHERE name = 'a'",
    )
    .peaceful();
    assert_eq!(
        result.rows("SELECT name, length(data), note FROM file ORDER BY name"),
        ["a|50000|l", "b|70000|l", "c|200000|n"]
    );
}

#[test]
fn a_row_that_points_to_a_deleted_row_is_recorded() {
    let result = merged(
        SHOP,
        "INSERT INTO orders VALUES (5, 1, 'l'), (6, NULL, 'free')",
        "DELETE FROM line; DELETE FROM orders; DELETE FROM customer",
    );
    assert_eq!(result.rows("SELECT * FROM orders"), ["6|NULL|free"]);
    assert_eq!(result.kinds(), [(ForeignKey, "orders")]);
    // What points to the row that was not applied is not applied either.
    let local = "INSERT INTO orders VALUES (5, 1, 'l'); INSERT INTO line VALUES (5, 1, 'x'); INSERT INTO mark VALUES (5, 1, 'm')";
    let result = merged(SHOP, local, "DELETE FROM line; DELETE FROM orders; DELETE FROM customer");
    let kinds = [(ForeignKey, "orders"), (ForeignKey, "line"), (ForeignKey, "mark")];
    assert_eq!(result.kinds(), kinds);
    assert_eq!(result.rows("PRAGMA foreign_key_check"), [""; 0]);
}

#[test]
fn a_deletion_that_would_leave_orphans_is_recorded() {
    let local = "DELETE FROM line; DELETE FROM orders; DELETE FROM customer";
    let result = merged(SHOP, local, "INSERT INTO orders VALUES (7, 1, 'h')");
    assert_eq!(result.rows("SELECT * FROM customer"), ["1|Ada"]);
    assert_eq!(result.rows("SELECT * FROM orders"), ["7|1|h"]);
    assert_eq!(result.kinds(), [(ForeignKey, "customer")]);
    assert_eq!(result.conflicts()[0].local, None);
    // A key that changes is as good as deleted.
    let base = "CREATE TABLE word(w TEXT PRIMARY KEY); CREATE TABLE used(id INTEGER PRIMARY KEY, w REFERENCES word); INSERT INTO word VALUES ('a')";
    let result = merged(base, "UPDATE word SET w = 'b'", "INSERT INTO used VALUES (1, 'a')");
    assert_eq!(result.rows("SELECT w FROM word ORDER BY w"), ["a", "b"]);
    assert_eq!(result.kinds(), [(ForeignKey, "word")]);
}

#[test]
fn foreign_keys_that_the_device_does_not_keep_do_not_count() {
    let local = "INSERT INTO orders VALUES (5, 77, 'dangling'); DELETE FROM customer";
    let result = merged(SHOP, local, "INSERT INTO orders VALUES (6, 1, 'h')").peaceful();
    assert_eq!(result.rows("SELECT id, customer FROM orders"), ["1|1", "5|77", "6|1"]);
}

#[test]
fn generated_columns_are_computed_not_copied() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT, b INT, s INT AS (a + b) STORED UNIQUE, v INT AS (a * b)); INSERT INTO t(id, a, b) VALUES (1, 1, 1), (2, 5, 5)";
    let result = merged(
        base,
        "UPDATE t SET a = 2 WHERE id = 1; INSERT INTO t(id, a, b) VALUES (3, 7, 7)",
        "UPDATE t SET b = 3 WHERE id = 1",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT * FROM t"), ["1|2|3|5|6", "2|5|5|10|25", "3|7|7|14|49"]);
    let result = merged(base, "UPDATE t SET a = 7 WHERE id = 1", "UPDATE t SET b = 3 WHERE id = 1");
    assert_eq!(result.kinds(), [(Unique, "t")]);
}

#[test]
fn triggers_do_not_fire_again() {
    let base =
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE count(n); INSERT INTO count VALUES (0);
                CREATE TRIGGER counts AFTER INSERT ON t BEGIN UPDATE count SET n = n + 1; END";
    let result = merged(base, "INSERT INTO t VALUES (1, 'l'), (2, 'l')", "UPDATE t SET v = 1").peaceful();
    assert_eq!(result.rows("SELECT n FROM count"), ["2"]);
}

#[test]
fn a_row_without_a_value_that_the_server_demands_now_is_recorded() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 1, 1)";
    let head = "CREATE TABLE n(id INTEGER PRIMARY KEY, a, b NOT NULL); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t";
    let result = merged(
        base,
        "INSERT INTO t VALUES (2, 2, NULL), (3, 3, 3); UPDATE t SET b = NULL, a = 5 WHERE id = 1",
        head,
    );
    assert_eq!(result.rows("SELECT * FROM t"), ["1|1|1", "3|3|3"]);
    assert_eq!(result.kinds(), [(NotNull, "t"), (NotNull, "t")]);
}

#[test]
fn keys_that_are_one_at_the_server_are_not_written_over_each_other() {
    let base = "CREATE TABLE tag(name TEXT PRIMARY KEY, n INTEGER); INSERT INTO tag VALUES ('x', 0)";
    let head = "CREATE TABLE n(name TEXT COLLATE NOCASE PRIMARY KEY, n INTEGER); INSERT INTO n SELECT * FROM tag; DROP TABLE tag; ALTER TABLE n RENAME TO tag; INSERT INTO tag VALUES ('a', 9)";
    let result = merged(base, "INSERT INTO tag VALUES ('A', 1), ('a', 2)", head);
    assert_eq!(result.rows("SELECT count(*) FROM tag"), ["2"]);
    let kinds = result.kinds();
    assert!(kinds.contains(&(Update, "tag")) && kinds.contains(&(Unique, "tag")), "{kinds:?}");
}

#[test]
fn columns_that_must_have_values_are_kept_so() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b NOT NULL); INSERT INTO t VALUES (1, 1, 1)";
    let result = merged(base, "UPDATE t SET a = NULL", "UPDATE t SET b = 2").peaceful();
    assert_eq!(result.rows("SELECT * FROM t"), ["1|NULL|2"]);
}

#[test]
fn a_row_with_a_new_id_is_found_again_by_the_next_merge() {
    // The device wrote 4; another one did so too; the merge made the device's row 5. The answer was lost.
    let base = format!("{NOTES} INSERT INTO note VALUES (4, 'device', 'd')");
    let head = "UPDATE note SET title = 'other', body = 'o' WHERE id = 4; INSERT INTO note VALUES (5, 'device', 'd')";
    let known = || Options { renumbered: vec![renumbered("note", 4, 5)], ..Options::default() };
    let result = Scene::new(&base, "UPDATE note SET body = 'D' WHERE id = 4", head).done(&known()).peaceful();
    assert_eq!(result.rows("SELECT * FROM note WHERE id > 3"), ["4|other|o", "5|device|D"]);
    assert_eq!(result.merge.renumbered, [renumbered("note", 4, 5)]);
    let result = Scene::new(&base, "DELETE FROM note WHERE id = 4", head).done(&known()).peaceful();
    assert_eq!(result.rows("SELECT * FROM note WHERE id > 3"), ["4|other|o"]);
    assert_eq!(result.merge.renumbered, []);
    let result = Scene::new(&base, "INSERT INTO note VALUES (5, 'new', 'n')", head).done(&known());
    assert_eq!(result.rows("SELECT * FROM note WHERE id > 3"), ["4|other|o", "5|device|d", "6|new|n"]);
    assert_eq!(result.merge.renumbered, [renumbered("note", 4, 5), renumbered("note", 5, 6)]);
}

#[test]
fn new_rows_that_point_to_a_renumbered_row_follow_it() {
    let base =
        format!("{SHOP} INSERT INTO customer VALUES (2, 'Bob'); INSERT INTO orders VALUES (2, 2, 'of Bob')");
    let head = "UPDATE customer SET name = 'Eve' WHERE id = 2; INSERT INTO customer VALUES (3, 'Bob');
                UPDATE orders SET customer = 3 WHERE id = 2";
    let known = Options { renumbered: vec![renumbered("customer", 2, 3)], ..Options::default() };
    let local =
        "INSERT INTO orders VALUES (9, 2, 'next of Bob'); UPDATE orders SET what = 'changed' WHERE id = 2";
    let result = Scene::new(&base, local, head).done(&known).peaceful();
    assert_eq!(result.rows("SELECT * FROM orders WHERE id > 1"), ["2|3|changed", "9|3|next of Bob"]);
}

#[test]
fn user_version_follows_the_side_that_changed_it() {
    assert_eq!(merged(NOTES, "PRAGMA user_version = 5", "").peaceful().rows("PRAGMA user_version"), ["5"]);
    assert_eq!(merged(NOTES, "", "PRAGMA user_version = 5").peaceful().rows("PRAGMA user_version"), ["5"]);
    let result =
        merged(NOTES, "PRAGMA user_version = 5; PRAGMA application_id = 7", "PRAGMA user_version = 6");
    assert_eq!(result.rows("PRAGMA user_version"), ["5"]);
    assert_eq!(result.rows("PRAGMA application_id"), ["7"]);
    assert_eq!(result.conflicts()[0].table, "user_version");
}

#[test]
fn statistics_stay_those_of_the_head() {
    let base = format!("{NOTES} CREATE INDEX titles ON note(title); ANALYZE");
    let result = merged(&base, "INSERT INTO note VALUES (4, 'x', 'y'); ANALYZE", "UPDATE note SET body = 1")
        .peaceful();
    assert_eq!(result.rows("SELECT stat FROM sqlite_stat1"), ["3 1"]);
}

#[test]
fn a_collation_that_the_server_lacks_stands_in_the_way_only_of_its_own_table() {
    let base = format!(
        "{NOTES} CREATE TABLE word(w TEXT); CREATE INDEX words ON word(w); INSERT INTO word VALUES ('a')"
    );
    // As an application does that brings its own collation.
    let alien = "PRAGMA writable_schema = ON;
                 UPDATE sqlite_schema SET sql = 'CREATE INDEX words ON word(w COLLATE alien)' WHERE name = 'words'";
    let scene = |sql: &str| format!("{sql}; {alien}");
    let base = scene(&base);
    let body = |value: &str| scene(&format!("UPDATE note SET body = '{value}' WHERE title = '{value}'"));
    let result = Scene::new(&base, &body("one"), &body("two")).merged(&Options::default());
    let Merged::Done(merge) = result else { panic!("{result:?}") };
    assert_eq!(merge.conflicts, []);
    assert_eq!(merge.counts, counts(0, 1, 0, 0));
    let plain = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE INDEX words ON word(w)' WHERE name = 'words'; PRAGMA writable_schema = RESET";
    let why = refused(&base, &scene(&format!("{plain}; INSERT INTO word VALUES ('b')")), &body("two"));
    assert_eq!(why.object.as_deref(), Some("word"));
    assert!(why.reason.contains("alien"), "{}", why.reason);
}

#[test]
fn sides_with_pages_of_different_sizes_are_refused() {
    let why = refused(NOTES, "PRAGMA page_size = 1024; VACUUM", "UPDATE note SET body = 1");
    assert!(why.reason.contains("VACUUM"), "{}", why.reason);
}

#[test]
fn from_a_doubtful_base_a_row_that_both_have_alike_is_one() {
    let base =
        "CREATE TABLE note(id INTEGER PRIMARY KEY, title TEXT, done DEFAULT 0); CREATE TABLE bag(what TEXT)";
    let both = "INSERT INTO note(id, title) VALUES (1, 'alike'), (2, 'mine'); INSERT INTO bag VALUES ('alike'), ('mine')";
    let head = "INSERT INTO note(id, title) VALUES (1, 'alike'), (2, 'theirs'); INSERT INTO bag VALUES ('alike'), ('theirs')";
    let doubtful = Scene::new(base, both, head).done(&Options { doubt: true, ..Options::default() });
    // What only looks alike in a flag is two devices' own.
    assert_eq!(doubtful.rows("SELECT id, title FROM note"), ["1|alike", "2|theirs", "3|mine"]);
    assert_eq!(doubtful.rows("SELECT what FROM bag"), ["alike", "theirs", "mine"]);
    let certain = merged(base, both, head);
    assert_eq!(certain.rows("SELECT count(*) FROM note"), ["4"], "two devices may write the same");
    assert_eq!(certain.rows("SELECT count(*) FROM bag"), ["4"]);
}
