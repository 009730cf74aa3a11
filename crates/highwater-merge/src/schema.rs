//! The schema step: brings the head to the merged schema, and says which table is which.

use crate::sql;
use crate::table::{ColumnMap, Context, Keys, Plan, Step, TableMap, refuse};

/// Merges the schema at the head, and maps the tables.
pub(crate) fn plan_and_apply(cx: &Context<'_>) -> Step<Plan> {
    let text = |side| {
        sql::texts(
            side,
            "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1",
        )
    };
    let head = text(cx.head)?;
    if text(cx.base)? != head || text(cx.local)? != head {
        return Err(refuse("sqlite_schema", "the schema was changed, and merging schemas is not there yet"));
    }
    let tables = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
                  AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut plan = Plan::default();
    for table in sql::texts(cx.head, tables)? {
        let mut columns = Vec::new();
        for (name, hidden) in sql::columns(cx.head, &table)? {
            let name = Some(name);
            let generated = hidden > 1;
            columns.push(ColumnMap {
                base: name.clone(),
                local: name.clone(),
                head: name,
                in_old_head: true,
                generated,
            });
        }
        let name = Some(table);
        plan.tables.push(TableMap {
            base: name.clone(),
            local: name.clone(),
            head: name,
            columns,
            keys: Keys::OwnTree,
        });
    }
    Ok(plan)
}
