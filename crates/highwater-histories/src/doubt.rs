//! What must hold of a merge whose base the client could only guess, because an older copy of its file was written to:
//! rows may come twice, and what was deleted may come back, but nothing that anybody wrote is lost.

use std::collections::BTreeSet;

use crate::contents::{Contents, tokens};
use crate::oracle::{Debt, Merge};

/// What the tables of this name hold; columns that point to other rows say nothing of their own.
fn words<'a>(side: &'a Contents, table: &str) -> BTreeSet<&'a str> {
    let rows = side.tables.get(table).into_iter().flat_map(|table| table.rows.values());
    let own = |column: &str| matches!(column, "born" | "a" | "b");
    let values = rows.flat_map(|row| row.iter()).filter(move |(column, _)| own(column));
    values.flat_map(|(_, value)| tokens(value)).collect()
}

impl Merge<'_> {
    /// Every word of both sides is in the result or in a record, but for those that one side removed.
    ///
    /// # Errors
    /// When the result has words that nobody wrote.
    pub(crate) fn nothing_lost(&self) -> Result<Vec<Debt>, String> {
        let mut debts = Vec::new();
        for name in self.local.tables.keys().chain(self.head.tables.keys()).collect::<BTreeSet<_>>() {
            debts.extend(self.nothing_lost_of(name)?);
        }
        Ok(debts)
    }

    /// The same for one table.
    pub(crate) fn nothing_lost_of(&self, name: &str) -> Result<Vec<Debt>, String> {
        let [base, local, head, result] =
            [self.base, self.local, self.head, self.result].map(|side| words(side, name));
        let known = |word: &&&str| base.contains(**word) || local.contains(**word) || head.contains(**word);
        if let Some(word) = result.iter().find(|word| !known(word)) {
            return Err(format!("{name}: nobody wrote {word} there"));
        }
        // A table that one side dropped or renamed is for the rules of schemas.
        if !self.result.tables.contains_key(name) {
            return Ok(Vec::new());
        }
        let lost = local.union(&head).filter(|word| !result.contains(*word));
        let removed = |word: &str| base.contains(word) && !(local.contains(word) && head.contains(word));
        let owed = lost.filter(|word| !removed(word)).map(|word| Debt {
            any_of: BTreeSet::from([(*word).to_owned()]),
            why: format!("{name}: {word} is lost"),
            refused: None,
        });
        Ok(owed.collect())
    }
}
