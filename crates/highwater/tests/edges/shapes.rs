//! Databases of every shape: page sizes, vacuum modes, kinds of tables, encodings, and next to
//! nothing at all.

use highwater::{Action, PageSize};
use rusqlite::Connection;

use crate::common::{World, assert_same, rows};
use crate::support::{Pair, builder};

/// Sixty rows of text and, in every fifteenth, a blob with overflow pages.
const GROW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60) \
    INSERT INTO t(text, data) SELECT 'row ' || i, randomblob(CASE i%15 WHEN 0 THEN 3*(SELECT page_size FROM pragma_page_size) ELSE 9 END) FROM n;";

#[test]
fn every_page_size_and_vacuum_mode_grows_shrinks_and_restores() {
    let world = World::new();
    for size in (9..=16).map(|power| 1_u32 << power) {
        for (mode, shrink) in
            [("NONE", "VACUUM"), ("FULL", "SELECT 1"), ("INCREMENTAL", "PRAGMA incremental_vacuum")]
        {
            let pair = Pair::new(&world, &format!("size-{size}-{}", mode.to_lowercase()));
            let setup = format!(
                "PRAGMA page_size={size}; PRAGMA auto_vacuum={mode}; PRAGMA journal_mode=WAL; \
                CREATE TABLE t(id INTEGER PRIMARY KEY, text, data); CREATE INDEX i ON t(text);"
            );
            let on_a = Connection::open(pair.a.path()).unwrap();
            on_a.execute_batch(&setup).unwrap();
            on_a.execute_batch(GROW).unwrap();
            pair.sync();
            on_a.execute_batch(GROW).unwrap();
            pair.sync();
            let before = pages(&on_a);
            on_a.execute("DELETE FROM t WHERE id > 7", []).unwrap();
            // Stepped to its end: each step of an incremental vacuum frees one page.
            let mut statement = on_a.prepare(shrink).unwrap();
            let mut steps = statement.query([]).unwrap();
            while steps.next().unwrap().is_some() {}
            drop(steps);
            drop(statement);
            assert!(pages(&on_a) * 3 < before * 2, "{}: {before} pages became {}", pair.name, pages(&on_a));
            pair.sync();
            // The freed pages come back with other content.
            on_a.execute_batch(GROW).unwrap();
            pair.sync();
            let on_b = Connection::open(pair.b.path()).unwrap();
            on_b.execute_batch("DELETE FROM t WHERE id % 2").unwrap();
            assert_eq!(pair.b.sync_blocking().unwrap().action, Action::Pushed);
            assert_eq!(pair.a.sync_blocking().unwrap().action, Action::Pulled);
            let restored = world.restored(&pair.name);
            assert_same(pair.a.path(), pair.b.path());
            assert_same(pair.a.path(), &restored);
            let info = pair.a.info_blocking().unwrap();
            assert_eq!(info.page_size, size);
            let restored = Connection::open(restored).unwrap();
            let kept: u32 = restored.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).unwrap();
            assert_eq!(kept, ["NONE", "FULL", "INCREMENTAL"].iter().position(|m| *m == mode).unwrap() as u32);
        }
    }
}

fn pages(connection: &Connection) -> u32 {
    connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
}

#[test]
fn every_kind_of_table_arrives_whole() {
    let world = World::new();
    let pair = Pair::new(&world, "kinds");
    let on_a = pair.a.connect().unwrap();
    on_a.execute_batch(
        "CREATE VIRTUAL TABLE words USING fts5(title, body, tokenize='unicode61');
         CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, y0, y1);
         CREATE TABLE pairs(a TEXT, b INT, c, PRIMARY KEY(a, b)) WITHOUT ROWID;
         CREATE TABLE strict(id INTEGER PRIMARY KEY, n INT NOT NULL CHECK(n > 0)) STRICT;
         CREATE TABLE derived(n INT, twice INT GENERATED ALWAYS AS (n*2) STORED, thrice INT AS (n*3) VIRTUAL);
         CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, x);
         CREATE TABLE log(what); CREATE INDEX partial ON derived(n) WHERE n > 5; CREATE INDEX expr ON derived(n % 7);
         CREATE VIEW both AS SELECT a, n FROM pairs JOIN derived ON pairs.b = derived.n;
         CREATE TRIGGER noted AFTER INSERT ON derived BEGIN INSERT INTO log VALUES('n=' || new.n); END;
         PRAGMA user_version=77; PRAGMA application_id=0x4857;",
    )
    .unwrap();
    for round in 0..4_u32 {
        on_a.execute_batch(&format!(
            "WITH RECURSIVE n(i) AS (SELECT {round}*50 UNION ALL SELECT i+1 FROM n WHERE i<{round}*50+49)
             INSERT INTO words SELECT 'title ' || i, 'the quick número ' || (i*i) || ' jumps' FROM n;
             INSERT INTO places SELECT NULL, i, i+1, -i, -i+1 FROM (SELECT 1+value AS i FROM json_each('[{round},7,9]'));
             INSERT INTO pairs VALUES('k{round}', {round}, randomblob(20000)), ('k', {round}, zeroblob(9));
             INSERT INTO derived(n) VALUES({round}), ({round}+10); INSERT INTO counted(x) VALUES(1.5), (NULL), ('{round}');
             INSERT INTO strict(n) VALUES({round}+1); DELETE FROM counted WHERE id % 2;"
        ))
        .unwrap();
        if round == 2 {
            on_a.execute_batch("INSERT INTO words(words) VALUES('optimize'); DELETE FROM words WHERE rowid < 20; ANALYZE; VACUUM").unwrap();
        }
        pair.sync();
    }
    let on_b = pair.b.connect().unwrap();
    let one = |sql: &str| on_b.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(one("SELECT count(*) FROM words WHERE words MATCH 'numero AND quick'"), 181);
    assert_eq!(one("SELECT count(*) FROM places WHERE x0 >= 8"), 8);
    assert_eq!(one("SELECT sum(twice) + sum(thrice) FROM derived"), 5 * (6 + 46));
    assert_eq!(one("SELECT count(*) FROM both"), 8);
    assert_eq!(one("SELECT count(*) FROM log"), 8);
    assert_eq!((one("PRAGMA user_version"), one("PRAGMA application_id")), (77, 0x4857));
    // The index structures are sound too, and the second copy writes through them.
    on_b.execute_batch("INSERT INTO words(words) VALUES('integrity-check'); INSERT INTO derived(n) VALUES(99); INSERT INTO counted(x) VALUES('b')").unwrap();
    pair.b.sync_blocking().unwrap();
    pair.a.sync_blocking().unwrap();
    assert_same(pair.a.path(), pair.b.path());
    assert_same(pair.a.path(), &world.restored("kinds"));
}

#[test]
fn every_text_encoding_arrives() {
    let world = World::new();
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let pair = Pair::new(&world, &encoding.to_lowercase());
        let on_a = Connection::open(pair.a.path()).unwrap();
        on_a.execute_batch(&format!("PRAGMA encoding='{encoding}'; PRAGMA journal_mode=WAL; CREATE TABLE t(x TEXT); INSERT INTO t VALUES('grüße, 日本, 🌊')")).unwrap();
        pair.sync();
        let on_b = Connection::open(pair.b.path()).unwrap();
        let (found, text): (String, String) = on_b
            .query_row("SELECT (SELECT * FROM pragma_encoding), x FROM t", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!((found.as_str(), text.as_str()), (encoding, "grüße, 日本, 🌊"));
        // Into an existing blank file of another encoding, too.
        let blank =
            builder(&world.path(&format!("{encoding}-blank.db")), &world.url(&pair.name)).open().unwrap();
        let open = blank.connect().unwrap();
        assert_eq!(blank.sync_blocking().unwrap().action, Action::Bootstrapped);
        drop(open);
        assert_same(pair.a.path(), blank.path());
    }
}

#[test]
fn a_blob_of_many_overflow_pages_changes_in_place() {
    let world = World::new();
    let pair = Pair::new(&world, "blobs");
    let on_a = pair.a.connect().unwrap();
    on_a.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB); INSERT INTO t VALUES(1, randomblob(5000000)), (2, zeroblob(3000000))").unwrap();
    pair.sync();
    let piece = "UPDATE t SET data = CAST(substr(data, 1, 2500000) || 'another page now' || substr(data, 2500017) AS BLOB) WHERE id=1";
    on_a.execute_batch(piece).unwrap();
    let outcome = pair.a.sync_blocking().unwrap();
    assert!(outcome.pushed.frames <= 2, "{outcome:?}");
    pair.b.sync_blocking().unwrap();
    on_a.execute_batch("UPDATE t SET data = substr(data, 1, 10) WHERE id=1").unwrap();
    pair.sync();
    assert_same(pair.a.path(), &world.restored("blobs"));
}

#[test]
fn an_empty_file_is_a_database_without_pages() {
    let world = World::new();
    for (name, bytes) in [("zero", &b""[..]), ("one", b"x")] {
        // SQLite takes a file of one byte for an empty one, too.
        let path = world.path(&format!("{name}.db"));
        std::fs::write(&path, bytes).unwrap();
        let database = builder(&path, &world.url(name)).open().unwrap();
        assert_eq!(database.sync_blocking().unwrap().action, Action::NothingYet);
        assert_eq!(database.push_blocking().unwrap().action, Action::NothingYet);
        assert_eq!(database.pull_blocking().unwrap().action, Action::NothingYet);
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing to write yet");
        let status = database.status().unwrap();
        assert!(status.exists && status.base.is_none() && status.page_count.0 == 0, "{status:?}");
        // The server's database goes into it.
        let full = builder(&world.path(&format!("{name}-full.db")), &world.url(name)).open().unwrap();
        full.connect().unwrap().execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(1)").unwrap();
        assert_eq!(full.sync_blocking().unwrap().action, Action::Pushed);
        assert_eq!(database.sync_blocking().unwrap().action, Action::Bootstrapped);
        assert_same(database.path(), full.path());
    }
}

#[test]
fn a_database_of_one_page_syncs_in_both_directions() {
    let world = World::new();
    let pair = Pair::new(&world, "one-page");
    let on_a = pair.a.connect().unwrap();
    on_a.execute_batch("PRAGMA user_version=5").unwrap();
    assert_eq!(pages(&on_a), 1);
    pair.sync();
    let version = |path| {
        Connection::open(path)
            .unwrap()
            .query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))
            .unwrap()
    };
    assert_eq!(version(pair.b.path()), 5);
    on_a.execute_batch("CREATE TABLE t(x); INSERT INTO t SELECT randomblob(900) FROM pragma_function_list")
        .unwrap();
    pair.sync();
    // Everything is dropped again: from many pages to one.
    on_a.execute_batch("DROP TABLE t; VACUUM").unwrap();
    assert_eq!(pages(&on_a), 1);
    pair.sync();
    assert_eq!(rows(pair.b.path()), Vec::<String>::new());
    let on_b = pair.b.connect().unwrap();
    on_b.execute_batch("CREATE TABLE u(x); INSERT INTO u VALUES('from b')").unwrap();
    pair.b.sync_blocking().unwrap();
    pair.a.sync_blocking().unwrap();
    assert_same(pair.a.path(), pair.b.path());
    let third = builder(&world.path("third.db"), &world.url("one-page")).open().unwrap();
    assert_eq!(third.sync_blocking().unwrap().action, Action::Bootstrapped);
    assert_same(third.path(), &world.restored("one-page"));
}

#[test]
fn a_blank_file_of_another_page_size_takes_the_servers() {
    let world = World::new();
    let full = builder(&world.path("full.db"), &world.url("app"))
        .page_size(PageSize::new(1024).unwrap())
        .open()
        .unwrap();
    full.connect()
        .unwrap()
        .execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(5000))")
        .unwrap();
    full.sync_blocking().unwrap();
    // Nobody has it open: converted. Somebody has: an error that says so, and then it works.
    let closed = builder(&world.path("closed.db"), &world.url("app")).open().unwrap();
    drop(closed.connect().unwrap());
    assert_eq!(closed.sync_blocking().unwrap().action, Action::Bootstrapped);
    assert_same(closed.path(), full.path());
    let open = builder(&world.path("open.db"), &world.url("app")).open().unwrap();
    let connection = open.connect().unwrap();
    let _: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    match open.sync_blocking() {
        Ok(outcome) => assert_eq!(outcome.action, Action::Bootstrapped),
        Err(error) => {
            crate::support::says(&error, &[&"open.db", &"4096", &"1024", &"close it"]);
            drop(connection);
            assert_eq!(open.sync_blocking().unwrap().action, Action::Bootstrapped);
        }
    }
    assert_same(open.path(), full.path());
    // A file with content of its own cannot be converted.
    let other = builder(&world.path("other.db"), &world.url("app")).open().unwrap();
    other
        .connect()
        .unwrap()
        .execute_batch("CREATE TABLE mine(x); INSERT INTO mine VALUES('precious')")
        .unwrap();
    let before = rows(other.path());
    let error = other.sync_blocking().unwrap_err();
    crate::support::says(&error, &[&"other.db", &"4096", &"1024", &"page_size=1024"]);
    assert_eq!(rows(other.path()), before);
}
