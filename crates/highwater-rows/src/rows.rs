//! Compares the rows of pages of one tree, in both states.

use std::collections::{BTreeMap, BTreeSet};

use highwater_ltx::PageNo;
use highwater_wire::SqlValue;

use crate::error::{Result, damaged};
use crate::node::{Node, Page, Payload, Shape};
use crate::record;
use crate::snapshots::{Overflow, Pair, Side, Snapshots};
use crate::strays::Strays;
use crate::{Key, RowChange};

/// A cell of a page.
#[derive(Clone, Copy)]
pub(crate) struct Row<'n> {
    pub(crate) node: &'n Node,
    pub(crate) cell: usize,
}

/// Compares what two rows hold.
pub(crate) struct Comparison<'s, 'a> {
    pub(crate) snapshots: &'s Snapshots<'a>,
    pub(crate) strays: &'s mut Strays,
}

impl Comparison<'_, '_> {
    /// The rows of a table that differ, by rowid.
    pub(crate) fn tables(&mut self, pages: &Pair<BTreeSet<PageNo>>) -> Result<Vec<RowChange>> {
        let mut before = Rows::new(self.snapshots, Side::Before, pages)?;
        let mut after = Rows::new(self.snapshots, Side::After, pages)?;
        let mut found = Vec::new();
        loop {
            let (left, right) = (before.rowid(), after.rowid());
            let Some(rowid) = left.into_iter().chain(right).min() else { return Ok(found) };
            let left = before.row().filter(|_| left == Some(rowid));
            let right = after.row().filter(|_| right == Some(rowid));
            let (has_before, has_after) = (left.is_some(), right.is_some());
            if self.differ(left, right)? {
                found.push(RowChange { key: Key::Rowid(rowid), before: has_before, after: has_after });
            }
            if has_before {
                before.advance()?;
            }
            if has_after {
                after.advance()?;
            }
        }
    }

    /// The rows of a WITHOUT ROWID table that differ.
    pub(crate) fn indexes(
        &mut self,
        pages: &Pair<BTreeSet<PageNo>>,
        columns: usize,
    ) -> Result<Vec<RowChange>> {
        let mut places = BTreeMap::new();
        for side in Side::BOTH {
            for page in pages.of(side) {
                let node = self.snapshots.node(side, *page, Shape::Index)?;
                for cell in 0..node.cells {
                    let key = ByValue(record::values(self.snapshots, side, &node, cell, columns)?);
                    let place: &mut Pair<Option<(PageNo, usize)>> = places.entry(key).or_default();
                    if place.of_mut(side).replace((*page, cell)).is_some() {
                        return damaged(*page, "has a row whose key another row has");
                    }
                }
            }
        }
        let mut found = Vec::new();
        for (ByValue(key), place) in places {
            let nodes = Pair::new(|side| {
                let node = place.of(side).map(|(page, _)| self.snapshots.node(side, page, Shape::Index));
                node.transpose()
            })?;
            let row = |side| {
                let node = nodes.of(side).as_ref()?;
                let (_, cell) = (*place.of(side))?;
                Some(Row { node, cell })
            };
            let (before, after) = (row(Side::Before), row(Side::After));
            if self.differ(before, after)? {
                let (before, after) = (before.is_some(), after.is_some());
                let side = if before { Side::Before } else { Side::After };
                let key = Key::Values(record::decoded(key, self.snapshots.encoding(side)));
                found.push(RowChange { key, before, after });
            }
        }
        Ok(found)
    }

    /// Whether a row is only there once, or holds something else there.
    fn differ(&mut self, before: Option<Row<'_>>, after: Option<Row<'_>>) -> Result<bool> {
        let (Some(before), Some(after)) = (before, after) else {
            for (side, row) in [(Side::Before, before), (Side::After, after)] {
                if let Some(row) = row {
                    self.strays.explain(self.snapshots, side, &row.node.payload(row.cell)?)?;
                }
            }
            return Ok(true);
        };
        let payloads = (before.node.payload(before.cell)?, after.node.payload(after.cell)?);
        let locals =
            (before.node.bytes(payloads.0.local.clone()), after.node.bytes(payloads.1.local.clone()));
        let same_cell = self.snapshots.comparable()
            && payloads.0.size == payloads.1.size
            && payloads.0.overflow == payloads.1.overflow
            && locals.0 == locals.1;
        if same_cell && (payloads.0.overflow.is_none() || self.strays.is_empty()) {
            return Ok(false);
        }
        let equal = payloads.0.size == payloads.1.size && self.same_content(&payloads, locals)?;
        self.strays.explain(self.snapshots, Side::Before, &payloads.0)?;
        self.strays.explain(self.snapshots, Side::After, &payloads.1)?;
        Ok(!equal)
    }

    /// Whether a row that is in the same place of both states holds something else there, overflow pages
    /// included.
    pub(crate) fn differs_in_overflow(&mut self, node: &Node, cell: usize) -> Result<bool> {
        let row = Row { node, cell };
        self.differ(Some(row), Some(row))
    }

    fn same_content(&self, payloads: &(Payload, Payload), locals: (&[u8], &[u8])) -> Result<bool> {
        let mut left = Bytes::new(locals.0, self.snapshots.overflow(Side::Before, &payloads.0));
        let mut right = Bytes::new(locals.1, self.snapshots.overflow(Side::After, &payloads.1));
        loop {
            left.fill()?;
            right.fill()?;
            let (here, there) = (left.rest(), right.rest());
            let length = here.len().min(there.len());
            if length == 0 {
                return Ok(here.len() == there.len());
            }
            if here.get(..length) != there.get(..length) {
                return Ok(false);
            }
            left.at += length;
            right.at += length;
        }
    }
}

/// The bytes of a payload, a part at a time.
struct Bytes<'n, 's, 'a> {
    local: &'n [u8],
    overflow: Overflow<'s, 'a>,
    page: Option<(Page, usize)>,
    at: usize,
}

impl<'n, 's, 'a> Bytes<'n, 's, 'a> {
    const fn new(local: &'n [u8], overflow: Overflow<'s, 'a>) -> Self {
        Self { local, overflow, page: None, at: 0 }
    }

    /// What is left of the current part.
    fn rest(&self) -> &[u8] {
        let part = match &self.page {
            Some((page, size)) => page.get(4..4 + size).unwrap_or_default(),
            None => self.local,
        };
        part.get(self.at..).unwrap_or_default()
    }

    /// Goes on to the next part, if this one is used up.
    fn fill(&mut self) -> Result<()> {
        if self.rest().is_empty()
            && let Some(next) = self.overflow.next()
        {
            let (_, page, size) = next?;
            self.page = Some((page, size));
            self.at = 0;
        }
        Ok(())
    }
}

/// The rows of some leaves of a table, by rowid.
struct Rows<'s, 'a> {
    snapshots: &'s Snapshots<'a>,
    side: Side,
    /// The leaves that are to come, the last one first.
    leaves: Vec<PageNo>,
    node: Option<Node>,
    cell: usize,
    rowid: Option<i64>,
}

impl<'s, 'a> Rows<'s, 'a> {
    fn new(snapshots: &'s Snapshots<'a>, side: Side, pages: &Pair<BTreeSet<PageNo>>) -> Result<Self> {
        let mut leaves = Vec::new();
        for page in pages.of(side) {
            let node = snapshots.node(side, *page, Shape::Table)?;
            if !node.interior && node.cells > 0 {
                leaves.push((node.rowid(0)?, *page));
            }
        }
        leaves.sort_unstable_by(|left, right| right.cmp(left));
        let leaves = leaves.into_iter().map(|(_, page)| page).collect();
        let mut rows = Self { snapshots, side, leaves, node: None, cell: 0, rowid: None };
        rows.advance()?;
        Ok(rows)
    }

    const fn rowid(&self) -> Option<i64> {
        self.rowid
    }

    fn row(&self) -> Option<Row<'_>> {
        self.node.as_ref().map(|node| Row { node, cell: self.cell })
    }

    fn advance(&mut self) -> Result<()> {
        self.cell += 1;
        if self.node.as_ref().is_none_or(|node| self.cell >= node.cells) {
            self.cell = 0;
            let next = self.leaves.pop();
            self.node = next.map(|page| self.snapshots.node(self.side, page, Shape::Table)).transpose()?;
        }
        let last = self.rowid;
        self.rowid = self.node.as_ref().map(|node| node.rowid(self.cell)).transpose()?;
        if let (Some(node), Some(last), Some(here)) = (&self.node, last, self.rowid)
            && here <= last
        {
            return damaged(node.page, "has rows that are not in the order of their ids");
        }
        Ok(())
    }
}

/// Values in an order of no meaning; values of different types are different.
struct ByValue(Vec<SqlValue>);

impl ByValue {
    fn parts(&self) -> impl Iterator<Item = (u8, u64, &[u8])> {
        self.0.iter().map(|value| match value {
            SqlValue::Null => (0, 0, &[][..]),
            SqlValue::Integer(number) => (1, number.cast_unsigned() ^ (1 << 63), &[][..]),
            SqlValue::Real(number) => (2, number.to_bits(), &[][..]),
            SqlValue::Text(bytes) => (3, 0, bytes.as_slice()),
            SqlValue::Blob(bytes) => (4, 0, bytes.as_slice()),
        })
    }
}

impl Ord for ByValue {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts().cmp(other.parts())
    }
}

impl PartialOrd for ByValue {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByValue {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByValue {}
