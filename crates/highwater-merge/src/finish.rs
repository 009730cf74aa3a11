//! What a database knows beside its rows: sequences, versions, and the cookie of the schema.

use highwater_ltx::planted;
use highwater_wire::{Conflict, ConflictKind, Kept, MergePolicy, SqlValue};
use rusqlite::Connection;

use crate::error::Result;
use crate::ids::has_sequence;
use crate::sql::{failed, value};
use crate::table::Context;
use crate::tables::Table;

/// `sqlite_sequence` takes the larger value where local counted on.
pub(crate) fn sequences(cx: &Context<'_>, tables: &[Table<'_>]) -> Result<()> {
    if planted("sequence-stays") || !has_sequence(cx.head)? || !has_sequence(cx.local)? {
        return Ok(());
    }
    let failed = failed("merge the last ids of tables");
    let read = |side: &Connection, name: &str| -> Result<Option<i64>> {
        let sql = "SELECT max(CAST(seq AS INTEGER)) FROM sqlite_sequence WHERE name = ?1 COLLATE NOCASE";
        side.prepare_cached(sql)
            .and_then(|mut found| found.query_row([name], |row| row.get(0)))
            .map_err(&failed)
    };
    let counts =
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 AND sql LIKE '%autoincrement%'";
    for map in tables.iter().map(|table| table.map) {
        let (Some(local), Some(head)) = (&map.local, &map.head) else { continue };
        let Some(mine) = read(cx.local, local)? else { continue };
        let before = match &map.base {
            Some(base) if has_sequence(cx.base)? => read(cx.base, base)?,
            _ => None,
        };
        let theirs = read(cx.head, head)?;
        if before == Some(mine) || theirs.is_some_and(|theirs| theirs >= mine) {
            continue;
        }
        let counted =
            cx.head.prepare_cached(counts).and_then(|mut found| found.exists([head])).map_err(&failed)?;
        let sql = match theirs {
            Some(_) => "UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1 COLLATE NOCASE",
            None if counted => "INSERT INTO sqlite_sequence(name, seq) VALUES (?1, ?2)",
            None => continue,
        };
        cx.head.execute(sql, (head, mine)).map_err(&failed)?;
    }
    Ok(())
}

fn pragma(side: &Connection, name: &str) -> Result<i64> {
    side.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
        .map_err(failed("read the version of a database"))
}

/// `user_version` and `application_id`, as two columns of one row.
pub(crate) fn versions(cx: &Context<'_>) -> Result<Vec<Conflict>> {
    let mut conflicts = Vec::new();
    for name in ["user_version", "application_id"] {
        let (base, local, head) = (pragma(cx.base, name)?, pragma(cx.local, name)?, pragma(cx.head, name)?);
        if local == base || local == head || planted("user-version-stays") {
            continue;
        }
        let mut wins = true;
        if head != base {
            wins = cx.policy != MergePolicy::FirstPushWins;
            let whose = if wins { "the device's" } else { "the server's" };
            let row = |value| Some(vec![(name.to_owned(), SqlValue::Integer(value))]);
            conflicts.push(Conflict {
                kind: ConflictKind::Schema,
                table: name.to_owned(),
                key: Vec::new(),
                other_key: Vec::new(),
                columns: Vec::new(),
                base: row(base),
                local: row(local),
                head: row(head),
                kept: if wins { Kept::Local } else { Kept::Head },
                sql: Some(format!("PRAGMA {name} = {}", if wins { head } else { local })),
                message: format!("{name} was changed by both: {whose} value stays"),
            });
        }
        if wins {
            let sql = format!("PRAGMA {name} = {local}");
            cx.head.execute_batch(&sql).map_err(failed("write the version of a database"))?;
        }
    }
    Ok(conflicts)
}

/// A schema as an open connection knows it: every row in its order, with root pages.
pub(crate) fn schema(side: &Connection) -> Result<Vec<Vec<SqlValue>>> {
    let failed = failed("read the schema");
    let sql = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid";
    let mut statement = side.prepare(sql).map_err(&failed)?;
    let rows = statement.query_map([], |row| (0..5).map(|at| value(row, at)).collect()).map_err(&failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(&failed)
}

/// An open connection that keeps its cookie keeps the root pages that it knows: the result has a larger cookie
/// than each side that has another schema, and never a smaller one.
pub(crate) fn cookie(cx: &Context<'_>, head_schema: &[Vec<SqlValue>], head_cookie: i64) -> Result<()> {
    let merged = schema(cx.head)?;
    let (now, local) = (pragma(cx.head, "schema_version")?, pragma(cx.local, "schema_version")?);
    let largest = head_cookie.max(local);
    let differs = merged != head_schema || merged != schema(cx.local)?;
    let wanted = if differs { now.max(largest + 1) } else { now.max(largest) };
    if wanted != now && !planted("schema-version-stays") {
        let sql = format!("PRAGMA schema_version = {wanted}");
        cx.head.execute_batch(&sql).map_err(failed("write the version of the schema"))?;
    }
    Ok(())
}

/// The cookie of a schema.
pub(crate) fn schema_version(side: &Connection) -> Result<i64> {
    pragma(side, "schema_version")
}
