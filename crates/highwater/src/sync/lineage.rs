//! Which of the server's positions a file descends from, where pages alone cannot tell.
//!
//! A file without metadata, and with changes of its own on top, fits between two positions of the
//! server's history. Taking the newest would make everything that the file does not have look
//! deleted; taking the oldest would make its own history look like another device's. So the rows
//! decide: the newest is taken if the file has everything that is there, and nothing that somebody
//! may have deleted before. A file that shares next to nothing with the server is a stranger.

use std::path::{Path, PathBuf};

use highwater_ltx::{Position, TxId};
use highwater_pages::Delta;
use highwater_wire::{LIBSQL_NODE, LogEntry};

use super::Run;
use super::compare::{Share, compare, is_back, new_values, newer_rows_kept};
use super::traces::{Traces, traces};
use crate::error::{Error, Result};
use crate::receive::each_page;

/// A file that shares at least so many pages, and half of all, with a position descends from it.
const MANY_PAGES: usize = 16;
/// A server's database of up to so many bytes is fetched for its rows when no page is known.
const FEW_BYTES: u64 = 1 << 20;
/// If so many rows are gone at once, and none is left, it is another database.
const MANY_ROWS: u64 = 8;
/// With so many of the newest positions a small file is compared.
const MOST_COMPARED: usize = 64;
/// So far back a position is looked for that the file has something of.
const MOST_STEPS_BACK: usize = 16;
/// How much of a history is asked for the devices that made it.
const MOST_PUSHES: u32 = 10_000;

/// A copy of one of the server's positions, for as long as it is looked at.
struct Fetched {
    folder: tempfile::TempDir,
}

impl Fetched {
    fn path(&self) -> PathBuf {
        self.folder.path().join("server.db")
    }
}

impl Run<'_> {
    /// The position to take as the base of a file whose oldest fitting position is `oldest`. None:
    /// the file is a stranger.
    pub(crate) fn choose_descent(
        &self,
        all: &Delta,
        oldest: Position,
        oldest_txid: TxId,
        known_pages: u32,
    ) -> Result<Option<(Position, TxId)>> {
        let Some(info) = self.api.info()? else { return Ok(None) };
        let head = Position::try_from(&info.head).map_err(|error| self.api.bad(error.to_string()))?;
        let akin = share_most_pages(known_pages as usize, all);
        if head.state == oldest.state && akin {
            return self.not_by_chance(oldest, oldest_txid).map(Some);
        }
        let newest = self.fetch(head)?;
        let share = self.share_of(&newest)?;
        if share.is_whole() && self.nothing_was_deleted(oldest, &newest)? {
            return Ok(Some((head, TxId(info.txid))));
        }
        if akin || share.is_related() {
            return self.not_by_chance(oldest, oldest_txid).map(Some);
        }
        self.descent_by_rows()
    }

    /// The position, or an older one if nothing that came with it is in the file: pages can be as they are there by chance. The
    /// first page and the inner ones of a table are, when a copy that is behind grew by as much. What it never had would look deleted.
    fn not_by_chance(&self, mut position: Position, mut txid: TxId) -> Result<(Position, TxId)> {
        let log = self.api.log(None, MOST_PUSHES)?;
        let failed = |source| Error::Sqlite { db: self.files.db.clone(), source };
        let mut newer = self.fetch(position)?;
        let begin = txid.0;
        // They are in order, oldest first.
        let earlier = log.entries.iter().rev().filter(|entry| entry.txid < begin);
        for entry in earlier.take(MOST_STEPS_BACK) {
            let before =
                Position::try_from(&entry.position).map_err(|error| self.api.bad(error.to_string()))?;
            let older = self.fetch(before)?;
            let (newer_path, older_path) = (newer.path(), older.path());
            let came = newer_rows_kept(&newer_path, &newer_path, &older_path).map_err(failed)?;
            let kept = newer_rows_kept(&self.files.db, &newer_path, &older_path).map_err(failed)?;
            tracing::debug!(came, kept, at = %position.place(), "looked for the rows that came with the position");
            if came == 0 || kept > 0 {
                break;
            }
            (position, txid, newer) = (before, TxId(entry.txid), older);
        }
        Ok((position, txid))
    }

    /// The position that the rows of the file say it descends from, if it stands where one was synced before and the database
    /// is small: a backup that came back, and in which so many pages were changed since that the others say
    /// little. None: it is a stranger.
    ///
    /// From the oldest on, a position is taken if next to every row that came until then has left its trace in the file: of a row that
    /// has not, nobody knows whether it was deleted here or never was here, and what a file never had must not look deleted by it.
    pub(crate) fn descent_by_rows(&self) -> Result<Option<(Position, TxId)>> {
        let Some(remembered) = self.remembered else { return Ok(None) };
        let log = self.api.log(None, MOST_PUSHES)?;
        let size = u64::from(remembered.page_size.get());
        let is_small = |entry: &&LogEntry| u64::from(entry.page_count) * size <= FEW_BYTES;
        let candidates: Vec<_> = log.entries.iter().rev().take_while(is_small).take(MOST_COMPARED).collect();
        let complete = !log.more && candidates.len() == log.entries.len();
        let mut found: Option<(Fetched, Position, TxId)> = None;
        let mut is_oldest = true;
        for entry in candidates.into_iter().rev() {
            let position =
                Position::try_from(&entry.position).map_err(|error| self.api.bad(error.to_string()))?;
            let theirs = self.fetch(position)?;
            if let Some((older, ..)) = &found {
                let since = self.traces_of(&theirs, Some(older))?;
                tracing::debug!(?since, at = %position.place(), "looked for the rows that came since");
                if !since.show_that_all_came() {
                    continue;
                }
                is_oldest = false;
            }
            found = Some((theirs, position, TxId(entry.txid)));
        }
        // If it is the oldest of those that were looked at, it may descend from a still older one.
        let Some((theirs, position, txid)) = found.filter(|_| complete || !is_oldest) else {
            return Ok(None);
        };
        let (share, traces) = (self.share_of(&theirs)?, self.traces_of(&theirs, None)?);
        let many = traces.seen >= MANY_ROWS && traces.seen * 3 >= traces.rows;
        let is_akin = share.common_tables > 0
            && share.common_tables * 2 >= share.tables
            && (many || traces.seen * 2 >= traces.rows);
        tracing::debug!(?share, ?traces, at = %position.place(), "the rows say which position the file descends from");
        Ok(is_akin.then_some((position, txid)))
    }

    fn traces_of(&self, theirs: &Fetched, older: Option<&Fetched>) -> Result<Traces> {
        let older = older.map(Fetched::path);
        traces(&self.files.db, &theirs.path(), older.as_deref())
            .map_err(|source| Error::Sqlite { db: self.files.db.clone(), source })
    }

    /// Whether everything of the older position is still in the newer one, or only one device ever
    /// pushed: then what a copy has and the server has not was written here, and not deleted there.
    fn nothing_was_deleted(&self, older: Position, newer: &Fetched) -> Result<bool> {
        let log = self.api.log(None, MOST_PUSHES)?;
        let devices: std::collections::BTreeSet<&str> =
            log.entries.iter().map(|entry| entry.device.as_str()).collect();
        // All libSQL clients look like one device.
        let many = devices.contains(format!("{LIBSQL_NODE:016x}").as_str());
        if !log.more && devices.len() == 1 && !many {
            return Ok(true);
        }
        let older = self.fetch(older)?;
        self.compared(&newer.path(), &older.path()).map(|share| share.is_whole())
    }

    /// The server's head, if the local file has every row of it and it is small: then it can be the
    /// base of a file none of whose pages the server knows. None: the file is a stranger.
    pub(crate) fn small_head_by_rows(&self) -> Result<Option<(Position, TxId)>> {
        let Some(info) = self.api.info()? else { return Ok(None) };
        if u64::from(info.page_count) * u64::from(info.page_size) > FEW_BYTES {
            return Ok(None);
        }
        let head = Position::try_from(&info.head).map_err(|error| self.api.bad(error.to_string()))?;
        Ok(self.keeps_all_rows(head)?.then_some((head, TxId(info.txid))))
    }

    /// Whether the local file has everything of the server's database at `position`, and that is
    /// something.
    pub(crate) fn keeps_all_rows(&self, position: Position) -> Result<bool> {
        self.share_at(position).map(|share| share.rows > 0 && share.is_whole())
    }

    /// Whether the local file is `base` with some values set back to what they were at `older`, and
    /// perhaps rows added. No SQL brings a page back to the byte once rows were added to it, so an
    /// older copy lacks the keys that came since, or has given them to rows of its own.
    pub(crate) fn only_set_back(&self, base: Position, older: Position) -> Result<bool> {
        let (base, older) = (self.fetch(base)?, self.fetch(older)?);
        let failed = |source| Error::Sqlite { db: self.files.db.clone(), source };
        let share = self.share_of(&base)?;
        Ok(share.schema
            && share.keys == share.rows
            && new_values(&self.files.db, &base.path(), &older.path()).map_err(failed)? == 0)
    }

    /// Whether next to every row that came between `older` and `base` has left its trace in the local file, be it changed since, and
    /// no row is as it was at `older`.
    pub(crate) fn shows_what_came(&self, base: Position, older: Position) -> Result<bool> {
        let since = self.traces_of(&self.fetch(base)?, Some(&self.fetch(older)?))?;
        tracing::debug!(?since, "looked for the rows that came since the earlier state");
        Ok(since.show_that_all_came())
    }

    /// Whether the local file has rows that came between `older` and `base`. An older copy could have
    /// made equal ones anew; it would hardly have changed its size and back meanwhile, which the
    /// change counter tells.
    pub(crate) fn keeps_newer_rows(&self, base: Position, older: Position) -> Result<bool> {
        let (base, older) = (self.fetch(base)?, self.fetch(older)?);
        let failed = |source| Error::Sqlite { db: self.files.db.clone(), source };
        let kept = newer_rows_kept(&self.files.db, &base.path(), &older.path()).map_err(failed)?;
        tracing::debug!(kept, "counted the rows that came since the earlier state");
        Ok(kept > 0)
    }

    /// Whether nothing at all is undone when the file counts as `base` with changes: it has every row of it, some that came
    /// after `older`, and nothing that went since then.
    pub(crate) fn undoes_nothing(&self, base: Position, older: Position) -> Result<bool> {
        let (base, older) = (self.fetch(base)?, self.fetch(older)?);
        let failed = |source| Error::Sqlite { db: self.files.db.clone(), source };
        let (ours, base, older) = (&self.files.db, base.path(), older.path());
        Ok(self.compared(ours, &base)?.is_whole()
            && newer_rows_kept(ours, &base, &older).map_err(failed)? > 0
            && !is_back(ours, &base, &older).map_err(failed)?)
    }

    /// Whether a file that differs by `delta` from `base` has so much in common with it that it
    /// descends from it.
    pub(crate) fn descends_from(&self, delta: &Delta, base: Position) -> Result<bool> {
        let pages = delta.page_count.data_page_count(delta.page_size) as usize;
        let known = pages.saturating_sub(delta.changed.len());
        if share_most_pages(known, delta) {
            return Ok(true);
        }
        self.share_at(base).map(|share| share.is_related())
    }

    /// Refuses a file that has no page, and no table or no row, in common with what it is said to be
    /// based on: it is another database under the same name. That its log continues would prove
    /// otherwise.
    pub(crate) fn refuse_stranger(&self, delta: &Delta, base: Position) -> Result<()> {
        let pages = delta.page_count.data_page_count(delta.page_size) as usize;
        if delta.changed.len() < pages {
            return Ok(());
        }
        match self.share_at(base) {
            Ok(share) if share.tables > 0 && share.common_tables == 0 => Err(self.stranger()),
            Ok(share) if share.rows >= MANY_ROWS && share.kept == 0 && !share.was_rewritten() => {
                Err(self.stranger())
            }
            // The sync request itself will say what is wrong.
            Ok(_) | Err(Error::UnknownDatabase { .. } | Error::UnknownPosition { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How much of the server's database at `position` the local file has.
    fn share_at(&self, position: Position) -> Result<Share> {
        let share = self.share_of(&self.fetch(position)?)?;
        tracing::debug!(?share, at = %position.place(), "compared the rows");
        Ok(share)
    }

    fn share_of(&self, theirs: &Fetched) -> Result<Share> {
        self.compared(&self.files.db, &theirs.path())
    }

    fn compared(&self, ours: &Path, theirs: &Path) -> Result<Share> {
        compare(ours, theirs).map_err(|source| Error::Sqlite { db: self.files.db.clone(), source })
    }

    /// Fetches the server's database at `position`.
    fn fetch(&self, position: Position) -> Result<Fetched> {
        let failed =
            |source| Error::Io { what: "making a temporary folder in", path: std::env::temp_dir(), source };
        let fetched = Fetched { folder: tempfile::tempdir().map_err(failed)? };
        let query = format!("at={}", position.place());
        let mut answer = self
            .api
            .snapshot(Some(&query))?
            .ok_or_else(|| Error::UnknownDatabase { remote: self.api.remote.to_string() })?;
        let mut file = None;
        let header = each_page(self.api.plain_body(&mut answer), |header, page, data, _| {
            let target = match &mut file {
                Some(target) => target,
                empty => {
                    empty.insert(highwater_pages::NewDatabase::create(&fetched.path(), header.page_size)?)
                }
            };
            Ok(target.write(page, data)?)
        });
        let header = header.map_err(|error| self.receive_error(error))?;
        if let Some(file) = file {
            file.publish(header.commit)?;
        }
        Ok(fetched)
    }
}

/// Whether so many known pages are enough to say that a file descends from a position.
fn share_most_pages(known: usize, of: &Delta) -> bool {
    known >= MANY_PAGES && known * 2 >= of.page_count.0 as usize
}
