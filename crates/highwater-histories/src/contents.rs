//! The rows of a database, in a form in which two devices' can be compared: without ids, which a merge may change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::schema::{has_own_ids, is_inner};

/// A row: its columns that are not NULL, as text.
pub type Row = BTreeMap<String, String>;

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Its columns.
    pub columns: BTreeSet<String>,
    /// Those that have a DEFAULT: NULL in one of them was written, and is shown.
    pub with_default: BTreeSet<String>,
    /// Its rows by what identifies them.
    pub rows: BTreeMap<String, Row>,
    /// Which row has which id, where rows are identified by something else here.
    pub ids: BTreeMap<String, String>,
    /// Identities that more than one row has.
    pub doubles: BTreeSet<String>,
}

/// A whole database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its tables, but for those that belong to others.
    pub tables: BTreeMap<String, Table>,
    /// Names and definitions of everything in the schema.
    pub schema: BTreeMap<String, String>,
}

/// Nothing at all, where it was written.
const NULL: &str = "NULL";
/// What an added column has in rows that nobody touched.
const DEFAULT: &str = "dflt";
/// So much of a value tells it from others.
const SHOWN: usize = 24;

impl Contents {
    /// Reads everything.
    ///
    /// # Errors
    /// Whatever SQLite says.
    pub fn read(connection: &Connection) -> Result<Self> {
        let mut all = Self::default();
        let sql = "SELECT type, name, coalesce(sql, '') FROM sqlite_schema";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut names = Vec::new();
        while let Some(row) = rows.next()? {
            let (kind, name, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if kind == "table" && !is_inner(&name) {
                names.push(name.clone());
            }
            all.schema.insert(format!("{kind} {name}"), sql);
        }
        let mut births = BTreeMap::new();
        for name in &names {
            let table =
                read_table(connection, name, &mut births).with_context(|| format!("reading {name}"))?;
            all.tables.insert(name.clone(), table);
        }
        for table in all.tables.values_mut() {
            for row in table.rows.values_mut() {
                follow_references(row, &births);
            }
        }
        Ok(all)
    }

    /// The first thing in which two differ, for people.
    #[must_use]
    pub fn difference(&self, other: &Self) -> String {
        for name in self.schema.keys().chain(other.schema.keys()) {
            let (left, right) = (self.schema.get(name), other.schema.get(name));
            if left != right {
                return format!("{name}: {left:?} and {right:?}");
            }
        }
        let empty = Table::default();
        for name in self.tables.keys().chain(other.tables.keys()) {
            let side = |all: &Self| all.tables.get(name).cloned().unwrap_or_else(|| empty.clone());
            let (left, right) = (side(self), side(other));
            for key in left.rows.keys().chain(right.rows.keys()) {
                let (left, right) = (left.rows.get(key), right.rows.get(key));
                if left != right {
                    return format!("{name}, row {key}: {left:?} and {right:?}");
                }
            }
            if left != right {
                return format!(
                    "{name}: {:?} {:?} and {:?} {:?}",
                    left.columns, left.doubles, right.columns, right.doubles
                );
            }
        }
        "nothing".to_owned()
    }

    /// The same with rows of `table` identified by all that is in them.
    #[must_use]
    pub fn by_content(&self, table: &str) -> Self {
        let mut changed = self.clone();
        if let Some(found) = changed.tables.get_mut(table) {
            let rows = std::mem::take(&mut found.rows);
            found.rows = rows.into_values().map(|row| (format!("{row:?}"), row)).collect();
            found.doubles.clear();
            found.ids.clear();
        }
        changed
    }
}

type Births = BTreeMap<(String, String), String>;

fn read_table(connection: &Connection, name: &str, births: &mut Births) -> Result<Table> {
    // Not a cached one: it would have the columns of an earlier schema until it runs.
    let rowid = if has_own_ids(name) { "rowid AS id, " } else { "" };
    let mut statement = connection.prepare(&format!("SELECT {rowid}* FROM {name}"))?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let with_default = "SELECT name FROM pragma_table_xinfo(?1) WHERE dflt_value IS NOT NULL";
    let with_default: BTreeSet<String> = connection
        .prepare_cached(with_default)?
        .query_map([name], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut table = Table {
        columns: columns.iter().cloned().collect(),
        with_default: with_default.clone(),
        ..Table::default()
    };
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut found = Row::new();
        let mut id = None;
        for (at, column) in columns.iter().enumerate() {
            // Nothing at all is something that was written, where there is a default.
            let written = || with_default.contains(column).then(|| NULL.to_owned());
            let Some(value) = shown(row.get_ref(at)?).or_else(written) else { continue };
            if column == "id" {
                id = Some(value);
            } else if !column.starts_with("g_") && value != DEFAULT {
                found.insert(column.clone(), value);
            }
        }
        let part = |name: &str| found.get(name).cloned();
        let key = match (part("k"), part("k1")) {
            (Some(key), _) => key,
            (_, Some(key)) => format!("{key} {}", part("k2").unwrap_or_default()),
            _ => part("born").unwrap_or_else(|| "nothing".to_owned()),
        };
        if let Some(id) = id {
            table.ids.insert(id.clone(), key.clone());
            births.insert((name.to_owned(), id), key.clone());
        }
        // A second row of one identity is a row all the same: what it holds is not lost.
        let mut own = key.clone();
        let mut number = 2;
        while table.rows.contains_key(&own) {
            own = format!("{key} ({number})");
            number += 1;
        }
        if own != key {
            table.doubles.insert(key);
        }
        table.rows.insert(own, found);
    }
    Ok(table)
}

/// An id says nothing, the row that has it does.
fn follow_references(row: &mut Row, births: &Births) {
    for (column, value) in row.iter_mut() {
        if let Some(target) = column.strip_prefix("ref_") {
            let found = births.get(&(target.to_owned(), value.clone()));
            *value = found.map_or_else(|| format!("nothing at {value}"), |born| format!("-> {born}"));
        }
    }
}

fn shown(value: ValueRef<'_>) -> Option<String> {
    Some(match value {
        ValueRef::Null => return None,
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let mut short: String = text.chars().take(SHOWN).collect();
            if text.len() > SHOWN {
                let sum = bytes.iter().fold(7_u32, |sum, byte| sum.wrapping_mul(31) ^ u32::from(*byte));
                // Writing to a String does not fail.
                let _ = write!(short, "…{}/{sum:x}", text.len());
            }
            short
        }
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
    })
}

/// Where one side gave a column a DEFAULT and another one gave it none, NULL may be what was written or what was there.
pub(crate) fn level_defaults(sides: &mut [Option<Table>; 4]) {
    let has = |column: &String, with: bool| {
        let mut there = sides.iter().flatten().filter(|side| side.columns.contains(column));
        there.any(|side| side.with_default.contains(column) == with)
    };
    let columns = sides.iter().flatten().flat_map(|side| &side.with_default);
    let uneven: BTreeSet<String> =
        columns.filter(|column| has(column, true) && has(column, false)).cloned().collect();
    for row in sides.iter_mut().flatten().flat_map(|side| side.rows.values_mut()) {
        row.retain(|column, value| !(uneven.contains(column) && value == NULL));
    }
}

/// The tokens in a text: `d1t2.`, `d1t2b3.`.
#[must_use]
pub fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices('d') {
        let Some(rest) = text.get(start..) else { continue };
        let Some(end) = rest.find('.') else { break };
        let Some(token) = rest.get(..=end) else { continue };
        let inner = token.get(1..end).unwrap_or_default();
        let fits = inner.contains('t')
            && inner.starts_with(|c: char| c.is_ascii_digit())
            && inner.ends_with(|c: char| c.is_ascii_digit())
            && inner.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b't' | b'b' | b'c'));
        if fits {
            found.push(token);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were one for the judge, and what the first one held seemed to be lost.
    #[test]
    fn two_rows_of_one_birth_are_two_rows() {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "CREATE TABLE bag(born, a); INSERT INTO bag VALUES ('d0t1.', 'd2t1.'), ('d0t1.', 'd0t3.')";
        connection.execute_batch(sql).unwrap();
        let contents = Contents::read(&connection).unwrap();
        let bag = &contents.tables["bag"];
        let values: Vec<&String> = bag.rows.values().map(|row| &row["a"]).collect();
        assert_eq!(values, ["d2t1.", "d0t3."]);
        assert_eq!(bag.doubles.iter().collect::<Vec<_>>(), ["d0t1."]);
        assert_eq!(contents.by_content("bag").tables["bag"].rows.len(), 2);
    }

    /// Two devices added a column, one of them with a default, and the head's definition stayed.
    #[test]
    fn a_column_that_only_one_side_gave_a_default_may_hold_nothing_on_both() {
        let side = |column: &str, rows: &str| {
            let connection = Connection::open_in_memory().unwrap();
            let sql = format!("CREATE TABLE words(k{column}); INSERT INTO words VALUES {rows}");
            connection.execute_batch(&sql).unwrap();
            Contents::read(&connection).unwrap().tables.remove("words")
        };
        let with = ", extra DEFAULT 'dflt'";
        let mut sides =
            [None, side(", extra", "('k7', NULL)"), side(with, "('k1', 'dflt')"), side(with, "('k7', NULL)")];
        assert_ne!(sides[1].as_ref().unwrap().rows, sides[3].as_ref().unwrap().rows);
        level_defaults(&mut sides);
        assert_eq!(sides[1].as_ref().unwrap().rows, sides[3].as_ref().unwrap().rows);
        // Where all agree on the default, it makes a difference.
        let mut sides =
            [None, side(with, "('k7', NULL)"), side(with, "('k7', 'dflt')"), side(with, "('k7', 'x')")];
        level_defaults(&mut sides);
        assert_ne!(sides[1].as_ref().unwrap().rows, sides[2].as_ref().unwrap().rows);
    }

    #[test]
    fn tokens_are_found_wherever_they_stand() {
        assert_eq!(tokens("'trail-d0t5.', d12t3b4.xxx-dad1t1. dd. d1. c1x2"), ["d0t5.", "d12t3b4.", "d1t1."]);
    }
}
