//! The objects of one side.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::text;
use crate::error::Result;
use crate::sql;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Table,
    /// With its module.
    Virtual,
    Index,
    View,
    Trigger,
}

impl Kind {
    /// As it stands behind CREATE and DROP, and in sentences.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Table | Self::Virtual => "table",
            Self::Index => "index",
            Self::View => "view",
            Self::Trigger => "trigger",
        }
    }

    pub(crate) const fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Virtual)
    }
}

/// What names an object: triggers have names of their own, and case does not matter.
pub(crate) type Key = (bool, String);

/// A table, index, view or trigger with a text.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// What an index or trigger belongs to; of others their own name.
    pub(crate) table: String,
    pub(crate) sql: String,
    /// The root page; 0 where there is none.
    pub(crate) root: i64,
    /// Its place among the others.
    pub(crate) order: usize,
}

impl Object {
    pub(crate) fn key(&self) -> Key {
        (self.kind == Kind::Trigger, lower(&self.name))
    }
}

/// A name in the form in which names are compared.
pub(crate) fn lower(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// All objects of a side that people made: not those of SQLite itself, and not the hidden tables of virtual tables.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) objects: BTreeMap<Key, Object>,
    /// Every hidden table with its root page, by its name in lower case.
    pub(crate) shadows: BTreeMap<String, Object>,
}

impl Catalog {
    pub(crate) fn read(side: &Connection) -> Result<Self> {
        let failed = sql::failed("read the schema");
        let mut statement = side
            .prepare(
                "SELECT type, name, tbl_name, sql, rootpage FROM sqlite_schema \
                 WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
            )
            .map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(&failed)? {
            let object = (|| {
                let sql: String = row.get(3)?;
                let kind = match row.get::<_, String>(0)?.as_str() {
                    "index" => Kind::Index,
                    "view" => Kind::View,
                    "trigger" => Kind::Trigger,
                    _ if text::is_virtual(&sql) => Kind::Virtual,
                    _ => Kind::Table,
                };
                let (name, table, root) = (row.get(1)?, row.get(2)?, row.get(4)?);
                Ok(Object { kind, name, table, sql, root, order: found.len() })
            })()
            .map_err(&failed)?;
            found.push(object);
        }
        let hidden = hidden(side, &found)?;
        let (shadows, own): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|object| object.kind == Kind::Table && hidden.contains(&lower(&object.name)));
        Ok(Self {
            objects: own.into_iter().map(|object| (object.key(), object)).collect(),
            shadows: shadows.into_iter().map(|object| (lower(&object.name), object)).collect(),
        })
    }

    /// The table of that name.
    pub(crate) fn table(&self, name: &str) -> Option<&Object> {
        self.objects.get(&(false, lower(name))).filter(|object| object.kind.is_table())
    }

    /// In the order in which they were created.
    pub(crate) fn in_order(&self) -> Vec<&Object> {
        let mut objects: Vec<_> = self.objects.values().collect();
        objects.sort_by_key(|object| object.order);
        objects
    }

    /// The hidden tables of a virtual table.
    pub(crate) fn shadows_of(&self, table: &str) -> Vec<&Object> {
        self.shadows.values().filter(|shadow| belongs(&shadow.name, table)).collect()
    }
}

/// Whether a table's name is made of a virtual table's.
fn belongs(shadow: &str, table: &str) -> bool {
    shadow.rsplit_once('_').is_some_and(|(owner, _)| owner.eq_ignore_ascii_case(table))
}

/// Whether this SQLite knows a module.
pub(crate) fn known_module(side: &Connection, module: &str) -> Result<bool> {
    side.query_row(
        "SELECT count(*) FROM pragma_module_list WHERE name = ?1 COLLATE NOCASE",
        [module],
        |row| row.get(0),
    )
    .map_err(sql::failed("list its modules"))
}

/// The names of hidden tables in lower case. SQLite knows those of the modules that it has; of others every table
/// counts that has a name as theirs have.
fn hidden(side: &Connection, objects: &[Object]) -> Result<BTreeSet<String>> {
    let virtuals: Vec<_> = objects.iter().filter(|object| object.kind == Kind::Virtual).collect();
    if virtuals.is_empty() {
        return Ok(BTreeSet::new());
    }
    let known = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'";
    let mut hidden: BTreeSet<_> = sql::texts(side, known)?.iter().map(|name| lower(name)).collect();
    for table in virtuals {
        let module = text::module_of(&table.sql).map(|(module, _)| module).unwrap_or_default();
        if !known_module(side, &module)? {
            let theirs = objects.iter().filter(|object| belongs(&object.name, &table.name));
            hidden.extend(theirs.map(|object| lower(&object.name)));
        }
    }
    Ok(hidden)
}
