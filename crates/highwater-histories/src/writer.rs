//! The application of one device: random statements on its one connection, every value that it writes with a
//! token that nobody else ever writes.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rusqlite::{Connection, OptionalExtension};

use crate::dice::Dice;
use crate::schema::is_inner;

/// What the application of a device remembers.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) device: usize,
    pub(crate) counter: u32,
    reuse_ids: bool,
    /// The largest id that was ever seen, by table.
    high: BTreeMap<String, i64>,
    /// What it said to SQLite, for people who read failures.
    pub(crate) trace: Vec<String>,
}

/// A table as it is now.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
}

impl Table {
    fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }

    /// How a row is named in a WHERE.
    fn key(&self) -> &'static str {
        if self.has("k1") { "k1 || k2" } else { "rowid" }
    }

    /// Columns for tokens that are updated; `born` never is.
    fn texts(&self) -> Vec<&str> {
        let is_text =
            |name: &&str| matches!(*name, "a" | "b") || name.starts_with("extra") || name.starts_with('c');
        self.columns.iter().map(String::as_str).filter(is_text).collect()
    }

    fn is_virtual(&self) -> bool {
        matches!(self.name.as_str(), "notes" | "boxes")
    }

    /// Whether rows are given an id by the application, so that none is used twice.
    fn takes_ids(&self) -> bool {
        !matches!(self.name.as_str(), "logs" | "words" | "pairs")
    }
}

impl Writer {
    pub(crate) fn new(device: usize, reuse_ids: bool) -> Self {
        Self { device, counter: 0, reuse_ids, high: BTreeMap::new(), trace: Vec::new() }
    }

    /// One transaction. A statement that SQLite refuses leaves no trace, and neither does a COMMIT.
    pub(crate) fn transaction(&mut self, connection: &Connection, seeds: &[u64]) -> Result<()> {
        self.note_ids(connection)?;
        connection.execute_batch("BEGIN IMMEDIATE").context("BEGIN")?;
        for seed in seeds {
            let mut dice = Dice::new(*seed);
            let tables = tables(connection)?;
            let Some(table) = tables.get(dice.below(tables.len())) else { continue };
            let sql = self.statement(connection, table, &mut dice)?;
            self.execute(connection, &sql)?;
        }
        self.commit(connection)
    }

    pub(crate) fn commit(&mut self, connection: &Connection) -> Result<()> {
        if let Err(error) = connection.execute_batch("COMMIT") {
            self.trace.push(format!("device {}: COMMIT refused: {error}", self.device));
            connection.execute_batch("ROLLBACK").context("ROLLBACK")?;
        }
        Ok(())
    }

    /// Refused by a constraint is fine, by anything else is not.
    pub(crate) fn execute(&mut self, connection: &Connection, sql: &str) -> Result<()> {
        let shown: String = sql.chars().take(240).collect();
        match connection.execute_batch(sql) {
            Ok(()) => self.trace.push(format!("device {}: {shown}", self.device)),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                self.trace.push(format!("device {}: refused ({error}): {shown}", self.device));
            }
            Err(error) => return Err(error).with_context(|| format!("device {}: {shown}", self.device)),
        }
        Ok(())
    }

    /// Ids that were seen are not given out again, whatever becomes of their rows.
    fn note_ids(&mut self, connection: &Connection) -> Result<()> {
        for table in tables(connection)? {
            if table.takes_ids() {
                let id = self.high_id(connection, &table.name)?;
                self.high.insert(table.name, id);
            }
        }
        Ok(())
    }

    fn high_id(&self, connection: &Connection, table: &str) -> Result<i64> {
        let sql = format!("SELECT coalesce(max(rowid), 0) FROM {table}");
        let max: i64 = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
        Ok(max.max(self.high.get(table).copied().unwrap_or(0)))
    }

    fn next_id(&mut self, connection: &Connection, table: &Table, count: i64) -> Result<Option<i64>> {
        if self.reuse_ids || !table.takes_ids() {
            return Ok(None);
        }
        let id = self.high_id(connection, &table.name)? + 1;
        self.high.insert(table.name.clone(), id + count - 1);
        Ok(Some(id))
    }

    pub(crate) fn token(&mut self) -> String {
        self.counter += 1;
        format!("d{}t{}.", self.device, self.counter)
    }

    /// A value for a text column, as SQL.
    fn value(&mut self, table: &Table, dice: &mut Dice) -> String {
        let token = self.token();
        if table.name == "longs" && dice.chance(70) {
            let letter = char::from(b'a' + u8::try_from(dice.below(26)).unwrap_or(0));
            let filler: String = std::iter::repeat_n(letter, dice.between(50, 3000)).collect();
            return format!("'{token}{filler}'");
        }
        format!("'{token}'")
    }

    fn statement(&mut self, connection: &Connection, table: &Table, dice: &mut Dice) -> Result<String> {
        let kind = dice.weighted(&[42, 34, 14, 4, 3, 3]);
        let row = self.some_row(connection, table, dice)?;
        match (kind, row) {
            (1, Some(row)) => self.update(connection, table, &row, dice),
            (2, Some(row)) => Ok(format!("DELETE FROM {} WHERE {} = {row}", table.name, table.key())),
            (3, _) if !table.is_virtual() && table.key() == "rowid" && !table.has("k") => {
                self.bulk(connection, table, dice)
            }
            (4, Some(_)) if !table.is_virtual() && table.key() == "rowid" => {
                self.counter += 1;
                let (device, token) = (self.device, self.counter);
                Ok(format!(
                    "UPDATE {} SET a = 'd{device}t{token}b' || rowid || '.' WHERE rowid % 3 = {}",
                    table.name,
                    dice.below(3)
                ))
            }
            (5, Some(_)) => Ok(format!(
                "DELETE FROM {} WHERE length({}) % 2 = {} AND born LIKE '%{}.%'",
                table.name,
                table.key(),
                dice.below(2),
                dice.below(10)
            )),
            _ => self.insert(connection, table, dice),
        }
    }

    /// The key of a row, as SQL.
    fn some_row(&self, connection: &Connection, table: &Table, dice: &mut Dice) -> Result<Option<String>> {
        some(connection, table.key(), &table.name, dice)
    }

    fn insert(&mut self, connection: &Connection, table: &Table, dice: &mut Dice) -> Result<String> {
        let mut fields = vec![("born".to_owned(), format!("'{}'", self.token()))];
        if let Some(id) = self.next_id(connection, table, 1)? {
            // Now and then somewhere else in the tree.
            let id = if dice.chance(5) { id + i64::try_from(dice.below(500)).unwrap_or(0) } else { id };
            self.high.insert(table.name.clone(), id);
            // An R-Tree makes an id of its own where it is called rowid.
            let name = if table.has("id") { "id" } else { "rowid" };
            fields.push((name.to_owned(), id.to_string()));
        }
        for column in table.texts() {
            let share = if column == "a" { 100 } else { 60 };
            if dice.chance(share) {
                fields.push((column.to_owned(), self.value(table, dice)));
            }
        }
        for column in &table.columns {
            if let Some(value) = special(connection, column, dice)? {
                fields.push((column.clone(), value));
            }
        }
        let verb = match (table.name.as_str(), dice.weighted(&[60, 15, 15, 10])) {
            ("words" | "pairs", 1) => "INSERT OR IGNORE",
            ("words" | "pairs", 2) | ("slots", 3) => "INSERT OR REPLACE",
            _ => "INSERT",
        };
        let (names, values): (Vec<String>, Vec<String>) = fields.into_iter().unzip();
        Ok(format!("{verb} INTO {}({}) VALUES ({})", table.name, names.join(", "), values.join(", ")))
    }

    /// Many rows at once, so that pages split.
    fn bulk(&mut self, connection: &Connection, table: &Table, dice: &mut Dice) -> Result<String> {
        let count = dice.between(5, 40);
        let id = self.next_id(connection, table, i64::try_from(count)?)?;
        self.counter += 1;
        let (device, token) = (self.device, self.counter);
        let (rowid, ids) = id
            .map_or((String::new(), String::new()), |id| ("rowid, ".to_owned(), format!("{} + i, ", id - 1)));
        Ok(format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
             INSERT INTO {}({rowid}born, a) SELECT {ids}'d{device}t{token}b' || i || '.', 'd{device}t{token}c' || i || '.' FROM n",
            table.name
        ))
    }

    fn update(
        &mut self,
        connection: &Connection,
        table: &Table,
        row: &str,
        dice: &mut Dice,
    ) -> Result<String> {
        let mut fields = Vec::new();
        let texts = table.texts();
        for _ in 0..dice.between(1, 2) {
            let Some(column) = texts.get(dice.below(texts.len())) else { break };
            let null = dice.chance(8) && table.name != "slots";
            let value = if null { "NULL".to_owned() } else { self.value(table, dice) };
            fields.retain(|(name, _): &(String, String)| name != column);
            fields.push(((*column).to_owned(), value));
        }
        for column in &table.columns {
            let share = if column.starts_with('k') { 4 } else { 25 };
            if dice.chance(share)
                && let Some(value) = special(connection, column, dice)?
            {
                fields.push((column.clone(), value));
            }
        }
        if table.name == "boxes" {
            // A box has two sides.
            fields.retain(|(name, _)| !matches!(name.as_str(), "x0" | "x1" | "y0" | "y1"));
            let at = dice.below(90);
            fields.extend([("x0".to_owned(), at.to_string()), ("x1".to_owned(), (at + 5).to_string())]);
        }
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        Ok(format!("UPDATE {} SET {} WHERE {} = {row}", table.name, fields.join(", "), table.key()))
    }
}

/// A value for a column that is no token's.
fn special(connection: &Connection, column: &str, dice: &mut Dice) -> Result<Option<String>> {
    let text = match column {
        "k" => format!("'k{}'", dice.below(12)),
        "k1" => dice.below(5).to_string(),
        "k2" => format!("'{}'", ["x", "y", "z"].get(dice.below(3)).unwrap_or(&"x")),
        "slot" if dice.chance(85) => format!("'s{}'", dice.below(10)),
        "lo" => dice.below(6).to_string(),
        "hi" => (4 + dice.below(6)).to_string(),
        "x0" | "y0" => dice.below(50).to_string(),
        "x1" | "y1" => (50 + dice.below(50)).to_string(),
        "word" => return some(connection, "k", "words", dice),
        _ => match column.strip_prefix("ref_") {
            Some(target) if dice.chance(85) => return some(connection, "rowid", target, dice),
            _ => return Ok(None),
        },
    };
    Ok(Some(text))
}

/// A value of one row of a table, as SQL.
fn some(connection: &Connection, column: &str, table: &str, dice: &mut Dice) -> Result<Option<String>> {
    let sql = format!("SELECT count(*) FROM {table}");
    let count: i64 = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
    let at = i64::try_from(dice.below(usize::try_from(count)?))?;
    let sql = format!("SELECT quote({column}) FROM {table} ORDER BY {column} LIMIT 1 OFFSET ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([at], |row| row.get(0)).optional()?)
}

/// The tables that the application writes to, in the order of their names.
pub(crate) fn tables(connection: &Connection) -> Result<Vec<Table>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let names: Vec<String> =
        connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for name in names {
        if is_inner(&name) || name == "trail" {
            continue;
        }
        let statement = connection.prepare(&format!("SELECT * FROM {name} LIMIT 0"))?;
        let columns = statement.column_names().map(str::to_owned).collect();
        found.push(Table { name, columns });
    }
    Ok(found)
}
