//! What devices write, and what must hold of it in every copy at every moment.
//!
//! To add a workload: a file beside this one that implements [`Workload`], and its line in [`ALL`].
//!
//! Every transaction of every workload leaves a row in the table `tx` that says whose and the how-many-th it is, and how
//! many rows it has elsewhere: from that the history checker sees whether a copy has it whole. The
//! table gives its ids itself, so devices give out the same ones: rows that a merge doubled would show.

mod bank;
mod lists;
mod numbers;
mod registers;
mod schema;
mod sizes;
mod tides;

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Context, Result};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::dice::Dice;
use crate::history::{Seen, Tx};

/// All of them.
pub const ALL: &[&dyn Workload] = &[
    &bank::Bank,
    &lists::Lists,
    &schema::Schema,
    &sizes::Sizes,
    &registers::Registers,
    &numbers::Numbers,
    &tides::Tides,
];

/// Those that not every seed can have: see [`crate::plan`].
pub(crate) const LATE: &[&str] = &["numbers", "tides"];

/// The table of all transactions.
const SCHEMA: &str = "CREATE TABLE tx(id INTEGER PRIMARY KEY, device INT, number INT, rows INT)";

/// What an application does with its database.
pub trait Workload: Debug + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Its tables.
    fn schema(&self) -> &'static str;

    /// Does something in a transaction; returns how many rows [`Workload::counts`] will count for it.
    ///
    /// # Errors
    /// SQLite's.
    fn write(&self, db: &Transaction<'_>, tx: Tx, dice: &mut Dice) -> Result<u64>;

    /// A query for the rows of every transaction: device, number, count.
    fn counts(&self) -> &'static str;

    /// What must hold in every copy.
    ///
    /// # Errors
    /// What does not.
    fn check(&self, db: &Connection) -> Result<()>;
}

/// Makes the tables.
///
/// # Errors
/// SQLite's.
pub fn create(db: &Connection, workloads: &[&'static dyn Workload]) -> Result<()> {
    let tables: Vec<_> = workloads.iter().map(|workload| workload.schema()).collect();
    db.execute_batch(&format!("BEGIN; {SCHEMA}; {}; COMMIT", tables.join("; "))).context("the schema")
}

/// One transaction.
///
/// # Errors
/// SQLite's.
pub fn write(db: &mut Connection, workload: &dyn Workload, tx: Tx, dice: &mut Dice) -> Result<()> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let rows = workload.write(&transaction, tx, dice).with_context(|| workload.name())?;
    let marker = "INSERT INTO tx(device, number, rows) VALUES (?1, ?2, ?3)";
    transaction.prepare_cached(marker)?.execute((
        tx.device.cast_signed(),
        tx.number.cast_signed(),
        rows.cast_signed(),
    ))?;
    Ok(transaction.commit()?)
}

/// What a copy shows, after everything that must hold was looked at.
///
/// # Errors
/// What does not hold.
pub fn read(db: &Connection, workloads: &[&'static dyn Workload]) -> Result<Vec<Seen>> {
    let snapshot = db.unchecked_transaction()?;
    let mut counts: BTreeMap<Tx, u64> = BTreeMap::new();
    for workload in workloads {
        workload.check(&snapshot).with_context(|| format!("the workload {}", workload.name()))?;
        for (tx, count) in numbers(&snapshot, workload.counts())? {
            *counts.entry(tx).or_default() += count;
        }
    }
    let mut seen = Vec::new();
    for (tx, rows) in numbers(&snapshot, "SELECT device, number, rows FROM tx ORDER BY device, number")? {
        seen.push(Seen { tx, rows, found: counts.get(&tx).copied().unwrap_or(0) });
    }
    let marked: std::collections::BTreeSet<Tx> = seen.iter().map(|seen| seen.tx).collect();
    if let Some((tx, count)) = counts.iter().find(|(tx, _)| !marked.contains(tx)) {
        anyhow::bail!("{count} rows are there of {tx:?}, which is not");
    }
    Ok(seen)
}

fn numbers(db: &Connection, sql: &str) -> Result<Vec<(Tx, u64)>> {
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let (device, number, count): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((Tx { device: device.cast_unsigned(), number: number.cast_unsigned() }, count.cast_unsigned()))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Fails if the query finds a row, and says what is in it.
fn none(db: &Connection, what: &str, sql: &str) -> Result<()> {
    let mut statement = db.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    if let Some(row) = rows.next()? {
        let values: Vec<String> = (0..columns)
            .map(|column| row.get::<_, rusqlite::types::Value>(column).map(|value| format!("{value:?}")))
            .collect::<rusqlite::Result<_>>()?;
        anyhow::bail!("{what}: {}", values.join(", "));
    }
    Ok(())
}
