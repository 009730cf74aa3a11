//! Full-text tables, R-Trees, and virtual tables that nobody knows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    dead_code,
    missing_docs,
    unreachable_pub
)]

mod common;

use common::{merged, refused};
use highwater_wire::ConflictKind::{NoPlace, Renumbered, Schema, Update};

const DOCS: &str = "CREATE VIRTUAL TABLE docs USING fts5(title, body, tag UNINDEXED, prefix = '2 3');
    INSERT INTO docs(rowid, title, body, tag) VALUES (1, 'alpha', 'first words', 't1'), (2, 'beta', 'second words', 't2'),
    (3, 'gamma', 'third words', 't3');";

#[test]
fn documents_of_both_sides_are_found() {
    let result = merged(
        DOCS,
        "INSERT INTO docs(rowid, title, body) VALUES (10, 'delta', 'from the device'); DELETE FROM docs WHERE rowid = 2;
         UPDATE docs SET body = 'changed there' WHERE rowid = 1",
        "INSERT INTO docs(rowid, title, body) VALUES (20, 'epsilon', 'from the head'); UPDATE docs SET title = 'aleph' WHERE rowid = 1",
    )
    .peaceful();
    assert_eq!(
        result.rows("SELECT rowid, title, body FROM docs"),
        [
            "1|aleph|changed there",
            "3|gamma|third words",
            "10|delta|from the device",
            "20|epsilon|from the head"
        ]
    );
    assert_eq!(
        result.rows("SELECT rowid FROM docs WHERE docs MATCH 'device OR head OR aleph'"),
        ["1", "10", "20"]
    );
    assert!(result.rows("SELECT rowid FROM docs WHERE docs MATCH 'second OR alpha'").is_empty());
    assert_eq!(result.rows("SELECT tag FROM docs WHERE rowid = 3"), ["t3"]);
    assert_eq!((result.merge.counts.inserted, result.merge.counts.deleted), (1, 1));
}

#[test]
fn documents_only_of_the_device_and_only_of_the_head_arrive() {
    let change =
        "INSERT INTO docs(rowid, title, body) VALUES (10, 'delta', 'more'); DELETE FROM docs WHERE rowid = 2";
    for (local, head) in
        [(change, "INSERT INTO always VALUES (1)"), ("INSERT INTO always VALUES (1)", change)]
    {
        let result = merged(DOCS, local, head).peaceful();
        assert_eq!(result.rows("SELECT rowid FROM docs WHERE docs MATCH 'words OR more'"), ["1", "3", "10"]);
    }
}

#[test]
fn two_documents_with_one_rowid_both_live() {
    let insert = |title: &str| format!("INSERT INTO docs(rowid, title) VALUES (4, '{title}')");
    let result = merged(DOCS, &insert("mine"), &insert("yours"));
    assert_eq!(result.kinds(), [(Renumbered, "docs")]);
    assert_eq!(result.rows("SELECT title FROM docs WHERE docs MATCH 'mine OR yours'"), ["yours", "mine"]);
    let result = merged(
        DOCS,
        "UPDATE docs SET title = 'mine' WHERE rowid = 1",
        "UPDATE docs SET title = 'yours' WHERE rowid = 1",
    );
    assert_eq!(result.kinds(), [(Update, "docs")]);
    assert_eq!(result.rows("SELECT rowid FROM docs WHERE docs MATCH 'mine'"), ["1"]);
}

#[test]
fn a_setting_of_a_full_text_table_arrives() {
    let result = merged(
        DOCS,
        "INSERT INTO docs(docs, rank) VALUES ('rank', 'bm25(10.0, 5.0)'), ('automerge', 8); INSERT INTO docs(title) VALUES ('x')",
        "INSERT INTO docs(docs, rank) VALUES ('automerge', 2); INSERT INTO docs(rowid, title) VALUES (9, 'y')",
    );
    assert_eq!(result.rows("SELECT v FROM docs_config WHERE k = 'rank'"), ["bm25(10.0, 5.0)"]);
    assert_eq!(result.rows("SELECT v FROM docs_config WHERE k = 'automerge'"), ["2"]);
}

const EXTERNAL: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);
    CREATE VIRTUAL TABLE find USING fts5(body, content = 'notes', content_rowid = 'id');
    CREATE TRIGGER ai AFTER INSERT ON notes BEGIN INSERT INTO find(rowid, body) VALUES (new.id, new.body); END;
    CREATE TRIGGER ad AFTER DELETE ON notes BEGIN INSERT INTO find(find, rowid, body) VALUES ('delete', old.id, old.body); END;
    CREATE TRIGGER au AFTER UPDATE ON notes BEGIN INSERT INTO find(find, rowid, body) VALUES ('delete', old.id, old.body);
        INSERT INTO find(rowid, body) VALUES (new.id, new.body); END;
    INSERT INTO notes VALUES (1, 'one word'), (2, 'two words');";

#[test]
fn an_index_of_another_table_finds_what_the_merge_made() {
    let result = merged(
        EXTERNAL,
        "INSERT INTO notes VALUES (3, 'from device'); UPDATE notes SET body = 'changed' WHERE id = 1",
        "INSERT INTO notes VALUES (3, 'from head'); DELETE FROM notes WHERE id = 2",
    );
    assert_eq!(result.kinds(), [(Renumbered, "notes")]);
    assert_eq!(
        result.rows("SELECT body FROM find WHERE find MATCH 'from OR changed'"),
        ["changed", "from head", "from device"]
    );
    assert!(result.rows("SELECT rowid FROM find WHERE find MATCH 'two OR one'").is_empty());
    result.db.execute_batch("INSERT INTO find(find, rank) VALUES ('integrity-check', 1)").unwrap();
}

#[test]
fn an_index_of_another_table_costs_no_rebuild_when_only_one_side_wrote() {
    let change = "INSERT INTO notes VALUES (3, 'new'); DELETE FROM notes WHERE id = 2";
    for (local, head) in
        [(change, "INSERT INTO always VALUES (1)"), ("INSERT INTO always VALUES (1)", change)]
    {
        let result = merged(EXTERNAL, local, head).peaceful();
        assert_eq!(result.rows("SELECT rowid FROM find WHERE find MATCH 'new OR one OR two'"), ["1", "3"]);
        result.db.execute_batch("INSERT INTO find(find, rank) VALUES ('integrity-check', 1)").unwrap();
    }
}

#[test]
fn an_index_of_a_view_is_made_again() {
    let base = "CREATE TABLE a (id INTEGER PRIMARY KEY, x); CREATE VIEW v AS SELECT id, 'word ' || x AS body FROM a;
        CREATE VIRTUAL TABLE find USING fts5(body, content = 'v', content_rowid = 'id'); INSERT INTO a VALUES (1, 'p');
        INSERT INTO find(find) VALUES ('rebuild');";
    let add = |id: u32| {
        format!(
            "INSERT INTO a VALUES ({id}, 'q{id}'); INSERT INTO find(rowid, body) VALUES ({id}, 'word q{id}')"
        )
    };
    let result = merged(base, &add(5), &add(6)).peaceful();
    assert_eq!(result.rows("SELECT rowid FROM find WHERE find MATCH 'word'"), ["1", "5", "6"]);
}

const CONTENTLESS: &str = "CREATE VIRTUAL TABLE terms USING fts5(body, content = '', contentless_delete = 1);
    INSERT INTO terms(rowid, body) VALUES (1, 'one'), (2, 'two');";

#[test]
fn a_contentless_table_is_the_one_sides_that_changed_it() {
    let change = "INSERT INTO terms(rowid, body) VALUES (3, 'three'); DELETE FROM terms WHERE rowid = 1";
    for (local, head) in
        [(change, "INSERT INTO always VALUES (1)"), ("INSERT INTO always VALUES (1)", change)]
    {
        let result = merged(CONTENTLESS, local, head).peaceful();
        assert_eq!(
            result.rows("SELECT rowid FROM terms WHERE terms MATCH 'one OR two OR three'"),
            ["2", "3"]
        );
    }
    let why = refused(CONTENTLESS, change, "INSERT INTO terms(rowid, body) VALUES (4, 'four')");
    assert_eq!(why.object.as_deref(), Some("terms"));
}

#[test]
fn older_full_text_tables_are_merged_by_document() {
    let base = "CREATE VIRTUAL TABLE old USING fts4(title, body, tokenize=porter);
        INSERT INTO old(docid, title, body) VALUES (1, 'a', 'running'), (2, 'b', 'walking');";
    let result = merged(
        base,
        "INSERT INTO old(docid, title, body) VALUES (3, 'c', 'jumping'); UPDATE old SET title = 'A' WHERE docid = 1",
        "INSERT INTO old(docid, title, body) VALUES (4, 'd', 'jumped'); DELETE FROM old WHERE docid = 2",
    )
    .peaceful();
    assert_eq!(
        result.rows("SELECT docid, title FROM old WHERE old MATCH 'jump OR run'"),
        ["1|A", "3|c", "4|d"]
    );
}

const TREE: &str = "CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, y0, y1, +name);
    WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)
    INSERT INTO places SELECT i, i, i + 0.5, i % 17, i % 17 + 1, 'p' || i FROM n;";

#[test]
fn entries_of_an_r_tree_from_both_sides_are_found() {
    let result = merged(
        TREE,
        "INSERT INTO places VALUES (1000, 5, 6, 5, 6, 'device'); DELETE FROM places WHERE id = 7;
         UPDATE places SET x0 = -50, x1 = -49 WHERE id = 20; UPDATE places SET name = 'renamed' WHERE id = 21",
        "INSERT INTO places VALUES (1001, 5, 6, 5, 6, 'head'); DELETE FROM places WHERE id BETWEEN 100 AND 200;
         UPDATE places SET y0 = -9 WHERE id = 22",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT count(*) FROM places"), ["200"]);
    assert_eq!(
        result.rows("SELECT id, name FROM places WHERE x0 = -50 OR y0 = -9 ORDER BY id"),
        ["20|p20", "22|p22"]
    );
    assert_eq!(
        result.rows("SELECT name FROM places WHERE id IN (7, 21, 1000, 1001) ORDER BY id"),
        ["renamed", "device", "head"]
    );
}

#[test]
fn two_entries_of_an_r_tree_with_one_id_both_live() {
    let add = |name: &str| format!("INSERT INTO places VALUES (500, 5, 6, 5, 6, '{name}')");
    let result = merged(TREE, &add("mine"), &add("yours"));
    assert_eq!(result.kinds(), [(Renumbered, "places")]);
    assert_eq!(result.rows("SELECT id, name FROM places WHERE id >= 500"), ["500|yours", "501|mine"]);
}

#[test]
fn virtual_tables_made_on_one_side_arrive_with_their_content() {
    let make = format!("{} {TREE} {CONTENTLESS} {EXTERNAL}", DOCS.replace("docs", "made"));
    for (local, head) in
        [(make.as_str(), "INSERT INTO always VALUES (1)"), ("INSERT INTO always VALUES (1)", make.as_str())]
    {
        let result = merged("", local, head).peaceful();
        assert_eq!(result.rows("SELECT rowid FROM made WHERE made MATCH 'words'"), ["1", "2", "3"]);
        assert_eq!(result.rows("SELECT count(*) FROM places"), ["300"]);
        assert_eq!(result.rows("SELECT rowid FROM terms WHERE terms MATCH 'two'"), ["2"]);
        assert_eq!(result.rows("SELECT rowid FROM find WHERE find MATCH 'words'"), ["2"]);
    }
}

#[test]
fn a_virtual_table_made_alike_on_both_sides_has_the_content_of_both() {
    let make = |id: u32| {
        format!(
            "CREATE VIRTUAL TABLE made USING fts5(body); INSERT INTO made(rowid, body) VALUES ({id}, 'word');
             CREATE VIRTUAL TABLE box USING rtree(id, a, b); INSERT INTO box VALUES ({id}, 1, 2);
             CREATE VIRTUAL TABLE none USING fts5(body, content = '')"
        )
    };
    let result = merged("", &make(1), &make(2)).peaceful();
    assert_eq!(result.rows("SELECT rowid FROM made WHERE made MATCH 'word'"), ["1", "2"]);
    assert_eq!(result.rows("SELECT id FROM box ORDER BY id"), ["1", "2"]);
}

#[test]
fn a_virtual_table_that_the_device_dropped_goes_unless_the_head_wrote_to_it() {
    let result = merged(
        &format!("{DOCS} {TREE}"),
        "DROP TABLE docs; DROP TABLE places",
        "INSERT INTO always VALUES (1)",
    )
    .peaceful();
    assert_eq!(result.rows("SELECT name FROM sqlite_schema"), ["always"]);
    let result = merged(DOCS, "DROP TABLE docs", "INSERT INTO docs(title) VALUES ('new')");
    assert_eq!(result.kinds(), [(Schema, "docs")]);
    assert_eq!(result.rows("SELECT count(*) FROM docs"), ["4"]);
}

#[test]
fn a_virtual_table_that_the_head_dropped_stays_dropped_and_documents_are_recorded() {
    let result = merged(DOCS, "INSERT INTO docs(title) VALUES ('new')", "DROP TABLE docs");
    assert_eq!(result.kinds(), [(NoPlace, "docs")]);
    assert_eq!(result.rows("SELECT name FROM sqlite_schema"), ["always"]);
    let result = merged(CONTENTLESS, "INSERT INTO terms(rowid, body) VALUES (3, 'x')", "DROP TABLE terms");
    assert!(result.kinds().iter().all(|(kind, table)| *kind == NoPlace && table.starts_with("terms_")));
    assert!(result.kinds().contains(&(NoPlace, "terms_docsize")));
    let result = merged(EXTERNAL, "INSERT INTO notes VALUES (3, 'x')", "DROP TABLE notes; DROP TABLE find");
    assert_eq!(result.kinds(), [(NoPlace, "notes")]);
}

#[test]
fn a_virtual_table_with_other_options_replaces_the_old_one() {
    let change =
        "DROP TABLE docs; CREATE VIRTUAL TABLE docs USING fts5(title, body, tag, tokenize = 'porter');
        INSERT INTO docs(rowid, title, body) VALUES (1, 'alpha', 'running')";
    let result = merged(DOCS, change, "INSERT INTO always VALUES (1)").peaceful();
    assert_eq!(result.rows("SELECT rowid FROM docs WHERE docs MATCH 'run'"), ["1"]);
    let result = merged(DOCS, change, "INSERT INTO docs(rowid, title) VALUES (9, 'kept')");
    assert_eq!(result.kinds()[0], (Schema, "docs"));
    assert_eq!(result.rows("SELECT rowid FROM docs WHERE docs MATCH 'kept'"), ["9"]);

    let change = "DROP TABLE find; CREATE VIRTUAL TABLE find USING fts5(body, content = 'notes', content_rowid = 'id', tokenize = 'porter');
        INSERT INTO find(find) VALUES ('rebuild')";
    let result = merged(EXTERNAL, change, "INSERT INTO notes VALUES (9, 'running')").peaceful();
    assert_eq!(result.rows("SELECT rowid FROM find WHERE find MATCH 'run'"), ["9"]);
}

#[test]
fn a_renamed_virtual_table_takes_the_other_sides_documents() {
    let (rename, change) =
        ("ALTER TABLE docs RENAME TO papers", "INSERT INTO docs(rowid, title) VALUES (9, 'new')");
    for (local, head) in [(rename, change), (change, rename)] {
        let result = merged(DOCS, local, head).peaceful();
        assert_eq!(result.rows("SELECT rowid FROM papers WHERE papers MATCH 'new OR alpha'"), ["1", "9"]);
    }
}

/// A table of a module that nobody has, with two hidden tables.
const UNKNOWN: &str = "CREATE TABLE odd_data (k INTEGER PRIMARY KEY, v); CREATE TABLE odd_keys (k, v, PRIMARY KEY (k)) WITHOUT ROWID;
    INSERT INTO odd_data VALUES (1, 'a'); INSERT INTO odd_keys VALUES ('x', 1); PRAGMA writable_schema = ON;
    INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql)
    VALUES ('table', 'odd', 'odd', 0, 'CREATE VIRTUAL TABLE odd USING nobody_has(a, b)'); PRAGMA writable_schema = OFF;";

#[test]
fn a_module_that_the_server_lacks_is_no_matter_while_one_side_alone_uses_it() {
    let change = "INSERT INTO odd_data VALUES (2, 'b'); UPDATE odd_keys SET v = 2";
    for (local, head) in [
        ("INSERT INTO always VALUES (1)", "INSERT INTO always VALUES (2)"),
        (change, "INSERT INTO always VALUES (1)"),
        ("INSERT INTO always VALUES (1)", change),
    ] {
        let result = merged(UNKNOWN, local, head);
        assert!(result.kinds().iter().all(|(_, table)| *table == "always"), "{:?}", result.conflicts());
        let changed = local == change || head == change;
        assert_eq!(result.rows("SELECT v FROM odd_keys"), [if changed { "2" } else { "1" }]);
        assert_eq!(result.rows("SELECT count(*) FROM odd_data"), [if changed { "2" } else { "1" }]);
    }
    let why = refused(UNKNOWN, change, "INSERT INTO odd_data VALUES (3, 'c')");
    assert_eq!(why.object.as_deref(), Some("odd"));
}

#[test]
fn a_new_table_of_a_module_that_the_server_lacks_is_refused_by_name() {
    let why = refused("", UNKNOWN, "INSERT INTO always VALUES (1)");
    assert_eq!(why.object.as_deref(), Some("odd"));
    assert!(why.reason.contains("nobody_has"), "{}", why.reason);
}

#[test]
fn an_index_whose_content_is_gone_is_recorded() {
    let result = merged(
        EXTERNAL,
        "INSERT INTO notes VALUES (3, 'x')",
        "DROP TABLE notes; INSERT INTO find(rowid, body) VALUES (9, 'left')",
    );
    assert_eq!(result.kinds(), [(Schema, "find"), (NoPlace, "notes")]);
}

#[test]
fn an_index_of_a_table_whose_row_was_not_applied_does_not_find_it() {
    let base = EXTERNAL.replace("body TEXT)", "body TEXT, folder INT REFERENCES folders(id))");
    let base =
        format!("CREATE TABLE folders (id INTEGER PRIMARY KEY); INSERT INTO folders VALUES (1); {base}")
            .replace("(1, 'one word'), (2, 'two words')", "(1, 'one word', NULL), (2, 'two words', NULL)");
    let result = merged(
        &base,
        "INSERT INTO notes VALUES (3, 'kept', NULL), (4, 'rejected', 1)",
        "DELETE FROM folders",
    );
    assert_eq!(result.kinds(), [(highwater_wire::ConflictKind::ForeignKey, "notes")]);
    assert_eq!(result.rows("SELECT rowid FROM find WHERE find MATCH 'kept OR rejected'"), ["3"]);
    result.db.execute_batch("INSERT INTO find(find, rank) VALUES ('integrity-check', 1)").unwrap();
}

#[test]
fn a_document_follows_the_row_that_it_belongs_to() {
    let base = "CREATE TABLE note(id INTEGER PRIMARY KEY, title TEXT); CREATE TABLE other(id INTEGER PRIMARY KEY, v);
        CREATE VIRTUAL TABLE words USING fts5(body);";
    let local = "INSERT INTO note VALUES (1, 'mine'); INSERT INTO words(rowid, body) VALUES (1, 'my text');";
    let head = "INSERT INTO note VALUES (1, 'theirs')";
    let result = merged(base, local, head);
    let found = "SELECT title, body FROM note JOIN words ON words.rowid = id WHERE words MATCH 'text'";
    assert_eq!(result.rows(found), ["mine|my text"]);
    // Where it may belong to another row, which keeps its id, it stays.
    let result = merged(base, &format!("{local} INSERT INTO other VALUES (1, 'x')"), head);
    assert_eq!(result.rows("SELECT rowid FROM words"), ["1"]);
}

#[test]
fn entries_that_follow_a_row_and_entries_with_an_id_of_their_own_never_get_the_same() {
    let base = "CREATE TABLE note(id INTEGER PRIMARY KEY, title TEXT);
        CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, +what TEXT);";
    // The note 1 becomes 4, and so would the box 1; the boxes 2 and 3 get the next ids that are free.
    let local = "INSERT INTO note VALUES (1, 'mine');
        INSERT INTO boxes VALUES (1, 1, 2, 'mine 1'), (2, 1, 2, 'mine 2'), (3, 1, 2, 'mine 3')";
    let head = "INSERT INTO note VALUES (1, 'theirs'), (2, 'theirs'), (3, 'theirs');
        INSERT INTO boxes VALUES (1, 1, 2, 'theirs 1'), (2, 1, 2, 'theirs 2'), (3, 1, 2, 'theirs 3')";
    let result = merged(base, local, head);
    let all = ["mine 1", "mine 2", "mine 3", "theirs 1", "theirs 2", "theirs 3"];
    assert_eq!(result.rows("SELECT what FROM boxes ORDER BY what"), all);
    let follows = "SELECT what FROM boxes JOIN note USING (id) WHERE title = 'mine'";
    assert_eq!(result.rows(follows), ["mine 1"]);
}
