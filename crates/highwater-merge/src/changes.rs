//! Which rows changed, as the steps of a merge ask for it.

use highwater_wire::SqlValue;

use crate::error::Result;

/// What identifies a row in its b-tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RowKey {
    /// Of a table with rowids.
    Rowid(i64),
    /// Of a WITHOUT ROWID table: the values of its PRIMARY KEY, in the order in which they are stored.
    Values(Vec<SqlValue>),
}

/// Finds the rows that differ between two sides. Names are those of tables that have a b-tree (shadow tables are
/// such); `None` where a side has none.
pub(crate) trait Changes {
    /// Rows that only one of base and local has or that differ between them, ascending.
    fn local(&self, base: Option<&str>, local: Option<&str>) -> Result<Vec<RowKey>>;
    /// The same between base and the head as it was before the merge.
    fn head(&self, base: Option<&str>, head: Option<&str>) -> Result<Vec<RowKey>>;
}
