//! Changes of the schema, as an application's migrations make them on one device while others go on.

use anyhow::{Context, Result};
use rusqlite::Connection;

use crate::dice::Dice;
use crate::writer::{Table, Writer, tables};

impl Writer {
    /// One change of the schema in a transaction of its own.
    pub(crate) fn change_schema(&mut self, connection: &Connection, seed: u64) -> Result<()> {
        let mut dice = Dice::new(seed);
        let Some(sql) = self.definition(connection, &mut dice)? else { return Ok(()) };
        connection.execute_batch("BEGIN IMMEDIATE").context("BEGIN")?;
        match connection.execute_batch(&sql) {
            Ok(()) => self.trace.push(format!("device {}: {sql}", self.device)),
            // What is there already, or still in use.
            Err(error) => self.trace.push(format!("device {}: refused ({error}): {sql}", self.device)),
        }
        self.commit(connection)
    }

    fn definition(&mut self, connection: &Connection, dice: &mut Dice) -> Result<Option<String>> {
        let all = tables(connection)?;
        let is_own = |table: &&Table| table.name.starts_with('x') || table.name.starts_with('y');
        let own: Vec<&Table> = all.iter().filter(is_own).collect();
        let plain: Vec<&Table> =
            all.iter().filter(|table| !matches!(table.name.as_str(), "notes" | "boxes")).collect();
        let Some(table) = dice.pick(&plain) else { return Ok(None) };
        self.counter += 1;
        let name = format!("{}x{}", self.device, self.counter);
        let default = if dice.chance(30) { " DEFAULT 'dflt'" } else { "" };
        let sql = match dice.weighted(&[25, 12, 15, 10, 10, 6, 10, 8, 6, 6]) {
            0 => format!("ALTER TABLE {} ADD COLUMN c{name} TEXT{default}", table.name),
            1 => format!("ALTER TABLE {} ADD COLUMN extra TEXT{default}", table.name),
            2 => format!("CREATE TABLE x{name}(id INTEGER PRIMARY KEY, born TEXT, a TEXT)"),
            3 => {
                let more = if dice.chance(25) { ", b TEXT" } else { "" };
                format!("CREATE TABLE xshared(id INTEGER PRIMARY KEY, born TEXT, a TEXT{more})")
            }
            4 => match dice.pick(&own) {
                Some(table) => format!("DROP TABLE {}", table.name),
                None => return Ok(None),
            },
            5 => match dice.pick(&own) {
                Some(table) => format!("ALTER TABLE {} RENAME TO y{name}", table.name),
                None => return Ok(None),
            },
            6 => {
                let shared = dice.chance(40);
                let index = if shared { "shared".to_owned() } else { name };
                format!("CREATE INDEX ix_{index} ON {}(a)", table.name)
            }
            7 => match some_name(connection, "index", "ix_*", dice)? {
                Some(index) => format!("DROP INDEX {index}"),
                None => return Ok(None),
            },
            8 => match some_name(connection, "view", "w_*", dice)? {
                Some(view) if dice.chance(50) => format!("DROP VIEW {view}"),
                _ => format!("CREATE VIEW w_shared AS SELECT a FROM {}", table.name),
            },
            _ => match table.columns.iter().find(|column| column.starts_with('c') || *column == "extra") {
                Some(column) => format!("ALTER TABLE {} DROP COLUMN {column}", table.name),
                None => return Ok(None),
            },
        };
        Ok(Some(sql))
    }
}

fn some_name(connection: &Connection, kind: &str, glob: &str, dice: &mut Dice) -> Result<Option<String>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = ?1 AND name GLOB ?2 ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    let names: Vec<String> =
        statement.query_map([kind, glob], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(dice.pick(&names).cloned())
}
