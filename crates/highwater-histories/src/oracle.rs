//! What a merge may come to, told from the rows alone: a second opinion, which shares nothing with the engine.
//!
//! For every row of base, local, head and result it says whether the result is one of those that the rules allow, and
//! what must stand in a record for it to be allowed ([`Debt`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::contents::{Contents, Row, Table, level_defaults, tokens};
use crate::schema::{family, is_keyless};

/// The four states of one merge.
#[derive(Debug, Clone, Copy)]
pub struct Merge<'a> {
    /// What the device's rows were when the server last took them in.
    pub base: &'a Contents,
    /// What they are now.
    pub local: &'a Contents,
    /// What the server had.
    pub head: &'a Contents,
    /// What it has now.
    pub result: &'a Contents,
    /// Whether the device's value wins where only one can stay.
    pub last_wins: bool,
    /// Whether rows without a key may have been numbered anew.
    pub vacuumed: bool,
    /// Rows that the device has, and that earlier merges did not apply: they are tried again. `TABLE KEY`.
    pub refused: &'a BTreeSet<String>,
}

/// Something that is not in the result: one of these words must be in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debt {
    /// Tokens, or `schema NAME`.
    pub any_of: BTreeSet<String>,
    /// For people.
    pub why: String,
    /// The row, if it was not applied: see [`Merge::refused`].
    pub refused: Option<String>,
}

static EMPTY: Table = Table {
    columns: BTreeSet::new(),
    with_default: BTreeSet::new(),
    rows: BTreeMap::new(),
    ids: BTreeMap::new(),
    doubles: BTreeSet::new(),
};

impl Merge<'_> {
    /// What the records must say; an error when no record can excuse the result.
    ///
    /// # Errors
    /// A sentence with the rows.
    pub fn check(&self) -> Result<Vec<Debt>, String> {
        let (renames, twice) = self.renames();
        if renames.is_empty() {
            return self.check_tables(&twice);
        }
        // A table with a new name is the same table, if the server saw that; else it was dropped and another one made.
        let [base, local, head, result] = [self.base, self.local, self.head, self.result].map(|side| {
            let mut side = side.clone();
            for (old, new) in &renames {
                if let Some(table) = side.tables.remove(old) {
                    side.tables.entry(new.clone()).or_insert(table);
                }
            }
            side
        });
        let renamed = Merge { base: &base, local: &local, head: &head, result: &result, ..*self };
        renamed.check_tables(&twice).or_else(|_| self.check_tables(&twice))
    }

    /// Tables that one side renamed, and those that both did.
    fn renames(&self) -> (Vec<(String, String)>, BTreeSet<String>) {
        let (mut renames, mut twice) = (Vec::new(), BTreeSet::new());
        for (old, table) in &self.base.tables {
            let of = |side: &Contents| {
                let gone = !side.tables.contains_key(old);
                let same = |(name, new): &(&String, &Table)| {
                    let shared =
                        table.rows.is_empty() || new.rows.keys().any(|key| table.rows.contains_key(key));
                    shared && name.starts_with('y') && !self.base.tables.contains_key(*name)
                };
                side.tables.iter().find(|pair| gone && same(pair)).map(|(name, _)| name.clone())
            };
            match (of(self.local), of(self.head)) {
                (Some(ours), Some(theirs)) if ours != theirs => twice.extend([old.clone(), ours, theirs]),
                (Some(new), _) | (_, Some(new)) => renames.push((old.clone(), new)),
                (None, None) => {}
            }
        }
        (renames, twice)
    }

    fn check_tables(&self, skipped: &BTreeSet<String>) -> Result<Vec<Debt>, String> {
        let mut debts = Vec::new();
        let names: BTreeSet<&String> = [self.base, self.local, self.head, self.result]
            .iter()
            .flat_map(|side| side.tables.keys())
            .collect();
        for name in names.into_iter().filter(|name| !skipped.contains(*name)) {
            match self.table(name) {
                Ok(found) => debts.extend(found),
                Err(error) if self.vacuumed && is_keyless(name) => {
                    let [base, local, head, result] =
                        [self.base, self.local, self.head, self.result].map(|side| side.by_content(name));
                    let merge = Merge { base: &base, local: &local, head: &head, result: &result, ..*self };
                    // Of rows that VACUUM moved and both sides changed nobody can tell which is which.
                    let found = merge.table(name).or_else(|_| self.nothing_lost_of(name));
                    debts.extend(found.map_err(|other| format!("{error}\nand {other}"))?);
                }
                Err(error) => return Err(error),
            }
        }
        self.schema()?;
        Ok(debts)
    }

    /// A definition in the result is one of the head's or one of the device's.
    fn schema(&self) -> Result<(), String> {
        for (name, sql) in &self.result.schema {
            if name.contains(" sqlite_") {
                continue;
            }
            let from = [self.head, self.local].iter().any(|side| side.schema.contains_key(name));
            if !from {
                return Err(format!("nobody defined {name}: {sql}"));
            }
        }
        let plain = |sql: Option<&String>| sql.map(|sql| sql.replace('"', ""));
        for (name, sql) in &self.head.schema {
            let theirs_only = self.base.schema.get(name) == self.local.schema.get(name);
            if theirs_only
                && plain(self.result.schema.get(name)) != plain(Some(sql))
                && !self.may_depend(name)
            {
                return Err(format!(
                    "{name} is not the head's: {sql}, but {:?}",
                    self.result.schema.get(name)
                ));
            }
        }
        for (name, sql) in &self.local.schema {
            let ours_only = self.base.schema.get(name) == self.head.schema.get(name);
            if ours_only && plain(self.result.schema.get(name)) != plain(Some(sql)) && !self.may_depend(name)
            {
                return Err(format!(
                    "{name} is not the device's: {sql}, but {:?}",
                    self.result.schema.get(name)
                ));
            }
        }
        Ok(())
    }

    /// What goes when its table goes or changes; indexes of SQLite's own; the space where columns were added.
    fn may_depend(&self, name: &str) -> bool {
        let tables_differ = self.base.tables.keys().ne(self.result.tables.keys());
        name.contains(" sqlite_")
            || name.starts_with("index ix_")
            || name.starts_with("view ")
            || tables_differ
    }

    fn table(&self, name: &str) -> Result<Vec<Debt>, String> {
        let side = |contents: &'_ Contents| contents.tables.get(name).cloned();
        let mut sides = [side(self.base), side(self.local), side(self.head), side(self.result)];
        level_defaults(&mut sides);
        let [base, local, head, result] = sides;
        if let Some(double) = result.as_ref().and_then(|table| table.doubles.first()) {
            return Err(format!("{name}: the row {double} is there twice"));
        }
        let gone = (local.is_none(), head.is_none(), result.is_none());
        let [base, local, head] = [base, local, head].map(|side| side.unwrap_or_else(|| EMPTY.clone()));
        let mut rows =
            TableMerge { merge: self, name, base: &base, local: &local, head: &head, debts: Vec::new() };
        match (result, gone) {
            (None, (false, false, _)) => return Err(format!("{name} is gone, and nobody dropped it")),
            (None, _) => rows.all_changes("its table is gone"),
            // The definition of the head stays, and with it the rows.
            (Some(result), (true, false, _)) if !base.columns.is_empty() => {
                if result.rows != head.rows {
                    return Err(format!(
                        "{name} was dropped by the device, is still there, and is not the head's"
                    ));
                }
                rows.owe([format!("schema {name}")].into(), "the DROP was not done");
            }
            (Some(result), _) => {
                let keys: BTreeSet<&String> =
                    [&base, &local, &head, &result].iter().flat_map(|side| side.rows.keys()).collect();
                let mixed = self.mixed(name);
                for key in keys.into_iter().filter(|key| !mixed.contains(*key)) {
                    rows.row(key, &result)?;
                }
            }
        }
        Ok(rows.debts)
    }

    /// Rows whose id was given to another row after they were deleted: for a merge, which goes by ids, they are one. And
    /// those that point to them.
    fn mixed(&self, name: &str) -> BTreeSet<String> {
        let side = |contents: &Contents, name: &str| contents.tables.get(name).cloned().unwrap_or_default();
        let sides = |name: &str| [self.base, self.local, self.head].map(|contents| side(contents, name));
        let of_table = |name: &str| {
            let [base, local, head] = sides(name);
            let mut mixed = BTreeSet::new();
            for (id, old) in &base.ids {
                for side in [&local, &head] {
                    if side.ids.get(id).is_some_and(|new| new != old) && !side.rows.contains_key(old) {
                        mixed.extend(
                            [&base, &local, &head].iter().filter_map(|side| side.ids.get(id)).cloned(),
                        );
                    }
                }
            }
            mixed
        };
        let mut mixed = of_table(name);
        let around: BTreeSet<String> = family(name).iter().flat_map(|table| of_table(table)).collect();
        for side in sides(name) {
            for (key, row) in &side.rows {
                let points = |value: &String| value.strip_prefix("-> ").is_some_and(|to| around.contains(to));
                if row.values().any(points) {
                    mixed.insert(key.clone());
                }
            }
        }
        mixed
    }

    /// Whether the head changed anything that a row of the table could depend on.
    fn head_moved(&self, name: &str) -> bool {
        let around = family(name);
        let all = if around.is_empty() { &[name][..] } else { around };
        all.iter().any(|table| self.base.tables.get(*table) != self.head.tables.get(*table))
    }
}

struct TableMerge<'a> {
    merge: &'a Merge<'a>,
    name: &'a str,
    base: &'a Table,
    local: &'a Table,
    head: &'a Table,
    debts: Vec<Debt>,
}

impl TableMerge<'_> {
    fn row(&mut self, key: &str, result: &Table) -> Result<(), String> {
        let fit = |row: Option<&Row>| {
            row.map(|row| {
                let kept = row.iter().filter(|(column, _)| result.columns.contains(*column));
                kept.map(|(column, value)| (column.clone(), value.clone())).collect::<Row>()
            })
        };
        let (base, local, head) =
            (self.base.rows.get(key), self.local.rows.get(key), self.head.rows.get(key));
        let got = result.rows.get(key).cloned();
        let (old, ours, theirs) = (fit(base), fit(local), fit(head));
        self.columns_without_place(base, local, head, result);
        if ours == old && theirs.is_none() && got == ours {
            // What stood in the way of a refused row may be gone.
            if self.merge.refused.contains(&format!("{} {key}", self.name)) {
                return Ok(());
            }
        }
        if ours == old {
            return if got == theirs { Ok(()) } else { Err(self.wrong(key, "is not the head's", result)) };
        }
        if theirs == old {
            if got == ours {
                return Ok(());
            }
            if got == theirs && self.merge.head_moved(self.name) {
                self.owe_changes(base, local, &format!("{key} was not applied"));
                self.was_refused(key);
                return Ok(());
            }
            return Err(self.wrong(key, "is not the device's, which alone changed it", result));
        }
        match (&ours, &theirs) {
            (None, None) if got.is_none() => Ok(()),
            // A row without a key that VACUUM moved and one side changed is another row to the other side.
            (None, Some(_)) | (Some(_), None)
                if self.merge.vacuumed
                    && is_keyless(self.name)
                    && got == ours.clone().or_else(|| theirs.clone()) =>
            {
                Ok(())
            }
            (None, Some(row)) if got == theirs => {
                self.owe(words(row), &format!("{key} was changed there and not deleted"));
                Ok(())
            }
            (Some(row), None) if got == ours => {
                self.owe(words(row), &format!("{key} was changed here, and its deletion there not kept"));
                Ok(())
            }
            (Some(_), None) if got.is_none() => {
                self.owe_changes(
                    base,
                    local,
                    &format!("{key} was changed here, deleted there and not applied"),
                );
                self.was_refused(key);
                Ok(())
            }
            (Some(ours), Some(theirs)) => {
                let (merged, losers) = self.merged(old.as_ref(), ours, theirs);
                if got.as_ref() == Some(&merged) {
                    for loser in losers {
                        self.owe(loser, &format!("a column of {key} that both changed"));
                    }
                    Ok(())
                } else if got.as_ref() == Some(theirs) {
                    self.owe_changes(base, local, &format!("{key} was changed by both and not applied"));
                    Ok(())
                } else {
                    Err(self.wrong(key, &format!("is not merged to {merged:?}"), result))
                }
            }
            _ => Err(self.wrong(key, "is not what the rules say", result)),
        }
    }

    /// Column by column; and what must be in a record because it lost.
    fn merged(&self, base: Option<&Row>, ours: &Row, theirs: &Row) -> (Row, Vec<BTreeSet<String>>) {
        let (mut merged, mut losers) = (Row::new(), Vec::new());
        let columns: BTreeSet<&String> =
            ours.keys().chain(theirs.keys()).chain(base.into_iter().flatten().map(|pair| pair.0)).collect();
        for column in columns {
            let old = base.and_then(|row| row.get(column));
            let (our, their) = (ours.get(column), theirs.get(column));
            // Of two new rows with one key, a column that one leaves empty is empty on purpose.
            let both_new =
                base.is_none() && self.local.columns.contains(column) && self.head.columns.contains(column);
            let (winner, loser) = match (our == old && !both_new, (their == old && !both_new) || our == their)
            {
                (true, _) => (their, None),
                (false, true) => (our, None),
                (false, false) if self.merge.last_wins => (our, Some((their, theirs))),
                (false, false) => (their, Some((our, ours))),
            };
            if let Some(value) = winner {
                merged.insert(column.clone(), value.clone());
            }
            if let Some((value, row)) = loser {
                let own = value.filter(|value| !value.starts_with("->"));
                let tokens: BTreeSet<String> =
                    own.into_iter().flat_map(|value| tokens(value)).map(str::to_owned).collect();
                losers.push(if tokens.is_empty() { words(row) } else { tokens });
            }
        }
        (merged, losers)
    }

    /// Values of columns that the result does not have any more.
    fn columns_without_place(
        &mut self,
        base: Option<&Row>,
        local: Option<&Row>,
        head: Option<&Row>,
        result: &Table,
    ) {
        for row in [local, head].into_iter().flatten() {
            for (column, value) in row {
                let new = base.and_then(|base| base.get(column)) != Some(value);
                if new && !result.columns.contains(column) {
                    let tokens: BTreeSet<String> = tokens(value).into_iter().map(str::to_owned).collect();
                    self.owe(tokens, &format!("the column {column} is gone"));
                }
            }
        }
    }

    /// Everything that either side changed.
    fn all_changes(&mut self, why: &str) {
        let (base, local, head) = (self.base, self.local, self.head);
        for side in [local, head] {
            for (key, row) in &side.rows {
                if base.rows.get(key) != Some(row) {
                    self.owe_changes(base.rows.get(key), Some(row), why);
                }
            }
        }
    }

    /// All values that a change wrote; or of a deletion, the row.
    fn owe_changes(&mut self, base: Option<&Row>, local: Option<&Row>, why: &str) {
        let Some(local) = local else {
            self.owe(base.map(words).unwrap_or_default(), why);
            return;
        };
        let mut any = false;
        for (column, value) in local {
            if base.and_then(|base| base.get(column)) != Some(value) && column != "ref_" {
                for token in tokens(value).into_iter().filter(|_| !value.starts_with("->")) {
                    any = true;
                    self.owe([token.to_owned()].into(), why);
                }
            }
        }
        if !any {
            self.owe(words(local), why);
        }
    }

    fn owe(&mut self, any_of: BTreeSet<String>, why: &str) {
        if !any_of.is_empty() {
            self.debts.push(Debt { any_of, why: format!("{}: {why}", self.name), refused: None });
        }
    }

    /// Says of the last debt that its row is not there.
    fn was_refused(&mut self, key: &str) {
        let row = format!("{} {key}", self.name);
        if let Some(debt) = self.debts.last_mut() {
            debt.refused = Some(row);
        }
    }

    fn wrong(&self, key: &str, what: &str, result: &Table) -> String {
        let show = |table: &Table| table.rows.get(key).map_or("none".to_owned(), |row| format!("{row:?}"));
        format!(
            "{}: the row {key} {what}\n  base   {}\n  local  {}\n  head   {}\n  result {}",
            self.name,
            show(self.base),
            show(self.local),
            show(self.head),
            show(result)
        )
    }
}

/// The tokens of a row.
fn words(row: &Row) -> BTreeSet<String> {
    row.values().flat_map(|value| tokens(value)).map(str::to_owned).collect()
}
