//! The tables of a merge: which table and which column of one side is which one of the others.
//!
//! The schema step ([`crate::schema`]) brings the head to the merged schema and describes every table in one
//! [`TableMap`]; the row step then needs no other knowledge of renames, new tables or lost columns.

use highwater_wire::{CannotMerge, Conflict, MergePolicy};
use rusqlite::Connection;

use crate::affinity::Converter;
use crate::budget::{Budget, Exceeded};
use crate::changes::Changes;
use crate::error::{Error, Result};

/// What every step of a merge works on.
pub(crate) struct Context<'a> {
    /// What both sides started from; read-only.
    pub(crate) base: &'a Connection,
    /// What the device has; read-only.
    pub(crate) local: &'a Connection,
    /// What the server has, and what becomes the result: in a transaction; triggers and foreign keys are off.
    pub(crate) head: &'a Connection,
    /// Which rows changed.
    pub(crate) changes: &'a dyn Changes,
    /// Knows what a column would store.
    pub(crate) converter: &'a Converter,
    /// Which side wins.
    pub(crate) policy: MergePolicy,
    /// Whether rows that both sides have alike are the same.
    pub(crate) doubt: bool,
    /// How much it may take.
    pub(crate) budget: &'a Budget,
}

/// One column on the three sides; its name there, absent where there is no such column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnMap {
    pub(crate) base: Option<String>,
    pub(crate) local: Option<String>,
    /// In the merged schema.
    pub(crate) head: Option<String>,
    /// Whether the head had it before the schema was merged (perhaps under another name). A column without it
    /// came from local, and every row of the head has its default.
    pub(crate) in_old_head: bool,
    /// Computed in the merged schema: compared by nobody, written by nobody.
    pub(crate) generated: bool,
}

/// Where the changed rows of a table are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keys {
    /// In the b-tree of the table itself.
    OwnTree,
    /// They are these rowids, of rows that may have changed between base and local, ascending: for virtual tables,
    /// whose rows are read and written through them by rowid.
    Given(Vec<i64>),
}

/// One table on the three sides; its name there, absent where there is no such table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableMap {
    pub(crate) base: Option<String>,
    pub(crate) local: Option<String>,
    /// In the merged schema. Absent: there is no such table, and what local changed in it has no place.
    pub(crate) head: Option<String>,
    /// At the head before the merge, as [`crate::changes::Changes::head`] wants it.
    pub(crate) old_head: Option<String>,
    /// In the order of the head's columns, then those that the head lacks. Hidden columns of virtual tables are
    /// left out.
    pub(crate) columns: Vec<ColumnMap>,
    /// Where the changed rows are found.
    pub(crate) keys: Keys,
}

impl TableMap {
    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        self.head.as_deref().or(self.local.as_deref()).or(self.base.as_deref()).unwrap_or_default()
    }
}

/// What the schema step found and did.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The tables whose rows are merged, in the order of the merged schema (parents need not stand before
    /// children). Not among them: `sqlite_*`, shadow tables whose virtual table is here, and tables without
    /// rows of their own.
    pub(crate) tables: Vec<TableMap>,
    /// What could not be kept of the schema.
    pub(crate) conflicts: Vec<Conflict>,
    /// What of the schema waits until the rows are merged.
    pub(crate) later: crate::schema::Later,
    /// What becomes of virtual tables when the rows are merged.
    pub(crate) virtuals: Vec<crate::virtuals::Task>,
}

/// Why a step did not come to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The rules do not allow it.
    Refused(CannotMerge),
    /// It takes too much.
    Exceeded(Exceeded),
    /// It failed.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A refusal that names an object.
pub(crate) fn refuse(object: &str, reason: impl Into<String>) -> Stop {
    Stop::Refused(CannotMerge { object: Some(object.to_owned()), reason: reason.into() })
}

/// What a step gives.
pub(crate) type Step<T> = Result<T, Stop>;
