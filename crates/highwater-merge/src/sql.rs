//! Small steps of SQL.

use highwater_wire::SqlValue;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row};

use crate::error::{Error, Result};

/// An identifier as it stands in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name in a quoted identifier.
pub(crate) fn unquoted(quoted: &str) -> String {
    let inner = quoted.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    inner.unwrap_or(quoted).replace("\"\"", "\"")
}

/// Says what was tried when SQLite fails.
pub(crate) fn failed(what: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Sqlite { what, source }
}

/// The texts of a query with one column.
pub(crate) fn texts(side: &Connection, sql: &str) -> Result<Vec<String>> {
    let failed = failed("read the schema");
    let mut statement = side.prepare(sql).map_err(&failed)?;
    let rows = statement.query_map([], |row| row.get(0)).map_err(&failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(&failed)
}

/// The columns of a table with `PRAGMA table_xinfo`'s `hidden` (1: hidden, 2 and 3: generated).
pub(crate) fn columns(side: &Connection, table: &str) -> Result<Vec<(String, i64)>> {
    let failed = failed("read the columns of a table");
    let sql = "SELECT name, hidden FROM pragma_table_xinfo(?1) ORDER BY cid";
    let mut statement = side.prepare_cached(sql).map_err(&failed)?;
    let rows = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?))).map_err(&failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(&failed)
}

/// A value to be bound.
pub(crate) struct Bind<'a>(pub(crate) &'a SqlValue);

impl ToSql for Bind<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            SqlValue::Null => ValueRef::Null,
            SqlValue::Integer(number) => ValueRef::Integer(*number),
            SqlValue::Real(number) => ValueRef::Real(*number),
            SqlValue::Text(bytes) => ValueRef::Text(bytes),
            SqlValue::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A value of a result.
pub(crate) fn value(row: &Row<'_>, column: usize) -> rusqlite::Result<SqlValue> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => SqlValue::Null,
        ValueRef::Integer(number) => SqlValue::Integer(number),
        ValueRef::Real(number) => SqlValue::Real(number),
        ValueRef::Text(bytes) => SqlValue::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => SqlValue::Blob(bytes.to_vec()),
    })
}
