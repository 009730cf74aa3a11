//! Rows of the base that an earlier merge of the same device did not apply: the device has them, the head never
//! had them. To the next merge they are rows that the device inserts, not rows that both sides know.

use std::collections::{HashMap, HashSet};

use highwater_wire::{Rejected, SqlValue};

use crate::access::{Access, SideRow};
use crate::changes::RowKey;
use crate::decide::{Change, Want, key_json, names};
use crate::pairs::key_of;
use crate::table::{Context, Step};
use crate::tables::Table;

/// The rows, by their tables.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    keys: HashMap<usize, Vec<RowKey>>,
    rows: HashSet<(usize, String)>,
}

impl Refused {
    /// Finds the rows in the base; names are those of base, which was local's state then.
    pub(crate) fn new(cx: &Context<'_>, tables: &[Table<'_>], rejected: &[Rejected]) -> Step<Self> {
        let mut refused = Self::default();
        for Rejected { table: name, key } in rejected {
            let same = |table: &Table<'_>| {
                table.map.base.as_ref().is_some_and(|have| have.eq_ignore_ascii_case(name))
            };
            let Some(at) = tables.iter().position(same) else { continue };
            let Some((table, access)) = tables.get(at).and_then(|table| Some((table, table.base.as_ref()?)))
            else {
                continue;
            };
            let values: Vec<SqlValue> = key.iter().map(|(_, value)| value.clone()).collect();
            let by_rowid = match key.as_slice() {
                [(name, SqlValue::Integer(id))]
                    if table.key.is_empty() || !names(table, &table.key).contains(name) && name == ROWID =>
                {
                    Some(*id)
                }
                _ => None,
            };
            let row = match by_rowid {
                Some(id) => access.by_rowid(cx.base, id)?,
                None if values.len() == table.key.len() => access.by_values(cx.base, &table.key, &values)?,
                None => None,
            };
            if let Some(key) = row.as_ref().and_then(|row| tree_key(access, row)) {
                refused.rows.insert((at, format!("{key:?}")));
                refused.keys.entry(at).or_default().push(key);
            }
        }
        Ok(refused)
    }

    /// The keys of such rows of a table in the base.
    pub(crate) fn keys(&self, table: usize) -> &[RowKey] {
        self.keys.get(&table).map_or(&[], Vec::as_slice)
    }

    /// Whether that row of the base is one of them.
    pub(crate) fn has(&self, at: usize, table: &Table<'_>, row: &SideRow) -> bool {
        if !self.keys.contains_key(&at) {
            return false;
        }
        let key = table.base.as_ref().and_then(|access| tree_key(access, row));
        key.is_some_and(|key| self.rows.contains(&(at, format!("{key:?}"))))
    }
}

/// What a row without any key is called in records.
const ROWID: &str = "rowid";

fn tree_key(access: &Access, row: &SideRow) -> Option<RowKey> {
    match row.rowid {
        Some(rowid) => Some(RowKey::Rowid(rowid)),
        None => {
            let values: Option<Vec<SqlValue>> =
                access.key.iter().map(|at| row.values.get(*at).cloned()).collect();
            values.map(RowKey::Values)
        }
    }
}

/// How the next merge finds a row of the device that this one did not apply. `None`: the head has a row for it.
pub(crate) fn remembered(table: &Table<'_>, change: &Change) -> Option<Rejected> {
    let (Want::Insert(_), Some(own)) = (&change.want, &change.pair.own_local) else { return None };
    let key = match (key_of(table, own), table.alias) {
        (None, None) => vec![(ROWID.to_owned(), SqlValue::Integer(own.rowid?))],
        _ => key_json(table, own, None),
    };
    Some(Rejected { table: table.map.local.clone()?, key })
}
