//! All tables of a merge with their identities and foreign keys.

use rusqlite::Connection;

use crate::access::{Access, Side, SideRow, name_on};
use crate::affinity::{Affinity, conversions};
use crate::error::Result;
use crate::sql::failed;
use crate::table::{Context, Plan, Step, TableMap, refuse};

/// One table, and how it is reached on each side.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) map: &'a TableMap,
    pub(crate) base: Option<Access>,
    pub(crate) local: Option<Access>,
    pub(crate) head: Option<Access>,
    /// The declared key that identifies rows; empty: the rowid does. Indexes into the columns of the map.
    pub(crate) key: Vec<usize>,
    /// Columns that store values in another way than the head's do: the base's, and local's.
    converted: [Vec<(usize, Affinity)>; 2],
    /// The column that is the rowid.
    pub(crate) alias: Option<usize>,
    /// Foreign keys of the merged schema.
    pub(crate) foreign: Vec<ForeignKey>,
    /// Columns that hold ids of another table, as local declares it: (column, table).
    pub(crate) links: Vec<(usize, usize)>,
}

/// A declared foreign key. Columns are indexes into the maps of both tables, `parent` into the list of tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignKey {
    pub(crate) columns: Vec<usize>,
    pub(crate) parent: usize,
    pub(crate) parent_columns: Vec<usize>,
}

impl Table<'_> {
    /// How it is reached on one side.
    pub(crate) fn on(&self, side: Side) -> Option<&Access> {
        match side {
            Side::Base => self.base.as_ref(),
            Side::Local => self.local.as_ref(),
            Side::Head => self.head.as_ref(),
        }
    }

    /// Makes a row of one side what it would be at the head.
    pub(crate) fn as_at_head(&self, cx: &Context<'_>, side: Side, row: &mut SideRow) -> Result<()> {
        let [base, local] = &self.converted;
        match side {
            Side::Base => cx.converter.convert(row, base),
            Side::Local => cx.converter.convert(row, local),
            Side::Head => Ok(()),
        }
    }

    /// Rows are told apart by the rowid, and nobody declared it: VACUUM may move them.
    pub(crate) fn keyless(&self) -> bool {
        self.key.is_empty() && self.alias.is_none() && self.map.keys == crate::table::Keys::OwnTree
    }

    /// The column is the rowid, and at the same time a foreign key: such an id is not free to change.
    pub(crate) fn shares_id(&self) -> bool {
        self.alias.is_some_and(|alias| self.links.iter().any(|(column, _)| *column == alias))
    }
}

/// The connection of one side.
pub(crate) fn connection<'a>(cx: &Context<'a>, side: Side) -> &'a Connection {
    match side {
        Side::Base => cx.base,
        Side::Local => cx.local,
        Side::Head => cx.head,
    }
}

/// Opens all tables of the plan.
pub(crate) fn open<'a>(cx: &Context<'_>, plan: &'a Plan) -> Step<Vec<Table<'a>>> {
    let mut tables = Vec::new();
    for map in &plan.tables {
        let named = |stop| by_name(stop, map.name());
        let base = Access::new(cx.base, map, Side::Base).map_err(named)?;
        let local = Access::new(cx.local, map, Side::Local).map_err(named)?;
        let head = Access::new(cx.head, map, Side::Head).map_err(named)?;
        let (mut key, mut alias) = (Vec::new(), None);
        if let Some(access) = head.as_ref().or(local.as_ref()) {
            alias = access.alias;
            if alias.is_none() {
                key.clone_from(&access.key);
            }
        }
        let converted = [&base, &local].map(|side| conversions(side.as_ref(), head.as_ref()));
        let (foreign, links) = (Vec::new(), Vec::new());
        tables.push(Table { map, base, local, head, key, converted, alias, foreign, links });
    }
    let mut foreign = Vec::new();
    let mut declared = Vec::new();
    for table in &tables {
        foreign.push(foreign_keys(cx, &tables, table, Side::Head)?);
        declared.push(foreign_keys(cx, &tables, table, Side::Local)?);
    }
    let links: Vec<Vec<(usize, usize)>> = (0..tables.len()).map(|at| links(&tables, &declared, at)).collect();
    for (table, (foreign, links)) in tables.iter_mut().zip(foreign.into_iter().zip(links)) {
        table.foreign = foreign;
        table.links = links;
    }
    Ok(tables)
}

fn foreign_keys(
    cx: &Context<'_>,
    tables: &[Table<'_>],
    table: &Table<'_>,
    side: Side,
) -> Result<Vec<ForeignKey>> {
    let (Some(name), Some(access)) = (name_on(table.map, side), table.on(side)) else {
        return Ok(Vec::new());
    };
    let failed = failed("read the foreign keys of a table");
    let sql = "SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1) ORDER BY id, seq";
    let mut statement = connection(cx, side).prepare_cached(sql).map_err(&failed)?;
    let parts = statement
        .query_map([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .map_err(&failed)?
        .collect::<rusqlite::Result<Vec<(i64, String, String, Option<String>)>>>()
        .map_err(&failed)?;
    let mut found: Vec<(i64, ForeignKey)> = Vec::new();
    let mut broken = Vec::new();
    for (id, parent, from, to) in parts {
        let same = |table: &Table<'_>| {
            name_on(table.map, side).is_some_and(|name| name.eq_ignore_ascii_case(&parent))
        };
        let at = tables.iter().position(same);
        let Some((parent, parent_access)) = at.and_then(|at| Some((at, tables.get(at)?.on(side)?))) else {
            broken.push(id);
            continue;
        };
        if found.last().is_none_or(|(last, _)| *last != id) {
            found.push((id, ForeignKey { columns: Vec::new(), parent, parent_columns: Vec::new() }));
        }
        let Some((_, key)) = found.last_mut() else { continue };
        let to = match to {
            Some(to) => column(parent_access, &to),
            None => parent_access.key.get(key.columns.len()).copied(),
        };
        match (column(access, &from), to) {
            (Some(from), Some(to)) => {
                key.columns.push(from);
                key.parent_columns.push(to);
            }
            _ => broken.push(id),
        }
    }
    Ok(found.into_iter().filter(|(id, _)| !broken.contains(id)).map(|(_, key)| key).collect())
}

fn column(access: &Access, name: &str) -> Option<usize> {
    let name = crate::sql::quoted(name);
    access.columns.iter().position(|have| have.as_ref().is_some_and(|have| have.eq_ignore_ascii_case(&name)))
}

/// Which columns of a table hold ids of which table, through tables in between whose keys hold them.
fn links(tables: &[Table<'_>], declared: &[Vec<ForeignKey>], table: usize) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for key in declared.get(table).into_iter().flatten() {
        for (column, parent_column) in key.columns.iter().zip(&key.parent_columns) {
            let (mut parent, mut at) = (key.parent, *parent_column);
            // No chain is longer than there are tables, unless it is a circle.
            for _ in 0..=tables.len() {
                if tables.get(parent).is_some_and(|table| table.alias == Some(at)) {
                    // An id that points to itself says nothing.
                    if (parent, at) != (table, *column) && !found.contains(&(*column, parent)) {
                        found.push((*column, parent));
                    }
                    break;
                }
                let Some((next, column)) = declared.get(parent).into_iter().flatten().find_map(|key| {
                    let position = key.columns.iter().position(|column| *column == at)?;
                    Some((key.parent, *key.parent_columns.get(position)?))
                }) else {
                    break;
                };
                (parent, at) = (next, column);
            }
        }
    }
    found
}

/// A thing that this SQLite lacks is no damage: the merge is refused by the name of the table that needs it.
pub(crate) fn by_name(stop: crate::table::Stop, table: &str) -> crate::table::Stop {
    use crate::table::Stop;
    let Stop::Failed(crate::Error::Sqlite { source, .. }) = &stop else { return stop };
    let text = source.to_string();
    let missing = ["no such collation sequence", "no such function", "unknown function", "no such module"];
    if missing.iter().any(|what| text.contains(what)) {
        let reason = format!("the server's SQLite cannot read or write this table: {text}");
        return refuse(table, reason);
    }
    stop
}
