//! Names and places of files: what they may be called, and what is said about those that are no
//! database or not there.

use std::path::Path;

use highwater::{Action, At, Builder, Database, Error, ErrorKind, RemoteDatabase};
use rusqlite::Connection;

use crate::common::{World, assert_same, fill, insert, rows};
use crate::support::{builder, litter, says};

const NAMES: &[&str] = &[
    "with space.db",
    "grüße-日本-🌊.db",
    "100%.db",
    "%41%2e%00.db",
    "what?.db",
    "a?mode=memory",
    "a#b.db",
    "a&b=c;d.db",
    "it's \"quoted\" `here`.db",
    "new\nline\ttab.db",
    "back\\slash.db",
    "-dash.db",
    "file:x.db",
    ":memory:",
    "no-extension",
    ".hidden",
    "x.db-info.db",
    "$HOME*[a].db",
];

#[test]
fn a_file_may_be_called_anything() {
    let world = World::new();
    for (number, name) in NAMES.iter().enumerate() {
        let folder = world.path(&format!("folder {number} {}", name.replace('/', "_")));
        std::fs::create_dir(&folder).unwrap();
        let url = world.url(&format!("db-{number}"));
        let a = builder(&folder.join(name), &url).open().unwrap();
        let connection = fill(&a, 20);
        assert_eq!(a.sync_blocking().unwrap().action, Action::Pushed, "{name:?}");
        let b = builder(&folder.join(format!("copy of {name}")), &url).open().unwrap();
        assert_eq!(b.sync_blocking().unwrap().action, Action::Bootstrapped, "{name:?}");
        insert(&connection, 3);
        assert_eq!(a.sync_blocking().unwrap().action, Action::Pushed, "{name:?}");
        assert_eq!(b.sync_blocking().unwrap().action, Action::Pulled, "{name:?}");
        let out = folder.join(format!("{name}.restored"));
        RemoteDatabase::new(&url, None).unwrap().restore_blocking(&out, At::Head, |_| ()).unwrap();
        drop(connection);
        assert_eq!(rows(&out).len(), 24, "{name:?}");
        assert_same(b.path(), &out);
        assert_same(a.path(), &out);
        assert_eq!(a.status().unwrap().unpushed_pages, Some(0), "{name:?}");
        let half: Vec<_> = litter(&folder).into_iter().filter(|left| left.contains("tmp-")).collect();
        assert_eq!(half, Vec::<String>::new(), "{name:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf8_is_an_error_that_says_so() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let path = world.folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.db"));
    let database = builder(&path, &world.url("app")).open().unwrap();
    fill(&database, 3);
    says(&database.sync_blocking().unwrap_err(), &[&"caf", &"UTF-8", &"rename the file"]);
}

#[test]
fn a_relative_path_and_a_symbolic_link_are_the_same_database() {
    let world = World::new();
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count() - 1);
    let relative = format!("{up}{}", world.path("app.db").to_str().unwrap().trim_start_matches('/'));
    let database = builder(Path::new(&relative), &world.url("app")).open().unwrap();
    let connection = fill(&database, 5);
    assert_eq!(database.sync_blocking().unwrap().action, Action::Pushed);
    assert!(database.path().is_absolute());
    insert(&connection, 5);
    std::os::unix::fs::symlink(world.path("app.db"), world.path("link.db")).unwrap();
    let link = Database::open(world.path("link.db")).unwrap();
    assert_eq!(link.remote(), Some(world.url("app")));
    assert_eq!(link.sync_blocking().unwrap().action, Action::Pushed);
    assert!(!world.path("link.db-info").exists() && !world.path("link.db-wal").exists());
    assert_eq!(database.sync_blocking().unwrap().action, Action::UpToDate);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let world = World::new();
    let path = world.path("missing/folder/app.db");
    let error = builder(&path, &world.url("app")).open().unwrap_err();
    says(&error, &[&path.display(), &"folder", &"create"]);
    fill(&world.open("app.db"), 1);
    world.open("app.db").sync_blocking().unwrap();
    let remote = RemoteDatabase::new(&world.url("app"), None).unwrap();
    let error = remote.restore_blocking(&path, At::Head, |_| ()).unwrap_err();
    says(&error, &[&"missing/folder", &"folder", &"create"]);
}

#[test]
fn a_folder_is_no_database() {
    let world = World::new();
    let path = world.path("folder.db");
    std::fs::create_dir(&path).unwrap();
    let error = builder(&path, &world.url("app")).open().unwrap_err();
    says(&error, &[&path.display(), &"that is a folder", &"file"]);
    let error = Builder::new(world.folder.path()).open().unwrap_err();
    says(&error, &[&world.folder.path().display(), &"that is a folder"]);
}

#[test]
fn what_is_no_database_is_refused_and_not_touched() {
    let world = World::new();
    let random: Vec<u8> = (0..16_384_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let half = [&b"SQLite format 3\0"[..], &random[..3000]].concat();
    let contents: [(&str, &[u8]); 5] = [
        ("letter.txt", &b"Dear reader, ".repeat(400)),
        ("short.txt", b"hi"),
        ("encrypted.db", &random),
        ("magic-only.db", b"SQLite format 3\0"),
        ("half.db", &half),
    ];
    for remote_exists in [false, true] {
        for (name, bytes) in contents {
            let path = world.path(name);
            std::fs::write(&path, bytes).unwrap();
            let database = builder(&path, &world.url("app")).open().unwrap();
            for attempt in [
                Database::sync_blocking,
                Database::push_blocking,
                Database::pull_blocking,
                Database::clone_blocking,
            ] {
                let error = attempt(&database).unwrap_err();
                let text = says(&error, &[&path.display(), &"not an SQLite database", &"not touched"]);
                assert!(text.contains("encrypted"), "{text}");
                assert_eq!(error.kind(), ErrorKind::Failure);
                assert_eq!(std::fs::read(&path).unwrap(), bytes);
            }
            assert!(database.status().is_err());
        }
        if !remote_exists {
            assert!(matches!(world.open("app.db").info_blocking(), Err(Error::UnknownDatabase { .. })));
            fill(&world.open("app.db"), 1);
            world.open("app.db").sync_blocking().unwrap();
        }
    }
}

#[test]
fn a_damaged_database_is_named_and_nothing_of_it_is_sent() {
    let world = World::new();
    let database = world.open("app.db");
    drop(fill(&database, 500));
    database.sync_blocking().unwrap();
    // The file ends in the middle: SQLite itself says that it is malformed.
    drop(fill(&database, 1));
    let whole = std::fs::read(database.path()).unwrap();
    std::fs::write(database.path(), &whole[..whole.len() / 2]).unwrap();
    for name in ["app.db-wal", "app.db-shm"] {
        let _ = std::fs::remove_file(world.path(name));
    }
    let head = database.info_blocking().unwrap().head;
    let error = database.sync_blocking().unwrap_err();
    says(&error, &[&database.path().display(), &"damaged", &"nothing was sent", &"highwater restore"]);
    assert_eq!(database.info_blocking().unwrap().head, head);
    std::fs::write(database.path(), &whole).unwrap();
    assert_eq!(database.sync_blocking().unwrap().action, Action::Pushed);
    assert_same(database.path(), &world.restored("app"));
}

#[test]
fn a_rollback_journal_left_by_a_crash_is_rolled_back_first() {
    let world = World::new();
    let database = builder(&world.path("app.db"), &world.url("app")).wal(false).open().unwrap();
    let connection = fill(&database, 300);
    database.sync_blocking().unwrap();
    let before = rows(database.path());
    // A transaction that spilled into the file, and a power cut: the file and its hot journal.
    connection
        .execute_batch("PRAGMA cache_size=2; BEGIN; UPDATE t SET text = text || randomblob(200)")
        .unwrap();
    let (db, journal) =
        (std::fs::read(database.path()).unwrap(), std::fs::read(world.path("app.db-journal")).unwrap());
    connection.execute_batch("ROLLBACK").unwrap();
    drop(connection);
    std::fs::write(database.path(), db).unwrap();
    std::fs::write(world.path("app.db-journal"), journal).unwrap();
    assert_eq!(database.sync_blocking().unwrap().action, Action::UpToDate);
    assert_eq!(rows(database.path()), before);
    let plain = Connection::open(database.path()).unwrap();
    insert(&plain, 2);
    assert_eq!(database.sync_blocking().unwrap().action, Action::Pushed);
    assert_same(database.path(), &world.restored("app"));
}
