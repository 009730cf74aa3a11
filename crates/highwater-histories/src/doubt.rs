//! What must hold of a merge whose base the client could only guess, because an older copy of its file was written to:
//! rows may come twice, and what was deleted may come back, but nothing that anybody wrote is lost.

use std::collections::BTreeSet;

use crate::contents::{Contents, tokens};
use crate::oracle::{Debt, Merge};

/// What the tables of this name hold, wherever it stands.
fn words<'a>(side: &'a Contents, table: &str) -> BTreeSet<&'a str> {
    let rows = side.tables.get(table).into_iter().flat_map(|table| table.rows.values());
    rows.flat_map(|row| row.values()).flat_map(|value| tokens(value)).collect()
}

impl Merge<'_> {
    /// Every word of both sides is in the result or in a record, but for those that one side removed.
    ///
    /// # Errors
    /// When the result has words that nobody wrote.
    pub(crate) fn nothing_lost(&self) -> Result<Vec<Debt>, String> {
        let mut debts = Vec::new();
        for name in self.local.tables.keys().chain(self.head.tables.keys()).collect::<BTreeSet<_>>() {
            let [base, local, head, result] =
                [self.base, self.local, self.head, self.result].map(|side| words(side, name));
            if let Some(word) = result
                .iter()
                .find(|word| !base.contains(*word) && !local.contains(*word) && !head.contains(*word))
            {
                return Err(format!("{name}: nobody wrote {word} there"));
            }
            // A table that one side dropped or renamed is for the rules of schemas.
            if !self.result.tables.contains_key(name) {
                continue;
            }
            for word in local.union(&head).filter(|word| !result.contains(*word)) {
                let removed = base.contains(word) && !(local.contains(word) && head.contains(word));
                if !removed {
                    debts.push(Debt {
                        any_of: BTreeSet::from([(*word).to_owned()]),
                        why: format!("{name}: {word} is lost from a copy of which the base was a guess"),
                        refused: None,
                    });
                }
            }
        }
        Ok(debts)
    }
}
