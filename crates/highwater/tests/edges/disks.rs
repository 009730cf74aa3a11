//! Disks that are full or may not be written to: of the client and of the server.
//!
//! The tests of full disks sweep over how much room is left, so that the disk is full at every step in
//! turn: the metadata file, the page sums, the log that pages are applied through, the
//! temporary file of a large delta, a new database. Whatever the step, the error says that the disk
//! is full and where, nothing is lost or half done, and the next sync after some room was made ends equal.

use std::collections::BTreeSet;
use std::path::Path;

use highwater::{Action, At, Builder, Database, Error, PageSize, RemoteDatabase};
use highwater_server::{Config, StoreUrl};
use rusqlite::Connection;

use crate::common::{World, assert_same, fill, insert, rows};
use crate::support::{Filler, accepted, builder, litter, says, system, with_small_disk};

/// Checks the error of a full disk, and returns it without the file's number.
fn full(error: &Error, disk: &Path) -> String {
    let text = says(error, &[&disk.display()]);
    assert!(
        (text.contains("disk is full") || text.contains("No space left")) && text.contains("free some space"),
        "{text}"
    );
    let digits = |c: char| c.is_ascii_digit();
    text.replace(&disk.display().to_string(), "").replace(digits, "")
}

fn remove(database: &Database) {
    for suffix in ["", "-wal", "-shm", "-info", "-sums", "-lock"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database.path().display()));
    }
}

/// Adds bytes that do not compress.
fn bulk(connection: &Connection, bytes: u32) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<?1) INSERT INTO t(text) SELECT randomblob(1000) FROM n";
    connection.execute(sql, [bytes / 1000]).unwrap();
}

#[test]
fn a_disk_that_is_full_during_a_push_loses_nothing() {
    with_small_disk("disks::a_disk_that_is_full_during_a_push_loses_nothing", "12m", |disk| {
        let world = World::new();
        let (mut failures, mut successes) = (BTreeSet::new(), 0);
        for (open, steps) in [(true, 16), (false, 12)] {
            for leave in (0..steps).map(|pages| pages * 4096) {
                let name = format!("push-{open}-{leave}");
                let database = builder(&disk.join("app.db"), &world.url(&name))
                    .page_size(PageSize::new(512).unwrap())
                    .open()
                    .unwrap();
                let connection = fill(&database, 10);
                bulk(&connection, 500_000);
                let before = rows(database.path());
                let connection = open.then_some(connection);
                let filler = Filler::leaving(disk, leave);
                match database.sync_blocking() {
                    Ok(outcome) => {
                        successes += 1;
                        assert_eq!(outcome.action, Action::Pushed);
                    }
                    Err(error) => drop(failures.insert(full(&error, disk))),
                }
                assert_eq!(litter(disk), Vec::<String>::new(), "{leave} bytes left");
                // Still full: an error or not, and again nothing is lost.
                let again = database.sync_blocking();
                if let Err(error) = again {
                    full(&error, disk);
                }
                drop(filler);
                database.sync_blocking().unwrap();
                assert_eq!(rows(database.path()), before);
                assert_eq!(accepted(&database), 1, "{leave} bytes left: stored once");
                assert_same(database.path(), &world.restored(&name));
                assert_eq!(database.sync_blocking().unwrap().action, Action::UpToDate);
                drop(connection);
                remove(&database);
            }
        }
        println!("{successes} succeeded, failures: {failures:#?}");
        assert!(successes > 0 && !failures.is_empty());
        assert!(failures.iter().any(|text| text.contains("-info")), "the metadata file");
    });
}

#[test]
fn a_disk_that_is_full_during_a_pull_loses_nothing() {
    with_small_disk("disks::a_disk_that_is_full_during_a_pull_loses_nothing", "12m", |disk| {
        let world = World::new();
        let (mut failures, mut successes) = (BTreeSet::new(), 0);
        let steps = (0..24).map(|pages| pages * 4096).chain([200_000, 250_000, 300_000, 350_000, 1_000_000]);
        for leave in steps {
            let name = format!("pull-{leave}");
            let a = builder(&world.path(&format!("{name}.db")), &world.url(&name)).open().unwrap();
            let on_a = fill(&a, 10);
            bulk(&on_a, 500_000);
            a.sync_blocking().unwrap();
            let b = builder(&disk.join("app.db"), &world.url(&name)).open().unwrap();
            b.sync_blocking().unwrap();
            let on_b = b.connect().unwrap();
            let before = rows(b.path());
            bulk(&on_a, 250_000);
            on_a.execute_batch("DELETE FROM t WHERE id % 3 = 0").unwrap();
            a.sync_blocking().unwrap();
            let filler = Filler::leaving(disk, leave);
            match b.sync_blocking() {
                Ok(outcome) => {
                    successes += 1;
                    assert_eq!(outcome.action, Action::Pulled);
                }
                Err(error) => {
                    failures.insert(full(&error, disk));
                    let now = rows(b.path());
                    assert!(
                        now == before || now == rows(a.path()),
                        "{leave} bytes left: whole or not at all"
                    );
                }
            }
            assert_eq!(litter(disk), Vec::<String>::new(), "{leave} bytes left");
            drop(filler);
            b.sync_blocking().unwrap();
            assert_same(a.path(), b.path());
            assert_eq!(accepted(&b), 2);
            drop(on_b);
            remove(&b);
        }
        println!("{successes} succeeded, failures: {failures:#?}");
        assert!(successes > 0 && !failures.is_empty());
        assert!(
            failures.iter().any(|text| text.contains("app.db;") || text.contains("app.db ")),
            "the log of the database"
        );
    });
}

#[test]
fn a_disk_that_is_full_during_the_first_copy_leaves_nothing_behind() {
    with_small_disk(
        "disks::a_disk_that_is_full_during_the_first_copy_leaves_nothing_behind",
        "12m",
        |disk| {
            let world = World::new();
            let a = world.open("a.db");
            let on_a = fill(&a, 10);
            bulk(&on_a, 800_000);
            a.sync_blocking().unwrap();
            let (mut failures, mut successes) = (BTreeSet::new(), 0);
            let sizes = (0..12)
                .map(|step| step * 100_000)
                .chain([900_000, 904_000, 908_000, 912_000, 916_000, 1_900_000, 2_800_000]);
            for leave in sizes {
                for blank in [false, true] {
                    let b = builder(&disk.join("app.db"), &world.url("app")).open().unwrap();
                    let connection = blank.then(|| b.connect().unwrap());
                    let filler = Filler::leaving(disk, leave);
                    match b.clone_blocking() {
                        Ok(_) => {
                            successes += 1;
                            assert_same(a.path(), b.path());
                        }
                        Err(error) => {
                            failures.insert(full(&error, disk));
                        }
                    }
                    let out = disk.join("restored.db");
                    let remote = RemoteDatabase::new(&world.url("app"), None).unwrap();
                    if let Err(error) = remote.restore_blocking(&out, At::Head, |_| ()) {
                        failures.insert(full(&error, disk));
                        assert!(!out.exists());
                    }
                    assert_eq!(litter(disk), Vec::<String>::new(), "{leave} bytes left");
                    drop(filler);
                    let _ = std::fs::remove_file(out);
                    b.sync_blocking().unwrap();
                    assert_same(a.path(), b.path());
                    drop(connection);
                    remove(&b);
                }
            }
            println!("{successes} succeeded, failures: {failures:#?}");
            assert!(successes > 3 && failures.len() > 1);
        },
    );
}

#[test]
fn a_disk_that_is_full_during_a_large_pull_loses_nothing() {
    with_small_disk("disks::a_disk_that_is_full_during_a_large_pull_loses_nothing", "80m", |disk| {
        let world = World::new();
        let mut failures = BTreeSet::new();
        let a = world.open("a.db");
        let on_a = fill(&a, 10);
        a.sync_blocking().unwrap();
        let b = builder(&disk.join("app.db"), &world.url("app")).open().unwrap();
        b.sync_blocking().unwrap();
        let on_b = b.connect().unwrap();
        let before = rows(b.path());
        // More than is kept in memory: it goes through a temporary file.
        bulk(&on_a, 20_000_000);
        a.sync_blocking().unwrap();
        for leave in [0, 1 << 20, 16 << 20, 24 << 20, 30 << 20] {
            let filler = Filler::leaving(disk, leave);
            let error = b.sync_blocking().unwrap_err();
            failures.insert(full(&error, disk));
            assert_eq!(rows(b.path()), before);
            assert_eq!(litter(disk), Vec::<String>::new());
            drop(filler);
        }
        println!("failures: {failures:#?}");
        assert!(
            failures.iter().any(|text| text.contains("temporary file")),
            "the file that a large delta waits in"
        );
        assert!(failures.iter().any(|text| text.contains("app.db")), "the log of the database");
        assert_eq!(b.sync_blocking().unwrap().action, Action::Pulled);
        assert_same(a.path(), b.path());
        drop(on_b);
    });
}

#[test]
fn a_read_only_folder_is_an_error_that_says_what_must_be_writable() {
    with_small_disk("disks::a_read_only_folder_is_an_error_that_says_what_must_be_writable", "8m", |disk| {
        let world = World::new();
        let fresh = builder(&disk.join("fresh.db"), &world.url("fresh")).open().unwrap();
        drop(fill(&fresh, 5));
        let synced = builder(&disk.join("synced.db"), &world.url("app")).open().unwrap();
        let connection = fill(&synced, 5);
        synced.sync_blocking().unwrap();
        insert(&connection, 1);
        // Left open without a clean end, as a crash would.
        std::mem::forget(connection);
        let again = disk.to_str().unwrap().to_owned();
        system("mount", &["--bind", &again], disk);
        system("mount", &["-o", "remount,bind,ro"], disk);
        for database in [&fresh, &synced] {
            let error = database.sync_blocking().unwrap_err();
            says(&error, &[&database.path().display(), &"folder must be writable"]);
        }
        let missing = builder(&disk.join("missing.db"), &world.url("app")).open().unwrap();
        says(&missing.clone_blocking().unwrap_err(), &[&"missing.db", &"folder must be writable"]);
        let remote = RemoteDatabase::new(&world.url("app"), None).unwrap();
        let error = remote.restore_blocking(&disk.join("restored.db"), At::Head, |_| ()).unwrap_err();
        says(&error, &[&"restored.db", &"must be writable"]);
        for database in [&fresh, &synced] {
            // What can be known without writing is told; and if not, why.
            match database.status() {
                Ok(status) => println!("    status: {status:?}"),
                Err(error) => drop(says(&error, &[&database.path().display(), &"must be writable"])),
            }
        }
        assert!(
            matches!(fresh.info_blocking().unwrap_err(), Error::UnknownDatabase { .. }),
            "nothing was sent"
        );
        system("umount", &[], disk);
        for database in [&fresh, &synced] {
            assert_eq!(database.sync_blocking().unwrap().action, Action::Pushed);
        }
        assert_same(synced.path(), &world.restored("app"));
    });
}

#[test]
fn a_read_only_file_is_not_written_to_and_says_so() {
    with_small_disk("disks::a_read_only_file_is_not_written_to_and_says_so", "8m", |disk| {
        let world = World::new();
        let a = world.open("a.db");
        let on_a = fill(&a, 5);
        a.sync_blocking().unwrap();
        let b = builder(&disk.join("app.db"), &world.url("app")).open().unwrap();
        b.sync_blocking().unwrap();
        let before = rows(b.path());
        // Permissions do not stop root; a file mounted over itself read-only does.
        let path = b.path().to_str().unwrap().to_owned();
        system("mount", &["--bind", &path], b.path());
        system("mount", &["-o", "remount,bind,ro"], b.path());
        assert_eq!(b.sync_blocking().unwrap().action, Action::UpToDate, "nothing to write");
        insert(&on_a, 5);
        a.sync_blocking().unwrap();
        for _ in 0..2 {
            let error = b.sync_blocking().unwrap_err();
            says(&error, &[&path, &"must be writable"]);
        }
        assert_eq!(b.status().unwrap().unpushed_pages, Some(0));
        system("umount", &[], b.path());
        assert_eq!(rows(b.path()), before);
        assert_eq!(b.sync_blocking().unwrap().action, Action::Pulled);
        assert_same(a.path(), b.path());
    });
}

#[test]
fn a_full_server_acknowledges_nothing_and_goes_on_when_there_is_room() {
    with_small_disk(
        "disks::a_full_server_acknowledges_nothing_and_goes_on_when_there_is_room",
        "60m",
        |disk| {
            let world = World::with_config(|config: &mut Config| {
                config.store = StoreUrl::Local(disk.join("store"));
                config.snapshot.max_files = 3;
                config.limits.small_body = 1 << 20;
            });
            let database = world.open("app.db");
            let connection = fill(&database, 10);
            let (mut refused, mut pushes) = (0, 0);
            // Small pushes, one that is staged through a file, and several that bring snapshots along.
            for (leave, bytes) in [
                (0, 1000),
                (4096, 300_000),
                (1 << 20, 2_500_000),
                (0, 1000),
                (4096, 1000),
                (16384, 1000),
                (2 << 20, 1000),
                (2 << 20, 4000),
                (0, 10_000),
            ] {
                bulk(&connection, bytes);
                let before = rows(database.path());
                let filler = Filler::leaving(disk, leave);
                match database.sync_blocking() {
                    Ok(_) => {}
                    Err(error) => {
                        refused += 1;
                        let text = says(
                            &error,
                            &[&world.url("app"), &"storage is full", &"nothing was stored", &"sync again"],
                        );
                        assert!(
                            matches!(error, Error::Server { code: highwater::ErrorCode::StorageFull, .. }),
                            "{text}"
                        );
                        assert!(text.contains("(request "), "{text}");
                        assert_eq!(accepted_or_none(&database), pushes, "nothing was acknowledged");
                    }
                }
                assert_eq!(rows(database.path()), before, "the client's rows are intact");
                // A second copy that reads is served although the disk is full.
                if pushes > 0 {
                    let out = world.restored("app");
                    std::fs::remove_file(out).unwrap();
                }
                drop(filler);
                database.sync_blocking().unwrap();
                pushes += 1;
                assert_eq!(accepted(&database), pushes, "stored once");
                let restored = world.restored("app");
                assert_same(database.path(), &restored);
                std::fs::remove_file(restored).unwrap();
            }
            assert!(refused >= 5, "{refused} pushes were refused");
            let left: Vec<_> =
                files(&disk.join("store")).into_iter().filter(|path| !path.ends_with(".ltx")).collect();
            assert_eq!(left, Vec::<String>::new(), "no half file stays");
        },
    );
}

fn accepted_or_none(database: &Database) -> usize {
    match database.info_blocking() {
        Ok(_) => accepted(database),
        Err(Error::UnknownDatabase { .. }) => 0,
        Err(error) => panic!("{error}"),
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path.display().to_string());
        }
    }
    all
}

#[test]
fn a_folder_without_room_for_a_lock_still_opens_for_the_application() {
    with_small_disk(
        "disks::a_folder_without_room_for_a_lock_still_opens_for_the_application",
        "1m,nr_inodes=6",
        |disk| {
            let world = World::new();
            let database = Builder::new(disk.join("app.db")).remote(world.url("app")).open().unwrap();
            let connection = fill(&database, 5);
            // No name is left for any file of Highwater's.
            let mut names = 0;
            while std::fs::File::create_new(disk.join(format!("name-{names}"))).is_ok() {
                names += 1;
            }
            says(&database.sync_blocking().unwrap_err(), &[&"app.db-lock", &"free some space"]);
            insert(&connection, 1);
            (0..names).for_each(|name| std::fs::remove_file(disk.join(format!("name-{name}"))).unwrap());
            drop(connection);
        },
    );
}
