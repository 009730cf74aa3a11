//! Values as another column would store them: '5' in a column of texts is 5 in one of integers.
//!
//! Where a column's type is not the same on all sides, base's and local's rows are compared as the merged table
//! would hold them; else every row would look changed.

use std::cell::OnceCell;

use highwater_wire::SqlValue;
use rusqlite::Connection;

use crate::access::{Access, SideRow};
use crate::error::Result;
use crate::sql::{Bind, failed, value};

/// What a column makes of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    Blob,
    Text,
    Numeric,
    Integer,
    Real,
}

impl Affinity {
    /// By SQLite's rules for declared types. In a STRICT table ANY converts nothing.
    pub(crate) fn of(declared: &str, strict: bool) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |word: &str| declared.contains(word);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || declared.is_empty() || strict && declared == "ANY" {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Self::Blob => "b",
            Self::Text => "t",
            Self::Numeric => "n",
            Self::Integer => "i",
            Self::Real => "r",
        }
    }
}

/// Columns of one side, as indexes into the columns of the map, that have another affinity at the head.
pub(crate) fn conversions(side: Option<&Access>, head: Option<&Access>) -> Vec<(usize, Affinity)> {
    let (Some(side), Some(head)) = (side, head) else { return Vec::new() };
    let pairs = side.affinities.iter().zip(&head.affinities).enumerate();
    pairs
        .filter_map(|(at, (own, there))| {
            there.filter(|there| own.is_some_and(|own| own != *there)).map(|there| (at, there))
        })
        .collect()
}

/// Asks SQLite what a column would store.
#[derive(Default)]
pub(crate) struct Converter {
    scratch: OnceCell<Connection>,
}

impl Converter {
    /// The row with these columns as the head would store them.
    pub(crate) fn convert(&self, row: &mut SideRow, columns: &[(usize, Affinity)]) -> Result<()> {
        for (at, affinity) in columns {
            if let Some(slot) = row.values.get_mut(*at)
                && !matches!(slot, SqlValue::Null | SqlValue::Blob(_))
            {
                *slot = self.stored(slot, *affinity)?;
            }
        }
        Ok(())
    }

    fn stored(&self, given: &SqlValue, affinity: Affinity) -> Result<SqlValue> {
        let failed = failed("convert a value to the type of its column");
        let column = affinity.column();
        let scratch = self.scratch()?;
        let update = format!("UPDATE stored SET {column} = ?1");
        scratch.prepare_cached(&update).and_then(|mut set| set.execute([Bind(given)])).map_err(&failed)?;
        let select = format!("SELECT {column} FROM stored");
        let read = |mut get: rusqlite::CachedStatement<'_>| get.query_row([], |row| value(row, 0));
        scratch.prepare_cached(&select).and_then(read).map_err(failed)
    }

    fn scratch(&self) -> Result<&Connection> {
        if let Some(scratch) = self.scratch.get() {
            return Ok(scratch);
        }
        let made = Connection::open_in_memory().and_then(|scratch| {
            scratch.execute_batch(
                "CREATE TABLE stored(b BLOB, t TEXT, n NUMERIC, i INTEGER, r REAL); INSERT INTO stored(b) VALUES (0)",
            )?;
            Ok(scratch)
        });
        let made = made.map_err(failed("convert a value to the type of its column"))?;
        Ok(self.scratch.get_or_init(|| made))
    }
}
