//! Finding where a client's copy is in the history, from its content alone.
//!
//! Each page hash of the copy was current over some positions; a hash that the log never had is a
//! local change and says nothing. The base is the one that the client names, if the known pages
//! allow it, and else the earliest position that they allow: taking a later one would make old
//! pages look like changes and push them back in time.
//!
//! Only pages that files in question wrote are looked at. Starting from the base that the client
//! names, the window goes back as long as every page of the file before it differs from the copy: a
//! page that is equal, and was written there, rules out what is older. If the window allows no
//! position, the whole history is searched, for a page may have got an older content back.
//!
//! Without a named base the whole history is searched at once, if it is not too long: a page can be equal by
//! chance (a counter of ids that two devices moved alike), and then the pages contradict each other. The position
//! that shares most pages is taken, and of several the oldest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use highwater_ltx::{PageCount, PageNo, PageSize, Position, TxId};
use highwater_pages::PageHash;
use highwater_wire::{LocateRequest, SumsOf};

use super::Database;
use super::delta::Delta;
use super::entries::Entry;
use super::file::StoredFile;
use super::images::{ImageAt, Images};
use crate::Result;

/// The most page images that the search of the whole history reads.
const MOST_READ: usize = 1 << 18;

/// Where a copy is.
#[derive(Debug)]
pub(crate) enum Located {
    /// It is this position.
    Exact(Entry),
    /// It is this position with changes; so many of its pages are the position's own.
    Base(Entry, u32),
    /// It is of another database, or of a position that is not retained.
    Stranger,
    /// The base that the request names is not in the retained history.
    UnknownBase,
}

/// The copy, as a difference to a position of the log.
struct Copy {
    /// That position.
    reference: TxId,
    page_count: PageCount,
    /// The pages that are not the position's, with their hashes in the copy.
    differing: BTreeMap<PageNo, PageHash>,
}

/// The versions of one page over a window: from which position on, and its hash there.
type Versions = Vec<(TxId, PageHash)>;

impl Database {
    /// Finds the position that a copy is at, or was at before it was changed.
    pub(crate) async fn locate(
        &self,
        request: LocateRequest,
        base: Option<Position>,
    ) -> Result<Option<Located>> {
        self.refresh().await?;
        let known = self.read(|log| {
            let same_size = log.page_size == request.page_size;
            (same_size, same_size.then(|| log.newest_of(request.state).cloned()).flatten())
        });
        let Some((same_size, exact)) = known else { return Ok(None) };
        if let Some(entry) = exact {
            return Ok(Some(Located::Exact(entry)));
        }
        if !same_size {
            return Ok(Some(Located::Stranger));
        }
        let copy = match request.sums {
            SumsOf::Nothing => return Ok(Some(Located::Stranger)),
            SumsOf::Changed(pages) => {
                let found = self.read(|log| base.and_then(|base| log.find(base)).map(|entry| entry.txid));
                let Some(reference) = found.flatten() else { return Ok(Some(Located::UnknownBase)) };
                let differing = pages.into_iter().map(|(page, sum)| (page, PageHash(sum))).collect();
                Copy { reference, page_count: request.page_count, differing }
            }
            SumsOf::All(sums) => self.compare_with_head(&sums, request.page_size).await?,
        };
        let found = self.find_base(&copy, request.page_size, base.is_some()).await?;
        Ok(Some(found.unwrap_or(Located::Stranger)))
    }

    /// Whether a copy with this delta on `base` is rather an earlier position, or that with changes
    /// on top: what its client cannot exclude when it lost sight of its file for a while.
    pub(super) async fn earlier_state(&self, base: Position, delta: &Delta) -> Result<Option<Entry>> {
        let found = self.read(|log| {
            let base = log.find(base)?.txid;
            Some((base, log.newest_of(delta.state).filter(|entry| entry.txid < base).cloned()))
        });
        let Some((reference, exact)) = found.flatten() else { return Ok(None) };
        if exact.is_some() {
            return Ok(exact);
        }
        let differing = delta.pages.iter().copied().collect();
        let copy = Copy { reference, page_count: delta.commit, differing };
        let found = self.find_base(&copy, delta.page_size, true).await?;
        Ok(match found {
            Some(Located::Base(entry, _)) if entry.txid < reference => Some(entry),
            _ => None,
        })
    }

    async fn compare_with_head(&self, sums: &[u128], size: PageSize) -> Result<Copy> {
        let head = self.read(|log| (log.head().txid, log.head().page_count));
        let (reference, count) = head.unwrap_or((TxId::FIRST, PageCount(0)));
        let own: HashMap<PageNo, PageHash> =
            self.head_hashes(count.data_pages(size)).await?.into_iter().collect();
        let lock = size.lock_page();
        let differing = (1..)
            .map(PageNo)
            .zip(sums.iter().map(|sum| PageHash(*sum)))
            .filter(|(page, hash)| *page != lock && own.get(page) != Some(hash))
            .collect();
        let page_count = PageCount(u32::try_from(sums.len()).unwrap_or(u32::MAX));
        Ok(Copy { reference, page_count, differing })
    }

    async fn find_base(&self, copy: &Copy, size: PageSize, hinted: bool) -> Result<Option<Located>> {
        let oldest = self.read(|log| log.oldest().txid).unwrap_or(copy.reference);
        let short = self.pages_since(oldest, copy.reference).await? <= MOST_READ;
        let start = if hinted || !short { self.window_start(copy, oldest).await? } else { oldest };
        let mut base = self.earliest(copy, size, start, hinted).await?;
        if base.is_none() && start > oldest && short {
            base = self.earliest(copy, size, oldest, hinted).await?;
        }
        // What the client remembers is better than nothing, but nothing is better than a guess.
        let base = base.or_else(|| hinted.then_some((copy.reference, self.equal_at_reference(copy, size))));
        let Some((txid, known)) = base.filter(|(_, known)| hinted || *known > 0) else { return Ok(None) };
        Ok(self.read(|log| log.entry(txid).cloned()).flatten().map(|entry| Located::Base(entry, known)))
    }

    /// How many pages of the copy are those of its reference.
    fn equal_at_reference(&self, copy: &Copy, size: PageSize) -> u32 {
        let count = self.read(|log| log.entry(copy.reference).map(|entry| entry.page_count)).flatten();
        let common = PageCount(count.unwrap_or_default().0.min(copy.page_count.0));
        let differing = copy.differing.keys().filter(|page| common.contains(**page)).count();
        common.data_page_count(size).saturating_sub(u32::try_from(differing).unwrap_or(u32::MAX))
    }

    /// The files after `from` up to `to`, oldest first.
    fn files_between(&self, from: TxId, to: TxId) -> Vec<(TxId, Arc<StoredFile>)> {
        self.read(|log| {
            let entries = log.after(from).iter().take_while(|entry| entry.txid <= to);
            entries.filter_map(|entry| Some((entry.txid, entry.file.clone()?))).collect()
        })
        .unwrap_or_default()
    }

    async fn pages_since(&self, from: TxId, to: TxId) -> Result<usize> {
        let mut pages = 0;
        for (_, file) in self.files_between(from, to) {
            pages += file.index(&self.context.store, &self.name).await?.len();
        }
        Ok(pages)
    }

    /// The oldest position that the pages which the copy shares with its reference allow.
    async fn window_start(&self, copy: &Copy, oldest: TxId) -> Result<TxId> {
        for (txid, file) in self.files_between(oldest, copy.reference).into_iter().rev() {
            let index = file.index(&self.context.store, &self.name).await?;
            let differs =
                |page: PageNo| copy.differing.contains_key(&page) || !copy.page_count.contains(page);
            if !index.iter().all(|entry| differs(entry.page)) {
                return Ok(txid);
            }
        }
        Ok(oldest)
    }

    /// The earliest position from `start` to the reference that every known page allows (or the
    /// reference itself, if it is allowed and the client named it), and how many pages of the copy
    /// are its own. Where the pages contradict each other and no base was named, the one with most of them.
    async fn earliest(
        &self,
        copy: &Copy,
        size: PageSize,
        start: TxId,
        hinted: bool,
    ) -> Result<Option<(TxId, u32)>> {
        let versions = self.versions(copy, start).await?;
        let length = usize::try_from(copy.reference.0 - start.0).unwrap_or(0) + 1;
        let mut allowed = vec![true; length];
        // For each position, by how much the number of equal pages differs from the reference.
        let mut equal = vec![0i64; length];
        for (page, versions) in &versions {
            let at_reference = versions.last().map(|(_, hash)| *hash);
            let local = copy.differing.get(page).copied().or(at_reference);
            let mut matches = vec![false; length];
            for (number, (from, hash)) in versions.iter().enumerate() {
                let next = versions.get(number + 1).map_or(copy.reference.next(), |(next, _)| *next);
                let place = |txid: TxId| usize::try_from(txid.0.saturating_sub(start.0)).unwrap_or(0);
                let span = matches.get_mut(place((*from).max(start))..place(next));
                if let Some(span) = span.filter(|_| Some(*hash) == local) {
                    span.fill(true);
                }
            }
            let shared = i64::from(matches.last() == Some(&true));
            let known = matches.iter().any(|here| *here);
            for (at, here) in matches.iter().enumerate() {
                if let (Some(allowed), Some(equal)) = (allowed.get_mut(at), equal.get_mut(at)) {
                    *allowed &= *here || !known;
                    *equal += i64::from(*here) - shared;
                }
            }
        }
        let at = match allowed.last() {
            Some(true) if hinted => length - 1,
            _ => match allowed.iter().position(|allowed| *allowed) {
                Some(at) => at,
                None if hinted => return Ok(None),
                None => {
                    let most = equal.iter().max().copied();
                    equal.iter().position(|count| Some(*count) == most).unwrap_or(length - 1)
                }
            },
        };
        let more = equal.get(at).copied().unwrap_or(0);
        let known = i64::from(self.equal_at_reference(copy, size)) + more;
        let known = u32::try_from(known.max(0)).unwrap_or(u32::MAX);
        Ok(Some((TxId(start.0 + at as u64), known)))
    }

    /// The versions that the pages of the copy had from `start` to the reference, for the pages that
    /// were written in between.
    async fn versions(&self, copy: &Copy, start: TxId) -> Result<BTreeMap<PageNo, Versions>> {
        let files = self.files_between(start, copy.reference);
        let mut written: Vec<(TxId, ImageAt)> = Vec::new();
        let mut stored = Vec::with_capacity(files.len());
        for (number, (txid, file)) in (0u32..).zip(files) {
            for e in &*file.index(&self.context.store, &self.name).await? {
                if copy.page_count.contains(e.page) {
                    written
                        .push((txid, ImageAt { page: e.page, file: number, size: e.size, offset: e.offset }));
                }
            }
            stored.push(file);
        }
        let mut versions: BTreeMap<PageNo, Versions> = BTreeMap::new();
        for (_, image) in &written {
            versions.entry(image.page).or_default();
        }
        // What those pages were before.
        if let Some((_, before)) = self.images_at(start).await? {
            let list = before.list.iter().filter(|image| versions.contains_key(&image.page)).copied();
            let before = Arc::new(Images { list: list.collect(), ..before });
            for (image, hash) in before.hashes(&self.context.store).await? {
                versions.entry(image.page).or_default().push((start, hash));
            }
        }
        let txids: HashMap<u32, TxId> = written.iter().map(|(txid, image)| (image.file, *txid)).collect();
        written.sort_by_key(|(txid, image)| (image.page, *txid));
        let list = written.into_iter().map(|(_, image)| image).collect();
        let page_size = self.read(|log| log.page_size).unwrap_or(PageSize::DEFAULT);
        let written = Arc::new(Images { db: self.name.clone(), page_size, files: stored, list });
        for (image, hash) in written.hashes(&self.context.store).await? {
            if let Some(txid) = txids.get(&image.file) {
                versions.entry(image.page).or_default().push((*txid, hash));
            }
        }
        Ok(versions)
    }
}
