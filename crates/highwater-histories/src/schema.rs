//! The tables of a history: every kind that there is.
//!
//! Conventions that the rest reads them by: `born` names the insert that made a row; `k`, `k1` and `k2` are declared
//! keys; `ref_x` holds an id of table x; `g_…` is generated; the other text columns hold tokens.

use crate::dice::Dice;

/// A kind of table, and what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// INTEGER PRIMARY KEY with indexes (expression, partial), children that cascade, and a view.
    Items,
    /// AUTOINCREMENT, children set to NULL.
    Logs,
    /// No key.
    Bag,
    /// A TEXT key, with a trigger that writes elsewhere, and children that forbid deletion.
    Words,
    /// WITHOUT ROWID with two columns as key.
    Pairs,
    /// UNIQUE, CHECK, NOT NULL.
    Slots,
    /// A tree of rows in one table, checked at COMMIT.
    Tree,
    /// Generated columns.
    Gens,
    /// Values that overflow pages.
    Longs,
    /// FTS5 with its own content.
    Notes,
    /// FTS5 over another table, kept by triggers.
    Docs,
    /// R-Tree with auxiliary columns.
    Boxes,
}

use Feature::{Bag, Boxes, Docs, Gens, Items, Logs, Longs, Notes, Pairs, Slots, Tree, Words};

const ALL: [Feature; 12] = [Items, Logs, Bag, Words, Pairs, Slots, Tree, Gens, Longs, Notes, Docs, Boxes];

impl Feature {
    /// Some of them, in a fixed order.
    pub(crate) fn some(dice: &mut Dice) -> Vec<Self> {
        let share = dice.between(15, 60);
        let mut chosen: Vec<Self> = ALL.into_iter().filter(|_| dice.chance(share)).collect();
        if chosen.is_empty() {
            chosen.extend(dice.pick(&ALL));
        }
        chosen
    }

    /// How it is made.
    #[must_use]
    pub const fn sql(self) -> &'static str {
        match self {
            Items => {
                "CREATE TABLE items(id INTEGER PRIMARY KEY, born TEXT NOT NULL, a TEXT, b TEXT);
                 CREATE INDEX items_a ON items(a);
                 CREATE INDEX items_lower ON items(lower(b));
                 CREATE INDEX items_some ON items(born, a) WHERE b IS NOT NULL;
                 CREATE TABLE children(id INTEGER PRIMARY KEY, born TEXT NOT NULL, a TEXT, b TEXT,
                     ref_items INTEGER REFERENCES items(id) ON DELETE CASCADE);
                 CREATE INDEX children_items ON children(ref_items);
                 CREATE VIEW item_view AS SELECT items.id, items.a, count(children.id) AS n
                     FROM items LEFT JOIN children ON children.ref_items = items.id GROUP BY items.id;"
            }
            Logs => {
                "CREATE TABLE logs(id INTEGER PRIMARY KEY AUTOINCREMENT, born TEXT NOT NULL, a TEXT, b TEXT);
                 CREATE TABLE marks(id INTEGER PRIMARY KEY, born TEXT NOT NULL, a TEXT,
                     ref_logs INTEGER REFERENCES logs(id) ON DELETE SET NULL);"
            }
            Bag => "CREATE TABLE bag(born TEXT, a TEXT, b TEXT);",
            Words => {
                "CREATE TABLE words(k TEXT PRIMARY KEY, born TEXT, a TEXT, b TEXT);
                 CREATE TABLE uses(id INTEGER PRIMARY KEY, born TEXT NOT NULL, a TEXT,
                     word TEXT REFERENCES words(k) ON DELETE RESTRICT ON UPDATE CASCADE);
                 CREATE TABLE trail(born TEXT, a TEXT);
                 CREATE TRIGGER words_trail AFTER INSERT ON words BEGIN
                     INSERT INTO trail(born, a) VALUES ('trail-' || NEW.born, NEW.a);
                 END;"
            }
            Pairs => {
                "CREATE TABLE pairs(k1 INTEGER, k2 TEXT, born TEXT, a TEXT, b TEXT, PRIMARY KEY(k1, k2)) WITHOUT ROWID;
                 CREATE INDEX pairs_b ON pairs(b);"
            }
            Slots => {
                "CREATE TABLE slots(id INTEGER PRIMARY KEY, born TEXT NOT NULL, slot TEXT UNIQUE, a TEXT NOT NULL, b TEXT,
                     lo INTEGER NOT NULL DEFAULT 0, hi INTEGER NOT NULL DEFAULT 9, CHECK(lo <= hi));"
            }
            Tree => {
                "CREATE TABLE tree(id INTEGER PRIMARY KEY, born TEXT NOT NULL, a TEXT,
                     ref_tree INTEGER REFERENCES tree(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);"
            }
            Gens => {
                "CREATE TABLE gens(id INTEGER PRIMARY KEY, born TEXT NOT NULL, a TEXT, b TEXT,
                     g_s TEXT AS (upper(a)) STORED, g_v TEXT AS (coalesce(a, '-') || coalesce(b, '-')) VIRTUAL);
                 CREATE INDEX gens_v ON gens(g_v);"
            }
            Longs => "CREATE TABLE longs(id INTEGER PRIMARY KEY, born TEXT NOT NULL, a TEXT, b TEXT);",
            Notes => "CREATE VIRTUAL TABLE notes USING fts5(born, a, b);",
            Docs => {
                "CREATE TABLE docs(id INTEGER PRIMARY KEY, born TEXT NOT NULL, a TEXT, b TEXT);
                 CREATE VIRTUAL TABLE docs_fts USING fts5(a, b, content='docs', content_rowid='id');
                 CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN
                     INSERT INTO docs_fts(rowid, a, b) VALUES (NEW.id, NEW.a, NEW.b);
                 END;
                 CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN
                     INSERT INTO docs_fts(docs_fts, rowid, a, b) VALUES ('delete', OLD.id, OLD.a, OLD.b);
                 END;
                 CREATE TRIGGER docs_au AFTER UPDATE ON docs BEGIN
                     INSERT INTO docs_fts(docs_fts, rowid, a, b) VALUES ('delete', OLD.id, OLD.a, OLD.b);
                     INSERT INTO docs_fts(rowid, a, b) VALUES (NEW.id, NEW.a, NEW.b);
                 END;"
            }
            Boxes => "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1, +born TEXT, +a TEXT);",
        }
    }
}

/// Tables that belong to a virtual table, and indexes without rows of their own.
#[must_use]
pub fn is_inner(table: &str) -> bool {
    table.starts_with("sqlite_")
        || table == "docs_fts"
        || ["docs_fts_", "notes_", "boxes_"].iter().any(|prefix| table.starts_with(prefix))
}

/// Whether rows have no identity but their content once a VACUUM has given them new rowids.
#[must_use]
pub fn is_keyless(table: &str) -> bool {
    matches!(table, "bag" | "trail")
}

/// Tables whose rows point to each other.
#[must_use]
pub fn family(table: &str) -> &[&str] {
    match table {
        "items" | "children" => &["items", "children"],
        "logs" | "marks" => &["logs", "marks"],
        "words" | "uses" => &["words", "uses"],
        "tree" => &["tree"],
        _ => &[],
    }
}

/// Whether rows have a rowid that is no column.
#[must_use]
pub fn has_own_ids(table: &str) -> bool {
    matches!(table, "bag" | "trail" | "notes")
}
