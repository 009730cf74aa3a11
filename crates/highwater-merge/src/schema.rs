//! The schema step: brings the head to the merged schema, and says which table is which.
//!
//! Objects are compared by name and by their text without spaces and comments. What one side changed is that
//! side's; what both changed differently stays the head's, and local's is recorded with its SQL. Steps, in this
//! order:
//!
//! 1. tables that local renamed are renamed,
//! 2. indexes, views and triggers that local dropped or changed are dropped, so that nothing stands in the way,
//! 3. tables that local dropped, changed or made are dropped, changed and made ([`alter`]),
//! 4. the rows of all tables are merged, elsewhere,
//! 5. [`finish`]: what rows had to be merged for is done: constraints that the head's rows did not satisfy
//!    before, indexes (a device that removes duplicates and then declares them UNIQUE is right), views, triggers.

pub(crate) mod alter;
pub(crate) mod catalog;
mod columns;
mod dependents;
mod lines;
mod sample;
mod tables;
pub(crate) mod text;
mod wanted;

use highwater_wire::{Conflict, ConflictKind, Kept};

use crate::table::{Context, Plan, Step};
use catalog::Catalog;

/// What waits until the rows are merged.
#[derive(Debug, Default)]
pub(crate) struct Later {
    /// Tables, their text on the device, and what they shall be, which their rows did not allow yet.
    rebuilds: Vec<(String, String, wanted::Wanted)>,
    /// Indexes, views and triggers of local, with the text that the head had until now.
    creates: Vec<(catalog::Object, Option<String>)>,
    /// Indexes, views and triggers of the head that stay.
    stays: Vec<catalog::Object>,
}

/// Merges the schema at the head, and maps the tables.
pub(crate) fn plan_and_apply(cx: &Context<'_>) -> Step<Plan> {
    let (base, local, head) = (Catalog::read(cx.base)?, Catalog::read(cx.local)?, Catalog::read(cx.head)?);
    let mut merging = tables::Merging::new(cx, &base, &local, &head)?;
    merging.rename_tables()?;
    merging.find_kept_tables()?;
    merging.dependents()?;
    merging.tables()?;
    Ok(merging.plan)
}

/// Does what waited for the rows. Gives what could not be kept.
pub(crate) fn finish(cx: &Context<'_>, plan: &Plan) -> Step<Vec<Conflict>> {
    dependents::finish(cx, plan)
}

/// A change of the schema that is not in the result.
pub(crate) fn not_kept(object: &str, sql: Option<&str>, message: String) -> Conflict {
    conflict(ConflictKind::Schema, object, sql, message)
}

fn conflict(kind: ConflictKind, table: &str, sql: Option<&str>, message: String) -> Conflict {
    Conflict {
        kind,
        table: table.to_owned(),
        key: Vec::new(),
        other_key: Vec::new(),
        columns: Vec::new(),
        base: None,
        local: None,
        head: None,
        kept: Kept::Head,
        sql: sql.map(ToOwned::to_owned),
        message,
    }
}
