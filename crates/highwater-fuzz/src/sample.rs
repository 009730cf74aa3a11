//! Real databases and their pushes, to begin with.

use std::sync::OnceLock;

use highwater_ltx::{
    DeviceId, Encoder, FrameNo, Generation, Header, PageCount, PageEncoding, PageNo, PageSize, StateHash,
    TxId,
};
use highwater_pages::{StateSum, canonicalise_first_page, page_hash};
use rusqlite::Connection;

/// The page size of all samples.
pub const SIZE: usize = 512;

const TABLES: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n REAL, data BLOB);
    CREATE TABLE w(a TEXT, b INTEGER, c, PRIMARY KEY(b DESC, a COLLATE NOCASE)) WITHOUT ROWID;
    CREATE INDEX t_n ON t(n, name);
    CREATE VIEW v AS SELECT name FROM t;
    CREATE TABLE k(x, y DEFAULT 'z');
    WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 40)
        INSERT INTO t SELECT i, 'name ' || i, i * 1.5, zeroblob(i * 20) FROM s;
    WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 30)
        INSERT INTO w SELECT 'a' || i, i % 7, i FROM s;
    INSERT INTO k VALUES(1, 2), (NULL, x'00ff'), ('three', 3.25);";
/// What one device does.
const HERE: &str = "UPDATE t SET name = 'here ' || id WHERE id % 9 = 0; INSERT INTO k VALUES('here', 1);
    DELETE FROM t WHERE id = 5; UPDATE w SET c = 'here' WHERE b = 3";
/// What another does.
const THERE: &str = "UPDATE t SET n = -id WHERE id % 6 = 0; INSERT INTO k VALUES('there', 2);
    INSERT INTO w VALUES('there', 99, NULL); UPDATE t SET data = randomblob(900) WHERE id = 20";
const ALTERED: &str =
    "ALTER TABLE k ADD COLUMN more TEXT DEFAULT 'm'; DROP VIEW v; CREATE TABLE new(a UNIQUE);
    INSERT INTO new VALUES(1), (2)";

/// The bytes of a database file, canonical, after some SQL.
#[must_use]
pub fn image(pragmas: &str, sql: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(&format!("PRAGMA page_size={SIZE}; {pragmas};")).unwrap();
    for sql in sql {
        conn.execute_batch(sql).unwrap();
    }
    drop(conn);
    let mut bytes = std::fs::read(&path).unwrap();
    canonicalise_first_page(&mut bytes[..SIZE]);
    bytes
}

/// What both sides begin with.
pub fn base() -> &'static [u8] {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    BASE.get_or_init(|| image("", &[TABLES]))
}

/// What the server has by now.
pub fn head() -> &'static [u8] {
    static HEAD: OnceLock<Vec<u8>> = OnceLock::new();
    HEAD.get_or_init(|| image("", &[TABLES, THERE]))
}

/// Databases: changed from the base, and others.
#[must_use]
pub fn images() -> Vec<Vec<u8>> {
    vec![
        image("", &[TABLES, HERE]),
        image("", &[TABLES, HERE, ALTERED]),
        image("", &[TABLES, "DELETE FROM t WHERE id > 10; VACUUM"]),
        image("PRAGMA auto_vacuum=1", &[TABLES]),
        image("PRAGMA encoding='UTF-16le'", &[TABLES]),
        image("", &["CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('one two'), ('three')"]),
    ]
}

/// The pages of an image, with their numbers; what is over is cut off.
pub fn pages(image: &[u8]) -> impl Iterator<Item = (PageNo, &[u8])> {
    (1..).map(PageNo).zip(image.chunks_exact(SIZE))
}

/// The state of an image.
#[must_use]
pub fn state(image: &[u8]) -> StateHash {
    let mut sum = StateSum::EMPTY;
    let mut count = 0;
    for (number, page) in pages(image) {
        count = number.0;
        sum.add(page_hash(number, page));
    }
    sum.state(PageCount(count), PageSize::new(SIZE as u32).unwrap())
}

/// A push that makes one image of another, as it is sent.
#[must_use]
pub fn push(before: &[u8], after: &[u8], encoding: PageEncoding) -> Vec<u8> {
    let old: Vec<&[u8]> = before.chunks_exact(SIZE).collect();
    let differs = |(number, page): &(PageNo, &[u8])| old.get(number.0 as usize - 1) != Some(page);
    // A push of nothing has page 1 as it was.
    let new: Vec<(PageNo, &[u8])> =
        pages(after).filter(|page| page.0 == PageNo(1) || differs(page)).collect();
    let size = PageSize::new(SIZE as u32).unwrap();
    let count = PageCount((after.len() / SIZE) as u32);
    let txid = TxId(if before.is_empty() { 1 } else { 2 });
    let (generation, frames) = (Generation::FIRST, new.len() as u64);
    let header =
        Header::new_push(size, count, txid, 0, generation, FrameNo(1), frames, DeviceId(0), state(after));
    let mut encoder = Encoder::new(Vec::new(), header, encoding).unwrap();
    for (number, page) in new {
        encoder.page(number, page).unwrap();
    }
    encoder.finish().unwrap().0
}
