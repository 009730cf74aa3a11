//! How much of one database another one has, by rows.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// The stored columns of a table.
pub(super) const COLUMNS: &str = "SELECT name FROM pragma_table_info(?1, 'main') ORDER BY cid";
/// Its primary key.
pub(super) const KEY: &str = "SELECT name FROM pragma_table_info(?1, 'main') WHERE pk ORDER BY pk";

/// What there is in one database, and how much of it is in the other too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Share {
    /// Rows of all tables.
    pub(super) rows: u64,
    /// Of those, the ones that the other has with the same values, counted as often as they occur.
    pub(super) kept: u64,
    /// Of those, the ones whose key the other has, whatever the values.
    pub(super) keys: u64,
    /// Tables.
    pub(super) tables: u64,
    /// Of those, the ones that the other has by name.
    pub(super) common_tables: u64,
    /// Whether the other has every object of the schema as it is, and the same user version and
    /// application id.
    pub(super) schema: bool,
}

impl Share {
    /// Whether nothing is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.schema && self.kept == self.rows
    }

    /// Whether the same tables still have most of the same keys: an update of every row leaves
    /// those.
    pub(super) fn was_rewritten(&self) -> bool {
        self.schema && self.keys * 2 >= self.rows
    }

    /// Whether at least half is there.
    pub(super) fn is_related(&self) -> bool {
        self.common_tables > 0 && self.kept * 2 >= self.rows
    }
}

/// Counts what `theirs` has, and how much of it `ours` has too.
pub(super) fn compare(ours: &Path, theirs: &Path) -> rusqlite::Result<Share> {
    let conn = open(theirs)?;
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    let mut share = Share::default();
    // A database of another text encoding cannot be attached, nor be the same.
    let attached = conn.execute("ATTACH ?1 AS ours", [ours.to_string_lossy()]).is_ok();
    let tables = tables(&conn)?;
    for table in &tables {
        let name = quoted(table);
        let rows = number(&format!("SELECT count(*) FROM main.{name}"))?;
        share.rows += rows;
        share.tables += 1;
        if !attached {
            continue;
        }
        let exists = "SELECT count(*) FROM ours.sqlite_schema WHERE type='table' AND name=?1";
        share.common_tables += conn.query_row(exists, [table], |row| row.get::<_, i64>(0))?.unsigned_abs();
        // A table that ours lacks, or has with other columns, keeps none.
        let missing = columns(&conn, table).and_then(|columns| number(&missing_rows(&name, &columns)));
        share.kept += rows.saturating_sub(missing.unwrap_or(rows));
        let missing = number(&missing_keys(&name, "rowid")).or_else(|_| {
            let key = key(&conn, table)?;
            number(&missing_keys(&name, &key))
        });
        share.keys += rows.saturating_sub(missing.unwrap_or(rows));
    }
    share.schema = attached && same_schema(&conn)?;
    Ok(share)
}

/// How many rows of `ours` have a key that `base` has too, and values that neither `base` nor `older`
/// has under it.
pub(super) fn new_values(ours: &Path, base: &Path, older: &Path) -> rusqlite::Result<u64> {
    let conn = open(base)?;
    conn.execute("ATTACH ?1 AS ours", [ours.to_string_lossy()])?;
    conn.execute("ATTACH ?1 AS older", [older.to_string_lossy()])?;
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    let mut found = 0;
    for table in tables(&conn)? {
        let (name, columns) = (quoted(&table), columns(&conn, &table)?);
        let is_known = |key: &str, columns: &str| {
            let rows = |schema: &str| format!("SELECT {columns} FROM {schema}.{name}");
            let of_base = format!("({key}) IN (SELECT {key} FROM main.{name})");
            let (ours, main) = (rows("ours"), rows("main"));
            let changed = format!("{ours} WHERE {of_base} EXCEPT {main}");
            // A table that is younger than the older position is compared with the base alone.
            count(&format!("SELECT count(*) FROM ({changed} EXCEPT {})", rows("older")))
                .or_else(|_| count(&format!("SELECT count(*) FROM ({changed})")))
        };
        found += is_known("rowid", &format!("rowid, {columns}"))
            .or_else(|_| is_known(&key(&conn, &table)?, &columns))?;
    }
    Ok(found)
}

/// How many rows of `base` that `older` has not are in `ours` with the same values. Of a table without a key it is the
/// values alone: VACUUM gives its rows other numbers.
pub(super) fn newer_rows_kept(ours: &Path, base: &Path, older: &Path) -> rusqlite::Result<u64> {
    let conn = open(base)?;
    conn.execute("ATTACH ?1 AS ours", [ours.to_string_lossy()])?;
    conn.execute("ATTACH ?1 AS older", [older.to_string_lossy()])?;
    let mut found = 0;
    for table in tables_as_they_are_read(&conn)? {
        let (name, columns) = (quoted(&table), columns(&conn, &table)?);
        let rows = |schema: &str| format!("SELECT {columns} FROM {schema}.{name}");
        let (main, older, ours) = (rows("main"), rows("older"), rows("ours"));
        let sql = format!("SELECT count(*) FROM ({main} EXCEPT {older} INTERSECT {ours})");
        // A table that one of them lacks proves nothing.
        found += conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_or(0, i64::unsigned_abs);
    }
    Ok(found)
}

/// Whether `ours` has anything that `older` had and `base` has not any more: a definition, or a row with its values.
pub(super) fn is_back(ours: &Path, base: &Path, older: &Path) -> rusqlite::Result<bool> {
    let conn = open(older)?;
    conn.execute("ATTACH ?1 AS ours", [ours.to_string_lossy()])?;
    conn.execute("ATTACH ?1 AS base", [base.to_string_lossy()])?;
    let any = |sql: &str| conn.query_row(&format!("SELECT EXISTS ({sql})"), [], |row| row.get::<_, bool>(0));
    let gone = |what: &str, from: &str| {
        let [main, base, ours] =
            ["main", "base", "ours"].map(|schema| format!("SELECT {what} FROM {schema}.{from}"));
        any(&format!("{main} EXCEPT {base} INTERSECT {ours}"))
    };
    if gone("type, name, tbl_name, sql", "sqlite_schema")? {
        return Ok(true);
    }
    for table in tables(&conn)? {
        let sql = "SELECT EXISTS (SELECT 1 FROM ours.sqlite_schema WHERE type = 'table' AND name = ?1)";
        // What the base lacks, or has with other columns, may be back: better safe.
        if conn.query_row(sql, [&table], |row| row.get::<_, bool>(0))?
            && gone(&columns(&conn, &table)?, &quoted(&table)).unwrap_or(true)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(conn)
}

/// The names of main's ordinary tables, those of virtual tables' contents included.
fn tables(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    conn.prepare(
        "SELECT name FROM main.sqlite_schema WHERE type='table' AND sql NOT LIKE 'CREATE VIRTUAL%' \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}

/// The names of main's tables, virtual ones among them, but not what those are made of: two
/// full-text tables that had nothing in common name the parts of their indexes alike.
pub(super) fn tables_as_they_are_read(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    conn.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual') \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}

/// Every object of main's schema is in ours, and so are the numbers that applications set.
fn same_schema(conn: &Connection) -> rusqlite::Result<bool> {
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let lost = number(
        "SELECT count(*) FROM (SELECT type, name, tbl_name, sql FROM main.sqlite_schema \
         EXCEPT SELECT type, name, tbl_name, sql FROM ours.sqlite_schema)",
    )?;
    let same = |pragma: &str| {
        let (theirs, ours) = (format!("PRAGMA main.{pragma}"), format!("PRAGMA ours.{pragma}"));
        Ok::<_, rusqlite::Error>(number(&theirs)? == number(&ours)?)
    };
    Ok(lost == 0 && same("user_version")? && same("application_id")?)
}

/// Rows of main's table that ours has not, counting equal rows as often as they occur.
fn missing_rows(table: &str, columns: &str) -> String {
    let numbered = |schema: &str| {
        format!("SELECT {columns}, row_number() OVER (PARTITION BY {columns}) FROM {schema}.{table}")
    };
    format!("SELECT count(*) FROM ({} EXCEPT {})", numbered("main"), numbered("ours"))
}

fn missing_keys(table: &str, key: &str) -> String {
    format!("SELECT count(*) FROM (SELECT {key} FROM main.{table} EXCEPT SELECT {key} FROM ours.{table})")
}

/// The stored columns of a table, as a list for SQL.
fn columns(conn: &Connection, table: &str) -> rusqlite::Result<String> {
    Ok(names(conn, COLUMNS, table)?.join(", "))
}

/// The primary key of a table, as a list for SQL.
fn key(conn: &Connection, table: &str) -> rusqlite::Result<String> {
    Ok(names(conn, KEY, table)?.join(", "))
}

pub(super) fn names(conn: &Connection, sql: &str, table: &str) -> rusqlite::Result<Vec<String>> {
    conn.prepare(sql)?
        .query_map([table], |row| row.get::<_, String>(0))?
        .map(|name| name.map(|name| quoted(&name)))
        .collect()
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(theirs: &str, ours: &str) -> Share {
        let folder = tempfile::tempdir().unwrap();
        let paths = (folder.path().join("a b.db"), folder.path().join("ä.db"));
        Connection::open(&paths.0).unwrap().execute_batch(ours).unwrap();
        Connection::open(&paths.1).unwrap().execute_batch(theirs).unwrap();
        compare(&paths.0, &paths.1).unwrap()
    }

    #[test]
    fn rows_are_counted_by_content_and_table() {
        let found = share(
            "CREATE TABLE t(x); CREATE TABLE \"q\"\"q\"(y); \
             INSERT INTO t VALUES(1),(2),(3); INSERT INTO \"q\"\"q\" VALUES(9)",
            "CREATE TABLE t(x); INSERT INTO t VALUES(2),(3),(4)",
        );
        assert_eq!(found, Share { rows: 4, kept: 2, keys: 3, tables: 2, common_tables: 1, schema: false });
        assert!(!found.is_whole() && found.is_related());
    }

    #[test]
    fn a_lost_duplicate_view_or_empty_table_is_missed() {
        let table = "CREATE TABLE t(x); INSERT INTO t VALUES(1),(1)";
        assert!(share(table, table).is_whole());
        assert!(!share(table, "CREATE TABLE t(x); INSERT INTO t VALUES(1),(2)").is_whole());
        for more in ["CREATE VIEW v AS SELECT 1", "CREATE TABLE empty(x)", "PRAGMA user_version=3"] {
            assert!(!share(&format!("{table}; {more}"), table).is_whole(), "{more}");
        }
        assert!(share(table, &format!("{table}; CREATE TABLE mine(x); INSERT INTO t VALUES(5)")).is_whole());
    }

    #[test]
    fn a_value_that_was_set_back_is_not_new_and_one_under_a_taken_key_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let table =
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID";
        let make = |name: &str, rows: &str| {
            let sql = format!("{table}; INSERT INTO w VALUES('a', 1); INSERT INTO t VALUES {rows}");
            Connection::open(path(name)).unwrap().execute_batch(&sql).unwrap();
        };
        make("older", "(1, 'old'), (2, 'same')");
        make("base", "(1, 'new'), (2, 'same'), (3, 'theirs')");
        make("back", "(1, 'old'), (2, 'same'), (3, 'theirs'), (4, 'mine')");
        make("restored", "(1, 'old'), (2, 'same'), (3, 'mine')");
        assert_eq!(new_values(&path("back"), &path("base"), &path("older")).unwrap(), 0);
        assert_eq!(new_values(&path("restored"), &path("base"), &path("older")).unwrap(), 1);
        assert_eq!(newer_rows_kept(&path("back"), &path("base"), &path("older")).unwrap(), 1);
        assert_eq!(newer_rows_kept(&path("restored"), &path("base"), &path("older")).unwrap(), 0);
        let bag = |name: &str, rows: &str| {
            let sql = format!("CREATE TABLE bag(x); INSERT INTO bag(rowid, x) VALUES {rows}");
            Connection::open(path(name)).unwrap().execute_batch(&sql).unwrap();
        };
        bag("bag older", "(1, 'a')");
        bag("bag base", "(1, 'a'), (9, 'new')");
        bag("bag vacuumed", "(1, 'a'), (2, 'new')");
        bag("bag undone", "(1, 'a'), (2, 'new'), (3, 'gone')");
        bag("bag when older", "(1, 'a'), (2, 'gone')");
        let (base, older) = (path("bag base"), path("bag older"));
        assert_eq!(newer_rows_kept(&path("bag vacuumed"), &base, &older).unwrap(), 1);
        let when_older = path("bag when older");
        assert!(!is_back(&path("bag vacuumed"), &base, &when_older).unwrap());
        assert!(is_back(&path("bag undone"), &base, &when_older).unwrap());
    }

    #[test]
    fn the_parts_of_an_index_are_no_rows_that_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let make = |name: &str, then: &str| {
            let sql = format!(
                "CREATE VIRTUAL TABLE docs USING fts5(text); CREATE VIRTUAL TABLE places USING rtree(id, west, east);
                 INSERT INTO docs VALUES ('first'); INSERT INTO places VALUES (1, 1, 2); {then}"
            );
            Connection::open(path(name)).unwrap().execute_batch(&sql).unwrap();
        };
        make("older", "");
        make("base", "INSERT INTO docs VALUES ('theirs'); INSERT INTO places VALUES (2, 3, 4)");
        make("behind", "INSERT INTO docs VALUES ('mine'); INSERT INTO places VALUES (2, 5, 6)");
        let kept = |ours: &str| newer_rows_kept(&path(ours), &path("base"), &path("older")).unwrap();
        assert_eq!((kept("base"), kept("behind")), (2, 0));
    }

    #[test]
    fn keys_are_those_of_the_table() {
        let table = "CREATE TABLE w(a TEXT, b, c, PRIMARY KEY(b, a)) WITHOUT ROWID";
        let found = share(
            &format!("{table}; INSERT INTO w VALUES('x',1,1),('y',1,1)"),
            &format!("{table}; INSERT INTO w VALUES('x',1,2)"),
        );
        assert_eq!((found.rows, found.kept, found.keys), (2, 0, 1));
        let other = share("CREATE TABLE t(x)", "PRAGMA encoding='UTF-16le'; CREATE TABLE t(x)");
        assert!(!other.schema && other.common_tables == 0);
    }
}
