//! What an earlier merge refused stays the device's own until it fits, and never becomes another row's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_methods, unreachable_pub, dead_code)]

mod common;

use common::{Result, Scene, merged};
use highwater_merge::Options;
use highwater_wire::ConflictKind::{ForeignKey, Renumbered as NewId, Unique, UpdateDelete};
use highwater_wire::{Rejected, Renumbered, SqlValue};

const PEOPLE: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);
    CREATE TABLE c(id INTEGER PRIMARY KEY, p_id REFERENCES p);";

/// The next merge of the same device, whose state `local` went into `first`: it wrote `later` meanwhile, and the
/// head got `meanwhile`.
fn next(base: &str, local: &str, head: &str, later: &str, meanwhile: &str) -> (Result, Result) {
    let scene = Scene::new(base, local, head);
    let device = scene.local.clone();
    let first = scene.done(&Options::default());
    let folder = tempfile::tempdir().unwrap();
    let with = |side: &common::Memory, sql: &str, name: &str| {
        let path = folder.path().join(name);
        side.open(&path).execute_batch(sql).unwrap();
        common::Memory::of_file(&path)
    };
    let (local, head) = (with(&device, later, "local"), with(&first.pages, meanwhile, "head"));
    let options = Options {
        renumbered: first.merge.renumbered.clone(),
        rejected: first.merge.rejected.clone(),
        ..Options::default()
    };
    let second = Scene::of(device, local, head).done(&options);
    (first, second)
}

fn key(table: &str, column: &str, value: SqlValue) -> Rejected {
    Rejected { table: table.to_owned(), key: vec![(column.to_owned(), value)] }
}

#[test]
fn a_child_of_a_refused_row_never_hangs_on_another_row() {
    let refused = "INSERT INTO p VALUES (10, 'x', 'mine')";
    let theirs = "INSERT INTO p VALUES (10, 'x', 'theirs')";
    let later = "INSERT INTO p VALUES (11, 'y', 'new'); INSERT INTO c VALUES (1, 10), (2, 11)";
    let (first, second) = next(PEOPLE, refused, theirs, later, "");
    assert_eq!(first.merge.renumbered, [], "the head has no such row");
    assert_eq!(first.merge.rejected, [key("p", "id", SqlValue::Integer(10))]);
    assert_eq!(second.rows("SELECT * FROM p"), ["10|x|theirs", "11|y|new"]);
    assert_eq!(second.rows("SELECT * FROM c"), ["2|11"]);
    assert_eq!(second.kinds(), [(Unique, "p"), (ForeignKey, "c")]);
    let both = [key("p", "id", SqlValue::Integer(10)), key("c", "id", SqlValue::Integer(1))];
    assert_eq!(second.merge.rejected, both);
}

#[test]
fn an_id_that_was_refused_and_then_given_to_another_row_stays_that_rows() {
    let refused = "INSERT INTO p VALUES (2, 'x', 'mine')";
    let theirs = "INSERT INTO p VALUES (1, 'x', 'old'); INSERT INTO c VALUES (9, 1)";
    let later = "INSERT INTO c VALUES (1, 2); UPDATE p SET name = 'renamed' WHERE id = 2";
    let (_, second) = next(PEOPLE, refused, theirs, later, "INSERT INTO p VALUES (2, 'z', 'theirs')");
    assert_eq!(second.rows("SELECT * FROM p"), ["1|x|old", "2|z|theirs"]);
    assert_eq!(second.rows("SELECT * FROM c"), ["9|1"]);
    assert_eq!(second.kinds(), [(Unique, "p"), (ForeignKey, "c")]);
}

#[test]
fn a_refused_row_that_was_mended_is_inserted_with_its_children() {
    let refused = "INSERT INTO p VALUES (10, 'x', 'mine'); INSERT INTO c VALUES (1, 10)";
    let theirs = "INSERT INTO p VALUES (10, 'x', 'theirs')";
    let later = "UPDATE p SET email = 'mended' WHERE id = 10";
    let (_, second) = next(PEOPLE, refused, theirs, later, "");
    assert_eq!(second.rows("SELECT * FROM p"), ["10|x|theirs", "11|mended|mine"]);
    assert_eq!(second.rows("SELECT * FROM c"), ["1|11"]);
    assert_eq!(second.kinds(), [(NewId, "p")]);
    assert_eq!(second.merge.rejected, []);
    assert_eq!(second.merge.renumbered, [Renumbered { table: "p".to_owned(), from: 10, to: 11 }]);
}

#[test]
fn a_refused_row_that_the_device_deleted_takes_nothing_with_it() {
    let theirs = "INSERT INTO p VALUES (10, 'x', 'theirs')";
    let (_, second) = next(PEOPLE, "INSERT INTO p VALUES (10, 'x', 'mine')", theirs, "DELETE FROM p", "");
    assert_eq!(second.rows("SELECT * FROM p"), ["10|x|theirs"]);
    assert_eq!((second.conflicts(), &second.merge.rejected[..]), (&[][..], &[][..]));
}

#[test]
fn refused_rows_of_every_kind_of_table_are_tried_again() {
    for (suffix, key_sql) in [("", "TEXT PRIMARY KEY"), (" WITHOUT ROWID", "TEXT PRIMARY KEY"), ("", "TEXT")]
    {
        let base = format!("CREATE TABLE t(k {key_sql}, u UNIQUE, v){suffix}");
        let (first, second) = next(
            &base,
            "INSERT INTO t VALUES ('mine', 1, 'm'), ('more', 2, 'm')",
            "INSERT INTO t VALUES ('theirs', 1, 't')",
            "UPDATE t SET v = 'n' WHERE k = 'more'",
            "DELETE FROM t WHERE k = 'theirs'",
        );
        assert_eq!(first.kinds(), [(Unique, "t")], "{base}");
        assert_eq!(second.rows("SELECT * FROM t ORDER BY k"), ["mine|1|m", "more|2|n"], "{base}");
        assert_eq!(second.conflicts(), [], "{base}");
    }
}

#[test]
fn a_row_that_vacuum_moved_is_not_overwritten_by_a_change_of_a_deleted_one() {
    let base = "CREATE TABLE log(line); INSERT INTO log VALUES ('b'), ('a'), ('g')";
    let head = "DELETE FROM log WHERE line = 'a'; VACUUM";
    let result = merged(base, "UPDATE log SET line = 'a2' WHERE line = 'a'", head);
    assert_eq!(result.rows("SELECT line FROM log ORDER BY line"), ["a2", "b", "g"]);
    assert_eq!(result.kinds(), [(UpdateDelete, "log")]);
    let local = "UPDATE log SET line = line || '2' WHERE line <> 'b'";
    let result = merged(base, local, head);
    assert_eq!(result.rows("SELECT line FROM log ORDER BY line"), ["a2", "b", "g2"]);
    let result = merged(base, "DELETE FROM log WHERE line = 'a'", head).peaceful();
    assert_eq!(result.rows("SELECT line FROM log ORDER BY line"), ["b", "g"]);
}

#[test]
fn a_row_that_vacuum_put_in_the_place_of_another_does_not_mix_with_it() {
    let base = "CREATE TABLE t(a, b); INSERT INTO t VALUES ('1', 'x1'), ('2', 'x2')";
    let local = "DELETE FROM t WHERE a = '1'; UPDATE t SET b = 'mine' WHERE a = '2';
        INSERT INTO t VALUES ('new', 'n'); VACUUM";
    let result = merged(base, local, "UPDATE t SET a = 'theirs' WHERE a = '2'");
    let rows = result.rows("SELECT * FROM t ORDER BY a");
    assert!(
        rows.contains(&"new|n".to_owned()) && rows.iter().all(|row| !row.contains("theirs|n")),
        "{rows:?}"
    );
    assert!(
        rows.iter().any(|row| row.ends_with("|mine")) && rows.iter().any(|row| row.starts_with("theirs|")),
        "{rows:?}"
    );
}

#[test]
fn a_row_that_vacuum_moved_on_the_device_is_found_again_by_the_next_merge() {
    let base = "CREATE TABLE t(name, a, b); INSERT INTO t VALUES ('w', 0, 0), ('x', 0, 0), ('y', 0, 0), ('z', 0, 0);";
    let local = "DELETE FROM t WHERE name = 'w'; UPDATE t SET a = 1 WHERE name = 'y'; VACUUM;";
    let head = "UPDATE t SET b = 2 WHERE name IN ('y', 'z')";
    let later = "UPDATE t SET a = a + 3 WHERE name IN ('y', 'z')";
    let (first, second) = next(base, local, head, later, "UPDATE t SET name = upper(name)");
    let moved = |from, to| Renumbered { table: "t".to_owned(), from, to };
    assert_eq!(first.merge.renumbered, [moved(2, 3), moved(3, 4)]);
    assert_eq!(second.rows("SELECT * FROM t"), ["X|0|0", "Y|4|2", "Z|3|2"]);
    assert_eq!(second.conflicts(), []);
}

#[test]
fn a_row_whose_key_is_null_is_never_taken_for_one_with_a_key() {
    let base = "CREATE TABLE m(k TEXT PRIMARY KEY, v); INSERT INTO m VALUES ('x', 1), (NULL, 'mine')";
    let head = "DELETE FROM m WHERE k IS NULL; INSERT INTO m VALUES ('q', 'other')";
    let result = merged(base, "UPDATE m SET v = 'new' WHERE k IS NULL", head);
    assert_eq!(result.rows("SELECT * FROM m ORDER BY k"), ["NULL|new", "q|other", "x|1"]);
    assert_eq!(result.kinds(), [(UpdateDelete, "m")]);
    let result = merged(base, "DELETE FROM m WHERE k IS NULL", head).peaceful();
    assert_eq!(result.rows("SELECT * FROM m ORDER BY k"), ["q|other", "x|1"]);
}

#[test]
fn an_id_follows_one_change_and_not_the_next_table_s_too() {
    for (first, second) in [("one", "two"), ("two", "one")] {
        let base = format!(
            "CREATE TABLE one(id INTEGER PRIMARY KEY, v); CREATE TABLE two(id INTEGER PRIMARY KEY, v);
             CREATE TABLE c(id INTEGER PRIMARY KEY, at REFERENCES {first} REFERENCES {second});"
        );
        let rows = |who: &str| {
            format!(
                "INSERT INTO one VALUES (10, '{who}'); INSERT INTO two VALUES (10, '{who}'), (11, '{who}');"
            )
        };
        let local = rows("l") + "INSERT INTO c VALUES (1, 10)";
        let result = merged(&base, &local, &rows("h"));
        let own = result.rows("SELECT id FROM one WHERE v = 'l' UNION SELECT id FROM two WHERE v = 'l'");
        assert_eq!(own, ["11", "12", "13"]);
        // 10 became 11 in the one and 12 in the other; 11 became 13, but nobody pointed to that.
        assert_ne!(result.rows("SELECT at FROM c"), ["13"]);
    }
}

#[test]
fn an_id_that_autoincrement_gave_away_is_seen_whatever_the_name_of_the_table() {
    let base = "CREATE TABLE \"a\"\"\"(id INTEGER PRIMARY KEY AUTOINCREMENT, v)";
    let head = "INSERT INTO \"a\"\"\" VALUES (1, 'h'), (9, 'gone'); DELETE FROM \"a\"\"\" WHERE id = 9";
    let result = merged(base, "INSERT INTO \"a\"\"\"(v) VALUES ('l')", head);
    assert_eq!(result.rows("SELECT * FROM \"a\"\"\""), ["1|h", "10|l"]);
}

#[test]
fn a_long_row_of_numbers_that_moves_by_one_is_applied_at_once() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, pos INTEGER UNIQUE, v);
                WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < 4000)
                INSERT INTO t SELECT n, n, '' FROM c;";
    let began = std::time::Instant::now();
    let result = merged(
        base,
        "UPDATE t SET pos = -pos; UPDATE t SET pos = 1 - pos",
        "INSERT INTO t VALUES (9000, 9000, 'h')",
    );
    assert_eq!(result.rows("SELECT count(*) FROM t WHERE pos = id + 1"), ["4000"]);
    assert_eq!(result.conflicts(), []);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}
