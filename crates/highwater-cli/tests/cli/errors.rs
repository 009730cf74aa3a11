//! Exit codes, and what a person is told when something is wrong.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use crate::support::{Folder, Server, add, check, command, dead_url, free_address, highwater, notes, texts};

#[test]
fn a_missing_network_is_exit_code_4_and_loses_nothing() {
    let folder = Folder::new();
    let path = folder.file("app.db");
    notes(&path);
    let url = dead_url("app");
    let said = highwater(folder.path(), &format!("sync app.db --timeout 100ms --remote {url}")).expect(4);
    assert!(said.stderr.contains("could not be reached"), "{said:?}");
    let json = highwater(folder.path(), &format!("sync app.db --timeout 100ms --json --remote {url}"))
        .expect(4)
        .json();
    assert_eq!(json["error"]["code"], "offline");
    assert!(json["error"]["hint"].as_str().unwrap().contains("local work goes on"), "{json}");
    assert_eq!(texts(&path), ["first"]);
    highwater(folder.path(), &format!("log {url}")).expect(4);
}

#[test]
fn two_writers_are_a_conflict_with_exit_code_3_when_they_want_to_be_told_and_nothing_is_lost() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("app");
    let (mine, theirs) = (folder.file("mine.db"), folder.file("theirs.db"));
    notes(&mine);
    highwater(folder.path(), &format!("sync mine.db --remote {url}")).expect(0);
    highwater(folder.path(), &format!("clone {url} theirs.db")).expect(0);
    let edit = |path: &std::path::Path, text: &str| {
        let sql = "UPDATE notes SET text = ?1 WHERE id = 1";
        rusqlite::Connection::open(path).unwrap().execute(sql, [text]).unwrap();
    };
    edit(&theirs, "theirs");
    highwater(folder.path(), "sync theirs.db").expect(0);
    edit(&mine, "mine");

    let said = highwater(folder.path(), "sync mine.db --policy fail").expect(3);
    assert!(said.stderr.contains("notes id = 1"), "the row is named: {said:?}");
    assert!(said.stderr.contains("hint: "), "{said:?}");
    check("conflict", &said.all());
    let json = highwater(folder.path(), "sync mine.db --policy fail --json").expect(3).json();
    assert_eq!(json["error"]["code"], "conflict");
    assert_eq!(json["error"]["conflict"]["both_tables"][0], "notes");
    assert_eq!(json["error"]["conflicts"][0]["kind"], "update");
    assert_eq!(texts(&mine), ["mine"]);
    assert_eq!(texts(&theirs), ["theirs"]);
}

#[test]
fn a_server_that_lost_a_database_gets_it_anew_only_when_told_to() {
    let folder = Folder::new();
    let address = free_address();
    let serve = || Server::with(&["--listen", &address.to_string(), "--store", "memory:"]);
    let server = serve();
    notes(&folder.file("app.db"));
    let url = server.db("app");
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    assert_eq!(server.stop(), 0);
    let _server = serve();
    let said = highwater(folder.path(), "sync app.db").expect(1);
    assert!(said.stderr.contains("--forget"), "{said:?}");
    highwater(folder.path(), "sync app.db --forget").expect(0);
    highwater(folder.path(), &format!("clone {url} copy.db")).expect(0);
    assert_eq!(texts(&folder.file("copy.db")), ["first"]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let (folder, server) = (Folder::new(), Server::start());
    notes(&folder.file("app.db"));
    for line in [
        "nonsense",
        "sync",
        "sync app.db",
        "sync app.db --remote not-a-url",
        "sync app.db --remote http://127.0.0.1:1",
        "sync app.db --remote http://127.0.0.1:1/a?b",
        "sync app.db --interval 5s",
        "sync app.db --watch --interval soon",
        "clone app.db other.db",
        "log app.db",
        "log app.db --after first",
        "restore app.db",
        "restore app.db -o x.db --time yesterday",
        "restore app.db -o x.db --at 1/2 --time 2026-01-01T00:00:00Z",
        "serve --store s3://bucket",
        "serve --listen nowhere",
    ] {
        let said = highwater(folder.path(), line);
        assert_eq!(said.code, 2, "{line}: {said:?}");
        assert!(said.stderr.starts_with("error: "), "{line}: {said:?}");
        let json = highwater(folder.path(), &format!("{line} --json"));
        assert_eq!(json.code, 2, "{line}: {json:?}");
        assert!(json.json()["error"]["message"].as_str().is_some_and(|m| m.len() > 10), "{line}: {json:?}");
    }
    highwater(folder.path(), &format!("sync app.db --remote {}", server.db("app"))).expect(0);
    let other = highwater(folder.path(), &format!("sync app.db --remote {}", server.db("other"))).expect(2);
    check("other_remote", &other.all());
    highwater(folder.path(), &format!("sync app.db --switch-remote --remote {}", server.db("other")))
        .expect(0);
}

#[test]
fn a_name_that_does_not_exist_is_said_so() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("missing");
    check("unknown_database", &highwater(folder.path(), &format!("clone {url} copy.db")).expect(1).all());
    assert!(!folder.file("copy.db").exists());
    highwater(folder.path(), &format!("log {url}")).expect(1);
    highwater(folder.path(), &format!("restore {url} -o copy.db")).expect(1);
    assert!(!folder.file("copy.db").exists());
}

#[test]
fn a_missing_file_is_said_so_with_what_to_do() {
    let folder = Folder::new();
    check("no_such_file", &highwater(folder.path(), "status app.db").expect(1).all());
    highwater(folder.path(), "verify app.db").expect(1);
    highwater(folder.path(), "log app.db").expect(1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "looking must not make files");
}

#[test]
fn a_place_that_cannot_hold_a_file_is_said_so() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("app");
    for line in
        ["sync nowhere/app.db --remote URL", "clone URL nowhere/app.db", "restore URL -o nowhere/app.db"]
    {
        let said = highwater(folder.path(), &line.replace("URL", &url)).expect(1);
        assert_eq!(
            said.stderr,
            "error: there is no folder nowhere\nhint: make it first (mkdir -p nowhere), or choose another place\n"
        );
    }
    let said = highwater(folder.path(), &format!("sync . --remote {url}")).expect(1);
    assert!(said.stderr.contains(". is a folder"), "{said:?}");
}

#[test]
fn a_name_that_no_database_can_have_is_wrong_usage() {
    let (folder, server) = (Folder::new(), Server::start());
    notes(&folder.file("app.db"));
    let said = highwater(folder.path(), &format!("sync app.db --remote {}", server.db("App"))).expect(2);
    check("bad_name", &said.all());
}

#[test]
fn a_clone_never_overwrites() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("app");
    notes(&folder.file("app.db"));
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    notes(&folder.file("mine.db"));
    add(&folder.file("mine.db"), "precious");
    let said = highwater(folder.path(), &format!("clone {url} mine.db")).expect(1);
    assert!(said.stderr.contains("mine.db"), "{said:?}");
    assert_eq!(texts(&folder.file("mine.db")), ["first", "precious"]);
}

#[test]
fn a_stranger_is_refused_with_the_commands_that_resolve_it() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("app");
    notes(&folder.file("app.db"));
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    let stranger = rusqlite::Connection::open(folder.file("other.db")).unwrap();
    stranger.execute_batch("CREATE TABLE other (x); INSERT INTO other VALUES (1)").unwrap();
    let said = highwater(folder.path(), &format!("sync other.db --remote {url}")).expect(1);
    check("stranger", &said.all());
}

#[test]
fn what_is_no_database_is_refused_and_not_touched() {
    let (folder, server) = (Folder::new(), Server::start());
    let path = folder.file("letter.txt");
    File::create(&path).unwrap().write_all(&b"Dear reader, ".repeat(400)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let said = highwater(folder.path(), &format!("sync letter.txt --remote {}", server.db("app"))).expect(1);
    assert!(said.stderr.contains("not an SQLite database"), "{said:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_server_of_another_kind_is_recognised() {
    for status in ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/app", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer_with_a_page(stream.unwrap(), status);
            }
        });
        let folder = Folder::new();
        notes(&folder.file("app.db"));
        let said = highwater(folder.path(), &format!("sync app.db --timeout 2s --remote {url}")).expect(1);
        assert!(said.stderr.contains("not a Highwater server"), "{status}: {said:?}");
        let json = highwater(folder.path(), &format!("log {url} --json")).expect(1).json();
        assert_eq!(json["error"]["code"], "not_highwater", "{status}");
    }
}

fn answer_with_a_page(mut stream: TcpStream, status: &str) {
    let mut request = [0; 65536];
    let _ = stream.read(&mut request);
    let page = "<html>hello</html>";
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        page.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(page.as_bytes()));
    // Reads what is left, so that closing does not reset the connection under the answer.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    while stream.read(&mut request).is_ok_and(|n| n > 0) {}
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command(["--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let stderr = child.wait_with_output().unwrap();
    assert!(stderr.status.success(), "{stderr:?}");
    assert!(stderr.stderr.is_empty(), "{stderr:?}");

    let (folder, server) = (Folder::new(), Server::start());
    notes(&folder.file("app.db"));
    highwater(folder.path(), &format!("sync app.db --remote {}", server.db("app"))).expect(0);
    let mut log = command(["log", &server.db("app")]);
    let mut child = log.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
