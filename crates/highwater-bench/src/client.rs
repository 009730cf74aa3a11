//! The role `client`: the library in a process of its own, keeping its databases open between
//! syncs as an application does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use highwater::{Builder, Database, WatchOptions};
use serde::{Deserialize, Serialize};

use crate::data;
use crate::process::{self, Process, Usage};

/// What a client is asked to do.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// One sync.
    Sync { db: PathBuf, url: String },
    /// One-row commits for so many milliseconds, with or without a watch on the file.
    Commits { db: PathBuf, url: Option<String>, synchronous: String, ms: u64 },
    /// What it has used.
    Usage,
}

/// What a sync was.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Synced {
    /// From the call to its return.
    pub(crate) ms: f64,
    pub(crate) requests: u32,
    /// Bytes of bodies.
    pub(crate) up: u64,
    /// Bytes of bodies.
    pub(crate) down: u64,
    pub(crate) pages: u64,
}

/// Works until standard input ends.
pub(crate) fn run() -> Result<()> {
    let mut open = HashMap::new();
    process::answer(|order| match order {
        Order::Sync { db, url } => Ok(serde_json::to_value(sync(&mut open, &db, &url)?)?),
        Order::Commits { db, url, synchronous, ms } => {
            Ok(serde_json::to_value(commits(&db, url.as_deref(), &synchronous, Duration::from_millis(ms))?)?)
        }
        Order::Usage => Ok(serde_json::to_value(Usage::now())?),
    })
}

fn sync(open: &mut HashMap<PathBuf, Database>, db: &Path, url: &str) -> Result<Synced> {
    let began = Instant::now();
    if !open.contains_key(db) {
        open.insert(db.to_path_buf(), Builder::new(db).remote(url).open()?);
    }
    let database = open.get(db).context("it was put there")?;
    let outcome = database.sync_blocking()?;
    Ok(Synced {
        ms: began.elapsed().as_secs_f64() * 1000.0,
        requests: outcome.requests,
        up: outcome.pushed.bytes,
        down: outcome.pulled.bytes,
        pages: outcome.pushed.pages + outcome.pulled.pages,
    })
}

/// Commits a second.
fn commits(db: &Path, url: Option<&str>, synchronous: &str, span: Duration) -> Result<f64> {
    let connection = data::connect(db)?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    let watch = match url {
        None => None,
        Some(url) => {
            let database = Builder::new(db).remote(url).open()?;
            database.sync_blocking()?;
            let options =
                WatchOptions { interval: Duration::from_secs(1), after_commit: Duration::from_millis(100) };
            Some(database.watch(options, |result| {
                if let Err(error) = result {
                    eprintln_once(&error);
                }
            }))
        }
    };
    let mut random = data::Random::new(u64::from(std::process::id()));
    let mut insert = connection.prepare("INSERT INTO t(text) VALUES (?1)")?;
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < span {
        insert.execute([random.text(data::SHORT)])?;
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    drop(insert);
    drop(watch);
    Ok(rate)
}

#[allow(clippy::print_stderr, reason = "standard output belongs to the conductor")]
fn eprintln_once(error: &highwater::Error) {
    eprintln!("a background sync failed: {error}");
}

/// A client in a process of its own.
#[derive(Debug)]
pub(crate) struct Client(Process);

impl Client {
    pub(crate) fn start() -> Result<Self> {
        Process::start(&["client".as_ref()]).map(Self)
    }

    pub(crate) fn sync(&mut self, db: &Path, url: &str) -> Result<Synced> {
        self.0.ask(&Order::Sync { db: db.to_path_buf(), url: url.to_owned() })
    }

    /// One-row commits a second, with a watch on the file when there is a URL.
    pub(crate) fn commits(
        &mut self,
        db: &Path,
        url: Option<&str>,
        synchronous: &str,
        ms: u64,
    ) -> Result<f64> {
        let (db, url, synchronous) = (db.to_path_buf(), url.map(str::to_owned), synchronous.to_owned());
        self.0.ask(&Order::Commits { db, url, synchronous, ms })
    }

    pub(crate) fn usage(&mut self) -> Result<Usage> {
        self.0.ask(&Order::Usage)
    }
}
