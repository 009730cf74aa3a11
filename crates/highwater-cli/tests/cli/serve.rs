//! `serve`: where it listens, what it says, how it stops.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{Folder, Server, check, command, highwater, notes, terminate, texts, wait};

#[test]
fn it_says_where_it_listens_what_it_keeps_and_what_to_try() {
    let folder = Folder::new();
    let mut child = command(["serve", "--listen", "127.0.0.1:0", "--store", "data"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said: Vec<String> = (0..4).map(|_| lines.next().unwrap().unwrap()).collect();
    check("serve", &said.join("\n"));
    terminate(&child);
    let last = lines.next().unwrap().unwrap();
    assert_eq!(last, "Stopped; everything that was acknowledged is in the store.");
    assert_eq!(wait(&mut child), 0);
}

#[test]
fn other_machines_are_kept_out_unless_insecure_is_said() {
    let folder = Folder::new();
    let said = highwater(folder.path(), "serve --listen 0.0.0.0:0 --store memory:").expect(2);
    check("serve_insecure", &said.all());
    highwater(folder.path(), "serve --listen [::]:0 --store memory:").expect(2);
    let server = Server::with(&["--listen", "0.0.0.0:0", "--store", "memory:", "--insecure"]);
    assert!(server.url.starts_with("http://0.0.0.0:"), "{}", server.url);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_port_in_use_is_said_so() {
    let folder = Folder::new();
    let server = Server::start();
    let address = server.url.trim_start_matches("http://");
    let said = highwater(folder.path(), &format!("serve --store memory: --listen {address}")).expect(1);
    assert!(said.stderr.contains("--listen"), "{said:?}");
}

#[test]
fn what_was_pushed_is_there_after_a_restart() {
    let folder = Folder::new();
    let store = folder.file("data");
    let store = store.to_str().unwrap();
    let server = Server::with(&["--store", store]);
    let address = server.url.trim_start_matches("http://").to_owned();
    notes(&folder.file("app.db"));
    highwater(folder.path(), &format!("sync app.db --remote {}", server.db("app"))).expect(0);
    assert_eq!(server.stop(), 0);
    let server = Server::with(&["--store", store, "--listen", &address]);
    let again = highwater(folder.path(), "sync app.db --json").expect(0).json();
    assert_eq!(again["action"], "up-to-date");
    highwater(folder.path(), &format!("clone {} copy.db", server.db("app"))).expect(0);
    assert_eq!(texts(&folder.file("copy.db")), ["first"]);
}

#[test]
fn health_tells_ready_from_not_there() {
    let folder = Folder::new();
    let server = Server::start();
    let said = highwater(folder.path(), &format!("health {}", server.url)).expect(0);
    assert_eq!(said.stdout, "ready\n");
    let url = server.url.clone();
    assert_eq!(server.stop(), 0);
    highwater(folder.path(), &format!("health {url} --timeout 2s")).expect(4);
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_is_told_when_it_serves_and_when_it_stops() {
    let folder = Folder::new();
    let socket = std::os::unix::net::UnixDatagram::bind(folder.file("notify")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let mut child = command(["serve", "--listen", "127.0.0.1:0", "--store", "memory:"])
        .env("NOTIFY_SOCKET", folder.file("notify"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = || {
        let mut text = [0; 64];
        let size = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..size]).into_owned()
    };
    assert_eq!(told(), "READY=1");
    terminate(&child);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(wait(&mut child), 0);
}
