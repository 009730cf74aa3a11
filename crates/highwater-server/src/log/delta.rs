//! A delta that a client sent, read and checked as far as it can be without the database.

use highwater_ltx::{PageCount, PageIndex, PageNo, PageSize, StateHash};
use highwater_pages::PageHash;
use object_store::path::Path;

use super::append::Planned;
use crate::store::Store;

/// What a client's body said.
#[derive(Debug)]
pub(crate) struct Delta {
    pub(crate) page_size: PageSize,
    /// The size of the database after it.
    pub(crate) commit: PageCount,
    /// The state after it, as the client claims.
    pub(crate) state: StateHash,
    /// How many frames of the history it takes: one for each page, or, from a write-ahead log that
    /// wrote pages more than once, as many as that log has.
    pub(crate) frames: u64,
    /// Its pages, ascending, with the hashes of the images that came.
    pub(crate) pages: Vec<(PageNo, PageHash)>,
    pub(crate) images: DeltaImages,
}

/// Where the images of a delta are.
#[derive(Debug)]
pub(crate) enum DeltaImages {
    /// One after the other, in the order of [`Delta::pages`].
    Memory(Vec<u8>),
    /// In a file of the store that is already in its final form.
    Staged(Staged),
    /// Nowhere: they were only checked, for they cannot be accepted.
    Dropped,
}

/// A file that only waits for its name.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) path: Path,
    /// What its header says.
    pub(crate) planned: Planned,
    pub(crate) index: PageIndex,
    /// In bytes.
    pub(crate) size: u64,
}

impl Delta {
    /// Removes the file of a delta that was not appended.
    pub(crate) async fn discard(self, store: &Store) {
        if let DeltaImages::Staged(staged) = self.images {
            store.remove(&staged.path).await;
        }
    }

    /// Whether every page that a database of this size has and one of `before` pages has not is in
    /// the delta. Says which is missing.
    pub(crate) fn missing_growth(&self, before: PageCount) -> Option<PageNo> {
        let new = self.pages.partition_point(|(page, _)| page.0 <= before.0);
        let mut sent = self.pages.get(new..).unwrap_or_default().iter().map(|(page, _)| *page);
        let lock = self.page_size.lock_page();
        (before.0.saturating_add(1)..=self.commit.0)
            .map(PageNo)
            .filter(|page| *page != lock)
            .find(|page| sent.next() != Some(*page))
    }
}
