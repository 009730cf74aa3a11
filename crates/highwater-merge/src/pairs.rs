//! Which row of base, of local and of head are the same row.
//!
//! Only rows that local changed are looked at. A declared key is compared by SQL, with its collation. Where the
//! rowid is the identity but nobody declared it, rows that only moved (VACUUM may do that) are matched by content
//! first, as a multiset, on both sides.

use std::collections::{BTreeMap, HashMap, HashSet};

use highwater_wire::SqlValue;

use crate::access::{Side, SideRow};
use crate::changes::RowKey;
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
    let couples = if table.key.is_empty() {
        by_rowid(cx, table, &keys, known)?
    } else {
        by_key(cx, table, &keys, known)?
    };
    let moves =
        if table.keyless() && !couples.is_empty() { moves(cx, table, known)? } else { Moves::default() };
    let mut pairs = Vec::new();
    let mut claimed = HashSet::new();
    for (base, local) in couples {
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
            ids.translate(tables, at, row, Side::Base);
        }
        if let Some(row) = &mut pair.local {
            ids.translate(tables, at, row, Side::Local);
        }
        place(cx, at, table, ids, &moves, &mut pair)?;
        // Two rows of local may have keys that only the head's collation takes for one: the second is a new row.
        if let Some(row) = &pair.head
            && !claimed.insert(format!("{:?} {:?}", row.rowid, key_of(table, row)))
        {
            pair.head = None;
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// Finds the row at the head, and the id that the row has there.
fn place(
    cx: &Context<'_>,
    at: usize,
    table: &Table<'_>,
    ids: &mut Ids,
    moves: &Moves,
    pair: &mut Pair,
) -> Step<()> {
    let Some(head) = &table.head else { return Ok(()) };
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
        let followed = moves.of(id).or_else(|| ids.of_base(at, id));
        let mut to = followed.unwrap_or(id);
        // The rowid of a row that the head deleted may be another row's now: one that moved, or one with a key.
        if followed.is_none() && moves.is_taken(to) {
            if pair.own_local.is_some() {
                to = ids.free(cx, at, table)?;
                ids.insert(at, id, to);
                pair.renumbered = Some(id);
            }
        } else {
            let row = head.by_rowid(cx.head, to)?;
            pair.head = row.filter(|row| table.key.is_empty() || key_of(table, row).is_none());
        }
        pair.rowid = Some(to);
        return Ok(());
    }
    let Some(from) = pair.own_local.as_ref().and_then(|row| id_of(table, row)) else { return Ok(()) };
    // An id that is a foreign key follows what it points to.
    let parent = table.links.iter().find(|(column, _)| Some(*column) == table.alias);
    let mut to = parent.and_then(|(_, parent)| ids.of_local(*parent, from)).unwrap_or(from);
    let taken = head.by_rowid(cx.head, to)?;
    if taken.is_some() && table.shares_id() {
        pair.head = taken;
    } else if taken.is_some() {
        let companion = if table.map.keys == Keys::OwnTree { None } else { ids.companion(from) };
        to = match companion {
            Some(id) if head.by_rowid(cx.head, id)?.is_none() => id,
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
            rows.extend(access.by_tree(connection(cx, side), key)?);
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
    let mut local = read(cx, table, Side::Local, keys)?;
    if table.keyless() {
        let moved = same_content(&base, &local, |at| table.shared(at, Side::Local));
        let (gone, come): (HashSet<usize>, HashSet<usize>) = moved.into_iter().unzip();
        base = without(base, &gone);
        local = without(local, &come);
    }
    let mut couples: BTreeMap<Option<i64>, Couple> = BTreeMap::new();
    for row in base {
        let id = id_of(table, &row);
        couples.entry(id).or_default().0 = Some(row);
    }
    for row in local {
        let id = id_of(table, &row);
        couples.entry(id).or_default().1 = Some(row);
    }
    let couples = couples.into_values().flat_map(|couple| match couple {
        // Where rows have no name, VACUUM gives one row the place of another. What has nothing in common with the
        // row that stood there is a row of its own.
        (Some(base), Some(local))
            if table.keyless() && !alike(&base, &local, |at| table.shared(at, Side::Local)) =>
        {
            vec![(Some(base), None), (None, Some(local))]
        }
        couple => vec![couple],
    });
    Ok(couples.collect())
}

/// Whether two rows may be one that was changed: of several columns, some value stayed.
fn alike(one: &SideRow, two: &SideRow, compared: impl Fn(usize) -> bool) -> bool {
    let columns = one.values.iter().zip(&two.values).enumerate().filter(|(at, _)| compared(*at));
    let columns: Vec<_> = columns.map(|(_, values)| values).collect();
    columns.len() < 2 || columns.iter().any(|(one, two)| one == two && **one != SqlValue::Null)
}

fn without(rows: Vec<SideRow>, gone: &HashSet<usize>) -> Vec<SideRow> {
    rows.into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, row)| row).collect()
}

/// Matches equal rows of two lists, each at most once: (index, index). Those that stayed in place first.
fn same_content(one: &[SideRow], two: &[SideRow], compared: impl Fn(usize) -> bool) -> Vec<(usize, usize)> {
    let content = |row: &SideRow| -> String {
        let values = row.values.iter().enumerate().filter(|(at, _)| compared(*at));
        // As debugging output: it tells storage classes and all bytes apart.
        values.map(|(_, value)| format!("{value:?};")).collect()
    };
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, row) in two.iter().enumerate().rev() {
        places.entry(content(row)).or_default().push(at);
    }
    let mut found = Vec::new();
    for (at, row) in one.iter().enumerate() {
        if let Some(open) = places.get_mut(&content(row)) {
            let stayed =
                open.iter().rposition(|place| two.get(*place).is_some_and(|other| other.rowid == row.rowid));
            let place = stayed.map(|place| open.remove(place)).or_else(|| open.pop());
            found.extend(place.map(|place| (at, place)));
        }
    }
    found
}

impl Table<'_> {
    /// Whether base and that side both have the column.
    fn shared(&self, column: usize, side: Side) -> bool {
        let has = |side| self.on(side).and_then(|access| access.columns.get(column)?.as_ref()).is_some();
        has(Side::Base) && has(side)
    }
}

/// Where rows of a table without any key went at the head: from base's rowid to the head's.
#[derive(Debug, Default)]
struct Moves {
    to: HashMap<i64, i64>,
    places: HashSet<i64>,
}

impl Moves {
    fn of(&self, base: i64) -> Option<i64> {
        self.to.get(&base).copied()
    }

    /// Whether a row of the base is known to be there.
    fn is_taken(&self, rowid: i64) -> bool {
        self.places.contains(&rowid)
    }
}

/// Finds them by their content.
fn moves(cx: &Context<'_>, table: &Table<'_>, known: impl Fn(&SideRow) -> bool) -> Step<Moves> {
    let keys = cx.changes.head(table.map.base.as_deref(), table.map.old_head.as_deref())?;
    let mut base = read(cx, table, Side::Base, &keys)?;
    base.retain(known);
    let head = read(cx, table, Side::Head, &keys)?;
    let same = same_content(&base, &head, |at| table.shared(at, Side::Head));
    let rowid = |rows: &[SideRow], at: usize| rows.get(at).and_then(|row| row.rowid);
    let to: HashMap<i64, i64> =
        same.into_iter().filter_map(|(from, to)| Some((rowid(&base, from)?, rowid(&head, to)?))).collect();
    Ok(Moves { places: to.values().copied().collect(), to })
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
