//! Virtual tables, after the rows of all tables are merged: what is rebuilt from them.

use crate::table::{Context, Plan, Step};

/// Rebuilds what follows from other tables.
pub(crate) fn after_rows(_cx: &Context<'_>, _plan: &Plan) -> Step<()> {
    Ok(())
}
