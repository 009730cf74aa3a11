//! What merges could not keep, as a person reads it.

use rusqlite::Connection;

use crate::support::{Folder, Server, check, highwater, notes, texts};

/// Two copies of one database that both changed the same row, and added a row each.
fn two_copies(folder: &Folder, server: &Server) -> String {
    let url = server.db("app");
    notes(&folder.file("phone.db"));
    highwater(folder.path(), &format!("sync phone.db --remote {url}")).expect(0);
    highwater(folder.path(), &format!("clone {url} tablet.db")).expect(0);
    for device in ["phone", "tablet"] {
        let db = Connection::open(folder.file(&format!("{device}.db"))).unwrap();
        db.execute("UPDATE notes SET text = ?1 WHERE id = 1", [format!("changed on the {device}")]).unwrap();
        db.execute("INSERT INTO notes (text) VALUES (?1)", [format!("new on the {device}")]).unwrap();
    }
    highwater(folder.path(), "sync phone.db").expect(0);
    url
}

#[test]
fn a_merge_says_what_it_could_not_keep_and_where_to_see_more() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = two_copies(&folder, &server);
    let merged = highwater(folder.path(), "sync tablet.db").expect(0);
    check("sync_merged", &merged.all());
    let all = ["changed on the tablet", "new on the phone", "new on the tablet"];
    assert_eq!(texts(&folder.file("tablet.db")), all);

    let list = highwater(folder.path(), "conflicts list phone.db").expect(0);
    check("conflicts_list", &list.all());
    assert_eq!(highwater(folder.path(), &format!("conflicts list {url}")).expect(0).stdout, list.stdout);
    check("conflicts_show", &highwater(folder.path(), "conflicts show tablet.db 3").expect(0).all());
    let json = highwater(folder.path(), "conflicts show tablet.db 3 --json").expect(0).json();
    assert_eq!(json["conflicts"].as_array().unwrap().len(), 2, "{json}");

    check("conflicts_resolve", &highwater(folder.path(), "conflicts resolve phone.db 3").expect(0).all());
    let none = highwater(folder.path(), "conflicts list tablet.db").expect(0);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "No unresolved conflicts.\n"));
    let all = highwater(folder.path(), "conflicts list tablet.db --all").expect(0);
    assert!(all.stdout.contains("resolved"), "{all:?}");
    let unknown = highwater(folder.path(), "conflicts show tablet.db 1").expect(1);
    check("conflicts_unknown", &unknown.all());
}

#[test]
fn the_statement_that_is_shown_puts_the_other_value_back() {
    let (folder, server) = (Folder::new(), Server::start());
    two_copies(&folder, &server);
    highwater(folder.path(), "sync tablet.db").expect(0);
    let shown = highwater(folder.path(), "conflicts show tablet.db 3").expect(0).stdout;
    let sql = shown.lines().find_map(|line| line.trim().strip_prefix("for the other: ")).unwrap();
    Connection::open(folder.file("tablet.db")).unwrap().execute_batch(sql).unwrap();
    highwater(folder.path(), "sync tablet.db").expect(0);
    highwater(folder.path(), "sync phone.db").expect(0);
    assert_eq!(texts(&folder.file("phone.db"))[0], "changed on the phone");
}

#[test]
fn with_the_policy_of_a_sync_the_first_push_can_win() {
    let (folder, server) = (Folder::new(), Server::start());
    two_copies(&folder, &server);
    highwater(folder.path(), "sync tablet.db --policy first-push-wins").expect(0);
    assert_eq!(texts(&folder.file("tablet.db"))[0], "changed on the phone");
    highwater(folder.path(), "sync tablet.db --policy whoever").expect(2);
}

/// Such a client is told `conflict` and nothing else.
#[test]
fn why_a_libsql_client_was_refused_is_listed_and_shown() {
    use std::io::{Read as _, Write as _};
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("app");
    notes(&folder.file("app.db"));
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    // The log of another database: one page that is a commit.
    notes(&folder.file("other.db"));
    let page = &std::fs::read(folder.file("other.db")).unwrap()[..4096];
    let mut frame = [0, 0, 0, 1, 0, 0, 0, 1].to_vec();
    frame.extend([0xab; 16]);
    frame.extend(page);
    let host = url.strip_prefix("http://").unwrap().strip_suffix("/app").unwrap();
    for _ in 0..2 {
        let mut stream = std::net::TcpStream::connect(host).unwrap();
        let head = format!(
            "POST /app/sync/7/1/2 HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            frame.len()
        );
        stream.write_all(&[head.as_bytes(), &frame].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"conflict\""), "{answer}");
    }
    let list = highwater(folder.path(), "conflicts list app.db").expect(0);
    assert_eq!(list.stdout.lines().count(), 2, "a heading, and one record: {list:?}");
    assert!(list.stdout.contains("refused: its log does not continue this database's history"), "{list:?}");
    let id = "rabababababababab";
    let shown = highwater(folder.path(), &format!("conflicts show app.db {id}")).expect(0).stdout;
    let told = [
        "127.0.0.1",
        "was refused",
        "Why: its log",
        "The client has all of it",
        "highwater conflicts resolve app.db",
    ];
    assert!(told.iter().all(|part| shown.contains(part)), "{shown}");
    let json = highwater(folder.path(), &format!("conflicts show app.db {id} --json")).expect(0).json();
    assert_eq!((&json["id"], &json["resolved"]), (&id.into(), &false.into()));
    highwater(folder.path(), &format!("conflicts resolve app.db {id}")).expect(0);
    let none = highwater(folder.path(), "conflicts list app.db").expect(0);
    assert_eq!(none.stderr, "No unresolved conflicts.\n");
    let unknown = highwater(folder.path(), "conflicts show app.db r0000000000000000").expect(1);
    assert!(unknown.all().contains("no record of this refused push"), "{unknown:?}");
    highwater(folder.path(), "conflicts show app.db r12").expect(2);
}
