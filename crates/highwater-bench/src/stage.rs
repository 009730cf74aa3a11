//! What all workloads share: a folder, a server, and a proxy that only counts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::client::Client;
use crate::data::{self, Random};
use crate::proxy::Proxy;
use crate::server::Server;

/// The delay of a slow network, for each request.
pub(crate) const SLOW: Duration = Duration::from_millis(50);

/// The large database, once it was made.
#[derive(Debug, Clone)]
pub(crate) struct Large {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Where the workloads play.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    pub(crate) quick: bool,
    pub(crate) server: Server,
    /// Counts, and does not delay.
    pub(crate) counting: Proxy,
    /// Delays every request by [`SLOW`].
    pub(crate) slow: Proxy,
    pub(crate) random: Random,
    large: Option<Large>,
    names: u32,
}

impl Stage {
    pub(crate) fn new(dir: &Path, quick: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("highwater-bench-").tempdir_in(dir)?;
        let server = Server::start(&folder.path().join("store"))?;
        let counting = Proxy::start(server.address, Duration::ZERO)?;
        let slow = Proxy::start(server.address, SLOW)?;
        Ok(Self { folder, quick, server, counting, slow, random: Random::new(7), large: None, names: 0 })
    }

    /// How often to repeat what is measured `full` times in a whole run.
    pub(crate) fn times(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(3) } else { full }
    }

    /// An amount of data.
    pub(crate) fn amount(&self, full: u64) -> u64 {
        if self.quick { full / 10 } else { full }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A name that was not used yet, for a database and its file.
    pub(crate) fn fresh(&mut self) -> String {
        self.names += 1;
        format!("bench-{}", self.names)
    }

    /// The URL of a database of that name, directly at the server.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.server.address)
    }

    /// The database of 1 GB; made when it is first needed. Nothing of Highwater's is beside it.
    pub(crate) fn large(&mut self) -> Result<Large> {
        let path = self.path("large.db");
        let large = match &self.large {
            Some(large) => large.clone(),
            None => {
                let bytes = data::make(&path, self.amount(1_000_000_000), data::LONG, &mut self.random)?;
                self.large.insert(Large { path: path.clone(), bytes }).clone()
            }
        };
        for suffix in ["-info", "-sums", "-lock"] {
            let _ = std::fs::remove_file(self.path(&format!("large.db{suffix}")));
        }
        Ok(large)
    }

    /// The large database, pushed, and settled: a client that finds nothing to do in it, and the URL.
    pub(crate) fn large_in_sync(&mut self) -> Result<(Large, Client, String)> {
        let large = self.large()?;
        let name = self.fresh();
        let url = self.url(&name);
        let mut client = Client::start()?;
        client.sync(&large.path, &url)?;
        // Its times prove that it was left alone only after a while.
        std::thread::sleep(Duration::from_millis(2100));
        client.sync(&large.path, &url)?;
        Ok((large, client, url))
    }

    /// Removes a database from the disk of the server, which does not need it any more.
    pub(crate) fn forget(&self, name: &str) {
        let _ = std::fs::remove_dir_all(self.path("store").join(name));
    }
}

/// Bytes of all files in a folder.
pub(crate) fn size_of(path: &Path) -> Result<u64> {
    if !path.is_dir() {
        return Ok(path.metadata().map_or(0, |file| file.len()));
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        bytes += size_of(&entry?.path())?;
    }
    Ok(bytes)
}
