//! Which of the server's positions a file without metadata descends from, when it has changes of
//! its own on top.
//!
//! The server knows between which two positions the unchanged pages of the file fit. Taking the
//! newest would make everything that the file does not have look deleted; taking the oldest would
//! make its own history look like another device's. So the rows decide: if the file has every row
//! of the server's head, nothing can be lost by taking the head as its base. If it shares next to
//! nothing with the server's position, it is a stranger.

use std::path::Path;

use highwater_ltx::{Position, TxId};
use highwater_pages::Delta;
use rusqlite::{Connection, OpenFlags};

use super::Run;
use crate::error::{Error, Result};
use crate::receive::each_page;

/// A file that shares at least so many pages, and half of all, with a position descends from it.
const MANY_PAGES: u32 = 16;
/// A server's database of up to so many bytes is fetched for its rows when no page is known.
const FEW_BYTES: u64 = 1 << 20;

impl Run<'_> {
    /// The position to take as the base of a file whose oldest fitting position is `oldest`. None:
    /// the file is a stranger.
    pub(crate) fn choose_descent(
        &self,
        all: &Delta,
        oldest: Position,
        oldest_txid: TxId,
        known_pages: u32,
    ) -> Result<Option<(Position, TxId)>> {
        let Some(info) = self.api.info()? else { return Ok(None) };
        let head = Position::try_from(&info.head).map_err(|error| self.api.bad(error.to_string()))?;
        let akin = known_pages >= MANY_PAGES && u64::from(known_pages) * 2 >= u64::from(all.page_count.0);
        if head.state == oldest.state && akin {
            return Ok(Some((oldest, oldest_txid)));
        }
        let share = self.rows_kept(head)?;
        tracing::debug!(rows = share.rows, kept = share.kept, "compared the rows with the server's head");
        if share.rows == share.kept {
            return Ok(Some((head, TxId(info.txid))));
        }
        let related = akin || share.kept * 2 >= share.rows;
        Ok(related.then_some((oldest, oldest_txid)))
    }

    /// The server's head, if the local file has every row of it and it is small: then it can be the
    /// base of a file none of whose pages the server knows. None: the file is a stranger.
    pub(crate) fn small_head_by_rows(&self) -> Result<Option<(Position, TxId)>> {
        let Some(info) = self.api.info()? else { return Ok(None) };
        if u64::from(info.page_count) * u64::from(info.page_size) > FEW_BYTES {
            return Ok(None);
        }
        let head = Position::try_from(&info.head).map_err(|error| self.api.bad(error.to_string()))?;
        Ok(self.keeps_all_rows(head)?.then_some((head, TxId(info.txid))))
    }

    /// Whether the local file has every row of the server's database at `position`, and there are any.
    pub(crate) fn keeps_all_rows(&self, position: Position) -> Result<bool> {
        let share = self.rows_kept(position)?;
        tracing::debug!(rows = share.rows, kept = share.kept, at = %position.place(), "compared the rows");
        Ok(share.rows > 0 && share.rows == share.kept)
    }

    /// Refuses a file that has no page and no table in common with what it is said to be based on: it
    /// is another database under the same name. That its log continues would prove otherwise.
    pub(crate) fn refuse_stranger(&self, delta: &Delta, base: Position) -> Result<()> {
        let pages = delta.page_count.data_page_count(delta.page_size) as usize;
        if delta.changed.len() < pages {
            return Ok(());
        }
        match self.rows_kept(base) {
            Ok(share) if share.tables > 0 && share.common_tables == 0 => Err(self.stranger()),
            // The sync request itself will say what is wrong.
            Ok(_) | Err(Error::UnknownDatabase { .. } | Error::UnknownPosition { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Fetches the server's database at `position` and counts how many of its rows the local file
    /// has too.
    fn rows_kept(&self, position: Position) -> Result<Share> {
        let temp = tempfile::Builder::new().prefix(".highwater-compare-").tempdir_in(self.files.folder());
        let failed = |source| Error::Io {
            what: "making a temporary folder in",
            path: self.files.folder().to_path_buf(),
            source,
        };
        let temp = temp.map_err(failed)?;
        let copy = temp.path().join("server.db");
        let query = format!("at={}", position.place());
        let mut answer = self
            .api
            .snapshot(Some(&query))?
            .ok_or_else(|| Error::UnknownDatabase { remote: self.api.remote.to_string() })?;
        let mut file = None;
        let header = each_page(self.api.plain_body(&mut answer), |header, page, data, _| {
            let target = match &mut file {
                Some(target) => target,
                empty => empty.insert(highwater_pages::NewDatabase::create(&copy, header.page_size)?),
            };
            Ok(target.write(page, data)?)
        });
        let header = header.map_err(|error| self.receive_error(error))?;
        if let Some(file) = file {
            file.publish(header.commit)?;
        }
        compare(&self.files.db, &copy).map_err(|source| Error::Sqlite { db: self.files.db.clone(), source })
    }
}

/// How many rows and tables there are, and how many of them are in the other file too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Share {
    rows: u64,
    kept: u64,
    tables: u64,
    /// By name.
    common_tables: u64,
}

/// Counts the rows of every table of `theirs`, and those that `ours` has under the same table
/// name with the same values.
fn compare(ours: &Path, theirs: &Path) -> rusqlite::Result<Share> {
    let conn = Connection::open_with_flags(theirs, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.execute("ATTACH ?1 AS ours", [ours.to_string_lossy()])?;
    let tables: Vec<String> = conn
        .prepare(
            "SELECT name FROM main.sqlite_schema WHERE type='table' AND sql NOT LIKE 'CREATE VIRTUAL%' \
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut share = Share::default();
    for table in tables {
        let name = table.replace('"', "\"\"");
        let count = |sql: String| conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
        let rows = count(format!("SELECT count(*) FROM main.\"{name}\""))?;
        // A table that ours lacks, or has with other columns, keeps none.
        let missing = count(format!(
            "SELECT count(*) FROM (SELECT * FROM main.\"{name}\" EXCEPT SELECT * FROM ours.\"{name}\")"
        ));
        let exists = "SELECT count(*) FROM ours.sqlite_schema WHERE type='table' AND name=?1";
        share.common_tables += conn.query_row(exists, [&table], |row| row.get::<_, i64>(0))?.unsigned_abs();
        share.tables += 1;
        share.rows += rows;
        share.kept += rows.saturating_sub(missing.unwrap_or(rows));
    }
    Ok(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(path: &Path, sql: &str) {
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }

    #[test]
    fn rows_are_counted_by_content_and_table() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("a b.db"), folder.path().join("ä.db"));
        database(
            &theirs,
            "CREATE TABLE t(x); CREATE TABLE \"q\"\"q\"(y); INSERT INTO t VALUES(1),(2),(3); INSERT INTO \"q\"\"q\" VALUES(9)",
        );
        database(&ours, "CREATE TABLE t(x); INSERT INTO t VALUES(2),(3),(4)");
        assert_eq!(compare(&ours, &theirs).unwrap(), Share { rows: 4, kept: 2, tables: 2, common_tables: 1 });
    }
}
