//! Small and large transactions: what spans many pages is whole.

use anyhow::Result;
use rusqlite::{Connection, Transaction};

use super::{Workload, none};
use crate::dice::Dice;
use crate::history::Tx;

/// Rows that one transaction rewrites together.
const SLOTS: u64 = 40;

#[derive(Debug)]
pub(super) struct Sizes;

impl Workload for Sizes {
    fn name(&self) -> &'static str {
        "sizes"
    }

    fn schema(&self) -> &'static str {
        "CREATE TABLE part(device INT, number INT, place INT, data BLOB, PRIMARY KEY(device, number, place));
         CREATE TABLE slot(device INT, slot INT, number INT, data BLOB, PRIMARY KEY(device, slot)) WITHOUT ROWID"
    }

    fn write(&self, db: &Transaction<'_>, tx: Tx, dice: &mut Dice) -> Result<u64> {
        let (device, number) = (tx.device.cast_signed(), tx.number.cast_signed());
        let parts = match dice.below(20) {
            0 => dice.between(100, 300),
            1..=4 => dice.between(10, 40),
            _ => 1,
        };
        for place in 0..parts {
            let size = dice.index(3000);
            db.prepare_cached("INSERT INTO part VALUES (?1, ?2, ?3, ?4)")?.execute((
                device,
                number,
                place.cast_signed(),
                dice.bytes(size),
            ))?;
        }
        if dice.permille(300) {
            let size = dice.index(600);
            for slot in 0..SLOTS {
                db.prepare_cached("INSERT OR REPLACE INTO slot VALUES (?1, ?2, ?3, ?4)")?.execute((
                    device,
                    slot.cast_signed(),
                    number,
                    dice.bytes(size),
                ))?;
            }
        }
        Ok(parts)
    }

    fn counts(&self) -> &'static str {
        "SELECT device, number, count(*) FROM part GROUP BY device, number"
    }

    fn check(&self, db: &Connection) -> Result<()> {
        none(
            db,
            "slots of a device that are of different transactions (device, slots, oldest, newest)",
            "SELECT device, count(*), min(number), max(number) FROM slot GROUP BY device
             HAVING count(*) <> 40 OR min(number) <> max(number)",
        )
    }
}
