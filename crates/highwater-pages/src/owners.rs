//! Which tables own given pages: what a conflict or a push is about, in words a person knows.
//!
//! B-trees are walked from their roots. Interior pages are read; leaves are known from their
//! parents, and that they are leaves from one of them, because all leaves of a b-tree lie equally
//! deep. Overflow pages (long rows) are found through the cells that they continue: first those of
//! the asked pages themselves, which is where a changed row's other pages hang; then, within a
//! budget of pages to read, those of every table.
//!
//! The answer is for people and may be incomplete: what a damaged database hides, or the budget
//! leaves out, is in [`Owners::other`]. No input makes it panic, loop or recurse without bound.
//! Every asked page but page 1 is in exactly one place of the answer; page 1 changes with almost
//! every transaction, and counts (as the schema) only if nothing else was asked for.

mod btree;
mod schema;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};

use highwater_ltx::{PageCount, PageNo, PageSize};

use btree::Node;

/// How many pages [`owners`] reads at most in search of overflow pages.
pub const OVERFLOW_BUDGET: usize = 2000;

/// No b-tree of SQLite is deeper.
const MAX_DEPTH: usize = 20;

const FIRST: PageNo = PageNo(1);

/// Where the pages of a database can be read; calls may block.
pub trait PageSource: Send + Sync {
    /// The size of a page.
    fn page_size(&self) -> PageSize;
    /// The size of the database.
    fn page_count(&self) -> PageCount;
    /// Replaces the content of `into` by that page's bytes.
    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()>;
}

/// Who owns the pages that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owners {
    /// Pages of each table, with those of its indexes. The hidden tables of a full-text or R-tree
    /// table count as that table.
    pub tables: BTreeMap<String, BTreeSet<PageNo>>,
    /// Whether the list of tables itself has changed.
    pub schema: bool,
    /// Pages that hold nothing now.
    pub freelist: BTreeSet<PageNo>,
    /// Pages of bookkeeping, and those whose owner was not found.
    pub other: BTreeSet<PageNo>,
}

/// The owners of `pages` in the database. Errors are those of reading.
pub fn owners(source: &dyn PageSource, pages: &BTreeSet<PageNo>) -> io::Result<Owners> {
    owners_within(source, pages, OVERFLOW_BUDGET)
}

/// As [`owners`], but reads as many as `budget` pages in search of overflow pages.
pub fn owners_within(source: &dyn PageSource, pages: &BTreeSet<PageNo>, budget: usize) -> io::Result<Owners> {
    let mut search = Search {
        source,
        open: pages.iter().copied().filter(|page| *page != FIRST).collect(),
        found: Owners::default(),
        usable: 0,
        budget,
    };
    if search.open.is_empty() {
        search.found.schema = pages.contains(&FIRST);
    } else {
        search.run(pages.contains(&FIRST))?;
    }
    search.found.other.extend(search.open);
    Ok(search.found)
}

/// The owner of a b-tree.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Schema,
    Table(String),
}

struct Search<'a> {
    source: &'a dyn PageSource,
    /// Asked pages whose owner is not known yet.
    open: BTreeSet<PageNo>,
    found: Owners,
    /// The part of each page that SQLite uses, in bytes.
    usable: usize,
    budget: usize,
}

type Visit<'v, 'a> = &'v mut dyn FnMut(&mut Search<'a>, PageNo) -> io::Result<ControlFlow<()>>;

impl<'a> Search<'a> {
    fn run(&mut self, first_page_asked: bool) -> io::Result<()> {
        let Some(head) = self.read(FIRST)? else { return Ok(()) };
        let Some(layout) = schema::Layout::of(&head, self.source.page_size()) else { return Ok(()) };
        self.usable = layout.usable;
        let size = self.source.page_size();
        let bookkeeping = |page: &PageNo| *page == size.lock_page() || layout.is_pointer_map(*page, size);
        let (bookkeeping, open) = std::mem::take(&mut self.open).into_iter().partition(bookkeeping);
        self.found.other = bookkeeping;
        self.open = open;

        let trees = schema::trees(self, &layout)?;
        // The asked pages of each tree: their cells may lead to more.
        let mut asked: Vec<(&Owner, PageNo)> = Vec::new();
        if first_page_asked {
            asked.push((&Owner::Schema, FIRST));
        }
        let mut seen = HashSet::new();
        for (owner, root) in &trees {
            self.walk(*root, &mut seen, &mut |search, page| {
                if search.claim(page, owner) {
                    asked.push((owner, page));
                }
                Ok(search.unless_done())
            })?;
            if self.open.is_empty() {
                return Ok(());
            }
        }
        self.freelist(&layout)?;
        for (owner, page) in asked {
            self.overflow(page, owner)?;
        }
        seen.clear();
        for (owner, root) in &trees {
            self.walk(*root, &mut seen, &mut |search, page| {
                search.overflow(page, owner)?;
                Ok(if search.budget == 0 { Break(()) } else { search.unless_done() })
            })?;
            if self.budget == 0 || self.open.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Gives an asked page to its owner; `false` if it was not asked for, or has one.
    fn claim(&mut self, page: PageNo, owner: &Owner) -> bool {
        if !self.open.remove(&page) {
            return false;
        }
        match owner {
            Owner::Schema => self.found.schema = true,
            Owner::Table(name) => match self.found.tables.get_mut(name) {
                Some(pages) => drop(pages.insert(page)),
                None => drop(self.found.tables.insert(name.clone(), BTreeSet::from([page]))),
            },
        }
        true
    }

    fn unless_done(&self) -> ControlFlow<()> {
        if self.open.is_empty() { Break(()) } else { Continue(()) }
    }

    /// A page's bytes; `None` for a page that cannot be.
    fn read(&self, page: PageNo) -> io::Result<Option<Vec<u8>>> {
        if !self.source.page_count().contains(page) || page == self.source.page_size().lock_page() {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(self.source.page_size().as_usize());
        self.source.read(page, &mut bytes)?;
        Ok((bytes.len() == self.source.page_size().as_usize()).then_some(bytes))
    }

    /// Shows every page of a b-tree, from the root down. Reads the interior ones and one page of
    /// each level below. Pages in `seen` are of other b-trees: none is read twice.
    fn walk(&mut self, root: PageNo, seen: &mut HashSet<PageNo>, visit: Visit<'_, 'a>) -> io::Result<()> {
        let mut level = vec![root];
        if !seen.insert(root) {
            return Ok(());
        }
        if visit(self, root)?.is_break() {
            return Ok(());
        }
        for _ in 0..MAX_DEPTH {
            let mut children_are_leaves = None;
            let mut next = Vec::new();
            for page in level {
                let children = self.children(page)?;
                if children_are_leaves.is_none()
                    && let Some(child) = children.first()
                {
                    children_are_leaves = Some(self.children(*child)?.is_empty());
                }
                for child in children {
                    let goes_on = children_are_leaves == Some(false);
                    if !self.source.page_count().contains(child) || (goes_on && !seen.insert(child)) {
                        continue;
                    }
                    if visit(self, child)?.is_break() {
                        return Ok(());
                    }
                    if goes_on {
                        next.push(child);
                    }
                }
            }
            if next.is_empty() {
                return Ok(());
            }
            level = next;
        }
        Ok(())
    }

    /// The children of an interior page; none for any other.
    fn children(&self, page: PageNo) -> io::Result<Vec<PageNo>> {
        let Some(bytes) = self.read(page)? else { return Ok(Vec::new()) };
        Ok(Node::parse(page, &bytes, self.usable).map(|node| node.children().collect()).unwrap_or_default())
    }

    /// Follows the overflow chains that start in a page of a b-tree.
    fn overflow(&mut self, page: PageNo, owner: &Owner) -> io::Result<()> {
        if self.open.is_empty() || !self.spend() {
            return Ok(());
        }
        let Some(bytes) = self.read(page)? else { return Ok(()) };
        let Some(node) = Node::parse(page, &bytes, self.usable) else { return Ok(()) };
        for payload in node.payloads() {
            let mut next = payload.overflow;
            let mut left = payload.overflow_pages(self.usable);
            while let Some(page) = next.filter(|_| left > 0) {
                left -= 1;
                self.claim(page, owner);
                if left == 0 || self.open.is_empty() || !self.spend() {
                    break;
                }
                next = self.read(page)?.and_then(|bytes| btree::page_at(&bytes, 0));
            }
        }
        Ok(())
    }

    fn spend(&mut self) -> bool {
        let left = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        left
    }

    /// Finds asked pages on the list of unused ones: trunk pages that name leaves.
    fn freelist(&mut self, layout: &schema::Layout) -> io::Result<()> {
        let mut seen = HashSet::new();
        let mut next = layout.first_free;
        while let Some(trunk) = next.filter(|page| seen.insert(*page)) {
            let Some(bytes) = self.read(trunk)? else { return Ok(()) };
            let leaves = btree::word_at(&bytes, 4).unwrap_or(0) as usize;
            let leaves = (0..leaves.min(bytes.len() / 4)).filter_map(|n| btree::page_at(&bytes, 8 + 4 * n));
            for page in std::iter::once(trunk).chain(leaves) {
                if self.open.remove(&page) {
                    self.found.freelist.insert(page);
                }
            }
            if self.open.is_empty() {
                return Ok(());
            }
            next = btree::page_at(&bytes, 0);
        }
        Ok(())
    }
}
