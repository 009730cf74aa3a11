//! What a merge costs follows the change, not the size of the database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_methods, unreachable_pub, dead_code)]

mod common;

use common::Scene;
use highwater_merge::{Merged, Options};

/// Pages read, and pages in the database.
fn cost(rows: u32) -> (u64, u64) {
    let base = format!(
        "CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, mail TEXT UNIQUE);
         CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer(id), what TEXT);
         CREATE INDEX of_customer ON orders(customer);
         CREATE TABLE setting(name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
         CREATE TABLE log(what TEXT, n INTEGER);
         WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM c WHERE n < {rows})
         INSERT INTO customer SELECT n, 'a name of ' || n, 'mail' || n FROM c;
         INSERT INTO orders SELECT id, id, hex(zeroblob(90)) FROM customer;
         INSERT INTO setting SELECT mail, hex(zeroblob(50)) FROM customer;
         INSERT INTO log SELECT name, id FROM customer;"
    );
    // A hundred rows of each side, at the same distances from each other in every database.
    let change = |who: &str, first: u32| -> String {
        let statement = |at: u32| {
            let id = first + at * (rows / 50);
            format!(
                "UPDATE customer SET name = '{who}' WHERE id = {id}; UPDATE setting SET value = '{who}' WHERE name = 'mail{id}';
                 UPDATE log SET what = '{who}' WHERE rowid = {id}; INSERT INTO orders(customer, what) VALUES ({id}, '{who}');"
            )
        };
        (0..25).map(statement).collect()
    };
    let delete = "INSERT INTO customer VALUES (9000000, 'short', 'lived'); ";
    let scene = Scene::new(&base, &(delete.to_owned() + &change("l", 10)), &change("h", 20));
    let pages = u64::from(highwater_pages::owners::PageSource::page_count(&scene.base).0);
    let Merged::Done(merge) = scene.merged(&Options::default()) else { panic!("not merged") };
    assert!(merge.conflicts.iter().all(|conflict| conflict.table == "orders"), "{:?}", merge.conflicts);
    assert_eq!(merge.counts.inserted + merge.counts.updated, 101);
    (merge.pages_read, pages)
}

#[test]
fn a_database_that_is_twenty_times_as_large_costs_less_than_three_times_as_much() {
    let (small, small_pages) = cost(3_000);
    let (large, large_pages) = cost(60_000);
    assert!(large_pages > 15 * small_pages, "{small_pages} and {large_pages} pages");
    assert!(large < 3 * small, "{small} of {small_pages} pages read, {large} of {large_pages}");
}

#[test]
fn deleted_parents_do_not_read_all_children_that_no_index_finds() {
    let pages_read = |rows: u32, head: &str| {
        let base = format!(
            "CREATE TABLE p(id INTEGER PRIMARY KEY, v); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id), v);
             WITH RECURSIVE n(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
             INSERT INTO p SELECT n, 'p' FROM n; INSERT INTO c SELECT id + 200, id, hex(zeroblob(200)) FROM p WHERE id > 200;"
        );
        let local =
            "DELETE FROM p WHERE id < 100; DELETE FROM c WHERE p = 300; DELETE FROM p WHERE id = 300;";
        let result = Scene::new(&base, local, head).done(&Options::default());
        assert_eq!(result.rows("SELECT count(*) FROM pragma_foreign_key_check"), ["0"]);
        (result.merge.pages_read, result.rows("SELECT id FROM p WHERE id < 101"), result.conflicts().len())
    };
    let head = "UPDATE c SET v = 'h' WHERE p IN (250, 251)";
    let (small, large) = (pages_read(1_000, head), pages_read(20_000, head));
    assert!(large.0 < small.0 + 60, "{small:?} and {large:?} pages");
    // Who else points there is known; whether the device cares at all takes one look at its rows.
    let head = "INSERT INTO c(p) SELECT id FROM p WHERE id < 99";
    let (pages, parents, conflicts) = pages_read(20_000, head);
    assert_eq!((parents.len(), conflicts), (99, 98), "{parents:?}");
    assert!(pages < 4_000, "{pages} pages");
}

#[test]
fn a_long_chain_of_refused_rows_is_refused_at_once() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, up REFERENCES t(id), u UNIQUE)";
    let local = "INSERT INTO t VALUES (10, NULL, 'x');
        WITH RECURSIVE n(n) AS (VALUES(11) UNION ALL SELECT n + 1 FROM n WHERE n < 3000)
        INSERT INTO t SELECT n, n - 1, NULL FROM n; INSERT INTO t VALUES (9000, NULL, 'free'), (9001, 9000, NULL)";
    let began = std::time::Instant::now();
    let result = Scene::new(base, local, "INSERT INTO t VALUES (1, NULL, 'x')").done(&Options::default());
    assert_eq!(result.rows("SELECT id FROM t ORDER BY id"), ["1", "9000", "9001"]);
    assert_eq!(result.conflicts().len(), 2991);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}
