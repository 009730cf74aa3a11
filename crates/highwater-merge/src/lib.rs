//! Merges two changes of one database, row by row and column by column.
//!
//! [`merge`] takes three snapshots: *base*, which both sides started from, *local*, what a device made of it,
//! and *head*, what the server has now. The result is the head with the device's changes, and a list of
//! everything that could not be kept. Rules and examples stand in `docs/MERGING.md`.

mod access;
mod affinity;
mod apply;
mod budget;
mod changes;
mod decide;
mod engine;
mod error;
mod finish;
mod follow;
mod foreign;
mod ids;
mod pairs;
mod refused;
mod rows_by_key;
mod schema;
mod sql;
mod table;
mod tables;
mod virtuals;

use std::sync::Arc;

use highwater_ltx::{PageCount, PageNo};
use highwater_pages::owners::PageSource;
use highwater_sqlite::{Access, SnapshotDb};
use highwater_wire::{CannotMerge, Conflict, MergeCounts, MergePolicy, Rejected, Renumbered};
use rusqlite::config::DbConfig;

use budget::Budget;
use table::{Context, Step, Stop};

pub use budget::{Bounds, Exceeded};
pub use error::{Error, Result};

/// A snapshot: a page count and a way to read pages.
pub type Pages = Arc<dyn PageSource>;

/// What is merged.
#[derive(Clone)]
pub struct Sides {
    /// What the device started from.
    pub base: Pages,
    /// What the device has now.
    pub local: Pages,
    /// What the server has now.
    pub head: Pages,
    /// Every page that differs between base and local, and perhaps others; ascending. Pages that only one of
    /// both has need not be named.
    pub local_changed: Vec<PageNo>,
    /// The same between base and head.
    pub head_changed: Vec<PageNo>,
}

/// How to merge.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which side wins where only one can.
    pub policy: MergePolicy,
    /// Rows of the base that have another id at the head, because an earlier merge of the same device gave
    /// them one that the device has not heard of.
    pub renumbered: Vec<Renumbered>,
    /// Rows of the base that the head has never had, because an earlier merge of the same device refused them.
    pub rejected: Vec<Rejected>,
    /// The base may be older than the one that the device really had: a row that both sides have under the same id
    /// and with the same values, and the base has not, is one row and not two.
    pub doubt: bool,
    /// How much it may take.
    pub bounds: Bounds,
}

/// What came of it.
#[derive(Debug)]
pub enum Merged {
    /// Both changes are in the result, as far as they go together.
    Done(Box<Merge>),
    /// [`MergePolicy::Fail`], and there are conflicts: nothing was merged.
    Conflicts(Vec<Conflict>),
    /// It cannot be merged at all.
    Refused(CannotMerge),
    /// It takes more than [`Options::bounds`]: nothing was merged.
    Exceeded(Exceeded),
}

/// A merge that was made.
#[derive(Debug)]
pub struct Merge {
    /// The size of the database after it.
    pub page_count: PageCount,
    /// The pages in which the result differs from the head, ascending, canonical. Empty when nothing of the
    /// device's change was new.
    pub pages: Vec<(PageNo, Vec<u8>)>,
    /// What could not be kept, and ids that changed; in the order of tables and keys.
    pub conflicts: Vec<Conflict>,
    /// Rows of local that have another id in the result: those of [`Options::renumbered`] that still exist,
    /// and new ones.
    pub renumbered: Vec<Renumbered>,
    /// Rows of local that the result has not got.
    pub rejected: Vec<Rejected>,
    /// How much was done.
    pub counts: MergeCounts,
    /// How many pages of the snapshots were read.
    pub pages_read: u64,
}

/// Merges the change from base to local into the head. Deterministic. Errors are those of reading and of damaged
/// databases; what the rules cannot merge is [`Merged::Refused`].
pub fn merge(sides: &Sides, options: &Options) -> Result<Merged> {
    let budget = Budget::new(options.bounds);
    let bound = Sides {
        base: budget.bound(&sides.base),
        local: budget.bound(&sides.local),
        head: budget.bound(&sides.head),
        ..sides.clone()
    };
    match within(&bound, options, &budget) {
        Err(_) if budget.is_late() => Ok(Merged::Exceeded(Exceeded::Time)),
        merged => merged,
    }
}

fn within(sides: &Sides, options: &Options, budget: &Budget) -> Result<Merged> {
    let mut base = SnapshotDb::open(Arc::clone(&sides.base), Access::ReadOnly)?;
    let mut local = SnapshotDb::open(Arc::clone(&sides.local), Access::ReadOnly)?;
    let mut head = SnapshotDb::open(Arc::clone(&sides.head), Access::Overlay)?;
    for side in [&mut base, &mut local, &mut head] {
        budget.watch(side.connection_mut()).map_err(sql::failed("begin the merge"))?;
    }
    let source_error = || [&base, &local, &head].into_iter().find_map(SnapshotDb::source_error);
    let step = attempt((&base, &local, &head), sides, options, budget);
    let (outcome, rows_read) = match step {
        Ok(done) => done,
        Err(Stop::Refused(why)) => return Ok(Merged::Refused(why)),
        Err(Stop::Exceeded(what)) => return Ok(Merged::Exceeded(what)),
        Err(Stop::Failed(error)) => {
            return Err(
                source_error().map_or(error, |cause| Error::Snapshot(highwater_sqlite::Error::Source(cause)))
            );
        }
    };
    if engine::forbidden(options.policy, &outcome) {
        let lost = outcome.conflicts.into_iter().filter(|conflict| conflict.kind.loses());
        return Ok(Merged::Conflicts(lost.collect()));
    }
    let pages_read = rows_read + base.pages_read() + local.pages_read() + head.pages_read();
    // Each page once, and once more when it is stored.
    let written = head.pages_written() as u64 * u64::from(sides.head.page_size().get());
    if let Err(Stop::Exceeded(what)) = budget.take(written * 2) {
        return Ok(Merged::Exceeded(what));
    }
    let changes = head.into_changes()?;
    let engine::Outcome { conflicts, renumbered, rejected, counts } = outcome;
    let (page_count, pages) = (changes.page_count, changes.pages);
    Ok(Merged::Done(Box::new(Merge {
        page_count,
        pages,
        conflicts,
        renumbered,
        rejected,
        counts,
        pages_read,
    })))
}

/// All steps in one transaction at the head. Also says how many pages were read in search of changed rows.
fn attempt(
    (base, local, head): (&SnapshotDb, &SnapshotDb, &SnapshotDb),
    sides: &Sides,
    options: &Options,
    budget: &Budget,
) -> Step<(engine::Outcome, u64)> {
    let size = sides.head.page_size();
    if sides.base.page_size() != size || sides.local.page_size() != size {
        let reason = "the sides have pages of different sizes: bring them to one with VACUUM, and push again";
        return Err(Stop::Refused(CannotMerge { object: None, reason: reason.to_owned() }));
    }
    let (base, local, head) = (base.connection(), local.connection(), head.connection());
    for side in [base, local, head] {
        side.set_prepared_statement_cache_capacity(STATEMENTS);
    }
    let failed = sql::failed("begin the merge");
    head.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map_err(&failed)?;
    head.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false).map_err(&failed)?;
    head.execute_batch("BEGIN IMMEDIATE").map_err(&failed)?;
    let changes = changes::InPages::new(sides, base, local, head)?;
    let converter = affinity::Converter::default();
    let Options { policy, doubt, .. } = *options;
    let cx = Context { base, local, head, changes: &changes, converter: &converter, policy, doubt, budget };
    let outcome = engine::run(&cx, options)?;
    head.execute_batch("COMMIT").map_err(sql::failed("end the merge"))?;
    Ok((outcome, changes.pages_read()))
}

/// As many statements are kept ready on each side.
const STATEMENTS: usize = 256;
