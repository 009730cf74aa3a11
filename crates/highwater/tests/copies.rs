//! Files that are copied, moved, restored, cloned and swapped by people: every copy goes on from what
//! it is, and nothing that the server has gets lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

mod common;

use std::path::{Path, PathBuf};

use common::{World, assert_same, fill, insert, rows};
use highwater::{Action, Database, DeviceId, Error};
use rusqlite::Connection;

/// How a backup comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restore {
    /// `cp backup.db app.db`: the same inode.
    CopiedOver,
    /// `mv backup.db app.db`: another inode.
    MovedOver,
    /// Through SQLite's backup API into the open database.
    BackupApi,
}

/// What the application does with it before the next sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// A row changed.
    Update,
    /// Rows added, as the server has them added since the backup.
    Insert,
    /// The whole file rewritten, its rows unchanged.
    Vacuum,
}

fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The database alone, without log, index or metadata.
fn closed_copy(db: &Path, to: &Path) {
    let connection = Connection::open(db).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    std::fs::copy(db, to).unwrap();
}

fn restore(how: Restore, backup: &Path, db: &Path) {
    if how == Restore::BackupApi {
        let (from, mut to) = (Connection::open(backup).unwrap(), Connection::open(db).unwrap());
        let backup = rusqlite::backup::Backup::new(&from, &mut to).unwrap();
        backup.run_to_completion(1000, std::time::Duration::ZERO, None).unwrap();
        return;
    }
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(db, suffix));
    }
    match how {
        Restore::CopiedOver => std::fs::write(db, std::fs::read(backup).unwrap()).unwrap(),
        _ => std::fs::rename(backup, db).unwrap(),
    }
}

/// A database that was pushed, backed up, changed and pushed again, and then restored.
struct Restored {
    world: World,
    db: Database,
    /// The rows on the server.
    newest: Vec<String>,
}

/// What happened between the backup and the last push.
const SINCE: &str = "UPDATE t SET text='newer' WHERE id=2; INSERT INTO t(text) VALUES ('newer')";

fn restored(count: u32, how: Restore, then: Then) -> Restored {
    let world = World::in_memory(|_| ());
    let db = world.open("app.db");
    drop(fill(&db, count));
    db.sync_blocking().unwrap();
    let backup = world.path("backup.db");
    closed_copy(db.path(), &backup);
    db.connect().unwrap().execute_batch(SINCE).unwrap();
    db.sync_blocking().unwrap();
    let newest = rows(db.path());
    restore(how, &backup, db.path());
    let application = db.connect().unwrap();
    application
        .execute_batch(match then {
            Then::Nothing => "",
            Then::Update => "UPDATE t SET text='mine' WHERE id=3",
            Then::Insert => "INSERT INTO t(text) VALUES ('mine')",
            Then::Vacuum => "VACUUM",
        })
        .unwrap();
    drop(application);
    Restored { world, db, newest }
}

/// What was written to the backup is merged with what the server has, and nothing of either is lost.
fn assert_merged(case: &str, restored: &Restored, then: Then) {
    let Restored { world, db, newest } = restored;
    let outcome = db.sync_blocking().unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(matches!(outcome.action, Action::Merged | Action::Pulled), "{case}: {outcome:?}");
    let after = texts(db.path());
    assert_same(db.path(), &world.restored("app"));
    assert_eq!(after.iter().filter(|text| *text == "newer").count(), 2, "{case}: nothing goes back in time");
    let mine = after.iter().filter(|text| *text == "mine").count();
    assert_eq!(mine, usize::from(then != Then::Vacuum), "{case}: what was written is there");
    let added = usize::from(then == Then::Insert);
    assert_eq!(after.len(), newest.len() - 1 + added, "{case}: and nothing is there twice");
    assert_eq!(db.sync_blocking().unwrap().action, Action::UpToDate, "{case}");
}

fn texts(db: &Path) -> Vec<String> {
    let connection = Connection::open(db).unwrap();
    let mut statement = connection.prepare("SELECT text FROM t").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

const SIZES: [u32; 4] = [5, 120, 500, 3000];

#[test]
fn a_restored_backup_is_pulled_forward_and_nothing_goes_back_in_time() {
    for count in SIZES {
        for how in [Restore::CopiedOver, Restore::MovedOver] {
            let Restored { world, db, newest } = restored(count, how, Then::Nothing);
            let outcome = db.sync_blocking().unwrap();
            let case = format!("{count} rows, {how:?}");
            assert_eq!((outcome.action, outcome.pushed.frames), (Action::Pulled, 0), "{case}");
            assert_eq!(rows(db.path()), newest, "{case}");
            assert_eq!(rows(&world.restored("app")), newest, "{case}");
            let again = db.sync_blocking().unwrap();
            assert_eq!((again.action, again.requests), (Action::UpToDate, 1), "{case}");
            insert(&db.connect().unwrap(), 2);
            assert_eq!(db.sync_blocking().unwrap().action, Action::Pushed, "{case}");
        }
    }
}

#[test]
fn a_restored_backup_that_was_written_to_never_undoes_what_was_pushed_since() {
    for count in SIZES {
        for how in [Restore::CopiedOver, Restore::MovedOver, Restore::BackupApi] {
            for then in [Then::Update, Then::Insert, Then::Vacuum] {
                // In a file of one leaf every page that was pushed since is changed again, and pages do
                // not tell it from one that was only written to: ARCHITECTURE.md, what cannot be told.
                let one_leaf = count < 300 && how != Restore::MovedOver && then != Then::Vacuum;
                if !one_leaf {
                    assert_merged(
                        &format!("{count} rows, {how:?}, {then:?}"),
                        &restored(count, how, then),
                        then,
                    );
                }
            }
        }
    }
}

#[test]
fn a_backup_copied_under_the_log_that_holds_all_since_is_the_newest_state() {
    let world = World::in_memory(|_| ());
    let db = world.open("app.db");
    let application = fill(&db, 400);
    application.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    db.sync_blocking().unwrap();
    let backup = std::fs::read(db.path()).unwrap();
    insert(&application, 30);
    db.sync_blocking().unwrap();
    insert(&application, 20);
    let mine = rows(db.path());
    // As it is after a crash: the log is there, the index of it is not.
    let wal = std::fs::read(beside(db.path(), "-wal")).unwrap();
    drop(application);
    std::fs::write(db.path(), backup).unwrap();
    std::fs::write(beside(db.path(), "-wal"), wal).unwrap();
    let _ = std::fs::remove_file(beside(db.path(), "-shm"));
    assert_eq!(db.sync_blocking().unwrap().action, Action::Pushed);
    assert_eq!(rows(db.path()), mine);
    assert_eq!(rows(&world.restored("app")), mine);
}

/// Copies a database with everything beside it.
fn clone_all(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-info", "-sums", "-lock"] {
        if let Ok(bytes) = std::fs::read(beside(from, suffix)) {
            std::fs::write(beside(to, suffix), bytes).unwrap();
        }
    }
}

#[test]
fn a_clone_with_its_metadata_is_a_device_of_its_own_and_both_work() {
    for count in SIZES {
        for closed in [false, true] {
            for written_first in [false, true] {
                let case = format!("{count} rows, closed {closed}, written first {written_first}");
                let world = World::in_memory(|_| ());
                let first = world.open("first.db");
                let application = fill(&first, count);
                let application = if closed {
                    drop(application);
                    None
                } else {
                    Some(application)
                };
                first.sync_blocking().unwrap();
                std::fs::create_dir(world.path("elsewhere")).unwrap();
                let path = world.path("elsewhere/first.db");
                clone_all(first.path(), &path);
                // It remembers its URL.
                let second = Database::open(&path).unwrap();
                let write = |db: &Database| {
                    let changed =
                        db.connect().unwrap().execute("UPDATE t SET text=text || '!' WHERE id=1", []);
                    assert_eq!(changed.unwrap(), 1);
                };
                if written_first {
                    write(&second);
                    assert_eq!(second.sync_blocking().unwrap().action, Action::Pushed, "{case}");
                    assert_eq!(first.sync_blocking().unwrap().action, Action::Pulled, "{case}");
                } else {
                    assert_eq!(second.sync_blocking().unwrap().action, Action::UpToDate, "{case}");
                }
                for (here, there) in [(&first, &second), (&second, &first), (&first, &second)] {
                    write(here);
                    assert_eq!(here.sync_blocking().unwrap().action, Action::Pushed, "{case}");
                    assert_eq!(there.sync_blocking().unwrap().action, Action::Pulled, "{case}");
                    assert_same(first.path(), second.path());
                }
                let devices = [&first, &second].map(|db| db.status().unwrap().device.unwrap());
                assert_ne!(devices[0], devices[1], "{case}");
                // Each stays what it is.
                write(&first);
                first.sync_blocking().unwrap();
                assert_eq!(first.status().unwrap().device, Some(devices[0]), "{case}");
                drop(application);
            }
        }
    }
}

#[test]
fn of_two_clones_that_both_write_both_rows_live() {
    for count in SIZES {
        for closed in [false, true] {
            let case = format!("{count} rows, closed {closed}");
            let world = World::in_memory(|_| ());
            let first = world.open("first.db");
            let application = fill(&first, count);
            first.sync_blocking().unwrap();
            clone_all(first.path(), &world.path("second.db"));
            let second = world.open("second.db");
            if closed {
                drop(application);
            }
            let (on_first, on_second) = (first.connect().unwrap(), second.connect().unwrap());
            on_first.execute_batch("INSERT INTO t(text) VALUES ('first')").unwrap();
            on_second.execute_batch("INSERT INTO t(text) VALUES ('second')").unwrap();
            assert_eq!(first.sync_blocking().unwrap().action, Action::Pushed, "{case}");
            assert_eq!(second.sync_blocking().unwrap().action, Action::Merged, "{case}");
            assert_eq!(first.sync_blocking().unwrap().action, Action::Pulled, "{case}");
            assert_same(first.path(), second.path());
            let found = texts(first.path());
            let once = |text: &str| found.iter().filter(|found| *found == text).count() == 1;
            assert!(
                once("first") && once("second") && found.len() == count as usize + 2,
                "{case}: {found:?}"
            );
        }
    }
}

#[test]
fn a_moved_database_goes_on_with_or_without_what_was_beside_it() {
    for with in [true, false] {
        let world = World::in_memory(|_| ());
        let db = world.open("old.db");
        drop(fill(&db, 50));
        db.sync_blocking().unwrap();
        insert(&Connection::open(db.path()).unwrap(), 3);
        let moved = world.path("new name.db");
        for suffix in ["", "-info", "-sums", "-lock"] {
            if with || suffix.is_empty() {
                std::fs::rename(beside(db.path(), suffix), beside(&moved, suffix)).unwrap();
            }
        }
        let db = world.open("new name.db");
        let outcome = db.sync_blocking().unwrap();
        assert_eq!(outcome.action, Action::Pushed);
        assert!(outcome.pushed.frames < 3, "{outcome:?}");
        assert_same(db.path(), &world.restored("app"));
    }
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_and_the_file_that_it_names_are_one_database() {
    let world = World::in_memory(|_| ());
    std::fs::create_dir(world.path("data")).unwrap();
    std::os::unix::fs::symlink(world.path("data"), world.path("folder")).unwrap();
    let real = world.open("data/app.db");
    drop(fill(&real, 10));
    real.sync_blocking().unwrap();
    std::os::unix::fs::symlink(real.path(), world.path("link.db")).unwrap();
    for through in ["link.db", "folder/app.db", "data/../link.db"] {
        let link = world.open(through);
        assert_eq!(link.path(), real.path());
        insert(&link.connect().unwrap(), 1);
        assert_eq!(link.sync_blocking().unwrap().action, Action::Pushed, "{through}");
        let idle = real.sync_blocking().unwrap();
        assert_eq!((idle.action, idle.requests), (Action::UpToDate, 1), "{through}");
    }
    for name in ["link.db-info", "link.db-sums", "link.db-wal"] {
        assert!(!world.path(name).exists(), "{name}");
    }
    // A link to a file that does not exist yet: the copy is made where the link points to.
    std::os::unix::fs::symlink(world.path("data/later.db"), world.path("later.db")).unwrap();
    let later = world.open("later.db");
    assert_eq!(later.sync_blocking().unwrap().action, Action::Bootstrapped);
    assert_same(&world.path("data/later.db"), real.path());
    assert!(world.path("later.db").is_symlink());
}

#[test]
fn a_deleted_database_is_fetched_again() {
    for deleted in [&["", "-wal", "-shm"][..], &["", "-wal", "-shm", "-info"], &["", "-wal", "-shm", "-sums"]]
    {
        let world = World::in_memory(|_| ());
        let db = world.open("app.db");
        drop(fill(&db, 50));
        db.sync_blocking().unwrap();
        let newest = rows(db.path());
        for suffix in deleted {
            let _ = std::fs::remove_file(beside(db.path(), suffix));
        }
        let outcome = db.sync_blocking().unwrap();
        assert_eq!((outcome.action, outcome.pushed.frames), (Action::Bootstrapped, 0), "{deleted:?}");
        assert_eq!(rows(db.path()), newest);
        assert_eq!(db.sync_blocking().unwrap().action, Action::UpToDate);
        insert(&db.connect().unwrap(), 2);
        assert_eq!(db.sync_blocking().unwrap().action, Action::Pushed);
        assert_same(db.path(), &world.restored("app"));
    }
}

/// The application deletes its file and begins anew, with nothing in it yet.
#[test]
fn a_database_that_was_begun_anew_is_filled_and_not_emptied() {
    let world = World::in_memory(|_| ());
    let db = world.open("app.db");
    drop(fill(&db, 50));
    db.sync_blocking().unwrap();
    let newest = rows(db.path());
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(db.path(), suffix));
    }
    let application = db.connect().unwrap();
    assert_eq!(db.sync_blocking().unwrap().action, Action::Bootstrapped);
    drop(application);
    assert_eq!(rows(db.path()), newest);
    assert_eq!(rows(&world.restored("app")), newest);
}

#[test]
fn another_database_under_the_same_name_is_refused_as_a_stranger() {
    for count in SIZES {
        for moved in [false, true] {
            for begun_anew in [false, true] {
                let case = format!("{count} rows, moved {moved}, begun anew {begun_anew}");
                let world = World::in_memory(|_| ());
                let db = world.open("app.db");
                drop(fill(&db, count));
                db.sync_blocking().unwrap();
                let newest = rows(db.path());
                let head = db.info_blocking().unwrap().head;
                let other = world.path("other.db");
                let connection = Connection::open(&other).unwrap();
                connection
                    .execute_batch("CREATE TABLE s(x, y); INSERT INTO s VALUES ('precious', zeroblob(9000))")
                    .unwrap();
                drop(connection);
                if begun_anew {
                    for suffix in ["", "-wal", "-shm"] {
                        let _ = std::fs::remove_file(beside(db.path(), suffix));
                    }
                }
                restore(if moved { Restore::MovedOver } else { Restore::CopiedOver }, &other, db.path());
                let mine = rows(db.path());
                for _ in 0..2 {
                    let result = db.sync_blocking();
                    assert!(matches!(result, Err(Error::Stranger { .. })), "{case}: {result:?}");
                    assert_eq!(db.info_blocking().unwrap().head, head, "{case}");
                    assert_eq!(rows(db.path()), mine, "{case}");
                }
                assert_eq!(rows(&world.restored("app")), newest, "{case}");
            }
        }
    }
}

const TASKS: &str = "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title TEXT, note TEXT, done INT)";

/// A small database is synced with `before` in it and put aside, `since` is synced, and the copy comes back beside what was
/// noted since; `then` is written, and the titles that everybody has after a sync are returned.
fn tasks_after_restore(before: &str, since: &str, then: &str) -> Vec<String> {
    let world = World::in_memory(|_| ());
    let db = world.open("app.db");
    let run = |sql: &str| db.connect().unwrap().execute_batch(sql).unwrap();
    run(TASKS);
    run(before);
    db.sync_blocking().unwrap();
    let backup = world.path("backup.db");
    closed_copy(db.path(), &backup);
    run(since);
    db.sync_blocking().unwrap();
    restore(Restore::MovedOver, &backup, db.path());
    run(then);
    assert_eq!(db.sync_blocking().unwrap().action, Action::Merged, "{then}");
    assert_same(db.path(), &world.restored("app"));
    assert_eq!(db.sync_blocking().unwrap().action, Action::UpToDate, "{then}");
    let connection = Connection::open(db.path()).unwrap();
    let mut statement = connection.prepare("SELECT title FROM tasks ORDER BY title").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// So much was synced since, or so much written, that the file has few of the server's rows and none of its pages.
#[test]
fn a_small_backup_beside_newer_metadata_that_was_written_to_is_merged_and_its_rows_arrive() {
    let before = "INSERT INTO tasks(title, note) VALUES ('first', 'note 1'), ('second', 'note 2'), ('third', 'note 3')";
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<40)
        INSERT INTO tasks(title, note) SELECT 'later', 'note' || i FROM n";
    let mine = "INSERT INTO tasks(title) VALUES ('mine')";
    let every_page = "UPDATE tasks SET note = 'my note'; UPDATE tasks SET title = 'other' WHERE id = 1;
        CREATE TABLE large(x); INSERT INTO large VALUES (zeroblob(9000)); INSERT INTO tasks(title) VALUES ('mine')";
    for (since, later) in [("INSERT INTO tasks(title) VALUES ('later')", 1), (many, 40)] {
        for then in [mine, every_page] {
            let titles = tasks_after_restore(before, since, then);
            let count = |title: &str| titles.iter().filter(|known| *known == title).count();
            assert_eq!(titles.len(), 3 + later + 1, "{then}: {titles:?}");
            assert_eq!((count("later"), count("mine"), count("second")), (later, 1, 1), "{then}: {titles:?}");
        }
    }
}

/// The pages say which position the backup was of, its few rows an older one. To that the server says that this very device
/// pushed since, for its name was given to it. The page sums that came back too are no way out: a file that replaced
/// another one does not go by them. Asked again and again, the sync never ended.
#[test]
fn a_small_backup_that_came_back_with_its_metadata_is_merged_at_once() {
    let world = World::in_memory(|_| ());
    let first = world.open("first.db");
    let db = world.builder("app.db").device(DeviceId(7 << 64)).open().unwrap();
    let run = |db: &Database, sql: &str| db.connect().unwrap().execute_batch(sql).unwrap();
    // A schema of several pages: what the column changes is not the first one.
    let long = "long ".repeat(60);
    let schema = format!("{TASKS}; CREATE TABLE large(x /* {long} */); CREATE TABLE other(x /* {long} */)");
    let small_pages = Connection::open(first.path()).unwrap();
    small_pages.execute_batch(&format!("PRAGMA page_size = 512; {schema}")).unwrap();
    drop(small_pages);
    first.sync_blocking().unwrap();
    db.sync_blocking().unwrap();
    run(&db, "ALTER TABLE tasks ADD COLUMN due TEXT");
    db.sync_blocking().unwrap();
    let backup = world.path("backup.db");
    closed_copy(db.path(), &backup);
    let beside_it = ["-info", "-sums"].map(|suffix| std::fs::read(beside(db.path(), suffix)).unwrap());
    first.sync_blocking().unwrap();
    run(&first, "INSERT INTO other VALUES ('theirs')");
    first.sync_blocking().unwrap();
    restore(Restore::MovedOver, &backup, db.path());
    for (suffix, bytes) in ["-info", "-sums"].into_iter().zip(beside_it) {
        std::fs::write(beside(db.path(), suffix), bytes).unwrap();
    }
    run(&db, "INSERT INTO large VALUES (hex(randomblob(3000)))");
    assert_eq!(db.sync_blocking().unwrap().action, Action::Merged);
    assert_same(db.path(), &world.restored("app"));
    let counts =
        "SELECT (SELECT count(*) FROM large), (SELECT count(*) FROM other), (SELECT count(due) FROM tasks)";
    let found: (i64, i64, i64) = db
        .connect()
        .unwrap()
        .query_row(counts, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    assert_eq!(found, (1, 1, 0), "both rows, and the column");
}

/// Somebody misses what the backup did not have, and types some of it in again.
#[test]
fn a_row_that_a_restored_backup_never_had_is_not_deleted_by_rows_that_were_typed_in_again() {
    let titles = tasks_after_restore(
        "INSERT INTO tasks(title, note) VALUES ('first', 'note 1'), ('second', 'note 2')",
        "INSERT INTO tasks(title, note) VALUES ('milk', 'oat'), ('tea', 'green'), ('bread', 'rye'), ('jam', 'plum')",
        "UPDATE tasks SET note = 'my note'; CREATE TABLE large(x); INSERT INTO large VALUES (zeroblob(9000));
         INSERT INTO tasks(title, note) VALUES ('milk', 'oat'), ('tea', 'green'), ('bread', 'rye')",
    );
    for title in ["first", "second", "milk", "tea", "bread", "jam"] {
        assert!(titles.iter().any(|known| known == title), "{title} is gone: {titles:?}");
    }
}

/// Each change of a full-text table adds one part to its index, and the parts are named alike whatever is in them. They are no
/// sign that the copy ever had the rows that came with such a part.
#[test]
fn texts_that_a_restored_backup_never_had_are_not_deleted_by_texts_that_were_written_since() {
    let world = World::in_memory(|_| ());
    let db = world.builder("app.db").device(DeviceId(7 << 64)).open().unwrap();
    let run = |sql: &str| db.connect().unwrap().execute_batch(sql).unwrap();
    let small_pages = Connection::open(db.path()).unwrap();
    small_pages.execute_batch("PRAGMA page_size = 1024; CREATE VIRTUAL TABLE docs USING fts5(text)").unwrap();
    drop(small_pages);
    run("INSERT INTO docs VALUES ('first'), ('second')");
    db.sync_blocking().unwrap();
    let backup = world.path("backup.db");
    closed_copy(db.path(), &backup);
    let beside_it = ["-info", "-sums"].map(|suffix| std::fs::read(beside(db.path(), suffix)).unwrap());
    run("INSERT INTO docs VALUES ('third'), ('fourth')");
    db.sync_blocking().unwrap();
    restore(Restore::MovedOver, &backup, db.path());
    for (suffix, bytes) in ["-info", "-sums"].into_iter().zip(beside_it) {
        std::fs::write(beside(db.path(), suffix), bytes).unwrap();
    }
    run("UPDATE docs SET text = 'second, changed' WHERE text = 'second'");
    assert_eq!(db.sync_blocking().unwrap().action, Action::Merged);
    let connection = Connection::open(db.path()).unwrap();
    let mut statement = connection.prepare("SELECT text FROM docs ORDER BY rowid").unwrap();
    let texts: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(texts, ["first", "second, changed", "third", "fourth"]);
}

/// The application deletes its file and begins anew, with the same tables and rows of its own.
#[test]
fn a_database_that_was_made_anew_with_the_same_tables_takes_nothing_from_the_server() {
    for empty_first in [true, false] {
        let world = World::in_memory(|_| ());
        let db = world.open("app.db");
        let run = |sql: &str| db.connect().unwrap().execute_batch(sql).unwrap();
        run(TASKS);
        if empty_first {
            db.sync_blocking().unwrap();
        }
        run(
            "INSERT INTO tasks(title, note) VALUES ('theirs 1', 'note'), ('theirs 2', 'note'), ('theirs 3', 'note')",
        );
        db.sync_blocking().unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(db.path(), suffix));
        }
        // Both exist for a moment, so that the new file is not given the old one's inode.
        let other = world.path("other.db");
        let connection = Connection::open(&other).unwrap();
        connection.execute_batch(TASKS).unwrap();
        connection
            .execute_batch("INSERT INTO tasks(title, note) VALUES ('mine 1', 'mine'), ('mine 2', 'mine')")
            .unwrap();
        drop(connection);
        std::fs::rename(&other, db.path()).unwrap();
        let mine = rows(db.path());
        match db.sync_blocking() {
            Ok(outcome) => assert_eq!(outcome.action, Action::Merged),
            Err(error) => {
                assert!(matches!(error, Error::Stranger { .. }), "{error}");
                assert_eq!(rows(db.path()), mine);
            }
        }
        let connection = Connection::open(world.restored("app")).unwrap();
        let count: i64 = connection
            .query_row("SELECT count(*) FROM tasks WHERE title LIKE 'theirs%'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 3, "begun with empty tables: {empty_first}");
    }
}

/// Both grow by as much, so that the first page of both is the same, and the inner pages of the table.
#[test]
fn a_copy_that_is_behind_and_lost_everything_beside_it_deletes_nothing_that_it_never_had() {
    let world = World::new();
    let (phone, tablet) = (world.open("phone.db"), world.open("tablet.db"));
    let add = |connection: &Connection, name: &str, count: u32| {
        connection
            .execute_batch(&format!(
                "WITH RECURSIVE n(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM n WHERE at < {count})
                 INSERT INTO log SELECT '{name} ' || at || printf('%.400c', 'x') FROM n"
            ))
            .unwrap();
    };
    for more in [5, 30] {
        let on_phone = phone.connect().unwrap();
        on_phone.execute_batch("DROP TABLE IF EXISTS log; CREATE TABLE log(text TEXT)").unwrap();
        add(&on_phone, "begin", 250);
        for db in [&phone, &tablet, &phone] {
            db.sync_blocking().unwrap();
        }
        add(&on_phone, "phone", more);
        phone.sync_blocking().unwrap();
        let on_tablet = tablet.connect().unwrap();
        add(&on_tablet, "tablet", more);
        on_tablet.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        for suffix in ["-info", "-sums"] {
            std::fs::remove_file(beside(tablet.path(), suffix)).unwrap();
        }
        world.open("tablet.db").sync_blocking().unwrap();
        for db in [&phone, &tablet, &phone] {
            db.sync_blocking().unwrap();
        }
        let count = |name: &str| -> u32 {
            let sql = "SELECT count(DISTINCT text) FROM log WHERE text LIKE ?1";
            on_phone.query_row(sql, [format!("{name} %")], |row| row.get(0)).unwrap()
        };
        assert_eq!((count("begin"), count("phone"), count("tablet")), (250, more, more));
    }
}
