//! What a database counts beside its rows: the last id that AUTOINCREMENT gave, and the version that an application sets.

use anyhow::{Result, ensure};
use rusqlite::{Connection, Transaction};

use super::{Workload, none};
use crate::dice::Dice;
use crate::history::Tx;

#[derive(Debug)]
pub(super) struct Numbers;

impl Workload for Numbers {
    fn name(&self) -> &'static str {
        "numbers"
    }

    fn schema(&self) -> &'static str {
        "CREATE TABLE ticket(id INTEGER PRIMARY KEY AUTOINCREMENT, device INT, number INT);
         CREATE TABLE last(device INTEGER PRIMARY KEY, id INT);
         CREATE TABLE version(device INT, number INT, version INT, PRIMARY KEY(device, number))"
    }

    fn write(&self, db: &Transaction<'_>, tx: Tx, dice: &mut Dice) -> Result<u64> {
        let (device, number) = (tx.device.cast_signed(), tx.number.cast_signed());
        let (kept, torn_up) = (dice.between(1, 3), dice.between(0, 3));
        for _ in 0..kept + torn_up {
            db.execute("INSERT INTO ticket(device, number) VALUES (?1, ?2)", (device, number))?;
        }
        let last = db.last_insert_rowid();
        // The last ones are gone again: only the sequence knows that their ids were given.
        db.execute("DELETE FROM ticket WHERE id > ?1", [last - torn_up.cast_signed()])?;
        db.execute("INSERT OR REPLACE INTO last VALUES (?1, ?2)", (device, last))?;
        if dice.permille(200) {
            let version = device * 1000 + number;
            db.execute_batch(&format!("PRAGMA user_version = {version}"))?;
            db.execute("INSERT INTO version VALUES (?1, ?2, ?3)", (device, number, version))?;
        }
        Ok(kept)
    }

    fn counts(&self) -> &'static str {
        "SELECT device, number, count(*) FROM ticket GROUP BY device, number"
    }

    fn check(&self, db: &Connection) -> Result<()> {
        none(
            db,
            "an id that was given will be given again (device, its last id, the sequence)",
            "SELECT last.device, last.id, seq FROM last, sqlite_sequence WHERE name = 'ticket' AND seq < last.id",
        )?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let set = "SELECT count(*), count(*) FILTER (WHERE version = ?1) FROM version";
        let (set, as_it_is): (i64, i64) =
            db.query_row(set, [version], |row| Ok((row.get(0)?, row.get(1)?)))?;
        ensure!(as_it_is > 0 || set == 0 && version == 0, "the version is {version}, which nobody has set");
        Ok(())
    }
}
