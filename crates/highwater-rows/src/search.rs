//! Finds the rows of which nothing changed but overflow pages, when all trees were compared.

use highwater_ltx::PageNo;

use crate::error::Result;
use crate::node::{Node, Shape, role};
use crate::rows::Comparison;
use crate::snapshots::{Side, Snapshots};
use crate::strays::Strays;
use crate::tree::{self, InState};
use crate::{Key, RowChange, Tree, TreeKind, record};

/// Adds them to the rows of their trees.
pub(crate) fn in_overflow(
    snapshots: &Snapshots<'_>,
    strays: &mut Strays,
    trees: &[Tree],
    rows: &mut [Vec<RowChange>],
) -> Result<()> {
    if strays.is_empty() {
        return Ok(());
    }
    let mut search = Search { snapshots, strays, trees, rows };
    search.nearby()?;
    for anywhere in [false, true] {
        search.everywhere(anywhere)?;
    }
    for rows in rows {
        rows.sort_by_key(|row| match row.key {
            Key::Rowid(rowid) => Some(rowid),
            Key::Values(_) => None,
        });
    }
    Ok(())
}

struct Search<'s, 'a> {
    snapshots: &'s Snapshots<'a>,
    strays: &'s mut Strays,
    trees: &'s [Tree],
    rows: &'s mut [Vec<RowChange>],
}

impl Search<'_, '_> {
    fn nearby(&mut self) -> Result<()> {
        for page in self.strays.pages() {
            if self.strays.contains(page)
                && let Some((owner, cell)) = self.strays.owner(self.snapshots, page)?
            {
                self.compare_owner(owner, cell)?;
                self.strays.forget(page);
            }
        }
        Ok(())
    }

    /// Compares the row of that cell, if it is of one of the trees.
    fn compare_owner(&mut self, page: PageNo, cell: usize) -> Result<()> {
        let bytes = self.snapshots.page(Side::Before, page)?;
        let shape = role(page, &bytes).map_or(Shape::Table, |(_, shape)| shape);
        let node = self.snapshots.node(Side::Before, page, shape)?;
        if self.snapshots.is_changed(page) {
            return Ok(());
        }
        for (n, tree) in self.trees.iter().enumerate() {
            let possible = tree.kind.shape() == shape && tree.after.is_some();
            let tree = InState::of(self.snapshots, Side::Before, tree).filter(|_| possible);
            if let Some(tree) = tree
                && tree.contains(page)?
            {
                return self.compare(n, &node, cell);
            }
        }
        self.strays.explain(self.snapshots, Side::Before, &node.payload(cell)?)
    }

    fn everywhere(&mut self, anywhere: bool) -> Result<()> {
        for (n, tree) in self.trees.iter().enumerate() {
            let Some(root) = tree.before.filter(|_| tree.after.is_some()) else { continue };
            if self.strays.is_empty() {
                break;
            }
            tree::leaves(self.snapshots, Side::Before, root, tree.kind.shape(), &mut |node| {
                if !self.snapshots.is_changed(node.page) {
                    for cell in self.strays.cells_of(self.snapshots, node, anywhere)? {
                        self.compare(n, node, cell)?;
                    }
                }
                Ok(!self.strays.is_empty())
            })?;
        }
        Ok(())
    }

    /// Compares a row of an unchanged page with itself.
    fn compare(&mut self, n: usize, node: &Node, cell: usize) -> Result<()> {
        let mut comparison = Comparison { snapshots: self.snapshots, strays: self.strays };
        if !comparison.differs_in_overflow(node, cell)? {
            return Ok(());
        }
        let Some((tree, rows)) = self.trees.get(n).zip(self.rows.get_mut(n)) else { return Ok(()) };
        let key = match &tree.kind {
            TreeKind::Rowid => Key::Rowid(node.rowid(cell)?),
            TreeKind::WithoutRowid { key } => {
                let values = record::values(self.snapshots, Side::Before, node, cell, key.len())?;
                Key::Values(record::decoded(values, self.snapshots.encoding(Side::Before)))
            }
        };
        rows.push(RowChange { key, before: true, after: true });
        Ok(())
    }
}
