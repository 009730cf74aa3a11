//! What is known to go wrong elsewhere, and goes right here.

use highwater::{Action, ConflictKind, Error};
use rusqlite::Connection;

use crate::common::{World, assert_same, rows};
use crate::{Pair, kinds, only, query};

#[test]
fn two_offline_inserts_with_the_same_id_both_live() {
    let pair = Pair::new("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)");
    for round in 0..5 {
        pair.merge(
            &format!("INSERT INTO t(x) VALUES ('phone {round}')"),
            &format!("INSERT INTO t(x) VALUES ('tablet {round}')"),
        );
    }
    assert_eq!(pair.all("SELECT count(*), count(DISTINCT x), count(DISTINCT id) FROM t"), ["10|10|10"]);
}

#[test]
fn a_row_that_violates_unique_at_the_server_wedges_nothing_and_can_be_mended_locally() {
    let pair = Pair::new("CREATE TABLE users(id TEXT PRIMARY KEY, email TEXT UNIQUE)");
    let merged = pair.merge(
        "INSERT INTO users VALUES ('a', 'ada@x')",
        "INSERT INTO users VALUES ('b', 'ada@x'), ('c', 'eve@x')",
    );
    assert_eq!(kinds(&merged), [(ConflictKind::Unique, "users")]);
    // Syncing goes on, and the row is put in with another address, from what the record has.
    pair.merge("INSERT INTO users VALUES ('d', 'd@x')", "INSERT INTO users VALUES ('e', 'e@x')");
    let mended = only(&merged).put_back().unwrap().replace("ada@x", "ada2@x");
    pair.on_tablet.execute_batch(&mended).unwrap();
    assert_eq!(pair.tablet.sync_blocking().unwrap().action, Action::Pushed);
    pair.settle();
    assert_eq!(
        pair.all("SELECT id, email FROM users ORDER BY id"),
        ["a|ada@x", "b|ada2@x", "c|eve@x", "d|d@x", "e|e@x"]
    );
}

#[test]
fn a_client_that_is_restored_from_a_backup_and_writes_on_delivers_its_rows() {
    for with_metadata in [false, true] {
        let pair = Pair::new(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000)
             INSERT INTO t(x) SELECT 'row ' || i FROM n",
        );
        let path = pair.tablet.path().to_path_buf();
        pair.on_tablet.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let backup = std::fs::read(&path).unwrap();
        let beside = |suffix: &str| path.with_extension(format!("db{suffix}"));
        let (info, sums) = (std::fs::read(beside("-info")).unwrap(), std::fs::read(beside("-sums")).unwrap());
        let Pair { world, phone, tablet, on_phone, on_tablet } = pair;
        on_tablet.execute_batch("INSERT INTO t(x) VALUES ('pushed before'), ('the disk died')").unwrap();
        tablet.sync_blocking().unwrap();
        on_phone.execute_batch("UPDATE t SET x='phone' WHERE id=5").unwrap();
        phone.sync_blocking().unwrap();
        drop((on_tablet, tablet));
        // The disk is new, and so is the file.
        for suffix in ["", "-wal", "-shm", "-info", "-sums"] {
            let _ = std::fs::remove_file(beside(suffix));
        }
        std::fs::write(&path, backup).unwrap();
        if with_metadata {
            std::fs::write(beside("-info"), info).unwrap();
            std::fs::write(beside("-sums"), sums).unwrap();
        }
        let tablet = world.open("tablet.db");
        let on_tablet = tablet.connect().unwrap();
        on_tablet
            .execute_batch(
                "INSERT INTO t(x) VALUES ('after the restore'); UPDATE t SET x='mine' WHERE id=1000",
            )
            .unwrap();
        let merged = tablet.sync_blocking().unwrap();
        assert_eq!(merged.action, Action::Merged, "with metadata: {with_metadata}");
        let pair = Pair { world, phone, tablet, on_phone, on_tablet };
        pair.settle();
        assert_eq!(
            pair.all("SELECT x FROM t WHERE id IN (5, 1000) OR id > 2000 ORDER BY x"),
            ["after the restore", "mine", "phone", "pushed before", "the disk died"],
            "with metadata: {with_metadata}"
        );
    }
}

#[test]
fn an_existing_file_that_is_given_a_remote_is_adopted_or_refused_and_never_replaced() {
    let world = World::new();
    let plain = |name: &str, sql: &str| {
        let path = world.path(name);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        path
    };
    let notes =
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT); INSERT INTO notes VALUES (1, 'precious')";
    // The server has nothing: it gets the file.
    plain("mine.db", notes);
    assert_eq!(world.open("mine.db").sync_blocking().unwrap().action, Action::Pushed);
    // The server has something else: the file stays as it is.
    let other = plain("other.db", "CREATE TABLE letters(x); INSERT INTO letters VALUES ('dear reader')");
    let before = rows(&other);
    let error = world.open("other.db").sync_blocking().unwrap_err();
    assert!(matches!(error, Error::Stranger { .. }), "{error}");
    assert_eq!(rows(&other), before);
    // A copy of the same, with something new in it, is adopted.
    let copy = world.path("copy.db");
    std::fs::copy(world.path("mine.db"), &copy).unwrap();
    let connection = Connection::open(&copy).unwrap();
    connection.execute_batch("INSERT INTO notes VALUES (2, 'new')").unwrap();
    let adopted = world.open("copy.db");
    assert_eq!(adopted.sync_blocking().unwrap().action, Action::Pushed);
    assert_eq!(query(&connection, "SELECT text FROM notes"), ["precious", "new"]);
    assert_same(&copy, &world.restored("app"));
}

#[test]
fn many_devices_that_all_wrote_end_with_the_same() {
    let pair = Pair::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT, n INT); INSERT INTO t VALUES (1, 'shared', 0)",
    );
    let devices: Vec<_> = (0..6).map(|number| pair.world.open(&format!("device-{number}.db"))).collect();
    for device in &devices {
        device.sync_blocking().unwrap();
    }
    for (number, device) in devices.iter().enumerate() {
        let connection = device.connect().unwrap();
        connection
            .execute_batch(&format!(
                "INSERT INTO t(x) VALUES ('from {number}'), ('also from {number}'); UPDATE t SET n={number} WHERE id=1"
            ))
            .unwrap();
    }
    std::thread::scope(|scope| {
        let syncs: Vec<_> =
            devices.iter().map(|device| scope.spawn(|| device.sync_blocking().unwrap())).collect();
        syncs.into_iter().for_each(|sync| drop(sync.join().unwrap()));
    });
    pair.settle();
    assert_eq!(pair.all("SELECT count(*), count(DISTINCT x) FROM t"), ["13|13"]);
    for device in &devices {
        device.sync_blocking().unwrap();
        assert_same(device.path(), pair.phone.path());
    }
}
