//! The list of tables, indexes, views and triggers.

use highwater_ltx::PageNo;
use highwater_pages::owners::PageSource;
use highwater_wire::SqlValue;

use crate::error::Result;
use crate::header::FIRST;
use crate::node::Shape;
use crate::record;
use crate::snapshots::{Side, Snapshots};

/// A row of `sqlite_schema`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaRow {
    /// `table`, `index`, `view` or `trigger`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The table that it belongs to.
    pub table: String,
    /// The root of its b-tree; views, triggers and virtual tables have none.
    pub root: Option<PageNo>,
    /// How it was made; indexes that a table brings along have none.
    pub sql: Option<String>,
}

/// Everything that the schema of a database names, in the order of its rows.
pub fn schema(pages: &dyn PageSource) -> Result<Vec<SchemaRow>> {
    let snapshots = Snapshots::new(pages, pages, &[])?;
    let mut rows = Vec::new();
    if snapshots.header(Side::Before).is_none() {
        return Ok(rows);
    }
    crate::tree::leaves(&snapshots, Side::Before, FIRST, Shape::Table, &mut |node| {
        for cell in 0..node.cells {
            let values = record::values(&snapshots, Side::Before, node, cell, 5)?;
            rows.extend(row(record::decoded(values, snapshots.encoding(Side::Before))));
        }
        Ok(true)
    })?;
    Ok(rows)
}

fn row(values: Vec<SqlValue>) -> Option<SchemaRow> {
    let mut values = values.into_iter();
    let mut next = || values.next();
    let text = |value: Option<SqlValue>| match value {
        Some(SqlValue::Text(bytes)) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    };
    Some(SchemaRow {
        kind: text(next())?,
        name: text(next())?,
        table: text(next())?,
        root: match next() {
            Some(SqlValue::Integer(root)) => u32::try_from(root).ok().filter(|root| *root != 0).map(PageNo),
            _ => None,
        },
        sql: text(next()),
    })
}
