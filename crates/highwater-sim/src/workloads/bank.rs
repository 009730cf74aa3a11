//! Transfers between accounts. The sum is zero, and every purse has what was posted to it.
//!
//! All devices move money between the same accounts, but each keeps its own purse for each account: a number that two
//! devices change would be decided by the last push, by the rules of merging.

use anyhow::Result;
use rusqlite::{Connection, Transaction};

use super::{Workload, none};
use crate::dice::Dice;
use crate::history::Tx;

const ACCOUNTS: u64 = 5;

#[derive(Debug)]
pub(super) struct Bank;

impl Workload for Bank {
    fn name(&self) -> &'static str {
        "bank"
    }

    fn schema(&self) -> &'static str {
        "CREATE TABLE posting(id INTEGER PRIMARY KEY, device INT, number INT, account INT, amount INT);
         CREATE INDEX posting_account ON posting(account, amount);
         CREATE TABLE purse(device INT, account INT, balance INT, PRIMARY KEY(device, account)) WITHOUT ROWID"
    }

    fn write(&self, db: &Transaction<'_>, tx: Tx, dice: &mut Dice) -> Result<u64> {
        let (device, number) = (tx.device.cast_signed(), tx.number.cast_signed());
        let transfers = dice.between(1, 3);
        for _ in 0..transfers {
            let (from, to) = (dice.below(ACCOUNTS), dice.below(ACCOUNTS));
            let amount = dice.between(1, 1000).cast_signed();
            for (account, amount) in [(from, -amount), (to, amount)] {
                let account = account.cast_signed();
                db.prepare_cached(
                    "INSERT INTO posting(device, number, account, amount) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((device, number, account, amount))?;
                db.prepare_cached(
                    "INSERT INTO purse VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET balance = balance + excluded.balance",
                )?
                .execute((device, account, amount))?;
            }
        }
        Ok(transfers * 2)
    }

    fn counts(&self) -> &'static str {
        "SELECT device, number, count(*) FROM posting GROUP BY device, number"
    }

    fn check(&self, db: &Connection) -> Result<()> {
        none(db, "the sum of all postings", "SELECT sum(amount) FROM posting HAVING sum(amount) <> 0")?;
        none(
            db,
            "device, account, balance of a purse and what was posted to it",
            "SELECT device, account, balance, posted FROM purse LEFT JOIN
               (SELECT device, account, sum(amount) AS posted FROM posting GROUP BY device, account)
             USING (device, account) WHERE balance IS NOT posted",
        )
    }
}
