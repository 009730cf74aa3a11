//! The proof that a sync came to its right end: the local file, the server's database and the model
//! are the same, nothing was stored twice, and nothing is left lying about.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use highwater::{Action, At, Builder, Database, FrameNo, Generation, LogEntry, PageCount, PageSize, Place};
use highwater_pages::{StateSum, canonical, page_hash};

use super::app::{Rows, open};

/// The client, in this process.
pub fn database(path: &Path, url: &str) -> Database {
    Builder::new(path).remote(url).timeout(Duration::from_secs(10)).open().unwrap()
}

/// What the server accepted, oldest first.
pub fn entries(url: &str) -> Vec<LogEntry> {
    let remote = highwater::RemoteDatabase::new(url, None).unwrap();
    let mut all: Vec<LogEntry> = Vec::new();
    loop {
        let after = all.last().map(place);
        match remote.log_blocking(after, 1000) {
            Ok(page) => {
                all.extend(page.entries);
                if !page.more {
                    return all;
                }
            }
            Err(highwater::Error::UnknownDatabase { .. }) => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

fn place(entry: &LogEntry) -> Place {
    Place { generation: Generation(entry.position.generation), frame: FrameNo(entry.position.frame) }
}

/// The hash of a file's state, computed from its pages.
pub fn state_of(path: &Path) -> String {
    let conn = open(path);
    let size: u32 = conn.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
    let size = PageSize::new(size).unwrap();
    let mut sum = StateSum::EMPTY;
    let mut count = 0;
    let mut pages = conn.prepare("SELECT pgno, data FROM sqlite_dbpage('main')").unwrap();
    let mut pages = pages.query([]).unwrap();
    while let Some(page) = pages.next().unwrap() {
        let number = highwater::PageNo(page.get(0).unwrap());
        let data = page.get_ref(1).unwrap().as_blob().unwrap();
        count += 1;
        if number != size.lock_page() {
            sum.add(page_hash(number, &canonical(number, data)));
        }
    }
    sum.state(PageCount(count), size).to_string()
}

/// Restores the server's database, at its head or at an entry of its log, and reads it.
pub fn restored(url: &str, at: At, folder: &Path) -> (Rows, String, Vec<u8>) {
    let out = folder.join("restored.db");
    let remote = highwater::RemoteDatabase::new(url, None).unwrap();
    remote.restore_blocking(&out, at, |_| ()).unwrap();
    let bytes = std::fs::read(&out).unwrap();
    let (rows, state) = (Rows::read(&out), state_of(&out));
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.join(format!("restored.db{suffix}")));
    }
    (rows, state, bytes)
}

/// Every page of every push but the first changed something, and every push led to another state.
pub fn nothing_twice(url: &str, folder: &Path) {
    let entries = entries(url);
    let mut before: Option<Vec<u8>> = None;
    for entry in &entries {
        let (_, state, image) = restored(url, At::Place(place(entry)), folder);
        assert_eq!(state, entry.position.state, "{entry:?}");
        if let Some(before) = &before {
            let size = image.len() / entry.page_count as usize;
            let old: Vec<&[u8]> = before.chunks(size).collect();
            let changed =
                image.chunks(size).enumerate().filter(|(at, page)| old.get(*at) != Some(page)).count();
            assert_eq!(entry.pages as usize, changed, "only what changed is stored: {entry:?}");
        }
        before = Some(image);
    }
    states_differ(&entries);
}

/// Every push led to another state than the one before it.
pub fn states_differ(entries: &[LogEntry]) {
    for pair in entries.windows(2) {
        assert_ne!(pair[0].position.state, pair[1].position.state, "a push that changes nothing: {pair:?}");
    }
}

/// After the one sync: another one has nothing to do, and file, server and model are the same.
pub fn equal(path: &Path, url: &str, model: &Rows, pushes: usize, scratch: &Path) {
    let idle = database(path, url).sync_blocking().unwrap();
    assert_eq!((idle.action, idle.requests), (Action::UpToDate, 1), "one sync was enough: {idle:?}");
    let entries = entries(url);
    assert_eq!(entries.len(), pushes, "pushes in the log: {entries:#?}");
    states_differ(&entries);
    model.assert_same(&Rows::read(path), "the local file");
    let (rows, state, _) = restored(url, At::Head, scratch);
    model.assert_same(&rows, "the server's database");
    assert_eq!(state, entries.last().unwrap().position.state, "the server's database has the state it says");
    assert_eq!(state_of(path), state, "the local file has the server's state");
    nothing_left(path);
}

/// Beside a database are only the files that belong there.
pub fn nothing_left(db: &Path) {
    let name = db.file_name().unwrap().to_str().unwrap();
    let allowed = ["", "-wal", "-shm", "-info", "-sums", "-lock"].map(|suffix| format!("{name}{suffix}"));
    let found: BTreeSet<String> = std::fs::read_dir(db.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| file.contains(name) || file.starts_with(".highwater"))
        .filter(|file| !allowed.contains(file))
        .collect();
    assert!(found.is_empty(), "left behind: {found:?}");
}
