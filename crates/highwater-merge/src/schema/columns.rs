//! The columns of a table on its three sides, before and after its definition is merged.

use highwater_wire::{ConflictKind, Kept, RowJson, SqlValue};

use super::alter::lacks;
use super::catalog::{Kind, Object, lower};
use super::conflict;
use super::lines::{Line, Track, tracks};
use super::sample::same_rows;
use super::tables::Merging;
use super::text::Definition;
use super::wanted::Wanted;
use crate::error::Result;
use crate::rows_by_key::{key_names, key_of, row, rowid_is_a_column};
use crate::sql;
use crate::table::{ColumnMap, Context, Step};

fn is(a: Option<&String>, b: Option<&String>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if lower(a) == lower(b))
}

/// The columns that a table shows, with `PRAGMA table_xinfo`'s `hidden`. Nobody can tell those of a module that
/// this SQLite lacks.
fn visible(side: &rusqlite::Connection, table: &str) -> Result<Vec<(String, i64)>> {
    match sql::columns(side, table) {
        Err(crate::Error::Sqlite { source, .. }) if lacks(&source) => Ok(Vec::new()),
        columns => Ok(columns?.into_iter().filter(|(_, hidden)| *hidden != 1).collect()),
    }
}

/// The columns of a table, before anything is changed.
pub(super) fn of(cx: &Context<'_>, line: &Line<'_>) -> Step<Vec<Track>> {
    let sides = [(line.base, cx.base), (line.local, cx.local), (line.head, cx.head)];
    let mut parsed = Vec::new();
    for (object, side) in sides {
        let Some(object) = object else {
            parsed.push(Some(Definition::default()));
            continue;
        };
        let definition = Definition::parse(&object.sql).filter(|_| object.kind == Kind::Table);
        let count = visible(side, &object.name)?.len();
        parsed.push(definition.filter(|definition| definition.columns.len() == count));
    }
    if let [Some(base), Some(local), Some(head)] = parsed.as_slice() {
        return split(cx, line, tracks(line.base.map(|_| base), local, head));
    }
    let mut all: Vec<Track> = Vec::new();
    for (at, (object, side)) in sides.into_iter().enumerate() {
        let Some(object) = object else { continue };
        for (name, _) in visible(side, &object.name)? {
            let known = all.iter().position(|track| {
                [&track.base, &track.local, &track.head]
                    .into_iter()
                    .any(|other| is(other.as_ref(), Some(&name)))
            });
            let mut track = known.map(|known| all.remove(known)).unwrap_or_default();
            match at {
                0 => track.base = Some(name),
                1 => track.local = Some(name),
                _ => (track.old_head, track.head) = (Some(name.clone()), Some(name)),
            }
            all.insert(known.unwrap_or(all.len()), track);
        }
    }
    Ok(all)
}

/// Takes apart what has another name and other values: that is no new name, one column went and another came.
fn split(cx: &Context<'_>, line: &Line<'_>, mut tracks: Vec<Track>) -> Step<Vec<Track>> {
    let Some(base) = line.base else { return Ok(tracks) };
    for at in 0..tracks.len() {
        let other_name = |track: &Track, now: &Option<String>| {
            let (base, now) = (track.base.clone()?, now.clone()?);
            (lower(&base) != lower(&now)).then_some([(base, now)])
        };
        let Some(track) = tracks.get(at).cloned() else { break };
        if let (Some(local), Some(columns)) = (line.local, other_name(&track, &track.local))
            && !same_rows((cx.base, &base.name), (cx.local, &local.name), &columns)?
        {
            if let Some(track) = tracks.get_mut(at) {
                track.local = None;
            }
            let alone =
                |other: &&mut Track| other.local.is_none() && is(other.head.as_ref(), track.local.as_ref());
            match tracks.iter_mut().find(alone) {
                Some(other) => other.local.clone_from(&track.local),
                None => tracks.push(Track { local: track.local.clone(), ..Track::default() }),
            }
        }
        if let (Some(head), Some(columns)) = (line.head, other_name(&track, &track.head))
            && !same_rows((cx.base, &base.name), (cx.head, &head.name), &columns)?
        {
            if let Some(track) = tracks.get_mut(at) {
                (track.old_head, track.head) = (None, None);
            }
            let name = track.head.clone();
            let alone = |other: &&mut Track| other.head.is_none() && is(other.local.as_ref(), name.as_ref());
            match tracks.iter_mut().find(alone) {
                Some(other) => (other.old_head, other.head) = (name.clone(), name),
                None => tracks.push(Track { old_head: name.clone(), head: name, ..Track::default() }),
            }
        }
    }
    Ok(tracks)
}

/// The tracks after the table has its new definition, or as much of it as its rows allowed.
pub(super) fn follow(cx: &Context<'_>, table: &str, wanted: &Wanted, tracks: &mut [Track]) -> Step<()> {
    let there = sql::columns(cx.head, table)?;
    let is_there = |name: &String| there.iter().any(|(column, _)| lower(column) == lower(name));
    for track in tracks {
        let column =
            wanted.definition.columns.iter().zip(&wanted.sources).find(|(column, source)| match source {
                Some(_) => is(source.as_ref(), track.head.as_ref()),
                None => track.head.is_none() && is(Some(&column.name), track.local.as_ref()),
            });
        let now = column.map(|(column, _)| column.name.clone()).filter(is_there);
        track.head = now.or_else(|| track.head.take().filter(is_there));
    }
    Ok(())
}

/// The columns as the row step wants them.
pub(super) fn maps(
    cx: &Context<'_>,
    local: Option<&str>,
    head: Option<&str>,
    tracks: &[Track],
) -> Step<Vec<ColumnMap>> {
    let one = |track: Option<&Track>, head: Option<String>, hidden: i64| ColumnMap {
        base: track.and_then(|track| track.base.clone()),
        local: track.and_then(|track| track.local.clone()),
        head,
        in_old_head: track.is_none_or(|track| track.old_head.is_some()),
        generated: hidden > 1,
    };
    let mut columns = Vec::new();
    if let Some(head) = head {
        for (name, hidden) in visible(cx.head, head)? {
            let track = tracks.iter().find(|track| is(track.head.as_ref(), Some(&name)));
            columns.push(one(track, Some(name), hidden));
        }
    }
    let of_local = match local {
        Some(local) => visible(cx.local, local)?,
        None => Vec::new(),
    };
    for track in tracks.iter().filter(|track| track.head.is_none() || head.is_none()) {
        let hidden = of_local.iter().find(|(name, _)| is(Some(name), track.local.as_ref()));
        if track.base.is_some() || track.local.is_some() {
            columns.push(one(Some(track), None, hidden.map_or(0, |(_, hidden)| *hidden)));
        }
    }
    Ok(columns)
}

/// Whether local tells the rows of a table apart by something else than the base.
pub(super) fn new_identity(cx: &Context<'_>, [base, local]: [&Object; 2], tracks: &[Track]) -> Step<bool> {
    let read = sql::failed("read the key of a table");
    let kind = |side, table: &str| rowid_is_a_column(side, table).map_err(&read);
    if kind(cx.base, &base.name)? != kind(cx.local, &local.name)? {
        return Ok(true);
    }
    let renamed = |name: String| {
        let track = tracks.iter().find(|track| is(track.base.as_ref(), Some(&name)));
        track.and_then(|track| track.local.as_deref()).map(lower)
    };
    let before: Vec<_> = key_names(cx.base, &base.name)?.into_iter().map(renamed).collect();
    let after: Vec<_> = key_names(cx.local, &local.name)?.iter().map(|name| Some(lower(name))).collect();
    Ok(before != after)
}

/// Records values that the head wrote into columns that go, because local dropped them.
pub(super) fn record_dropped(
    merging: &mut Merging<'_>,
    base: &Object,
    table: &str,
    wanted: &Wanted,
    tracks: &[Track],
) -> Step<()> {
    let cx = merging.cx;
    let stays = |track: &Track| wanted.sources.iter().any(|source| is(source.as_ref(), track.head.as_ref()));
    let gone: Vec<_> = tracks
        .iter()
        .filter(|track| track.local.is_none() && track.head.is_some() && !stays(track))
        .collect();
    let old = merging.tables.iter().find(|other| other.head.as_deref() == Some(table));
    let Some(old) = old.and_then(|old| old.line.head).filter(|_| !gone.is_empty()) else { return Ok(()) };
    for key in cx.changes.head(Some(&base.name), Some(&old.name))? {
        let now = row(cx.head, table, &key)?;
        let before = row(cx.base, &base.name, &key)?;
        let value = |row: &Option<RowJson>, column: &Option<String>| {
            let found = row.as_ref()?.iter().find(|(name, _)| is(Some(name), column.as_ref()));
            found.map(|(_, value)| value.clone())
        };
        let written = |track: &&&Track| {
            let now = value(&now, &track.head);
            now.as_ref().is_some_and(|value| *value != SqlValue::Null) && now != value(&before, &track.base)
        };
        let columns: Vec<_> = gone.iter().filter(written).filter_map(|track| track.head.clone()).collect();
        if columns.is_empty() {
            continue;
        }
        let message = format!("values were written here to columns of {table:?} that were dropped there");
        let mut record = conflict(ConflictKind::NoPlace, table, None, message);
        record.key = key_of(cx.head, table, &key)?;
        (record.columns, record.base, record.head, record.kept) = (columns, before, now, Kept::Local);
        merging.plan.conflicts.push(record);
    }
    Ok(())
}
