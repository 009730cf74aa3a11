//! Foreign keys of the rows that a push changed.
//!
//! Only these rows are checked, at the merged state, and only where base and local satisfy the key: a database
//! that never cared goes on not to care.

use highwater_wire::{ConflictKind, SqlValue};

use crate::access::{Access, Side, SideRow};
use crate::apply::{Rejected, Rejection};
use crate::decide::{Change, Want, names};
use crate::error::Result;
use crate::table::{Context, Step};
use crate::tables::{ForeignKey, Table, connection};

/// The applied changes that break a foreign key.
pub(crate) fn check(
    cx: &Context<'_>,
    tables: &[Table<'_>],
    changes: &[Change],
    done: &Rejected,
) -> Step<Rejected> {
    let mut broken = Rejected::new();
    for (index, change) in changes.iter().enumerate() {
        let Some(table) = tables.get(change.pair.table).filter(|_| !done.contains_key(&index)) else {
            continue;
        };
        let check = Check { cx, tables, table, change };
        if let Some(why) = check.points_nowhere()? {
            broken.insert(index, why);
        } else if let Some(why) = check.leaves_orphans()? {
            broken.insert(index, why);
        }
    }
    Ok(broken)
}

struct Check<'a> {
    cx: &'a Context<'a>,
    tables: &'a [Table<'a>],
    table: &'a Table<'a>,
    change: &'a Change,
}

impl Check<'_> {
    fn points_nowhere(&self) -> Result<Option<Rejection>> {
        let (Want::Update(values, _) | Want::Insert(values)) = &self.change.want else { return Ok(None) };
        for key in &self.table.foreign {
            let Some(parent) = self.tables.get(key.parent) else { continue };
            let before = self.change.pair.head.as_ref().map(|row| &row.values);
            let same =
                |before: &Vec<SqlValue>| key.columns.iter().all(|at| before.get(*at) == values.get(*at));
            if before.is_some_and(same) || self.parent_is_there(key, values, Side::Head)? {
                continue;
            }
            let own = |row: &Option<SideRow>, side| match row {
                Some(row) => self.parent_is_there(key, &row.values, side),
                None => Ok(true),
            };
            let pair = &self.change.pair;
            if own(&pair.own_local, Side::Local)? && own(&pair.own_base, Side::Base)? {
                let why = format!("no row of {} has what it points to", parent.map.name());
                return Ok(Some(rejection(names(self.table, &key.columns), why)));
            }
        }
        Ok(None)
    }

    /// Whether a row with these values satisfies the key on that side.
    fn parent_is_there(&self, key: &ForeignKey, values: &[SqlValue], side: Side) -> Result<bool> {
        let found: Vec<&SqlValue> = key.columns.iter().filter_map(|at| values.get(*at)).collect();
        if found.iter().any(|value| **value == SqlValue::Null) {
            return Ok(true);
        }
        let parent = self.tables.get(key.parent).and_then(|table| table.on(side));
        self.exists(parent, &key.parent_columns, &found, side)
    }

    fn exists(
        &self,
        table: Option<&Access>,
        columns: &[usize],
        values: &[&SqlValue],
        side: Side,
    ) -> Result<bool> {
        let Some((table, names)) = table.and_then(|table| Some((table, table.names(columns)?))) else {
            return Ok(false);
        };
        Access::exists(connection(self.cx, side), &table.name, &names, values)
    }

    fn leaves_orphans(&self) -> Result<Option<Rejection>> {
        let Some(head) = &self.change.pair.head else { return Ok(None) };
        for child in self.tables {
            for key in child.foreign.iter().filter(|key| self.is_parent(key)) {
                let old: Vec<&SqlValue> =
                    key.parent_columns.iter().filter_map(|at| head.values.get(*at)).collect();
                let stays = match &self.change.want {
                    Want::Update(values, _) => {
                        key.parent_columns.iter().all(|at| head.values.get(*at) == values.get(*at))
                    }
                    Want::Delete => false,
                    Want::Insert(_) => true,
                };
                if stays
                    || old.iter().any(|value| **value == SqlValue::Null)
                    || !self.exists(child.head.as_ref(), &key.columns, &old, Side::Head)?
                    || self.exists(self.table.head.as_ref(), &key.parent_columns, &old, Side::Head)?
                    || self.device_has_orphans(child, key)?
                {
                    continue;
                }
                let why = format!("rows of {} at the server point to it", child.map.name());
                return Ok(Some(rejection(names(self.table, &key.parent_columns), why)));
            }
        }
        Ok(None)
    }

    fn is_parent(&self, key: &ForeignKey) -> bool {
        key.parent == self.change.pair.table
    }

    /// Whether the device itself left rows that point to nothing.
    fn device_has_orphans(&self, child: &Table<'_>, key: &ForeignKey) -> Result<bool> {
        let Some(own) = &self.change.pair.own_base else { return Ok(false) };
        let old: Vec<&SqlValue> = key.parent_columns.iter().filter_map(|at| own.values.get(*at)).collect();
        Ok(self.exists(child.local.as_ref(), &key.columns, &old, Side::Local)?
            && !self.exists(self.table.local.as_ref(), &key.parent_columns, &old, Side::Local)?)
    }
}

fn rejection(columns: Vec<String>, why: String) -> Rejection {
    Rejection { kind: ConflictKind::ForeignKey, columns, other_key: Vec::new(), why }
}
