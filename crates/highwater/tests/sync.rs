//! The everyday promises of a sync, with a real server on a real socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "tests write files as any program would")]

mod common;

use common::{World, assert_same, fill, insert, rows};
use highwater::{Action, Error, ErrorKind};

#[test]
fn what_one_copy_writes_another_reads() {
    let world = World::new();
    let phone = world.open("phone.db");
    let connection = fill(&phone, 10);
    let outcome = phone.sync_blocking().unwrap();
    assert_eq!(outcome.action, Action::Pushed);
    assert_eq!(outcome.requests, 1, "a small first push takes one request");

    let laptop = world.open("laptop.db");
    let outcome = laptop.sync_blocking().unwrap();
    assert_eq!(outcome.action, Action::Bootstrapped);
    assert_same(phone.path(), laptop.path());

    insert(&connection, 5);
    assert_eq!(phone.sync_blocking().unwrap().action, Action::Pushed);
    let outcome = laptop.sync_blocking().unwrap();
    assert_eq!((outcome.action, outcome.requests), (Action::Pulled, 1));
    assert_same(phone.path(), laptop.path());
    assert_eq!(laptop.sync_blocking().unwrap().action, Action::UpToDate);
    assert_eq!(phone.sync_blocking().unwrap().action, Action::UpToDate);
}

#[test]
fn both_directions_take_turns() {
    let world = World::new();
    let (a, b) = (world.open("a.db"), world.open("b.db"));
    let on_a = fill(&a, 3);
    a.sync_blocking().unwrap();
    b.sync_blocking().unwrap();
    let on_b = b.connect().unwrap();
    for round in 0..20 {
        let (writer, here, there) = if round % 2 == 0 { (&on_a, &a, &b) } else { (&on_b, &b, &a) };
        insert(writer, round + 1);
        if round % 5 == 4 {
            writer.execute_batch("DELETE FROM t WHERE id % 2; VACUUM").unwrap();
        }
        assert_eq!(here.sync_blocking().unwrap().action, Action::Pushed, "round {round}");
        assert_eq!(there.sync_blocking().unwrap().action, Action::Pulled, "round {round}");
        assert_same(a.path(), b.path());
    }
    assert_same(a.path(), &world.restored("app"));
}

#[test]
fn only_what_the_server_lacks_crosses_the_wire() {
    let world = World::new();
    let db = world.open("app.db");
    let connection = fill(&db, 1);
    db.sync_blocking().unwrap();
    for number in 0..1000 {
        connection
            .execute("INSERT INTO t(text) VALUES (?1)", [format!("one-row transaction {number}")])
            .unwrap();
    }
    let outcome = db.sync_blocking().unwrap();
    assert_eq!((outcome.action, outcome.requests), (Action::Pushed, 1));
    assert!(outcome.pushed.bytes <= 60_000, "{} bytes for 1,000 one-row transactions", outcome.pushed.bytes);
    assert!(outcome.pushed.frames <= 15, "only the last image of each page: {}", outcome.pushed.frames);
    let idle = db.sync_blocking().unwrap();
    assert_eq!((idle.action, idle.requests), (Action::UpToDate, 1));
    assert_eq!((idle.pushed.frames, idle.pulled.frames, idle.pushed.bytes), (0, 0, 0));
}

#[test]
fn a_closed_application_and_a_foreign_checkpoint_change_nothing() {
    let world = World::new();
    let db = world.open("app.db");
    drop(fill(&db, 100));
    assert_eq!(db.sync_blocking().unwrap().action, Action::Pushed);
    assert_eq!(db.sync_blocking().unwrap().action, Action::UpToDate);
    // Opened, written and closed by another program: the log is gone, the pages are in the file.
    let plain = rusqlite::Connection::open(db.path()).unwrap();
    insert(&plain, 7);
    drop(plain);
    assert!(!world.path("app.db-wal").exists());
    let outcome = db.sync_blocking().unwrap();
    assert_eq!(outcome.action, Action::Pushed);
    assert!(outcome.pushed.frames < 5, "{outcome:?}");
    let plain = rusqlite::Connection::open(db.path()).unwrap();
    insert(&plain, 7);
    plain.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    assert_eq!(db.sync_blocking().unwrap().action, Action::Pushed);
    assert_same(db.path(), &world.restored("app"));
}

#[test]
fn offline_is_a_state_and_not_a_failure() {
    let mut world = World::new();
    let db = world.open("app.db");
    let connection = fill(&db, 2);
    db.sync_blocking().unwrap();
    world.stop_server();
    insert(&connection, 3);
    let error = db.sync_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Offline);
    assert!(error.to_string().contains("local work goes on"), "{error}");
    insert(&connection, 4);
    world.start_server();
    assert_eq!(db.sync_blocking().unwrap().action, Action::Pushed);
    assert_same(db.path(), &world.restored("app"));
}

#[test]
fn the_second_writer_is_told_if_it_wants_to_be_and_loses_nothing() {
    let world = World::new();
    let b = world.builder("b.db").merge_policy(highwater::MergePolicy::Fail).open().unwrap();
    let a = world.open("a.db");
    let on_a = fill(&a, 3);
    on_a.execute_batch("CREATE TABLE other(x)").unwrap();
    a.sync_blocking().unwrap();
    b.sync_blocking().unwrap();
    let on_b = b.connect().unwrap();
    on_a.execute_batch("UPDATE t SET text='theirs' WHERE id=1").unwrap();
    on_b.execute_batch("UPDATE t SET text='mine' WHERE id=1; INSERT INTO other VALUES(1)").unwrap();
    a.sync_blocking().unwrap();
    let before = rows(b.path());
    let head = a.info_blocking().unwrap().head;
    for attempt in 0..3 {
        let error = b.sync_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let Error::Conflict { detail, .. } = &error else { panic!("{error}") };
        assert_eq!(detail.both_tables, ["t"], "attempt {attempt}");
        assert_eq!(detail.local_tables, ["other", "t"]);
        let text = error.to_string();
        assert!(text.contains("t id = 1 in text") && text.contains("last-push-wins"), "{text}");
        assert_eq!(rows(b.path()), before);
        assert_eq!(b.info_blocking().unwrap().head, head, "nothing was pushed");
        // Local work goes on.
        insert(&on_b, 1);
        on_b.execute("DELETE FROM t WHERE id=(SELECT max(id) FROM t)", []).unwrap();
    }
}

#[test]
fn a_stranger_is_refused_and_not_touched() {
    let world = World::new();
    let first = world.open("first.db");
    fill(&first, 50);
    first.sync_blocking().unwrap();
    let path = world.path("second.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE mine(x); INSERT INTO mine VALUES('precious')").unwrap();
    drop(other);
    let before = std::fs::read(&path).unwrap();
    let second = world.open("second.db");
    let error = second.sync_blocking().unwrap_err();
    assert!(matches!(error, Error::Stranger { .. }), "{error}");
    assert!(error.to_string().contains("highwater clone"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(matches!(second.clone_blocking().unwrap_err(), Error::Exists { .. }));
}

#[test]
fn a_copied_file_without_metadata_is_recognised_by_its_content() {
    let world = World::new();
    let first = world.open("first.db");
    let connection = fill(&first, 50);
    first.sync_blocking().unwrap();
    connection.execute("VACUUM INTO ?1", [world.path("export.db").to_str().unwrap()]).unwrap();
    drop(connection);
    std::fs::copy(first.path(), world.path("copy.db")).unwrap();
    let copy = world.open("copy.db");
    assert_eq!(copy.sync_blocking().unwrap().action, Action::UpToDate);
    insert(&copy.connect().unwrap(), 3);
    assert_eq!(copy.sync_blocking().unwrap().action, Action::Pushed);
    assert_eq!(first.sync_blocking().unwrap().action, Action::Pulled);
    assert_same(first.path(), copy.path());
}

#[test]
fn a_restored_backup_is_pulled_forward() {
    let world = World::new();
    let db = world.open("app.db");
    drop(fill(&db, 50));
    db.sync_blocking().unwrap();
    let backup = std::fs::read(db.path()).unwrap();
    insert(&db.connect().unwrap(), 500);
    db.sync_blocking().unwrap();
    let newest = rows(db.path());
    for name in ["app.db-wal", "app.db-shm"] {
        let _ = std::fs::remove_file(world.path(name));
    }
    std::fs::write(db.path(), backup).unwrap();
    let outcome = db.sync_blocking().unwrap();
    assert_eq!(outcome.action, Action::Pulled);
    assert_eq!(outcome.pushed.frames, 0, "nothing is pushed back in time");
    assert_eq!(rows(db.path()), newest);
}

#[test]
fn an_empty_database_becomes_the_servers_while_it_is_open() {
    let world = World::new();
    let full = world.open("full.db");
    fill(&full, 30);
    full.sync_blocking().unwrap();
    let empty = world.open("empty.db");
    let connection = empty.connect().unwrap();
    assert_eq!(empty.sync_blocking().unwrap().action, Action::Bootstrapped);
    let count: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 30, "the open connection sees it");
    assert_same(full.path(), empty.path());
    assert_eq!(empty.sync_blocking().unwrap().action, Action::UpToDate);
}

#[test]
fn there_may_be_nothing_yet_on_either_side() {
    let world = World::new();
    let db = world.open("app.db");
    assert_eq!(db.sync_blocking().unwrap().action, Action::NothingYet);
    let _connection = db.connect().unwrap();
    assert_eq!(db.sync_blocking().unwrap().action, Action::NothingYet);
    assert!(matches!(db.info_blocking().unwrap_err(), Error::UnknownDatabase { .. }));
}

#[test]
fn another_url_is_an_error_that_names_both() {
    let world = World::new();
    let db = world.open("app.db");
    fill(&db, 1);
    db.sync_blocking().unwrap();
    let elsewhere = world.builder("app.db").remote(world.url("other")).open().unwrap();
    let error = elsewhere.sync_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let text = error.to_string();
    assert!(text.contains(&world.url("app")) && text.contains(&world.url("other")), "{text}");
    assert!(text.contains("--switch-remote"), "{text}");
    let switched = world.builder("app.db").remote(world.url("other")).switch_remote(true).open().unwrap();
    assert_eq!(switched.sync_blocking().unwrap().action, Action::Pushed);
    // Remembered from now on.
    let again = highwater::Database::open(world.path("app.db")).unwrap();
    assert_eq!(again.remote(), Some(world.url("other")));
    assert_eq!(again.sync_blocking().unwrap().action, Action::UpToDate);
}

#[test]
fn push_and_pull_each_do_their_half() {
    let world = World::new();
    let (a, b) = (world.open("a.db"), world.open("b.db"));
    let on_a = fill(&a, 3);
    assert_eq!(a.push_blocking().unwrap().action, Action::Pushed);
    assert_eq!(b.pull_blocking().unwrap().action, Action::Bootstrapped);
    insert(&on_a, 1);
    let idle = a.pull_blocking().unwrap();
    assert_eq!((idle.action, idle.pushed.frames), (Action::UpToDate, 0));
    assert_eq!(a.push_blocking().unwrap().action, Action::Pushed);
    assert_eq!(b.push_blocking().unwrap().action, Action::UpToDate);
    assert_ne!(rows(a.path()), rows(b.path()));
    assert_eq!(b.pull_blocking().unwrap().action, Action::Pulled);
    assert_same(a.path(), b.path());
}

#[test]
fn the_status_needs_no_server() {
    let mut world = World::new();
    let db = world.open("app.db");
    let connection = fill(&db, 3);
    assert_eq!(db.status().unwrap().base, None);
    db.sync_blocking().unwrap();
    world.stop_server();
    assert_eq!(db.status().unwrap().unpushed_pages, Some(0));
    insert(&connection, 3);
    let status = db.status().unwrap();
    assert_eq!(status.unpushed_pages, Some(1));
    assert_eq!(status.remote, Some(world.url("app")));
}

#[test]
fn a_server_that_lost_the_database_is_no_reason_to_make_it_anew_silently() {
    let mut world = World::new();
    let db = world.open("app.db");
    fill(&db, 3);
    db.sync_blocking().unwrap();
    world.stop_server();
    std::fs::remove_dir_all(world.path("store")).unwrap();
    world.start_server();
    let error = db.sync_blocking().unwrap_err();
    assert!(matches!(error, Error::Gone { .. }) && error.to_string().contains("--forget"), "{error}");
    let again = world.builder("app.db").forget(true).open().unwrap();
    assert_eq!(again.sync_blocking().unwrap().action, Action::Pushed);
}

#[tokio::test]
async fn the_asynchronous_calls_do_the_same_inside_a_runtime() {
    let world = World::new();
    let (a, b) = (world.open("a.db"), world.open("b.db"));
    fill(&a, 3);
    assert_eq!(a.sync().await.unwrap().action, Action::Pushed);
    assert_eq!(b.clone_remote().await.unwrap().action, Action::Bootstrapped);
    // Blocking calls do not panic inside a runtime either.
    assert_eq!(b.sync_blocking().unwrap().action, Action::UpToDate);
}

#[test]
fn the_log_of_a_copy_that_only_receives_stays_bounded() {
    let world = World::new();
    let (writer, reader) = (world.open("writer.db"), world.open("reader.db"));
    let connection = fill(&writer, 1000);
    writer.sync_blocking().unwrap();
    reader.sync_blocking().unwrap();
    // An application that only reads, and never closes.
    let watching = reader.connect().unwrap();
    let mut largest = 0;
    for round in 0..12 {
        connection.execute("UPDATE t SET text = text || ?1", [format!("{round:0>200}")]).unwrap();
        writer.sync_blocking().unwrap();
        assert_eq!(reader.sync_blocking().unwrap().action, Action::Pulled);
        let count: i64 = watching.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1000);
        largest = largest.max(reader.status().unwrap().wal_bytes);
    }
    assert_same(writer.path(), reader.path());
    let size = std::fs::metadata(reader.path()).unwrap().len();
    assert!(largest < 8 << 20, "a log of {largest} bytes for a database of {size}");
}

#[test]
fn a_copy_of_nothing_leaves_nothing_behind() {
    let world = World::new();
    let error = world.open("app.db").clone_blocking().unwrap_err();
    assert!(matches!(error, Error::UnknownDatabase { .. }), "{error}");
    let left: Vec<_> =
        std::fs::read_dir(world.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "store"), "{left:?}");
}

#[test]
fn a_value_that_is_set_back_is_a_change_and_not_an_older_copy() {
    let world = World::new();
    let db = world.open("app.db");
    let run = |sql: &str| rusqlite::Connection::open(db.path()).unwrap().execute_batch(sql).unwrap();
    drop(fill(&db, 20));
    run("CREATE TABLE s(k PRIMARY KEY, v); CREATE TABLE n(x); INSERT INTO s VALUES('done', 0)");
    db.sync_blocking().unwrap();
    let value = || -> i64 {
        rusqlite::Connection::open(db.path())
            .unwrap()
            .query_row("SELECT v FROM s", [], |row| row.get(0))
            .unwrap()
    };
    // Every connection is closed in between, so no log tells what changed.
    for (number, extra) in ["", "; INSERT INTO n VALUES(1)"].into_iter().enumerate() {
        run("UPDATE s SET v = 1");
        assert_eq!(db.sync_blocking().unwrap().action, Action::Pushed);
        run(&format!("UPDATE s SET v = 0{extra}"));
        assert_eq!(db.sync_blocking().unwrap().action, Action::Pushed, "round {number}");
        assert_eq!(value(), 0);
        assert_same(db.path(), &world.restored("app"));
    }
}

#[test]
fn a_log_that_was_left_behind_is_not_played_into_a_new_copy() {
    let world = World::new();
    let (writer, reader) = (world.open("writer.db"), world.open("reader.db"));
    let connection = fill(&writer, 20);
    writer.sync_blocking().unwrap();
    reader.sync_blocking().unwrap();
    connection.execute("UPDATE t SET text = 'old'", []).unwrap();
    writer.sync_blocking().unwrap();
    reader.sync_blocking().unwrap();
    assert!(std::fs::metadata(world.path("reader.db-wal")).unwrap().len() > 0);
    connection.execute("UPDATE t SET text = 'new'", []).unwrap();
    writer.sync_blocking().unwrap();
    std::fs::remove_file(reader.path()).unwrap();
    assert_eq!(reader.sync_blocking().unwrap().action, Action::Bootstrapped);
    assert_same(writer.path(), reader.path());
    assert_eq!(reader.sync_blocking().unwrap().action, Action::UpToDate);
    std::fs::write(world.path("out.db-wal"), b"something").unwrap();
    let error = reader
        .on_server()
        .unwrap()
        .restore_blocking(&world.path("out.db"), highwater::At::Head, |_| ())
        .unwrap_err();
    assert!(matches!(&error, Error::Exists { path } if path.ends_with("out.db-wal")), "{error}");
}

#[test]
fn a_push_that_never_left_makes_nobody_elses_change_ones_own() {
    let mut world = World::new();
    let (a, b) = (world.open("a.db"), world.open("b.db"));
    let on_a = fill(&a, 3);
    a.sync_blocking().unwrap();
    b.sync_blocking().unwrap();
    world.stop_server();
    on_a.execute("INSERT INTO t VALUES(50, 'milk')", []).unwrap();
    assert_eq!(a.sync_blocking().unwrap_err().kind(), ErrorKind::Offline);
    on_a.execute("DELETE FROM t WHERE id = 50", []).unwrap();
    world.start_server();
    b.connect().unwrap().execute("INSERT INTO t VALUES(50, 'milk')", []).unwrap();
    b.sync_blocking().unwrap();
    // Whatever becomes of the first device: the second one's row stays.
    let _ = a.sync_blocking();
    b.sync_blocking().unwrap();
    for path in [b.path().to_path_buf(), world.restored("app")] {
        let connection = rusqlite::Connection::open(path).unwrap();
        let count = "SELECT count(*) FROM t WHERE text = 'milk'";
        assert_eq!(connection.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    }
}

#[test]
fn a_pull_never_sends_anything() {
    let world = World::new();
    let db = world.open("app.db");
    let connection = fill(&db, 3);
    assert_eq!(db.pull_blocking().unwrap().action, Action::NothingYet);
    assert!(matches!(db.info_blocking().unwrap_err(), Error::UnknownDatabase { .. }));
    db.sync_blocking().unwrap();
    let other = world.open("other.db");
    other.sync_blocking().unwrap();
    insert(&other.connect().unwrap(), 1);
    other.sync_blocking().unwrap();
    insert(&connection, 1);
    let error = db.pull_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}
