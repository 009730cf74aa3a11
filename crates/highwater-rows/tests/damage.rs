//! What a damaged database holds is an error or an answer; never a panic, an endless loop or unbounded work.
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

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use common::Image;
use highwater_ltx::PageNo;
use highwater_pages::owners::PageSource;
use highwater_rows::{Error, Key, Tree, TreeKind, changed_rows, header, schema};
use proptest::prelude::*;
use rusqlite::Connection;

/// Two states with every kind of page, and their trees.
fn states(folder: &Path) -> (Vec<u8>, Vec<u8>, Vec<Tree>) {
    let (now, then) = (folder.join("now.db"), folder.join("then.db"));
    let db = Connection::open(&now).unwrap();
    db.execute_batch(
        "PRAGMA page_size=512; PRAGMA auto_vacuum=INCREMENTAL;
         CREATE TABLE t(id INTEGER PRIMARY KEY, a);
         CREATE TABLE k(k TEXT PRIMARY KEY, a) WITHOUT ROWID;
         CREATE TABLE o(k TEXT PRIMARY KEY, a) WITHOUT ROWID;
         CREATE INDEX i ON t(a);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
         INSERT INTO t SELECT i, iif(i % 20, 'text ' || i, zeroblob(3000)) FROM n;
         INSERT INTO k SELECT 'key ' || id || iif(id % 9, '', zeroblob(200)), a FROM t;
         INSERT INTO o SELECT * FROM k;
         DELETE FROM t WHERE id BETWEEN 200 AND 250;",
    )
    .unwrap();
    std::fs::copy(&now, &then).unwrap();
    db.execute_batch(
        "UPDATE t SET a = a || 'x' WHERE id % 50 = 0;
         UPDATE t SET a = CAST(substr(a, 1, length(a) - 1) || 'y' AS BLOB) WHERE id % 40 = 0;
         UPDATE k SET a = 'z' WHERE length(k) % 7 = 0; UPDATE o SET a = a || 1 WHERE length(a) = 7;
         DELETE FROM t WHERE id BETWEEN 300 AND 400; INSERT INTO t(a) SELECT a FROM t LIMIT 200",
    )
    .unwrap();
    let before = Connection::open(&then).unwrap();
    let mut trees: Vec<_> =
        ["t", "k", "o"].iter().flat_map(|name| common::trees(&before, &db, name)).collect();
    if let TreeKind::WithoutRowid { key } = &mut trees[2].kind {
        key[0].collation = highwater_rows::Collation::Other;
    }
    (std::fs::read(then).unwrap(), std::fs::read(now).unwrap(), trees)
}

/// Reads everything, and says how many rows there were.
fn read(before: Vec<u8>, after: Vec<u8>, trees: &[Tree], all: bool) -> Option<usize> {
    let (before, after) = (Image::new(before), Image::new(after));
    let mut changed = before.changed(&after);
    if all {
        changed = (1..=before.page_count().0).map(PageNo).collect();
    }
    let found = changed_rows(&before, &after, trees, &changed);
    let reads = before.reads.load(Relaxed) + after.reads.load(Relaxed);
    let pages = (before.page_count().0 + after.page_count().0) as usize;
    assert!(reads < 20 * pages, "{reads} reads of {pages} pages");
    let _ = (schema(&after), header(&after));
    Some(found.ok()?.rows.iter().map(Vec::len).sum())
}

#[test]
fn the_states_differ_in_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after, trees) = states(folder.path());
    assert!(read(before.clone(), after.clone(), &trees, false).unwrap() > 300);
    assert_eq!(read(before.clone(), after.clone(), &trees, true), read(before, after, &trees, false));
}

#[test]
fn damaged_pages_are_an_error_or_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after, trees) = states(folder.path());
    let size = after.len();
    let page = 0..size / 512;
    // Mostly where pages keep what leads elsewhere.
    let places = proptest::collection::vec((page, prop_oneof![0_usize..12, 0_usize..512], any::<u8>()), 1..6);
    let mut config = ProptestConfig::with_cases(1000);
    config.failure_persistence = None;
    let (errors, answers) = (Cell::new(0), Cell::new(0));
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&(places, any::<bool>(), any::<bool>()), |(places, all, older)| {
        let (mut before, mut after) = (before.clone(), after.clone());
        let damaged = if older { &mut before } else { &mut after };
        for (page, at, byte) in places {
            if let Some(old) = damaged.get_mut(page * 512 + at).filter(|_| page > 0 || at >= 24) {
                *old = byte;
            }
        }
        match read(before, after, &trees, all) {
            Some(_) => answers.set(answers.get() + 1),
            None => errors.set(errors.get() + 1),
        }
        Ok(())
    });
    result.unwrap();
    assert!(errors.get() > 100 && answers.get() > 100, "{errors:?} {answers:?}");
}

#[test]
fn a_page_that_is_cut_off_from_its_tree_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (before, mut after, trees) = states(folder.path());
    let root = trees[0].after.unwrap();
    let at = (root.0 as usize - 1) * 512;
    // The rightmost child of the root becomes the root itself.
    after[at + 8..at + 12].copy_from_slice(&root.0.to_be_bytes());
    let (before, after) = (Image::new(before), Image::new(after));
    let error = changed_rows(&before, &after, &trees, &before.changed(&after)).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

/// A database of leaves whose rows all go on in the same 200 pages, from the one with this number on.
fn shared_chain(leaves: u32, first: u32) -> Vec<u8> {
    let (chain, size) = (200, 512);
    let mut bytes = vec![0; size * (1 + leaves as usize + chain as usize)];
    bytes[..18].copy_from_slice(b"SQLite format 3\0\x02\0");
    for leaf in 0..leaves as usize {
        let page = &mut bytes[size * (1 + leaf)..size * (2 + leaf)];
        page[..8].copy_from_slice(&[13, 0, 0, 0, 9, 0, 0, 0]);
        for cell in 0..9_u8 {
            let at = 50 + 50 * u16::from(cell);
            page[8 + 2 * usize::from(cell)..][..2].copy_from_slice(&at.to_be_bytes());
            let payload = 39 + 508 * chain;
            let cell =
                [0x80 | (payload >> 14) as u8, 0x80 | (payload >> 7) as u8, payload as u8 & 0x7f, cell];
            page[usize::from(at)..][..4].copy_from_slice(&cell);
            page[usize::from(at) + 4 + 39..][..4].copy_from_slice(&(leaves + 2 + first).to_be_bytes());
        }
    }
    for link in 0..chain {
        let next = leaves + 2 + (link + 1) % chain;
        bytes[size * (1 + leaves + link) as usize..][..4].copy_from_slice(&next.to_be_bytes());
    }
    bytes
}

#[test]
fn rows_that_share_a_chain_are_not_all_followed_to_its_end() {
    let read = |leaves| {
        let (before, after) = (Image::new(shared_chain(leaves, 0)), Image::new(shared_chain(leaves, 1)));
        let root = |n| Some(PageNo(2 + n));
        let tree = |n| Tree { before: root(n), after: root(n), kind: TreeKind::Rowid };
        changed_rows(&before, &after, &(0..leaves).map(tree).collect::<Vec<_>>(), &before.changed(&after))
    };
    assert!(read(10).unwrap().rows.iter().all(Vec::is_empty));
    let error = read(60).unwrap_err();
    assert!(error.to_string().contains("continues more rows than one"), "{error}");
}

#[test]
fn an_empty_database_has_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (_, after, trees) = states(folder.path());
    let trees: Vec<_> = trees.into_iter().map(|tree| Tree { before: None, ..tree }).collect();
    let (before, after) = (Image::new(Vec::new()), Image::new(after));
    assert_eq!(header(&before).unwrap(), None);
    assert_eq!(schema(&before).unwrap(), []);
    let found = changed_rows(&before, &after, &trees[..1], &[]).unwrap();
    assert!(found.rows[0].len() > 400);
    assert!(found.rows[0].iter().all(|row| row.after && !row.before && matches!(row.key, Key::Rowid(_))));
}
