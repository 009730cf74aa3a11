//! What a log knows of the past: a state that the database was in is found, one that it never was in is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater_ltx::{FrameNo, Generation, PageCount, PageNo, PageSize, Position};
use highwater_pages::wal::{WalMark, mark_locked, passed_through};
use highwater_pages::{PageHash, PageSums, StateSum, canonical, page_hash};
use rusqlite::Connection;

type Hashes = BTreeMap<PageNo, PageHash>;

const SIZE: u32 = 512;

struct File {
    conn: Connection,
    wal: PathBuf,
    /// After each commit: the log's mark and the pages.
    states: Vec<(Option<WalMark>, Hashes)>,
}

impl File {
    fn new(folder: &Path) -> Self {
        let path = folder.join("app.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA page_size={SIZE}; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; \
             CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO t VALUES(1, zeroblob(2000))"
        ))
        .unwrap();
        let mut file = Self { conn, wal: folder.join("app.db-wal"), states: Vec::new() };
        file.note();
        file
    }

    fn note(&mut self) {
        let mut pages = self.conn.prepare("SELECT pgno, data FROM sqlite_dbpage").unwrap();
        let pages = pages.query_map([], |row| Ok((PageNo(row.get(0)?), row.get::<_, Vec<u8>>(1)?))).unwrap();
        let pages =
            pages.map(Result::unwrap).map(|(page, data)| (page, page_hash(page, &canonical(page, &data))));
        let hashes = pages.collect();
        let mark = mark_locked(&self.wal, None).unwrap();
        self.states.push((mark, hashes));
    }

    fn commit(&mut self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
        self.note();
    }

    /// What the log says of the state after commit `to`, from the mark after commit `from`.
    fn knows(&self, from: usize, to: &Hashes) -> Option<bool> {
        let (mark, before) = &self.states[from];
        let moved = to.iter().filter(|(page, hash)| before.get(page) != Some(hash)).map(|(page, _)| *page);
        let count = PageCount(u32::try_from(to.len()).unwrap());
        let nowhere = Position {
            generation: Generation(1),
            frame: FrameNo(1),
            state: StateSum::EMPTY.state(count, PageSize::new(SIZE).unwrap()),
        };
        let mut sums = PageSums::new(nowhere, PageSize::new(SIZE).unwrap(), PageCount(0));
        sums.apply(&to.iter().map(|(page, hash)| (*page, *hash)).collect::<Vec<_>>(), count, nowhere);
        passed_through(&self.wal, mark.as_ref(), &sums, &moved.collect()).unwrap()
    }

    fn state(&self, at: usize) -> Hashes {
        self.states[at].1.clone()
    }
}

/// A state that never was: one page of it is of another one.
fn mixed(one: &Hashes, other: &Hashes) -> Option<Hashes> {
    let (page, hash) =
        other.iter().find(|(page, hash)| page.0 > 1 && one.get(page).is_some_and(|h| h != *hash))?;
    let mut mixed = one.clone();
    mixed.insert(*page, *hash);
    Some(mixed)
}

#[test]
fn a_log_that_goes_back_to_the_mark_knows_every_state_since_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::new(folder.path());
    for number in 2..30 {
        file.commit(&format!("INSERT INTO t VALUES({number}, randomblob({}))", 100 + number * 37 % 900));
        file.commit(&format!("UPDATE t SET v=randomblob(700) WHERE id % 5 = {}", number % 5));
        file.commit(&format!("DELETE FROM t WHERE id={}", number / 2));
    }
    let last = file.states.len() - 1;
    let mut never = 0;
    for from in (0..last).step_by(3) {
        for to in from + 1..=last {
            let followed = file.state(to) != file.state(last);
            assert_eq!(file.knows(from, &file.state(to)), Some(followed), "{from} to {to}");
            if let Some(mixed) = mixed(&file.state(to), &file.state(last)).filter(|_| to + 1 < last) {
                assert_eq!(file.knows(from, &mixed), Some(false), "{from} to a state like {to}");
                never += 1;
            }
        }
    }
    assert!(never > 100, "only {never} states that never were");
}

#[test]
fn a_transaction_that_was_rolled_back_was_never_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::new(folder.path());
    file.conn.execute_batch("PRAGMA cache_size=2; BEGIN; UPDATE t SET v=randomblob(9000)").unwrap();
    file.note();
    file.conn.execute_batch("ROLLBACK").unwrap();
    assert_eq!(file.knows(0, &file.state(1)), Some(false));
    file.commit("INSERT INTO t VALUES(7, randomblob(3000))");
    assert_eq!(file.knows(0, &file.state(1)), Some(false), "what it wrote was overwritten by another");
    file.commit("INSERT INTO t VALUES(8, 'last')");
    assert_eq!(file.knows(0, &file.state(2)), Some(true));
}

/// What a commit whose flush failed leaves: its frames are in the file, and nobody has seen them.
#[test]
fn a_last_commit_that_no_frame_follows_is_no_proof() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::new(folder.path());
    file.commit("UPDATE t SET v=randomblob(1500)");
    assert_eq!(file.knows(0, &file.state(1)), Some(false));
    file.commit("INSERT INTO t VALUES(7, randomblob(300))");
    assert_eq!(file.knows(0, &file.state(1)), Some(true));
}

#[test]
fn a_log_that_began_anew_proves_what_it_holds_and_denies_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::new(folder.path());
    file.commit("UPDATE t SET v=randomblob(1500)");
    file.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    assert_eq!(file.knows(0, &file.state(1)), None, "an empty log knows nothing");
    file.commit("UPDATE t SET v=randomblob(1500)");
    file.commit("INSERT INTO t VALUES(7, randomblob(300))");
    assert_eq!(file.knows(1, &file.state(2)), Some(true));
    assert_eq!(file.knows(1, &file.state(3)), None, "the last one");
    assert_eq!(file.knows(0, &file.state(1)), None);
}

#[test]
fn a_log_that_was_restarted_once_still_knows_its_last_round() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::new(folder.path());
    for number in 2..20 {
        file.commit(&format!("INSERT INTO t VALUES({number}, randomblob(900))"));
    }
    file.conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    let round = file.states.len() - 1;
    file.commit("INSERT INTO t VALUES(70, randomblob(10))");
    file.commit("INSERT INTO t VALUES(71, randomblob(10))");
    assert_eq!(file.knows(round - 3, &file.state(round - 1)), Some(true), "in the round before");
    assert_eq!(file.knows(round - 3, &file.state(round)), None, "the last one of the round before");
    assert_eq!(file.knows(round - 3, &file.state(round + 1)), Some(true), "in the new round");
}
