//! An application that writes to a SQLite file and remembers by itself which rows must be there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::random::Random;

/// The rows of a database, as they must be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    texts: BTreeMap<i64, String>,
    /// Size and hash.
    blobs: BTreeMap<i64, (usize, u64)>,
}

impl Rows {
    /// What a file holds, after an integrity check.
    pub fn read(path: &Path) -> Self {
        let conn = open(path);
        let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{}", path.display());
        Self::of(&conn)
    }

    fn of(conn: &Connection) -> Self {
        let mut rows = Self::default();
        let tables: i64 = conn
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name='t'", [], |row| row.get(0))
            .unwrap();
        if tables == 0 {
            return rows;
        }
        let mut texts = conn.prepare("SELECT id, text FROM t").unwrap();
        let found = texts.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.texts = found.map(Result::unwrap).collect();
        let mut blobs = conn.prepare("SELECT id, data FROM b").unwrap();
        let found = blobs.query_map([], |row| {
            let data: Vec<u8> = row.get(1)?;
            Ok((row.get(0)?, (data.len(), hash(&data))))
        });
        rows.blobs = found.unwrap().map(Result::unwrap).collect();
        rows
    }

    /// These texts, with the blobs of others.
    pub fn with_blobs_of(&self, other: &Self) -> Self {
        Self { texts: self.texts.clone(), blobs: other.blobs.clone() }
    }

    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether they are the texts 1 to n.
    pub fn is_run(&self) -> bool {
        self.texts.keys().copied().eq(1..=self.texts.len() as i64)
    }

    /// Every text of `other`, under whatever id.
    pub fn assert_has(&self, other: &Self, what: &str) {
        let has: std::collections::BTreeSet<_> = self.texts.values().collect();
        let lost: Vec<_> = other.texts.values().filter(|text| !has.contains(text)).take(5).collect();
        assert!(lost.is_empty(), "{what}: lost {lost:?}");
    }

    /// What differs, without printing everything.
    pub fn assert_same(&self, found: &Self, what: &str) {
        if self == found {
            return;
        }
        let lost: Vec<_> =
            self.texts.iter().filter(|(id, text)| found.texts.get(id) != Some(text)).take(5).collect();
        let new: Vec<_> =
            found.texts.iter().filter(|(id, text)| self.texts.get(id) != Some(text)).take(5).collect();
        panic!(
            "{what}: {} texts and {} blobs expected, {} and {} found; lost or other: {lost:?}; unexpected: {new:?}",
            self.texts.len(),
            self.blobs.len(),
            found.texts.len(),
            found.blobs.len(),
        );
    }
}

/// A connection as applications have it.
pub fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    conn
}

/// The application.
pub struct App {
    pub path: PathBuf,
    pub rows: Rows,
    conn: Option<Connection>,
    random: Random,
}

impl App {
    /// A new file with both tables.
    pub fn create(path: &Path, page_size: u32) -> Self {
        let conn = open(path);
        conn.execute_batch(&format!(
            "PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL; \
             CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT NOT NULL); \
             CREATE TABLE b(id INTEGER PRIMARY KEY, data BLOB NOT NULL)"
        ))
        .unwrap();
        Self { path: path.to_owned(), rows: Rows::default(), conn: Some(conn), random: Random::new(7) }
    }

    /// A file without content.
    pub fn blank(path: &Path, page_size: u32) -> Self {
        let conn = open(path);
        conn.execute_batch(&format!("PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL")).unwrap();
        Self { path: path.to_owned(), rows: Rows::default(), conn: Some(conn), random: Random::new(17) }
    }

    /// A file that there is already, with these rows.
    pub fn open(path: &Path, rows: Rows) -> Self {
        let conn = open(path);
        conn.execute_batch("PRAGMA journal_mode=WAL").unwrap();
        Self { path: path.to_owned(), rows, conn: Some(conn), random: Random::new(11) }
    }

    /// An application that is not running.
    pub fn absent(path: &Path) -> Self {
        Self { path: path.to_owned(), rows: Rows::default(), conn: None, random: Random::new(13) }
    }

    /// Ends the application: the last connection checkpoints and removes the log.
    pub fn close(&mut self) {
        self.conn = None;
    }

    pub fn conn(&mut self) -> &Connection {
        let path = self.path.clone();
        self.conn.get_or_insert_with(|| open(&path))
    }

    /// Adds texts, each in a transaction of its own.
    pub fn insert(&mut self, count: u64) {
        for _ in 0..count {
            let id = self.rows.texts.last_key_value().map_or(1, |(id, _)| id + 1);
            let text = format!("row {id}: {:x}", self.random.next());
            self.conn().execute("INSERT INTO t VALUES(?1, ?2)", (id, &text)).unwrap();
            self.rows.texts.insert(id, text);
        }
    }

    /// Adds texts in one transaction.
    pub fn fill(&mut self, count: u64) {
        self.conn().execute_batch("BEGIN").unwrap();
        self.insert(count);
        self.conn().execute_batch("COMMIT").unwrap();
    }

    /// Changes every text.
    pub fn rewrite(&mut self) {
        let word = format!("{:x}", self.random.next());
        self.conn().execute("UPDATE t SET text = ?1 || id", [&word]).unwrap();
        self.rows.texts.iter_mut().for_each(|(id, text)| *text = format!("{word}{id}"));
    }

    /// Changes texts in the middle, on pages of their own.
    pub fn rewrite_some(&mut self) {
        let word = format!("{:x}", self.random.next());
        let (from, to) = (300, 700);
        self.conn()
            .execute("UPDATE t SET text = ?1 || id WHERE id BETWEEN ?2 AND ?3", (&word, from, to))
            .unwrap();
        self.rows.texts.range_mut(from..=to).for_each(|(id, text)| *text = format!("{word}{id}"));
    }

    /// Removes the oldest text.
    pub fn remove(&mut self) {
        let Some((id, _)) = self.rows.texts.pop_first() else { return };
        self.conn().execute("DELETE FROM t WHERE id=?1", [id]).unwrap();
    }

    /// A bit of everything.
    pub fn work(&mut self) {
        self.insert(3);
        self.remove();
        let first = self.rows.texts.first_key_value().map(|(id, _)| *id);
        if let Some(id) = first {
            let text = format!("changed {:x}", self.random.next());
            self.conn().execute("UPDATE t SET text=?2 WHERE id=?1", (id, &text)).unwrap();
            self.rows.texts.insert(id, text);
        }
    }

    /// Writes blobs of 256 KiB that hardly compress, in one transaction; existing ones are replaced.
    pub fn blobs(&mut self, count: i64) {
        self.blobs_of(count, 256 << 10);
    }

    /// [`App::blobs`] of another size in bytes, a multiple of eight.
    pub fn blobs_of(&mut self, count: i64, size: usize) {
        self.conn().execute_batch("BEGIN").unwrap();
        for id in 1..=count {
            let mut data = vec![0_u8; size];
            for word in data.chunks_exact_mut(8) {
                word.copy_from_slice(&self.random.next().to_le_bytes());
            }
            self.conn().execute("INSERT OR REPLACE INTO b VALUES(?1, ?2)", (id, &data)).unwrap();
            self.rows.blobs.insert(id, (data.len(), hash(&data)));
        }
        self.conn().execute_batch("COMMIT").unwrap();
    }

    /// Reads the rows through the application's own connection: nothing is checkpointed by looking.
    pub fn looks(&mut self) -> Rows {
        if self.conn.is_none() && !self.path.exists() {
            return Rows::default();
        }
        if self.conn.is_some() {
            return Rows::of(self.conn());
        }
        // A closed application stays closed; its last connection would remove the log.
        let conn = open(&self.path);
        conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        Rows::of(&conn)
    }
}

/// FNV-1a over words.
fn hash(data: &[u8]) -> u64 {
    data.chunks(8).fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        (hash ^ u64::from_le_bytes(bytes)).wrapping_mul(0x0100_0000_01b3)
    })
}
