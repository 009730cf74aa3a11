//! `verify`: a local copy alone, against its server, and a whole store.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::support::{Folder, Server, add, check, highwater, notes};

/// A synced file that no other process has open, with everything in the main file.
fn synced(folder: &Folder, server: &Server) {
    let path = folder.file("app.db");
    let db = notes(&path);
    db.execute_batch(
        "CREATE INDEX by_text ON notes (text);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO notes (text) SELECT 'note ' || i FROM n;",
    )
    .unwrap();
    drop(db);
    highwater(folder.path(), &format!("sync app.db --remote {}", server.db("app"))).expect(0);
    rusqlite::Connection::open(path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

fn flip(path: &Path, at: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 0x55;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&byte).unwrap();
}

#[test]
fn a_copy_is_compared_with_itself_and_with_the_server() {
    let (folder, server) = (Folder::new(), Server::start());
    notes(&folder.file("app.db"));
    check("verify_never_synced", &highwater(folder.path(), "verify app.db").expect(0).all());
    highwater(folder.path(), &format!("sync app.db --remote {}", server.db("app"))).expect(0);
    check("verify_clean", &highwater(folder.path(), "verify app.db").expect(0).all());
    highwater(folder.path(), &format!("clone {} copy.db", server.db("app"))).expect(0);
    add(&folder.file("app.db"), "second");
    check("verify_unpushed", &highwater(folder.path(), "verify app.db").expect(0).all());
    highwater(folder.path(), "sync app.db").expect(0);
    let behind = highwater(folder.path(), "verify copy.db").expect(0);
    assert!(behind.stdout.contains("1 transaction ahead"), "{behind:?}");
}

#[test]
fn a_server_that_is_away_is_exit_code_4_unless_offline_is_said() {
    let (folder, server) = (Folder::new(), Server::start());
    notes(&folder.file("app.db"));
    highwater(folder.path(), &format!("sync app.db --remote {}", server.db("app"))).expect(0);
    drop(server);
    let said = highwater(folder.path(), "verify app.db").expect(4);
    assert!(said.stdout.contains("integrity_check says ok"), "what can be checked is checked: {said:?}");
    assert!(said.stderr.contains("--offline"), "{said:?}");
    highwater(folder.path(), "verify app.db --offline").expect(0);
    let json = highwater(folder.path(), "verify app.db --json").expect(4).json();
    assert_eq!(json["error"]["code"], "offline");
}

#[test]
fn a_damaged_file_is_a_problem() {
    let (folder, server) = (Folder::new(), Server::start());
    synced(&folder, &server);
    let path = folder.file("app.db");
    // The first byte of a page in the middle: what kind of page it is.
    let middle = std::fs::metadata(&path).unwrap().len() / 4096 / 2 * 4096;
    flip(&path, middle);
    let said = highwater(folder.path(), "verify app.db --offline").expect(1);
    assert!(said.stdout.contains("PROBLEM"), "{said:?}");
    let json = highwater(folder.path(), "verify app.db --offline --json").expect(1).json();
    assert_eq!(json["ok"], false);
    assert_eq!(json["changed_pages"], 1);
}

#[test]
fn lost_page_sums_are_told_and_are_no_fault() {
    let (folder, server) = (Folder::new(), Server::start());
    synced(&folder, &server);
    std::fs::remove_file(folder.file("app.db-sums")).unwrap();
    let said = highwater(folder.path(), "verify app.db").expect(0);
    assert!(said.stdout.contains("page sums are missing"), "{said:?}");
    assert!(said.stdout.contains("has the same content"), "{said:?}");
}

fn ltx_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(ltx_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "ltx") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_store_is_read_to_the_last_byte() {
    let folder = Folder::new();
    let store = folder.file("data");
    let server = Server::with(&["--store", store.to_str().unwrap()]);
    synced(&folder, &server);
    add(&folder.file("app.db"), "one more");
    highwater(folder.path(), "sync app.db").expect(0);
    highwater(folder.path(), &format!("clone {} other.db", server.db("app"))).expect(0);
    highwater(folder.path(), &format!("sync other.db --switch-remote --remote {}", server.db("team/other")))
        .expect(0);

    let sound = highwater(folder.path(), "verify data").expect(0);
    check("verify_store", &sound.all());
    let url = format!("verify file://{} --json", store.display());
    assert_eq!(highwater(folder.path(), &url).expect(0).json()["ok"], true);
    assert_eq!(server.stop(), 0);

    let victim = ltx_files(&store.join("app")).pop().unwrap();
    flip(&victim, std::fs::metadata(&victim).unwrap().len() / 2);
    let damaged = highwater(folder.path(), "verify data").expect(1);
    let name = victim.file_name().unwrap().to_str().unwrap();
    assert!(damaged.stdout.contains(name), "the damaged file is named: {damaged:?}");
    assert!(damaged.stdout.contains("team/other"), "the others are checked all the same: {damaged:?}");
    assert_eq!(highwater(folder.path(), &url).expect(1).json()["ok"], false);
}

#[test]
fn a_store_that_is_not_there_is_said_so_and_not_made() {
    let folder = Folder::new();
    let missing = folder.file("missing");
    highwater(folder.path(), &format!("verify file://{}", missing.display())).expect(1);
    assert!(!missing.exists());
    highwater(folder.path(), "verify http://127.0.0.1:1/app").expect(2);
}
