//! Random migrations on both sides.
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

use common::{Memory, Scene, texts};
use highwater_merge::Options;
use proptest::prelude::*;
use rusqlite::Connection;

type Step = (u8, u8, u8, u8);

/// One statement out of four numbers. Many are refused by SQLite, and left out.
fn statement((what, a, b, c): Step) -> String {
    let table = |n: u8| ["one", "two", "three", "four"][usize::from(n) % 4];
    let column = |n: u8| ["x", "y", "z", "id"][usize::from(n) % 4];
    let kind =
        |n: u8| ["TEXT", "INT DEFAULT 5", "", "TEXT NOT NULL DEFAULT 'd'", "AS (id + 1)"][usize::from(n) % 5];
    let (t, u, x, y) = (table(a), table(b), column(b), column(c));
    match what % 26 {
        0 => format!("CREATE TABLE {t} (id INTEGER PRIMARY KEY, x TEXT, y INT)"),
        1 => format!("CREATE TABLE {t} (id TEXT PRIMARY KEY, x TEXT, y {}) WITHOUT ROWID", kind(b)),
        2 => format!("CREATE TABLE {t} (x, y, id)"),
        3 => format!("CREATE TABLE {t} (id INTEGER PRIMARY KEY AUTOINCREMENT, y REFERENCES {u}(id))"),
        4 => format!("DROP TABLE {t}"),
        5 => format!("ALTER TABLE {t} RENAME TO {u}"),
        6 | 7 => format!("ALTER TABLE {t} ADD COLUMN {x} {}", kind(c)),
        8 => format!("ALTER TABLE {t} RENAME COLUMN {x} TO {y}"),
        9 => format!("ALTER TABLE {t} DROP COLUMN {x}"),
        10 => format!("CREATE INDEX i{} ON {t}({x})", c % 3),
        11 => format!("CREATE UNIQUE INDEX i{} ON {t}({x})", c % 3),
        12 => format!("DROP INDEX i{}", a % 3),
        13 => format!("CREATE VIEW v{} AS SELECT {x} FROM {t}", c % 2),
        14 => format!("DROP VIEW v{}", a % 2),
        15 => format!("CREATE TRIGGER t{} AFTER UPDATE ON {t} BEGIN SELECT new.{x}; END", c % 2),
        16 => format!("DROP TRIGGER t{}", a % 2),
        17 => format!(
            "BEGIN; CREATE TABLE fresh (id INTEGER PRIMARY KEY, x {}, y INT); INSERT INTO fresh SELECT id, x, y FROM {t};
             DROP TABLE {t}; ALTER TABLE fresh RENAME TO {t}; COMMIT",
            kind(b)
        ),
        18 | 19 => format!("INSERT INTO {t}(id, {x}) VALUES ({c}, 'v{c}')"),
        20 => format!("UPDATE {t} SET {x} = 'u{c}' WHERE id % 3 = 1"),
        21 => format!("DELETE FROM {t} WHERE id % 4 = {}", c % 4),
        22 => format!("CREATE VIRTUAL TABLE {t} USING fts5(id, x, y{})", if c % 2 == 0 { ", tokenize = porter" } else { "" }),
        23 => format!("CREATE VIRTUAL TABLE {t} USING rtree(id, x, y)"),
        24 => format!("INSERT INTO {t}(rowid, x, y) VALUES ({b}, {c}, {c} + 1)"),
        _ => format!("CREATE VIRTUAL TABLE {t} USING fts5(x, content = {u}, content_rowid = id)"),
    }
}

fn statements(steps: &[Step]) -> Vec<String> {
    // A statement that stopped in a transaction leaves it open.
    let one = |step: &Step| [statement(*step), "ROLLBACK".to_owned()];
    steps.iter().flat_map(one).collect()
}

/// Everything that people see of a database: objects, columns and rows.
fn content(db: &Connection) -> Vec<String> {
    let mut all = texts(
        db,
        "SELECT type || ' ' || name || ' ' || tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' ORDER BY 1",
    );
    let tables = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite%'";
    for table in texts(db, tables) {
        all.extend(texts(db, &format!("SELECT '{table}', name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo('{table}')")));
        if let Ok(mut rows) = db.prepare(&format!("SELECT * FROM {table}")) {
            let count = rows.column_count();
            let row = |row: &rusqlite::Row<'_>| {
                Ok((0..count)
                    .map(|at| format!("{:?}", row.get_ref(at).unwrap()))
                    .collect::<Vec<_>>()
                    .join("|"))
            };
            let mut rows: Vec<String> =
                rows.query_map([], row).unwrap().map(|row| format!("{row:?}")).collect();
            rows.sort();
            all.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
        }
    }
    all.sort();
    all
}

fn of(pages: &Memory) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    content(&pages.open(&folder.path().join("db")))
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0..26_u8, 0..4_u8, 0..12_u8, 0..12_u8), 0..most)
}

/// The statements with values that only this side writes.
fn by(side: char, steps: &[Step]) -> Vec<String> {
    let own = |text: String| text.replace("'v", &format!("'{side}v")).replace("'u", &format!("'{side}u"));
    statements(steps).into_iter().map(own).collect()
}

/// Values that this side wrote, as they stand in lists of content and of conflicts.
fn values_of(side: char, content: &[String]) -> Vec<String> {
    let begin = format!("Text([{}, 11", side as u32);
    let in_row = |row: &String| {
        let values = row.split('|').filter_map(|value| value.find(&begin).map(|at| value[at..].to_owned()));
        values.map(|value| value[..=value.find(')').unwrap()].to_owned()).collect::<Vec<_>>()
    };
    content.iter().flat_map(in_row).collect()
}

proptest! {
    #![proptest_config(common::tries(40))]

    #[test]
    fn any_two_migrations_merge_into_a_sound_database(base in steps(14), local in steps(7), head in steps(7)) {
        let (base, local, head) = (statements(&base), statements(&local), statements(&head));
        Scene::of_statements(&base, &local, &head).done(&Options::default());
    }

    #[test]
    fn what_either_side_wrote_is_in_the_result_or_in_a_record(base in steps(14), local in steps(7), head in steps(7)) {
        let scene = Scene::of_statements(&statements(&base), &by('l', &local), &by('h', &head));
        let sides = [('l', of(&scene.local)), ('h', of(&scene.head))];
        let result = scene.done(&Options::default());
        let kept = format!("{:?} {:?}", content(&result.db), result.merge.conflicts).replace("\\\"", "\"");
        for (side, content) in sides {
            for value in values_of(side, &content) {
                prop_assert!(kept.contains(&value), "{} {value} of {content:#?} is not in {kept}", side);
            }
        }
    }

    #[test]
    fn a_migration_that_meets_nobody_arrives_whole(base in steps(14), local in steps(9)) {
        let scene = Scene::of_statements(&statements(&base), &statements(&local), &[]);
        let wanted = of(&scene.local);
        let result = scene.done(&Options::default());
        prop_assert_eq!(&result.merge.conflicts, &[]);
        prop_assert_eq!(content(&result.db), wanted);
    }

    #[test]
    fn a_device_that_wrote_nothing_changes_nothing(base in steps(14), head in steps(9)) {
        let scene = Scene::of_statements(&statements(&base), &[], &statements(&head));
        let result = scene.done(&Options::default());
        prop_assert_eq!(&result.merge.conflicts, &[]);
        // At most the cookie of the schema on the first page.
        prop_assert!(result.merge.pages.iter().all(|(page, _)| page.0 == 1));
    }
}

#[test]
fn values_of_a_side_are_seen_in_its_content() {
    let scene =
        Scene::of_statements(&by('b', &[(0, 0, 0, 0)]), &by('l', &[(18, 0, 0, 3), (20, 0, 1, 3)]), &[]);
    assert_eq!(values_of('l', &of(&scene.local)), ["Text([108, 118, 51])"]);
    assert!(values_of('l', &of(&scene.head)).is_empty());
}
