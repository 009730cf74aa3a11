//! Which rows of a table without any key are the same on two sides.
//!
//! Their rowid is all that names them, and VACUUM may number them anew: all that stand behind a gap, in their order.
//! So, in this order:
//!
//! 1. rows with the same content are the same, as a multiset, first those that stayed in place,
//! 2. where such rows moved, or rows came to where there was a gap, and the last row did not stay (there was a VACUUM),
//!    rows that share a value which no other row has on either side are the same, if they stand between the same rows,
//! 3. rows in the same place are the same if they have something in common and no row before them moved.
//!
//! What is left was deleted on the one side and inserted on the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use highwater_wire::SqlValue;

use crate::access::SideRow;

/// The rows that were found again, as indexes: (old, new).
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// Those that nobody changed.
    pub(crate) same: Vec<(usize, usize)>,
    /// Those that were changed.
    pub(crate) changed: Vec<(usize, usize)>,
}

/// Finds the old rows among the new ones, both in the order of their rowids. `compared` are the columns that both
/// have; `place` says where an old row is if nothing moved it; `may_move`: the last row is one of them.
pub(crate) fn follow(
    old: &[SideRow],
    new: &[SideRow],
    compared: &[usize],
    place: impl Fn(i64) -> i64,
    may_move: bool,
) -> Followed {
    let places = old.iter().map(|row| row.rowid.map(&place)).collect();
    let mut search = Search { old, new, compared, places, to: BTreeMap::new(), from: BTreeMap::new() };
    search.equal();
    // A column that only the new side has may have been filled.
    let plain = |to: &usize| new.get(*to).is_some_and(|row| row.default.iter().all(|default| *default));
    let (same, mut changed): (Vec<_>, Vec<_>) = search.pairs().partition(|(_, to)| plain(to));
    let equal = search.to.clone();
    let moved =
        if may_move { search.first_moved().into_iter().chain(search.first_gap()).min() } else { None };
    if moved.is_some() {
        search.by_own_values();
    }
    search.in_place(moved);
    changed.extend(search.pairs().filter(|(from, _)| !equal.contains_key(from)));
    Followed { same, changed }
}

struct Search<'a> {
    old: &'a [SideRow],
    new: &'a [SideRow],
    compared: &'a [usize],
    places: Vec<Option<i64>>,
    /// What was found: from old to new, and back.
    to: BTreeMap<usize, usize>,
    from: BTreeMap<usize, usize>,
}

impl Search<'_> {
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        self.to.iter().map(|(from, to)| (*from, *to))
    }

    fn pair(&mut self, from: usize, to: usize) {
        self.to.insert(from, to);
        self.from.insert(to, from);
    }

    fn place(&self, from: usize) -> Option<i64> {
        self.places.get(from).copied().flatten()
    }

    fn rowid(&self, to: usize) -> Option<i64> {
        self.new.get(to).and_then(|row| row.rowid)
    }

    fn open_old(&self) -> Vec<usize> {
        (0..self.old.len()).filter(|from| !self.to.contains_key(from)).collect()
    }

    /// Rows with the same content.
    fn equal(&mut self) {
        let content = |row: &SideRow| -> String {
            let values = self.compared.iter().filter_map(|at| row.values.get(*at));
            // As debugging output: it tells storage classes and all bytes apart.
            values.map(|value| format!("{value:?};")).collect()
        };
        let mut by_content: HashMap<String, (Vec<usize>, Vec<usize>)> = HashMap::new();
        for (from, row) in self.old.iter().enumerate() {
            by_content.entry(content(row)).or_default().0.push(from);
        }
        for (to, row) in self.new.iter().enumerate() {
            by_content.entry(content(row)).or_default().1.push(to);
        }
        for (olds, news) in by_content.into_values() {
            let mut places: HashMap<i64, usize> =
                news.iter().filter_map(|to| Some((self.rowid(*to)?, *to))).collect();
            for from in &olds {
                if let Some(to) = self.place(*from).and_then(|place| places.remove(&place)) {
                    self.pair(*from, to);
                }
            }
            let left: Vec<usize> = olds.into_iter().filter(|from| !self.to.contains_key(from)).collect();
            let free: Vec<usize> = news.into_iter().filter(|to| !self.from.contains_key(to)).collect();
            for (from, to) in left.into_iter().zip(free) {
                self.pair(from, to);
            }
        }
    }

    /// The place of the first row that is in another one now.
    fn first_moved(&self) -> Option<i64> {
        let moved = self.pairs().filter_map(|(from, to)| {
            let (place, now) = (self.place(from)?, self.rowid(to)?);
            (now != place).then_some(place)
        });
        moved.min()
    }

    /// The first place before the last row where there was none and one is now. New rows come behind the last one, and
    /// those of others in between only where an earlier merge gave it another id.
    fn first_gap(&self) -> Option<i64> {
        let places: BTreeSet<i64> = self.places.iter().copied().flatten().collect();
        let rowids: BTreeSet<i64> = self.old.iter().filter_map(|row| row.rowid).collect();
        let last = (*places.last()?).min(*rowids.last()?);
        let new = self.new.iter().filter_map(|row| row.rowid);
        new.filter(|place| *place < last && !places.contains(place) && !rowids.contains(place)).min()
    }

    /// Rows that share values which no other row has.
    fn by_own_values(&mut self) {
        let mut votes: BTreeMap<(usize, usize), ()> = BTreeMap::new();
        for column in self.compared {
            let (mut olds, mut news) = (owners(self.old, *column), owners(self.new, *column));
            for (value, from) in olds.drain() {
                if let (Some(from), Some(Some(to))) = (from, news.remove(&value)) {
                    votes.insert((from, to), ());
                }
            }
        }
        let mut count: (HashMap<usize, usize>, HashMap<usize, usize>) = Default::default();
        for (from, to) in votes.keys() {
            *count.0.entry(*from).or_default() += 1;
            *count.1.entry(*to).or_default() += 1;
        }
        let anchors = self.to.clone();
        for (from, to) in votes.into_keys() {
            let open = !self.to.contains_key(&from) && !self.from.contains_key(&to);
            let agreed = count.0.get(&from) == Some(&1) && count.1.get(&to) == Some(&1);
            let before = anchors.range(..from).next_back().is_none_or(|(_, before)| *before < to);
            let after = anchors.range(from..).next().is_none_or(|(_, after)| *after > to);
            if open && agreed && before && after {
                self.pair(from, to);
            }
        }
    }

    /// Rows that stayed where they were.
    fn in_place(&mut self, moved: Option<i64>) {
        let places: HashMap<i64, usize> =
            (0..self.new.len()).filter_map(|to| Some((self.rowid(to)?, to))).collect();
        for from in self.open_old() {
            let place = self.place(from).filter(|place| moved.is_none_or(|moved| *place < moved));
            let Some(to) = place.and_then(|place| places.get(&place).copied()) else { continue };
            let pair = self.old.get(from).zip(self.new.get(to));
            if !self.from.contains_key(&to) && pair.is_some_and(|(one, two)| self.alike(one, two)) {
                self.pair(from, to);
            }
        }
    }

    /// Whether two rows may be one that was changed: of several columns, some value stayed.
    fn alike(&self, one: &SideRow, two: &SideRow) -> bool {
        let stayed = |at: &usize| {
            let (one, two) = (one.values.get(*at), two.values.get(*at));
            one == two && one != Some(&SqlValue::Null)
        };
        self.compared.len() < 2 || self.compared.iter().any(stayed)
    }
}

/// Which row has which value; none if several have it.
fn owners(rows: &[SideRow], column: usize) -> HashMap<String, Option<usize>> {
    let mut owners = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        if let Some(value) = row.values.get(column).filter(|value| **value != SqlValue::Null) {
            owners.entry(format!("{value:?}")).and_modify(|owner| *owner = None).or_insert(Some(at));
        }
    }
    owners
}
