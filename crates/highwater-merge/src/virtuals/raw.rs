//! Rows of hidden tables, copied as they are from local to the head.

use rusqlite::params_from_iter;

use crate::changes::RowKey;
use crate::error::Result;
use crate::rows_by_key::{key_of, row, rowid_is_a_column};
use crate::schema::catalog::Catalog;
use crate::sql::{self, Bind, quoted};
use crate::table::{ColumnMap, Context, Keys, Step, TableMap};

/// A hidden table on the three sides.
#[derive(Debug, Clone)]
pub(crate) struct Shadow {
    base: Option<String>,
    local: Option<String>,
    head: String,
}

/// The hidden tables of two sides: what stands behind the name of the virtual table, and both names.
pub(super) fn pairs(
    before: &Catalog,
    old: &str,
    after: &Catalog,
    new: &str,
) -> Vec<(String, Option<String>, Option<String>)> {
    let mut pairs: Vec<(String, Option<String>, Option<String>)> = Vec::new();
    for shadow in before.shadows_of(old) {
        let suffix = shadow.name.get(old.len()..).unwrap_or_default();
        pairs.push((suffix.to_ascii_lowercase(), Some(shadow.name.clone()), None));
    }
    for shadow in after.shadows_of(new) {
        let suffix = shadow.name.get(new.len()..).unwrap_or_default().to_ascii_lowercase();
        let name = Some(shadow.name.clone());
        match pairs.iter_mut().find(|(other, ..)| *other == suffix) {
            Some(pair) => pair.2 = name,
            None => pairs.push((suffix, None, name)),
        }
    }
    pairs
}

/// The same with their names at the head, where the virtual table has this name.
pub(super) fn named(pairs: &[(String, Option<String>, Option<String>)], head: &str) -> Vec<Shadow> {
    let shadow = |(suffix, base, local): &(String, Option<String>, Option<String>)| Shadow {
        base: base.clone(),
        local: local.clone(),
        head: format!("{head}{suffix}"),
    };
    pairs.iter().map(shadow).collect()
}

/// The hidden tables as tables of rows that have no place, because the head dropped the virtual table.
pub(super) fn without_place(
    cx: &Context<'_>,
    pairs: &[(String, Option<String>, Option<String>)],
) -> Step<Vec<TableMap>> {
    let mut maps = Vec::new();
    for (_, base, local) in pairs {
        let Some(name) = local else { continue };
        let names = sql::columns(cx.local, name)?.into_iter().map(|(name, _)| Some(name));
        let column = |name: Option<String>| ColumnMap {
            base: name.clone().filter(|_| base.is_some()),
            local: name,
            head: None,
            in_old_head: false,
            generated: false,
        };
        maps.push(TableMap {
            base: base.clone(),
            local: local.clone(),
            head: None,
            old_head: None,
            columns: names.map(column).collect(),
            keys: Keys::OwnTree,
        });
    }
    Ok(maps)
}

/// Empties the head's.
pub(super) fn clear(cx: &Context<'_>, shadows: &[Shadow]) -> Step<()> {
    for shadow in shadows {
        let delete = format!("DELETE FROM {}", quoted(&shadow.head));
        cx.head.execute_batch(&delete).map_err(sql::failed("fill a virtual table"))?;
    }
    Ok(())
}

/// Brings every row that local changed to the head.
pub(super) fn copy(cx: &Context<'_>, shadows: &[Shadow]) -> Step<()> {
    for shadow in shadows {
        let keys = cx.changes.local(shadow.base.as_deref(), shadow.local.as_deref())?;
        for key in &keys {
            delete(cx, shadow, key)?;
        }
        let Some(local) = &shadow.local else { continue };
        let with_rowid =
            !rowid_is_a_column(cx.local, local).map_err(sql::failed("read the key of a hidden table"))?;
        for key in &keys {
            insert(cx, shadow, local, key, with_rowid)?;
        }
    }
    Ok(())
}

fn delete(cx: &Context<'_>, shadow: &Shadow, key: &RowKey) -> Result<()> {
    let key = key_of(cx.head, &shadow.head, key)?;
    let place: Vec<_> = (1..).zip(&key).map(|(at, (name, _))| format!("{} IS ?{at}", quoted(name))).collect();
    let delete = format!("DELETE FROM {} WHERE {}", quoted(&shadow.head), place.join(" AND "));
    let failed = sql::failed("copy a row of a hidden table");
    let mut statement = cx.head.prepare_cached(&delete).map_err(&failed)?;
    statement.execute(params_from_iter(key.iter().map(|(_, value)| Bind(value)))).map_err(&failed)?;
    Ok(())
}

fn insert(cx: &Context<'_>, shadow: &Shadow, local: &str, key: &RowKey, with_rowid: bool) -> Result<()> {
    let Some(mut row) = row(cx.local, local, key)? else { return Ok(()) };
    if let (RowKey::Rowid(rowid), true) = (key, with_rowid) {
        row.push(("rowid".to_owned(), highwater_wire::SqlValue::Integer(*rowid)));
    }
    let names: Vec<_> = row.iter().map(|(name, _)| quoted(name)).collect();
    let places = vec!["?"; row.len()].join(", ");
    let insert = format!("INSERT INTO {} ({}) VALUES ({places})", quoted(&shadow.head), names.join(", "));
    let failed = sql::failed("copy a row of a hidden table");
    let mut statement = cx.head.prepare_cached(&insert).map_err(&failed)?;
    statement.execute(params_from_iter(row.iter().map(|(_, value)| Bind(value)))).map_err(&failed)?;
    Ok(())
}

/// Whether the head's hold the same rows as local's.
pub(super) fn equal(cx: &Context<'_>, shadows: &[Shadow]) -> Step<bool> {
    for shadow in shadows {
        let all = |side: &rusqlite::Connection, table: &str| -> rusqlite::Result<Vec<Vec<String>>> {
            let mut statement = side.prepare(&format!("SELECT * FROM {}", quoted(table)))?;
            let count = statement.column_count();
            let rows = statement.query_map([], |row| {
                (0..count)
                    .map(|at| Ok(sql::value(row, at)?.to_string()))
                    .collect::<rusqlite::Result<Vec<_>>>()
            })?;
            let mut rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            rows.sort();
            Ok(rows)
        };
        let Some(local) = &shadow.local else { return Ok(false) };
        let failed = sql::failed("compare a hidden table");
        if all(cx.local, local).map_err(&failed)? != all(cx.head, &shadow.head).map_err(&failed)? {
            return Ok(false);
        }
    }
    Ok(true)
}
