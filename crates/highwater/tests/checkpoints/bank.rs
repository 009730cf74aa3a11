//! A bank whose books balance in every committed state, and whose log has no gaps.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::common::Dice;

const ACCOUNTS: u64 = 400;
const TOTAL: i64 = 1000 * ACCOUNTS as i64;

/// A connection with nothing special but patience. It does not change the journal mode.
pub fn open(db: &Path) -> Connection {
    let connection = Connection::open(db).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection.execute_batch("PRAGMA synchronous=NORMAL; PRAGMA cache_size=10").unwrap();
    connection
}

pub fn found(connection: &Connection) {
    connection
        .execute_batch(&format!(
            "BEGIN;
             CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT);
             CREATE INDEX richest ON accounts(balance);
             CREATE TABLE log(seq INTEGER PRIMARY KEY, source, target, amount, text);
             CREATE TABLE counter(entries);
             INSERT INTO counter VALUES(0);
             WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<{ACCOUNTS})
             INSERT INTO accounts SELECT i, 1000, hex(randomblob(20)) FROM c;
             COMMIT"
        ))
        .unwrap();
}

/// One transfer, or a large one that is rolled back.
pub fn transfer(connection: &mut Connection, dice: &mut Dice) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (source, target) = (1 + dice.below(ACCOUNTS) as i64, 1 + dice.below(ACCOUNTS) as i64);
    let amount = dice.below(50) as i64;
    tx.execute("UPDATE accounts SET balance=balance-?2 WHERE id=?1", (source, amount))?;
    tx.execute("UPDATE accounts SET balance=balance+?2 WHERE id=?1", (target, amount))?;
    // Mostly a few bytes, now and then a chain of overflow pages.
    let size = if dice.below(60) == 0 { 20_000 } else { dice.below(80) as i64 };
    tx.execute(
        "INSERT INTO log SELECT coalesce(max(seq),0)+1, ?1, ?2, ?3, hex(randomblob(?4)) FROM log",
        (source, target, amount, size),
    )?;
    tx.execute("UPDATE counter SET entries=entries+1", [])?;
    match dice.below(100) {
        0 => {
            tx.execute("UPDATE accounts SET balance=balance+1, note=hex(randomblob(300))", [])?;
            tx.rollback()
        }
        // Large texts go, so that the file shrinks when it is vacuumed; the entries stay.
        1 => {
            tx.execute("UPDATE log SET text='' WHERE length(text)>200", [])?;
            tx.commit()
        }
        _ => tx.commit(),
    }
}

/// The books balance and no entry is missing. Returns the number of entries.
pub fn audit(db: &Path, deep: bool, case: &str) -> i64 {
    let connection = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    audit_on(&connection, deep, case)
}

pub fn audit_on(connection: &Connection, deep: bool, case: &str) -> i64 {
    let tx = connection.unchecked_transaction().unwrap();
    let number = |sql: &str| -> i64 {
        tx.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{case}: {sql}: {error}"))
    };
    assert_eq!(number("SELECT sum(balance) FROM accounts"), TOTAL, "{case}: money");
    let entries = number("SELECT entries FROM counter");
    assert_eq!(number("SELECT count(*) FROM log"), entries, "{case}: entries");
    assert_eq!(number("SELECT coalesce(max(seq),0) FROM log"), entries, "{case}: gaps");
    if deep {
        let check: String = tx.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{case}");
    }
    entries
}
