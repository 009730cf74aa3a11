//! The steps of a merge, one after the other, on three open databases.

use std::collections::HashSet;

use highwater_wire::{
    Conflict, ConflictKind, Kept, MergeCounts, MergePolicy, Rejected as Missing, Renumbered, RowJson,
    SqlValue,
};

use crate::access::Side;
use crate::apply::{Rejected, Rejection, apply};
use crate::decide::{Change, Decision, Want, conflict, decide, key_json, row_json};
use crate::finish;
use crate::ids::Ids;
use crate::pairs::gather;
use crate::refused::{Refused, remembered};
use crate::table::{Context, Step};
use crate::tables::{Table, open};
use crate::{Options, schema, virtuals};

/// What the steps found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) conflicts: Vec<Conflict>,
    pub(crate) renumbered: Vec<Renumbered>,
    pub(crate) rejected: Vec<Missing>,
    pub(crate) counts: MergeCounts,
}

/// Merges; the head's connection is in a transaction.
pub(crate) fn run(cx: &Context<'_>, options: &Options) -> Step<Outcome> {
    let head_schema = finish::schema(cx.head)?;
    let head_cookie = finish::schema_version(cx.head)?;
    let plan = schema::plan_and_apply(cx)?;
    let tables = open(cx, &plan)?;
    let mut outcome = rows(cx, &tables, options)?;
    let mut conflicts = plan.conflicts.clone();
    conflicts.extend(schema::finish(cx, &plan)?);
    conflicts.extend(virtuals::after_rows(cx, &plan, &outcome.conflicts)?);
    finish::sequences(cx, &tables)?;
    conflicts.extend(finish::versions(cx)?);
    finish::cookie(cx, &head_schema, head_cookie)?;
    conflicts.append(&mut outcome.conflicts);
    outcome.conflicts = conflicts;
    Ok(outcome)
}

fn rows(cx: &Context<'_>, tables: &[Table<'_>], options: &Options) -> Step<Outcome> {
    let mut ids = Ids::new(tables, &options.renumbered);
    let refused = Refused::new(cx, tables, &options.rejected)?;
    let pairs = gather(cx, tables, &refused, &mut ids)?;
    let mut outcome = Outcome::default();
    let mut records: Vec<(usize, Conflict)> = Vec::new();
    let mut changes = Vec::new();
    for pair in pairs {
        let at = pair.table;
        let Some(table) = tables.get(at) else { continue };
        match decide(table, cx.policy, pair) {
            Decision::Nothing => {}
            Decision::Same => outcome.counts.same += 1,
            Decision::Stays(found) => records.extend(found.into_iter().map(|record| (at, record))),
            Decision::Change(change) => changes.push(with_new_id(table, *change)),
        }
    }
    let rejected: Rejected = apply(cx, tables, &changes)?;
    let mut without = HashSet::new();
    for (index, change) in changes.into_iter().enumerate() {
        let at = change.pair.table;
        let Some(table) = tables.get(at) else { continue };
        match rejected.get(&index) {
            Some(why) => {
                if let Some(missing) = remembered(table, &change) {
                    without.insert((at, change.pair.own_local.as_ref().and_then(|row| row.rowid)));
                    outcome.rejected.push(missing);
                }
                records.push((at, not_applied(table, &change, why)));
            }
            None => {
                outcome.renumbered.extend(change.renumbered.clone());
                let counts = &mut outcome.counts;
                *match change.want {
                    Want::Delete => &mut counts.deleted,
                    Want::Update(..) => &mut counts.updated,
                    Want::Insert(_) => &mut counts.inserted,
                } += 1;
                records.extend(change.records.into_iter().map(|record| (at, record)));
            }
        }
    }
    records.sort_by(|(table, one), (other, two)| table.cmp(other).then_with(|| by_key(&one.key, &two.key)));
    outcome.conflicts = records.into_iter().map(|(_, record)| record).collect();
    outcome.renumbered.extend(still_there(cx, tables, &ids, &without)?);
    outcome.renumbered.sort();
    outcome.renumbered.dedup();
    Ok(outcome)
}

/// Says what became of the id of a row that local inserted.
fn with_new_id(table: &Table<'_>, mut change: Change) -> Change {
    let (Some(from), Some(to), Want::Insert(_)) = (change.pair.renumbered, change.pair.rowid, &change.want)
    else {
        return change;
    };
    let name = table.map.local.clone().unwrap_or_default();
    change.renumbered = Some(Renumbered { table: name, from, to });
    // A rowid that has no name is nothing that an application could miss.
    if table.keyless() {
        return change;
    }
    let message = format!(
        "the id {from} in {} was given twice: the device's row has the id {to} now",
        table.map.name()
    );
    let mut record = conflict(table, &change.pair, ConflictKind::Renumbered, Kept::Both, Vec::new(), message);
    record.head = row_json(table, change.pair.taken.as_ref(), Side::Head);
    if let Some(own) = &change.pair.own_local {
        record.other_key = key_json(table, own, Some(to));
        record.key = key_json(table, own, Some(from));
    }
    change.records.push(record);
    change
}

fn not_applied(table: &Table<'_>, change: &Change, why: &Rejection) -> Conflict {
    let what = match change.want {
        Want::Delete => "deletion of a row",
        Want::Update(..) | Want::Insert(_) => "row",
    };
    let message = format!("the device's {what} in {} was not applied: {}", table.map.name(), why.why);
    let mut record = conflict(table, &change.pair, why.kind, Kept::Head, why.columns.clone(), message);
    if let Some(from) = change.pair.renumbered {
        let own = change.pair.own_local.as_ref();
        record.key = own.map(|own| key_json(table, own, Some(from))).unwrap_or_default();
    }
    record.other_key.clone_from(&why.other_key);
    record
}

/// Ids that earlier merges changed, of rows that local still has and the result too.
fn still_there(
    cx: &Context<'_>,
    tables: &[Table<'_>],
    ids: &Ids,
    without: &HashSet<(usize, Option<i64>)>,
) -> Step<Vec<Renumbered>> {
    let mut found = Vec::new();
    let name = |table: &Table<'_>| table.map.local.clone().unwrap_or_default();
    for (at, from, to) in ids.followed() {
        found.extend(tables.get(at).map(|table| Renumbered { table: name(table), from, to }));
    }
    for (at, from, to) in ids.known() {
        let table = tables.get(at).filter(|table| !table.keyless());
        let Some((table, local)) = table.and_then(|table| Some((table, table.local.as_ref()?))) else {
            continue;
        };
        let there = !without.contains(&(at, Some(from)));
        if there && local.by_rowid(cx.local, from)?.is_some() && ids.of_local(at, from) == Some(to) {
            found.push(Renumbered { table: name(table), from, to });
        }
    }
    Ok(found)
}

fn by_key(one: &RowJson, two: &RowJson) -> std::cmp::Ordering {
    let rank = |value: &SqlValue| match value {
        SqlValue::Null => 0,
        SqlValue::Integer(_) | SqlValue::Real(_) => 1,
        SqlValue::Text(_) => 2,
        SqlValue::Blob(_) => 3,
    };
    #[expect(clippy::cast_precision_loss, reason = "an order for people")]
    let compare = |one: &SqlValue, two: &SqlValue| match (one, two) {
        (SqlValue::Integer(one), SqlValue::Integer(two)) => one.cmp(two),
        (SqlValue::Real(one), SqlValue::Real(two)) => one.total_cmp(two),
        (SqlValue::Integer(one), SqlValue::Real(two)) => (*one as f64).total_cmp(two),
        (SqlValue::Real(one), SqlValue::Integer(two)) => one.total_cmp(&(*two as f64)),
        (SqlValue::Text(one), SqlValue::Text(two)) | (SqlValue::Blob(one), SqlValue::Blob(two)) => {
            one.cmp(two)
        }
        _ => rank(one).cmp(&rank(two)),
    };
    one.iter()
        .zip(two)
        .map(|((_, one), (_, two))| compare(one, two))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| one.len().cmp(&two.len()))
}

/// Whether the policy forbids the outcome.
pub(crate) fn forbidden(policy: MergePolicy, outcome: &Outcome) -> bool {
    policy == MergePolicy::Fail && outcome.conflicts.iter().any(|conflict| conflict.kind.loses())
}
