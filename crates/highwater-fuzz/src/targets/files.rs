//! The files beside a database: metadata, page sums, the write-ahead log.

use std::io::Write;
use std::path::{Path, PathBuf};

use highwater::{Builder, PageSize, Position};
use highwater_pages::{LoadedSums, Mark, PageSums, WalMark, page_hash, wal as log};

use crate::sample::{self, SIZE};
use crate::{both, seen};

/// A folder for the files of this thread, in memory where that is possible.
struct Place(tempfile::TempDir);

thread_local! {
    static PLACE: Place = {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        write(&folder.path().join("app.db"), sample::base());
        Place(folder)
    };
}

fn write(path: &Path, data: &[u8]) {
    std::fs::File::create(path).unwrap().write_all(data).unwrap();
}

fn path(suffix: &str) -> PathBuf {
    PLACE.with(|place| place.0.path().join(format!("app.db{suffix}")))
}

fn size() -> PageSize {
    PageSize::new(SIZE as u32).unwrap()
}

/// The metadata file, as `highwater status` reads it.
#[must_use]
pub fn info(data: &[u8]) -> u64 {
    write(&path("-info"), data);
    let status = Builder::new(path("")).open().and_then(|db| db.status());
    seen(status.map(|status| (status.warning, status.remote.is_some())).map_err(|error| error.to_string()))
}

/// What Highwater and libSQL write.
#[must_use]
pub fn infos() -> Vec<Vec<u8>> {
    let own = br#"{"change_counter":3,"device":"00000000000000010000000000000002","durable_frame_num":4,"generation":1,"hash":1,"home":"x","page_count":3,"page_size":512,"pending":["00000000000000000000000000000001"],"remote":"http://127.0.0.1:1/app","state":"00000000000000000000000000000001","txid":1,"version":1,"wal":{"salt1":1}}"#;
    vec![
        own.to_vec(),
        br#"{"hash":7,"version":0,"durable_frame_num":9,"generation":1}"#.to_vec(),
        b"{}".to_vec(),
    ]
}

fn position() -> Position {
    Position {
        generation: highwater::Generation(1),
        frame: highwater::FrameNo(4),
        state: sample::state(sample::base()),
    }
}

/// The page sums.
#[must_use]
pub fn sums(data: &[u8]) -> u64 {
    let path = path("-sums");
    write(&path, data);
    let kind = |loaded: LoadedSums| match loaded {
        LoadedSums::Valid(sums) => format!("{:?}", sums.is_outdated()),
        other => format!("{other:?}"),
    };
    let newest = PageSums::newest(&path, size()).map(kind);
    let loaded = PageSums::load(&path, position(), size()).map(kind);
    let ahead = PageSums::on_the_way(&path, size()).map(|found| !found.is_empty());
    both(seen(newest), both(seen(loaded), seen(ahead)))
}

/// A whole table, and one with changes behind it.
#[must_use]
pub fn all_sums() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sums");
    let base = sample::base();
    let count = highwater::PageCount((base.len() / SIZE) as u32);
    let mut sums = PageSums::new(position(), size(), count);
    let all: Vec<_> = sample::pages(base).map(|(page, data)| (page, page_hash(page, data))).collect();
    sums.apply(&all, count, position());
    sums.save(&path).unwrap();
    let mut found = vec![std::fs::read(&path).unwrap()];
    let mut next = position();
    for (frame, (page, hash)) in all.iter().enumerate().take(3) {
        next.frame = highwater::FrameNo(10 + frame as u64);
        sums.apply(&[(*page, all[(page.0 as usize + 1) % all.len()].1)], count, next);
        sums.append(&path).unwrap();
        sums.apply(&[(*page, *hash)], count, next);
        found.push(std::fs::read(&path).unwrap());
    }
    found
}

/// The write-ahead log. An even first byte has the checksums mended, so that what lies behind them is
/// read too.
#[must_use]
pub fn wal(data: &[u8]) -> u64 {
    let path = path("-wal");
    let Some((first, rest)) = data.split_first() else { return 0 };
    let mut bytes = rest.to_vec();
    if first.is_multiple_of(2) {
        mend(&mut bytes);
    }
    write(&path, &bytes);
    let marked = log::mark(&path);
    let since = WalMark { salt1: 1, salt2: 2, frames: 1, checksum: (3, 4) };
    let mut all = seen(log::tail(&path, None, size()).map(shape));
    for mark in [Some(since), marked.as_ref().ok().copied().flatten()].into_iter().flatten() {
        let next = log::mark_from(&path, Some(&mark));
        let locked = log::mark_locked(&path, Some(&mark));
        let tail = log::tail(&path, Some(&mark), size()).map(shape);
        all = both(all, seen((tail, next.map(|m| m.is_some()), locked.map(|m| m.is_some()))));
    }
    let suspects = Mark::take(&self::path(""), None).map(|_| ());
    both(both(all, seen(marked.map(|mark| mark.is_some()))), seen(suspects))
}

fn shape(tail: log::WalTail) -> String {
    match tail {
        log::WalTail::Continuous(found) => {
            format!("{} {:?}", found.pages.is_empty(), found.smallest_commit.is_some())
        }
        log::WalTail::Lost(reason) => format!("{reason:?}"),
    }
}

/// Gives header and frames the salts and checksums that SQLite would.
fn mend(bytes: &mut [u8]) {
    let frame = 24 + SIZE;
    if bytes.len() < 32 {
        return;
    }
    bytes[..4].copy_from_slice(&0x377f_0683_u32.to_be_bytes());
    bytes[4..8].copy_from_slice(&3_007_000_u32.to_be_bytes());
    bytes[8..12].copy_from_slice(&(SIZE as u32).to_be_bytes());
    let mut sum = (0_u32, 0_u32);
    checksum(&bytes[..24], &mut sum);
    put(&mut bytes[24..32], sum);
    let salts = bytes[16..24].to_vec();
    for frame in bytes[32..].chunks_exact_mut(frame) {
        frame[8..16].copy_from_slice(&salts);
        checksum(&frame[..8], &mut sum);
        checksum(&frame[24..], &mut sum);
        put(&mut frame[16..24], sum);
    }
}

fn checksum(bytes: &[u8], sum: &mut (u32, u32)) {
    for pair in bytes.chunks_exact(8) {
        let word = |at: usize| u32::from_be_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
        sum.0 = sum.0.wrapping_add(word(0)).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(word(4)).wrapping_add(sum.0);
    }
}

fn put(into: &mut [u8], sum: (u32, u32)) {
    into[..4].copy_from_slice(&sum.0.to_be_bytes());
    into[4..8].copy_from_slice(&sum.1.to_be_bytes());
}

/// Logs of real transactions, with either first byte.
#[must_use]
pub fn wals() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA page_size={SIZE}; PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(900));
         INSERT INTO t VALUES(1); DELETE FROM t; PRAGMA wal_checkpoint; INSERT INTO t VALUES(2)"
    ))
    .unwrap();
    let log = std::fs::read(folder.path().join("app.db-wal")).unwrap();
    [0_u8, 1].map(|first| [&[first], log.as_slice()].concat()).to_vec()
}
