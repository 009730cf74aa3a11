//! Gives a table of the head another definition: by ALTER TABLE where that costs nothing, by a new table with
//! the rows of the old one where it does not do.

use rusqlite::Connection;

use super::catalog::lower;
use super::text::{Definition, Names};
use super::wanted::Wanted;
use crate::error::Result;
use crate::rows_by_key::{key_names, rowid_is_a_column};
use crate::sql::{self, quoted};

/// The new table while it is filled. Nobody else sees the name.
const SCRATCH: &str = "highwater_scratch";

/// What SQLite says to something that may fail.
pub(super) type Tried<T> = rusqlite::Result<T>;

/// Whether the reason is something that this SQLite does not have, and not what was asked.
pub(crate) fn lacks(error: &rusqlite::Error) -> bool {
    let text = error.to_string();
    [
        "no such function",
        "unknown function",
        "no such collation",
        "no such module",
        "no such tokenizer",
        "unknown tokenizer",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// Runs `steps` so that a failure leaves no trace.
pub(crate) fn savepoint<T>(head: &Connection, steps: impl FnOnce() -> Tried<T>) -> Tried<T> {
    head.execute_batch("SAVEPOINT highwater_step")?;
    let done = steps();
    let end = if done.is_ok() {
        "RELEASE highwater_step"
    } else {
        "ROLLBACK TO highwater_step; RELEASE highwater_step"
    };
    head.execute_batch(end)?;
    done
}

/// Renames something. A view or trigger that was of no use before, because what it names is gone, does not stand in
/// the way: it stays as it is.
pub(super) fn rename(head: &Connection, sql: &str) -> Tried<()> {
    match savepoint(head, || head.execute_batch(sql)) {
        Err(error) if !lacks(&error) => {
            head.execute_batch("PRAGMA writable_schema = ON")?;
            let done = savepoint(head, || head.execute_batch(sql));
            head.execute_batch("PRAGMA writable_schema = OFF")?;
            done
        }
        done => done,
    }
}

/// The present definition of a table.
pub(super) fn definition(head: &Connection, table: &str) -> Result<Definition> {
    let text = head
        .query_row(
            "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
            [table],
            |row| row.get::<_, String>(0),
        )
        .map_err(sql::failed("read the definition of a table"))?;
    Definition::parse(&text)
        .ok_or_else(|| crate::Error::Damaged(format!("the definition of table {table:?} cannot be read")))
}

/// Drops and adds columns as far as SQLite does that in place; what it refuses is left to [`rebuild`].
pub(super) fn alter(head: &Connection, table: &str, wanted: &Wanted) -> Result<bool> {
    let now = definition(head, table)?;
    for column in &now.columns {
        let kept =
            |source: &Option<String>| source.as_ref().is_some_and(|name| lower(name) == lower(&column.name));
        if !wanted.sources.iter().any(kept) {
            let drop = format!("ALTER TABLE {} DROP COLUMN {}", quoted(table), quoted(&column.name));
            let _left_to_rebuild = head.execute_batch(&drop);
        }
    }
    for (column, source) in wanted.definition.columns.iter().zip(&wanted.sources) {
        if source.is_none() {
            let add = format!("ALTER TABLE {} ADD COLUMN {}", quoted(table), column.sql());
            let _left_to_rebuild = head.execute_batch(&add);
        }
    }
    Ok(definition(head, table)?.same(&wanted.definition, &Names::new()))
}

/// Adds the missing columns without their constraints, so that rows have a place for their values.
pub(super) fn add_places(
    head: &Connection,
    table: &str,
    wanted: &Wanted,
    local: (&Connection, &str),
) -> Result<()> {
    let there: Vec<_> = definition(head, table)?.columns.iter().map(|column| lower(&column.name)).collect();
    for (column, source) in wanted.definition.columns.iter().zip(&wanted.sources) {
        if source.is_some() || there.contains(&lower(&column.name)) {
            continue;
        }
        let kind: String = local
            .0
            .query_row(
                "SELECT coalesce(max(type), '') FROM pragma_table_xinfo(?1) WHERE name = ?2 COLLATE NOCASE AND hidden = 0",
                [local.1, &column.name],
                |row| row.get(0),
            )
            .map_err(sql::failed("read the columns of a table"))?;
        let add = format!("ALTER TABLE {} ADD COLUMN {} {kind}", quoted(table), quoted(&column.name));
        head.execute_batch(&add).map_err(sql::failed("add a column"))?;
    }
    Ok(())
}

/// Makes the table anew. `sources` may name columns that are not there: those have their default. Indexes and
/// triggers that do not fit the new table any more are missing afterwards.
pub(super) fn rebuild(head: &Connection, table: &str, wanted: &Wanted) -> Tried<()> {
    let belonging = belonging(head, table)?;
    let sequence = sequence(head, table)?;
    let statistics = statistics(head, table)?;
    let done = savepoint(head, || {
        head.execute_batch("PRAGMA legacy_alter_table = ON")?;
        head.execute_batch(&wanted.definition.sql(SCRATCH))?;
        copy(head, table, wanted)?;
        head.execute_batch(&format!(
            "DROP TABLE {table}; ALTER TABLE {SCRATCH} RENAME TO {table}",
            table = quoted(table)
        ))?;
        if let Some(sequence) = sequence {
            set_sequence(head, table, sequence)?;
        }
        for insert in &statistics {
            head.execute_batch(insert)?;
        }
        Ok(())
    });
    head.execute_batch("PRAGMA legacy_alter_table = OFF")?;
    done?;
    for text in belonging {
        let _missing_is_seen_later = head.execute_batch(&text);
    }
    Ok(())
}

fn belonging(head: &Connection, table: &str) -> Tried<Vec<String>> {
    let mut statement = head.prepare(
        "SELECT sql FROM sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE AND type IN ('index', 'trigger') \
         AND sql IS NOT NULL ORDER BY rowid",
    )?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

fn copy(head: &Connection, table: &str, wanted: &Wanted) -> Tried<()> {
    let columns = |of: &str| -> Tried<Vec<(String, i64)>> {
        let mut statement = head.prepare("SELECT name, hidden FROM pragma_table_xinfo(?1)")?;
        statement.query_map([of], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let (from, to) = (columns(table)?, columns(SCRATCH)?);
    let mut pairs = Vec::new();
    for (column, source) in wanted.definition.columns.iter().zip(&wanted.sources) {
        let source = source.as_ref().unwrap_or(&column.name);
        let written = to.iter().any(|(name, hidden)| name == &column.name && *hidden == 0);
        if written && from.iter().any(|(name, _)| lower(name) == lower(source)) {
            pairs.push((quoted(&column.name), quoted(source)));
        }
    }
    // Rows keep their rowid, which nobody declared but everybody may have remembered.
    let free = |alias: &&str| !from.iter().chain(&to).any(|(name, _)| lower(name) == **alias);
    let has = |of: &str, alias: &str| head.prepare(&format!("SELECT {alias} FROM {}", quoted(of))).is_ok();
    let alias = ["rowid", "_rowid_", "oid"].into_iter().find(free).filter(|alias| has(table, alias));
    match alias {
        Some(alias) if rowid_is_a_column(head, SCRATCH)? => {
            // A row that has no number in the new key is still told apart by the old one.
            let key =
                key_names(head, SCRATCH).ok().and_then(|names| names.into_iter().next()).unwrap_or_default();
            match pairs.iter_mut().find(|(to, _)| *to == quoted(&key)) {
                Some((_, from)) => *from = format!("coalesce({from}, {alias})"),
                None => pairs.push((quoted(&key), alias.to_owned())),
            }
        }
        Some(alias) if has(SCRATCH, alias) => pairs.push((alias.to_owned(), alias.to_owned())),
        _ => {}
    }
    let (to, from): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    if to.is_empty() {
        return Ok(());
    }
    head.execute_batch(&format!(
        "INSERT OR ABORT INTO {SCRATCH} ({}) SELECT {} FROM {}",
        to.join(", "),
        from.join(", "),
        quoted(table)
    ))
}

fn has_table(head: &Connection, table: &str) -> Tried<bool> {
    head.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)", [table], |row| row.get(0))
}

/// The AUTOINCREMENT of a table, which would be forgotten with it.
fn sequence(head: &Connection, table: &str) -> Tried<Option<i64>> {
    if !has_table(head, "sqlite_sequence")? {
        return Ok(None);
    }
    let sql = "SELECT max(seq) FROM sqlite_sequence WHERE name = ?1 COLLATE NOCASE";
    head.query_row(sql, [table], |row| row.get(0))
}

fn set_sequence(head: &Connection, table: &str, sequence: i64) -> Tried<()> {
    let text: String =
        head.query_row("SELECT sql FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE", [table], |row| {
            row.get(0)
        })?;
    if !super::text::normal(&text).contains(" autoincrement") {
        return Ok(());
    }
    let update = "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1 COLLATE NOCASE";
    if head.execute(update, (table, sequence))? == 0 {
        head.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", (table, sequence))?;
    }
    Ok(())
}

/// What ANALYZE knows about a table, as statements that bring it back: it would be forgotten with the table.
fn statistics(head: &Connection, table: &str) -> Tried<Vec<String>> {
    let mut inserts = Vec::new();
    for (name, columns) in [("sqlite_stat1", 3), ("sqlite_stat4", 6)] {
        if !has_table(head, name)? {
            continue;
        }
        let mut statement = head.prepare(&format!("SELECT * FROM {name} WHERE tbl = ?1 COLLATE NOCASE"))?;
        let mut rows = statement.query([table])?;
        while let Some(row) = rows.next()? {
            let values = (0..columns).map(|at| Ok(sql::value(row, at)?.to_string()));
            let values = values.collect::<Tried<Vec<_>>>()?.join(", ");
            inserts.push(format!("INSERT INTO {name} VALUES ({values})"));
        }
    }
    Ok(inserts)
}
