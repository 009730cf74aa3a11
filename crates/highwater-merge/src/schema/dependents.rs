//! Indexes, views and triggers: dropped before tables change, made after the rows are merged.

use std::collections::BTreeSet;

use highwater_wire::{Conflict, Kept};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::alter::{self, lacks, savepoint};
use super::catalog::{Catalog, Key, Kind, Object, lower};
use super::not_kept;
use super::tables::Merging;
use super::text::{self, Names};
use crate::sql::{self, quoted};
use crate::table::{Context, Plan, Step, refuse};

impl Merging<'_> {
    /// Decides about every index, view and trigger, drops those that go or change, and notes those to be made.
    pub(super) fn dependents(&mut self) -> Step<()> {
        let now = Catalog::read(self.cx.head)?;
        let sides = [self.base, self.local, self.old_head];
        let keys: BTreeSet<_> = sides.iter().flat_map(|side| side.objects.keys()).collect();
        for key in keys {
            let [base, local, head] =
                sides.map(|side| side.objects.get(key).filter(|object| !object.kind.is_table()));
            let staying = now.objects.get(key).filter(|object| !object.kind.is_table());
            let stays = self.dependent(key, [base, local, head], staying)?;
            if let Some(staying) = staying.filter(|_| stays) {
                self.plan.later.stays.push(staying.clone());
            }
        }
        self.plan.later.stays.sort_by_key(|object| (object.kind, object.order));
        self.plan.later.creates.sort_by_key(|(object, _)| (object.kind, object.order));
        Ok(())
    }

    /// Decides about one. Says whether the head's stays.
    fn dependent(&mut self, key: &Key, sides: [Option<&Object>; 3], now: Option<&Object>) -> Step<bool> {
        let [base, local, head] = sides;
        let Some(any) = local.or(base).or(head) else { return Ok(false) };
        let (local_names, head_names, to_head) = self.names_for(base.or(local), local);
        if !changed(base, local, &local_names) {
            return Ok(true);
        }
        if !changed(base, head, &head_names) {
            let belongs = base.filter(|base| matches!(base.kind, Kind::Index | Kind::Trigger));
            if local.is_none() && belongs.is_some_and(|base| self.kept.contains(&lower(&base.table))) {
                return Ok(true);
            }
            if let Some(local) = local {
                let text =
                    if to_head.is_empty() { local.sql.clone() } else { text::renamed(&local.sql, &to_head) };
                let table = to_head.get(&lower(&local.table)).unwrap_or(&local.table).clone();
                let create = Object { sql: text, table, ..local.clone() };
                self.plan.later.creates.push((create, now.map(|now| now.sql.clone())));
            }
            if let Some(now) = now {
                let drop = format!("DROP {} IF EXISTS {}", now.kind.word(), quoted(&now.name));
                self.cx.head.execute_batch(&drop).map_err(sql::failed("drop what was dropped or changed"))?;
            }
            return Ok(false);
        }
        let same = match (local, head) {
            (Some(local), Some(head)) => {
                local.kind == head.kind && text::same(&local.sql, &head.sql, &to_head)
            }
            (local, head) => local.is_none() && head.is_none(),
        };
        if !same && (base.is_some() || head.is_some()) {
            let did = |side: Option<&Object>| match (base, side) {
                (_, None) => "dropped",
                (None, _) => "made",
                _ => "changed",
            };
            let (there, here) = (did(local), did(head));
            let message = format!(
                "{} {:?} was {there} there and {here} here, in another way; what was done here stays",
                any.kind.word(),
                key.1
            );
            let conflict = not_kept(&any.name, local.map(|local| local.sql.as_str()), message);
            self.plan.conflicts.push(conflict);
        }
        Ok(true)
    }

    /// The names that local changed, those that the head changed, and those of local that have another name at
    /// the head, as far as they matter to an object.
    fn names_for(&self, object: Option<&Object>, local: Option<&Object>) -> (Names, Names, Names) {
        let mut to_head = Names::new();
        for table in &self.tables {
            if let (Some(local), Some(head)) = (table.line.local, &table.head)
                && lower(&local.name) != lower(head)
            {
                to_head.insert(lower(&local.name), lower(head));
            }
        }
        // Columns count of the tables that the text mentions: views and triggers do so with any.
        let texts: Vec<_> = object.into_iter().chain(local).map(|object| &object.sql).collect();
        let mentioned = |table: &Object| texts.iter().any(|text| text::mentions(text, &table.name));
        let tables = self.tables.iter().filter(|table| {
            table.line.base.is_some_and(mentioned) || table.line.local.is_some_and(mentioned)
        });
        let tracks: Vec<_> = tables.flat_map(|table| &table.tracks).cloned().collect();
        for track in &tracks {
            if let (Some(base), Some(local), Some(head)) = (&track.base, &track.local, &track.head)
                && lower(local) != lower(head)
                && lower(base) == lower(local)
            {
                to_head.insert(lower(local), lower(head));
            }
        }
        let (local, head) = self.names(&tracks);
        (local, head, to_head)
    }
}

fn changed(before: Option<&Object>, after: Option<&Object>, names: &Names) -> bool {
    match (before, after) {
        (None, None) => false,
        (Some(before), Some(after)) => {
            before.kind != after.kind || !text::same(&before.sql, &after.sql, names)
        }
        _ => true,
    }
}

/// What waited for the rows.
pub(super) fn finish(cx: &Context<'_>, plan: &Plan) -> Step<Vec<Conflict>> {
    let mut conflicts = Vec::new();
    for (table, sql, wanted) in &plan.later.rebuilds {
        match alter::rebuild(cx.head, table, wanted) {
            Ok(()) => {}
            Err(error) if lacks(&error) => {
                return Err(refuse(table, format!("it cannot be changed here: {error}")));
            }
            Err(error) => {
                let message = format!(
                    "the rows here do not fit what table {table:?} became there ({error}); the definition here stays"
                );
                conflicts.push(not_kept(table, Some(sql), message));
            }
        }
    }
    for (object, before) in &plan.later.creates {
        create(cx, object, before.as_deref(), &mut conflicts)?;
    }
    let now = Catalog::read(cx.head)?;
    for object in &plan.later.stays {
        let owner_is_there = now.objects.contains_key(&(false, lower(&object.table)));
        if now.objects.contains_key(&object.key()) || !(owner_is_there || object.kind == Kind::View) {
            continue;
        }
        if let Err(error) = savepoint(cx.head, || cx.head.execute_batch(&object.sql)) {
            let kind = object.kind.word();
            let message = format!("{kind} {:?} does not fit the merged table: {error}", object.name);
            let mut lost = not_kept(&object.name, Some(&object.sql), message);
            lost.kept = Kept::Local;
            conflicts.push(lost);
        }
    }
    Ok(conflicts)
}

fn create(cx: &Context<'_>, object: &Object, before: Option<&str>, lost: &mut Vec<Conflict>) -> Step<()> {
    let made = savepoint(cx.head, || {
        cx.head.execute_batch(&object.sql)?;
        let misfit = misfit(cx.head, object).filter(|_| misfit(cx.local, object).is_none());
        misfit.map_or(Ok(()), Err)
    });
    let Err(error) = made else { return Ok(()) };
    let kind = object.kind.word();
    if lacks(&error) {
        return Err(refuse(&object.name, format!("the {kind} cannot be made here: {error}")));
    }
    let message = format!("{kind} {:?} cannot be made here: {error}", object.name);
    lost.push(not_kept(&object.name, Some(&object.sql), message));
    if let Some(before) = before {
        let _was_there_and_may_not_fit_any_more = savepoint(cx.head, || cx.head.execute_batch(before));
    }
    Ok(())
}

/// Why a view or trigger cannot be used. (SQLite makes them without a look at what they mention.)
fn misfit(side: &Connection, object: &Object) -> Option<rusqlite::Error> {
    match object.kind {
        Kind::View => side.prepare(&format!("SELECT * FROM {}", quoted(&object.name))).err(),
        Kind::Trigger => {
            let were_on = side.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER).ok()?;
            let on = |on| side.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, on).ok();
            on(true)?;
            let found = firing(side, object).into_iter().find_map(|statement| side.prepare(&statement).err());
            on(were_on)?;
            found
        }
        _ => None,
    }
}

/// Statements that would fire a trigger, as far as can be told without a look into it.
fn firing(side: &Connection, trigger: &Object) -> Vec<String> {
    let table = quoted(&trigger.table);
    let event = text::event_of(&trigger.sql);
    if event == "insert" {
        return vec![format!("EXPLAIN INSERT INTO {table} DEFAULT VALUES")];
    }
    if event == "delete" {
        return vec![format!("EXPLAIN DELETE FROM {table}")];
    }
    let columns = sql::columns(side, &trigger.table).unwrap_or_default();
    let written = columns.into_iter().filter(|(_, hidden)| *hidden == 0);
    written.map(|(name, _)| format!("EXPLAIN UPDATE {table} SET {0} = {0}", quoted(&name))).collect()
}
