//! Which row of base, of local and of head are the same row.
//!
//! Only rows that local changed are looked at. A declared key is compared by SQL, with its collation. Where the
//! rowid is the identity but nobody declared it, VACUUM may have moved rows: they are followed on both sides
//! ([`follow`]).

use std::collections::{BTreeMap, HashMap, HashSet};

use highwater_ltx::planted;
use highwater_wire::SqlValue;

use crate::access::{Side, SideRow};
use crate::budget::size;
use crate::changes::RowKey;
use crate::error::Result;
use crate::follow::{Followed, follow};
use crate::ids::Ids;
use crate::refused::Refused;
use crate::table::{Context, Keys, Step, refuse};
use crate::tables::{Table, by_name, connection};

/// One row on the three sides. Ids in `base` and `local` are already those at the head.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) table: usize,
    pub(crate) base: Option<SideRow>,
    pub(crate) local: Option<SideRow>,
    pub(crate) head: Option<SideRow>,
    /// As they are on the device.
    pub(crate) own_base: Option<SideRow>,
    pub(crate) own_local: Option<SideRow>,
    /// The rowid that the row has, or should get, at the head.
    pub(crate) rowid: Option<i64>,
    /// The head's row that has the id that local gave to this one.
    pub(crate) taken: Option<SideRow>,
    /// Local inserted it, and it has another id at the head: the old id.
    pub(crate) renumbered: Option<i64>,
}

/// The row without what only its place says.
type Couple = (Option<SideRow>, Option<SideRow>);

/// All rows that local changed, table by table in the order of the plan.
pub(crate) fn gather(
    cx: &Context<'_>,
    tables: &[Table<'_>],
    refused: &Refused,
    ids: &mut Ids,
) -> Step<Vec<Pair>> {
    let mut found: Vec<Vec<Pair>> = vec![Vec::new(); tables.len()];
    for at in order(tables) {
        let Some(table) = tables.get(at) else { continue };
        let rows = of_table(cx, tables, at, refused, ids).map_err(|stop| by_name(stop, table.map.name()))?;
        if let Some(slot) = found.get_mut(at) {
            *slot = rows;
        }
    }
    // References may point to tables that came later.
    let mut pairs: Vec<Pair> = found.into_iter().flatten().collect();
    for pair in &mut pairs {
        if let (Some(own), Some(row)) = (&pair.own_local, &mut pair.local) {
            row.values.clone_from(&own.values);
            if let Some(table) = tables.get(pair.table) {
                table.as_at_head(cx, Side::Local, row)?;
            }
            ids.translate(tables, pair.table, row, Side::Local);
        }
    }
    Ok(pairs)
}

/// Tables whose keys hold ids of another table come after it; those that follow others silently come last.
fn order(tables: &[Table<'_>]) -> Vec<usize> {
    fn visit(tables: &[Table<'_>], at: usize, seen: &mut HashSet<usize>, order: &mut Vec<usize>) {
        let Some(table) = tables.get(at).filter(|_| seen.insert(at)) else { return };
        for (column, parent) in &table.links {
            if table.key.contains(column) || table.alias == Some(*column) {
                visit(tables, *parent, seen, order);
            }
        }
        order.push(at);
    }
    let (mut seen, mut order) = (HashSet::new(), Vec::new());
    let own = |at: &usize| tables.get(*at).is_some_and(|table| table.map.keys == Keys::OwnTree);
    let (first, last): (Vec<usize>, Vec<usize>) = (0..tables.len()).partition(own);
    for at in first.into_iter().chain(last) {
        visit(tables, at, &mut seen, &mut order);
    }
    order
}

fn of_table(
    cx: &Context<'_>,
    tables: &[Table<'_>],
    at: usize,
    refused: &Refused,
    ids: &mut Ids,
) -> Step<Vec<Pair>> {
    let Some(table) = tables.get(at).filter(|table| table.local.is_some()) else { return Ok(Vec::new()) };
    let mut keys: Vec<RowKey> = match &table.map.keys {
        Keys::OwnTree => cx.changes.local(table.map.base.as_deref(), table.map.local.as_deref())?,
        Keys::Given(rowids) => rowids.iter().copied().map(RowKey::Rowid).collect(),
    };
    if !refused.keys(at).is_empty() {
        let there: HashSet<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        keys.extend(refused.keys(at).iter().filter(|key| !there.contains(&format!("{key:?}"))).cloned());
    }
    let known = |row: &SideRow| !refused.has(at, table, row);
    let (couples, moves) = if table.keyless() {
        without_key(cx, table, at, keys, known, ids)?
    } else if table.key.is_empty() {
        (by_rowid(cx, table, &keys, known)?, Moves::default())
    } else {
        (by_key(cx, table, &keys, known)?, Moves::default())
    };
    let mut pairs = Vec::new();
    let mut claimed = HashSet::new();
    for (base, local) in couples {
        cx.budget.go_on()?;
        let mut pair = Pair {
            table: at,
            own_base: base.clone(),
            own_local: local.clone(),
            base,
            local,
            head: None,
            rowid: None,
            taken: None,
            renumbered: None,
        };
        if let Some(row) = &mut pair.base {
            table.as_at_head(cx, Side::Base, row)?;
            ids.translate(tables, at, row, Side::Base);
        }
        if let Some(row) = &mut pair.local {
            table.as_at_head(cx, Side::Local, row)?;
            ids.translate(tables, at, row, Side::Local);
        }
        place(cx, tables, at, ids, &moves, &mut pair)?;
        // Two rows of local may have keys that only the head's collation takes for one: the second is a new row.
        if let Some(row) = &pair.head
            && !claimed.insert(format!("{:?} {:?}", row.rowid, key_of(table, row)))
        {
            pair.head = None;
        }
        // The other copies of a row: as it was on the device, as it is at the head, and as it is to be.
        let copies = [&pair.own_base, &pair.own_local, &pair.local, &pair.head];
        cx.budget.take(copies.into_iter().flatten().map(size).sum())?;
        pairs.push(pair);
    }
    Ok(pairs)
}

/// Finds the row at the head, and the id that the row has there.
fn place(
    cx: &Context<'_>,
    tables: &[Table<'_>],
    at: usize,
    ids: &mut Ids,
    moves: &Moves,
    pair: &mut Pair,
) -> Step<()> {
    let Some((table, head)) = tables.get(at).and_then(|table| Some((table, table.head.as_ref()?))) else {
        return Ok(());
    };
    let key = pair.base.as_ref().or(pair.local.as_ref()).and_then(|row| key_of(table, row));
    if let Some(key) = key {
        pair.head = head.by_values(cx.head, &table.key, &key)?;
        pair.rowid = pair.head.as_ref().or(pair.local.as_ref()).and_then(|row| row.rowid);
        return Ok(());
    }
    if head.rowid.is_none() {
        return Err(refuse(table.map.name(), "rows without a key have no place in a WITHOUT ROWID table"));
    }
    if let Some(row) = &pair.own_base {
        let Some(id) = id_of(table, row) else { return Ok(()) };
        let to = if table.keyless() { moves.of(id) } else { Some(ids.of_base(at, id).unwrap_or(id)) };
        if let Some(to) = to {
            let row = head.by_rowid(cx.head, to)?;
            pair.head = row.filter(|row| table.key.is_empty() || key_of(table, row).is_none());
            pair.rowid = Some(to);
        }
        // A row without a key that the head deleted is one like a new one, if local still has it.
        if to.is_some() || pair.own_local.is_none() {
            return Ok(());
        }
    }
    let Some(from) = pair.own_local.as_ref().and_then(|row| id_of(table, row)) else { return Ok(()) };
    // An id that is a foreign key follows what it points to.
    let parent = table.links.iter().find(|(column, _)| Some(*column) == table.alias);
    let mut to = parent.and_then(|(_, parent)| ids.of_local(*parent, from)).unwrap_or(from);
    let taken = head.by_rowid(cx.head, to)?;
    let companion = if table.map.keys == Keys::OwnTree { None } else { ids.companion(from) };
    let follows = companion.is_some() && ids.has_one_owner(cx, tables, from)?;
    let same = |taken: &SideRow| pair.local.as_ref().is_some_and(|local| local.values == taken.values);
    if taken.is_some() && (table.shares_id() || planted("taken-id-overwritten"))
        || cx.doubt && taken.as_ref().is_some_and(same)
    {
        pair.head = taken;
    } else if taken.is_some() || follows {
        to = match companion {
            Some(id) if ids.is_free(cx, at, table, id)? => id,
            _ if taken.is_none() => to,
            _ => ids.free(cx, at, table)?,
        };
        pair.taken = taken;
    }
    pair.rowid = Some(to);
    if to != from {
        ids.insert(at, from, to);
        pair.renumbered = Some(from);
    }
    Ok(())
}

/// The declared key of a row, if it has one without NULL.
pub(crate) fn key_of(table: &Table<'_>, row: &SideRow) -> Option<Vec<SqlValue>> {
    if table.key.is_empty() {
        return None;
    }
    let known = |at: &usize| row.values.get(*at).filter(|value| **value != SqlValue::Null).cloned();
    table.key.iter().map(known).collect()
}

/// The id of a row where the rowid is the identity.
fn id_of(table: &Table<'_>, row: &SideRow) -> Option<i64> {
    match table.alias.and_then(|alias| row.values.get(alias)) {
        Some(SqlValue::Integer(id)) => Some(*id),
        _ => row.rowid,
    }
}

fn read(cx: &Context<'_>, table: &Table<'_>, side: Side, keys: &[RowKey]) -> Step<Vec<SideRow>> {
    let mut rows = Vec::new();
    if let Some(access) = table.on(side) {
        for key in keys {
            cx.budget.go_on()?;
            let row = access.by_tree(connection(cx, side), key)?;
            cx.budget.take(row.as_ref().map_or(0, size))?;
            rows.extend(row);
        }
    }
    Ok(rows)
}

fn by_rowid(
    cx: &Context<'_>,
    table: &Table<'_>,
    keys: &[RowKey],
    known: impl Fn(&SideRow) -> bool,
) -> Step<Vec<Couple>> {
    let mut base = read(cx, table, Side::Base, keys)?;
    base.retain(&known);
    let mut couples: BTreeMap<Option<i64>, Couple> = BTreeMap::new();
    for row in base {
        let id = id_of(table, &row);
        couples.entry(id).or_default().0 = Some(row);
    }
    for row in read(cx, table, Side::Local, keys)? {
        let id = id_of(table, &row);
        couples.entry(id).or_default().1 = Some(row);
    }
    Ok(couples.into_values().collect())
}

impl Table<'_> {
    /// Whether base and that side both have the column.
    fn shared(&self, column: usize, side: Side) -> bool {
        let has = |side| self.on(side).and_then(|access| access.columns.get(column)?.as_ref()).is_some();
        has(Side::Base) && has(side)
    }
}

/// Where rows of a table without any key are at the head, which are not where they were or should be; none: nowhere.
#[derive(Debug, Default)]
struct Moves(HashMap<i64, Option<i64>>);

impl Moves {
    fn of(&self, base: i64) -> Option<i64> {
        self.0.get(&base).copied().unwrap_or(Some(base))
    }
}

/// Rows of a table without any key.
fn without_key(
    cx: &Context<'_>,
    table: &Table<'_>,
    at: usize,
    keys: Vec<RowKey>,
    known: impl Fn(&SideRow) -> bool,
    ids: &mut Ids,
) -> Step<(Vec<Couple>, Moves)> {
    if keys.is_empty() && ids.of_table(at).next().is_none() {
        return Ok(<_>::default());
    }
    let local = Both::read(cx, table, Side::Local, keys, &known, &|id| id, &[])?;
    let keys = cx.changes.head(table.map.base.as_deref(), table.map.old_head.as_deref())?;
    let given: Vec<(i64, i64)> = ids.of_table(at).collect();
    let place = |id| ids.of_base(at, id).unwrap_or(id);
    let head = Both::read(cx, table, Side::Head, keys, &known, &place, &given)?;
    let mut moves = Moves(head.old.iter().filter_map(|row| Some((row.rowid?, None))).collect());
    let moved = head.rowids(&head.found.same).chain(head.rowids(&head.found.changed));
    moves.0.extend(moved.map(|(from, to)| (from, Some(to))));
    let of_head: HashSet<i64> = head.rowids(&head.found.changed).map(|(from, _)| from).collect();

    // Where the next merge of the device finds its rows. Those that are equal are found by that.
    let there: HashSet<i64> = local.old.iter().filter_map(|row| row.rowid).collect();
    let stayed = given.iter().map(|(from, _)| (*from, *from)).filter(|(from, _)| !there.contains(from));
    let unchanged = local
        .rowids(&local.found.same)
        .filter(|(from, _)| of_head.contains(from) || ids.of_base(at, *from).is_some());
    let rows = stayed.chain(unchanged).chain(local.rowids(&local.found.changed));
    let followed: Vec<(i64, i64)> = rows.filter_map(|(from, to)| Some((to, moves.of(from)?))).collect();
    ids.follow(at, followed.into_iter().filter(|(from, to)| from != to));
    Ok((local.couples(), moves))
}

/// Rows of a table without any key in the base and on another side, those that differ.
struct Both {
    old: Vec<SideRow>,
    new: Vec<SideRow>,
    found: Followed,
}

impl Both {
    /// Reads rows with these keys, and those whose ids are known to be `given` in exchange for others.
    fn read(
        cx: &Context<'_>,
        table: &Table<'_>,
        side: Side,
        mut keys: Vec<RowKey>,
        known: &impl Fn(&SideRow) -> bool,
        place: &dyn Fn(i64) -> i64,
        given: &[(i64, i64)],
    ) -> Step<Self> {
        let last = table.base.as_ref().map(|base| base.max_rowid(cx.base)).transpose()?;
        let may_move = last.is_some_and(|last| keys.contains(&RowKey::Rowid(last)));
        keys.extend(given.iter().flat_map(|(from, to)| [*from, *to]).map(RowKey::Rowid));
        let rowid = |key: &RowKey| if let RowKey::Rowid(id) = key { Some(*id) } else { None };
        keys.sort_by_key(rowid);
        keys.dedup();
        let mut old = read(cx, table, Side::Base, &keys)?;
        old.retain(known);
        let new = read(cx, table, side, &keys)?;
        let columns: Vec<usize> = (0..table.map.columns.len()).filter(|at| table.shared(*at, side)).collect();
        let stored = |side: Side, rows: &[SideRow]| -> Result<Vec<SideRow>> {
            let mut rows = rows.to_vec();
            rows.iter_mut().try_for_each(|row| table.as_at_head(cx, side, row))?;
            Ok(rows)
        };
        let found = follow(&stored(Side::Base, &old)?, &stored(side, &new)?, &columns, place, may_move);
        Ok(Self { old, new, found })
    }

    fn rowids<'a>(&'a self, pairs: &'a [(usize, usize)]) -> impl Iterator<Item = (i64, i64)> + 'a {
        let rowid = |rows: &[SideRow], at: usize| rows.get(at).and_then(|row| row.rowid);
        pairs.iter().filter_map(move |(from, to)| Some((rowid(&self.old, *from)?, rowid(&self.new, *to)?)))
    }

    /// The rows that were changed, deleted or inserted, in the order of their ids in the base.
    fn couples(self) -> Vec<Couple> {
        let mut old: Vec<Option<SideRow>> = self.old.into_iter().map(Some).collect();
        let mut new: Vec<Option<SideRow>> = self.new.into_iter().map(Some).collect();
        for (from, to) in self.found.same {
            drop((take(&mut old, from), take(&mut new, to)));
        }
        let mut couples: Vec<(usize, Couple)> = Vec::new();
        for (from, to) in self.found.changed {
            couples.push((from, (take(&mut old, from), take(&mut new, to))));
        }
        couples.extend(old.into_iter().enumerate().filter_map(|(at, row)| Some((at, (Some(row?), None)))));
        couples.sort_by_key(|(at, _)| *at);
        let inserted = new.into_iter().flatten().map(|row| (None, Some(row)));
        couples.into_iter().map(|(_, couple)| couple).chain(inserted).collect()
    }
}

fn take(rows: &mut [Option<SideRow>], at: usize) -> Option<SideRow> {
    rows.get_mut(at).and_then(Option::take)
}

fn by_key(
    cx: &Context<'_>,
    table: &Table<'_>,
    keys: &[RowKey],
    known: impl Fn(&SideRow) -> bool,
) -> Step<Vec<Couple>> {
    let mut base = read(cx, table, Side::Base, keys)?;
    base.retain(&known);
    let local = read(cx, table, Side::Local, keys)?;
    let tree = |side: Side, row: &SideRow| match row.rowid {
        Some(rowid) => format!("{rowid}"),
        None => format!(
            "{:?}",
            table.on(side).map(|access| access.key.iter().map(|at| row.values.get(*at)).collect::<Vec<_>>())
        ),
    };
    let counterpart = |side: Side, row: &SideRow| -> Step<Option<SideRow>> {
        let Some(access) = table.on(side) else { return Ok(None) };
        Ok(match (key_of(table, row), row.rowid) {
            (Some(key), _) => access.by_values(connection(cx, side), &table.key, &key)?,
            // Without a key it is the rowid, as in tables that declare none.
            (None, Some(rowid)) => {
                access.by_rowid(connection(cx, side), rowid)?.filter(|other| key_of(table, other).is_none())
            }
            (None, None) => None,
        })
    };
    let mut couples = Vec::new();
    let mut seen = HashSet::new();
    for row in base {
        // Two keys that SQL takes for one find the same row.
        if !seen.insert(tree(Side::Base, &row)) {
            continue;
        }
        let other = counterpart(Side::Local, &row)?;
        couples.push((Some(row), other));
    }
    let mut seen_local = HashSet::new();
    for row in local {
        if !seen_local.insert(tree(Side::Local, &row)) {
            continue;
        }
        let other = counterpart(Side::Base, &row)?.filter(&known);
        if other.as_ref().is_none_or(|other| !seen.contains(&tree(Side::Base, other))) {
            couples.push((other, Some(row)));
        }
    }
    Ok(couples)
}
