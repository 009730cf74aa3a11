//! Ids that change: which row of the device has which id at the head.

use std::collections::{HashMap, HashSet};

use highwater_ltx::planted;
use highwater_wire::{Renumbered, SqlValue};

use crate::access::{Access, Side, SideRow};
use crate::error::{Error, Result};
use crate::sql::{failed, unquoted};
use crate::table::{Context, Keys};
use crate::tables::{Table, connection};

/// The ids of all tables.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    /// From earlier merges: rows of the base.
    known: HashMap<(usize, i64), i64>,
    /// From this one: rows that local inserted.
    new: HashMap<(usize, i64), i64>,
    /// Rows of local in tables without any key, where they are at the head.
    followed: Vec<(usize, i64, i64)>,
    /// Which ids at the head were given to rows.
    given: HashSet<(usize, i64)>,
    last: HashMap<usize, i64>,
}

impl Ids {
    /// Starts with what earlier merges changed; names are local's.
    pub(crate) fn new(tables: &[Table<'_>], known: &[Renumbered]) -> Self {
        let mut ids = Self::default();
        for Renumbered { table, from, to } in known {
            let same =
                |name: &Option<String>| name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(table));
            let at = tables.iter().position(|table| same(&table.map.base));
            let at = at.or_else(|| tables.iter().position(|table| same(&table.map.local)));
            if let Some(at) = at {
                ids.known.insert((at, *from), *to);
            }
        }
        ids
    }

    /// The id at the head of a row of the base.
    pub(crate) fn of_base(&self, table: usize, id: i64) -> Option<i64> {
        self.known.get(&(table, id)).copied()
    }

    /// The id at the head of a row of local.
    pub(crate) fn of_local(&self, table: usize, id: i64) -> Option<i64> {
        self.new.get(&(table, id)).or_else(|| self.known.get(&(table, id))).copied()
    }

    /// Ids that earlier merges changed.
    pub(crate) fn known(&self) -> impl Iterator<Item = (usize, i64, i64)> {
        self.known.iter().map(|((table, from), to)| (*table, *from, *to))
    }

    /// The same in one table: the id in the base, and at the head.
    pub(crate) fn of_table(&self, table: usize) -> impl Iterator<Item = (i64, i64)> {
        self.known().filter(move |(at, _, _)| *at == table).map(|(_, from, to)| (from, to))
    }

    /// Remembers where rows of local in a table without any key are at the head.
    pub(crate) fn follow(&mut self, table: usize, rows: impl Iterator<Item = (i64, i64)>) {
        self.followed.extend(rows.map(|(from, to)| (table, from, to)));
    }

    /// These rows.
    pub(crate) fn followed(&self) -> impl Iterator<Item = (usize, i64, i64)> {
        self.followed.iter().copied()
    }

    /// Remembers a change.
    pub(crate) fn insert(&mut self, table: usize, from: i64, to: i64) {
        self.new.insert((table, from), to);
        self.given.insert((table, to));
    }

    /// Whether a row of local could have that id at the head: no other row has it, or was given it.
    pub(crate) fn is_free(&self, cx: &Context<'_>, at: usize, table: &Table<'_>, id: i64) -> Result<bool> {
        if self.given.contains(&(at, id)) {
            return Ok(false);
        }
        for side in [Side::Head, Side::Local] {
            if let Some(access) = table.on(side)
                && access.by_rowid(connection(cx, side), id)?.is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The id that the same old id has in exactly one way in other tables: hidden companions of a table (a
    /// full-text or R-Tree table beside it) share its ids without saying so.
    pub(crate) fn companion(&self, id: i64) -> Option<i64> {
        let mut found = self.new.iter().filter(|((_, from), _)| *from == id).map(|(_, to)| *to);
        let first = found.next()?;
        found.all(|to| to == first).then_some(first)
    }

    /// Whether every row of local with that id in a table has got another one: then hidden companions follow, even
    /// where nobody stands in their way.
    pub(crate) fn has_one_owner(&self, cx: &Context<'_>, tables: &[Table<'_>], id: i64) -> Result<bool> {
        for (at, table) in tables.iter().enumerate().filter(|(_, table)| table.map.keys == Keys::OwnTree) {
            if let Some(local) = table.local.as_ref().filter(|local| local.rowid.is_some())
                && !self.new.contains_key(&(at, id))
                && local.by_rowid(cx.local, id)?.is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts the ids at the head into a row of base or local: its own and those of rows that it points to.
    pub(crate) fn translate(&self, tables: &[Table<'_>], table: usize, row: &mut SideRow, side: Side) {
        let of =
            |table, id| if side == Side::Base { self.of_base(table, id) } else { self.of_local(table, id) };
        let Some(this) = tables.get(table) else { return };
        // A column may point to several tables: each id is looked up as it was, and the first that changed counts.
        let own = row.values.clone();
        let mut followed = HashSet::new();
        for (column, parent) in this.links.iter().filter(|(column, _)| Some(*column) != this.alias) {
            if planted("references-stay") {
                break;
            }
            if let (Some(SqlValue::Integer(id)), Some(value)) =
                (own.get(*column), row.values.get_mut(*column))
                && !followed.contains(column)
                && let Some(to) = of(*parent, *id)
            {
                *value = SqlValue::Integer(to);
                followed.insert(*column);
            }
        }
        if let Some(value) = this.alias.and_then(|alias| row.values.get_mut(alias))
            && let SqlValue::Integer(id) = *value
            && let Some(to) = of(table, id)
        {
            *value = SqlValue::Integer(to);
        }
    }

    /// An id that no row of local or head has.
    pub(crate) fn free(&mut self, cx: &Context<'_>, at: usize, table: &Table<'_>) -> Result<i64> {
        let mut last = match self.last.get(&at) {
            Some(last) => *last,
            None => self.start(cx, table)?,
        };
        while last < i64::MAX {
            last += 1;
            // A companion may have got it.
            if !self.given.contains(&(at, last)) {
                self.last.insert(at, last);
                return Ok(last);
            }
        }
        // The largest id is taken: the largest gap that is free on both sides.
        let mut id = i64::MAX;
        loop {
            if self.is_free(cx, at, table, id)? {
                return Ok(id);
            }
            id = id.checked_sub(1).ok_or_else(|| Error::Damaged("a table has no free id".to_owned()))?;
        }
    }

    fn start(&self, cx: &Context<'_>, table: &Table<'_>) -> Result<i64> {
        let mut last = 0;
        for side in [Side::Head, Side::Local] {
            if let Some(access) = table.on(side) {
                last = last.max(access.max_rowid(connection(cx, side))?).max(sequence(cx, access, side)?);
            }
        }
        Ok(last)
    }
}

/// The number in `sqlite_sequence`; 0 without one.
fn sequence(cx: &Context<'_>, access: &Access, side: Side) -> Result<i64> {
    let side = connection(cx, side);
    let failed = failed("read the last id of a table");
    if !has_sequence(side)? {
        return Ok(0);
    }
    let name = unquoted(&access.name);
    let sql =
        "SELECT coalesce(max(CAST(seq AS INTEGER)), 0) FROM sqlite_sequence WHERE name = ?1 COLLATE NOCASE";
    side.prepare_cached(sql).and_then(|mut found| found.query_row([name], |row| row.get(0))).map_err(failed)
}

/// Whether the side has a table `sqlite_sequence`.
pub(crate) fn has_sequence(side: &rusqlite::Connection) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'";
    side.prepare_cached(sql).and_then(|mut found| found.exists([])).map_err(failed("read the schema"))
}
