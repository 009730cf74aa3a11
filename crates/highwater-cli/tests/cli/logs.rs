//! What a server logs: a line for each request that can change something, as text or as JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Folder, command, highwater, notes, terminate, wait};

/// A server whose log is read.
struct Logging {
    child: Child,
    url: String,
}

impl Logging {
    fn start(args: &[&str]) -> Self {
        let mut command = command(["serve", "--store", "memory:", "--listen", "127.0.0.1:0"]);
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        let url = first.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Self { child, url }
    }

    /// Sends a push that is no push; the id that the answer names.
    fn broken_push(&self, headers: &str) -> String {
        let host = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = format!(
            "POST /app/v1/sync HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}content-length: 4\r\n\r\nnope"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
        assert!(answer.contains(&format!("\"request_id\":\"{id}\"")), "{answer}");
        id
    }

    /// Stops it; everything that it logged.
    fn log(mut self) -> String {
        terminate(&self.child);
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert_eq!(wait(&mut self.child), 0);
        log
    }
}

#[test]
fn each_line_is_json_and_holds_the_id_that_the_client_got() {
    let (folder, server) = (Folder::new(), Logging::start(&["--log-format", "json", "-v"]));
    notes(&folder.file("app.db"));
    let remote = format!("{}/app", server.url);
    highwater(folder.path(), &format!("sync app.db --remote {remote} --token not-for-logs")).expect(0);
    let ids = [
        server.broken_push("x-request-id: mine-1\r\nauthorization: Bearer not-for-logs\r\n"),
        server.broken_push("x-request-id: two words\r\n"),
        server.broken_push(&format!("x-request-id: {}\r\n", "a".repeat(65))),
    ];
    let log = server.log();
    assert!(!log.contains("not-for-logs"), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests: Vec<&Value> = lines.iter().filter(|line| line["message"] == "request").collect();
    let push = requests.iter().find(|line| line["did"] == "pushed").unwrap();
    assert_eq!(
        (&push["level"], &push["route"], &push["db"]),
        (&"INFO".into(), &"sync".into(), &"app".into())
    );
    assert_eq!((&push["status"], &push["generation"]), (&200.into(), &1.into()));
    assert_eq!(push["caller"], "127.0.0.1");
    assert!(
        push["bytes_in"].as_u64() > Some(0) && push["ms"].is_u64() && push["device"].is_string(),
        "{push}"
    );
    for (id, client_id) in ids.iter().zip(["mine-1".into(), Value::Null, Value::Null]) {
        let line = requests.iter().find(|line| line["request_id"] == **id).unwrap();
        assert_eq!(line["client_request_id"], client_id);
        assert_eq!(line["code"], "corrupt_body", "{line}");
        // What is said on the way stands in the request's span.
        assert!(lines.iter().any(|line| line["span"]["id"] == **id && line["message"] == "refused"), "{log}");
    }
}

#[test]
fn as_text_changes_are_told_in_one_line_and_reads_when_they_are_asked_for() {
    for (args, reads) in [(vec![], 0), (vec!["-v"], 1)] {
        let (folder, server) = (Folder::new(), Logging::start(&args));
        notes(&folder.file("app.db"));
        let remote = format!("{}/app", server.url);
        highwater(folder.path(), &format!("sync app.db --remote {remote}")).expect(0);
        highwater(folder.path(), &format!("log {remote} --json")).expect(0);
        let log = server.log();
        let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        assert_eq!(lines("did=\"pushed\""), 1, "{log}");
        assert_eq!(lines("route=\"log\""), reads, "{log}");
        if reads == 0 {
            assert_eq!(log.lines().count(), 1, "{log}");
        }
    }
}

#[test]
fn a_format_that_does_not_exist_is_wrong_usage() {
    let folder = Folder::new();
    let said = highwater(folder.path(), "serve --store memory: --log-format xml").expect(2);
    assert!(said.stderr.contains("\"xml\" is neither text nor json"), "{said:?}");
}
