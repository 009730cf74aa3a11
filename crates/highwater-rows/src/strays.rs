//! Overflow pages that changed although the row that they continue looks the same in its leaf.
//!
//! `UPDATE` of a long value by one of the same size writes only the overflow pages that differ, and so does
//! incremental blob I/O; a chain that is freed and allocated again can come back under the same number. The
//! leaf keeps its bytes. Nothing in an overflow page says which row it continues.
//!
//! A *stray* is a page that differs between the states, looks like an overflow page in both, and is unused in
//! neither. A row that looks the same and is not has at least one stray in its chain: the first page of the
//! chain that changed is in the same place of the same chain in both states. So where there are no strays, no
//! chain need be followed; and every page of a chain that was followed is a stray no longer.
//!
//! What is left when all trees were compared is looked for backwards: in the pointer map of an auto-vacuum
//! database, or among the pages nearby, because SQLite allocates a chain near its leaf. What is not found
//! there is looked for in all leaves of the trees.

use std::collections::{BTreeSet, HashMap, HashSet};

use highwater_ltx::PageNo;

use crate::error::{Error, Result, damaged};
use crate::header::{Header, page_at, word_at};
use crate::node::{Node, Page, Payload, Shape, role};
use crate::snapshots::{Pair, Side, Snapshots};

/// How far around a page its predecessor is looked for, in pages.
const NEARBY: u32 = 64;

/// The strays of two states.
#[derive(Default)]
pub(crate) struct Strays {
    left: BTreeSet<PageNo>,
    unused: Pair<HashSet<PageNo>>,
    /// Which page comes before a page in a chain, for the pages that were looked at.
    before: HashMap<PageNo, Link>,
    looked_at: HashSet<PageNo>,
}

/// What points to an overflow page.
#[derive(Debug, Clone, Copy)]
enum Link {
    /// A cell of a page of a b-tree.
    Cell(PageNo, usize),
    /// Another overflow page.
    Overflow(PageNo),
}

impl Strays {
    pub(crate) fn new(snapshots: &Snapshots<'_>) -> Result<Self> {
        let mut strays = Self::default();
        if !snapshots.comparable() {
            return Ok(strays);
        }
        for page in snapshots.common_changed_pages() {
            let mut overflow = page.0 > 1;
            for side in Side::BOTH {
                overflow = overflow && looks_like_overflow(snapshots, side, &snapshots.page(side, page)?);
            }
            if overflow {
                strays.left.insert(page);
            }
        }
        if !strays.left.is_empty() {
            strays.unused = Pair::new(|side| unused(snapshots, side))?;
            let unused = &strays.unused;
            strays.left.retain(|page| Side::BOTH.iter().all(|side| !unused.of(*side).contains(page)));
        }
        Ok(strays)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub(crate) fn contains(&self, page: PageNo) -> bool {
        self.left.contains(&page)
    }

    /// Gives up on a page.
    pub(crate) fn forget(&mut self, page: PageNo) {
        self.left.remove(&page);
    }

    pub(crate) fn pages(&self) -> Vec<PageNo> {
        self.left.iter().copied().collect()
    }

    /// The cells of a page of the state before whose chains begin with a stray, or have one anywhere.
    pub(crate) fn cells_of(
        &self,
        snapshots: &Snapshots<'_>,
        node: &Node,
        anywhere: bool,
    ) -> Result<Vec<usize>> {
        let mut found = Vec::new();
        for cell in 0..node.cells {
            let payload = node.payload(cell)?;
            let Some(first) = payload.overflow else { continue };
            let mut has_stray = self.contains(first);
            if anywhere {
                for page in snapshots.overflow(Side::Before, &payload) {
                    has_stray = has_stray || self.contains(page?.0);
                }
            }
            if has_stray {
                found.push(cell);
            }
        }
        Ok(found)
    }

    /// The pages of this chain are strays no longer.
    pub(crate) fn explain(&mut self, snapshots: &Snapshots<'_>, side: Side, payload: &Payload) -> Result<()> {
        for page in snapshots.overflow(side, payload) {
            if self.left.is_empty() {
                break;
            }
            self.left.remove(&page?.0);
        }
        Ok(())
    }

    /// Explains the chains of a page that is of no tree that is compared, as far as it is one of a b-tree.
    pub(crate) fn explain_page(&mut self, snapshots: &Snapshots<'_>, side: Side, page: PageNo) -> Result<()> {
        if self.left.is_empty() || self.unused.of(side).contains(&page) {
            return Ok(());
        }
        for (payload, _) in long_cells(snapshots, side, page)? {
            match self.explain(snapshots, side, &payload) {
                Err(Error::Damaged { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The cell in the state before whose chain a page is in, if it is found without reading much.
    pub(crate) fn owner(
        &mut self,
        snapshots: &Snapshots<'_>,
        page: PageNo,
    ) -> Result<Option<(PageNo, usize)>> {
        let mut page = page;
        for _ in 0..snapshots.count(Side::Before) {
            match self.predecessor(snapshots, page)? {
                None => return Ok(None),
                Some(Link::Cell(page, cell)) => return Ok(Some((page, cell))),
                Some(Link::Overflow(predecessor)) => page = predecessor,
            }
        }
        Ok(None)
    }

    fn predecessor(&mut self, snapshots: &Snapshots<'_>, page: PageNo) -> Result<Option<Link>> {
        if let Some(link) = self.before.get(&page) {
            return Ok(Some(*link));
        }
        if let Some(near) = by_pointer_map(snapshots, page)? {
            self.look_at(snapshots, near)?;
            if let Some(link) = self.before.get(&page) {
                return Ok(Some(*link));
            }
        }
        for distance in 1..=NEARBY {
            for near in [page.0.saturating_sub(distance), page.0.saturating_add(distance)] {
                self.look_at(snapshots, PageNo(near))?;
                if let Some(link) = self.before.get(&page) {
                    return Ok(Some(*link));
                }
            }
        }
        Ok(None)
    }

    /// Notes what the page points to.
    fn look_at(&mut self, snapshots: &Snapshots<'_>, page: PageNo) -> Result<()> {
        let side = Side::Before;
        let holds_data = snapshots.header(side).is_some_and(|header| header.holds_data(page));
        let in_use = (1..=snapshots.count(side)).contains(&page.0) && !self.unused.of(side).contains(&page);
        if !holds_data || !in_use || !self.looked_at.insert(page) {
            return Ok(());
        }
        let bytes = snapshots.page(side, page)?;
        if looks_like_overflow(snapshots, side, &bytes)
            && let Some(next) = page_at(&bytes, 0)
        {
            self.before.insert(next, Link::Overflow(page));
        }
        for (payload, cell) in long_cells(snapshots, side, page)? {
            if let Some(first) = payload.overflow {
                self.before.insert(first, Link::Cell(page, cell));
            }
        }
        Ok(())
    }
}

/// An overflow page begins with the number of another page, or 0. So do few others: a page of a b-tree would
/// be mistaken for one only in a database of more than 2^25 pages.
fn looks_like_overflow(snapshots: &Snapshots<'_>, side: Side, bytes: &Page) -> bool {
    word_at(bytes, 0).is_some_and(|next| next != 1 && next <= snapshots.count(side))
}

/// The cells of a page that go on in overflow pages; none if it is not of a b-tree.
fn long_cells(snapshots: &Snapshots<'_>, side: Side, page: PageNo) -> Result<Vec<(Payload, usize)>> {
    let bytes = snapshots.page(side, page)?;
    let no_rows = matches!(role(page, &bytes), None | Some((true, Shape::Table)));
    let node = Node::parse(page, bytes, snapshots.usable(side)).ok().filter(|_| !no_rows);
    let cells = node.iter().flat_map(|node| (0..node.cells).map(move |cell| (node.payload(cell), cell)));
    Ok(cells
        .filter_map(|(payload, cell)| Some((payload.ok()?, cell)))
        .filter(|(payload, _)| payload.overflow.is_some())
        .collect())
}

/// What the pointer map says about an overflow page: which page points to it.
fn by_pointer_map(snapshots: &Snapshots<'_>, page: PageNo) -> Result<Option<PageNo>> {
    let map = snapshots.header(Side::Before).and_then(|header: &Header| header.pointer_map(page));
    let Some(map) = map.filter(|map| map.0 <= snapshots.count(Side::Before)) else { return Ok(None) };
    let bytes = snapshots.page(Side::Before, map)?;
    let at = 5 * (page.0.saturating_sub(map.0 + 1)) as usize;
    let of_chain = matches!(bytes.get(at), Some(3 | 4));
    Ok(page_at(&bytes, at + 1).filter(|_| of_chain))
}

/// The list of unused pages: trunk pages that name the others.
fn unused(snapshots: &Snapshots<'_>, side: Side) -> Result<HashSet<PageNo>> {
    let mut found = HashSet::new();
    let mut next = snapshots.header(side).and_then(|header| header.first_free);
    while let Some(trunk) = next {
        if !found.insert(trunk) {
            return damaged(trunk, "is twice in the list of unused pages");
        }
        let bytes = snapshots.page(side, trunk)?;
        let leaves = word_at(&bytes, 4).unwrap_or(0) as usize;
        if leaves > bytes.len() / 4 {
            return damaged(trunk, "says that it names more unused pages than fit");
        }
        found.extend((0..leaves).filter_map(|n| page_at(&bytes, 8 + 4 * n)));
        next = page_at(&bytes, 0);
    }
    Ok(found)
}
