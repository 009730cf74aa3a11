//! Which rows changed between two snapshots of a database, read from the pages that changed.
//!
//! [`changed_rows`] takes two states, the pages that may differ between them, and the b-trees of the tables
//! that are of interest; it gives the keys of the rows that differ. Rows that only moved (a page was split,
//! the database was vacuumed) cancel. Values are not given: what a row holds is read through SQL, so that
//! defaults, affinities and generated columns are SQLite's own.
//!
//! The cost follows the size of the change, not of the database: every changed page is read, the interior
//! pages above it, and what hangs below children that only one of the states has. The exceptions:
//! - A long value that is overwritten in place (`UPDATE` by a value of the same size, incremental blob I/O)
//!   changes overflow pages and no leaf. Their rows are looked for nearby, and only if they are not found there
//!   in all leaves of the trees.
//! - A WITHOUT ROWID table whose key has a collation that SQLite does not bring along has all its interior
//!   pages read.
//!
//! Nothing that a page holds makes this reader panic, loop or recurse without bound.

mod error;
mod header;
mod node;
mod order;
mod record;
mod rows;
mod schema;
mod search;
mod snapshots;
mod strays;
mod tree;

use highwater_ltx::PageNo;
use highwater_pages::owners::PageSource;
use highwater_wire::SqlValue;

use node::Shape;
use rows::Comparison;
use snapshots::{Side, Snapshots};
use strays::Strays;
use tree::Pool;

pub use error::{Error, Result};
pub use header::{Encoding, Header, header};
pub use order::{Collation, KeyColumn};
pub use schema::{SchemaRow, schema};

/// A table, as the b-tree that holds its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Its root before; `None` if it was not there.
    pub before: Option<PageNo>,
    /// Its root after; `None` if it is not there any more.
    pub after: Option<PageNo>,
    /// How its rows are stored.
    pub kind: TreeKind,
}

impl Tree {
    const fn root(&self, side: Side) -> Option<PageNo> {
        match side {
            Side::Before => self.before,
            Side::After => self.after,
        }
    }
}

/// How the rows of a table are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeKind {
    /// By rowid.
    Rowid,
    /// By the primary key, in a WITHOUT ROWID table.
    WithoutRowid {
        /// The columns of the key, in the order in which `PRAGMA index_xinfo` tells them of the table's
        /// primary key.
        key: Vec<KeyColumn>,
    },
}

impl TreeKind {
    const fn shape(&self) -> Shape {
        match self {
            Self::Rowid => Shape::Table,
            Self::WithoutRowid { .. } => Shape::Index,
        }
    }
}

/// What a row is known by in its b-tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// Its rowid.
    Rowid(i64),
    /// The values of its primary key, as they are stored: a whole number in a `REAL` column may be an integer
    /// here.
    Values(Vec<SqlValue>),
}

/// A row that is stored with other content. To SQL it can still be the same: after `ALTER TABLE … ADD
/// COLUMN`, rows have the new column's default without storing it, until they are written again.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    /// Which row. Keys that are equal to SQL and are not stored alike (`'a'` and `'A'` with `NOCASE`, 1 and
    /// 1.0) are two.
    pub key: Key,
    /// Whether it was there before.
    pub before: bool,
    /// Whether it is there after.
    pub after: bool,
}

/// What [`changed_rows`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// The rows of each tree, in the order of the trees. Rows of a rowid table ascend; those of others are
    /// in an order that has no meaning, and is the same every time.
    pub rows: Vec<Vec<RowChange>>,
    /// How many pages were read of the two states together.
    pub pages_read: u64,
}

/// Finds the rows of `trees` that differ between two states. `changed` names every page that differs, and
/// perhaps others; pages that only one of the states has need not be named.
///
/// Give all tables at once: a changed overflow page that no table explains has to be looked for.
pub fn changed_rows(
    before: &dyn PageSource,
    after: &dyn PageSource,
    trees: &[Tree],
    changed: &[PageNo],
) -> Result<Changes> {
    let snapshots = Snapshots::new(before, after, changed)?;
    let mut strays = Strays::new(&snapshots)?;
    let mut pool = Pool::new(&snapshots)?;
    let mut rows = Vec::with_capacity(trees.len());
    for tree in trees {
        let pages = tree::differing(&snapshots, &mut pool, tree)?;
        let mut comparison = Comparison { snapshots: &snapshots, strays: &mut strays };
        rows.push(match &tree.kind {
            TreeKind::Rowid => comparison.tables(&pages)?,
            TreeKind::WithoutRowid { key } => comparison.indexes(&pages, key.len())?,
        });
    }
    for side in Side::BOTH {
        for page in pool.unclaimed(side) {
            strays.explain_page(&snapshots, side, page)?;
        }
    }
    search::in_overflow(&snapshots, &mut strays, trees, &mut rows)?;
    Ok(Changes { rows, pages_read: snapshots.reads() })
}
