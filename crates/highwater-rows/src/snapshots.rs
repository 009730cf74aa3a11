//! Two states of one database, read through a cache that knows which pages they share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use highwater_ltx::PageNo;
use highwater_pages::owners::PageSource;

use crate::error::{Error, Result, damaged};
use crate::header::{Encoding, FIRST, Header, page_at};
use crate::node::{Node, Page, Payload, Shape};

/// Half of the memory that the cache of pages may take, in bytes.
const HALF_CACHE: usize = 16 << 20;

/// How often all pages together may be followed as overflow pages. Each is of one row, and a row is looked at
/// a few times (its key more often); but rows of a damaged database can share a chain, each of them all of
/// it.
const FOLLOWED: u64 = 200;

/// No b-tree of SQLite is deeper.
pub(crate) const MAX_DEPTH: usize = 20;

/// One of the two states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Before,
    After,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Before, Self::After];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Before => Self::After,
            Self::After => Self::Before,
        }
    }
}

/// One value for each state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pair<T> {
    before: T,
    after: T,
}

impl<T> Pair<T> {
    pub(crate) fn new(mut make: impl FnMut(Side) -> Result<T>) -> Result<Self> {
        Ok(Self { before: make(Side::Before)?, after: make(Side::After)? })
    }

    pub(crate) const fn of(&self, side: Side) -> &T {
        match side {
            Side::Before => &self.before,
            Side::After => &self.after,
        }
    }

    pub(crate) const fn of_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Before => &mut self.before,
            Side::After => &mut self.after,
        }
    }
}

/// Two states of one database.
pub(crate) struct Snapshots<'a> {
    sources: Pair<&'a dyn PageSource>,
    headers: Pair<Option<Header>>,
    /// Pages that may differ, ascending.
    changed: Vec<PageNo>,
    /// Whether pages of one state mean the same in the other.
    comparable: bool,
    cache: RefCell<Cache>,
    reads: Cell<u64>,
    /// How many overflow pages were followed.
    followed: Cell<u64>,
}

type Slots = HashMap<(Side, PageNo), Page>;

/// What was read last, and what was read before that.
#[derive(Default)]
struct Cache {
    young: Slots,
    old: Slots,
    young_bytes: usize,
}

impl<'a> Snapshots<'a> {
    pub(crate) fn new(
        before: &'a dyn PageSource,
        after: &'a dyn PageSource,
        changed: &[PageNo],
    ) -> Result<Self> {
        let sources = Pair { before, after };
        let mut changed = changed.to_vec();
        changed.sort_unstable();
        changed.dedup();
        let mut all = Self {
            sources,
            headers: Pair::default(),
            changed,
            comparable: false,
            cache: RefCell::default(),
            reads: Cell::new(0),
            followed: Cell::new(0),
        };
        all.headers = Pair::new(|side| all.read_header(side))?;
        let layout = |header: &Header| (header.page_size, header.reserved, header.encoding);
        all.comparable = match (all.header(Side::Before), all.header(Side::After)) {
            (Some(before), Some(after)) => layout(before) == layout(after),
            _ => false,
        };
        Ok(all)
    }

    fn read_header(&self, side: Side) -> Result<Option<Header>> {
        if self.count(side) == 0 {
            return Ok(None);
        }
        Header::parse(&self.page(side, FIRST)?, self.sources.of(side).page_size()).map(Some)
    }

    pub(crate) const fn header(&self, side: Side) -> Option<&Header> {
        self.headers.of(side).as_ref()
    }

    /// How text is stored.
    pub(crate) fn encoding(&self, side: Side) -> Encoding {
        self.header(side).map(|header| header.encoding).unwrap_or_default()
    }

    /// Whether the same bytes at the same place mean the same in both states.
    pub(crate) const fn comparable(&self) -> bool {
        self.comparable
    }

    /// How many pages the state has.
    pub(crate) fn count(&self, side: Side) -> u32 {
        self.sources.of(side).page_count().0
    }

    /// The part of each page that SQLite uses, in bytes.
    pub(crate) fn usable(&self, side: Side) -> usize {
        self.header(side).map_or(0, Header::usable)
    }

    /// How many pages were read.
    pub(crate) const fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// Whether the page may differ between the states, or is only in one of them.
    pub(crate) fn is_changed(&self, page: PageNo) -> bool {
        !self.comparable
            || page.0 > self.count(Side::Before).min(self.count(Side::After))
            || self.changed.binary_search(&page).is_ok()
    }

    /// The pages of a state that may differ from the other's or that the other has not, ascending.
    pub(crate) fn changed_pages(&self, side: Side) -> Vec<PageNo> {
        let count = self.count(side);
        let common = count.min(self.count(Side::Before).min(self.count(Side::After)));
        let holds_data = |page: &PageNo| self.header(side).is_some_and(|header| header.holds_data(*page));
        if self.comparable {
            let both = self.changed.iter().copied().filter(|page| page.0 >= 1 && page.0 <= common);
            both.chain((common + 1..=count).map(PageNo)).filter(holds_data).collect()
        } else {
            (1..=count).map(PageNo).filter(holds_data).collect()
        }
    }

    /// The pages that may differ and that both states have.
    pub(crate) fn common_changed_pages(&self) -> Vec<PageNo> {
        let common = self.count(Side::After);
        let mut pages = self.changed_pages(Side::Before);
        pages.retain(|page| page.0 <= common);
        pages
    }

    /// A page's bytes.
    pub(crate) fn page(&self, side: Side, page: PageNo) -> Result<Page> {
        let source = self.sources.of(side);
        if !source.page_count().contains(page) {
            return damaged(page, "is named, and lies outside the database");
        }
        // A page that both states share is read once.
        let side = if self.is_changed(page) { side } else { Side::Before };
        if let Some(bytes) = self.cache.borrow_mut().get(side, page) {
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(source.page_size().as_usize());
        source.read(page, &mut bytes).map_err(Error::Read)?;
        if bytes.len() != source.page_size().as_usize() {
            return damaged(page, "is cut off");
        }
        self.reads.set(self.reads.get() + 1);
        let bytes = Page::from(bytes);
        self.cache.borrow_mut().put(side, page, &bytes);
        Ok(bytes)
    }

    /// A page that must be of a b-tree of that kind.
    pub(crate) fn node(&self, side: Side, page: PageNo, shape: Shape) -> Result<Node> {
        if self.header(side).is_some_and(|header| !header.holds_data(page)) {
            return damaged(page, "is bookkeeping, and a b-tree names it");
        }
        let node = Node::parse(page, self.page(side, page)?, self.usable(side))?;
        if node.shape == shape { Ok(node) } else { damaged(page, "is of another kind than its b-tree") }
    }

    fn follow(&self, page: PageNo) -> Result<()> {
        let pages = u64::from(self.count(Side::Before)) + u64::from(self.count(Side::After));
        self.followed.set(self.followed.get() + 1);
        if self.followed.get() > pages * FOLLOWED {
            return damaged(page, "continues more rows than one");
        }
        Ok(())
    }

    /// The pages that continue a payload, in their order, with the bytes that each holds of it.
    pub(crate) fn overflow(&self, side: Side, payload: &Payload) -> Overflow<'_, 'a> {
        let left = payload.size.saturating_sub(payload.local.len() as u64);
        Overflow { snapshots: self, side, next: payload.overflow, left, pages: 0 }
    }
}

impl Cache {
    fn get(&mut self, side: Side, page: PageNo) -> Option<Page> {
        if let Some(bytes) = self.young.get(&(side, page)) {
            return Some(Page::clone(bytes));
        }
        let bytes = self.old.remove(&(side, page))?;
        self.put(side, page, &bytes);
        Some(bytes)
    }

    fn put(&mut self, side: Side, page: PageNo, bytes: &Page) {
        if self.young_bytes >= HALF_CACHE {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes.len();
        self.young.insert((side, page), Page::clone(bytes));
    }
}

/// The overflow pages of a payload; see [`Snapshots::overflow`]. Ends after an error.
pub(crate) struct Overflow<'s, 'a> {
    snapshots: &'s Snapshots<'a>,
    side: Side,
    next: Option<PageNo>,
    left: u64,
    pages: u32,
}

impl Iterator for Overflow<'_, '_> {
    type Item = Result<(PageNo, Page, usize)>;

    fn next(&mut self) -> Option<Self::Item> {
        let page = self.next.take().filter(|_| self.left > 0)?;
        let found = self.follow(page);
        if found.is_err() {
            self.left = 0;
        }
        Some(found)
    }
}

impl Overflow<'_, '_> {
    fn follow(&mut self, page: PageNo) -> Result<(PageNo, Page, usize)> {
        self.pages += 1;
        if self.pages > self.snapshots.count(self.side) {
            return damaged(page, "continues a long row in a circle");
        }
        self.snapshots.follow(page)?;
        let bytes = self.snapshots.page(self.side, page)?;
        let room = self.snapshots.usable(self.side).saturating_sub(4);
        let here = usize::try_from(self.left).map_or(room, |left| left.min(room));
        self.left -= here as u64;
        self.next = page_at(&bytes, 0);
        if self.left > 0 && self.next.is_none() {
            return damaged(page, "ends a long row too early");
        }
        Ok((page, bytes, here))
    }
}
