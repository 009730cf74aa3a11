//! Which state a client stands at: a position of the log, or a state of its own that went into a merge.
//!
//! A state is its content: whoever has the pages of a state of the history is there, however it came to be. So the
//! frames of a push are measured by the states that its transactions lead to, and what of them the history has
//! is found by their hashes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use highwater_ltx::{PageCount, PageNo, PageSize, StateHash, TxId};
use highwater_pages::owners::PageSource;
use highwater_pages::{PageHash, StateSum, page_hash};

use super::frames::{FrameHead, PAGE_SIZE, filled_hash};
use crate::log::{Database, Kept, Log, MergeName, State, blocking};
use crate::{Error, Result, paths};

/// A state of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The position that has everything of it: the position that it is, or that it was merged into.
    pub(super) txid: TxId,
    pub(super) state: StateHash,
    pub(super) pages: PageCount,
}

impl Standing {
    /// The state of a database that does not exist yet; and of a client of which nothing is known.
    pub(super) fn nothing() -> Self {
        let pages = PageCount(0);
        Self { txid: TxId(0), state: StateSum::EMPTY.state(pages, PAGE_SIZE), pages }
    }

    /// The merge that it went into; `None` when it is a position.
    pub(super) fn merge(&self, log: &Log) -> Option<MergeName> {
        let is_position = log.entry(self.txid).is_some_and(|entry| entry.position.state == self.state);
        let merge = log.merges.get(self.txid).filter(|merge| !is_position && merge.local == self.state);
        merge.copied()
    }

    /// The newest state of the history that is the same, of those that are not older.
    fn again(&self, log: &Log, state: StateHash, pages: PageCount) -> Option<Self> {
        if state == self.state {
            return Some(*self);
        }
        let position = log.newest_of(state).map(|entry| entry.txid);
        let merge = log.merges.alias(state, |_| true).map(|merge| merge.txid);
        let txid = position.max(merge).filter(|txid| *txid > self.txid)?;
        Some(Self { txid, state, pages })
    }
}

/// The pages of a state, and what they are made of.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) source: Arc<State>,
    /// The position that the pages of [`Opened::own`] are on top of.
    pub(super) base: TxId,
    /// Pages of the client's own, ascending.
    pub(super) own: Vec<PageNo>,
}

/// Opens a state; `None` when it is nothing at all, or not retained.
pub(super) async fn open(db: &Arc<Database>, standing: &Standing) -> Result<Option<Opened>> {
    if standing.txid == TxId(0) {
        return Ok(None);
    }
    let merge = db.read(|log| standing.merge(log)).flatten();
    let base = merge.map_or(standing.txid, |merge| merge.base);
    let Some(source) = db.state(base, &Arc::new(Kept::default())) else { return Ok(None) };
    let Some(merge) = merge else {
        return Ok(Some(Opened { source: Arc::new(source), base, own: Vec::new() }));
    };
    let overlay = db.stored_delta(&merge).await?;
    let own = overlay.as_ref().map(|overlay| overlay.pages().to_vec()).unwrap_or_default();
    Ok(Some(Opened { source: Arc::new(source.with(overlay)), base, own }))
}

/// Opens the empty database that comes before a history.
pub(super) fn nothing(db: &Arc<Database>) -> Option<Opened> {
    let source = db.state(TxId(0), &Arc::new(Kept::default()))?;
    Some(Opened { source: Arc::new(source), base: TxId(0), own: Vec::new() })
}

/// Pages of a state, in order.
pub(super) async fn read(source: &Arc<State>, pages: Vec<PageNo>) -> Result<Vec<Vec<u8>>> {
    each(source, pages, |_, data| data.clone()).await
}

/// The hashes of pages of a state, in order.
pub(super) async fn hashes(source: &Arc<State>, pages: Vec<PageNo>) -> Result<Vec<PageHash>> {
    each(source, pages, |page, data| page_hash(page, data)).await
}

async fn each<T: Send + 'static>(
    source: &Arc<State>,
    pages: Vec<PageNo>,
    take: impl Fn(PageNo, &Vec<u8>) -> T + Send + 'static,
) -> Result<Vec<T>> {
    let source = Arc::clone(source);
    blocking(move || {
        let mut data = Vec::new();
        let read = |page: PageNo| {
            source.read(page, &mut data).map_err(Error::Run)?;
            Ok(take(page, &data))
        };
        pages.into_iter().map(read).collect()
    })
    .await
}

/// A state after a transaction of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct After {
    /// How many frames lead there.
    pub(super) frames: usize,
    pub(super) state: StateHash,
    pub(super) pages: PageCount,
}

/// The states that the transactions of frames on top of a state lead to.
pub(super) async fn states_after(
    opened: &Opened,
    standing: Standing,
    heads: &[FrameHead],
) -> Result<Vec<After>> {
    let (source, heads) = (Arc::clone(&opened.source), heads.to_vec());
    blocking(move || walk(&*source, standing, &heads).map_err(Error::Run)).await
}

/// The last of these states that the history has, and how many frames lead there.
pub(super) fn last_known(db: &Database, standing: &Standing, after: &[After]) -> Option<(usize, Standing)> {
    let known = |log: &Log| {
        after.iter().rev().find_map(|at| Some((at.frames, standing.again(log, at.state, at.pages)?)))
    };
    db.read(known).flatten()
}

fn walk(source: &dyn PageSource, standing: Standing, heads: &[FrameHead]) -> io::Result<Vec<After>> {
    let before = standing.pages;
    let sum = StateSum::from_state(standing.state, before, PAGE_SIZE);
    let mut sums = Sums { source, before, now: HashMap::new(), old: HashMap::new(), count: before, sum };
    let mut found = Vec::new();
    for (number, head) in (1..).zip(heads) {
        sums.write(head)?;
        if head.commit.0 > 0 {
            sums.resize(head.commit)?;
            let state = sums.sum.state(head.commit, PAGE_SIZE);
            found.push(After { frames: number, state, pages: head.commit });
        }
    }
    Ok(found)
}

/// The sum of the page hashes of a state with frames on top, as [`super::frames::settle`] understands them.
struct Sums<'a> {
    source: &'a dyn PageSource,
    before: PageCount,
    now: HashMap<PageNo, PageHash>,
    old: HashMap<PageNo, PageHash>,
    count: PageCount,
    sum: StateSum,
}

impl Sums<'_> {
    fn hash(&mut self, page: PageNo) -> io::Result<PageHash> {
        if let Some(hash) = self.now.get(&page).or_else(|| self.old.get(&page)) {
            return Ok(*hash);
        }
        if !self.before.contains(page) {
            return Ok(filled_hash(page));
        }
        let mut data = Vec::new();
        self.source.read(page, &mut data)?;
        let hash = page_hash(page, &data);
        self.old.insert(page, hash);
        Ok(hash)
    }

    fn write(&mut self, head: &FrameHead) -> io::Result<()> {
        if self.count.contains(head.page) {
            let hash = self.hash(head.page)?;
            self.sum.remove(hash);
            self.sum.add(head.hash);
        }
        self.now.insert(head.page, head.hash);
        Ok(())
    }

    fn resize(&mut self, count: PageCount) -> io::Result<()> {
        let lock = PageSize::lock_page(PAGE_SIZE);
        let (from, to) = (self.count.0.min(count.0), self.count.0.max(count.0));
        for page in (from.saturating_add(1)..=to).map(PageNo).filter(|page| *page != lock) {
            let hash = self.hash(page)?;
            if count > self.count { self.sum.add(hash) } else { self.sum.remove(hash) }
        }
        self.count = count;
        Ok(())
    }
}

/// A part of the history that should be there is not.
pub(super) fn lost(db: &Database) -> Error {
    Error::damaged(&paths::pushes(&db.name), "a file of its history is not retained")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libsql::frames::settle;

    struct Pages(Vec<Vec<u8>>);

    impl PageSource for Pages {
        fn page_size(&self) -> PageSize {
            PAGE_SIZE
        }
        fn page_count(&self) -> PageCount {
            PageCount(u32::try_from(self.0.len()).unwrap())
        }
        fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
            into.clone_from(&self.0[page.0 as usize - 1]);
            Ok(())
        }
    }

    fn standing(pages: &Pages) -> Standing {
        let mut sum = StateSum::EMPTY;
        for (number, page) in (1..).map(PageNo).zip(&pages.0) {
            sum.add(page_hash(number, page));
        }
        let count = pages.page_count();
        Standing { txid: TxId(1), state: sum.state(count, PAGE_SIZE), pages: count }
    }

    #[test]
    fn the_states_after_each_transaction_are_those_of_what_it_leaves_behind() {
        let pages = Pages((0..6).map(|fill| vec![fill; 4096]).collect());
        let head = |page: u32, commit: u32, fill: u8| FrameHead {
            page: PageNo(page),
            commit: PageCount(commit),
            hash: page_hash(PageNo(page), &[fill; 4096]),
        };
        // Grows past a page that is never written, shrinks below the beginning, grows again.
        let heads = [
            head(2, 6, 9),
            head(8, 0, 8),
            head(1, 9, 7),
            head(1, 3, 6),
            head(8, 0, 1),
            head(1, 8, 5),
            head(2, 8, 1),
        ];
        let found = walk(&pages, standing(&pages), &heads).unwrap();
        assert_eq!(found.iter().map(|after| after.frames).collect::<Vec<_>>(), [1, 3, 4, 6, 7]);
        for after in found {
            let settled = settle(&heads[..after.frames], PageCount(6));
            let mut sum = StateSum::EMPTY;
            for page in (1..=after.pages.0).map(PageNo) {
                let own = settled.pages.iter().find(|settled| settled.page == page);
                let before = || page_hash(page, &pages.0[page.0 as usize - 1]);
                sum.add(own.map_or_else(before, |own| own.hash));
            }
            assert_eq!(after.state, sum.state(after.pages, PAGE_SIZE), "after {} frames", after.frames);
        }
    }
}
