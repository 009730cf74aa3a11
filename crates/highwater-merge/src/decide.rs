//! What becomes of one row: the table of rules.

use highwater_ltx::planted;
use highwater_wire::{Conflict, ConflictKind, Kept, MergePolicy, Renumbered, RowJson, SqlValue};

use crate::access::{Side, SideRow};
use crate::pairs::{Pair, key_of};
use crate::tables::Table;

/// What is done to a row of the head.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Want {
    Delete,
    /// These values for all columns; the ones that differ from the head's.
    Update(Vec<SqlValue>, Vec<usize>),
    /// These values; columns that local lacks get their defaults.
    Insert(Vec<SqlValue>),
}

/// One row that changes at the head.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) pair: Pair,
    pub(crate) want: Want,
    /// What is recorded when it is applied.
    pub(crate) records: Vec<Conflict>,
    pub(crate) renumbered: Option<Renumbered>,
}

/// What was decided.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Nobody has anything to do.
    Nothing,
    /// The head has the change already.
    Same,
    /// The head's row stays, and something is recorded.
    Stays(Vec<Conflict>),
    /// The head's row changes.
    Change(Box<Change>),
}

/// Decides by the rules.
pub(crate) fn decide(table: &Table<'_>, policy: MergePolicy, pair: Pair) -> Decision {
    if table.head.is_none() {
        return no_table(table, &pair);
    }
    match (&pair.base, &pair.local, &pair.head) {
        (None, None, _) | (Some(_), None, None) if pair.base.is_none() => Decision::Nothing,
        (_, None, None) => Decision::Same,
        (_, None, Some(_)) => deleted(table, pair),
        (None, Some(_), None) => inserted(table, pair, Vec::new()),
        (Some(_), Some(_), None) => {
            let (changed, lost) = own_changes(table, &pair);
            if changed.is_empty() && lost.is_empty() {
                return Decision::Nothing;
            }
            let columns = names(table, &changed);
            let message = format!(
                "{} was changed by the device and deleted at the server: the change stays",
                row_name(table)
            );
            let record = conflict(table, &pair, ConflictKind::UpdateDelete, Kept::Local, columns, message);
            inserted(table, pair, vec![record])
        }
        (_, Some(_), Some(_)) => both(table, policy, pair),
    }
}

/// The head has no such table any more.
fn no_table(table: &Table<'_>, pair: &Pair) -> Decision {
    let (changed, lost) = own_changes(table, pair);
    if pair.local.is_none() || (pair.base.is_some() && changed.is_empty() && lost.is_empty()) {
        return Decision::Nothing;
    }
    let message = format!(
        "the table {} is not at the server any more: the device's row has no place",
        table.map.name()
    );
    Decision::Stays(vec![conflict(table, pair, ConflictKind::NoPlace, Kept::Head, Vec::new(), message)])
}

/// The columns that local changed and the head has; and those that the head lacks.
fn own_changes(table: &Table<'_>, pair: &Pair) -> (Vec<usize>, Vec<usize>) {
    let (mut changed, mut lost) = (Vec::new(), Vec::new());
    let Some(local) = &pair.local else { return (changed, lost) };
    for (at, column) in table.map.columns.iter().enumerate() {
        if column.generated || column.local.is_none() {
            continue;
        }
        let value = local.values.get(at);
        let differs = match (&pair.base, &column.base) {
            (Some(base), Some(_)) => base.values.get(at) != value,
            (None, _) if column.head.is_some() => true,
            _ => local.default.get(at) != Some(&true),
        };
        match differs {
            true if column.head.is_some() => changed.push(at),
            true if column.base.is_some() && pair.base.is_some() || value != Some(&SqlValue::Null) => {
                lost.push(at);
            }
            _ => {}
        }
    }
    (changed, lost)
}

/// Whether the head changed that column of the row.
fn head_changed(table: &Table<'_>, base: &SideRow, head: &SideRow, at: usize) -> bool {
    let Some(column) = table.map.columns.get(at).filter(|column| column.head.is_some()) else { return false };
    match &column.base {
        Some(_) => base.values.get(at) != head.values.get(at),
        None => column.in_old_head && head.default.get(at) != Some(&true),
    }
}

fn deleted(table: &Table<'_>, pair: Pair) -> Decision {
    let (Some(base), Some(head)) = (&pair.base, &pair.head) else { return Decision::Nothing };
    let readable = |at: &usize| table.map.columns.get(*at).is_some_and(|column| !column.generated);
    let changed: Vec<usize> = (0..table.map.columns.len())
        .filter(readable)
        .filter(|at| head_changed(table, base, head, *at))
        .collect();
    if changed.is_empty() || planted("deletion-wins") {
        return change(pair, Want::Delete, Vec::new());
    }
    let message =
        format!("{} was deleted by the device and changed at the server: the change stays", row_name(table));
    let columns = names(table, &changed);
    Decision::Stays(vec![conflict(table, &pair, ConflictKind::UpdateDelete, Kept::Head, columns, message)])
}

fn inserted(table: &Table<'_>, pair: Pair, mut records: Vec<Conflict>) -> Decision {
    let Some(local) = &pair.local else { return Decision::Nothing };
    let (_, lost) = own_changes(table, &pair);
    if !lost.is_empty() && !has_place(table, local) {
        let message = format!("{} has no column at the server: it has no place", row_name(table));
        let record = conflict(table, &pair, ConflictKind::NoPlace, Kept::Head, Vec::new(), message);
        return Decision::Stays(vec![record]);
    }
    records.extend(no_column(table, &pair, &lost));
    let values = local.values.clone();
    change(pair, Want::Insert(values), records)
}

/// Whether a new row has anything to be in a column of the head: a row of NULLs is nobody's.
fn has_place(table: &Table<'_>, local: &SideRow) -> bool {
    let mut columns = table.map.columns.iter().zip(&local.values);
    columns.any(|(column, value)| {
        let there = column.local.is_some() && column.head.is_some() && !column.generated;
        there && *value != SqlValue::Null
    })
}

fn both(table: &Table<'_>, policy: MergePolicy, pair: Pair) -> Decision {
    let (Some(local), Some(head)) = (&pair.local, &pair.head) else { return Decision::Nothing };
    let (changed, lost) = own_changes(table, &pair);
    let mut values = head.values.clone();
    let (mut set, mut disputed) = (Vec::new(), Vec::new());
    for at in &changed {
        let (Some(mine), Some(slot)) = (local.values.get(*at), values.get_mut(*at)) else { continue };
        if slot == mine {
            continue;
        }
        let free = pair.base.as_ref().is_some_and(|base| !head_changed(table, base, head, *at));
        if !free {
            disputed.push(*at);
        }
        if free || policy != MergePolicy::FirstPushWins {
            slot.clone_from(mine);
            set.push(*at);
        }
    }
    let mut records: Vec<Conflict> = no_column(table, &pair, &lost).into_iter().collect();
    if !disputed.is_empty() && !planted("conflict-not-recorded") {
        let kept = if policy == MergePolicy::FirstPushWins { Kept::Head } else { Kept::Local };
        let columns = names(table, &disputed);
        let which = columns.join(", ");
        let whose = if kept == Kept::Local { "the device's" } else { "the server's" };
        let message = format!("{} was changed by both in {which}: {whose} value stays", row_name(table));
        records.push(conflict(table, &pair, ConflictKind::Update, kept, columns, message));
    }
    match (set.is_empty(), records.is_empty(), changed.is_empty()) {
        (false, _, _) => change(pair, Want::Update(values, set), records),
        (true, false, _) => Decision::Stays(records),
        (true, true, false) => Decision::Same,
        (true, true, true) => Decision::Nothing,
    }
}

fn no_column(table: &Table<'_>, pair: &Pair, lost: &[usize]) -> Option<Conflict> {
    if lost.is_empty() {
        return None;
    }
    let columns = names(table, lost);
    let message = format!(
        "{} has a value in {} on the device, and the server's table has no such column any more",
        row_name(table),
        columns.join(", ")
    );
    Some(conflict(table, pair, ConflictKind::NoPlace, Kept::Head, columns, message))
}

fn change(pair: Pair, want: Want, records: Vec<Conflict>) -> Decision {
    Decision::Change(Box::new(Change { pair, want, records, renumbered: None }))
}

/// A row of this table, in a sentence.
fn row_name(table: &Table<'_>) -> String {
    format!("a row of {}", table.map.name())
}

/// The names of columns, as people know them.
pub(crate) fn names(table: &Table<'_>, columns: &[usize]) -> Vec<String> {
    columns.iter().filter_map(|at| column_name(table, *at)).map(str::to_owned).collect()
}

fn column_name<'a>(table: &'a Table<'_>, at: usize) -> Option<&'a str> {
    let column = table.map.columns.get(at)?;
    column.head.as_deref().or(column.local.as_deref()).or(column.base.as_deref())
}

/// What identifies a row.
pub(crate) fn key_json(table: &Table<'_>, row: &SideRow, rowid: Option<i64>) -> RowJson {
    if let Some(values) = key_of(table, row) {
        return names(table, &table.key).into_iter().zip(values).collect();
    }
    let name = table.alias.and_then(|alias| column_name(table, alias)).unwrap_or("rowid");
    let id = rowid.or(row.rowid).map_or(SqlValue::Null, SqlValue::Integer);
    vec![(name.to_owned(), id)]
}

/// A row as that side has it.
pub(crate) fn row_json(table: &Table<'_>, row: Option<&SideRow>, side: Side) -> Option<RowJson> {
    let access = table.on(side)?;
    let values = row?.values.iter().enumerate();
    let there = values.filter(|(at, _)| access.columns.get(*at).is_some_and(Option::is_some));
    Some(there.filter_map(|(at, value)| Some((column_name(table, at)?.to_owned(), value.clone()))).collect())
}

/// A record about a row.
pub(crate) fn conflict(
    table: &Table<'_>,
    pair: &Pair,
    kind: ConflictKind,
    kept: Kept,
    columns: Vec<String>,
    message: String,
) -> Conflict {
    let row = pair.head.as_ref().or(pair.local.as_ref()).or(pair.base.as_ref());
    Conflict {
        kind,
        table: table.map.name().to_owned(),
        key: row.map(|row| key_json(table, row, pair.rowid)).unwrap_or_default(),
        other_key: Vec::new(),
        columns,
        base: row_json(table, pair.own_base.as_ref(), Side::Base),
        local: row_json(table, pair.own_local.as_ref(), Side::Local),
        head: row_json(table, pair.head.as_ref(), Side::Head),
        kept,
        sql: None,
        message,
    }
}
