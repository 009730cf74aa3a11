//! A file that grows and becomes smaller again: what was deleted leaves free pages, and `VACUUM` gives them back.

use anyhow::Result;
use rusqlite::{Connection, Transaction};

use super::{Workload, none};
use crate::dice::Dice;
use crate::history::Tx;

#[derive(Debug)]
pub(super) struct Tides;

impl Workload for Tides {
    fn name(&self) -> &'static str {
        "tides"
    }

    fn schema(&self) -> &'static str {
        "CREATE TABLE tide(device INT, number INT, PRIMARY KEY(device, number));
         CREATE TABLE foam(device INT, place INT, data BLOB, PRIMARY KEY(device, place))"
    }

    fn write(&self, db: &Transaction<'_>, tx: Tx, dice: &mut Dice) -> Result<u64> {
        let device = tx.device.cast_signed();
        // In one of three the pages come and go within the transaction: they are free and were never written.
        let which = dice.below(3);
        let (comes, goes) = (which != 1, which != 0);
        if comes {
            for place in 0..dice.between(20, 60) {
                let data = dice.bytes(900);
                db.prepare_cached("INSERT OR REPLACE INTO foam VALUES (?1, ?2, ?3)")?.execute((
                    device,
                    place.cast_signed(),
                    data,
                ))?;
            }
        }
        if goes {
            db.execute("DELETE FROM foam WHERE device = ?1", [device])?;
        }
        db.execute("INSERT INTO tide VALUES (?1, ?2)", (device, tx.number.cast_signed()))?;
        Ok(1)
    }

    fn counts(&self) -> &'static str {
        "SELECT device, number, 1 FROM tide"
    }

    fn check(&self, db: &Connection) -> Result<()> {
        none(
            db,
            "rows of a device that are not all there (device, rows, the last one)",
            "SELECT device, count(*), max(place) FROM foam GROUP BY device HAVING count(*) <> max(place) + 1",
        )
    }
}
