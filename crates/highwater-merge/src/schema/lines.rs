//! Which table, and which column, of one side is which one of another.

use rusqlite::Connection;

use super::catalog::{Catalog, Object, lower};
use super::sample;
use super::text::{self, Definition, Names};
use crate::error::Result;

/// One table on the three sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) base: Option<&'a Object>,
    pub(super) local: Option<&'a Object>,
    pub(super) head: Option<&'a Object>,
}

/// The tables that a side gave another name: those that are gone while another one, of the same definition, begins
/// at the same page.
pub(super) fn renames(
    (before, old_side): (&Catalog, &Connection),
    (after, new_side): (&Catalog, &Connection),
) -> Result<Names> {
    let mut names = Names::new();
    let new: Vec<_> = after.in_order().into_iter().filter(|t| before.table(&t.name).is_none()).collect();
    for gone in before.in_order() {
        if !gone.kind.is_table() || after.table(&gone.name).is_some() {
            continue;
        }
        let taken: Vec<_> = names.values().cloned().collect();
        for table in &new {
            if table.kind != gone.kind || taken.contains(&lower(&table.name)) {
                continue;
            }
            let is_it = match same_place(before, gone, after, table) {
                Likeness::None => false,
                Likeness::Same => true,
                Likeness::Perhaps(columns) => {
                    sample::same_rows((old_side, &gone.name), (new_side, &table.name), &columns)?
                }
            };
            if is_it {
                names.insert(lower(&gone.name), lower(&table.name));
                break;
            }
        }
    }
    Ok(names)
}

/// Whether a new table is an old one.
enum Likeness {
    None,
    Same,
    /// If its rows are those of the other, in these columns: a new table may begin at the page of a dropped one.
    Perhaps(Vec<(String, String)>),
}

fn same_place(before: &Catalog, gone: &Object, after: &Catalog, new: &Object) -> Likeness {
    let mut names = Names::from([(lower(&gone.name), lower(&new.name))]);
    if gone.root == 0 {
        let roots = |side: &Catalog, table: &Object| {
            let mut roots: Vec<_> = side.shadows_of(&table.name).iter().map(|shadow| shadow.root).collect();
            roots.sort_unstable();
            roots
        };
        let same = text::module_of(&gone.sql) == text::module_of(&new.sql)
            && roots(before, gone) == roots(after, new);
        return if same { Likeness::Same } else { Likeness::None };
    }
    let (Some(old), Some(now)) = (Definition::parse(&gone.sql), Definition::parse(&new.sql)) else {
        return Likeness::None;
    };
    if gone.root != new.root {
        return Likeness::None;
    }
    if old.same(&now, &names) {
        return Likeness::Same;
    }
    // A migration that renames often changes columns as well.
    let mut columns = Vec::new();
    for (column, at) in old.columns.iter().zip(align(&old, &now)) {
        let Some(to) = at.and_then(|at| now.columns.get(at)) else { return Likeness::None };
        names.insert(lower(&column.name), lower(&to.name));
        if !text::same(&column.rest, &to.rest, &names) {
            return Likeness::None;
        }
        columns.push((column.name.clone(), to.name.clone()));
    }
    if old.same_constraints(&now, &names) { Likeness::Perhaps(columns) } else { Likeness::None }
}

/// All tables, each on its three sides: first those of the base, then local's, then the head's.
pub(super) fn lines<'a>(sides: [&'a Catalog; 3], local_names: &Names, head_names: &Names) -> Vec<Line<'a>> {
    let [base, local, head] = sides;
    let tables = |side: &'a Catalog| side.in_order().into_iter().filter(|object| object.kind.is_table());
    let mut lines = Vec::new();
    for table in tables(base) {
        let on = |side: &'a Catalog, names: &Names| {
            let key = lower(&table.name);
            side.table(names.get(&key).unwrap_or(&key))
        };
        lines.push(Line { base: Some(table), local: on(local, local_names), head: on(head, head_names) });
    }
    let is = |a: Option<&Object>, b: &Object| a.is_some_and(|a| a.name == b.name);
    for table in tables(local) {
        if !lines.iter().any(|line| is(line.local, table)) {
            let free = |other: &&Object| !lines.iter().any(|line| is(line.head, other));
            let head = head.table(&table.name).filter(free);
            lines.push(Line { base: None, local: Some(table), head });
        }
    }
    for table in tables(head) {
        if !lines.iter().any(|line| is(line.head, table)) {
            lines.push(Line { base: None, local: None, head: Some(table) });
        }
    }
    lines
}

/// One column on the three sides, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Track {
    pub(super) base: Option<String>,
    pub(super) local: Option<String>,
    /// Before the merge.
    pub(super) old_head: Option<String>,
    /// Now.
    pub(super) head: Option<String>,
}

/// For each column of `before` the one of `after` that it became. One that has another name at the same place and
/// the same definition was renamed.
fn align(before: &Definition, after: &Definition) -> Vec<Option<usize>> {
    let find = |in_: &Definition, name: &str| {
        in_.columns.iter().position(|column| lower(&column.name) == lower(name))
    };
    let mut next = 0;
    let one = |column: &text::ColumnText| {
        let found = find(after, &column.name).or_else(|| {
            let there = after.columns.get(next)?;
            let names = Names::from([(lower(&column.name), lower(&there.name))]);
            (find(before, &there.name).is_none() && text::same(&column.rest, &there.rest, &names))
                .then_some(next)
        });
        next = found.map_or(next, |found| found + 1);
        found
    };
    before.columns.iter().map(one).collect()
}

/// The columns of a table on its three sides.
pub(super) fn tracks(base: Option<&Definition>, local: &Definition, head: &Definition) -> Vec<Track> {
    let name = |side: &Definition, at: Option<usize>| Some(side.columns.get(at?)?.name.clone());
    let mut tracks = Vec::new();
    if let Some(base) = base {
        let (to_local, to_head) = (align(base, local), align(base, head));
        for ((column, at_local), at_head) in base.columns.iter().zip(to_local).zip(to_head) {
            let (local, head) = (name(local, at_local), name(head, at_head));
            tracks.push(Track { base: Some(column.name.clone()), local, old_head: head.clone(), head });
        }
    }
    let is = |a: &Option<String>, b: &str| a.as_ref().is_some_and(|a| lower(a) == lower(b));
    for column in &head.columns {
        if !tracks.iter().any(|track| is(&track.head, &column.name)) {
            let head = Some(column.name.clone());
            tracks.push(Track { old_head: head.clone(), head, ..Track::default() });
        }
    }
    for column in &local.columns {
        if tracks.iter().any(|track| is(&track.local, &column.name)) {
            continue;
        }
        let local = Some(column.name.clone());
        match tracks.iter_mut().find(|track| track.local.is_none() && is(&track.head, &column.name)) {
            Some(track) => track.local = local,
            None => tracks.push(Track { local, ..Track::default() }),
        }
    }
    tracks
}
