//! Reading a consistent image of a live database, and finding what changed in it since a base.
//!
//! The order of steps that makes it miss nothing, whatever other processes do:
//!
//! 1. take the next [`Mark`];
//! 2. begin a read transaction: from here on, the image is fixed;
//! 3. collect what may have changed since the *last* mark;
//! 4. read those pages and compare their hashes with the page sums of the base. The log only
//!    narrows the search; what counts is the content of the pages.
//!
//! The transaction should end soon: while it lives, the application's log cannot be recycled.

use highwater_ltx::{PageCount, PageNo, PageSize, StateHash};

use crate::canonical::{canonical, canonicalise_first_page};
use crate::error::Result;
use crate::hash::{PageHash, StateSum, page_hash};
use crate::mark::{Mark, Suspects};
use crate::replica::Replica;
use crate::sums::PageSums;
use crate::wal::{self, LostReason};

/// Pages of a capture are kept in memory up to this many bytes, so that a small delta is read once.
const KEEP_BYTES: usize = 8 << 20;

/// How often a full scan reports, in pages.
const REPORT_EVERY: u64 = 4096;

/// A fixed image of the database: an open read transaction.
#[derive(Debug)]
pub struct Snapshot<'a> {
    replica: ReadTransaction<'a>,
    page_size: PageSize,
    page_count: PageCount,
    data_version: i64,
    change_counter: u32,
    next_mark: Mark,
}

/// What differs between a base and an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Of the image.
    pub page_size: PageSize,
    /// Of the image.
    pub page_count: PageCount,
    /// The hash of the image.
    pub state: StateHash,
    /// Pages of the image that the base lacks or has otherwise, ascending.
    pub changed: Vec<(PageNo, PageHash)>,
    /// Whether the image has another size than the base.
    pub resized: bool,
    /// Pages that were read to find out.
    pub scanned: u64,
    /// The contents of `changed` in canonical form, one after the other, when they are small.
    kept: Option<Vec<u8>>,
}

impl Delta {
    /// No difference to a base of this shape and state.
    #[must_use]
    pub fn nothing(page_size: PageSize, page_count: PageCount, state: StateHash) -> Self {
        Self { page_size, page_count, state, changed: Vec::new(), resized: false, scanned: 0, kept: None }
    }

    /// What differs from another base, when this holds every page of the image (as after
    /// [`Snapshot::diff`] without a base).
    #[must_use]
    pub fn against(&self, base: &PageSums) -> Self {
        let differs = |(page, hash): &&(PageNo, PageHash)| base.get(*page) != Some(*hash);
        Self {
            changed: self.changed.iter().filter(differs).copied().collect(),
            resized: self.page_count != base.page_count(),
            kept: None,
            ..Self::nothing(self.page_size, self.page_count, self.state)
        }
    }

    /// The changed pages' hashes by page number, from page 1 to the last; zero for all others.
    #[must_use]
    pub fn hashes_by_page(&self) -> Vec<u128> {
        let mut all = vec![0; self.page_count.0 as usize];
        for (page, hash) in &self.changed {
            if let Some(slot) = (page.0 as usize).checked_sub(1).and_then(|at| all.get_mut(at)) {
                *slot = hash.0;
            }
        }
        all
    }

    /// Whether the image is the base.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && !self.resized
    }

    /// The changed pages' contents, canonical, ascending, if they were kept in memory.
    #[must_use]
    pub fn kept_pages(&self) -> Option<impl Iterator<Item = (PageNo, &[u8])>> {
        let size = self.page_size.as_usize();
        self.kept
            .as_ref()
            .map(|bytes| self.changed.iter().map(|(page, _)| *page).zip(bytes.chunks_exact(size)))
    }
}

impl Replica {
    /// Begins a read transaction. `since` is the last capture's mark, from which the next mark is
    /// read on.
    pub fn snapshot(&mut self, since: Option<&Mark>) -> Result<Snapshot<'_>> {
        let next_mark = Mark::take(&self.path, since)?;
        let replica = ReadTransaction::begin(self)?;
        // The first read fixes the image.
        let page_count = replica.0.page_count()?;
        let page_size = replica.0.page_size()?;
        let data_version = replica.0.data_version()?;
        let change_counter = replica.0.change_counter(page_count)?;
        Ok(Snapshot { replica, page_size, page_count, data_version, change_counter, next_mark })
    }
}

/// An open transaction that ends when it is dropped.
#[derive(Debug)]
struct ReadTransaction<'a>(&'a Replica);

impl<'a> ReadTransaction<'a> {
    fn begin(replica: &'a Replica) -> Result<Self> {
        replica.execute("reading", "BEGIN")?;
        Ok(Self(replica))
    }
}

impl Drop for ReadTransaction<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.conn.execute_batch("ROLLBACK") {
            tracing::debug!(%error, "ending a read transaction failed");
        }
    }
}

impl Snapshot<'_> {
    /// Of the image.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Of the image.
    #[must_use]
    pub fn page_count(&self) -> PageCount {
        self.page_count
    }

    /// What SQLite's `data_version` goes on to be, on the same [`Replica`], as long as nobody else
    /// commits.
    #[must_use]
    pub fn data_version(&self) -> i64 {
        self.data_version
    }

    /// The file change counter of page 1: SQLite counts it up with every commit that writes page 1,
    /// and never down. So a file with a smaller one than before is an older copy.
    #[must_use]
    pub fn change_counter(&self) -> u32 {
        self.change_counter
    }

    /// One page in canonical form.
    pub fn read(&self, page: PageNo, into: &mut Vec<u8>) -> Result<()> {
        self.replica.0.read_page(page, into)?;
        if page.0 == 1 {
            canonicalise_first_page(into);
        }
        Ok(())
    }

    /// Which pages may have changed since the capture that left this mark. None: any page.
    pub fn suspects(&self, since: Option<&Mark>) -> Result<Suspects> {
        match since {
            None => Ok(Suspects::All(LostReason::NoMark)),
            Some(mark) => mark.suspects(&self.replica.0.path, self.page_size),
        }
    }

    /// Where the next capture looks on. Moves the mark that was taken before the image was fixed over
    /// the log's last transaction, if the image proves to contain it: else every later capture
    /// would look at that transaction's pages again.
    pub fn next_mark(&self) -> Result<Mark> {
        let Some(before) = self.next_mark.wal else { return Ok(self.next_mark) };
        let mut here = Vec::new();
        let wal = wal::advance(&self.replica.0.wal_path(), &before, self.page_count, &mut |page, raw| {
            self.read(page, &mut here)?;
            Ok(*canonical(page, raw) == *here)
        })?;
        Ok(Mark { wal: Some(wal), ..self.next_mark })
    }

    /// What differs from the base whose page sums these are (None: everything does), when only
    /// `suspects` can differ. `progress` is told pages done and pages in all.
    pub fn diff(
        &self,
        base: Option<&PageSums>,
        suspects: &Suspects,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Delta> {
        let mut found = Found::new(self, base);
        match suspects {
            Suspects::Some(candidates) if base.is_some() => {
                let floor = found.floor(candidates.smallest_commit);
                let grown = (floor.0.saturating_add(1)..=self.page_count.0).map(PageNo);
                let listed = candidates.pages.iter().copied().filter(|page| *page <= PageNo(floor.0));
                self.scan_some(&mut found, listed.chain(grown))?;
            }
            Suspects::Nothing if base.is_some() => {}
            _ => self.scan_all(&mut found, progress)?,
        }
        Ok(found.into_delta())
    }

    fn scan_some(&self, found: &mut Found<'_>, pages: impl Iterator<Item = PageNo>) -> Result<()> {
        let mut data = Vec::with_capacity(self.page_size.as_usize());
        let lock = self.page_size.lock_page();
        for page in pages.filter(|page| *page != lock && self.page_count.contains(*page)) {
            self.read(page, &mut data)?;
            found.look_at(page, &data);
        }
        Ok(())
    }

    fn scan_all(&self, found: &mut Found<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let failed = |source| self.replica.0.failed("reading", source);
        let total = u64::from(self.page_count.0);
        let lock = self.page_size.lock_page();
        let mut first = Vec::new();
        let conn = &self.replica.0.conn;
        let mut statement =
            conn.prepare_cached("SELECT pgno, data FROM sqlite_dbpage('replica')").map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let page = PageNo(row.get(0).map_err(failed)?);
            if page == lock {
                continue;
            }
            let data = row.get_ref(1).map_err(failed)?.as_blob().map_err(|source| failed(source.into()))?;
            if page.0 == 1 {
                first.extend_from_slice(data);
                canonicalise_first_page(&mut first);
                found.look_at(page, &first);
            } else {
                found.look_at(page, data);
            }
            if u64::from(page.0) % REPORT_EVERY == 0 {
                progress(u64::from(page.0), total);
            }
        }
        Ok(())
    }
}

/// What a comparison has found so far.
struct Found<'a> {
    page_size: PageSize,
    page_count: PageCount,
    base: Option<&'a PageSums>,
    base_count: PageCount,
    sum: StateSum,
    changed: Vec<(PageNo, PageHash)>,
    kept: Option<Vec<u8>>,
    scanned: u64,
}

impl<'a> Found<'a> {
    fn new(snapshot: &Snapshot<'_>, base: Option<&'a PageSums>) -> Self {
        let (page_size, page_count) = (snapshot.page_size, snapshot.page_count);
        let base_count = base.map_or(PageCount(0), PageSums::page_count);
        let mut sum = base.map_or(StateSum::EMPTY, |sums| {
            StateSum::from_state(sums.position().state, base_count, page_size)
        });
        if let Some(sums) = base {
            let gone = page_count.0.saturating_add(1)..=base_count.0;
            gone.filter_map(|page| sums.get(PageNo(page))).for_each(|hash| sum.remove(hash));
        }
        Self {
            page_size,
            page_count,
            base,
            base_count,
            sum,
            changed: Vec::new(),
            kept: Some(Vec::new()),
            scanned: 0,
        }
    }

    /// Pages above this one may have been dropped and have come back without a frame in the log.
    fn floor(&self, smallest_commit: Option<PageCount>) -> PageCount {
        smallest_commit.map_or(self.base_count, |count| count.min(self.base_count))
    }

    fn look_at(&mut self, page: PageNo, canonical: &[u8]) {
        self.scanned += 1;
        let hash = page_hash(page, canonical);
        let old = self.base.and_then(|sums| sums.get(page));
        if old == Some(hash) {
            return;
        }
        if let Some(old) = old {
            self.sum.remove(old);
        }
        self.sum.add(hash);
        self.changed.push((page, hash));
        match &mut self.kept {
            Some(kept) if kept.len() + canonical.len() <= KEEP_BYTES => kept.extend_from_slice(canonical),
            kept => *kept = None,
        }
    }

    fn into_delta(self) -> Delta {
        Delta {
            page_size: self.page_size,
            page_count: self.page_count,
            state: self.sum.state(self.page_count, self.page_size),
            changed: self.changed,
            resized: self.base.is_none() && self.page_count.0 > 0 || self.base_count != self.page_count,
            scanned: self.scanned,
            kept: self.kept,
        }
    }
}
