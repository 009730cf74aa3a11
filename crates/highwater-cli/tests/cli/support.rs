//! Processes to run, a server to talk to, databases to sync, and outputs without what changes from
//! run to run.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

/// What a process said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The one line of JSON that it printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Panics unless it ended with this code.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// All of it, for a snapshot.
    pub(crate) fn all(&self) -> String {
        format!("exit code: {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// The command, with an environment that is the same everywhere.
pub(crate) fn command<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(args: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(args).stdin(Stdio::null());
    clean(&mut command);
    command
}

/// Takes out of the environment what would change the output.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HIGHWATER_") || text == "RUST_LOG" || text.to_lowercase().ends_with("_proxy") {
            command.env_remove(&name);
        }
    }
    command.env("COLUMNS", "100").env("NO_COLOR", "1");
}

/// Runs a process to its end.
pub(crate) fn said(mut command: Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `highwater` with arguments separated by spaces, in a folder.
pub(crate) fn highwater(folder: &Path, line: &str) -> Said {
    let mut command = command(line.split_whitespace());
    command.current_dir(folder);
    said(command)
}

/// A `highwater serve` of its own for one test.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&["--store", "memory:"])
    }

    pub(crate) fn with(args: &[&str]) -> Self {
        let mut command = command(["serve", "--json"]);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let url = value["listening"].as_str().unwrap().to_owned();
        Self { child, url }
    }

    pub(crate) fn db(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> i32 {
        terminate(&self.child);
        wait(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGTERM.
pub(crate) fn terminate(child: &Child) {
    use rustix::process::{Pid, Signal, kill_process};
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
}

/// The exit code, within ten seconds.
pub(crate) fn wait(child: &mut Child) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(Instant::now() < deadline, "the process does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until something holds, within ten seconds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a process with something on its standard input.
pub(crate) fn said_with_input(mut command: Command, input: &str) -> Said {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let code = wait(&mut child);
    Said { code, stdout, stderr: errors.join().unwrap() }
}

/// A database with one table and one row, in WAL mode, as an application leaves it.
pub(crate) fn notes(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode=WAL; CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO notes (text) VALUES ('first');",
    )
    .unwrap();
    db
}

/// Adds a row, as an application does.
pub(crate) fn add(path: &Path, text: &str) {
    Connection::open(path).unwrap().execute("INSERT INTO notes (text) VALUES (?1)", [text]).unwrap();
}

/// All rows.
pub(crate) fn texts(path: &Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut query = db.prepare("SELECT text FROM notes ORDER BY id").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// An address that nothing listens on: port 1 is nobody's.
pub(crate) fn dead_url(name: &str) -> String {
    format!("http://127.0.0.1:1/{name}")
}

/// An address that nothing listens on yet.
pub(crate) fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A temporary folder whose name is the same in every snapshot.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Compares with a snapshot, without what changes from run to run.
pub(crate) fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, replacement) in [
        // First: its fraction may have as many digits as a device's id.
        (r#""elapsed_ms":[\d.]+"#, r#""elapsed_ms":"[TIME]""#),
        (r"\b[0-9a-f]{32}\b", "[HASH]"),
        (r"\b[0-9a-f]{16}\b", "[DEVICE]"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:[PORT]"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIMESTAMP]"),
        (r"\b\d+ ms|\b\d+\.\d\d s\b", "[TIME]"),
        (r#""time_ms":\d+"#, r#""time_ms":"[TIMESTAMP]""#),
        (r#""bytes":\d+"#, r#""bytes":"[BYTES]""#),
        (r" *\b\d+(\.\d+)? (B|kB|MB)\b", " [BYTES]"),
        (r"/tmp/\.tmp\w+", "[DIR]"),
        (r"highwater \d+\.\d+\.\d+", "highwater [VERSION]"),
        (r"Highwater \d+\.\d+\.\d+", "Highwater [VERSION]"),
    ] {
        settings.add_filter(pattern, replacement);
    }
    settings.bind(|| insta::assert_snapshot!(name, text));
}
