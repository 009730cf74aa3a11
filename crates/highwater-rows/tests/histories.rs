//! Row changes read from pages are those that SQL finds by comparing whole tables, on random histories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::Image;
use highwater_ltx::PageNo;
use highwater_pages::owners::PageSource;
use highwater_rows::{Collation, Key, SchemaRow, Tree, TreeKind, changed_rows, header, schema};
use highwater_wire::SqlValue;
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

/// Every kind of table, and the number of key columns that stand first.
const TABLES: [(&str, &str); 7] = [
    ("plain", "CREATE TABLE plain(a, b, c)"),
    ("named", "CREATE TABLE named(id INTEGER PRIMARY KEY, a, b)"),
    ("keyed", "CREATE TABLE keyed(k TEXT PRIMARY KEY, a, b)"),
    ("compact", "CREATE TABLE compact(a, k TEXT, n INT, b, PRIMARY KEY(k DESC, n)) WITHOUT ROWID"),
    ("nocase", "CREATE TABLE nocase(k TEXT COLLATE NOCASE PRIMARY KEY, a, b) WITHOUT ROWID"),
    (
        "padded",
        "CREATE TABLE padded(k TEXT COLLATE RTRIM, n REAL, a, b, PRIMARY KEY(n, k DESC)) WITHOUT ROWID",
    ),
    ("mixed", "CREATE TABLE mixed(k PRIMARY KEY, a, b) WITHOUT ROWID"),
];

struct History<'a> {
    db: &'a Connection,
    rng: &'a mut TestRng,
    page: usize,
}

impl History<'_> {
    fn below(&mut self, limit: u32) -> u32 {
        self.rng.next_u32() % limit
    }

    fn run(&mut self, sql: &str, values: &[Value]) {
        // Random keys collide now and then.
        match self.db.execute(sql, params_from_iter(values)) {
            Ok(_) => {}
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == rusqlite::ErrorCode::ConstraintViolation => {}
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    fn value(&mut self) -> Value {
        let n = self.below(1000);
        match self.below(12) {
            0 => Value::Null,
            1 => Value::Integer(i64::from(n)),
            2 => Value::Real(f64::from(n) / 4.0),
            3..=7 => Value::Text(format!("text {n}").repeat(1 + n as usize % 5)),
            8 => Value::Blob(vec![n as u8; n as usize % 40]),
            9 => Value::Text("long ".repeat(self.page / 10)),
            10 => Value::Blob(vec![n as u8; self.page * 2 + n as usize % 7]),
            _ => Value::Blob(vec![(n % 5) as u8; self.page * (1 + n as usize % 4)]),
        }
    }

    fn key(&mut self) -> Value {
        let n = self.below(400);
        match self.below(10) {
            0 => Value::Integer(i64::from(n)),
            1 => Value::Text(format!("Key {n}").to_uppercase()),
            2 => Value::Text(format!("key {n} {}", "x".repeat(self.page / 3))),
            3 => Value::Real(f64::from(n) / 2.0),
            4 => Value::Blob(vec![n as u8; 3]),
            _ => Value::Text(format!("key {n}")),
        }
    }

    fn text_key(&mut self) -> Value {
        let n = self.below(4);
        match self.key() {
            Value::Text(text) => Value::Text(text),
            _ => Value::Text(format!("é{n}𝄞 ")),
        }
    }

    fn insert(&mut self) {
        let (a, b) = (self.value(), self.value());
        match self.below(7) {
            0 => {
                let c = self.value();
                self.run("INSERT INTO plain(a, b, c) VALUES (?, ?, ?)", &[a, b, c]);
            }
            1 => {
                let id = Value::Integer(i64::from(self.below(2000)) - 1000);
                self.run("INSERT OR REPLACE INTO named(id, a, b) VALUES (?, ?, ?)", &[id, a, b]);
            }
            2 => {
                let key = self.text_key();
                self.run("INSERT OR REPLACE INTO keyed(k, a, b) VALUES (?, ?, ?)", &[key, a, b]);
            }
            3 => {
                let (key, n) = (self.text_key(), Value::Integer(i64::from(self.below(3))));
                self.run("INSERT OR REPLACE INTO compact(k, n, a, b) VALUES (?, ?, ?, ?)", &[key, n, a, b]);
            }
            4 => {
                let key = self.text_key();
                self.run("INSERT OR IGNORE INTO nocase(k, a, b) VALUES (?, ?, ?)", &[key, a, b]);
            }
            5 => {
                let (key, n) = (self.text_key(), Value::Real(f64::from(self.below(8)) / 2.0));
                self.run("INSERT OR IGNORE INTO padded(k, n, a, b) VALUES (?, ?, ?, ?)", &[key, n, a, b]);
            }
            _ => {
                let key = self.key();
                self.run("INSERT OR IGNORE INTO mixed(k, a, b) VALUES (?, ?, ?)", &[key, a, b]);
            }
        }
    }

    fn table(&mut self) -> &'static str {
        TABLES[self.below(TABLES.len() as u32) as usize].0
    }

    fn step(&mut self) {
        let table = self.table();
        let (some, rest) = (self.below(40) + 2, self.below(40));
        // SQL's own `random()` cannot be told where to begin.
        let any = format!(
            "(length(quote(a)) * 7 + unicode(substr(quote(a), 7, 1) || '.') * 31
              + unicode(substr(quote(b), 6, 1) || '.') * 17 + length(quote(b)) * 3 + {})",
            self.below(1000)
        );
        match self.below(100) {
            0..45 => (0..=rest).for_each(|_| self.insert()),
            45..60 => {
                let value = self.value();
                self.run(&format!("UPDATE {table} SET a = ? WHERE {any} % {some} = 0"), &[value]);
            }
            // In place, in the last byte of a long value.
            60..75 => {
                let last = Value::Blob(vec![rest as u8]);
                let sql = "SET b = CAST(substr(b, 1, length(b) - 1) || ? AS BLOB) WHERE length(b) > 300";
                self.run(&format!("UPDATE {table} {sql} AND {any} % 5 = 0"), &[last]);
            }
            75..84 => self.run(&format!("DELETE FROM {table} WHERE {any} % {some} = 0"), &[]),
            84 => self.run(&format!("DELETE FROM {table}"), &[]),
            85 => self.db.execute_batch("VACUUM").unwrap(),
            86 => self.db.execute_batch("PRAGMA incremental_vacuum(5)").unwrap(),
            87 => {
                let sql = TABLES.iter().find(|(name, _)| *name == table).unwrap().1;
                self.db.execute_batch(&format!("DROP TABLE {table}; {sql}")).unwrap();
            }
            88 => {
                self.db.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN more DEFAULT 7")).unwrap_or(())
            }
            89 => self.db.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN more")).unwrap_or(()),
            90 => self.db.execute_batch("CREATE INDEX IF NOT EXISTS by_b ON plain(b)").unwrap(),
            91 => self.db.execute_batch("DROP INDEX IF EXISTS by_b").unwrap(),
            92 => self
                .db
                .execute_batch(&format!("DROP TABLE IF EXISTS moved; ALTER TABLE {table} RENAME TO moved"))
                .unwrap(),
            93..97 => self.blob_write(),
            97 => self.run("UPDATE named SET id = id + 5000 WHERE id % 7 = 0", &[]),
            _ => {
                self.db.execute_batch(&format!("UPDATE plain SET a = b, b = a WHERE {any} % 3 = 0")).unwrap()
            }
        }
        // What was renamed is made anew.
        for (name, sql) in TABLES {
            if common::table(self.db, name).is_none() {
                self.db.execute_batch(sql).unwrap();
            }
        }
    }

    fn blob_write(&mut self) {
        let any = self.below(101);
        let sql = format!(
            "SELECT rowid, length(b) FROM named WHERE typeof(b) = 'blob' AND length(b) > 300
             ORDER BY (rowid * 7919 + {any}) % 101"
        );
        let found =
            self.db.query_row(&sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)? as usize)));
        let Ok((rowid, length)) = found else { return };
        let mut blob = self.db.blob_open("main", "named", "b", rowid, false).unwrap();
        blob.write_at(&[self.rng.next_u32() as u8], length - 1 - self.rng.next_u32() as usize % 200).unwrap();
    }
}

/// The rows of a table as SQL shows them, by key. Columns that only one side may have are left out by the caller.
fn rows(db: &Connection, table: &str, tree: &Tree) -> BTreeMap<String, Vec<u8>> {
    let key = match &tree.kind {
        TreeKind::Rowid => "rowid".to_owned(),
        TreeKind::WithoutRowid { key } if key.len() == 2 && key[0].descending => {
            "quote(k) || ', ' || quote(n)".to_owned()
        }
        TreeKind::WithoutRowid { key } if key.len() == 2 => "quote(n) || ', ' || quote(k)".to_owned(),
        TreeKind::WithoutRowid { .. } => "quote(k)".to_owned(),
    };
    let sql = format!("SELECT {key}, * FROM {table}");
    let mut statement = db.prepare(&sql).unwrap();
    let columns = statement.column_count();
    let found = statement.query_map([], |row| {
        let key = match row.get(0)? {
            Value::Integer(rowid) => rowid.to_string(),
            Value::Text(key) => key,
            other => panic!("{other:?}"),
        };
        let mut content = Vec::new();
        for n in 1..columns {
            let (kind, bytes) = match row.get_ref(n)? {
                ValueRef::Null => (0, Vec::new()),
                ValueRef::Integer(number) => (1, number.to_be_bytes().to_vec()),
                ValueRef::Real(number) => (2, number.to_be_bytes().to_vec()),
                ValueRef::Text(text) => (3, text.to_vec()),
                ValueRef::Blob(bytes) => (4, bytes.to_vec()),
            };
            content.push(kind);
            content.extend((bytes.len() as u64).to_be_bytes());
            content.extend(bytes);
        }
        Ok((key, content))
    });
    found.unwrap().map(Result::unwrap).collect()
}

fn key_of(key: &Key) -> String {
    match key {
        Key::Rowid(rowid) => rowid.to_string(),
        Key::Values(values) => values.iter().map(quote).collect::<Vec<_>>().join(", "),
    }
}

fn quote(value: &SqlValue) -> String {
    match value {
        SqlValue::Blob(bytes) => {
            format!("X'{}'", bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>())
        }
        other => other.to_string(),
    }
}

/// Compares every table; with `unknown`, as if the order of keys were not known.
fn compare(before: &Path, after: &Path, unknown: bool, what: &str) -> usize {
    let (left, right) = (Connection::open(before).unwrap(), Connection::open(after).unwrap());
    let images = (Image::new(std::fs::read(before).unwrap()), Image::new(std::fs::read(after).unwrap()));
    let names = left
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")
        .unwrap()
        .query_map([], |row| row.get::<_, String>(0))
        .unwrap()
        .map(Result::unwrap)
        .chain(["moved".to_owned()])
        .collect::<std::collections::BTreeSet<_>>();
    let trees: Vec<(String, Tree)> = names
        .iter()
        .flat_map(|name| common::trees(&left, &right, name).into_iter().map(move |tree| (name.clone(), tree)))
        .collect();
    let mut list: Vec<Tree> = trees.iter().map(|(_, tree)| tree.clone()).collect();
    if unknown {
        let keys = list.iter_mut().filter_map(|tree| match &mut tree.kind {
            TreeKind::WithoutRowid { key } => Some(key),
            TreeKind::Rowid => None,
        });
        keys.for_each(|key| key[0].collation = Collation::Other);
    }
    let changed = images.0.changed(&images.1);
    let found = changed_rows(&images.0, &images.1, &list, &changed).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut count = 0;
    for ((name, tree), found) in trees.iter().zip(found.rows) {
        let columns = |db: &Connection| -> Vec<String> {
            let mut columns = db.prepare("SELECT name FROM pragma_table_xinfo(?)").unwrap();
            columns.query_map([name], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let before = if tree.before.is_some() { rows(&left, name, tree) } else { BTreeMap::new() };
        let after = if tree.after.is_some() { rows(&right, name, tree) } else { BTreeMap::new() };
        let by_values = tree.before.is_none() || tree.after.is_none() || columns(&left) == columns(&right);
        let mut expected = BTreeMap::new();
        for key in before.keys().chain(after.keys()) {
            let (left, right) = (before.get(key), after.get(key));
            if left != right && (by_values || left.is_none() || right.is_none()) {
                expected.insert(key.clone(), (left.is_some(), right.is_some()));
            }
        }
        count += expected.len();
        if let TreeKind::Rowid = tree.kind {
            let ids: Vec<_> =
                found.iter().map(|row| if let Key::Rowid(id) = row.key { id } else { 0 }).collect();
            assert!(ids.is_sorted_by(|a, b| a < b), "{what}: {name} {ids:?}");
        }
        let mut found: BTreeMap<_, _> =
            found.iter().map(|row| (key_of(&row.key), (row.before, row.after))).collect();
        if !by_values {
            found.retain(|_, sides| *sides != (true, true));
        }
        // A column that was added is stored only when the row is written again.
        if columns(&right).contains(&"more".to_owned()) {
            found.retain(|key, sides| *sides != (true, true) || expected.contains_key(key));
        }
        let missing: Vec<_> =
            expected.iter().filter(|(key, sides)| found.get(*key) != Some(*sides)).collect();
        let wrong: Vec<_> = found.iter().filter(|(key, sides)| expected.get(*key) != Some(*sides)).collect();
        assert!(missing.is_empty() && wrong.is_empty(), "{what}: {name} {tree:?}: {missing:?} not {wrong:?}");
    }
    count
}

fn check_schema(path: &Path) {
    let db = Connection::open(path).unwrap();
    let image = Image::new(std::fs::read(path).unwrap());
    let sql = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid";
    let mut statement = db.prepare(sql).unwrap();
    let expected = statement.query_map([], |row| {
        let root: Option<u32> = row.get(3)?;
        let root = root.filter(|root| *root != 0).map(PageNo);
        Ok(SchemaRow { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, root, sql: row.get(4)? })
    });
    let expected: Vec<_> = expected.unwrap().map(Result::unwrap).collect();
    let found = schema(&image).unwrap();
    assert_eq!(found, expected);
    let header = header(&image).unwrap().unwrap();
    let pragma =
        |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!(header.schema_cookie, pragma("schema_version"));
    assert_eq!(header.user_version, pragma("user_version"));
    assert_eq!(header.free_pages, pragma("freelist_count"));
    let vacuum = u32::from(header.auto_vacuum) + u32::from(header.incremental_vacuum);
    assert_eq!(vacuum, pragma("auto_vacuum"));
    assert_eq!(header.page_size, image.page_size());
}

fn history(seed: u64, steps: u32) -> (usize, usize) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes);
    let folder = tempfile::tempdir().unwrap();
    let (now, then) = (folder.path().join("now.db"), folder.path().join("then.db"));
    let size = [512, 512, 512, 1024, 1024, 2048, 4096, 8192, 65536][rng.next_u32() as usize % 9];
    let reserved =
        if rng.next_u32().is_multiple_of(4) { [8, 32, 12][rng.next_u32() as usize % 3] } else { 0 };
    new_database(&now, size, reserved);
    let db = Connection::open(&now).unwrap();
    let encoding = ["UTF-8", "UTF-8", "UTF-16le", "UTF-16be"][rng.next_u32() as usize % 4];
    let vacuum = ["NONE", "NONE", "FULL", "INCREMENTAL"][rng.next_u32() as usize % 4];
    let secure = rng.next_u32() % 2;
    db.execute_batch(&format!(
        "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; PRAGMA secure_delete={secure};
         PRAGMA encoding='{encoding}'; PRAGMA auto_vacuum={vacuum}; PRAGMA user_version={};",
        rng.next_u32() % 1000
    ))
    .unwrap();
    for (_, sql) in TABLES {
        db.execute_batch(sql).unwrap();
    }
    let what = format!("seed {seed}: page size {size}, reserved {reserved}, {encoding}, {vacuum}");
    let mut history = History { db: &db, rng: &mut rng, page: (size as usize).min(4096) };
    let mut total = (0, 0);
    for step in 0..steps {
        if step % 3 == 0 {
            std::fs::copy(&now, &then).unwrap();
        }
        history.step();
        total.0 += 1;
        total.1 += compare(&then, &now, seed % 4 == 3, &format!("{what}, step {step}"));
    }
    check_schema(&now);
    total
}

/// A database with bytes at the end of each page that SQLite leaves alone.
fn new_database(path: &Path, size: u32, reserved: u8) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(&format!("PRAGMA page_size={size}")).unwrap();
    if reserved == 0 {
        return;
    }
    db.execute_batch("PRAGMA journal_mode=OFF; CREATE TABLE gone(a); DROP TABLE gone; VACUUM").unwrap();
    drop(db);
    let mut bytes = std::fs::read(path).unwrap();
    // The whole database is one empty page: it says how much is reserved and where its cells begin.
    assert_eq!(bytes.len(), size as usize);
    bytes[20] = reserved;
    bytes[105..107].copy_from_slice(&((size - u32::from(reserved)) as u16).to_be_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn row_changes_are_those_that_sql_finds() {
    let cases = std::env::var("ROW_HISTORIES").map_or(60, |cases| cases.parse().unwrap());
    let first = std::env::var("ROW_HISTORY_SEED").map_or(0, |seed| seed.parse().unwrap());
    let mut total = (0, 0);
    for seed in first..first + cases {
        let (comparisons, rows) = history(seed, 40);
        total = (total.0 + comparisons, total.1 + rows);
    }
    assert!(total.1 > 10 * total.0, "{} comparisons, {} changed rows", total.0, total.1);
}
