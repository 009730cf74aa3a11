//! `sync --watch`: beside a running application, until it is told to stop.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{
    Folder, Server, add, command, free_address, highwater, notes, terminate, texts, until, wait,
};

fn watch(folder: &Folder, args: &[&str]) -> Child {
    command(["sync", "--watch", "--json", "--interval", "200ms"])
        .args(args)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn both_directions_are_kept_in_step_until_it_is_stopped() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("app");
    let (here, there) = (folder.file("app.db"), folder.file("copy.db"));
    notes(&here);
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    highwater(folder.path(), &format!("clone {url} copy.db")).expect(0);

    let mut child = watch(&folder, &["app.db"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    add(&here, "from here");
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(event["action"], "pushed", "{event}");
    highwater(folder.path(), "sync copy.db").expect(0);
    add(&there, "from there");
    highwater(folder.path(), "sync copy.db").expect(0);
    until("the pull", || texts(&here).len() == 3);
    terminate(&child);
    assert_eq!(wait(&mut child), 0);
}

#[test]
fn a_missing_network_is_told_once_and_waited_for() {
    let folder = Folder::new();
    notes(&folder.file("app.db"));
    let address = free_address().to_string();
    let url = format!("http://{address}/app");
    let mut child = watch(&folder, &["app.db", "--remote", &url, "--timeout", "100ms"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(event["error"]["code"], "offline", "{event}");
    let _server = Server::with(&["--store", "memory:", "--listen", &address]);
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(event["action"], "pushed", "the failure is told once, then what moved: {event}");
    terminate(&child);
    assert_eq!(wait(&mut child), 0);
}

#[test]
fn a_conflict_ends_it_with_exit_code_3() {
    let (folder, server) = (Folder::new(), Server::start());
    let url = server.db("app");
    notes(&folder.file("app.db"));
    highwater(folder.path(), &format!("sync app.db --remote {url}")).expect(0);
    highwater(folder.path(), &format!("clone {url} copy.db")).expect(0);
    for (file, text) in [("copy.db", "theirs"), ("app.db", "mine")] {
        let sql = "UPDATE notes SET text = ?1 WHERE id = 1";
        rusqlite::Connection::open(folder.file(file)).unwrap().execute(sql, [text]).unwrap();
        if file == "copy.db" {
            highwater(folder.path(), "sync copy.db").expect(0);
        }
    }
    let mut child = watch(&folder, &["app.db", "--policy", "fail"]);
    assert_eq!(wait(&mut child), 3);
}
