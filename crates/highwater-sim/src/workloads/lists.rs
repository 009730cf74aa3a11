//! Lists that everybody appends to: complete, and in the order of each writer.

use anyhow::Result;
use rusqlite::{Connection, Transaction};

use super::{Workload, none};
use crate::dice::Dice;
use crate::history::Tx;

#[derive(Debug)]
pub(super) struct Lists;

impl Workload for Lists {
    fn name(&self) -> &'static str {
        "lists"
    }

    fn schema(&self) -> &'static str {
        "CREATE TABLE list(id INTEGER PRIMARY KEY, device INT, number INT, place INT, text TEXT)"
    }

    fn write(&self, db: &Transaction<'_>, tx: Tx, dice: &mut Dice) -> Result<u64> {
        let (device, number) = (tx.device.cast_signed(), tx.number.cast_signed());
        let entries = dice.between(1, 20);
        for place in 0..entries {
            let text = format!("{:x}", dice.roll()).repeat(dice.index(8));
            // Ids that no other device gives out: those are kept, and with them the order.
            db.prepare_cached(
                "INSERT INTO list(id, device, number, place, text)
                 SELECT coalesce(max(id), ?1 << 40) + 1, ?1, ?2, ?3, ?4 FROM list WHERE id >> 40 = ?1",
            )?
            .execute((device, number, place.cast_signed(), text))?;
        }
        Ok(entries)
    }

    fn counts(&self) -> &'static str {
        "SELECT device, number, count(DISTINCT place) FROM list GROUP BY device, number"
    }

    fn check(&self, db: &Connection) -> Result<()> {
        none(
            db,
            "an entry that is there twice (device, number, place)",
            "SELECT device, number, place FROM list GROUP BY device, number, place HAVING count(*) > 1",
        )?;
        none(
            db,
            "an entry that stands behind a later one of its writer (device, number, place)",
            "SELECT device, number, place FROM (
               SELECT device, number, place, lag(number * 1000 + place) OVER (PARTITION BY device ORDER BY id) AS before
               FROM list)
             WHERE before > number * 1000 + place",
        )
    }
}
