//! The log never hides a change: against real SQLite with transactions, spills, rollbacks,
//! checkpoints of every kind, truncation and restarts in random order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_pages::wal::{LostReason, WalMark, WalTail, advance, mark, mark_from, mark_locked, tail};
use rusqlite::Connection;

/// Numbers that depend on the seed alone.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

type Image = BTreeMap<PageNo, Vec<u8>>;

/// All pages in the connection's read transaction, which this starts if there is none.
fn image(conn: &Connection) -> Image {
    let mut all = conn.prepare_cached("SELECT pgno, data FROM sqlite_dbpage").unwrap();
    let rows = all.query_map([], |row| Ok((PageNo(row.get(0)?), row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    conn.pragma_update(None, "cache_size", 5).unwrap();
    conn.pragma_update(None, "synchronous", "OFF").unwrap();
    conn.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    conn
}

struct Database {
    path: PathBuf,
    wal: PathBuf,
    size: PageSize,
    _folder: tempfile::TempDir,
}

impl Database {
    fn new(size: u32, auto_vacuum: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let conn = open(&path);
        conn.pragma_update(None, "page_size", size).unwrap();
        conn.pragma_update(None, "auto_vacuum", auto_vacuum).unwrap();
        conn.pragma_update(None, "journal_mode", "WAL").unwrap();
        conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); CREATE INDEX i ON t(v);")
            .unwrap();
        let wal = folder.path().join("app.db-wal");
        Self { path, wal, size: PageSize::new(size).unwrap(), _folder: folder }
    }
}

/// The mark, moved as far as the image proves.
fn advanced(database: &Database, mark: Option<WalMark>, image: &Image) -> Option<WalMark> {
    let count = PageCount(image.len() as u32);
    let mut sees = |page, content: &[u8]| Ok(image[&page] == content);
    mark.map(|mark| advance(&database.wal, &mark, count, &mut sees).unwrap())
}

/// Pages that differ but are not candidates; `None` if continuity is lost.
fn missed(found: &WalTail, before: &Image, after: &Image) -> Option<Vec<PageNo>> {
    let WalTail::Continuous(candidates) = found else { return None };
    let differs = after.iter().filter(|(page, data)| before.get(page) != Some(data));
    Some(differs.map(|(page, _)| *page).filter(|page| !candidates.contains(*page)).collect())
}

#[derive(Debug, Default)]
struct Tally {
    same_round: u32,
    restarted: u32,
    lost: BTreeMap<String, u32>,
}

struct Run<'a> {
    dice: Dice,
    database: &'a Database,
    app: Connection,
    other: Connection,
    reader: Option<Connection>,
    marks: Vec<(Option<WalMark>, Image)>,
    tally: Tally,
}

impl Run<'_> {
    fn transaction(&mut self, rows: u64, end: &str) {
        self.app.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..rows {
            let (id, size) = (self.dice.below(60) as i64, self.dice.below(900) as i64);
            match self.dice.below(4) {
                0 => self.app.execute("DELETE FROM t WHERE id=?1", [id]).unwrap(),
                1 => self
                    .app
                    .execute("UPDATE t SET v=randomblob(?2) WHERE id>=?1 AND id<?1+3", [id, size])
                    .unwrap(),
                _ => self.app.execute("REPLACE INTO t VALUES(?1, randomblob(?2))", [id, size]).unwrap(),
            };
        }
        self.app.execute_batch(end).unwrap();
    }

    fn step(&mut self) {
        match self.dice.below(40) {
            0..12 => {
                let rows = 1 + self.dice.below(3);
                self.transaction(rows, "COMMIT");
            }
            12 => self.transaction(60, "COMMIT"),
            13 | 14 => self.transaction(50, "ROLLBACK"),
            15 => {
                self.app.execute_batch("DELETE FROM t WHERE id > 20; PRAGMA incremental_vacuum(7);").unwrap()
            }
            16 if self.reader.is_none() => self.app.execute_batch("VACUUM").unwrap(),
            17 | 18 => self.checkpoint("PASSIVE"),
            19 | 20 => self.checkpoint("RESTART"),
            21 => self.checkpoint("TRUNCATE"),
            22 => {
                let frame = self.database.size.frame_size();
                let exact = 32 + frame * (1 + self.dice.below(30));
                let limit = match self.dice.below(4) {
                    0 => -1,
                    1 => 0,
                    2 => (exact + 8) as i64,
                    _ => (exact - 8) as i64,
                };
                self.app.pragma_update_and_check(None, "journal_size_limit", limit, |_| Ok(())).unwrap();
            }
            23 => {
                let reader = open(&self.database.path);
                reader.execute_batch("BEGIN; SELECT count(*) FROM t;").unwrap();
                self.reader = Some(reader);
            }
            24..27 => self.reader = None,
            27 if self.dice.below(4) == 0 => self.reopen(),
            28..33 => self.take_mark(),
            33.. => self.check(),
            _ => {}
        }
    }

    fn checkpoint(&mut self, kind: &str) {
        if self.reader.is_some() {
            self.other.busy_timeout(std::time::Duration::ZERO).unwrap();
        }
        // Busy is an answer, not an error.
        self.other.query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |_| Ok(())).unwrap();
    }

    fn reopen(&mut self) {
        self.reader = None;
        self.app = Connection::open_in_memory().unwrap();
        self.other = Connection::open_in_memory().unwrap();
        self.app = open(&self.database.path);
        self.other = open(&self.database.path);
    }

    fn take_mark(&mut self) {
        let wal = &self.database.wal;
        let known = self.marks.last().and_then(|(mark, _)| mark.as_ref());
        let found = match self.dice.below(4) {
            // No other thread writes here, which is what the write lock would ensure.
            0 => mark_locked(wal, None).unwrap(),
            1 => mark_locked(wal, known).unwrap(),
            2 => mark(wal).unwrap(),
            _ => mark_from(wal, known).unwrap(),
        };
        let image = image(&self.other);
        let found = if self.dice.below(2) == 0 { advanced(self.database, found, &image) } else { found };
        self.marks.push((found, image));
        if self.marks.len() > 4 {
            let gone = self.dice.below(4) as usize;
            self.marks.remove(gone);
        }
    }

    fn check(&mut self) {
        let now = image(&self.other);
        for (mark, then) in &self.marks {
            let found = tail(&self.database.wal, mark.as_ref(), self.database.size).unwrap();
            if let Some(missed) = missed(&found, then, &now) {
                assert_eq!(missed, [], "since {mark:?}: {found:?}");
            }
            match found {
                WalTail::Continuous(found) if found.restarted => self.tally.restarted += 1,
                WalTail::Continuous(_) => self.tally.same_round += 1,
                WalTail::Lost(reason) => *self.tally.lost.entry(reason.to_string()).or_default() += 1,
            }
        }
    }
}

fn run(seed: u64, steps: u32) -> Tally {
    let database = Database::new([512, 1024, 4096][(seed % 3) as usize], (seed % 2 * 2) as u32);
    let mut run = Run {
        dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        app: open(&database.path),
        other: open(&database.path),
        database: &database,
        reader: None,
        marks: Vec::new(),
        tally: Tally::default(),
    };
    for _ in 0..steps {
        run.step();
    }
    run.tally
}

#[test]
fn no_change_hides_from_the_log() {
    let rounds = std::env::var("HIGHWATER_WAL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let mut total = Tally::default();
    for seed in 1..=rounds {
        println!("seed {seed}");
        let tally = run(seed, 400);
        total.same_round += tally.same_round;
        total.restarted += tally.restarted;
        for (reason, count) in tally.lost {
            *total.lost.entry(reason).or_default() += count;
        }
    }
    println!("{total:?}");
    // Otherwise the test proved nothing.
    assert!(total.same_round > 100 && total.restarted > 20 && total.lost.len() >= 4, "{total:?}");
}

/// A commit is on file before readers see it. A mark behind it would hide it for good.
#[test]
fn a_commit_on_its_way_is_behind_the_mark() {
    let database = Database::new(1024, 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (app, other) = (open(&database.path), open(&database.path));
            app.pragma_update(None, "synchronous", "FULL").unwrap();
            let mut dice = Dice(77);
            while !done.load(Ordering::Relaxed) {
                for _ in 0..30 {
                    let id = dice.below(300) as i64;
                    app.execute("REPLACE INTO t VALUES(?1, randomblob(200))", [id]).unwrap();
                }
                other.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
            }
        });
        let captures = std::panic::catch_unwind(|| {
            let conn = open(&database.path);
            let began = std::time::Instant::now();
            let mut last: Option<(Option<WalMark>, Image)> = None;
            let (mut continuous, mut restarted, mut advances) = (0, 0, 0);
            // Three seconds, and on a busy machine as long as it takes to see all of it.
            let enough = |continuous, restarted, advances| continuous > 50 && restarted > 0 && advances > 50;
            while began.elapsed().as_secs() < 3
                || began.elapsed().as_secs() < 60 && !enough(continuous, restarted, advances)
            {
                let known = last.as_ref().and_then(|(mark, _)| mark.as_ref());
                let new_mark = mark_from(&database.wal, known).unwrap();
                let read = conn.unchecked_transaction().unwrap();
                let now = image(&conn);
                let found = tail(&database.wal, known, database.size).unwrap();
                let seen = advanced(&database, new_mark, &now);
                drop(read);
                advances += u32::from(seen != new_mark);
                if let Some((_, then)) = &last
                    && let Some(missed) = missed(&found, then, &now)
                {
                    assert_eq!(missed, [], "{found:?}");
                    continuous += u32::from(now != *then);
                }
                restarted += u32::from(matches!(found, WalTail::Continuous(c) if c.restarted));
                last = Some((seen, now));
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
            assert!(enough(continuous, restarted, advances), "{continuous} {restarted} {advances}");
        });
        done.store(true, Ordering::Relaxed);
        captures.unwrap();
    });
}

#[test]
fn a_restart_by_the_usual_checkpoint_keeps_continuity() {
    let database = Database::new(4096, 0);
    let app = open(&database.path);
    app.pragma_update(None, "wal_autocheckpoint", 100).unwrap();
    let insert = |n: u32| {
        for _ in 0..n {
            app.execute("INSERT INTO t(v) VALUES(randomblob(100))", []).unwrap();
        }
    };
    insert(25);
    let since = mark(&database.wal).unwrap().unwrap();
    assert!(since.frames > 30);
    let then = image(&app);
    let mut restarted = false;
    for _ in 0..200 {
        insert(1);
        match tail(&database.wal, Some(&since), database.size).unwrap() {
            WalTail::Continuous(found) => {
                assert!(found.pages.len() < 30 && found.committed_frames > 0);
                assert_eq!(missed(&WalTail::Continuous(found.clone()), &then, &image(&app)), Some(vec![]));
                restarted |= found.restarted;
            }
            WalTail::Lost(reason) => {
                assert_eq!(reason, LostReason::MarkGone);
                assert!(restarted, "the new round must be useful until it reaches the mark");
                return;
            }
        }
    }
    panic!("the log was never restarted");
}

#[test]
fn an_idle_log_has_no_candidates_behind_a_locked_mark() {
    let database = Database::new(4096, 0);
    let app = open(&database.path);
    app.execute("INSERT INTO t(v) VALUES(randomblob(100))", []).unwrap();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    let since = mark_locked(&database.wal, None).unwrap();
    app.execute_batch("ROLLBACK").unwrap();
    let WalTail::Continuous(found) = tail(&database.wal, since.as_ref(), database.size).unwrap() else {
        panic!("lost");
    };
    assert!(found.pages.is_empty());
    assert_eq!((found.smallest_commit, found.committed_frames), (None, 0));
    assert_eq!(mark_from(&database.wal, since.as_ref()).unwrap(), since);
}

/// One transaction alone in the log: the mark that needs no proof lies before it.
#[test]
fn a_large_last_transaction_is_looked_at_once_not_by_every_capture() {
    let database = Database::new(1024, 0);
    let app = open(&database.path);
    app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    app.execute_batch(
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<400)
           INSERT INTO t SELECT i, randomblob(500) FROM n;",
    )
    .unwrap();
    let candidates = |mark: Option<WalMark>| match tail(&database.wal, mark.as_ref(), database.size).unwrap()
    {
        WalTail::Continuous(found) => found.pages.len(),
        WalTail::Lost(reason) => panic!("{reason}"),
    };
    let since = mark(&database.wal).unwrap();
    assert!(candidates(since) > 200);
    let now = image(&app);
    let proven = advanced(&database, since, &now);
    assert_eq!(candidates(proven), 0);
    assert_eq!(proven, mark_locked(&database.wal, None).unwrap());
    assert_eq!(advanced(&database, proven, &now), proven);
    let mut other = now.clone();
    other.get_mut(&PageNo(90)).unwrap()[100] ^= 1;
    assert_eq!(advanced(&database, since, &other), since, "one page that is not seen");
    other = now;
    other.pop_last();
    assert_eq!(advanced(&database, since, &other), since, "another size");
}

/// Every commit frame repeated, as SQLite does up to a sector's end without powersafe overwrites.
#[test]
fn a_repeated_commit_frame_is_not_taken_for_the_next_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = Connection::open(format!("file:{}?psow=0", path.display())).unwrap();
    app.pragma_update(None, "page_size", 512).unwrap();
    app.pragma_update(None, "journal_mode", "WAL").unwrap();
    app.pragma_update(None, "synchronous", "FULL").unwrap();
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v)").unwrap();
    let wal = folder.path().join("app.db-wal");
    let before = std::fs::metadata(&wal).unwrap().len();
    app.execute("INSERT INTO t(v) VALUES(1)", []).unwrap();
    let frames = (std::fs::metadata(&wal).unwrap().len() - before) / 536;
    assert!(frames > 1, "SQLite was to repeat the frame");
    let (locked, published) = (mark_locked(&wal, None).unwrap().unwrap(), mark(&wal).unwrap().unwrap());
    assert_eq!(published.frames + frames, locked.frames);
}

#[test]
fn every_other_log_is_lost_and_says_why() {
    let database = Database::new(1024, 0);
    let app = open(&database.path);
    for _ in 0..9 {
        app.execute("INSERT INTO t(v) VALUES(randomblob(100))", []).unwrap();
    }
    let (wal, size) = (&database.wal, database.size);
    let since = mark(wal).unwrap().unwrap();
    let whole = std::fs::read(wal).unwrap();
    let copy = wal.with_extension("copy");
    let lost = |bytes: &[u8], since: Option<&WalMark>, size| {
        std::fs::write(&copy, bytes).unwrap();
        match tail(&copy, since, size).unwrap() {
            WalTail::Lost(reason) => Some(reason),
            WalTail::Continuous(_) => None,
        }
    };
    assert_eq!(lost(&whole, Some(&since), size), None);
    assert_eq!(lost(&whole, None, size), Some(LostReason::NoMark));
    assert_eq!(lost(b"", Some(&since), size), Some(LostReason::NoLog));
    assert_eq!(lost(&whole[..31], Some(&since), size), Some(LostReason::NoLog));
    assert_eq!(lost(&whole, Some(&since), PageSize::DEFAULT), Some(LostReason::PageSize));
    for byte in 0..32 {
        let mut torn = whole.clone();
        torn[byte] ^= 0x10;
        assert_eq!(lost(&torn, Some(&since), size), Some(LostReason::BadHeader), "byte {byte}");
        assert_eq!(mark(&copy).unwrap(), None);
    }
    let stranger = WalMark { salt1: since.salt1.wrapping_sub(2), ..since };
    assert_eq!(lost(&whole, Some(&stranger), size), Some(LostReason::AnotherLog));
    let end = 32 + (since.frames as usize) * 1048;
    assert_eq!(lost(&whole[..end - 1], Some(&since), size), Some(LostReason::MarkGone));
    assert_eq!(lost(&whole[..end], Some(&since), size), None);
    assert_eq!(
        tail(Path::new("/no/such/log"), Some(&since), size).unwrap(),
        WalTail::Lost(LostReason::NoLog)
    );
    assert_eq!(mark(Path::new("/no/such/log")).unwrap(), None);
}

/// A log that was cut within the old round could hide what followed.
#[test]
fn a_cut_old_round_is_lost() {
    let database = Database::new(1024, 0);
    let app = open(&database.path);
    let insert = || {
        app.execute("INSERT INTO t(v) VALUES(randomblob(100))", []).unwrap();
    };
    (0..9).for_each(|_| insert());
    let since = mark(&database.wal).unwrap().unwrap();
    (0..9).for_each(|_| insert());
    app.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    insert();
    let copy = database.wal.with_extension("copy");
    std::fs::copy(&database.wal, &copy).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
    let mut cuts = 0;
    for length in ((32 + since.frames * 1048)..=file.metadata().unwrap().len()).rev() {
        file.set_len(length).unwrap();
        let found = tail(&copy, Some(&since), database.size).unwrap();
        if (length - 32) % 1048 == 0 {
            continue;
        }
        assert_eq!(found, WalTail::Lost(LostReason::Truncated), "{length}");
        cuts += 1;
    }
    assert!(cuts > 1000);
    let found = tail(&database.wal, Some(&since), database.size).unwrap();
    assert!(matches!(found, WalTail::Continuous(c) if c.restarted));
}
