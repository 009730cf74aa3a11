//! Values that everybody sets: one that is there was set by a transaction that is there.

use anyhow::Result;
use rusqlite::{Connection, Transaction};

use super::{Workload, none};
use crate::dice::Dice;
use crate::history::Tx;

#[derive(Debug)]
pub(super) struct Registers;

impl Workload for Registers {
    fn name(&self) -> &'static str {
        "registers"
    }

    fn schema(&self) -> &'static str {
        "CREATE TABLE register(name TEXT PRIMARY KEY, one TEXT, other TEXT);
         INSERT INTO register(name) VALUES ('a'), ('b'), ('c'), ('d')"
    }

    fn write(&self, db: &Transaction<'_>, tx: Tx, dice: &mut Dice) -> Result<u64> {
        let names = ["a", "b", "c", "d"];
        let name = dice.pick(&names).copied().unwrap_or("a");
        let column = if dice.permille(500) { "one" } else { "other" };
        let value = format!("{}/{}", tx.device, tx.number);
        db.execute(&format!("UPDATE register SET {column} = ?1 WHERE name = ?2"), (value, name))?;
        Ok(0)
    }

    fn counts(&self) -> &'static str {
        "SELECT 0, 0, 0 WHERE false"
    }

    fn check(&self, db: &Connection) -> Result<()> {
        none(db, "a register is missing", "SELECT count(*) FROM register HAVING count(*) <> 4")?;
        none(
            db,
            "a register has a value of a transaction that is not there",
            "SELECT name, one, other FROM register WHERE
               (one IS NOT NULL AND one NOT IN (SELECT device || '/' || number FROM tx)) OR
               (other IS NOT NULL AND other NOT IN (SELECT device || '/' || number FROM tx))",
        )
    }
}
