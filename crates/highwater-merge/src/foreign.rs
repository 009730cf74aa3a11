//! Foreign keys of the rows that a push changed.
//!
//! Only these rows are checked, at the merged state, and only where base and local satisfy the key: a database
//! that never cared goes on not to care.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use highwater_wire::{ConflictKind, SqlValue};

use crate::access::{Access, Side, SideRow};
use crate::apply::{Rejected, Rejection};
use crate::decide::{Change, Want, names};
use crate::error::Result;
use crate::sql::{failed, unquoted, value};
use crate::table::{Context, Step};
use crate::tables::{ForeignKey, Table, connection};

/// The applied changes that break a foreign key. What it finds is rolled back by the caller.
pub(crate) fn check(
    cx: &Context<'_>,
    tables: &[Table<'_>],
    changes: &[Change],
    done: &Rejected,
) -> Step<Rejected> {
    let mut broken = Rejected::new();
    let children = Children { cx, tables, changes, rows: <_>::default(), orphans: <_>::default() };
    let of = |index: usize| -> Option<Check<'_>> {
        let change = changes.get(index)?;
        let table = tables.get(change.pair.table)?;
        Some(Check { cx, tables, table, change, children: &children })
    };
    for index in (0..changes.len()).filter(|index| !done.contains_key(index)) {
        let Some(check) = of(index) else { continue };
        if let Some(why) = check.points_nowhere()? {
            broken.insert(index, why);
        } else if let Some(why) = check.leaves_orphans()? {
            broken.insert(index, why);
        }
    }
    let mut open: Vec<usize> = broken.keys().copied().collect();
    if open.is_empty() {
        return Ok(broken);
    }
    // What points to a row that is refused is refused with it, however long the chain: else every link would cost
    // another round.
    let pointing = Pointing::new(tables, changes, done);
    while let Some(index) = open.pop() {
        let Some(change) = changes.get(index) else { continue };
        for at in pointing.take_away(cx, tables, change)? {
            let Some(check) = of(at).filter(|_| !broken.contains_key(&at)) else { continue };
            if let Some(why) = check.points_nowhere()? {
                broken.insert(at, why);
                open.push(at);
            }
        }
    }
    Ok(broken)
}

/// Which changes point to which values of another table: by (table, place of its key, values).
struct Pointing(HashMap<(usize, usize, String), Vec<usize>>);

impl Pointing {
    fn new(tables: &[Table<'_>], changes: &[Change], done: &Rejected) -> Self {
        let mut pointing = HashMap::new();
        for (index, change) in changes.iter().enumerate().filter(|(index, _)| !done.contains_key(index)) {
            let (Want::Update(values, _) | Want::Insert(values)) = &change.want else { continue };
            let Some(table) = tables.get(change.pair.table) else { continue };
            for (at, key) in table.foreign.iter().enumerate() {
                if let Some(values) = rough(&key.columns, values) {
                    let places: &mut Vec<usize> =
                        pointing.entry((change.pair.table, at, values)).or_default();
                    places.push(index);
                }
            }
        }
        Self(pointing)
    }

    /// Takes an inserted row away again. Says which changes may point to it.
    fn take_away(&self, cx: &Context<'_>, tables: &[Table<'_>], change: &Change) -> Step<Vec<usize>> {
        let Want::Insert(values) = &change.want else { return Ok(Vec::new()) };
        let Some(parent) = tables.get(change.pair.table).and_then(|table| table.head.as_ref()) else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for (table, child) in tables.iter().enumerate() {
            let to_it = child.foreign.iter().enumerate().filter(|(_, key)| key.parent == change.pair.table);
            for (at, key) in to_it {
                let Some(rough) = rough(&key.parent_columns, values) else { continue };
                let Some(found) = self.0.get(&(table, at, rough)) else { continue };
                let Some(names) = parent.names(&key.parent_columns) else { continue };
                let own: Vec<&SqlValue> =
                    key.parent_columns.iter().filter_map(|at| values.get(*at)).collect();
                parent.delete(cx.head, &names, &own)?;
                all.extend(found);
            }
        }
        Ok(all)
    }
}

/// A key of a table: its place in the list, and the columns.
type Place = (usize, Vec<usize>);

/// What points to rows that the device took away, where no index finds it.
struct Children<'a> {
    cx: &'a Context<'a>,
    tables: &'a [Table<'a>],
    changes: &'a [Change],
    /// Rows of the head that head or device changed, by the values in the columns of the key; none: an index finds
    /// them. Others the device would have taken away, too, or left pointing to nothing.
    rows: RefCell<HashMap<Place, Option<Rc<Rows>>>>,
    /// What rows of the device point to, and is not there.
    orphans: RefCell<HashMap<Place, Rc<HashSet<String>>>>,
}

type Rows = HashMap<String, Vec<SideRow>>;

impl Children<'_> {
    /// Whether rows of a table at the head have these values in the columns of that key.
    fn point_to(&self, child: usize, key: &ForeignKey, values: &[&SqlValue]) -> Step<bool> {
        let Some((head, names)) = self.tables.get(child).and_then(|table| {
            let head = table.head.as_ref()?;
            Some((head, head.names(&key.columns)?))
        }) else {
            return Ok(false);
        };
        let Some(rows) = self.rows(child, head, key)? else {
            return Ok(Access::exists(self.cx.head, &head.name, &names, values)?);
        };
        for row in rows.get(&rough_values(values.iter().copied())).into_iter().flatten() {
            let (place, own) = match (head.rowid_sql(), row.rowid) {
                (Some(name), Some(rowid)) => (vec![name], vec![SqlValue::Integer(rowid)]),
                _ => {
                    let names = head.names(&head.key).unwrap_or_default().into_iter().map(str::to_owned);
                    (names.collect(), head.key.iter().filter_map(|at| row.values.get(*at).cloned()).collect())
                }
            };
            let columns: Vec<&str> = place.iter().map(String::as_str).chain(names.iter().copied()).collect();
            let key: Vec<&SqlValue> = own.iter().chain(values.iter().copied()).collect();
            if Access::exists(self.cx.head, &head.name, &columns, &key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn rows(&self, child: usize, head: &Access, key: &ForeignKey) -> Step<Option<Rc<Rows>>> {
        let place = (child, key.columns.clone());
        if let Some(known) = self.rows.borrow().get(&place) {
            return Ok(known.clone());
        }
        let found = if self.is_found(child, head, key)? { None } else { Some(self.find(child, head, key)?) };
        let found = found.map(Rc::new);
        self.rows.borrow_mut().insert(place, found.clone());
        Ok(found)
    }

    /// Whether an index, or nothing but a search, finds them.
    fn is_found(&self, child: usize, head: &Access, key: &ForeignKey) -> Result<bool> {
        let base = self.tables.get(child).and_then(|table| table.base.as_ref());
        let same_rows = |base: &Access| base.rowid.is_some() == head.rowid.is_some() && base.key == head.key;
        Ok(!base.is_none_or(same_rows) || self.has_index(head, key)?)
    }

    fn find(&self, child: usize, head: &Access, key: &ForeignKey) -> Step<Rows> {
        let mut found = Rows::new();
        let Some(map) = self.tables.get(child).map(|table| table.map) else { return Ok(found) };
        let mut add = |row: SideRow| {
            if let Some(values) = rough(&key.columns, &row.values) {
                found.entry(values).or_default().push(row);
            }
        };
        for row in self.cx.changes.head(map.base.as_deref(), map.old_head.as_deref())? {
            head.by_tree(self.cx.head, &row)?.into_iter().for_each(&mut add);
        }
        let changes = self.changes.iter().filter(|change| change.pair.table == child);
        changes.filter_map(|change| change.pair.head.clone()).for_each(add);
        Ok(found)
    }

    /// Whether the device may have left rows that point to these values, and nothing is there.
    fn may_be_orphans(&self, child: usize, key: &ForeignKey, values: &[&SqlValue]) -> Step<bool> {
        let Some(table) = self.tables.get(child) else { return Ok(false) };
        let (Some(head), Some(local)) = (&table.head, &table.local) else { return Ok(false) };
        if self.rows(child, head, key)?.is_none() {
            return Ok(true);
        }
        let place = (child, key.columns.clone());
        let known = self.orphans.borrow().get(&place).cloned();
        let found = match known {
            Some(found) => found,
            None => {
                let found = Rc::new(self.orphans(local, key)?);
                self.orphans.borrow_mut().insert(place, Rc::clone(&found));
                found
            }
        };
        Ok(found.contains(&rough_values(values.iter().copied())))
    }

    fn orphans(&self, child: &Access, key: &ForeignKey) -> Result<HashSet<String>> {
        let failed = failed("look for rows that point to nothing");
        let parent = self.tables.get(key.parent).and_then(|table| table.local.as_ref());
        let Some((parent, to, from)) = parent.and_then(|parent| {
            Some((parent, parent.names(&key.parent_columns)?, child.names(&key.columns)?))
        }) else {
            return Ok(HashSet::new());
        };
        let same: Vec<String> = to.iter().zip(&from).map(|(to, from)| format!("p.{to} = c.{from}")).collect();
        let sql = format!(
            "SELECT DISTINCT {} FROM {} c WHERE NOT EXISTS (SELECT 1 FROM {} p WHERE {})",
            from.join(", "),
            child.name,
            parent.name,
            same.join(" AND ")
        );
        let mut statement = self.cx.local.prepare_cached(&sql).map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        let mut found = HashSet::new();
        while let Some(row) = rows.next().map_err(&failed)? {
            let values: rusqlite::Result<Vec<SqlValue>> = (0..from.len()).map(|at| value(row, at)).collect();
            found.insert(rough_values(values.map_err(&failed)?.iter()));
        }
        Ok(found)
    }

    fn has_index(&self, child: &Access, key: &ForeignKey) -> Result<bool> {
        if child.alias.is_some_and(|alias| key.columns.contains(&alias)) {
            return Ok(true);
        }
        let failed = failed("look for an index");
        let sql = "SELECT 1 FROM pragma_index_list(?1) l JOIN pragma_index_info(l.name) i \
                   WHERE i.seqno = 0 AND NOT l.partial AND i.name = ?2 COLLATE NOCASE";
        for column in child.names(&key.columns).into_iter().flatten() {
            let names = (unquoted(&child.name), unquoted(column));
            let found = self.cx.head.prepare_cached(sql).and_then(|mut found| found.exists(names));
            if found.map_err(&failed)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Values so that those that SQL may take for equal are equal; none where one is NULL.
fn rough(columns: &[usize], values: &[SqlValue]) -> Option<String> {
    let found: Vec<&SqlValue> = columns.iter().filter_map(|at| values.get(*at)).collect();
    (!found.contains(&&SqlValue::Null)).then(|| rough_values(found.into_iter()))
}

fn rough_values<'v>(values: impl Iterator<Item = &'v SqlValue>) -> String {
    let one = |value: &SqlValue| match value {
        SqlValue::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes).trim().to_ascii_lowercase();
            text.parse::<f64>().map_or_else(|_| format!("{text:?};"), |number| format!("{number};"))
        }
        #[expect(clippy::cast_precision_loss, reason = "rough is enough")]
        SqlValue::Integer(number) => format!("{};", *number as f64),
        SqlValue::Real(number) => format!("{number};"),
        SqlValue::Null | SqlValue::Blob(_) => format!("{value:?};"),
    };
    values.map(one).collect()
}

struct Check<'a> {
    cx: &'a Context<'a>,
    tables: &'a [Table<'a>],
    table: &'a Table<'a>,
    change: &'a Change,
    children: &'a Children<'a>,
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

    fn leaves_orphans(&self) -> Step<Option<Rejection>> {
        let Some(head) = &self.change.pair.head else { return Ok(None) };
        for (at, child) in self.tables.iter().enumerate() {
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
                    || !self.children.point_to(at, key, &old)?
                    || self.exists(self.table.head.as_ref(), &key.parent_columns, &old, Side::Head)?
                    || self.device_has_orphans(at, child, key)?
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
    fn device_has_orphans(&self, at: usize, child: &Table<'_>, key: &ForeignKey) -> Step<bool> {
        let Some(own) = &self.change.pair.own_base else { return Ok(false) };
        let old: Vec<&SqlValue> = key.parent_columns.iter().filter_map(|at| own.values.get(*at)).collect();
        Ok(self.children.may_be_orphans(at, key, &old)?
            && self.exists(child.local.as_ref(), &key.columns, &old, Side::Local)?
            && !self.exists(self.table.local.as_ref(), &key.parent_columns, &old, Side::Local)?)
    }
}

fn rejection(columns: Vec<String>, why: String) -> Rejection {
    Rejection { kind: ConflictKind::ForeignKey, columns, other_key: Vec::new(), why }
}
