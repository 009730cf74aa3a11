//! A fixed image of a live database that can be kept while others write to the file.
//!
//! It is a read transaction on a connection of its own, so it costs no copy. Invariant: as long as it lives, the log
//! behind it cannot be recycled; it should not live longer than a request takes. In a file with a rollback journal
//! a read transaction would keep everybody from committing: there is none to be had.

use std::io;
use std::sync::{Mutex, PoisonError};

use highwater_ltx::{PageCount, PageNo, PageSize};

use crate::canonical::canonicalise_first_page;
use crate::capture::Snapshot;
use crate::error::{Error, Result};
use crate::mark::Mark;
use crate::owners::PageSource;
use crate::replica::{JournalMode, Replica};

/// A database as it was at one moment. Reads canonical pages, from any thread.
#[derive(Debug)]
pub struct Image {
    /// In a read transaction, which ends with the connection.
    replica: Mutex<Replica>,
    page_size: PageSize,
    page_count: PageCount,
}

impl Image {
    /// The image that a reader sees now, through a connection of its own ([`Replica::another`]).
    pub fn begin(replica: Replica) -> Result<Self> {
        replica.execute("reading", "BEGIN")?;
        // The first read fixes the image.
        let page_count = replica.page_count()?;
        let page_size = replica.page_size()?;
        Ok(Self { replica: Mutex::new(replica), page_size, page_count })
    }
}

impl PageSource for Image {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn page_count(&self) -> PageCount {
        self.page_count
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        let replica = self.replica.lock().unwrap_or_else(PoisonError::into_inner);
        replica.read_page(page, into).map_err(io::Error::other)?;
        if page.0 == 1 {
            canonicalise_first_page(into);
        }
        Ok(())
    }
}

impl Replica {
    /// Another connection to the same file. Fails with [`Error::ChangedSince`] if another file stands at its path now.
    pub fn another(&self) -> Result<Self> {
        let other = self.reopen()?;
        if self.is_same_file(&other) {
            Ok(other)
        } else {
            Err(Error::ChangedSince { path: self.path.clone() })
        }
    }

    /// A snapshot (see [`Replica::snapshot`]) and an image of the same state. Nobody can commit between the two, which takes as
    /// long as two reads. None instead of the image: the file has a rollback journal or is read-only, or somebody
    /// has been writing for longer than the busy timeout.
    pub fn snapshot_and_image(&mut self, since: Option<&Mark>) -> Result<(Snapshot<'_>, Option<Image>)> {
        if self.journal_mode()? == JournalMode::Rollback {
            return Ok((self.snapshot(since)?, None));
        }
        let keeper = self.another()?;
        let lock = match self.lock_writes() {
            Err(Error::Busy { .. } | Error::ReadOnly { .. }) => return Ok((self.snapshot(since)?, None)),
            lock => lock?,
        };
        let image = Image::begin(keeper)?;
        let snapshot = self.snapshot(since)?;
        drop(lock);
        Ok((snapshot, Some(image)))
    }
}
