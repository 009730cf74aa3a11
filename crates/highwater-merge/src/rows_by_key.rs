//! Single rows by the key of their b-tree.

use highwater_wire::{RowJson, SqlValue};
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};

use crate::changes::RowKey;
use crate::error::Result;
use crate::sql::{self, Bind, quoted};

/// What a key is called.
pub(crate) fn key_of(side: &Connection, table: &str, key: &RowKey) -> Result<RowJson> {
    match key {
        RowKey::Rowid(rowid) => Ok(vec![("rowid".to_owned(), SqlValue::Integer(*rowid))]),
        RowKey::Values(values) => Ok(key_names(side, table)?.into_iter().zip(values.clone()).collect()),
    }
}

/// The columns of the PRIMARY KEY in its order.
pub(crate) fn key_names(side: &Connection, table: &str) -> Result<Vec<String>> {
    let failed = sql::failed("read the key of a table");
    let mut statement = side
        .prepare_cached("SELECT name FROM pragma_table_xinfo(?1) WHERE pk > 0 ORDER BY pk")
        .map_err(&failed)?;
    let names = statement.query_map([table], |row| row.get(0)).and_then(Iterator::collect);
    names.map_err(failed)
}

/// One row with the names of its columns.
pub(crate) fn row(side: &Connection, table: &str, key: &RowKey) -> Result<Option<RowJson>> {
    let failed = sql::failed("read a row");
    let key = key_of(side, table, key)?;
    let place: Vec<_> = (1..).zip(&key).map(|(at, (name, _))| format!("{} = ?{at}", quoted(name))).collect();
    let text = format!("SELECT * FROM {} WHERE {}", quoted(table), place.join(" AND "));
    let mut statement = side.prepare_cached(&text).map_err(&failed)?;
    let names: Vec<_> = statement.column_names().map(ToOwned::to_owned).collect();
    let values = params_from_iter(key.iter().map(|(_, value)| Bind(value)));
    let read = |row: &rusqlite::Row<'_>| {
        let all = names.iter().enumerate().map(|(at, name)| Ok((name.clone(), sql::value(row, at)?)));
        all.collect()
    };
    statement.query_row(values, read).optional().map_err(failed)
}

/// Whether the rowid is copied with a column: an INTEGER PRIMARY KEY, the only kind of key that has no index.
pub(crate) fn rowid_is_a_column(head: &Connection, table: &str) -> rusqlite::Result<bool> {
    head.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_xinfo(?1) WHERE pk > 0) \
         AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')",
        [table],
        |row| row.get(0),
    )
}
