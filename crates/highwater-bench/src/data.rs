//! The databases: rows of text that hardly compresses.
//!
//! A text is made of random characters of the 64 of base64, six bits of chance in every byte: no
//! compressor gets below three quarters of it. Short rows are 100 bytes, long rows (for the large
//! databases, where making them would take longer than measuring) 1,000.

use std::path::Path;

use anyhow::Result;
use rusqlite::Connection;

/// Bytes of text in most rows.
pub(crate) const SHORT: usize = 100;
/// Bytes of text in the rows of the 1 GB database.
pub(crate) const LONG: usize = 1000;
/// Rows in a transaction while a large database is made.
const BATCH: u64 = 20_000;

/// A repeatable source of chance (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A text of so many bytes.
    pub(crate) fn text(&mut self, bytes: usize) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::with_capacity(bytes + 10);
        while text.len() < bytes {
            let mut bits = self.next();
            for _ in 0..10 {
                // Six bits never reach beyond the 64 letters.
                text.push(char::from(LETTERS.get((bits & 63) as usize).copied().unwrap_or(b'A')));
                bits >>= 6;
            }
        }
        text.truncate(bytes);
        text
    }
}

/// Opens a database as an application would: WAL, everything else as SQLite has it.
pub(crate) fn connect(db: &Path) -> Result<Connection> {
    let connection = Connection::open(db)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get::<_, String>(0))?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, text TEXT NOT NULL)")?;
    Ok(connection)
}

/// Adds rows, in one transaction each or all in one.
pub(crate) fn insert(connection: &Connection, rows: u64, length: usize, random: &mut Random) -> Result<()> {
    let mut statement = connection.prepare_cached("INSERT INTO t(text) VALUES (?1)")?;
    for _ in 0..rows {
        statement.execute([random.text(length)])?;
    }
    Ok(())
}

/// Adds rows in one transaction.
pub(crate) fn insert_at_once(
    connection: &Connection,
    rows: u64,
    length: usize,
    random: &mut Random,
) -> Result<()> {
    connection.execute_batch("BEGIN")?;
    insert(connection, rows, length, random)?;
    Ok(connection.execute_batch("COMMIT")?)
}

/// Changes rows at random places, each in a transaction of its own.
pub(crate) fn update(
    connection: &Connection,
    updates: u64,
    length: usize,
    random: &mut Random,
) -> Result<()> {
    let rows: u32 = connection.query_row("SELECT max(id) FROM t", [], |row| row.get(0))?;
    let mut statement = connection.prepare_cached("UPDATE t SET text=?1 WHERE id=?2")?;
    for _ in 0..updates {
        let id = random.next() % u64::from(rows) + 1;
        statement.execute((random.text(length), id.cast_signed()))?;
    }
    Ok(())
}

/// Makes a database of about `bytes`, and leaves it closed and checkpointed. Returns its size.
pub(crate) fn make(db: &Path, bytes: u64, length: usize, random: &mut Random) -> Result<u64> {
    let connection = connect(db)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    let mut size = 0;
    while size < bytes {
        insert_at_once(&connection, BATCH.min((bytes - size) / length as u64 + 1), length, random)?;
        let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        size = u64::from(pages) * 4096;
    }
    connection.close().map_err(|(_, error)| error)?;
    std::fs::File::open(db)?.sync_all()?;
    Ok(size)
}
