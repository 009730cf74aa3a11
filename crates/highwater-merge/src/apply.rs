//! Brings the decided changes into the head.
//!
//! Rows may pass UNIQUE values to each other in any order, so what fails is tried again when others are done, and
//! what is stuck then (a circle) is taken out together before it is put back. What still fails is rejected: the
//! head's row stays. Because a rejection can make others fail, everything is rolled back and done again without
//! the rejected rows until nothing more fails; every round rejects at least one row.

use std::collections::BTreeMap;

use highwater_wire::{ConflictKind, RowJson, SqlValue};
use rusqlite::ffi;
use rusqlite::types::ToSql;

use crate::access::{Access, equal, run};
use crate::decide::{Change, Want, key_json};
use crate::error::{Error, Result};
use crate::foreign;
use crate::sql::{Bind, failed, quoted};
use crate::table::{Context, Step};
use crate::tables::{Table, by_name};

/// Why a row was not applied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rejection {
    pub(crate) kind: ConflictKind,
    pub(crate) columns: Vec<String>,
    pub(crate) other_key: RowJson,
    /// What SQLite says, or which rows are concerned.
    pub(crate) why: String,
}

/// The rejected changes, by their index.
pub(crate) type Rejected = BTreeMap<usize, Rejection>;

/// Applies all changes but those that it returns.
pub(crate) fn apply(cx: &Context<'_>, tables: &[Table<'_>], changes: &[Change]) -> Step<Rejected> {
    let mut rejected = Rejected::new();
    let sql = |sql: &str| cx.head.execute_batch(sql).map_err(failed("mark a point of return"));
    loop {
        sql("SAVEPOINT changes")?;
        let mut new = Rejected::new();
        for (at, table) in tables.iter().enumerate() {
            let here =
                |(index, change): &(usize, &Change)| change.pair.table == at && !rejected.contains_key(index);
            let open: Vec<(usize, &Change)> = changes.iter().enumerate().filter(here).collect();
            if let Some(head) = table.head.as_ref().filter(|_| !open.is_empty()) {
                let writer = Writer { cx, table, head };
                writer.all(open, &mut new).map_err(|stop| by_name(stop, table.map.name()))?;
            }
        }
        if new.is_empty() {
            new = foreign::check(cx, tables, changes, &rejected)?;
        }
        if new.is_empty() {
            sql("RELEASE changes")?;
            return Ok(rejected);
        }
        sql("ROLLBACK TO changes; RELEASE changes")?;
        rejected.extend(new);
    }
}

struct Writer<'a> {
    cx: &'a Context<'a>,
    table: &'a Table<'a>,
    head: &'a Access,
}

type Tried = Result<Option<Rejection>>;

impl Writer<'_> {
    fn all(&self, mut open: Vec<(usize, &Change)>, rejected: &mut Rejected) -> Step<()> {
        // Deletions first: they only make room.
        open.sort_by_key(|(index, change)| (change.want != Want::Delete, *index));
        while !open.is_empty() {
            let before = open.len();
            let mut stuck = Vec::new();
            for (index, change) in open {
                self.cx.budget.go_on()?;
                match self.one(change)? {
                    None => {}
                    Some(why) if why.kind == ConflictKind::Unique => stuck.push((index, change)),
                    Some(why) => {
                        rejected.insert(index, why);
                    }
                }
            }
            open = stuck;
            // Where hardly any gives way, as in a row of numbers that all move by one, passes would be many.
            if open.len() > before * 3 / 4 {
                return self.together(&open, rejected);
            }
        }
        Ok(())
    }

    fn one(&self, change: &Change) -> Tried {
        match &change.want {
            Want::Delete => self.delete(change).map(|()| None),
            Want::Update(values, set) => self.update(change, values, set),
            Want::Insert(values) => self.insert(change, values),
        }
    }

    /// Rows that stand in each other's way.
    fn together(&self, stuck: &[(usize, &Change)], rejected: &mut Rejected) -> Step<()> {
        for (_, change) in stuck {
            if change.pair.head.is_some() {
                self.delete(change)?;
            }
        }
        for (index, change) in stuck {
            let (Want::Update(values, _) | Want::Insert(values)) = &change.want else { continue };
            if let Some(why) = self.insert(change, values)? {
                rejected.insert(*index, why);
            }
        }
        Ok(())
    }

    /// The condition that finds the head's row of a change, with its values from `?1` on.
    fn found(&self, change: &Change) -> Option<(Vec<String>, Vec<SqlValue>)> {
        let row = change.pair.head.as_ref()?;
        if let (Some(name), Some(rowid)) = (self.head.rowid_sql(), row.rowid) {
            return Some((vec![name], vec![SqlValue::Integer(rowid)]));
        }
        let names = self.head.names(&self.head.key)?.into_iter().map(str::to_owned).collect();
        Some((names, self.head.key.iter().filter_map(|at| row.values.get(*at).cloned()).collect()))
    }

    fn delete(&self, change: &Change) -> Result<()> {
        let Some((names, key)) = self.found(change) else { return Ok(()) };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sql = format!("DELETE FROM {} WHERE {}", self.head.name, equal(&names));
        execute(self.cx, &sql, key.iter()).map_err(failed("delete a row"))?;
        Ok(())
    }

    fn update(&self, change: &Change, values: &[SqlValue], set: &[usize]) -> Tried {
        let (Some((names, key)), Some(columns)) = (self.found(change), self.head.names(set)) else {
            return Ok(None);
        };
        let names: Vec<String> =
            names.iter().enumerate().map(|(at, name)| format!("{name} = ?{}", at + 1)).collect();
        let count = key.len();
        let sets: Vec<String> =
            columns.iter().enumerate().map(|(at, name)| format!("{name} = ?{}", count + at + 1)).collect();
        let sql = format!(
            "UPDATE OR ABORT {} SET {} WHERE {}",
            self.head.name,
            sets.join(", "),
            names.join(" AND ")
        );
        let new = set.iter().filter_map(|at| values.get(*at));
        self.outcome(execute(self.cx, &sql, key.iter().chain(new)), values, "update a row")
    }

    fn insert(&self, change: &Change, values: &[SqlValue]) -> Tried {
        let whole = matches!(change.want, Want::Update(..));
        let mut names = Vec::new();
        let mut new = Vec::new();
        let rowid = self.rowid_for(change)?.map(SqlValue::Integer);
        if let (Some(name), Some(rowid), None) = (self.head.rowid, &rowid, self.head.alias) {
            names.push(name);
            new.push(rowid);
        }
        for (at, column) in self.table.map.columns.iter().enumerate() {
            // What local lacks gets its default.
            let written = !column.generated && (whole || column.local.is_some());
            if let (true, Some(Some(name)), Some(value)) =
                (written, self.head.columns.get(at), values.get(at))
            {
                names.push(name);
                new.push(if self.head.alias == Some(at) { rowid.as_ref().unwrap_or(value) } else { value });
            }
        }
        let places: Vec<String> = (1..=names.len()).map(|at| format!("?{at}")).collect();
        let sql = format!(
            "INSERT OR ABORT INTO {} ({}) VALUES ({})",
            self.head.name,
            names.join(", "),
            places.join(", ")
        );
        self.outcome(execute(self.cx, &sql, new.into_iter()), values, "insert a row")
    }

    /// The rowid to insert with. Where it identifies nothing it gives way.
    fn rowid_for(&self, change: &Change) -> Result<Option<i64>> {
        let Some(rowid) = change.pair.rowid.filter(|_| self.head.rowid.is_some()) else { return Ok(None) };
        if self.table.key.is_empty() || self.head.by_rowid(self.cx.head, rowid)?.is_none() {
            return Ok(Some(rowid));
        }
        let last = self.head.max_rowid(self.cx.head)?;
        let mut free = last.saturating_add(1);
        while self.head.by_rowid(self.cx.head, free)?.is_some() {
            free =
                free.checked_sub(1).ok_or_else(|| Error::Damaged("a table has no free rowid".to_owned()))?;
        }
        Ok(Some(free))
    }

    fn outcome(&self, done: rusqlite::Result<usize>, values: &[SqlValue], what: &'static str) -> Tried {
        let error = match done {
            Ok(_) => return Ok(None),
            Err(error) => error,
        };
        let Some(kind) = kind(&error) else { return Err(failed(what)(error)) };
        let why = match &error {
            rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
            other => other.to_string(),
        };
        let columns = if kind == ConflictKind::Unique { self.named_columns(&why) } else { Vec::new() };
        let other_key = self.holder(&columns, values)?;
        let names = crate::decide::names(self.table, &columns);
        Ok(Some(Rejection { kind, columns: names, other_key, why }))
    }

    /// The columns in `UNIQUE constraint failed: t.a, t.b`.
    fn named_columns(&self, message: &str) -> Vec<usize> {
        let Some((_, list)) = message.split_once("constraint failed: ") else { return Vec::new() };
        let column = |part: &str| {
            let name = part.split_once('.').map_or(part, |(_, name)| name);
            let name = quoted(name);
            let same =
                |have: &Option<String>| have.as_ref().is_some_and(|have| have.eq_ignore_ascii_case(&name));
            self.head.columns.iter().position(same)
        };
        list.split(", ").filter_map(column).collect()
    }

    /// The key of the row that has these values.
    fn holder(&self, columns: &[usize], values: &[SqlValue]) -> Result<RowJson> {
        let key: Vec<SqlValue> = columns.iter().filter_map(|at| values.get(*at).cloned()).collect();
        if key.is_empty() {
            return Ok(Vec::new());
        }
        let row = self.head.by_values(self.cx.head, columns, &key)?;
        Ok(row.map(|row| key_json(self.table, &row, row.rowid)).unwrap_or_default())
    }
}

fn execute<'v>(
    cx: &Context<'_>,
    sql: &str,
    values: impl Iterator<Item = &'v SqlValue>,
) -> rusqlite::Result<usize> {
    let binds: Vec<Bind<'v>> = values.map(Bind).collect();
    let refs: Vec<&dyn ToSql> = binds.iter().map(|bind| bind as &dyn ToSql).collect();
    run(cx.head, sql, &refs)
}

/// The conflict that an error of SQLite is, if it is one.
fn kind(error: &rusqlite::Error) -> Option<ConflictKind> {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return None };
    Some(match failure.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            ConflictKind::Unique
        }
        ffi::SQLITE_CONSTRAINT_NOTNULL => ConflictKind::NotNull,
        ffi::SQLITE_MISMATCH => ConflictKind::Check,
        // CHECK, types of STRICT tables, and what virtual tables demand.
        code if code & 0xff == ffi::SQLITE_CONSTRAINT => ConflictKind::Check,
        _ => return None,
    })
}
