//! The names of objects in the store. Built here and nowhere else.
//!
//! | object | what |
//! |---|---|
//! | `DB/ltx/0/<txid>-<txid>.ltx` | one accepted push |
//! | `DB/ltx/9/0000000000000001-<txid>.ltx` | a snapshot of the state after that transaction |
//! | `DB/sync/<generation>/<first>-<last>.frames` | frames of a libSQL client's unfinished push |
//! | `DB/merge/<base>-<state>.ltx` | the pages that a device changed since the transaction `base`, before they were merged |
//! | `DB/merge/<…>.json` | the record of a merge ([`crate::log::MergeName`] says what its name tells) |
//! | `DB/merge/<txid>.seen` | somebody has seen what that merge could not keep |
//! | `DB/merge/refused-<…>.json`, `.ltx`, `.seen` | why a libSQL client's push was refused, its pages, and that it is seen to |
//! | `DB/merge/founder-<salts>` | the log of the libSQL client whose push began the database |
//! | `DB/sync/<generation>/<first>.json` | a step of a libSQL client's detour |
//! | `DB/admin/<number>.json` | an event of the database as a whole: created, deleted … ([`crate::lifecycle`]) |
//! | `DB/uploads/<random>.ltx` | a file that is still being written; belongs to nobody after a crash |
//! | `.highwater/ready` | written and read to find out whether the store works; means nothing |
//!
//! One database's name may be the beginning of another's (`team`, `team/app`): `ltx`, `sync`, `merge`, `admin`
//! and `uploads` are reserved words that no name contains, so the objects of two databases never meet.

use highwater_ltx::{FrameNo, Generation, StateHash, TxId, file_name, parse_file_name};
use highwater_wire::DbName;
use object_store::path::Path;

/// What `/readyz` writes and reads. No database's name begins with a dot.
pub(crate) fn ready() -> Path {
    Path::from(".highwater/ready")
}

/// The folder of all accepted pushes.
pub(crate) fn pushes(db: &DbName) -> Path {
    Path::from(format!("{db}/ltx/0"))
}

/// The folder of all snapshots.
pub(crate) fn snapshots(db: &DbName) -> Path {
    Path::from(format!("{db}/ltx/9"))
}

/// The accepted push `txid`.
pub(crate) fn push(db: &DbName, txid: TxId) -> Path {
    Path::from(format!("{db}/ltx/0/{}", file_name(txid, txid)))
}

/// The snapshot of the state after `txid`.
pub(crate) fn snapshot(db: &DbName, txid: TxId) -> Path {
    Path::from(format!("{db}/ltx/9/{}", file_name(TxId::FIRST, txid)))
}

/// A file that is being written, under a name that nobody else chooses.
pub(crate) fn upload(db: &DbName, unique: u128) -> Path {
    Path::from(format!("{db}/uploads/{unique:032x}.ltx"))
}

/// The folder of an unfinished push of a libSQL client.
pub(crate) fn branch(db: &DbName, generation: Generation) -> Path {
    Path::from(format!("{db}/sync/{:08x}", generation.0))
}

/// Frames of an unfinished push of a libSQL client.
pub(crate) fn branch_frames(db: &DbName, generation: Generation, first: FrameNo, last: FrameNo) -> Path {
    Path::from(format!("{db}/sync/{:08x}/{:016x}-{:016x}.frames", generation.0, first.0, last.0))
}

/// A step of a libSQL client's detour, by its first frame.
pub(crate) fn detour_step(db: &DbName, generation: Generation, first: FrameNo) -> Path {
    Path::from(format!("{db}/sync/{:08x}/{:016x}.json", generation.0, first.0))
}

/// The first frame of a step of a detour; `None` for anything else in its folder.
pub(crate) fn detour_first(object: &Path) -> Option<FrameNo> {
    let digits = object.filename()?.strip_suffix(".json").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(FrameNo)
}

/// Whether the object is a part of an unfinished push of a libSQL client.
pub(crate) fn is_branch_frames(object: &Path) -> bool {
    let mut parts = object.as_ref().rsplit('/');
    parts.next().is_some_and(|file| file.ends_with(".frames"))
        && parts.next().is_some_and(|folder| folder.len() == 8)
        && parts.next() == Some("sync")
        && parts.rev().collect::<Vec<_>>().join("/").parse::<DbName>().is_ok()
}

/// The folder of what was merged.
pub(crate) fn merges(db: &DbName) -> Path {
    Path::from(format!("{db}/merge"))
}

/// An object in the folder of what was merged.
pub(crate) fn merge(db: &DbName, file: &str) -> Path {
    Path::from(format!("{db}/merge/{file}"))
}

/// Before the name of every record of that merge and of later ones, after those of all earlier ones.
pub(crate) fn merges_since(db: &DbName, txid: TxId) -> Path {
    merge(db, &format!("{:016x}", txid.0))
}

/// What a device changed since `base`, that led it to `state`.
pub(crate) fn merged_delta(db: &DbName, base: TxId, state: StateHash) -> Path {
    merge(db, &format!("{:016x}-{state}.ltx", base.0))
}

/// Notes the log of the libSQL client whose push began the database.
pub(crate) fn founder(db: &DbName, salts: u64) -> Path {
    merge(db, &format!("founder-{salts:016x}"))
}

/// The log that such a note names.
pub(crate) fn founder_of(object: &Path) -> Option<u64> {
    let digits = object.filename()?.strip_prefix("founder-").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The mark that somebody has seen a merge.
pub(crate) fn seen(db: &DbName, txid: TxId) -> Path {
    merge(db, &format!("{:016x}.seen", txid.0))
}

/// The folder of a database's events.
pub(crate) fn events(db: &DbName) -> Path {
    Path::from(format!("{db}/admin"))
}

/// The event with that number, from 1.
pub(crate) fn event(db: &DbName, number: u64) -> Path {
    Path::from(format!("{db}/admin/{number:016x}.json"))
}

/// The number of an event.
pub(crate) fn event_number(object: &Path) -> Option<u64> {
    let digits = object.filename()?.strip_suffix(".json").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Which database an event belongs to.
pub(crate) fn database_of_event(object: &Path) -> Option<DbName> {
    event_number(object)?;
    object.as_ref().rsplit_once('/')?.0.strip_suffix("/admin")?.parse().ok()
}

/// Every folder in which a database has objects that are removed with it; its events are not among them.
pub(crate) fn removed_with(db: &DbName) -> [Path; 4] {
    ["ltx", "uploads", "sync", "merge"].map(|folder| Path::from(format!("{db}/{folder}")))
}

/// The transactions that the object's name says it covers.
pub(crate) fn covers(object: &Path) -> Option<(TxId, TxId)> {
    parse_file_name(object.filename()?)
}

/// Which database an object of its log belongs to; `None` for anything else in the store.
pub(crate) fn database_of(object: &Path) -> Option<DbName> {
    let (folder, _) = object.as_ref().rsplit_once('/')?;
    let name = folder.strip_suffix("/ltx/0").or_else(|| folder.strip_suffix("/ltx/9"))?;
    covers(object)?;
    name.parse().ok()
}

/// Whether the object is a file that was being written.
pub(crate) fn is_upload(object: &Path) -> bool {
    let mut parts = object.as_ref().rsplit('/');
    parts.next().is_some_and(|file| file.ends_with(".ltx"))
        && parts.next() == Some("uploads")
        && parts.rev().collect::<Vec<_>>().join("/").parse::<DbName>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_knows_its_database() {
        let db: DbName = "team/app".parse().unwrap();
        assert_eq!(push(&db, TxId(2)).as_ref(), "team/app/ltx/0/0000000000000002-0000000000000002.ltx");
        assert_eq!(snapshot(&db, TxId(2)).as_ref(), "team/app/ltx/9/0000000000000001-0000000000000002.ltx");
        assert_eq!(database_of(&push(&db, TxId(2))), Some(db.clone()));
        assert_eq!(database_of(&snapshot(&db, TxId(2))), Some(db.clone()));
        assert_eq!(database_of(&upload(&db, 1)), None);
        assert_eq!(database_of_event(&event(&db, 26)), Some(db.clone()));
        assert_eq!(event_number(&event(&db, 26)), Some(26));
        assert_eq!(database_of_event(&push(&db, TxId(2))), None);
        assert!(is_upload(&upload(&db, 1)));
        assert!(!is_upload(&push(&db, TxId(2))));
    }
}
