//! A device of libSQL: the released SDK, unmodified, in a process of its own (`interop/clients/rust`).
//!
//! The SDK holds the file open and syncs. The application writes with a connection of its own, which never checkpoints:
//! what the SDK counts are the frames of the write-ahead log, and after a checkpoint of somebody else it would count
//! another log's.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde_json::{Value, json};

use crate::child::{Mortal, struck};
use crate::device::{Heard, Told, Unheard};
use crate::plan::Trouble;
use crate::relay::Relay;

/// The SDK's process.
#[derive(Debug)]
pub(crate) struct Sdk {
    program: PathBuf,
    path: PathBuf,
    url: String,
    child: Mutex<Mortal>,
    out: Mutex<BufReader<ChildStdout>>,
}

impl Sdk {
    /// Starts it and opens the file.
    pub(crate) fn start(program: &Path, path: &Path, url: &str) -> Result<Self> {
        let (child, out) = process(program)?;
        let (program, path, url) = (program.to_path_buf(), path.to_path_buf(), url.to_owned());
        let sdk = Self { program, path, url, child: Mutex::new(child), out: Mutex::new(out) };
        sdk.open()?;
        Ok(sdk)
    }

    fn open(&self) -> Result<()> {
        let path = self.path.to_string_lossy();
        let open = json!({ "do": "open", "path": path, "url": self.url, "token": "", "mode": "offline" });
        self.must(&open)?;
        // Connects, so that its connection is never the first nor the last one.
        self.must(&json!({ "do": "query", "sql": "SELECT count(*) FROM sqlite_schema" }))
    }

    /// Fetches what the server has, before anybody else opens the file.
    pub(crate) fn first_copy(&mut self) -> Result<()> {
        self.must(&json!({ "do": "sync" }))
    }

    fn must(&self, command: &Value) -> Result<()> {
        match self.ask(command)? {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => bail!("the SDK said to {command}: {error}"),
            None => bail!("the SDK's process ended"),
        }
    }

    /// One command, one answer; none when the process dies over it.
    fn ask(&self, command: &Value) -> Result<Option<Result<Value, String>>> {
        let mut child = self.child.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        // Killed already, its input is closed.
        let Some(input) = child.0.stdin.as_mut() else { return Ok(None) };
        if writeln!(input, "{command}").and_then(|()| input.flush()).is_err() {
            return Ok(None);
        }
        drop(child);
        let mut line = String::new();
        let mut out = self.out.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        if !out.read_line(&mut line).is_ok_and(|size| size > 0) {
            return Ok(None);
        }
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the SDK's driver said {line}"))?;
        let error = answer.get("error").and_then(Value::as_str);
        Ok(Some(error.map_or_else(|| Ok(answer.clone()), |error| Err(error.to_owned()))))
    }

    fn is_dead(&self) -> bool {
        self.child.lock().is_ok_and(|mut child| child.0.try_wait().is_ok_and(|status| status.is_some()))
    }

    fn strike(&self) {
        if let Ok(mut child) = self.child.lock() {
            child.kill();
        }
    }

    /// One sync of the SDK: a push or a pull. When its process is killed, another one is started.
    pub(crate) fn sync(&mut self, trouble: &Trouble, relay: &Relay, name: &str) -> Result<Told> {
        let since = relay.connections();
        let this = &*self;
        let answer = if trouble.kill.is_some() {
            struck(trouble, relay, name, &|| this.strike(), || this.ask(&json!({ "do": "sync" })))??
        } else {
            relay.order(name, trouble.fault.map(|fault| (trouble.request, fault)), Vec::new());
            let answer = self.ask(&json!({ "do": "sync" }))?;
            relay.order(name, None, Vec::new());
            answer
        };
        if trouble.kill.is_some() && self.is_dead() {
            relay.wait_for_the_end_of(since)?;
            let (child, out) = process(&self.program)?;
            (self.child, self.out) = (Mutex::new(child), Mutex::new(out));
            self.open()?;
        }
        Ok(match answer {
            Some(Ok(answer)) => {
                Ok(Heard { moved: false, txid: None, rebased: false, text: answer.to_string() })
            }
            Some(Err(text)) => Err(Unheard { offline: trouble.fault.is_some(), text }),
            None => {
                Err(Unheard { offline: trouble.kill.is_some(), text: "the SDK's process ended".to_owned() })
            }
        })
    }
}

fn process(program: &Path) -> Result<(Mortal, BufReader<ChildStdout>)> {
    let mut child = Mortal::start(&mut Command::new(program))?;
    let out = BufReader::new(child.0.stdout.take().context("its output")?);
    Ok((child, out))
}

/// As an application connects to a file that an SDK holds.
pub(crate) fn connect_beside(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).with_context(|| format!("opening {}", path.display()))?;
    connection.set_prepared_statement_cache_capacity(200);
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = OFF")?;
    Ok(connection)
}
