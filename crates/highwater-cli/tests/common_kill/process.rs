//! The command as a process: to its end, or to the signal that kills it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub const SIGKILL: i32 = 9;
/// The exit code of a process whose main thread panicked.
pub const PANICKED: i32 = 101;

/// `highwater` with these arguments.
pub fn highwater<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HIGHWATER_") || text == "RUST_LOG" || text.to_lowercase().ends_with("_proxy") {
            command.env_remove(&name);
        }
    }
    command
}

/// `highwater sync` of a file.
pub fn sync(db: &Path, url: &str) -> Command {
    highwater([OsStr::new("sync"), db.as_os_str(), OsStr::new("--remote"), OsStr::new(url)])
}

/// Runs a process that must succeed.
pub fn succeeds(mut command: Command, what: &str) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{what}: {}", told(&output));
}

/// Runs a process that must be killed by its kill point.
pub fn dies(mut command: Command, at: &str) {
    let output = command.env("HIGHWATER_KILL_AT", at).output().unwrap();
    assert_eq!(output.status.signal(), Some(SIGKILL), "{at} must kill the process: {}", told(&output));
}

pub fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// How often each kill point was passed, from a process's log.
pub fn points(log: &Path) -> BTreeMap<String, u32> {
    let mut points = BTreeMap::new();
    for name in std::fs::read_to_string(log).unwrap_or_default().lines() {
        *points.entry(name.to_owned()).or_insert(0) += 1;
    }
    points
}

/// The first and the last time of each point: `NAME:N`.
pub fn first_and_last(points: &BTreeMap<String, u32>) -> Vec<String> {
    let mut all = Vec::new();
    for (name, count) in points {
        all.push(format!("{name}:1"));
        if *count > 1 {
            all.push(format!("{name}:{count}"));
        }
    }
    all
}

/// The names of the kill points in the sources of these crates.
pub fn named_in_sources(crates: &[&str]) -> Vec<String> {
    fn walk(folder: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, names);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let calls = text.split("kill_point(\"").skip(1);
                names.extend(calls.filter_map(|call| call.split_once('"')).map(|(name, _)| name.to_owned()));
            }
        }
    }
    let mut names = Vec::new();
    for name in crates {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src"), &mut names);
    }
    names.sort();
    names.dedup();
    names
}

/// A port that nobody else is given: below those that the system hands out by itself, so that a
/// server can be started again on it.
pub fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset =
            (std::process::id() as u16).wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::SeqCst));
        let port = 20_000 + offset % 12_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// `highwater serve` over a folder, at one address for all of its lives.
pub struct Served {
    pub port: u16,
    pub store: PathBuf,
    child: Option<Child>,
}

impl Served {
    pub fn start(store: &Path) -> Self {
        let mut served = Self { port: port(), store: store.to_owned(), child: None };
        served.again(&[]);
        served
    }

    /// Starts it again. Returns when it listens.
    pub fn again(&mut self, env: &[(&str, &str)]) {
        let listens = self.try_again(|command| {
            command.envs(env.iter().copied());
        });
        assert!(listens, "the server on port {} does not start", self.port);
    }

    /// Starts it again, in whatever way; `false` when it ended instead of listening.
    pub fn try_again(&mut self, prepare: impl FnOnce(&mut Command)) -> bool {
        let listen = format!("127.0.0.1:{}", self.port);
        let mut command = highwater(["serve", "--json", "--listen", &listen, "--store"]);
        command.arg(&self.store).env("RUST_LOG", "off").stderr(Stdio::inherit());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if !line.contains("listening") {
            let status = child.wait().unwrap();
            assert!(status.code().is_some_and(|code| code != 0 && code != PANICKED), "{status}: {line:?}");
            return false;
        }
        self.child = Some(child);
        true
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGKILL, for somebody else to notice.
    pub fn murder(&mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
    }

    /// SIGTERM, and a graceful end.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the server does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
