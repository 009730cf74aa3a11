//! The real `litestream` (0.5.17) restores what Highwater writes, and Highwater reads what it
//! replicated.
//!
//! The binary is `$HIGHWATER_LITESTREAM`, else `litestream` on the `PATH`; without either these
//! tests say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use highwater_ltx::*;
use rusqlite::{Connection, OpenFlags};

/// The binary, if there is one; a path that was given has to work.
fn litestream() -> Option<OsString> {
    let given = std::env::var_os("HIGHWATER_LITESTREAM");
    let binary = given.clone().unwrap_or_else(|| "litestream".into());
    let version = Command::new(&binary).arg("version").output();
    if let Ok(output) = version.as_ref().map(|output| output.stdout.trim_ascii()) {
        assert!(output.starts_with(b"0.5."), "litestream is {}", String::from_utf8_lossy(output));
        return Some(binary);
    }
    assert!(given.is_none(), "HIGHWATER_LITESTREAM cannot be run: {version:?}");
    eprintln!("skipped: no litestream binary; set HIGHWATER_LITESTREAM to its path");
    None
}

/// The whole database, in canonical pages: what SQLite rewrites by itself is left out.
fn image(db: &Path) -> (PageSize, Pages) {
    let bytes = fs::read(db).unwrap();
    let size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
        1 => page_size(65536),
        size => page_size(size.into()),
    };
    let chunks = bytes.chunks(size.as_usize()).map(<[u8]>::to_vec);
    let mut pages: Pages = (1..).zip(chunks).collect();
    let first = pages.get_mut(&1).unwrap();
    first[18..20].copy_from_slice(&[2, 2]);
    first[24..28].fill(0);
    first[92..100].fill(0);
    (size, pages)
}

fn checkpoint(connection: &Connection) {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0);
}

/// Every row of every table, as text.
fn rows(connection: &Connection) -> Vec<String> {
    let all = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let cells: Vec<_> = (0..columns).map(|at| row.get_ref(at).map(|c| format!("{c:?}"))).collect();
            cells.into_iter().collect::<Result<Vec<_>, _>>().map(|cells| cells.join("|"))
        };
        statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let mut result = all("SELECT sql FROM sqlite_schema ORDER BY name");
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_litestream%' ESCAPE '\\' ORDER BY name")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for table in tables {
        result.extend(all(&format!("SELECT *, '{table}' FROM {table} ORDER BY 1")));
    }
    result
}

fn open_intact(db: &Path) -> Connection {
    let connection = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    connection
}

/// A store of one database, as the server keeps it.
struct Store {
    folder: PathBuf,
    txid: u64,
    frame: u64,
    current: Pages,
    /// After each transaction: the state, and its rows.
    history: Vec<(Pages, Vec<String>)>,
}

impl Store {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(folder.join("ltx/0")).unwrap();
        fs::create_dir_all(folder.join("ltx/9")).unwrap();
        fs::create_dir_all(folder.join("merge")).unwrap();
        Self { folder, txid: 0, frame: 0, current: Pages::new(), history: vec![] }
    }

    fn write(&self, level: u8, header: Header, pages: &Pages) {
        let name = file_name(header.min_txid, header.max_txid);
        let file = File::create_new(self.folder.join(format!("ltx/{level}/{name}"))).unwrap();
        let encoding = if self.txid.is_multiple_of(2) { PageEncoding::Literal } else { PageEncoding::Lz4 };
        let mut encoder = Encoder::new(BufWriter::new(file), header, encoding).unwrap();
        for (number, data) in pages {
            encoder.page(PageNo(*number), data).unwrap();
        }
        let (mut writer, _) = encoder.finish().unwrap();
        writer.flush().unwrap();
    }

    /// Pushes what changed since the last push.
    fn push(&mut self, db: &Path, connection: &Connection) {
        checkpoint(connection);
        let (size, pages) = image(db);
        let mut delta = pages.clone();
        delta.retain(|number, data| self.current.get(number) != Some(data));
        self.txid += 1;
        let frames = delta.len() as u64;
        let header = Header::new_push(
            size,
            PageCount(pages.len() as u32),
            TxId(self.txid),
            TIME + 1000 * self.txid as i64,
            Generation::FIRST,
            FrameNo(self.frame + 1),
            frames,
            DeviceId(77 << 64),
            StateHash(u128::from(self.txid)),
        );
        self.write(0, header, &delta);
        self.frame += frames;
        self.current = pages.clone();
        self.history.push((pages, rows(connection)));
    }

    fn snapshot(&self, size: PageSize) {
        let at = Place { generation: Generation::FIRST, frame: FrameNo(self.frame) };
        let commit = PageCount(self.current.len() as u32);
        let time = TIME + 1000 * self.txid as i64;
        let header = Header::new_snapshot(size, commit, TxId(self.txid), time, at, StateHash(5));
        self.write(9, header, &self.current);
    }

    /// Drops the files that a snapshot replaces.
    fn forget(&self, up_to: u64) {
        for txid in 1..=up_to {
            let name = file_name(TxId(txid), TxId(txid));
            fs::remove_file(self.folder.join("ltx/0").join(name)).unwrap();
        }
    }

    fn restore(&self, litestream: &OsString, out: &Path, txid: Option<u64>) {
        let mut command = Command::new(litestream);
        command.args(["restore", "-integrity-check", "full", "-o"]).arg(out);
        if let Some(txid) = txid {
            command.args(["-txid", &TxId(txid).to_string()]);
        }
        let output = command.arg(format!("file://{}", self.folder.display())).output().unwrap();
        assert!(output.status.success(), "{txid:?}: {}", String::from_utf8_lossy(&output.stderr));
        let (pages, rows_then) = &self.history[txid.map_or(self.history.len(), |id| id as usize) - 1];
        assert_eq!(&image(out).1, pages, "{txid:?}");
        assert_eq!(&rows(&open_intact(out)), rows_then, "{txid:?}");
        fs::remove_file(out).unwrap();
    }
}

/// A story with growth, changes, an index, a shrinking VACUUM and growth after it; `each` is
/// called after every chapter with its number.
fn story(connection: &Connection, mut each: impl FnMut(usize)) {
    let chapters = [
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); INSERT INTO t (a, b) VALUES ('first', 1);",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
         INSERT INTO t (a, b) SELECT hex(randomblob(60)), randomblob(100) FROM n;",
        "UPDATE t SET a = 'changed' WHERE id % 50 = 0;",
        "CREATE INDEX by_a ON t (a); CREATE TABLE u (x PRIMARY KEY, y) WITHOUT ROWID;
         INSERT INTO u SELECT id, a FROM t WHERE id < 30;",
        "DELETE FROM t WHERE id > 40;",
        "VACUUM;",
        "UPDATE u SET y = 'after the shrink' WHERE x = 7;",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO t (a, b) SELECT 'again', randomblob(150) FROM n;",
        "DROP TABLE u;",
    ];
    for (number, sql) in chapters.iter().enumerate() {
        connection.execute_batch(sql).unwrap();
        each(number + 1);
    }
}

#[test]
fn litestream_restores_every_point_of_a_store_that_highwater_wrote() {
    let Some(litestream) = litestream() else { return };
    for bytes in [512, 4096, 65536] {
        let folder = tempfile::tempdir().unwrap();
        let (db, out) = (folder.path().join("a.db"), folder.path().join("out.db"));
        let connection = Connection::open(&db).unwrap();
        connection.execute_batch(&format!("PRAGMA page_size = {bytes}; PRAGMA journal_mode = WAL;")).unwrap();
        let mut store = Store::new(folder.path().join("store"));
        story(&connection, |chapter| {
            store.push(&db, &connection);
            if chapter == 4 || chapter == 7 {
                store.snapshot(page_size(bytes));
            }
        });
        let sizes: Vec<_> = store.history.iter().map(|(pages, _)| pages.len()).collect();
        assert!(sizes[5] < sizes[4], "the VACUUM made it smaller: {sizes:?}");
        for txid in 1..=store.txid {
            store.restore(&litestream, &out, Some(txid));
        }
        store.restore(&litestream, &out, None);
        // With only a snapshot and what came after it, too.
        store.forget(7);
        for txid in 7..=store.txid {
            store.restore(&litestream, &out, Some(txid));
        }
        store.restore(&litestream, &out, None);
    }
}

#[test]
fn litestream_restores_what_highwater_compacted() {
    let Some(litestream) = litestream() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (db, out) = (folder.path().join("a.db"), folder.path().join("out.db"));
    let connection = Connection::open(&db).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL;").unwrap();
    let mut store = Store::new(folder.path().join("store"));
    story(&connection, |_| store.push(&db, &connection));
    let (head, size) = (store.txid, PageSize::DEFAULT);
    // A snapshot of the first six transactions, and one file of the others.
    for (level, min, max) in [(9, 1, 6), (1, 7, head)] {
        let inputs = (min..=max)
            .map(|id| open_file(&store.folder.join("ltx/0").join(file_name(TxId(id), TxId(id)))))
            .collect::<Vec<_>>();
        let last = *inputs.last().unwrap().header();
        let header = Header { min_txid: TxId(min), ..last };
        let path = store.folder.join(format!("ltx/{level}"));
        fs::create_dir_all(&path).unwrap();
        let out = File::create_new(path.join(file_name(TxId(min), TxId(max)))).unwrap();
        let (mut out, _) = compact(inputs, BufWriter::new(out), header, PageEncoding::Lz4).unwrap();
        out.flush().unwrap();
        assert_eq!(last.page_size, size);
    }
    store.forget(head);
    store.restore(&litestream, &out, Some(6));
    store.restore(&litestream, &out, None);
}

fn open_file(path: &Path) -> Decoder<File> {
    Decoder::new(File::open(path).unwrap()).unwrap()
}

/// The files of one level, by transaction.
fn level(folder: &Path, level: u8) -> Vec<(TxId, TxId, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder.join(format!("ltx/{level}"))) else { return vec![] };
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let (min, max) = parse_file_name(entry.file_name().to_str().unwrap()).unwrap();
            (min, max, entry.path())
        })
        .collect();
    files.sort();
    files
}

/// Reads every file that litestream wrote, whole and by its index; returns how many.
fn read_all(folder: &Path) -> usize {
    let mut count = 0;
    for (min, max, path) in (0..=9).flat_map(|at| level(folder, at)) {
        let file = fs::read(&path).unwrap();
        let (header, pages, index) = decode(&file).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!((header.min_txid, header.max_txid), (min, max));
        assert_eq!((header.state, header.place(), header.checksums), (None, None, false));
        let TailIndex::Complete(tail) = PageIndex::decode_tail(&file, file.len() as u64).unwrap() else {
            panic!("{path:?}: the whole file is not enough")
        };
        assert_eq!(tail, index);
        tail.check(&header).unwrap();
        for entry in &tail {
            let mut data = Vec::new();
            let frame = &file[entry.offset as usize..][..entry.size as usize];
            decode_page_frame(frame, header.page_size, &mut data).unwrap();
            assert_eq!(data, pages[&entry.page.0]);
        }
        count += 1;
    }
    count
}

/// The database that the files of a level make together.
fn compacted(files: &[(TxId, TxId, PathBuf)]) -> (Header, Pages) {
    let inputs: Vec<_> = files.iter().map(|(_, _, path)| open_file(path)).collect();
    let (first, last) = (inputs[0].header().min_txid, *inputs.last().unwrap().header());
    let header = Header { min_txid: first, ..last };
    let (file, _) = compact(inputs, Vec::new(), header, PageEncoding::Lz4).unwrap();
    let (header, pages, _) = decode(&file).unwrap();
    (header, pages)
}

fn write_database(path: &Path, pages: &Pages) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for data in pages.values() {
        file.write_all(data).unwrap();
    }
    file.flush().unwrap();
}

#[test]
fn highwater_reads_what_litestream_replicated_step_by_step() {
    let Some(litestream) = litestream() else { return };
    for bytes in [1024, 4096] {
        let folder = tempfile::tempdir().unwrap();
        let (db, replica) = (folder.path().join("a.db"), folder.path().join("replica"));
        let connection = Connection::open(&db).unwrap();
        connection.execute_batch(&format!("PRAGMA page_size = {bytes}; PRAGMA journal_mode = WAL;")).unwrap();
        let mut states = Vec::new();
        story(&connection, |chapter| {
            let mut command = Command::new(&litestream);
            command.args(["replicate", "-once"]);
            if chapter == 6 {
                command.arg("-force-snapshot");
            }
            let output = command.arg(&db).arg(format!("file://{}", replica.display())).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            states.push((level(&replica, 0).len(), rows(&connection)));
        });
        assert!(read_all(&replica) >= 10);
        assert_eq!(level(&replica, 9).len(), 1);
        let files = level(&replica, 0);
        let out = folder.path().join("out.db");
        for (count, expected) in &states {
            let (header, pages) = compacted(&files[..*count]);
            assert_eq!(pages.len(), header.commit.data_page_count(header.page_size) as usize);
            write_database(&out, &pages);
            assert_eq!(&rows_without_litestream(&out), &without_litestream(expected), "{count} files");
        }
        // The last one is the database, page by page.
        checkpoint(&connection);
        assert_eq!(image(&out).1, image(&db).1);
        // The snapshot that litestream took and the files after it make the same.
        let snapshot = level(&replica, 9).remove(0);
        let later = files.iter().filter(|(min, ..)| *min > snapshot.1).cloned();
        let (_, pages) = compacted(&[snapshot.clone()].into_iter().chain(later).collect::<Vec<_>>());
        write_database(&out, &pages);
        assert_eq!(image(&out).1, image(&db).1);
    }
}

fn without_litestream(rows: &[String]) -> Vec<String> {
    rows.iter().filter(|row| !row.contains("_litestream")).cloned().collect()
}

fn rows_without_litestream(db: &Path) -> Vec<String> {
    without_litestream(&rows(&open_intact(db)))
}

#[test]
fn highwater_reads_what_litestream_replicated_from_a_live_database() {
    let Some(litestream) = litestream() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (db, replica) = (folder.path().join("a.db"), folder.path().join("replica"));
    let connection = Connection::open(&db).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, a, b);")
        .unwrap();
    let config = folder.path().join("litestream.yml");
    let text = format!(
        "snapshot:\n  interval: 1s\nlevels:\n  - interval: 1s\n  - interval: 2s\ndbs:\n  - path: {}\n    \
         monitor-interval: 50ms\n    replica:\n      type: file\n      path: {}\n      sync-interval: 50ms\n",
        db.display(),
        replica.display()
    );
    File::create(&config).unwrap().write_all(text.as_bytes()).unwrap();
    // It replicates until its child ends, and then whatever is left.
    let mut replicate = Command::new(&litestream)
        .args(["replicate", "-exec", "sleep 4", "-config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let mut inserted = 0;
    while begin.elapsed() < Duration::from_millis(2500) {
        connection.execute("INSERT INTO t (a, b) VALUES (hex(randomblob(40)), randomblob(300))", []).unwrap();
        inserted += 1;
        if inserted % 200 == 0 {
            connection.execute("DELETE FROM t WHERE id % 3 = 0", []).unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(replicate.wait().unwrap().success());
    read_all(&replica);
    let files = level(&replica, 0);
    assert!(files.len() > 3, "{files:?}");
    let (_, pages) = compacted(&files);
    let out = folder.path().join("out.db");
    write_database(&out, &pages);
    let copied: BTreeSet<_> = rows_without_litestream(&out).into_iter().collect();
    let expected: BTreeSet<_> = without_litestream(&rows(&connection)).into_iter().collect();
    assert_eq!(copied, expected);
    // Litestream's own compactions say the same as Highwater's.
    for at in [1, 2, 9] {
        for (min, max, path) in level(&replica, at) {
            let own: Vec<_> =
                files.iter().filter(|(first, last, _)| *first >= min && *last <= max).cloned().collect();
            let theirs = decode(&fs::read(&path).unwrap()).unwrap().1;
            assert_eq!(compacted(&own).1, theirs, "{path:?}");
        }
    }
}
