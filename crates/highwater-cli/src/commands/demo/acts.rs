//! The acts of the demo, in order. Each writes with plain SQLite, syncs, and checks what it tells.

use std::fs::{self, File};
use std::io::Write as _;

use highwater::{Action, Error, SyncOutcome};
use rusqlite::{Connection, params};

use super::stage::{Stage, check, sqlite};
use crate::failure::Failure;
use crate::output::{Bytes, count, took};

/// Notes in the database before the first sync.
const FIRST_NOTES: u32 = 20_000;
/// Transactions of one row each in the third act.
const COMMITS: u32 = 1_000;

pub(super) fn all(stage: &mut Stage<'_>) -> Result<(), Failure> {
    writing_without_a_server(stage)?;
    the_server_comes_up(stage)?;
    a_second_device(stage)?;
    many_commits_one_sync(stage)?;
    changes_travel_back(stage)?;
    both_write_offline(stage)?;
    a_damaged_metadata_file(stage)?;
    the_server_restarts(stage)
}

fn writing_without_a_server(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.act("A laptop writes offline")?;
    let mut db = stage.laptop.connect()?;
    db.execute_batch("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL, pinned INT)")
        .map_err(sqlite)?;
    let transaction = db.transaction().map_err(sqlite)?;
    add_notes(&transaction, FIRST_NOTES, "a note from the laptop")?;
    transaction.commit().map_err(sqlite)?;
    stage.say(format_args!(
        "{} in laptop.db, an ordinary SQLite file of {}.",
        count(FIRST_NOTES.into(), "note"),
        Bytes(stage.laptop_size()?)
    ))?;
    match stage.laptop.sync_blocking() {
        Err(Error::Offline { .. }) => {
            stage.say("sync: the server could not be reached. That is no failure: the notes are safe here, work goes on.")
        }
        Err(error) => Err(error.into()),
        Ok(_) => check(false, "there is no server yet"),
    }
}

fn the_server_comes_up(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.act("A server comes up, and the laptop syncs")?;
    stage.start_server()?;
    let outcome = stage.laptop.sync_blocking()?;
    stage.note("laptop: first push", &outcome);
    check(outcome.action == Action::Pushed, "the laptop's notes were pushed")?;
    stage.say(format_args!("{}.", sent(&outcome)))
}

fn a_second_device(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.act("A phone makes a copy")?;
    let outcome = stage.phone.clone_blocking()?;
    stage.note("phone: first copy", &outcome);
    let notes = stage.same_on_both()?;
    stage.say(format_args!("{}; both copies hold the same {}.", received(&outcome), count(notes, "note")))
}

fn many_commits_one_sync(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.act(&format!("{} on the laptop, one sync", count(COMMITS.into(), "small transaction")))?;
    let db = stage.laptop.connect()?;
    // The story is told in seconds: these commits need not wait for the disk.
    db.execute_batch("PRAGMA synchronous=NORMAL").map_err(sqlite)?;
    add_notes(&db, COMMITS, "one transaction each")?;
    checkpoint(&db)?;
    stage.say("The application then truncates its write-ahead log (wal_checkpoint), as any program may.")?;
    let outcome = stage.laptop.sync_blocking()?;
    stage.note("laptop: 1,000 transactions, one sync", &outcome);
    check(outcome.requests == 1, "a sync takes one request")?;
    stage.say(format_args!("{}:", sent(&outcome)))?;
    stage.say("only the last image of each page that changed, whatever became of the log.")?;
    let idle = stage.laptop.sync_blocking()?;
    stage.note("laptop: nothing to do", &idle);
    check(idle.action == Action::UpToDate && idle.pushed.frames == 0, "no frame is sent twice")?;
    stage.say("Syncing again sends no frame: the server confirmed them all.")
}

fn changes_travel_back(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.act("The phone catches up, then edits")?;
    let outcome = stage.phone.sync_blocking()?;
    stage.note("phone: pulls the laptop's changes", &outcome);
    stage.same_on_both()?;
    stage.say(format_args!("{}.", received(&outcome)))?;
    let db = stage.phone.connect()?;
    db.execute("UPDATE notes SET text = 'edited on the phone' WHERE id = 7", []).map_err(sqlite)?;
    let outcome = stage.phone.sync_blocking()?;
    stage.note("phone: pushes one edited note", &outcome);
    stage.say(format_args!("Then one note is edited: {}.", sent(&outcome)))?;
    let outcome = stage.laptop.sync_blocking()?;
    stage.note("laptop: pulls it", &outcome);
    let notes = stage.same_on_both()?;
    stage.say(format_args!("The laptop pulled it; both hold the same {}.", count(notes, "note")))
}

fn both_write_offline(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.act("Both write offline: one note in different columns, and a new note each")?;
    let (laptop, phone) = (stage.laptop.connect()?, stage.phone.connect()?);
    laptop
        .execute_batch("UPDATE notes SET text = 'Buy oat milk' WHERE id = 8; INSERT INTO notes (text) VALUES ('Call Ada')")
        .map_err(sqlite)?;
    phone
        .execute_batch(
            "UPDATE notes SET pinned = 1 WHERE id = 8; INSERT INTO notes (text) VALUES ('Call Bob')",
        )
        .map_err(sqlite)?;
    let id = |db: &Connection, text: &str| {
        db.query_row("SELECT id FROM notes WHERE text = ?1", [text], |row| row.get::<_, i64>(0))
            .map_err(sqlite)
    };
    let (ada, bob) = (id(&laptop, "Call Ada")?, id(&phone, "Call Bob")?);
    check(ada == bob, "both new notes have the same id")?;
    stage.say(format_args!(
        "SQLite gave both new notes the id {ada}, for neither device knew of the other."
    ))?;
    let outcome = stage.laptop.sync_blocking()?;
    stage.note("laptop: pushes its changes", &outcome);
    let outcome = stage.phone.sync_blocking()?;
    stage.note("phone: pushes its own, and is merged", &outcome);
    check(outcome.action == Action::Merged, "the phone's changes were merged")?;
    let pulled = stage.laptop.sync_blocking()?;
    stage.note("laptop: pulls the merge", &pulled);
    stage.same_on_both()?;
    for db in [&laptop, &phone] {
        let both = "SELECT count(*) FROM notes WHERE id = 8 AND text = 'Buy oat milk' AND pinned = 1";
        let both: i64 = db.query_row(both, [], |row| row.get(0)).map_err(sqlite)?;
        check(both == 1, "the note carries both changes")?;
        check(id(db, "Call Ada")? != id(db, "Call Bob")?, "both new notes live")?;
    }
    stage.say("The server merges: note 8 says 'Buy oat milk' and is pinned, on both.")?;
    stage.say(format_args!(
        "Both new notes live: 'Call Ada' is {}, 'Call Bob' is {} now, which is recorded as:",
        id(&laptop, "Call Ada")?,
        id(&laptop, "Call Bob")?
    ))?;
    let merges = stage.laptop.conflicts_blocking()?;
    let conflicts: Vec<_> = merges.iter().flat_map(|merge| &merge.conflicts).collect();
    check(conflicts.len() == 1, "the new id is the only thing to report")?;
    conflicts.iter().try_for_each(|conflict| {
        let short: String = format!("{} {}: {}", conflict.table, conflict.kind, conflict.message);
        stage.say(format_args!("  {}", short.chars().take(90).collect::<String>()))
    })
}

fn a_damaged_metadata_file(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.act("The laptop's metadata is destroyed")?;
    let info = stage.beside_laptop("-info");
    File::create(&info)
        .and_then(|mut file| file.write_all(b"{\"hash\": not any more"))
        .and_then(|()| fs::remove_file(stage.beside_laptop("-sums")))
        .map_err(|error| Failure::failed("io", format!("damaging {} failed: {error}", info.display())))?;
    let db = stage.laptop.connect()?;
    add_notes(&db, 1, "written after the damage")?;
    stage.say("laptop.db-info is garbage now and laptop.db-sums is gone. One more note is written. Sync:")?;
    let outcome = stage.laptop.sync_blocking()?;
    stage.note("laptop: heals lost metadata, pushes one note", &outcome);
    check(outcome.action == Action::Pushed, "the note was pushed")?;
    let info_is_whole =
        fs::read(&info).is_ok_and(|text| serde_json::from_slice::<serde_json::Value>(&text).is_ok());
    check(info_is_whole, "the metadata file is whole again")?;
    stage.say("The server knows the file by its content, and the metadata is whole again:")?;
    stage.say(format_args!("{}.", sent(&outcome)))?;
    let outcome = stage.phone.sync_blocking()?;
    stage.note("phone: pulls it", &outcome);
    stage.same_on_both()?;
    Ok(())
}

fn the_server_restarts(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.act("The server restarts")?;
    let before = stage.laptop.status()?.base;
    stage.stop_server()?;
    stage.start_server()?;
    let outcome = stage.laptop.sync_blocking()?;
    stage.note("laptop: after the restart", &outcome);
    check(outcome.action == Action::UpToDate && outcome.position == before, "the server forgot nothing")?;
    let place = outcome.position.map(|position| position.place().to_string()).unwrap_or_default();
    stage
        .say(format_args!("It is where it was, at position {place}: everything it confirmed was on disk."))?;
    let notes = stage.same_on_both()?;
    stage.say(format_args!(
        "Laptop and phone hold the same {}, and integrity_check says ok.",
        count(notes, "note")
    ))
}

/// Adds notes, each in its own transaction unless one is open.
fn add_notes(db: &Connection, number: u32, text: &str) -> Result<(), Failure> {
    let mut insert = db.prepare("INSERT INTO notes (text) VALUES (?1)").map_err(sqlite)?;
    for i in 0..number {
        insert.execute(params![format!("{text}, number {i}")]).map_err(sqlite)?;
    }
    Ok(())
}

/// What any application may do with its own file.
fn checkpoint(db: &Connection) -> Result<(), Failure> {
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(sqlite)
}

fn sent(outcome: &SyncOutcome) -> String {
    format!(
        "{} sent, {}, in {} and {}",
        count(outcome.pushed.frames, "frame"),
        Bytes(outcome.pushed.bytes),
        count(outcome.requests.into(), "request"),
        took(outcome.elapsed)
    )
}

fn received(outcome: &SyncOutcome) -> String {
    format!(
        "{} received, {}, in {} and {}",
        count(outcome.pulled.frames, "frame"),
        Bytes(outcome.pulled.bytes),
        count(outcome.requests.into(), "request"),
        took(outcome.elapsed)
    )
}
