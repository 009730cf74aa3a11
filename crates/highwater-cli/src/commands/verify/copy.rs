//! A local copy: SQLite's view of the file, its content against the page sums, and the server's head.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use highwater::{Database, DatabaseInfo, Position, Progress, Stage, Status};
use highwater_pages::{Delta, LoadedSums, PageSums, Replica, Suspects, beside};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Check, Verdict, verdict};
use crate::failure::{Failure, quoted};
use crate::output::{Bytes, Output, count};
use crate::progress::Bar;
use crate::remote::{Access, existing};

/// How long to wait for the application's locks.
const BUSY: Duration = Duration::from_secs(5);
/// So many faults of SQLite's integrity check are told.
const MAX_FAULTS: u32 = 10;

pub(super) fn verify(target: &str, offline: bool, access: &Access, out: &Output) -> Result<(), Failure> {
    let path = existing(Path::new(target))?;
    let status = Database::open(&path)?.status()?;
    let bar = Arc::new(Bar::new(out.is_json()));
    let content = Content::read(&path, status.base, &bar)?;
    bar.clear();

    let mut checks =
        vec![integrity(&path)?, metadata(&status), content.page_sums(&status), content.waiting(&status)];
    let mut unreachable = None;
    match (&status.remote, status.base) {
        _ if offline => checks.push(Check::note("server", "not asked (--offline)")),
        (None, _) => checks.push(Check::note("server", "none: this file was never synced")),
        (Some(url), base) => match access.remote(url).and_then(|remote| Ok(remote.info_blocking()?)) {
            Ok(info) => checks.push(content.against(&info, base, status.txid.map(|txid| txid.0))?),
            Err(failure) => {
                checks.push(Check::note("server", format!("not compared: {}", failure.message())));
                unreachable = Some(failure);
            }
        },
    }
    report(target, &content, &checks, unreachable.as_ref(), out)?;
    verdict(target, checks.iter().filter(|check| check.result == Verdict::Problem).count(), out)?;
    match unreachable {
        None => Ok(()),
        Some(failure) if out.is_json() => Err(failure.told()),
        Some(failure) => {
            Err(failure.hint(format!("without the server: highwater verify {} --offline", quoted(&path))))
        }
    }
}

fn report(
    target: &str,
    content: &Content,
    checks: &[Check],
    unreachable: Option<&Failure>,
    out: &Output,
) -> Result<(), Failure> {
    if out.is_json() {
        let ok = checks.iter().all(|check| check.result != Verdict::Problem);
        return out.value(&serde_json::json!({
            "target": target,
            "kind": "database",
            "ok": ok && unreachable.is_none(),
            "state": content.image.state.to_string(),
            "page_count": content.image.page_count.0,
            "changed_pages": content.since_base.as_ref().map(|delta| delta.changed.len()),
            "checks": checks,
            "error": unreachable,
        }));
    }
    checks.iter().try_for_each(|check| out.line(check.line()))
}

/// SQLite's own opinion of the file.
fn integrity(path: &Path) -> Result<Check, Failure> {
    const NAME: &str = "integrity";
    let says = |faults: &str| Check::problem(NAME, format!("SQLite's integrity_check says: {faults}"));
    match faults(path) {
        Ok(faults) if faults == ["ok"] => Ok(Check::ok(NAME, "SQLite's integrity_check says ok")),
        Ok(faults) => Ok(says(&faults.join("; "))),
        // Some damage ends the check itself.
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Ok(says(&error.to_string())),
            _ => {
                Err(Failure::failed("sqlite", format!("SQLite could not check {}: {error}", path.display())))
            }
        },
    }
}

fn faults(path: &Path) -> rusqlite::Result<Vec<String>> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(BUSY)?;
    let mut query = db.prepare(&format!("PRAGMA integrity_check({MAX_FAULTS})"))?;
    query.query_map([], |row| row.get(0))?.collect()
}

/// The record of the last sync.
fn metadata(status: &Status) -> Check {
    match (&status.warning, status.base) {
        (Some(warning), _) => Check::note("metadata", warning.clone()),
        (None, Some(base)) => Check::ok("metadata", format!("last sync at position {}", base.place())),
        (None, None) => Check::note("metadata", "none: this file was never synced, or the record was lost"),
    }
}

/// The file as it is now, every page of it read.
struct Content {
    /// Against nothing: its state hash is computed from the pages alone.
    image: Delta,
    /// Against the page sums of the last sync, if they can be used.
    since_base: Option<Delta>,
    /// Why they cannot.
    no_sums: Option<String>,
}

impl Content {
    fn read(path: &Path, base: Option<Position>, bar: &Arc<Bar>) -> Result<Self, Failure> {
        let local = |error: highwater_pages::Error| Failure::from(highwater::Error::from(error));
        let mut replica = Replica::open(path, BUSY).map_err(local)?;
        let snapshot = replica.snapshot(None).map_err(local)?;
        let (sums, no_sums) = match base {
            None => (None, None),
            Some(base) => {
                match PageSums::load(&beside(path, "-sums"), base, snapshot.page_size()).map_err(local)? {
                    LoadedSums::Valid(sums) => (Some(sums), None),
                    LoadedSums::Missing => (None, Some("the page sums are missing".to_owned())),
                    LoadedSums::Stale { .. } => {
                        (None, Some("the page sums are those of another position".to_owned()))
                    }
                    LoadedSums::Corrupt { reason } => {
                        (None, Some(format!("the page sums are damaged ({reason})")))
                    }
                }
            }
        };
        let scan = |base: Option<&PageSums>| {
            let mut progress = |done, total| {
                bar.report(Progress { stage: Stage::Scanning, done, total: Some(total) });
            };
            snapshot.diff(base, &Suspects::ALL, &mut progress).map_err(local)
        };
        Ok(Self {
            image: scan(None)?,
            since_base: sums.as_ref().map(|sums| scan(Some(sums))).transpose()?,
            no_sums,
        })
    }

    /// Whether the page sums are those of the last sync, and lead to the same hash as the pages do.
    fn page_sums(&self, status: &Status) -> Check {
        const NAME: &str = "page sums";
        match (&self.since_base, &self.no_sums, status.base) {
            (Some(delta), _, _) if delta.state == self.image.state => {
                Check::ok(NAME, format!("belong to the last sync; {} compared", count(delta.scanned, "page")))
            }
            (Some(_), _, _) => Check::problem(
                NAME,
                "contradict the pages; delete the file ending in -sums, the next sync makes it again",
            ),
            (None, Some(reason), _) => Check::note(NAME, format!("{reason}; the next sync makes them again")),
            (None, None, _) => Check::note(NAME, "none yet"),
        }
    }

    /// What waits to be pushed, and whether the quick way of finding it sees as much as reading everything.
    fn waiting(&self, status: &Status) -> Check {
        const NAME: &str = "to be pushed";
        let Some(delta) = &self.since_base else {
            return Check::note(NAME, "not known without page sums");
        };
        let pages = u64::try_from(delta.changed.len()).unwrap_or(u64::MAX);
        let bytes = Bytes(pages.saturating_mul(u64::from(delta.page_size.get())));
        if status.unpushed_pages.is_some_and(|quick| quick < pages) {
            return Check::problem(
                NAME,
                format!(
                    "{} changed since the last sync, but the write-ahead log names fewer: unless the application \
                     wrote just now, the file was changed behind SQLite's back; delete the file ending in -info and sync",
                    count(pages, "page")
                ),
            );
        }
        if delta.is_empty() {
            Check::ok(NAME, "nothing")
        } else {
            Check::note(NAME, format!("{} ({bytes})", count(pages, "changed page")))
        }
    }

    /// The server's head beside the last sync and the content.
    fn against(
        &self,
        info: &DatabaseInfo,
        base: Option<Position>,
        txid: Option<u64>,
    ) -> Result<Check, Failure> {
        const NAME: &str = "server";
        let head = Position::try_from(&info.head).map_err(|error| {
            Failure::failed("bad_answer", format!("the server's head cannot be read: {error}"))
        })?;
        let place = head.place();
        let (Some(base), Some(txid)) = (base, txid) else {
            return Ok(Check::note(
                NAME,
                format!("is at position {place}; this file has no record of a sync with it"),
            ));
        };
        Ok(if head.state == self.image.state {
            Check::ok(NAME, format!("has the same content, at position {place}"))
        } else if info.txid > txid {
            let ahead = count(info.txid - txid, "transaction");
            Check::note(NAME, format!("is {ahead} ahead, at position {place}"))
        } else if head.state == base.state {
            Check::ok(NAME, format!("has the content of the last sync, at position {place}"))
        } else {
            Check::problem(
                NAME,
                format!(
                    "is at position {place} (transaction {}), but this file was synced at {} (transaction {txid}): \
                     the server has lost what it confirmed; sync again, and the server's store needs a look (highwater verify STORE)",
                    info.txid,
                    base.place()
                ),
            )
        })
    }
}
