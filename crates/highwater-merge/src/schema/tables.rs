//! The tables, one after the other.

use std::collections::BTreeSet;

use super::alter::{self, lacks, savepoint};
use super::catalog::{Catalog, Kind, Object, lower};
use super::lines::{Line, Track, lines, renames};
use super::text::{self, Definition, Names};
use super::wanted::Three;
use super::{columns, not_kept};
use crate::sql::{self, quoted};
use crate::table::{Context, Keys, Plan, Step, TableMap, refuse};
use crate::virtuals;

/// A table while it is merged.
pub(super) struct Table<'a> {
    pub(super) line: Line<'a>,
    /// Its columns; of a virtual table those that are not hidden.
    pub(super) tracks: Vec<Track>,
    /// Its present name at the head.
    pub(super) head: Option<String>,
}

/// The schema step at work.
pub(super) struct Merging<'a> {
    pub(super) cx: &'a Context<'a>,
    pub(super) base: &'a Catalog,
    pub(super) local: &'a Catalog,
    pub(super) old_head: &'a Catalog,
    pub(super) local_names: Names,
    pub(super) head_names: Names,
    pub(super) tables: Vec<Table<'a>>,
    /// Tables that local dropped and the head keeps, by their lower-case name at the base.
    pub(super) kept: BTreeSet<String>,
    pub(super) plan: Plan,
}

impl<'a> Merging<'a> {
    pub(super) fn new(
        cx: &'a Context<'a>,
        base: &'a Catalog,
        local: &'a Catalog,
        old_head: &'a Catalog,
    ) -> Step<Self> {
        let before = (base, cx.base);
        let local_names = renames(before, (local, cx.local))?;
        let head_names = renames(before, (old_head, cx.head))?;
        let mut tables = Vec::new();
        for line in lines([base, local, old_head], &local_names, &head_names) {
            let tracks = columns::of(cx, &line)?;
            tables.push(Table { line, tracks, head: line.head.map(|head| head.name.clone()) });
        }
        let (kept, plan) = (BTreeSet::new(), Plan::default());
        Ok(Self { cx, base, local, old_head, local_names, head_names, tables, kept, plan })
    }

    pub(super) fn rename_tables(&mut self) -> Step<()> {
        for table in &mut self.tables {
            let (Some(base), Some(local), Some(head)) = (table.line.base, table.line.local, table.line.head)
            else {
                continue;
            };
            if lower(&base.name) == lower(&local.name) || lower(&local.name) == lower(&head.name) {
                continue;
            }
            let what = format!("table {:?} was renamed to {:?} there", base.name, local.name);
            if lower(&base.name) != lower(&head.name) {
                let message = format!("{what} and to {:?} here; the name here stays", head.name);
                self.plan.conflicts.push(not_kept(&head.name, Some(&local.sql), message));
                continue;
            }
            let rename = format!("ALTER TABLE {} RENAME TO {}", quoted(&head.name), quoted(&local.name));
            match alter::rename(self.cx.head, &rename) {
                Ok(()) => table.head = Some(local.name.clone()),
                Err(error) if lacks(&error) => return Err(refuse(&head.name, format!("{what}: {error}"))),
                Err(error) => {
                    let message = format!("{what}, which is not possible here: {error}");
                    self.plan.conflicts.push(not_kept(&head.name, Some(&local.sql), message));
                }
            }
        }
        Ok(())
    }

    /// Finds what local dropped and the head changed, which stays.
    pub(super) fn find_kept_tables(&mut self) -> Step<()> {
        for table in &self.tables {
            if let Line { base: Some(base), local: None, head: Some(head) } = table.line
                && self.head_changed(base, head)?
            {
                self.kept.insert(lower(&base.name));
                let message = format!("table {:?} was dropped there and changed here: it stays", head.name);
                self.plan.conflicts.push(not_kept(&head.name, None, message));
            }
        }
        Ok(())
    }

    /// Whether the head changed a table, its rows, or what belongs to it.
    fn head_changed(&self, base: &Object, head: &Object) -> Step<bool> {
        let others = self
            .old_head
            .objects
            .iter()
            .filter(|(_, object)| !object.kind.is_table() && lower(&object.table) == lower(&head.name));
        for (key, object) in others {
            let before = self.base.objects.get(key);
            if !before.is_some_and(|before| text::same(&before.sql, &object.sql, &self.head_names)) {
                return Ok(true);
            }
        }
        if lower(&base.name) != lower(&head.name) || !same_definition(base, head, &self.head_names) {
            return Ok(true);
        }
        match base.kind {
            Kind::Virtual => virtuals::head_changed(self.cx, [self.base, self.old_head], base, head),
            _ => Ok(!self.cx.changes.head(Some(&base.name), Some(&head.name))?.is_empty()),
        }
    }

    pub(super) fn tables(&mut self) -> Step<()> {
        for index in 0..self.tables.len() {
            let Some(table) = self.tables.get(index) else { break };
            let (line, mut head, mut tracks) = (table.line, table.head.clone(), table.tracks.clone());
            let fresh = self.definition(&line, &mut head, &mut tracks)?;
            if line.local.is_some() {
                self.map(&line, head.as_deref(), &tracks, fresh)?;
            }
            if let Some(table) = self.tables.get_mut(index) {
                (table.head, table.tracks) = (head, tracks);
            }
        }
        Ok(())
    }

    /// Gives one table of the head its merged definition. Says whether it was made anew, without rows.
    fn definition(&mut self, line: &Line<'a>, head: &mut Option<String>, tracks: &mut [Track]) -> Step<bool> {
        match (line.base, line.local, line.head) {
            (Some(base), None, Some(_)) if !self.kept.contains(&lower(&base.name)) => {
                let Some(name) = head.take() else { return Ok(false) };
                drop_table(self.cx, &name)?;
            }
            (None, Some(local), None) => {
                *head = self.create(local)?;
                for track in tracks.iter_mut().filter(|_| head.is_some()) {
                    track.head.clone_from(&track.local);
                }
                return Ok(true);
            }
            (None, Some(local), Some(head)) if !same_definition(local, head, &Names::new()) => {
                let message = format!(
                    "both made a table {:?}, with different definitions; the one here stays",
                    head.name
                );
                self.plan.conflicts.push(not_kept(&head.name, Some(&local.sql), message));
            }
            (Some(base), Some(local), None) if !same_definition(base, local, &self.names(tracks).0) => {
                let message =
                    format!("table {:?} was changed there and dropped here: it stays dropped", base.name);
                self.plan.conflicts.push(not_kept(&base.name, Some(&local.sql), message));
            }
            (Some(base), Some(local), Some(old)) => {
                let Some(name) = head.clone() else { return Ok(false) };
                if same_definition(base, local, &self.local_names)
                    || same_definition(local, old, &Names::new())
                {
                    return Ok(false);
                }
                let untouched = same_definition(base, old, &self.head_names);
                if [base, local, old].iter().any(|side| side.kind == Kind::Virtual) {
                    return self.replace(line, &name, untouched, tracks);
                }
                if untouched
                    && columns::new_identity(self.cx, [base, local], tracks)?
                    && !self.head_changed(base, old)?
                {
                    return self.replace(line, &name, untouched, tracks);
                }
                self.change([base, local], untouched, &name, tracks)?;
            }
            _ => {}
        }
        Ok(false)
    }

    /// Names that local changed, and names that the head changed, in this table.
    pub(super) fn names(&self, tracks: &[Track]) -> (Names, Names) {
        let (mut local, mut head) = (self.local_names.clone(), self.head_names.clone());
        for track in tracks {
            let Some(base) = &track.base else { continue };
            for (names, now) in [(&mut local, &track.local), (&mut head, &track.old_head)] {
                if let Some(now) = now.as_ref().filter(|now| lower(now) != lower(base)) {
                    names.insert(lower(base), lower(now));
                }
            }
        }
        (local, head)
    }

    fn create(&mut self, local: &Object) -> Step<Option<String>> {
        match savepoint(self.cx.head, || self.cx.head.execute_batch(&local.sql)) {
            Ok(()) => Ok(Some(local.name.clone())),
            Err(error) if lacks(&error) => {
                Err(refuse(&local.name, format!("it cannot be made here: {error}")))
            }
            Err(error) => {
                let message = format!("table {:?} cannot be made here: {error}", local.name);
                self.plan.conflicts.push(not_kept(&local.name, Some(&local.sql), message));
                Ok(None)
            }
        }
    }

    /// A virtual table cannot be altered, and rows cannot be followed into another key: local's takes the place of the
    /// head's if the head's has nothing of its own.
    fn replace(&mut self, line: &Line<'a>, name: &str, unchanged: bool, tracks: &mut [Track]) -> Step<bool> {
        let (Some(base), Some(local), Some(head)) = (line.base, line.local, line.head) else {
            return Ok(false);
        };
        let derived = head.kind == Kind::Virtual && virtuals::is_derived(&head.sql);
        if unchanged && (derived || !self.head_changed(base, head)?) {
            drop_table(self.cx, name)?;
            if self.create(local)?.is_some() {
                for track in tracks.iter_mut() {
                    (track.base, track.old_head) = (None, None);
                    track.head.clone_from(&track.local);
                }
                return Ok(true);
            }
            return Err(refuse(name, "what the device made of it cannot be made here"));
        }
        let message = format!("both changed table {name:?}; the definition here stays");
        self.plan.conflicts.push(not_kept(name, Some(&local.sql), message));
        Ok(false)
    }

    /// Changes the definition of a table, which the head perhaps left untouched.
    fn change(
        &mut self,
        [base, local]: [&Object; 2],
        untouched: bool,
        name: &str,
        tracks: &mut [Track],
    ) -> Step<()> {
        self.rename_columns(name, tracks);
        let parsed = |object: &Object| {
            Definition::parse(&object.sql).ok_or_else(|| refuse(name, "its definition cannot be read"))
        };
        let now = alter::definition(self.cx.head, name)?;
        let (local_names, mut head_names) = self.names(tracks);
        for track in tracks.iter() {
            if let (Some(base), Some(head)) = (&track.base, &track.head) {
                head_names.insert(lower(base), lower(head));
            }
        }
        head_names.insert(lower(&base.name), lower(name));
        let (base_text, local_text) = (parsed(base)?, parsed(local)?);
        let three = Three {
            base: &base_text,
            local: &local_text,
            head: &now,
            local_names: &local_names,
            head_names: &head_names,
            untouched,
        };
        let wanted = three.wanted(tracks);
        if !wanted.lost.is_empty() {
            let message = format!("table {name:?}: {}; the definition here stays", wanted.lost.join("; "));
            self.plan.conflicts.push(not_kept(name, Some(&local.sql), message));
        }
        columns::record_dropped(self, base, name, &wanted, tracks)?;
        if !alter::alter(self.cx.head, name, &wanted)? {
            match alter::rebuild(self.cx.head, name, &wanted) {
                Ok(()) => {}
                Err(error) if lacks(&error) => {
                    return Err(refuse(name, format!("it cannot be changed here: {error}")));
                }
                Err(_rows_do_not_fit_yet) => {
                    alter::add_places(self.cx.head, name, &wanted, (self.cx.local, &local.name))?;
                    self.plan.later.rebuilds.push((name.to_owned(), local.sql.clone(), wanted.clone()));
                }
            }
        }
        columns::follow(self.cx, name, &wanted, tracks)
    }

    /// Columns that local renamed and the head did not. What fails is left to the definition.
    fn rename_columns(&self, table: &str, tracks: &mut [Track]) {
        for track in tracks {
            let (Some(base), Some(local), Some(head)) = (&track.base, &track.local, &track.head) else {
                continue;
            };
            if lower(base) != lower(local) && lower(head) == lower(base) {
                let rename = format!(
                    "ALTER TABLE {} RENAME COLUMN {} TO {}",
                    quoted(table),
                    quoted(head),
                    quoted(local)
                );
                if alter::rename(self.cx.head, &rename).is_ok() {
                    track.head = Some(local.clone());
                }
            }
        }
    }

    fn map(&mut self, line: &Line<'a>, head: Option<&str>, tracks: &[Track], fresh: bool) -> Step<()> {
        let Some(local) = line.local else { return Ok(()) };
        // Rows of a virtual table and rows of another one are not the same rows.
        let same = |object: &&Object| object.kind == local.kind && !fresh;
        let (base, old_head) = (line.base.filter(same), line.head.filter(same));
        let head = head.filter(|_| fresh || old_head.is_some() || line.head.is_none());
        let columns = columns::maps(self.cx, Some(&local.name), head, tracks)?;
        let name = |object: Option<&Object>| object.map(|object| object.name.clone());
        let map = TableMap {
            base: name(base),
            local: Some(local.name.clone()),
            head: head.map(ToOwned::to_owned),
            old_head: name(old_head),
            columns,
            keys: Keys::OwnTree,
        };
        if local.kind == Kind::Virtual {
            let catalogs = [self.base, self.local, self.old_head];
            return virtuals::plan(self.cx, catalogs, (base, local, old_head), map, &mut self.plan);
        }
        self.plan.tables.push(map);
        Ok(())
    }
}

fn drop_table(cx: &Context<'_>, name: &str) -> Step<()> {
    match cx.head.execute_batch(&format!("DROP TABLE {}", quoted(name))) {
        Err(error) if lacks(&error) => Err(refuse(name, format!("it cannot be dropped here: {error}"))),
        done => Ok(done.map_err(sql::failed("drop a table"))?),
    }
}

/// Whether two tables say the same, their own names apart.
fn same_definition(before: &Object, after: &Object, names: &Names) -> bool {
    if before.kind == Kind::Virtual || after.kind == Kind::Virtual {
        return before.kind == after.kind && text::module_of(&before.sql) == text::module_of(&after.sql);
    }
    match (Definition::parse(&before.sql), Definition::parse(&after.sql)) {
        (Some(before), Some(after)) => before.same(&after, names),
        _ => text::same(&before.sql, &after.sql, names),
    }
}
