//! Which pages of a b-tree can hold rows that differ between two states.
//!
//! A changed page is of a tree if descending from the root with a key of the page arrives there; that reads a
//! handful of interior pages and no leaf. Where keys cannot be compared (a collation that this reader does
//! not know), and where much has changed, all interior pages are read instead.
//!
//! The changed pages are not all: an unchanged page can leave one tree or enter another. It then hangs, over
//! other unchanged pages, below a changed page (or is below a root that has another number). So below the
//! children that only one of the states has, everything counts, until the same page turns up on both sides.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use highwater_ltx::PageNo;

use crate::error::{Error, Result, damaged};
use crate::node::{Node, Shape, role};
use crate::order;
use crate::record;
use crate::snapshots::{MAX_DEPTH, Pair, Side, Snapshots};
use crate::{Tree, TreeKind};

/// So many descents are made without asking what else could be done.
const MANY: usize = 1000;

/// Changed pages that look like pages of a b-tree and that no tree has claimed yet.
pub(crate) struct Pool {
    open: Pair<BTreeMap<PageNo, Shape>>,
}

impl Pool {
    pub(crate) fn new(snapshots: &Snapshots<'_>) -> Result<Self> {
        let open = Pair::new(|side| {
            let mut open = BTreeMap::new();
            for page in snapshots.changed_pages(side) {
                if let Some((_, shape)) = role(page, &snapshots.page(side, page)?) {
                    open.insert(page, shape);
                }
            }
            Ok(open)
        })?;
        Ok(Self { open })
    }

    /// Pages that no tree has claimed.
    pub(crate) fn unclaimed(&self, side: Side) -> impl Iterator<Item = PageNo> {
        self.open.of(side).keys().copied()
    }
}

/// One tree in one state.
pub(crate) struct InState<'s, 'a> {
    snapshots: &'s Snapshots<'a>,
    side: Side,
    root: PageNo,
    kind: &'s TreeKind,
}

impl<'s, 'a> InState<'s, 'a> {
    pub(crate) fn of(snapshots: &'s Snapshots<'a>, side: Side, tree: &'s Tree) -> Option<Self> {
        let root = tree.root(side)?;
        Some(Self { snapshots, side, root, kind: &tree.kind })
    }

    fn node(&self, page: PageNo) -> Result<Node> {
        self.snapshots.node(self.side, page, self.kind.shape())
    }

    /// How many levels are above the leaves. All leaves lie equally deep.
    fn height(&self) -> Result<usize> {
        let mut page = self.root;
        for height in 0..MAX_DEPTH {
            let node = self.node(page)?;
            if !node.interior {
                return Ok(height);
            }
            page = node.child(0)?;
        }
        damaged(self.root, "is the root of a b-tree that is too deep")
    }

    /// Whether the page is of this tree.
    pub(crate) fn contains(&self, page: PageNo) -> Result<bool> {
        let pool = BTreeMap::from([(page, self.kind.shape())]);
        Ok(!self.members(&pool)?.is_empty())
    }

    /// Which of the pages are of this tree.
    fn members(&self, pool: &BTreeMap<PageNo, Shape>) -> Result<BTreeSet<PageNo>> {
        let shape = self.kind.shape();
        let mut found = BTreeSet::new();
        let mut pool: Vec<_> = pool.iter().filter(|(_, of)| **of == shape).map(|(page, _)| *page).collect();
        pool.retain(|page| *page != self.root || !found.insert(*page));
        if pool.is_empty() {
            return Ok(found);
        }
        let height = self.height()?;
        match self.kind {
            _ if height == 0 => {}
            _ if self.is_much(pool.len()) => self.walk(height, &pool, &mut found)?,
            TreeKind::WithoutRowid { key } if !order::is_known(key) => {
                self.walk(height, &pool, &mut found)?
            }
            _ => {
                for page in pool {
                    if self.leads_to(page, height)? {
                        found.insert(page);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether so many descents take longer than reading all interior pages: of most trees, these are about
    /// one in a hundred.
    fn is_much(&self, descents: usize) -> bool {
        descents > MANY && descents as u64 * 100 > u64::from(self.snapshots.count(self.side))
    }

    /// Whether the first key of the page leads there.
    fn leads_to(&self, target: PageNo, height: usize) -> Result<bool> {
        let undamaged = |error| if matches!(error, Error::Damaged { .. }) { Ok(false) } else { Err(error) };
        let key = match self.node(target).and_then(|node| self.first_key(&node)) {
            Ok(Some(key)) => key,
            // Not every page that looks like one of a b-tree is one.
            Ok(None) => return Ok(false),
            Err(error) => return undamaged(error),
        };
        let mut page = self.root;
        for _ in 0..height {
            let node = self.node(page)?;
            if !node.interior {
                return damaged(page, "is a leaf, and lies higher than others");
            }
            page = node.child(self.child_for(&node, &key)?)?;
            if page == target {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn first_key(&self, node: &Node) -> Result<Option<Key>> {
        if node.cells == 0 {
            return Ok(None);
        }
        self.key(node, 0).map(Some)
    }

    fn key(&self, node: &Node, cell: usize) -> Result<Key> {
        Ok(match self.kind {
            TreeKind::Rowid => Key::Rowid(node.rowid(cell)?),
            TreeKind::WithoutRowid { key } => {
                Key::Values(record::values(self.snapshots, self.side, node, cell, key.len())?)
            }
        })
    }

    /// The first cell whose key is not smaller.
    fn child_for(&self, node: &Node, wanted: &Key) -> Result<usize> {
        let (mut low, mut high) = (0, node.cells);
        while low < high {
            let middle = low + (high - low) / 2;
            let smaller = match (self.key(node, middle)?, wanted, self.kind) {
                (Key::Rowid(here), Key::Rowid(wanted), _) => here < *wanted,
                (Key::Values(here), Key::Values(wanted), TreeKind::WithoutRowid { key }) => {
                    order::compare(&here, wanted, key, self.snapshots.encoding(self.side)).is_lt()
                }
                _ => false,
            };
            if smaller {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Reads all interior pages.
    fn walk(&self, height: usize, pool: &[PageNo], found: &mut BTreeSet<PageNo>) -> Result<()> {
        let mut seen = HashSet::from([self.root]);
        let mut level = vec![self.root];
        for _ in 0..height {
            let mut below = Vec::new();
            for page in level {
                let node = self.node(page)?;
                for n in 0..node.children() {
                    let child = node.child(n)?;
                    if !seen.insert(child) {
                        return damaged(child, "is in a b-tree twice");
                    }
                    if pool.binary_search(&child).is_ok() {
                        found.insert(child);
                    }
                    below.push(child);
                }
            }
            level = below;
        }
        Ok(())
    }

    /// The unchanged pages that hang directly below changed ones, or that are the root.
    fn frontier(&self, members: &BTreeSet<PageNo>) -> Result<BTreeSet<PageNo>> {
        let mut found = BTreeSet::from([self.root]);
        for page in members {
            let node = self.node(*page)?;
            for n in 0..node.children() {
                let child = node.child(n)?;
                if !found.insert(child) {
                    return damaged(child, "is in a b-tree twice");
                }
            }
        }
        for page in &found {
            self.expect(*page, members)?;
        }
        found.retain(|page| !self.snapshots.is_changed(*page));
        Ok(found)
    }

    /// A changed page of the tree must have been found by its key.
    fn expect(&self, page: PageNo, members: &BTreeSet<PageNo>) -> Result<()> {
        if self.snapshots.is_changed(page) && !members.contains(&page) {
            return damaged(page, "is not where its keys belong");
        }
        Ok(())
    }

    /// Adds the unchanged pages from `page` down.
    fn below(&self, page: PageNo, members: &BTreeSet<PageNo>, found: &mut BTreeSet<PageNo>) -> Result<()> {
        let mut open = BTreeSet::from([page]);
        while let Some(page) = open.pop_first() {
            if !found.insert(page) {
                return damaged(page, "is in a b-tree twice");
            }
            let node = self.node(page)?;
            for n in 0..node.children() {
                let child = node.child(n)?;
                self.expect(child, members)?;
                if !self.snapshots.is_changed(child) {
                    open.insert(child);
                }
            }
        }
        Ok(())
    }
}

/// A key of a b-tree.
enum Key {
    Rowid(i64),
    Values(Vec<highwater_wire::SqlValue>),
}

/// The pages of the tree, in each state, that hold all rows that differ, except those of which only overflow
/// pages do.
pub(crate) fn differing(
    snapshots: &Snapshots<'_>,
    pool: &mut Pool,
    tree: &Tree,
) -> Result<Pair<BTreeSet<PageNo>>> {
    let sides = Pair::new(|side| Ok(InState::of(snapshots, side, tree)))?;
    let members = Pair::new(|side| match sides.of(side) {
        Some(tree) => tree.members(pool.open.of(side)),
        None => Ok(BTreeSet::new()),
    })?;
    for side in Side::BOTH {
        let open = pool.open.of_mut(side);
        for page in members.of(side) {
            open.remove(page);
        }
    }
    let frontier = Pair::new(|side| match sides.of(side) {
        Some(tree) => tree.frontier(members.of(side)),
        None => Ok(BTreeSet::new()),
    })?;
    let mut pages = Pair::new(|side| {
        let mut found = BTreeSet::new();
        if let Some(tree) = sides.of(side) {
            for page in frontier.of(side).difference(frontier.of(side.other())) {
                tree.below(*page, members.of(side), &mut found)?;
            }
        }
        Ok(found)
    })?;
    let shared: Vec<_> = pages.of(Side::Before).intersection(pages.of(Side::After)).copied().collect();
    for side in Side::BOTH {
        let pages = pages.of_mut(side);
        for page in &shared {
            pages.remove(page);
        }
        pages.extend(members.of(side));
    }
    Ok(pages)
}

/// Shows the pages of a tree that hold rows, in no particular order, until `visit` says `false`.
pub(crate) fn leaves(
    snapshots: &Snapshots<'_>,
    side: Side,
    root: PageNo,
    shape: Shape,
    visit: &mut dyn FnMut(&Node) -> Result<bool>,
) -> Result<()> {
    let mut seen = HashSet::new();
    let mut open = vec![root];
    while let Some(page) = open.pop() {
        if !seen.insert(page) {
            return damaged(page, "is in a b-tree twice");
        }
        let node = snapshots.node(side, page, shape)?;
        for n in (0..node.children()).rev() {
            open.push(node.child(n)?);
        }
        let holds_rows = shape == Shape::Index || !node.interior;
        if holds_rows && !visit(&node)? {
            break;
        }
    }
    Ok(())
}
