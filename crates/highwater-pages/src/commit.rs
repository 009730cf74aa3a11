//! Writing pages into a live database, in one atomic transaction.
//!
//! The order of steps:
//!
//! 1. a fresh connection takes the write lock (`BEGIN IMMEDIATE`): nobody else can commit now;
//! 2. the connection that captured the local state makes sure that the same file still stands at
//!    the path (it may have been replaced), and that it still has that state: by SQLite's own count of commits, or, when that moved, by looking at the pages again
//!    (a foreign checkpoint moves the count and changes nothing);
//! 3. pages are written from the highest to page 1 through `sqlite_dbpage`. Page 1 comes last, and
//!    the truncation after it: any later write would cancel the truncation;
//! 4. `COMMIT` with `synchronous=FULL`. Only then may the metadata say so.
//!
//! No ordinary SQL runs on the fresh connection in that transaction, because SQLite caches parsed
//! pages. Readers keep their snapshots; the next transaction of every connection sees the result.

use highwater_ltx::{PageCount, PageNo, PageSize, StateHash, planted};

use crate::canonical::{JOURNAL_MODE_BYTES, WAL_MODE};
use crate::error::{Error, Result};
use crate::kill::kill_point;
use crate::mark::Mark;
use crate::replica::{JournalMode, Replica};
use crate::sums::PageSums;

/// The journal-mode bytes of a file with a rollback journal.
const ROLLBACK_MODE: u8 = 1;

/// The local state that a commit builds on: what the capture saw.
#[derive(Debug, Clone, Copy)]
pub struct LocalState<'a> {
    /// From [`crate::Snapshot::data_version`].
    pub data_version: i64,
    /// The hash of the captured image.
    pub state: StateHash,
    /// The base that the capture compared with.
    pub base: Option<&'a PageSums>,
    /// The mark that the capture read on from.
    pub since: Option<&'a Mark>,
}

/// Pages to write, and the size of the database with them.
pub struct NewPages<'a> {
    /// Of the database.
    pub page_size: PageSize,
    /// Size of the database after the commit.
    pub page_count: PageCount,
    /// Page numbers, ascending.
    pub pages: &'a [PageNo],
    /// Reads the canonical content of one of `pages`.
    pub read: &'a mut dyn FnMut(PageNo, &mut Vec<u8>) -> std::io::Result<()>,
    /// Is told pages done and pages in all.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

impl std::fmt::Debug for NewPages<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewPages")
            .field("page_count", &self.page_count)
            .field("pages", &self.pages.len())
            .finish_non_exhaustive()
    }
}

/// The write lock of a file, and the transaction that holds it. Dropping it rolls back.
#[derive(Debug)]
pub struct WriteLock {
    writer: Replica,
    mode: JournalMode,
    count: PageCount,
}

impl Replica {
    /// Commits `new` on top of `local`.
    ///
    /// Fails with [`Error::ChangedSince`] and writes nothing when the file is not in the state
    /// `local` any more.
    pub fn commit(&mut self, local: LocalState<'_>, new: &mut NewPages<'_>) -> Result<()> {
        let lock = self.lock_writes()?;
        self.commit_locked(lock, local, new)
    }

    /// Takes the write lock: until it is dropped, nobody else can commit.
    pub fn lock_writes(&self) -> Result<WriteLock> {
        let writer = self.reopen()?;
        writer.refuse_read_only()?;
        let flushed = if planted("commit-not-flushed") { "OFF" } else { "FULL" };
        writer.execute("writing", &format!("PRAGMA replica.synchronous={flushed}"))?;
        let mode = writer.journal_mode()?;
        writer.execute("taking the write lock", "BEGIN IMMEDIATE")?;
        // Not before: somebody else may have let the file grow until then.
        let count = writer.page_count()?;
        Ok(WriteLock { writer, mode, count })
    }

    /// As [`Replica::commit`], with a lock that was taken before.
    pub fn commit_locked(
        &mut self,
        lock: WriteLock,
        local: LocalState<'_>,
        new: &mut NewPages<'_>,
    ) -> Result<()> {
        let WriteLock { writer, mode, count } = lock;
        let written = self.still_is(&writer, local).and_then(|()| writer.write(new, mode, count));
        match written.and_then(|()| {
            kill_point("commit.before");
            writer.execute("committing", "COMMIT")
        }) {
            Ok(()) => {
                kill_point("commit.after");
                Ok(())
            }
            Err(error) => {
                // The connection is dropped right after, which rolls back as well.
                if let Err(rollback) = writer.execute("rolling back", "ROLLBACK") {
                    tracing::debug!(%rollback, "the failed transaction had ended already");
                }
                Err(error)
            }
        }
    }

    /// Whether the file still has the captured state. Only meaningful under the write lock.
    fn still_is(&mut self, writer: &Self, local: LocalState<'_>) -> Result<()> {
        if planted("no-check-under-the-lock") {
            return Ok(());
        }
        if !self.is_same_file(writer) {
            return Err(Error::ChangedSince { path: self.path.clone() });
        }
        if self.data_version()? == local.data_version {
            return Ok(());
        }
        let path = self.path.clone();
        let now = self.snapshot(None)?;
        let suspects = now.suspects(local.since)?;
        let now = now.diff(local.base, &suspects, &mut |_, _| ())?;
        if now.state == local.state { Ok(()) } else { Err(Error::ChangedSince { path }) }
    }

    fn write(&self, new: &mut NewPages<'_>, mode: JournalMode, old_count: PageCount) -> Result<()> {
        let failed = |source| self.failed("writing", source);
        let mut insert = self
            .conn
            .prepare("INSERT INTO sqlite_dbpage(pgno, data, schema) VALUES (?1, ?2, 'replica')")
            .map_err(failed)?;
        let mut data = Vec::with_capacity(new.page_size.as_usize());
        let total = new.pages.len() as u64;
        for (done, page) in new.pages.iter().rev().enumerate() {
            (new.read)(*page, &mut data)
                .map_err(|source| Error::io(&self.path, "fetching pages for", source))?;
            if page.0 == 1 && mode == JournalMode::Rollback {
                data.get_mut(JOURNAL_MODE_BYTES).unwrap_or_default().fill(ROLLBACK_MODE);
            }
            insert.execute((page.0, &data)).map_err(failed)?;
            if done % 1024 == 1023 {
                kill_point("commit.writing");
                (new.progress)(done as u64 + 1, total);
            }
        }
        if new.page_count < old_count {
            insert.execute((new.page_count.0 + 1, rusqlite::types::Null)).map_err(failed)?;
        }
        Ok(())
    }

    /// Gives a blank database (see [`Replica::is_blank`]) the page size of what it will receive,
    /// and WAL mode. Needs that nobody else holds it open when the page size differs.
    pub fn prepare_blank(&self, wanted: PageSize) -> Result<()> {
        let local = self.page_size()?;
        if local != wanted {
            let sql = format!(
                "PRAGMA replica.journal_mode=DELETE; PRAGMA replica.page_size={wanted}; VACUUM replica;"
            );
            let changed = self.execute("changing the page size of", &sql);
            if changed.is_err() || self.page_size()? != wanted {
                return Err(Error::PageSizeFixed {
                    path: self.path.clone(),
                    local: local.get(),
                    wanted: wanted.get(),
                });
            }
        }
        self.enable_wal().map(drop)
    }
}

/// The value that canonical pages carry in their journal-mode bytes is WAL's.
const _: () = assert!(WAL_MODE == 2);
