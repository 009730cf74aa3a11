//! A libSQL client that writes to the same database: a program of interop/clients, told what to do by lines of JSON.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Whose entries are its.
pub(crate) const WRITER: i64 = 1_000;

pub(crate) struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    last: i64,
    syncs: u64,
    failed: u64,
}

impl Client {
    pub(crate) fn start(program: &Path, folder: &Path, url: &str) -> Result<Self> {
        let folder = folder.join("libsql");
        std::fs::create_dir_all(&folder)?;
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {}", program.display()))?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let mut client = Self { child, input, output, last: 0, syncs: 0, failed: 0 };
        let path = folder.join("app.db");
        client.tell(&json!({ "do": "open", "path": path, "url": url, "token": "", "mode": "offline" }))?;
        client.in_the_end()?;
        Ok(client)
    }

    fn tell(&mut self, what: &Value) -> Result<Value> {
        writeln!(self.input, "{what}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the client said {line:?}"))?;
        match answer.get("error") {
            Some(error) => bail!("{what}: {error}"),
            None => Ok(answer),
        }
    }

    /// Writes and syncs until it is told to stop; then syncs once more.
    pub(crate) fn run(mut self, stop: Arc<AtomicBool>) -> JoinHandle<Result<Self>> {
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let n = self.last + 1;
                let text = format!("{WRITER}/{n} ").repeat(if n % 50 == 0 { 2_000 } else { 3 });
                let sql = format!("INSERT INTO entry VALUES({WRITER}, {n}, '{text}')");
                self.tell(&json!({ "do": "script", "sql": sql }))?;
                self.last = n;
                if n % 5 == 0 {
                    self.syncs += 1;
                    self.failed += u64::from(self.tell(&json!({ "do": "sync" })).is_err());
                }
                std::thread::sleep(Duration::from_millis(60));
            }
            self.in_the_end()?;
            println!("libSQL: {} entries, {} syncs, {} failed", self.last, self.syncs, self.failed);
            Ok(self)
        })
    }

    fn in_the_end(&mut self) -> Result<()> {
        let mut attempts = 0;
        while let Err(error) = self.tell(&json!({ "do": "sync" })) {
            attempts += 1;
            if attempts > 100 {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// How many entries it wrote.
    pub(crate) fn acknowledged(&self) -> i64 {
        self.last
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
