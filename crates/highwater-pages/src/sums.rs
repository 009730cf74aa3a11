//! The page sums: the hash of every page of a database at the position that is its base.
//!
//! In memory they are 16 bytes a page ([`PageSums`]). On disk they are the file `<db>-sums`: a
//! table of all hashes, and behind it a segment for each change since, so that keeping it current
//! costs as much as the change does. The byte tables stand in `docs/FORMATS.md`.
//!
//! # Invariants
//! - The file is a cache. It is used only for the exact position that its reader asks for, and
//!   only if the checksum of every part holds and the hashes add up to that position's state hash.
//!   Anything else is an answer ([`Loaded`]), never an error, and never other sums.
//! - Each part's checksum continues from the part before it: a segment counts only in its place
//!   behind its own table.
//! - Nothing is synced to disk: a power cut may cost the cache, not more.
//!
//! A file may be ahead of the position that is asked for (its process died between this file and
//! the metadata). Then what is ahead is ignored, and cut off by the next [`PageSums::append`].
//! One process at a time may write a file.

mod file;
mod format;

use std::collections::BTreeSet;

use highwater_ltx::{PageCount, PageNo, PageSize, Position, StateHash};

use crate::hash::{PageHash, StateSum};
use file::OnDisk;

/// How a page without a hash stands in tables: the lock page, and pages never hashed.
const NONE: u128 = 0;

/// The hash of every page of a database at one position.
#[derive(Debug, Clone)]
pub struct PageSums {
    position: Position,
    page_size: PageSize,
    /// Of page n+1 at n.
    hashes: Vec<u128>,
    /// Pages whose entry differs from what is on disk.
    unsaved: BTreeSet<PageNo>,
    on_disk: Option<OnDisk>,
}

/// What a file of page sums turned out to hold.
#[derive(Debug)]
pub enum Loaded {
    /// The sums at the position that was asked for.
    Valid(PageSums),
    /// There is no file.
    Missing,
    /// The file is whole, but of other positions.
    Stale {
        /// The last position in it.
        found: Position,
    },
    /// The file does not prove what it says.
    Corrupt {
        /// What is wrong, as the end of a sentence: "its checksum is wrong".
        reason: &'static str,
    },
}

impl PageSums {
    /// Sums of `count` pages of which no hash is known yet; [`PageSums::apply`] fills them.
    #[must_use]
    pub fn new(position: Position, page_size: PageSize, count: PageCount) -> Self {
        Self {
            position,
            page_size,
            hashes: vec![NONE; count.0 as usize],
            unsaved: BTreeSet::new(),
            on_disk: None,
        }
    }

    /// The hash of a page; `None` beyond the end, for the lock page, and where none is known.
    #[must_use]
    pub fn get(&self, page: PageNo) -> Option<PageHash> {
        let index = page.0.checked_sub(1)? as usize;
        self.hashes.get(index).filter(|hash| **hash != NONE).map(|hash| PageHash(*hash))
    }

    /// The position that the sums are of.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The size of the database at that position.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "made from a PageCount")]
    pub fn page_count(&self) -> PageCount {
        PageCount(self.hashes.len() as u32)
    }

    /// The size of the database's pages.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The hashes in order of pages, from page 1.
    pub fn iter(&self) -> impl Iterator<Item = (PageNo, PageHash)> + '_ {
        (1..).map(PageNo).zip(&self.hashes).filter(|(_, hash)| **hash != NONE).map(|(p, h)| (p, PageHash(*h)))
    }

    /// Moves the sums to another position: the database now has `count` pages, of which `changes`
    /// have new hashes. Pages beyond `count` are forgotten; pages that the database grew by have
    /// no hash unless it is among the changes. The lock page and page 0 are left out.
    pub fn apply(&mut self, changes: &[(PageNo, PageHash)], count: PageCount, position: Position) {
        let old = self.page_count();
        self.hashes.resize(count.0 as usize, NONE);
        if self.on_disk.is_some() {
            self.unsaved.split_off(&PageNo(count.0.saturating_add(1)));
            self.unsaved.extend((old.0.saturating_add(1)..=count.0).map(PageNo));
        }
        for (page, hash) in changes {
            self.set(*page, *hash);
        }
        self.position = position;
    }

    fn set(&mut self, page: PageNo, hash: PageHash) {
        if page == self.page_size.lock_page() {
            return;
        }
        let Some(index) = page.0.checked_sub(1) else { return };
        if let Some(slot) = self.hashes.get_mut(index as usize) {
            *slot = hash.0;
            if self.on_disk.is_some() {
                self.unsaved.insert(page);
            }
        }
    }

    /// The hash of the state that these sums make. Where it is not that of [`PageSums::position`],
    /// the sums are not of that position.
    #[must_use]
    pub fn state(&self) -> StateHash {
        let mut sum = StateSum::EMPTY;
        for hash in &self.hashes {
            sum.add(PageHash(*hash));
        }
        sum.state(self.page_count(), self.page_size)
    }
    /// The hash of the state that is these sums' with `count` pages, of which `changes` (ascending) have other hashes. Costs as
    /// much as the change does. None: a page would have no hash.
    #[must_use]
    pub fn state_with(&self, changes: &[(PageNo, PageHash)], count: PageCount) -> Option<StateHash> {
        let (size, before) = (self.page_size, self.page_count());
        let mut sum = StateSum::from_state(self.position.state, before, size);
        for page in count.0.saturating_add(1)..=before.0 {
            if let Some(old) = self.get(PageNo(page)) {
                sum.remove(old);
            }
        }
        let grown = changes.iter().filter(|(page, _)| *page > PageNo(before.0)).count();
        let expected = count.data_page_count(size).saturating_sub(before.data_page_count(size));
        if grown != expected as usize {
            return None;
        }
        for (page, hash) in changes {
            if let Some(old) = self.get(*page) {
                sum.remove(old);
            }
            sum.add(*hash);
        }
        Some(sum.state(count, size))
    }
}
