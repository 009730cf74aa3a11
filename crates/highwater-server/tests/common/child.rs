//! A server in a process of its own: the test binary started again, told to serve.
#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use highwater_server::{Config, Server, StoreUrl};

const STORE: &str = "HIGHWATER_TEST_STORE";
const MAX_FILES: &str = "HIGHWATER_TEST_MAX_FILES";
const KEEP_MS: &str = "HIGHWATER_TEST_KEEP_MS";
const SMALL_BODY: &str = "HIGHWATER_TEST_SMALL_BODY";
const PUSH_BYTES: &str = "HIGHWATER_TEST_PUSH_BYTES";

/// A running server process; killed when dropped.
pub struct ChildServer {
    pub child: Child,
    pub url: String,
}

impl ChildServer {
    /// Starts this test binary again with `role`, the name of a test that calls [`serve_if_child`].
    /// `None` when it ended before it served.
    pub fn start(role: &str, store: &Path, env: &[(&str, &str)]) -> Option<Self> {
        Self::start_through(&[], role, store, env)
    }

    /// As [`ChildServer::start`], by a command that runs the command it is given.
    pub fn start_through(through: &[&str], role: &str, store: &Path, env: &[(&str, &str)]) -> Option<Self> {
        let binary = std::env::current_exe().unwrap();
        let mut command = match through {
            [] => Command::new(&binary),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&binary);
                command
            }
        };
        let mut child = command
            .args(["--exact", role, "--nocapture", "--test-threads=1"])
            .env(STORE, store)
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| Some(line.ok()?.split_once("SERVING ")?.1.to_owned()));
        // Whatever else it prints is read away, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        match url {
            Some(url) => Some(Self { child, url }),
            None => {
                child.wait().unwrap();
                None
            }
        }
    }

    /// The most memory that it ever used, and uses now, in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        (field("VmHWM:"), field("VmRSS:"))
    }

    /// Processor time that it used so far, in clock ticks of a hundredth of a second.
    pub fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Kills it and waits until it is gone.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until killed, if this process was started by [`ChildServer::start`].
pub fn serve_if_child() {
    let Some(store) = std::env::var_os(STORE) else { return };
    let mut config = Config { store: StoreUrl::Local(store.into()), ..Config::default() };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u32>().unwrap());
    if let Some(files) = number(MAX_FILES) {
        config.snapshot.max_files = files;
    }
    if let Some(bytes) = number(SMALL_BODY) {
        config.limits.small_body = bytes as usize;
    }
    if let Some(keep) = number(KEEP_MS) {
        config.deletion.keep = std::time::Duration::from_millis(keep.into());
        config.deletion.check = std::time::Duration::from_millis(20);
    }
    if let Some(bytes) = number(PUSH_BYTES) {
        config.limits.push_bytes = bytes.into();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::open(config).await.unwrap();
        println!("SERVING http://{}", listener.local_addr().unwrap());
        server.serve(listener, std::future::pending()).await.unwrap();
    });
}
