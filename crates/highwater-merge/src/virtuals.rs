//! Virtual tables: their hidden tables are never merged row by row when both sides changed them.
//!
//! | kind | changed by both sides |
//! |---|---|
//! | FTS5, FTS3 and FTS4 with their own content | documents are merged like rows, through the virtual table |
//! | R-Tree | entries are merged like rows, through the virtual table |
//! | FTS5 with external content | rebuilt after the merge |
//! | anything else: contentless FTS5, geopoly, modules that this SQLite lacks | refused |
//!
//! Where only the device changed one of the last two kinds, the rows of its hidden tables are copied as they
//! are: the head's were equal to the base's, so the result is equal to the device's.

mod raw;
mod rtree;

use highwater_wire::Conflict;

use crate::changes::RowKey;
use crate::error::Result;
use crate::schema::alter::savepoint;
use crate::schema::catalog::{Catalog, Kind, Object, known_module, lower};
use crate::schema::{not_kept, text};
use crate::sql::{self, quoted};
use crate::table::{Context, Keys, Plan, Step, TableMap, refuse};
use raw::Shadow;

/// What is done when the rows of all tables are merged.
#[derive(Debug)]
pub(crate) enum Task {
    /// Rows of hidden tables are copied.
    Copy(Vec<Shadow>),
    /// Hidden tables of a new virtual table are filled.
    Fill(Vec<Shadow>),
    /// An FTS5 table with external content.
    Index(Index),
    /// Settings of an FTS5 table that local changed and the head did not: key and value.
    Configure(String, Vec<(String, highwater_wire::SqlValue)>),
}

/// What becomes of an FTS5 table with external content.
#[derive(Debug)]
pub(crate) struct Index {
    table: String,
    /// A table that the head did not change: if all its rows arrived, local's index can be taken.
    content: Option<String>,
    /// Takes local's, where the head did not change its own.
    copy: Option<Box<Task>>,
}

/// How a virtual table is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// By its documents.
    Documents,
    /// By its entries; the number of coordinates.
    RTree(usize),
    /// From the table or view of that name.
    External(String),
    /// Not at all.
    Whole,
}

fn rule_of(cx: &Context<'_>, table: &Object) -> Result<Rule> {
    let Some((module, arguments)) = text::module_of(&table.sql) else { return Ok(Rule::Whole) };
    let option = |name: &str| {
        let options = arguments.iter().filter_map(|argument| text::option_of(argument));
        options.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    };
    if !known_module(cx.head, &module)? {
        return Ok(Rule::Whole);
    }
    Ok(match lower(&module).as_str() {
        "fts5" if option("locale").is_some_and(|on| on != "0") => Rule::Whole,
        "fts5" => match option("content") {
            None => Rule::Documents,
            Some(content) if content.is_empty() => Rule::Whole,
            Some(content) => Rule::External(content),
        },
        "fts3" | "fts4" => {
            let special = ["content", "languageid", "compress", "uncompress"];
            if special.iter().any(|name| option(name).is_some()) { Rule::Whole } else { Rule::Documents }
        }
        "rtree" | "rtree_i32" => {
            let own = arguments.iter().filter(|argument| !argument.starts_with('+')).count();
            Rule::RTree(own.saturating_sub(1))
        }
        _ => Rule::Whole,
    })
}

/// Whether all of a virtual table's content is made from another table.
pub(crate) fn is_derived(sql: &str) -> bool {
    let Some((module, arguments)) = text::module_of(sql) else { return false };
    let external = |argument: &String| {
        text::option_of(argument).is_some_and(|(name, value)| name == "content" && !value.is_empty())
    };
    module.eq_ignore_ascii_case("fts5") && arguments.iter().any(external)
}

/// Whether the head changed the content of a virtual table.
pub(crate) fn head_changed(
    cx: &Context<'_>,
    [base, head]: [&Catalog; 2],
    old: &Object,
    now: &Object,
) -> Step<bool> {
    for (_, before, after) in raw::pairs(base, &old.name, head, &now.name) {
        if !cx.changes.head(before.as_deref(), after.as_deref())?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The three objects of a virtual table; the head's as it was before the merge.
pub(crate) type Sides<'a> = (Option<&'a Object>, &'a Object, Option<&'a Object>);

/// Decides what becomes of a virtual table.
pub(crate) fn plan(
    cx: &Context<'_>,
    catalogs: [&Catalog; 3],
    (base, local, head): Sides<'_>,
    mut map: TableMap,
    plan: &mut Plan,
) -> Step<()> {
    let [of_base, of_local, of_head] = catalogs;
    let before = base.map_or("", |base| base.name.as_str());
    let shadows = raw::pairs(of_base, before, of_local, &local.name);
    let mut changed = false;
    for (_, before, after) in &shadows {
        changed |= !cx.changes.local(before.as_deref(), after.as_deref())?.is_empty();
    }
    let rule = rule_of(cx, local)?;
    let by_rows = matches!(rule, Rule::Documents | Rule::RTree(_));
    if by_rows {
        if changed {
            configure(cx, &map, plan)?;
            map.keys = Keys::Given(changed_ids(cx, &rule, before, &local.name)?);
            plan.tables.push(map);
        }
        return Ok(());
    }
    let Some(name) = map.head.clone() else {
        if changed && rule == Rule::Whole {
            plan.tables.extend(raw::without_place(cx, &shadows)?);
        }
        return Ok(());
    };
    let fresh = base.is_none();
    // By the schema step.
    let made_now = fresh && head.is_none();
    let by_head = match (base, head) {
        (Some(base), Some(head)) => head_changed(cx, [of_base, of_head], base, head)?,
        _ => false,
    };
    if let Rule::External(content) = &rule {
        let changes = content_changed(cx, catalogs, content)?;
        if changed || made_now || changes.is_some_and(|(by_local, _)| by_local) {
            let copy = raw::named(&shadows, &name);
            let copy = Box::new(if made_now { Task::Fill(copy) } else { Task::Copy(copy) });
            let copy = Some(copy).filter(|_| (made_now || !fresh) && !by_head);
            let content = changes.filter(|(_, by_head)| !by_head).map(|_| content.clone());
            plan.virtuals.push(Task::Index(Index { table: name, content, copy }));
        }
        return Ok(());
    }
    let copy = raw::named(&shadows, &name);
    if made_now {
        plan.virtuals.push(Task::Fill(copy));
    } else if fresh {
        if !raw::equal(cx, &copy)? {
            return Err(refuse(&name, "both sides made it, and its content cannot be merged by rows"));
        }
    } else if changed && by_head {
        let why = "both sides changed it, and its content cannot be merged by rows";
        return Err(refuse(&name, why));
    } else if changed {
        plan.virtuals.push(Task::Copy(copy));
    }
    Ok(())
}

/// Rowids of documents and entries that may have changed, ascending.
fn changed_ids(cx: &Context<'_>, rule: &Rule, base: &str, local: &str) -> Step<Vec<i64>> {
    let shadow = |suffix: &str| {
        let before = (!base.is_empty()).then(|| format!("{base}_{suffix}"));
        cx.changes.local(before.as_deref(), Some(&format!("{local}_{suffix}")))
    };
    let rowid = |key: RowKey| match key {
        RowKey::Rowid(rowid) => Some(rowid),
        RowKey::Values(_) => None,
    };
    let mut ids: Vec<i64> = match rule {
        Rule::RTree(coordinates) => {
            let nodes = shadow("node")?.into_iter().filter_map(rowid);
            let mut ids = rtree::changed(cx, [base, local], nodes, *coordinates)?;
            ids.extend(shadow("rowid")?.into_iter().filter_map(rowid));
            ids
        }
        _ => shadow("content")?.into_iter().filter_map(rowid).collect(),
    };
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Whether local, and whether the head, changed what an FTS5 table indexes; none if that is a view, or was made or
/// dropped by one of them.
fn content_changed(cx: &Context<'_>, catalogs: [&Catalog; 3], content: &str) -> Step<Option<(bool, bool)>> {
    let key = (false, lower(content));
    let [base, local, head] = catalogs.map(|side| side.objects.get(&key));
    if [base, local, head].into_iter().flatten().any(|object| object.kind != Kind::Table) {
        return Ok(None);
    }
    let name = |object: Option<&Object>| object.map(|object| object.name.clone());
    let (base, local, head) = (name(base), name(local), name(head));
    if base.is_some() && (local.is_none() || head.is_none()) {
        return Ok(None);
    }
    let by_local = local.is_some() && !cx.changes.local(base.as_deref(), local.as_deref())?.is_empty();
    let by_head = base.is_none() && head.is_some()
        || head.is_some() && !cx.changes.head(base.as_deref(), head.as_deref())?.is_empty();
    Ok(Some((by_local, by_head)))
}

/// Notes the settings of an FTS5 table that local changed and the head did not.
fn configure(cx: &Context<'_>, map: &TableMap, plan: &mut Plan) -> Step<()> {
    let settings = |side: &rusqlite::Connection, table: Option<&String>| -> Result<Vec<_>> {
        let Some(table) = table else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT k, v FROM {} WHERE k <> 'version' ORDER BY k",
            quoted(&format!("{table}_config"))
        );
        let Ok(mut statement) = side.prepare(&sql) else { return Ok(Vec::new()) };
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, sql::value(row, 1)?)));
        let rows = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>);
        rows.map_err(sql::failed("read the settings of a full-text table"))
    };
    let Some(name) = &map.head else { return Ok(()) };
    let base = settings(cx.base, map.base.as_ref())?;
    let head = settings(cx.head, Some(name))?;
    let value = |of: &[(String, _)], key: &str| {
        of.iter().find(|(k, _)| k == key).map(|(_, v): &(_, highwater_wire::SqlValue)| v.clone())
    };
    let mut changed = settings(cx.local, map.local.as_ref())?;
    changed.retain(|(key, local)| {
        let base = value(&base, key);
        base.as_ref() != Some(local) && value(&head, key) == base
    });
    if !changed.is_empty() {
        plan.virtuals.push(Task::Configure(name.clone(), changed));
    }
    Ok(())
}

/// Does what waited for the rows, of which these could not be kept. Gives what could not be done.
pub(crate) fn after_rows(cx: &Context<'_>, plan: &Plan, lost: &[Conflict]) -> Step<Vec<Conflict>> {
    let mut conflicts = Vec::new();
    for task in &plan.virtuals {
        task.run(cx, lost, &mut conflicts)?;
    }
    Ok(conflicts)
}

impl Task {
    fn run(&self, cx: &Context<'_>, lost: &[Conflict], conflicts: &mut Vec<Conflict>) -> Step<()> {
        match self {
            Self::Copy(shadows) => raw::copy(cx, shadows)?,
            Self::Fill(shadows) => {
                raw::clear(cx, shadows)?;
                raw::copy(cx, shadows)?;
            }
            Self::Index(index) => index.run(cx, lost, conflicts)?,
            Self::Configure(table, settings) => {
                let sql = format!("INSERT INTO {0} ({0}, rank) VALUES (?1, ?2)", quoted(table));
                for (key, value) in settings {
                    let set = cx.head.execute(&sql, (key, sql::Bind(value)));
                    set.map_err(sql::failed("change a setting of a full-text table"))?;
                }
            }
        }
        Ok(())
    }
}

impl Index {
    fn run(&self, cx: &Context<'_>, lost: &[Conflict], conflicts: &mut Vec<Conflict>) -> Step<()> {
        let arrived = |content: &String| !lost.iter().any(|lost| lower(&lost.table) == lower(content));
        if let Some(copy) = self.copy.as_ref().filter(|_| self.content.as_ref().is_some_and(arrived)) {
            return copy.run(cx, lost, conflicts);
        }
        let rebuild = format!("INSERT INTO {0} ({0}) VALUES ('rebuild')", quoted(&self.table));
        let Err(error) = savepoint(cx.head, || cx.head.execute_batch(&rebuild)) else { return Ok(()) };
        // Its content is gone, or lacks a column: the index was of no use before.
        if let Some(copy) = &self.copy {
            return copy.run(cx, lost, conflicts);
        }
        let message = format!("the index {:?} cannot be made again from its content: {error}", self.table);
        conflicts.push(not_kept(&self.table, None, message));
        Ok(())
    }
}
