//! The files beside a database are caches: whatever becomes of them, the next sync ends as with
//! intact ones: the same rows, the same state on the server, the same base, nothing sent that the
//! server has, and one warning that says what was wrong.
//!
//! By default every byte and every length is tried in two situations, and a part in all others;
//! `HIGHWATER_TEST_ROUNDS=23` tries everything everywhere.
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

#[path = "metadata/bench.rs"]
mod bench;
mod common;

use bench::{Bench, Beside, Change, Log, beside};
use common::{Warnings, World, assert_same, fill, insert};
use crc_fast::{CrcAlgorithm, checksum};
use highwater::{Action, Database, Error};
use serde_json::{Map, Value};

const CHANGES: [Change; 5] =
    [Change::Inserts, Change::Nothing, Change::Apart, Change::Again, Change::Elsewhere];
/// A database of many pages, and one of which every change touches most.
const SIZES: [u32; 2] = [120, 20];

/// Every situation.
fn benches() -> impl Iterator<Item = Bench> {
    CHANGES.into_iter().flat_map(|change| {
        [Log::Continues, Log::Gone]
            .into_iter()
            .flat_map(move |log| SIZES.into_iter().map(move |size| Bench::new(change, log, size)))
    })
}

/// With an intact log and no change anywhere, nothing has to be read but the log.
fn reads_the_sums(bench: &Bench) -> bool {
    !bench.name.starts_with("Nothing, log Continues")
}

/// The byte positions to try: all of them in some situations.
fn sample(bench: &Bench, length: usize) -> impl Iterator<Item = usize> {
    let whole = ["Inserts, log Continues, 120 rows", "Apart, log Gone, 20 rows"].contains(&&*bench.name);
    let step = if whole { 1 } else { (23 / common::rounds(1).max(1) as usize).max(1) };
    // Other bytes in each situation.
    let start = bench.name.bytes().map(usize::from).sum::<usize>() % step;
    (start..length).step_by(step)
}

fn damaged_info(bench: &Bench, case: &str, info: &[u8]) {
    let warnings = bench.case(case, &bench.intact.with_info(info));
    assert_eq!(warnings.len(), 1, "{case}: {warnings:?}");
    assert!(
        warnings[0].contains("metadata") && warnings[0].contains("nothing is lost"),
        "{case}: {warnings:?}"
    );
}

fn damaged_sums(bench: &Bench, case: &str, sums: &[u8]) {
    let warnings = bench.case(case, &bench.intact.with_sums(sums));
    assert_eq!(warnings.len(), usize::from(reads_the_sums(bench)), "{case}: {warnings:?}");
}

fn flipped(bytes: &[u8], at: usize, bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << (bit % 8);
    bytes
}

#[test]
fn a_flipped_byte_in_the_metadata_changes_nothing() {
    for bench in benches() {
        let intact = bench.intact.info.clone().unwrap();
        for at in sample(&bench, intact.len()) {
            damaged_info(&bench, &format!("byte {at} of -info"), &flipped(&intact, at, at * 5 + 1));
        }
        bench.check_server();
    }
}

#[test]
fn a_flipped_byte_in_the_page_sums_changes_nothing() {
    for bench in benches() {
        let intact = bench.intact.sums.clone().unwrap();
        for at in sample(&bench, intact.len()) {
            damaged_sums(&bench, &format!("byte {at} of -sums"), &flipped(&intact, at, at * 3));
        }
        bench.check_server();
    }
}

#[test]
fn files_cut_at_any_length_change_nothing() {
    for bench in benches() {
        let info = bench.intact.info.clone().unwrap();
        for length in sample(&bench, info.len()) {
            damaged_info(&bench, &format!("-info cut to {length}"), &info[..length]);
        }
        let sums = bench.intact.sums.clone().unwrap();
        for length in sample(&bench, sums.len()) {
            damaged_sums(&bench, &format!("-sums cut to {length}"), &sums[..length]);
        }
        bench.check_server();
    }
}

/// The object with some fields changed, and with the right hash.
fn rewritten(info: &[u8], change: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
    let mut fields: Map<String, Value> = serde_json::from_slice(info).unwrap();
    fields.remove("hash");
    change(&mut fields);
    // What is written is sorted already, nested objects too.
    let sorted: std::collections::BTreeMap<_, _> = fields.iter().collect();
    let hash = checksum(CrcAlgorithm::Crc32IsoHdlc, serde_json::to_string(&sorted).unwrap().as_bytes());
    fields.insert("hash".to_owned(), hash.into());
    serde_json::to_vec(&fields).unwrap()
}

#[test]
fn files_that_are_gone_empty_garbage_or_of_a_newer_version_change_nothing() {
    for bench in benches() {
        let intact = &bench.intact;
        let info = intact.info.clone().unwrap();
        // A test of the test: rewritten without a change, it is intact.
        assert_eq!(bench.case("-info rewritten", &intact.with_info(&rewritten(&info, |_| ()))), [""; 0]);
        let newer = rewritten(&info, |fields| drop(fields.insert("version".to_owned(), 2.into())));
        for (case, bytes) in [
            ("empty", Vec::new()),
            ("zeros", vec![0; 4096]),
            ("text", b"once upon a time".to_vec()),
            ("JSON", br#"{"version":1}"#.to_vec()),
            ("nested", vec![b'['; 100_000]),
            ("newer", newer),
        ] {
            damaged_info(&bench, &format!("-info {case}"), &bytes);
            damaged_sums(&bench, &format!("-sums {case}"), &bytes);
        }
        let mut sums = intact.sums.clone().unwrap();
        sums[..8].copy_from_slice(b"HWSUMS02");
        damaged_sums(&bench, "-sums of a newer version", &sums);
        // A file that is not there is no reason to warn.
        let no_info = Beside { info: None, ..intact.clone() };
        assert_eq!(bench.case("-info deleted", &no_info), [""; 0]);
        let no_sums = Beside { sums: None, ..intact.clone() };
        assert_eq!(bench.case("-sums deleted", &no_sums), [""; 0]);
        if content_tells(&bench) {
            assert_eq!(bench.case("both deleted", &Beside { info: None, sums: None }), [""; 0]);
            let both = Beside { info: Some(vec![7; 99]), sums: Some(vec![7; 99]) };
            assert_eq!(bench.case("both garbage", &both).len(), 1);
        } else {
            bench.unknowable("both deleted", &Beside { info: None, sums: None });
        }
        bench.check_server();
    }
}

/// Exceptions, where the content of the file is all there is, and says too little: every page that
/// the last push changed was changed again, and so were rows that the server has. Whether the rows
/// of the server that the file lacks were changed here, or never arrived here, nobody knows. All of it is
/// merged then; nothing is lost.
fn content_tells(bench: &Bench) -> bool {
    !(bench.name.contains(", 20 rows") && (bench.name.contains("Apart") || bench.name.contains("Again")))
}

#[test]
fn an_older_copy_of_the_metadata_or_of_the_page_sums_changes_nothing() {
    for bench in benches() {
        for (age, older) in bench.older.iter().rev().enumerate() {
            let case = format!("{} pushes old", age + 1);
            let info = bench.intact.with_info(older.info.as_ref().unwrap());
            if content_tells(&bench) {
                let warnings = bench.case(&format!("-info {case}"), &info);
                assert!(warnings.len() <= 1, "{case}: {warnings:?}");
            } else {
                // The page sums know better, but could be another copy's: believing them without
                // any other sign could lose rows.
                bench.unknowable(&format!("-info {case}"), &info);
            }
            damaged_sums(&bench, &format!("-sums {case}"), older.sums.as_ref().unwrap());
            // Both: then they say together that what was pushed since is another device's, and
            // that could be the truth. With changes on top it is a conflict; nothing is lost.
            if bench.name.starts_with("Nothing") || bench.name.starts_with("Elsewhere") {
                assert_eq!(bench.case(&format!("both {case}"), older), [""; 0]);
            } else {
                bench.unknowable(&format!("both {case}"), older);
            }
        }
        bench.check_server();
    }
}

#[test]
fn the_files_of_another_database_change_nothing() {
    for bench in benches() {
        let size = highwater::PageSize::new(512).unwrap();
        let other = bench.world.builder("stranger.db").remote(bench.world.url("stranger"));
        let other = other.page_size(size).open().unwrap();
        other.connect().unwrap().execute_batch("CREATE TABLE s(x); INSERT INTO s VALUES(1)").unwrap();
        other.sync_blocking().unwrap();
        let theirs = Beside::read(other.path());
        damaged_info(&bench, "another database's -info", theirs.info.as_ref().unwrap());
        damaged_sums(&bench, "another database's -sums", theirs.sums.as_ref().unwrap());
        if content_tells(&bench) {
            let warnings = bench.case("another database's files", &theirs);
            assert_eq!(warnings.len(), 1, "{warnings:?}");
        } else {
            bench.unknowable("another database's files", &theirs);
        }
        bench.check_server();
        // Without a URL from the application, theirs is the only one known. It has other content,
        // and nothing is touched.
        if !bench.name.starts_with("Elsewhere") {
            bench.reset(&bench.intact.with_info(theirs.info.as_ref().unwrap()));
            let head = other.info_blocking().unwrap().head;
            let error = Database::open(bench.db.path()).unwrap().sync_blocking().unwrap_err();
            assert!(matches!(error, Error::Stranger { .. }), "{error}");
            assert_eq!(other.info_blocking().unwrap().head, head);
        }
    }
}

/// The page sums of another copy of the same database may be ahead of this one. They must not make
/// what the other copy pushed look as if it had been deleted here.
#[test]
fn the_page_sums_of_another_copy_never_hide_what_it_pushed() {
    for count in [20, 120, 2000] {
        let world = World::in_memory(|_| ());
        let (a, b) = (world.open("a.db"), world.open("b.db"));
        let on_a = fill(&a, count);
        a.sync_blocking().unwrap();
        b.sync_blocking().unwrap();
        insert(&on_a, 1);
        a.sync_blocking().unwrap();
        let on_b = b.connect().unwrap();
        insert(&on_b, 2);
        std::fs::copy(beside(a.path(), "-sums"), beside(b.path(), "-sums")).unwrap();
        assert_eq!(b.sync_blocking().unwrap().action, Action::Merged, "{count} rows");
        a.sync_blocking().unwrap();
        assert_same(a.path(), b.path());
        let all: u32 = on_b.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(all, count + 3, "{count} rows");
    }
}

#[test]
fn without_its_metadata_a_database_has_to_be_told_its_url_again() {
    let bench = Bench::new(Change::Inserts, Log::Continues, 120);
    for info in [Some(b"garbage".to_vec()), None] {
        bench.reset(&Beside { info, ..bench.intact.clone() });
        let plain = Database::open(bench.db.path()).unwrap();
        let error = plain.sync_blocking().unwrap_err();
        assert!(matches!(error, Error::NoRemote { .. }) && error.to_string().contains("--remote"), "{error}");
        assert_eq!(bench.db.sync_blocking().unwrap().action, Action::Pushed);
        bench.take_warnings();
        bench.check("told again");
    }
}

/// libSQL's metadata file, as after a push of so many frames.
fn libsql(frames: u8) -> String {
    let crc = checksum(CrcAlgorithm::Crc32IsoHdlc, &[0, 0, 0, 0, frames, 0, 0, 0, 1, 0, 0, 0]);
    format!(r#"{{"hash":{crc},"version":0,"durable_frame_num":{frames},"generation":1}}"#)
}

#[test]
fn libsqls_file_is_taken_over_with_every_frame_that_it_had_not_pushed() {
    let (warnings, _guard) = Warnings::collect();
    for (info, warned) in [(libsql(3), 0), (libsql(3).replace(":3,", ":4,"), 1)] {
        for server_has_some in [false, true] {
            let world = World::in_memory(|_| ());
            let db = world.open("app.db");
            let connection = fill(&db, 50);
            if server_has_some {
                // Through another copy, as far as libSQL had pushed it.
                let first = world.path("first.db");
                connection.execute("VACUUM INTO ?1", [first.to_str().unwrap()]).unwrap();
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
                std::fs::copy(db.path(), &first).unwrap();
                world.open("first.db").sync_blocking().unwrap();
            }
            (0..20).for_each(|_| insert(&connection, 3));
            std::fs::write(world.path("app.db-info"), &info).unwrap();
            let files = [world.path("app.db"), world.path("app.db-wal")];
            let look = || {
                files.clone().map(|file| {
                    (std::fs::read(&file).unwrap(), std::fs::metadata(&file).unwrap().modified().unwrap())
                })
            };
            let before = look();
            assert!(before[1].0.len() > 20 * 4096, "the log holds what was not pushed");
            let outcome = db.sync_blocking().unwrap();
            assert_eq!(outcome.action, Action::Pushed);
            assert!(look() == before, "the database and its log are not rewritten");
            assert_eq!(warnings.take().len(), warned);
            assert_same(db.path(), &world.restored("app"));
            let fields: Value =
                serde_json::from_slice(&std::fs::read(world.path("app.db-info")).unwrap()).unwrap();
            assert_eq!(fields["version"], 1);
            assert_eq!(fields["durable_frame_num"], outcome.position.unwrap().frame.0);
            assert_eq!(fields["remote"], world.url("app"));
            assert_eq!(db.sync_blocking().unwrap().action, Action::UpToDate);
            assert!(look() == before, "the database and its log are not rewritten");
            // The application goes on with the connection that it had open all the time.
            insert(&connection, 1);
            assert_eq!(db.sync_blocking().unwrap().pushed.frames, 1);
        }
    }
}

/// As after a pull that was killed before it was noted: the page sums say where it led, the metadata does not, and no
/// page of it is as it was any more. The log has it still.
#[test]
fn work_on_all_that_an_unnoted_pull_brought_is_not_merged_a_second_time() {
    let (moved, gone) = (
        "UPDATE t SET id = id + 100 WHERE id = (SELECT max(id) FROM t)",
        "DELETE FROM t WHERE id = (SELECT max(id) FROM t)",
    );
    // Where there was no log before, it begins with the pull.
    for (work, left, logged) in [(moved, 4, true), (gone, 3, true), (moved, 4, false), (gone, 3, false)] {
        let world = World::in_memory(|_| ());
        let (a, b) = (world.open("a.db"), world.open("b.db"));
        let on_a = fill(&a, 3);
        a.sync_blocking().unwrap();
        b.sync_blocking().unwrap();
        // Its connection stays open, so that the log stays.
        let on_b = b.connect().unwrap();
        if logged {
            on_b.execute_batch("CREATE TABLE here(x)").unwrap();
            b.sync_blocking().unwrap();
        }
        a.sync_blocking().unwrap();
        let info = std::fs::read(beside(b.path(), "-info")).unwrap();
        insert(&on_a, 1);
        a.sync_blocking().unwrap();
        b.sync_blocking().unwrap();
        std::fs::write(beside(b.path(), "-info"), info).unwrap();
        on_b.execute_batch(work).unwrap();
        let outcome = b.sync_blocking().unwrap();
        assert_eq!((outcome.action, outcome.conflict_count), (Action::Pushed, 0), "{work}");
        a.sync_blocking().unwrap();
        assert_same(a.path(), b.path());
        let all: u32 = on_b.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(all, left, "{work}");
    }
}
