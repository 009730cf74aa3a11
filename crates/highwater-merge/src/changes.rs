//! Which rows changed, as the steps of a merge ask for it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use highwater_ltx::PageNo;
use highwater_rows::{Collation, Key, KeyColumn, Tree, TreeKind, changed_rows};
use highwater_wire::SqlValue;
use rusqlite::Connection;

use crate::error::Result;
use crate::sql::failed;
use crate::{Pages, Sides};

/// What identifies a row in its b-tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RowKey {
    /// Of a table with rowids.
    Rowid(i64),
    /// Of a WITHOUT ROWID table: the values of its PRIMARY KEY, in the order in which they are stored.
    Values(Vec<SqlValue>),
}

/// Finds the rows that differ between two sides. Names are those of tables that have a b-tree (shadow tables are
/// such); `None` where a side has none.
pub(crate) trait Changes {
    /// Rows that only one of base and local has or that differ between them, ascending.
    fn local(&self, base: Option<&str>, local: Option<&str>) -> Result<Vec<RowKey>>;
    /// The same between base and the head as it was before the merge.
    fn head(&self, base: Option<&str>, head: Option<&str>) -> Result<Vec<RowKey>>;
}

/// Finds them in the pages that changed.
pub(crate) struct InPages {
    local: Comparison,
    head: Comparison,
}

impl InPages {
    /// Takes the connections as they are before the schema is merged.
    pub(crate) fn new(
        sides: &Sides,
        base: &Connection,
        local: &Connection,
        head: &Connection,
    ) -> Result<Self> {
        let comparison = |side: &Connection, pages: &Pages, changed: &[PageNo]| -> Result<Comparison> {
            Ok(Comparison {
                before: sides.base.clone(),
                after: pages.clone(),
                changed: changed.to_vec(),
                old: tables(base)?,
                new: tables(side)?,
                found: RefCell::default(),
                pages_read: Cell::new(0),
            })
        };
        let local = comparison(local, &sides.local, &sides.local_changed)?;
        Ok(Self { local, head: comparison(head, &sides.head, &sides.head_changed)? })
    }

    /// How many pages the search read.
    pub(crate) fn pages_read(&self) -> u64 {
        self.local.pages_read.get() + self.head.pages_read.get()
    }
}

impl Changes for InPages {
    fn local(&self, base: Option<&str>, local: Option<&str>) -> Result<Vec<RowKey>> {
        self.local.rows(base, local)
    }

    fn head(&self, base: Option<&str>, head: Option<&str>) -> Result<Vec<RowKey>> {
        self.head.rows(base, head)
    }
}

/// Tables that have a b-tree, by their names in small letters.
type Tables = HashMap<String, (PageNo, TreeKind)>;

/// A table's name before and after, in small letters.
type Pair = (Option<String>, Option<String>);

struct Comparison {
    before: Pages,
    after: Pages,
    changed: Vec<PageNo>,
    old: Tables,
    new: Tables,
    found: RefCell<HashMap<Pair, Vec<RowKey>>>,
    pages_read: Cell<u64>,
}

impl Comparison {
    fn rows(&self, before: Option<&str>, after: Option<&str>) -> Result<Vec<RowKey>> {
        let known = |name: Option<&str>, tables: &Tables| {
            name.map(str::to_ascii_lowercase).filter(|name| tables.contains_key(name))
        };
        let pair = (known(before, &self.old), known(after, &self.new));
        if pair == (None, None) {
            return Ok(Vec::new());
        }
        if self.found.borrow().is_empty() {
            // All at once: pages that no table explains have to be looked for.
            self.search(self.pairs())?;
        }
        if !self.found.borrow().contains_key(&pair) {
            self.search(vec![pair.clone()])?;
        }
        Ok(self.found.borrow().get(&pair).cloned().unwrap_or_default())
    }

    /// Which table is which: by the name, or by the root.
    fn pairs(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        let renamed = |root: PageNo| {
            let same = |name: &&String| {
                self.new.get(*name).is_some_and(|(have, _)| *have == root) && !self.old.contains_key(*name)
            };
            self.new.keys().find(same).cloned()
        };
        for (name, (root, _)) in &self.old {
            let after = if self.new.contains_key(name) { Some(name.clone()) } else { renamed(*root) };
            pairs.push((Some(name.clone()), after));
        }
        let taken: Vec<String> = pairs.iter().filter_map(|(_, after)| after.clone()).collect();
        let new = self.new.keys().filter(|name| !taken.contains(name));
        pairs.extend(new.map(|name| (None, Some(name.clone()))));
        pairs.sort();
        pairs
    }

    fn search(&self, pairs: Vec<Pair>) -> Result<()> {
        let mut trees = Vec::new();
        let mut owners = Vec::new();
        for (at, (before, after)) in pairs.iter().enumerate() {
            let before = before.as_ref().and_then(|name| self.old.get(name));
            let after = after.as_ref().and_then(|name| self.new.get(name));
            match (before, after) {
                (Some((one, kind)), Some((two, other))) if kind == other => {
                    trees.push(Tree { before: Some(*one), after: Some(*two), kind: kind.clone() });
                    owners.push(at);
                }
                // A table that is stored in another way now has no cell in common.
                (before, after) => {
                    for (before, after) in [(before, None), (None, after)] {
                        if let Some((_, kind)) = before.or(after) {
                            let root = |table: Option<&(PageNo, TreeKind)>| table.map(|(root, _)| *root);
                            trees.push(Tree { before: root(before), after: root(after), kind: kind.clone() });
                            owners.push(at);
                        }
                    }
                }
            }
        }
        let changes = changed_rows(&*self.before, &*self.after, &trees, &self.changed)?;
        self.pages_read.set(self.pages_read.get() + changes.pages_read);
        let mut found: Vec<Vec<RowKey>> = vec![Vec::new(); pairs.len()];
        for (at, rows) in owners.into_iter().zip(changes.rows) {
            let keys = rows.into_iter().map(|row| match row.key {
                Key::Rowid(rowid) => RowKey::Rowid(rowid),
                Key::Values(values) => RowKey::Values(values),
            });
            if let Some(slot) = found.get_mut(at) {
                slot.extend(keys);
            }
        }
        self.found.borrow_mut().extend(pairs.into_iter().zip(found));
        Ok(())
    }
}

fn tables(side: &Connection) -> Result<Tables> {
    let failed = failed("read the list of tables");
    let sql = "SELECT s.name, s.rootpage, l.wr FROM sqlite_schema s JOIN pragma_table_list l \
               ON l.schema = 'main' AND l.name = s.name WHERE s.type = 'table' AND s.rootpage > 0";
    let mut statement = side.prepare(sql).map_err(&failed)?;
    let found = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .map_err(&failed)?
        .collect::<rusqlite::Result<Vec<(String, u32, bool)>>>()
        .map_err(&failed)?;
    let mut tables = Tables::new();
    for (name, root, without_rowid) in found {
        let kind =
            if without_rowid { TreeKind::WithoutRowid { key: key(side, &name)? } } else { TreeKind::Rowid };
        tables.insert(name.to_ascii_lowercase(), (PageNo(root), kind));
    }
    Ok(tables)
}

/// The key of a WITHOUT ROWID table.
fn key(side: &Connection, table: &str) -> Result<Vec<KeyColumn>> {
    let failed = failed("read the key of a table");
    let sql = "SELECT x.coll, x.\"desc\" FROM pragma_index_list(?1) l JOIN pragma_index_xinfo(l.name) x \
               WHERE l.origin = 'pk' AND x.key ORDER BY x.seqno";
    let mut statement = side.prepare_cached(sql).map_err(&failed)?;
    let column = |row: &rusqlite::Row<'_>| {
        Ok(KeyColumn { collation: Collation::named(&row.get::<_, String>(0)?), descending: row.get(1)? })
    };
    statement.query_map([table], column).map_err(&failed)?.collect::<rusqlite::Result<_>>().map_err(&failed)
}
