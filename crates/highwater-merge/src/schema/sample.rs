//! A look at a few rows, where texts alone do not tell a new name from a new thing.

use highwater_wire::{RowJson, SqlValue};
use rusqlite::Connection;

use super::catalog::lower;
use crate::changes::RowKey;
use crate::error::Result;
use crate::rows_by_key::{key_names, row};
use crate::sql::{self, quoted};

/// As many rows are looked at.
const ROWS: usize = 16;

/// A table of one side.
pub(super) type Of<'a> = (&'a Connection, &'a str);

/// Whether rows of `before` are rows of `after`, by these columns (their names there and there): some row has the
/// same values, or there is none with values.
pub(super) fn same_rows(before: Of<'_>, after: Of<'_>, columns: &[(String, String)]) -> Result<bool> {
    let mut seen = false;
    for key in keys(before)? {
        let Some(old) = row(before.0, before.1, &key)? else { continue };
        let olds: Vec<_> = columns.iter().map(|(name, _)| value(&old, name)).collect();
        if olds.iter().all(Option::is_none) {
            continue;
        }
        seen = true;
        let Some(new) = row(after.0, after.1, &key)? else { continue };
        if columns.iter().zip(olds).all(|((_, name), old)| value(&new, name) == old) {
            return Ok(true);
        }
    }
    Ok(!seen)
}

/// A value that is not NULL.
fn value(row: &RowJson, column: &str) -> Option<SqlValue> {
    let found = row.iter().find(|(name, _)| lower(name) == lower(column));
    found.map(|(_, value)| value.clone()).filter(|value| *value != SqlValue::Null)
}

fn keys((side, table): Of<'_>) -> Result<Vec<RowKey>> {
    let failed = sql::failed("read some rows of a table");
    let by_rowid = side.prepare(&format!("SELECT _rowid_ FROM {} LIMIT {ROWS}", quoted(table)));
    let with_rowid = by_rowid.is_ok();
    let mut statement = match by_rowid {
        Ok(statement) => statement,
        Err(_without_rowid) => {
            let names: Vec<_> = key_names(side, table)?.iter().map(|name| quoted(name)).collect();
            let text = format!("SELECT {} FROM {} LIMIT {ROWS}", names.join(", "), quoted(table));
            side.prepare(&text).map_err(&failed)?
        }
    };
    let count = statement.column_count();
    let read = |row: &rusqlite::Row<'_>| {
        if with_rowid {
            return Ok(RowKey::Rowid(row.get(0)?));
        }
        let values = (0..count).map(|at| sql::value(row, at)).collect::<rusqlite::Result<_>>()?;
        Ok(RowKey::Values(values))
    };
    let keys = statement.query_map([], read).and_then(Iterator::collect);
    keys.map_err(failed)
}
