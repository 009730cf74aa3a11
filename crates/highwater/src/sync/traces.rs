//! What of a position's rows a file shows, be they changed since: whether it ever had them.
//!
//! A row leaves a trace if the file has it under the same key, either as it is, or with at least one value of it that could
//! hardly be anybody's. Numbers and flags are everywhere, and say nothing by themselves.

use std::path::Path;

use rusqlite::Connection;

use super::compare::{COLUMNS, KEY, names, open, quoted, tables_as_they_are_read};

/// What a file shows of the rows of a position, or of those that came after an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Traces {
    /// Rows that are new or changed.
    pub(super) rows: u64,
    /// Of those, the ones that left a trace.
    pub(super) seen: u64,
    /// Rows that are gone or changed, and are in the file as they were before.
    pub(super) outdated: u64,
}

/// For each row that a file may have deleted or may never have had, so many must show that it had them.
const SEEN_FOR_EACH_MISSING: u64 = 8;

impl Traces {
    /// Whether the file has had the rows: what is missing was deleted in it.
    pub(super) fn show_that_all_came(&self) -> bool {
        let missing = self.rows - self.seen;
        self.seen > 0 && self.outdated == 0 && missing * SEEN_FOR_EACH_MISSING <= self.seen
    }
}

/// What `ours` shows of the rows of `theirs` that are not in `older` (None: of all).
pub(super) fn traces(ours: &Path, theirs: &Path, older: Option<&Path>) -> rusqlite::Result<Traces> {
    let conn = open(theirs)?;
    conn.execute("ATTACH ?1 AS ours", [ours.to_string_lossy()])?;
    match older {
        Some(older) => conn.execute("ATTACH ?1 AS older", [older.to_string_lossy()])?,
        None => conn.execute("ATTACH ':memory:' AS older", [])?,
    };
    let mut all = Traces::default();
    for table in tables_as_they_are_read(&conn)? {
        let found = Compared::new(&conn, &table)?.traces()?;
        all.rows += found.rows;
        all.seen += found.seen;
        all.outdated += found.outdated;
    }
    Ok(all)
}

/// One table in the three databases.
struct Compared<'c> {
    conn: &'c Connection,
    table: String,
    /// What knows a row, and everything that it has.
    key: Vec<String>,
    columns: Vec<String>,
}

impl<'c> Compared<'c> {
    fn new(conn: &'c Connection, table: &str) -> rusqlite::Result<Self> {
        let columns = names(conn, COLUMNS, table)?;
        let has_rowid = conn.prepare(&format!("SELECT rowid FROM main.{}", quoted(table))).is_ok();
        let key = if has_rowid { vec!["rowid".to_owned()] } else { names(conn, KEY, table)? };
        Ok(Self { conn, table: quoted(table), key, columns })
    }

    fn traces(&self) -> rusqlite::Result<Traces> {
        let (main, ours, older) = (self.all("main"), self.all("ours"), self.all("older"));
        // A table that is missing, or has other columns, has none of these rows.
        let is_there = |rows: &str| self.conn.prepare(rows).is_ok();
        let new = if is_there(&older) { format!("{main} EXCEPT {older}") } else { main.clone() };
        let ours = if is_there(&ours) { ours } else { format!("{main} LIMIT 0") };
        let older = if is_there(&older) { older } else { format!("{main} LIMIT 0") };
        let same_key = |with: &str| {
            let parts: Vec<_> = (0..self.key.len()).map(|at| format!("n.k{at} IS {with}.k{at}")).collect();
            parts.join(" AND ")
        };
        let sql = format!(
            "SELECT count(*), coalesce(sum(o.k0 IS NOT NULL AND (({}) OR ({}))), 0) FROM ({new}) n \
             LEFT JOIN ({ours}) o ON {} LEFT JOIN ({older}) b ON {}",
            self.each(" AND ", |column| format!("n.{column} IS o.{column}")),
            self.each(" OR ", |column| format!(
                "n.{column} IS o.{column} AND n.{column} IS NOT b.{column} AND {}",
                telling(&format!("n.{column}"))
            )),
            same_key("o"),
            same_key("b"),
        );
        let count = |row: &rusqlite::Row<'_>, at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
        let (rows, seen) = self.conn.query_row(&sql, [], |row| Ok((count(row, 0)?, count(row, 1)?)))?;
        let gone = format!(
            "SELECT count(*) FROM (SELECT * FROM (SELECT * FROM ({older}) EXCEPT {main}) INTERSECT SELECT * FROM ({ours}))"
        );
        let outdated = self.conn.query_row(&gone, [], |row| count(row, 0))?;
        Ok(Traces { rows, seen, outdated })
    }

    /// The rows of the table in one of the databases, with keys `k0…` and columns `c0…`.
    fn all(&self, schema: &str) -> String {
        let named = |names: &[String], letter: char| {
            let parts: Vec<_> =
                names.iter().enumerate().map(|(at, name)| format!("{name} AS {letter}{at}")).collect();
            parts.join(", ")
        };
        format!(
            "SELECT {}, {} FROM {schema}.{}",
            named(&self.key, 'k'),
            named(&self.columns, 'c'),
            self.table
        )
    }

    fn each(&self, between: &str, of: impl Fn(&str) -> String) -> String {
        let parts: Vec<_> =
            (0..self.columns.len()).map(|at| format!("({})", of(&format!("c{at}")))).collect();
        parts.join(between)
    }
}

/// Whether a value could hardly be anybody's.
fn telling(value: &str) -> String {
    format!(
        "((typeof({value}) IN ('text', 'blob') AND length({value}) > 2) \
         OR (typeof({value}) = 'integer' AND {value} NOT BETWEEN -9999 AND 9999))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_leaves_a_trace_in_any_value_that_could_hardly_be_anybodys() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let make = |name: &str, rows: &str| {
            let sql = format!(
                "CREATE TABLE t(id INTEGER PRIMARY KEY, title, at, done); CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID; {rows}"
            );
            Connection::open(path(name)).unwrap().execute_batch(&sql).unwrap();
        };
        make("older", "INSERT INTO t VALUES (1, 'Buy milk', 1700000000001, 0), (4, 'Call Ada', NULL, 0)");
        make(
            "theirs",
            "INSERT INTO t VALUES (1, 'Buy milk', 1700000000001, 1), (2, 'Buy tea', 1700000000002, 0), (3, 'Buy bread', 1700000000003, 0); \
             INSERT INTO w VALUES ('key', 'value')",
        );
        make(
            "changed",
            "INSERT INTO t VALUES (1, 'Buy cheese', 5, 1), (2, 'Buy tea', NULL, 1), (3, 'Go', 1, 0); INSERT INTO w VALUES ('key', 1)",
        );
        make("restored", "INSERT INTO t VALUES (1, 'Buy milk', 1700000000001, 0), (4, 'Call Ada', NULL, 0)");
        let found = |ours: &str, older: Option<&str>| {
            let older = older.map(path);
            traces(&path(ours), &path("theirs"), older.as_deref()).unwrap()
        };
        assert_eq!(found("changed", None), Traces { rows: 4, seen: 2, outdated: 0 });
        assert_eq!(found("changed", Some("older")), Traces { rows: 4, seen: 2, outdated: 0 });
        assert_eq!(found("restored", None), Traces { rows: 4, seen: 1, outdated: 0 });
        assert_eq!(found("restored", Some("older")), Traces { rows: 4, seen: 0, outdated: 2 });
    }
}
