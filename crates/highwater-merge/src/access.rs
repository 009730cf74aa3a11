//! How the rows of one table are read and written on one side.

use highwater_wire::SqlValue;
use rusqlite::types::ToSql;
use rusqlite::{Connection, params_from_iter};

use crate::affinity::Affinity;
use crate::changes::RowKey;
use crate::error::Result;
use crate::sql::{Bind, failed, quoted, value};
use crate::table::{Step, TableMap, refuse};

/// One of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Base,
    Local,
    Head,
}

/// A row of one side: one value for each column of the [`TableMap`], NULL where that side lacks the column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SideRow {
    /// Absent in WITHOUT ROWID tables.
    pub(crate) rowid: Option<i64>,
    pub(crate) values: Vec<SqlValue>,
    /// For columns that the base lacks: whether the value is what the column's DEFAULT gives.
    pub(crate) default: Vec<bool>,
}

/// A table of one side.
#[derive(Debug)]
pub(crate) struct Access {
    /// Quoted, for SQL.
    pub(crate) name: String,
    /// The name by which the rowid can be had; absent in WITHOUT ROWID tables.
    pub(crate) rowid: Option<&'static str>,
    /// The INTEGER PRIMARY KEY, as an index into the columns of the map.
    pub(crate) alias: Option<usize>,
    /// The declared PRIMARY KEY, in its order; empty if there is none. Indexes into the columns of the map.
    pub(crate) key: Vec<usize>,
    /// Quoted names on this side.
    pub(crate) columns: Vec<Option<String>>,
    /// What they make of values.
    pub(crate) affinities: Vec<Option<Affinity>>,
    select: String,
    /// Which results of the select are which column, and which say whether it is the default.
    results: Vec<(usize, bool)>,
}

/// The name of the table on that side.
pub(crate) fn name_on(map: &TableMap, side: Side) -> Option<&str> {
    match side {
        Side::Base => map.base.as_deref(),
        Side::Local => map.local.as_deref(),
        Side::Head => map.head.as_deref(),
    }
}

struct Column {
    name: String,
    default: Option<String>,
    pk: i64,
    kind: String,
}

fn declared(side: &Connection, table: &str) -> Result<Vec<Column>> {
    let failed = failed("read the columns of a table");
    let sql = "SELECT name, dflt_value, pk, type FROM pragma_table_xinfo(?1) ORDER BY cid";
    let mut statement = side.prepare_cached(sql).map_err(&failed)?;
    let column = |row: &rusqlite::Row<'_>| {
        Ok(Column { name: row.get(0)?, default: row.get(1)?, pk: row.get(2)?, kind: row.get(3)? })
    };
    statement.query_map([table], column).map_err(&failed)?.collect::<rusqlite::Result<_>>().map_err(&failed)
}

fn number(side: &Connection, sql: &str, table: &str) -> Result<i64> {
    let failed = failed("read the kind of a table");
    side.prepare_cached(sql).and_then(|mut found| found.query_row([table], |row| row.get(0))).map_err(failed)
}

impl Access {
    /// The table on that side, if it is there.
    pub(crate) fn new(connection: &Connection, map: &TableMap, side: Side) -> Step<Option<Self>> {
        let Some(table) = name_on(map, side) else { return Ok(None) };
        let declared = declared(connection, table)?;
        let without = "SELECT coalesce(max(wr), 0) FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
        let with_rowid = number(connection, without, table)? == 0;
        let names: Vec<Option<&str>> = map
            .columns
            .iter()
            .map(|column| match side {
                _ if column.generated => None,
                Side::Base => column.base.as_deref(),
                Side::Local => column.local.as_deref(),
                Side::Head => column.head.as_deref(),
            })
            .collect();
        let index = |name: &str| {
            names.iter().position(|have| have.is_some_and(|have| have.eq_ignore_ascii_case(name)))
        };
        let mut key: Vec<(i64, usize)> = declared
            .iter()
            .filter(|column| column.pk > 0)
            .filter_map(|c| Some((c.pk, index(&c.name)?)))
            .collect();
        key.sort_unstable();
        let key: Vec<usize> = key.into_iter().map(|(_, column)| column).collect();
        let pk_index = "SELECT count(*) FROM pragma_index_list(?1) WHERE origin = 'pk'";
        let module = "SELECT count(*) FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE AND rootpage = 0 AND sql LIKE '%using%rtree%'";
        let alias = if with_rowid && number(connection, module, table)? > 0 {
            // The id of an R-Tree is its first column.
            declared.first().and_then(|column| index(&column.name))
        } else if with_rowid && key.len() == 1 && number(connection, pk_index, table)? == 0 {
            key.first().copied()
        } else {
            None
        };
        let free = |name: &&&str| !declared.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        let rowid = if with_rowid { ["rowid", "_rowid_", "oid"].iter().find(free).copied() } else { None };
        let columns: Vec<Option<String>> = names.iter().map(|name| name.map(quoted)).collect();
        let rowid = match (rowid, alias.and_then(|alias| columns.get(alias)?.as_deref())) {
            (None, Some(_)) if with_rowid => Some("_rowid_"),
            (None, None) if with_rowid => return Err(refuse(table, HIDDEN_ROWID)),
            (rowid, _) => rowid,
        };
        let strict = "SELECT coalesce(max(strict), 0) FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
        let strict = number(connection, strict, table)? != 0;
        let affinity = |name: &Option<&str>| {
            let same = |have: &&Column| name.is_some_and(|name| name.eq_ignore_ascii_case(&have.name));
            declared.iter().find(same).map(|column| Affinity::of(&column.kind, strict))
        };
        let mut access = Self {
            affinities: names.iter().map(affinity).collect(),
            name: quoted(table),
            rowid,
            alias,
            key,
            columns,
            select: String::new(),
            results: Vec::new(),
        };
        access.prepare(map, &declared);
        Ok(Some(access))
    }

    fn prepare(&mut self, map: &TableMap, declared: &[Column]) {
        let mut select = format!("SELECT {}", self.rowid_sql().unwrap_or_else(|| "NULL".to_owned()));
        for (at, (name, column)) in self.columns.iter().zip(&map.columns).enumerate() {
            let Some(name) = name else { continue };
            select.push_str(&format!(", {name}"));
            self.results.push((at, false));
            if column.base.is_none() {
                let default = declared.iter().find(|have| quoted(&have.name).eq_ignore_ascii_case(name));
                let default = default.and_then(|have| have.default.as_deref()).unwrap_or("NULL");
                select.push_str(&format!(", {name} IS ({default})"));
                self.results.push((at, true));
            }
        }
        self.select = format!("{select} FROM {}", self.name);
    }

    /// The rowid as it stands in SQL.
    pub(crate) fn rowid_sql(&self) -> Option<String> {
        let alias = self.alias.and_then(|alias| self.columns.get(alias)?.clone());
        self.rowid.map(|name| alias.unwrap_or_else(|| name.to_owned()))
    }

    /// The row with that rowid.
    pub(crate) fn by_rowid(&self, side: &Connection, rowid: i64) -> Result<Option<SideRow>> {
        let Some(name) = self.rowid_sql() else { return Ok(None) };
        self.find(side, &format!("{name} = ?1"), &[SqlValue::Integer(rowid)])
    }

    /// The row with these values in these columns, none of them NULL; columns are indexes into the map.
    pub(crate) fn by_values(
        &self,
        side: &Connection,
        columns: &[usize],
        key: &[SqlValue],
    ) -> Result<Option<SideRow>> {
        let Some(names) = self.names(columns) else { return Ok(None) };
        self.find(side, &equal(&names), key)
    }

    /// The row of a b-tree of this side.
    pub(crate) fn by_tree(&self, side: &Connection, key: &RowKey) -> Result<Option<SideRow>> {
        match key {
            RowKey::Rowid(rowid) => self.by_rowid(side, *rowid),
            RowKey::Values(values) if self.rowid.is_none() => self.by_values(side, &self.key, values),
            RowKey::Values(_) => Ok(None),
        }
    }

    /// Quoted names of columns on this side, if it has all of them.
    pub(crate) fn names(&self, columns: &[usize]) -> Option<Vec<&str>> {
        columns.iter().map(|at| self.columns.get(*at)?.as_deref()).collect()
    }

    fn find(&self, side: &Connection, condition: &str, key: &[SqlValue]) -> Result<Option<SideRow>> {
        let failed = failed("read a row");
        let sql = format!("{} WHERE {condition} LIMIT 1", self.select);
        let mut statement = side.prepare_cached(&sql).map_err(&failed)?;
        let mut rows = statement.query(params_from_iter(key.iter().map(Bind))).map_err(&failed)?;
        let Some(row) = rows.next().map_err(&failed)? else { return Ok(None) };
        let count = self.columns.len();
        let mut found =
            SideRow { rowid: None, values: vec![SqlValue::Null; count], default: vec![true; count] };
        found.rowid = row.get(0).map_err(&failed)?;
        for (result, (column, is_default)) in self.results.iter().enumerate() {
            if *is_default {
                let yes: Option<bool> = row.get(result + 1).map_err(&failed)?;
                if let Some(slot) = found.default.get_mut(*column) {
                    *slot = yes == Some(true);
                }
            } else {
                let value = value(row, result + 1).map_err(&failed)?;
                if let Some(slot) = found.values.get_mut(*column) {
                    *slot = value;
                }
            }
        }
        Ok(Some(found))
    }

    /// Whether there is a row with these values in these columns of the side's own names.
    pub(crate) fn exists(
        side: &Connection,
        table: &str,
        columns: &[&str],
        key: &[&SqlValue],
    ) -> Result<bool> {
        let sql = format!("SELECT 1 FROM {table} WHERE {} LIMIT 1", equal(columns));
        let failed = failed("look for a row");
        let values = key.iter().map(|value| Bind(value));
        side.prepare_cached(&sql).and_then(|mut found| found.exists(params_from_iter(values))).map_err(failed)
    }

    /// Deletes rows with these values in these columns of the side's own names.
    pub(crate) fn delete(&self, side: &Connection, columns: &[&str], key: &[&SqlValue]) -> Result<()> {
        let sql = format!("DELETE FROM {} WHERE {}", self.name, equal(columns));
        let values = key.iter().map(|value| Bind(value));
        let done = side.prepare_cached(&sql).and_then(|mut delete| delete.execute(params_from_iter(values)));
        done.map(|_| ()).map_err(failed("delete a row"))
    }

    /// The largest rowid, 0 in an empty table.
    pub(crate) fn max_rowid(&self, side: &Connection) -> Result<i64> {
        let Some(name) = self.rowid_sql() else { return Ok(0) };
        let sql = format!("SELECT {name} FROM {} ORDER BY {name} DESC LIMIT 1", self.name);
        let failed = failed("read the largest id");
        let mut statement = side.prepare_cached(&sql).map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        Ok(match rows.next().map_err(&failed)? {
            Some(row) => row.get(0).map_err(&failed)?,
            None => 0,
        })
    }
}

const HIDDEN_ROWID: &str = "the rows of this table cannot be told apart: columns hide all names of the rowid. \
                            Give the table a PRIMARY KEY, or rename the column `rowid`";

/// `"a" = ?1 AND "b" = ?2`.
pub(crate) fn equal(names: &[&str]) -> String {
    let terms: Vec<String> = names.iter().zip(1..).map(|(name, at)| format!("{name} = ?{at}")).collect();
    terms.join(" AND ")
}

/// Runs one statement; says how many rows it touched.
pub(crate) fn run(head: &Connection, sql: &str, values: &[&dyn ToSql]) -> rusqlite::Result<usize> {
    head.prepare_cached(sql)?.execute(values)
}
