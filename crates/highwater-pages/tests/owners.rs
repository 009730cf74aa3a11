//! Pages are told to the tables that own them, as SQLite's own `dbstat` does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_pages::owners::{Owners, PageSource, owners, owners_within};
use rusqlite::Connection;

struct Image {
    size: PageSize,
    bytes: Vec<u8>,
    reads: AtomicUsize,
}

impl PageSource for Image {
    fn page_size(&self) -> PageSize {
        self.size
    }

    fn page_count(&self) -> PageCount {
        PageCount((self.bytes.len() / self.size.as_usize()) as u32)
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        self.reads.fetch_add(1, Relaxed);
        let start = (page.0 as usize - 1) * self.size.as_usize();
        into.clear();
        into.extend(&self.bytes[start..start + self.size.as_usize()]);
        Ok(())
    }
}

impl Image {
    fn all(&self) -> BTreeSet<PageNo> {
        (1..=self.page_count().0).map(PageNo).collect()
    }

    fn ask(&self, pages: impl IntoIterator<Item = u32>) -> Owners {
        owners(self, &pages.into_iter().map(PageNo).collect()).unwrap()
    }
}

/// A database of one of each kind of table, and the owner of each page as `dbstat` says.
fn build(page_size: u32, setup: &str, sql: &str) -> (Image, BTreeMap<PageNo, String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "page_size", page_size).unwrap();
    conn.execute_batch(setup).unwrap();
    conn.execute_batch(sql).unwrap();
    let table_of: BTreeMap<String, String> = conn
        .prepare("SELECT name, tbl_name FROM sqlite_schema")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let expected = conn
        .prepare("SELECT pageno, name FROM dbstat")
        .unwrap()
        .query_map([], |row| Ok((PageNo(row.get(0)?), row.get::<_, String>(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .map(|(page, name)| (page, table_of.get(&name).cloned().unwrap_or(name)))
        .map(|(page, table)| {
            (page, table.strip_prefix("notes_").map_or(table.clone(), |_| "notes".to_owned()))
        })
        .collect();
    drop(conn);
    let bytes = std::fs::read(&path).unwrap();
    (Image { size: PageSize::new(page_size).unwrap(), bytes, reads: AtomicUsize::new(0) }, expected)
}

const TABLES: &str = "
    CREATE TABLE plain(id INTEGER PRIMARY KEY, a TEXT, b TEXT UNIQUE);
    CREATE INDEX plain_a ON plain(a);
    CREATE TABLE keyed(k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID;
    CREATE TABLE blobs(id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB);
    CREATE TABLE empty(x);
    CREATE TABLE gone(x);
    CREATE VIEW some AS SELECT a FROM plain;
    WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<3000)
      INSERT INTO plain SELECT i, 'row ' || i, hex(randomblob(20)) FROM n;
    WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<400)
      INSERT INTO keyed SELECT printf('%0300d', i), randomblob(i * 3) FROM n;
    WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<40)
      INSERT INTO blobs(data) SELECT randomblob(i * 700) FROM n;
    WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<4000)
      INSERT INTO gone SELECT randomblob(100) FROM n;
    DROP TABLE gone;";

const FULL_TEXT: &str = "
    CREATE VIRTUAL TABLE notes USING fts5(body);
    WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<500)
      INSERT INTO notes SELECT hex(randomblob(50)) || ' word' FROM n;";

/// The answer for all pages must be what `dbstat` says.
fn assert_matches(
    image: &Image,
    expected: &BTreeMap<PageNo, String>,
    found: &Owners,
    asked: &BTreeSet<PageNo>,
) {
    for page in asked.iter().filter(|page| page.0 != 1) {
        match expected.get(page).map(String::as_str) {
            Some("sqlite_schema") => assert!(found.schema),
            Some(table) => {
                assert!(
                    found.tables.get(table).is_some_and(|pages| pages.contains(page)),
                    "{page} of {table}"
                );
            }
            None => assert!(found.freelist.contains(page) || found.other.contains(page), "{page}"),
        }
    }
    let placed: usize = found.tables.values().map(BTreeSet::len).sum();
    let owned = |page: &&PageNo| expected.get(page).is_some_and(|name| name != "sqlite_schema");
    assert_eq!(placed, asked.iter().filter(owned).count());
    assert!(found.freelist.len() + found.other.len() + placed <= image.page_count().0 as usize);
}

#[test]
fn every_page_has_the_owner_that_dbstat_says() {
    for page_size in [512, 1024, 4096, 65536] {
        for setup in ["", "PRAGMA encoding='UTF-16le';", "PRAGMA encoding='UTF-16be';"] {
            let (image, expected) = build(page_size, setup, &[TABLES, FULL_TEXT].concat());
            let all = image.all();
            let found = owners_within(&image, &all, usize::MAX).unwrap();
            assert_matches(&image, &expected, &found, &all);
            assert!(found.other.is_empty(), "{page_size} {setup}: {:?}", found.other);
            assert!(!found.freelist.is_empty());
            assert!(found.tables.contains_key("notes") && found.tables.contains_key("sqlite_sequence"));
        }
    }
}

#[test]
fn pages_asked_one_by_one_have_the_same_owner() {
    let (image, expected) = build(512, "", TABLES);
    for page in image.all() {
        let asked = BTreeSet::from([page]);
        let found = owners_within(&image, &asked, usize::MAX).unwrap();
        if page.0 > 1 {
            assert_matches(&image, &expected, &found, &asked);
        } else {
            assert_eq!(found, Owners { schema: true, ..Owners::default() });
        }
    }
}

#[test]
fn the_pointer_maps_of_auto_vacuum_belong_to_nobody() {
    for page_size in [512, 4096] {
        let (image, expected) = build(page_size, "PRAGMA auto_vacuum=2;", TABLES);
        let all = image.all();
        let found = owners_within(&image, &all, usize::MAX).unwrap();
        assert_matches(&image, &expected, &found, &all);
        let group = page_size / 5 + 1;
        let maps: BTreeSet<PageNo> = (2..=image.page_count().0).step_by(group as usize).map(PageNo).collect();
        assert_eq!(found.other, maps);
    }
}

#[test]
fn leaves_are_found_without_reading_them() {
    let (image, expected) = build(4096, "", TABLES);
    let leaves: Vec<u32> = expected.iter().filter(|(_, t)| *t == "plain").map(|(p, _)| p.0).collect();
    let found = image.ask(leaves.iter().copied());
    assert_eq!(found.tables["plain"].len(), leaves.len());
    assert!(
        leaves.len() > 40 && image.reads.load(Relaxed) < 20,
        "{} {}",
        leaves.len(),
        image.reads.load(Relaxed)
    );
}

#[test]
fn a_long_row_that_changed_leads_to_all_its_pages_within_a_small_budget() {
    let (image, expected) = build(1024, "", TABLES);
    let blobs: BTreeSet<PageNo> = expected.iter().filter(|(_, t)| *t == "blobs").map(|(p, _)| *p).collect();
    let found = owners_within(&image, &blobs, blobs.len() + 1).unwrap();
    assert_eq!(found.tables["blobs"], blobs);
    // A page of a long row alone: what finds it is the search through every table.
    let alone = |page: &PageNo, budget| owners_within(&image, &BTreeSet::from([*page]), budget).unwrap();
    let overflow: Vec<&PageNo> = blobs.iter().filter(|page| alone(page, 0).other.contains(page)).collect();
    assert!(overflow.len() > 100);
    for page in overflow {
        assert_eq!(alone(page, usize::MAX).tables["blobs"], BTreeSet::from([*page]));
    }
}

#[test]
fn a_schema_of_many_and_long_entries_is_read() {
    let comment = "x".repeat(5000);
    let mut sql = String::new();
    for n in 0..60 {
        sql.push_str(&format!("CREATE TABLE \"table {n} é\"(a /* {comment} */); "));
        sql.push_str(&format!("INSERT INTO \"table {n} é\" VALUES(1);"));
    }
    let (image, expected) = build(512, "", &sql);
    let all = image.all();
    let found = owners_within(&image, &all, usize::MAX).unwrap();
    assert_matches(&image, &expected, &found, &all);
    assert_eq!(found.tables.len(), 60);
    assert!(found.schema && found.other.is_empty());
}

#[test]
fn page_one_alone_is_the_schema_and_otherwise_nothing() {
    let (image, expected) = build(4096, "", TABLES);
    assert!(image.ask([1]).schema);
    let leaf = expected.iter().find(|(_, t)| *t == "keyed").unwrap().0.0;
    let found = image.ask([1, leaf]);
    assert!(!found.schema && found.tables.len() == 1 && found.other.is_empty());
    assert_eq!(image.ask([]), Owners::default());
    assert_eq!(image.ask([999_999]).other.len(), 1);
}

#[test]
fn damage_is_survived_and_every_page_is_somewhere_once() {
    let (whole, _) = build(512, "PRAGMA auto_vacuum=1;", &[TABLES, FULL_TEXT].concat());
    let all = whole.all();
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut dice = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    for round in 0..150 {
        let mut bytes = whole.bytes.clone();
        for _ in 0..1 + dice(200) {
            // Headers of pages and the first page are what everything hangs on.
            let at = match dice(3) {
                0 => dice(512),
                1 => dice(bytes.len() / 512) * 512 + dice(16),
                _ => dice(bytes.len()),
            };
            bytes[at] = [0, 1, 2, 5, 13, 0xff][dice(6)];
        }
        let image = Image { size: whole.size, bytes, reads: AtomicUsize::new(0) };
        let found = owners_within(&image, &all, 5000).unwrap();
        let placed: Vec<&PageNo> =
            found.tables.values().flatten().chain(&found.freelist).chain(&found.other).collect();
        let distinct: BTreeSet<&PageNo> = placed.iter().copied().collect();
        assert_eq!(placed.len(), distinct.len(), "round {round}");
        assert!(found.schema || placed.len() == all.len() - 1);
    }
    for junk in [vec![0; 512 * 9], vec![0xff; 512 * 9]] {
        let image = Image { size: whole.size, bytes: junk, reads: AtomicUsize::new(0) };
        assert_eq!(image.ask(2..=9).other.len(), 8);
    }
}

#[test]
fn an_error_of_reading_is_passed_on() {
    struct Broken;
    impl PageSource for Broken {
        fn page_size(&self) -> PageSize {
            PageSize::DEFAULT
        }
        fn page_count(&self) -> PageCount {
            PageCount(9)
        }
        fn read(&self, _: PageNo, _: &mut Vec<u8>) -> io::Result<()> {
            Err(io::Error::other("store unreachable"))
        }
    }
    assert!(owners(&Broken, &BTreeSet::from([PageNo(2)])).is_err());
}
