//! A schema that changes on every device, with rows that need the change.

use anyhow::{Context, Result};
use rusqlite::{Connection, Transaction};

use super::Workload;
use crate::dice::Dice;
use crate::history::Tx;

#[derive(Debug)]
pub(super) struct Schema;

impl Workload for Schema {
    fn name(&self) -> &'static str {
        "schema"
    }

    fn schema(&self) -> &'static str {
        "CREATE TABLE journal(id INTEGER PRIMARY KEY, device INT, number INT, text TEXT);
         CREATE TABLE made(device INT, number INT, kind TEXT, name TEXT, PRIMARY KEY(device, number))"
    }

    fn write(&self, db: &Transaction<'_>, tx: Tx, dice: &mut Dice) -> Result<u64> {
        let (device, number) = (tx.device.cast_signed(), tx.number.cast_signed());
        let name = format!("d{device}_n{number}");
        let made = match dice.below(12) {
            0 => {
                db.execute_batch(&format!("ALTER TABLE journal ADD COLUMN {name} TEXT DEFAULT 'none'"))?;
                Some("column")
            }
            1 => {
                db.execute_batch(&format!(
                    "CREATE TABLE {name}(id INTEGER PRIMARY KEY, text TEXT);
                     INSERT INTO {name}(text) VALUES ('first')"
                ))?;
                Some("table")
            }
            2 => {
                db.execute_batch(&format!("CREATE INDEX {name} ON journal(text, device)"))?;
                Some("index")
            }
            _ => None,
        };
        if let Some(kind) = made {
            db.execute("INSERT INTO made VALUES (?1, ?2, ?3, ?4)", (device, number, kind, &name))?;
        }
        let rows = dice.between(1, 5);
        for _ in 0..rows {
            let text = format!("{:x}", dice.roll());
            db.execute(
                "INSERT INTO journal(device, number, text) VALUES (?1, ?2, ?3)",
                (device, number, text),
            )?;
        }
        if made == Some("column") {
            db.execute(
                &format!("UPDATE journal SET {name} = 'set' WHERE device = ?1 AND number = ?2"),
                (device, number),
            )?;
        }
        Ok(rows)
    }

    fn counts(&self) -> &'static str {
        "SELECT device, number, count(*) FROM journal GROUP BY device, number"
    }

    fn check(&self, db: &Connection) -> Result<()> {
        let mut statement = db.prepare("SELECT kind, name, device, number FROM made")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
            let (device, number): (i64, i64) = (row.get(2)?, row.get(3)?);
            let missing = || format!("the {kind} {name} was made, and is not there");
            let found = match kind.as_str() {
                "column" => db.query_row(
                    &format!("SELECT count(*) > 0 AND min({name} = 'set') FROM journal WHERE device = ?1 AND number = ?2"),
                    (device, number),
                    |row| row.get::<_, Option<bool>>(0),
                ),
                "table" => db.query_row(&format!("SELECT count(*) = 1 FROM {name}"), [], |row| row.get(0)),
                _ => db.query_row("SELECT count(*) = 1 FROM sqlite_schema WHERE name = ?1", [&name], |row| row.get(0)),
            };
            anyhow::ensure!(found.with_context(missing)? == Some(true), missing());
        }
        Ok(())
    }
}
