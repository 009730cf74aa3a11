//! Capture and commit on live files: what is captured in one file and committed to another makes
//! them equal, whatever the histories are, while others read and write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_possible_truncation)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_ltx::{FrameNo, Generation, PageCount, PageNo, PageSize, Position, StateHash};
use highwater_pages::{
    Delta, Error, JournalMode, LocalState, Mark, NewPages, PageSums, Replica, Suspects, canonical, page_hash,
};
use rusqlite::Connection;

const BUSY: Duration = Duration::from_secs(5);

/// A file and what a client remembers of it.
struct Copy {
    path: PathBuf,
    sums: Option<PageSums>,
    mark: Option<Mark>,
}

impl Copy {
    fn new(path: PathBuf) -> Self {
        Self { path, sums: None, mark: None }
    }

    /// Captures, and remembers the image as the new base. Returns the delta with its pages.
    fn capture(&mut self) -> (Delta, Vec<(PageNo, Vec<u8>)>) {
        let mut replica = Replica::open(&self.path, BUSY).unwrap();
        let snapshot = replica.snapshot(self.mark.as_ref()).unwrap();
        let suspects = snapshot.suspects(self.mark.as_ref()).unwrap();
        let delta = snapshot.diff(self.sums.as_ref(), &suspects, &mut |_, _| ()).unwrap();
        let pages = delta
            .changed
            .iter()
            .map(|(page, hash)| {
                let mut data = Vec::new();
                snapshot.read(*page, &mut data).unwrap();
                assert_eq!(page_hash(*page, &data), *hash);
                (*page, data)
            })
            .collect();
        let mark = snapshot.next_mark().unwrap();
        drop(snapshot);
        self.remember(&delta, mark);
        (delta, pages)
    }

    fn remember(&mut self, delta: &Delta, mark: Mark) {
        let position = position(delta.state);
        let mut sums =
            self.sums.take().unwrap_or_else(|| PageSums::new(position, delta.page_size, PageCount(0)));
        sums.apply(&delta.changed, delta.page_count, position);
        assert_eq!(sums.state(), delta.state, "the sums add up to the state that the delta leads to");
        self.sums = Some(sums);
        self.mark = Some(mark);
    }

    /// Commits pages on top of what this copy remembers.
    fn commit(&mut self, delta: &Delta, pages: &[(PageNo, Vec<u8>)]) -> Result<(), Error> {
        let mut replica = Replica::open(&self.path, BUSY)?;
        let snapshot = replica.snapshot(self.mark.as_ref())?;
        let suspects = snapshot.suspects(self.mark.as_ref())?;
        let here = snapshot.diff(self.sums.as_ref(), &suspects, &mut |_, _| ())?;
        let (data_version, mark) = (snapshot.data_version(), snapshot.next_mark()?);
        drop(snapshot);
        let local = LocalState {
            data_version,
            state: here.state,
            base: self.sums.as_ref(),
            since: self.mark.as_ref(),
        };
        write(&mut replica, local, delta, pages)?;
        self.remember(delta, mark);
        Ok(())
    }

    fn rows(&self) -> Vec<String> {
        let connection = Connection::open(&self.path).unwrap();
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        let mut names =
            connection.prepare("SELECT name FROM sqlite_schema WHERE type='table' ORDER BY 1").unwrap();
        let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut rows = Vec::new();
        for name in names {
            let mut statement = connection.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
            let columns = statement.column_count();
            let found = statement
                .query_map([], |row| {
                    Ok((0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap())).collect::<String>())
                })
                .unwrap();
            rows.extend(found.map(|row| format!("{name} {}", row.unwrap())));
        }
        rows
    }
}

fn write(
    replica: &mut Replica,
    local: LocalState<'_>,
    delta: &Delta,
    pages: &[(PageNo, Vec<u8>)],
) -> Result<(), Error> {
    let numbers: Vec<PageNo> = pages.iter().map(|(page, _)| *page).collect();
    let mut read = |page: PageNo, into: &mut Vec<u8>| {
        let at = pages.binary_search_by_key(&page, |(page, _)| *page).unwrap();
        into.clone_from(&pages[at].1);
        Ok(())
    };
    replica.commit(
        local,
        &mut NewPages {
            page_size: delta.page_size,
            page_count: delta.page_count,
            pages: &numbers,
            read: &mut read,
            progress: &mut |_, _| (),
        },
    )
}

fn position(state: StateHash) -> Position {
    Position { generation: Generation(1), frame: FrameNo(1), state }
}

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(BUSY).unwrap();
    connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
    connection
}

/// A small generator, so that a failure names its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn random_work(connection: &Connection, dice: &mut Dice) {
    let sql = match dice.roll(12) {
        0..=3 => format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{}) \
             INSERT INTO t(x) SELECT hex(randomblob({})) FROM n",
            1 + dice.roll(200),
            1 + dice.roll(400)
        ),
        4 => format!("DELETE FROM t WHERE id % {} = 0", 2 + dice.roll(3)),
        5 => "UPDATE t SET x = x || 'y' WHERE id % 7 = 0".to_owned(),
        6 => "VACUUM".to_owned(),
        7 => format!("INSERT INTO full(body) VALUES ('some words {} to find')", dice.roll(1000)),
        8 => format!("CREATE TABLE IF NOT EXISTS more{}(a PRIMARY KEY, b) WITHOUT ROWID", dice.roll(4)),
        9 => "DELETE FROM t".to_owned(),
        10 => "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
        _ => "PRAGMA wal_checkpoint(RESTART)".to_owned(),
    };
    connection.execute_batch(&sql).unwrap_or_else(|error| {
        // PRAGMA returns a row, which `execute_batch` does not mind; anything else is a failure.
        panic!("{sql}: {error}")
    });
}

#[test]
fn two_hundred_rounds_of_any_history_arrive_whole_while_others_read() {
    let folder = tempfile::tempdir().unwrap();
    let seed = std::env::var("HIGHWATER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut dice = Dice(seed);
    let (mut from, mut to) =
        (Copy::new(folder.path().join("from.db")), Copy::new(folder.path().join("to.db")));
    let writer = open(&from.path);
    writer
        .execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE VIRTUAL TABLE full USING fts5(body)",
        )
        .unwrap();
    let reader = open(&to.path);
    for round in 0..200 {
        for _ in 0..=dice.roll(3) {
            random_work(&writer, &mut dice);
        }
        let (delta, pages) = from.capture();
        // A reader that keeps its snapshot across the commit.
        let before: i64 = reader
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name='t'", [], |row| row.get(0))
            .unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let old = (before == 1).then(|| count(&reader));
        if round == 0 {
            let replica = Replica::open(&to.path, BUSY).unwrap();
            reader.execute_batch("COMMIT").unwrap();
            replica.prepare_blank(delta.page_size).unwrap();
            drop(replica);
            to.capture();
            to.commit(&delta, &pages).unwrap();
            reader.execute_batch("BEGIN").unwrap();
        } else {
            to.commit(&delta, &pages).unwrap();
            assert_eq!(old, Some(count(&reader)), "seed {seed} round {round}: the reader's snapshot moved");
        }
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(count(&reader), count(&writer), "seed {seed} round {round}");
        if round % 10 == 9 {
            assert_eq!(from.rows(), to.rows(), "seed {seed} round {round}");
            let (again, _) = to.capture();
            assert!(again.is_empty(), "seed {seed} round {round}: {:?}", again.changed);
            assert_eq!(again.state, delta.state);
        }
    }
}

fn count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_commit_in_between_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let mut copy = Copy::new(folder.path().join("a.db"));
    let connection = open(&copy.path);
    connection
        .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, x); INSERT INTO t(x) VALUES ('old')")
        .unwrap();
    copy.capture();
    let mut replica = Replica::open(&copy.path, BUSY).unwrap();
    let (data_version, delta, pages) = {
        let snapshot = replica.snapshot(None).unwrap();
        let delta = snapshot.diff(None, &Suspects::ALL, &mut |_, _| ()).unwrap();
        let pages: Vec<_> = delta.kept_pages().unwrap().map(|(page, data)| (page, data.to_vec())).collect();
        (snapshot.data_version(), delta, pages)
    };
    let local =
        LocalState { data_version, state: delta.state, base: copy.sums.as_ref(), since: copy.mark.as_ref() };
    connection.execute("INSERT INTO t(x) VALUES ('new')", []).unwrap();
    let error = write(&mut replica, local, &delta, &pages).unwrap_err();
    assert!(matches!(error, Error::ChangedSince { .. }), "{error}");
    assert_eq!(count(&connection), 2);
    // A checkpoint by somebody else is no change.
    connection.execute("DELETE FROM t WHERE x = 'new'", []).unwrap();
    copy.capture();
    let snapshot_version = {
        let snapshot = replica.snapshot(None).unwrap();
        snapshot.data_version()
    };
    let state = copy.sums.as_ref().unwrap().position().state;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let local = LocalState { data_version: snapshot_version, state, base: copy.sums.as_ref(), since: None };
    write(&mut replica, local, &delta, &pages).unwrap();
    assert_eq!(count(&connection), 1);
}

#[test]
fn a_file_with_a_rollback_journal_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut from, mut to) =
        (Copy::new(folder.path().join("from.db")), Copy::new(folder.path().join("to.db")));
    open(&from.path).execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    from.capture();
    std::fs::copy(&from.path, &to.path).unwrap();
    let kept_open = Connection::open(&to.path).unwrap();
    let mode: String = kept_open.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
    to.capture();
    let writer = open(&from.path);
    for _ in 0..50 {
        writer.execute("INSERT INTO t VALUES (hex(randomblob(500)))", []).unwrap();
    }
    drop(writer);
    let (delta, pages) = from.capture();
    assert!(delta.changed.len() > 5);
    to.commit(&delta, &pages).unwrap();
    assert_eq!(Replica::open(&to.path, BUSY).unwrap().journal_mode().unwrap(), JournalMode::Rollback);
    assert_eq!(count(&kept_open), 51, "an open connection sees it");
    assert!(!to.path.with_extension("db-wal").exists());
    assert_eq!(from.rows(), to.rows());
    assert!(to.capture().0.is_empty(), "the journal mode is no difference");
}

/// Equal changes at equal places of two pages cancel out in an XOR of CRCs. They must not here.
#[test]
fn states_that_an_xor_of_crcs_confuses_have_different_hashes() {
    let folder = tempfile::tempdir().unwrap();
    let mut copy = Copy::new(folder.path().join("a.db"));
    let connection = open(&copy.path);
    connection
        .execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, flag INTEGER, filler BLOB); \
             WITH RECURSIVE n(i) AS (SELECT 1001 UNION ALL SELECT i+1 FROM n WHERE i<1200) \
             INSERT INTO t SELECT i, 2, zeroblob(180) FROM n",
        )
        .unwrap();
    let (before, old) = copy.capture();
    let pages_of = |pages: &[(PageNo, Vec<u8>)], page: PageNo| {
        pages.iter().find(|(number, _)| *number == page).unwrap().1.clone()
    };
    // Two rows at the same place of two leaves.
    let mut found = false;
    for distance in 15..30 {
        connection.execute("UPDATE t SET flag=3 WHERE id IN (1025, 1025+?1)", [distance]).unwrap();
        let (delta, new) = copy.capture();
        let changed: Vec<PageNo> = delta.changed.iter().map(|(page, _)| *page).collect();
        let crc = |page: PageNo, data: &[u8]| {
            let mut bytes = page.0.to_be_bytes().to_vec();
            bytes.extend_from_slice(data);
            crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64GoIso, &bytes)
        };
        let xor = changed.iter().fold(0, |sum, page| {
            sum ^ crc(*page, &pages_of(&old, *page)) ^ crc(*page, &pages_of(&new, *page))
        });
        assert_ne!(delta.state, before.state);
        found |= changed.len() == 2 && xor == 0;
        connection.execute("UPDATE t SET flag=2 WHERE id IN (1025, 1025+?1)", [distance]).unwrap();
        assert_eq!(copy.capture().0.state, before.state, "back in the old state");
    }
    assert!(found, "the example no longer shows what it is for");
}

#[test]
fn canonical_pages_hide_only_what_sqlite_rewrites_by_itself() {
    let mut page = vec![7; 512];
    let same = canonical(PageNo(2), &page).into_owned();
    assert_eq!(same, page);
    let first = canonical(PageNo(1), &page).into_owned();
    page[24..28].fill(9);
    page[92..100].fill(9);
    page[18..20].fill(1);
    assert_eq!(canonical(PageNo(1), &page).into_owned(), first);
    for at in
        (0..512).filter(|at| !(24..28).contains(at) && !(92..100).contains(at) && !(18..20).contains(at))
    {
        let mut other = page.clone();
        other[at] ^= 1;
        assert_ne!(canonical(PageNo(1), &other).into_owned(), first, "byte {at}");
    }
}

#[test]
fn an_odd_path_is_opened_and_never_created() {
    let folder = tempfile::tempdir().unwrap();
    for name in
        ["a b.db", "ä€.db", "100%.db", "what?mode=memory.db", "x#y.db", "it's \"q\".db", "new\nline.db"]
    {
        let path = folder.path().join(name);
        let error = Replica::open(&path, BUSY).unwrap_err();
        assert!(error.to_string().contains("opening"), "{error}");
        assert!(!path.exists(), "{name} was created");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        let replica = Replica::open(&path, BUSY).unwrap();
        assert_eq!(replica.page_count().unwrap(), PageCount(2), "{name}");
        assert_eq!(replica.page_size().unwrap(), PageSize::DEFAULT);
    }
}
