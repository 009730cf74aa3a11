//! `query`: SQL on the server, now and as it was.

use std::process::Command;

use rusqlite::Connection;

use crate::support::{Folder, Server, check, command, highwater, said};

/// A database with a little of everything, pushed three times.
fn pushed(folder: &Folder, server: &Server) -> String {
    let url = server.db("app");
    let path = folder.file("app.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT, mark BLOB, weight REAL);
         INSERT INTO notes VALUES (1, 'first', x'01ff', 0.5), (20, 'two' || char(10) || 'lines', NULL, 12.25);",
    )
    .unwrap();
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    for id in [1, 20] {
        db.execute("UPDATE notes SET text = text || ', changed' WHERE id = ?1", [id]).unwrap();
        highwater(folder.path(), "sync app.db").expect(0);
    }
    url
}

fn query(folder: &Folder, target: &str, sql: &str, more: &[&str]) -> crate::support::Said {
    let mut command: Command = command(["query", target, sql]);
    command.args(more).current_dir(folder.path());
    said(command)
}

#[test]
fn a_database_is_asked_as_it_is_and_as_it_was() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = pushed(&folder, &server);
    let all = "SELECT * FROM notes ORDER BY id";
    check("query", &query(&folder, &url, all, &[]).expect(0).all());
    check("query_at", &query(&folder, "app.db", all, &["--at", "1/2"]).expect(0).all());
    let later = query(&folder, &url, all, &["--at", "2101-01-01T00:00:00Z"]).expect(0);
    assert_eq!(later.stdout, query(&folder, &url, all, &[]).stdout);

    let json =
        query(&folder, &url, "SELECT id, text, mark FROM notes WHERE id = 1", &["--json"]).expect(0).json();
    assert_eq!(json["columns"], serde_json::json!(["id", "text", "mark"]));
    assert_eq!(json["rows"], serde_json::json!([[1, "first, changed", { "blob": "Af8=" }]]));
    assert_eq!(json["txid"], 3);
    let none = query(&folder, &url, "SELECT id FROM notes WHERE id = 9", &[]).expect(0);
    assert_eq!(none.stdout, "id\n--\n");
}

#[test]
fn a_query_that_cannot_be_answered_says_what_to_do() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = pushed(&folder, &server);
    check("query_wrong", &query(&folder, &url, "SELECT * FROM nowhere", &[]).expect(1).all());
    check("query_writes", &query(&folder, &url, "DELETE FROM notes", &[]).expect(1).all());
    let unknown = query(&folder, &url, "SELECT 1", &["--at", "9/9"]).expect(1);
    assert!(unknown.stderr.contains("highwater log"), "{unknown:?}");
    let no_moment = query(&folder, &url, "SELECT 1", &["--at", "yesterday"]).expect(2);
    assert!(no_moment.stderr.contains("2026-01-31T12:00:00Z"), "{no_moment:?}");
    let nothing = query(&folder, &server.db("other"), "SELECT 1", &[]).expect(1);
    assert!(nothing.stderr.contains("no database"), "{nothing:?}");
    let json = query(&folder, &url, "DELETE FROM notes", &["--json"]).expect(1).json();
    assert_eq!(json["error"]["code"], "query");
}

#[test]
fn a_long_answer_is_cut_and_says_so() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = pushed(&folder, &server);
    let sql = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM c LIMIT 10001) SELECT n FROM c";
    let said = query(&folder, &url, sql, &[]).expect(0);
    assert_eq!(said.stdout.lines().count(), 10_002);
    assert!(said.stderr.contains("LIMIT and OFFSET"), "{}", said.stderr);
}
