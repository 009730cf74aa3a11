//! What many histories share: servers that differ in how often they begin a new generation, each with a relay.

use std::path::Path;

use anyhow::{Context, Result};
use highwater_server::{Config, Embedded, SnapshotPolicy, StoreUrl};

use crate::relay::Relay;

/// How many servers a lab has.
pub(crate) const SERVERS: usize = 3;
/// So many histories, then the servers start anew, so that what they keep in memory does not pile up.
const HISTORIES: usize = 100;

struct Stand {
    relay: Relay,
    _server: Embedded,
}

/// Servers, and a folder for the devices' files.
pub struct Lab {
    stands: Vec<Stand>,
    folder: tempfile::TempDir,
    taken: usize,
}

impl Lab {
    /// A lab whose files are in memory where the system has such a folder.
    ///
    /// # Errors
    /// When there is neither a socket nor a folder.
    pub fn new() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).context("a folder")?;
        Ok(Self { stands: stands()?, folder, taken: 0 })
    }

    /// The relay of a server, a name that no other database there has, and an empty folder.
    ///
    /// # Errors
    /// When there is no folder to be had.
    pub(crate) fn place(&mut self, server: usize) -> Result<(Relay, String, tempfile::TempDir)> {
        self.taken += 1;
        if self.taken.is_multiple_of(HISTORIES) {
            self.stands = stands()?;
        }
        let stand = self.stands.get(server % SERVERS).context("a server")?;
        let folder = tempfile::tempdir_in(self.folder.path()).context("a folder")?;
        Ok((stand.relay.clone(), format!("h{}", self.taken), folder))
    }
}

fn stands() -> Result<Vec<Stand>> {
    let start = |max_files: u32| {
        let snapshot = SnapshotPolicy { max_files, ..SnapshotPolicy::default() };
        let config = Config { store: StoreUrl::Memory, snapshot, ..Config::default() };
        let server = Embedded::start(config, ([127, 0, 0, 1], 0).into()).context("a server")?;
        let relay = Relay::start(server.addr()).context("a relay")?;
        Ok(Stand { relay, _server: server })
    };
    [1000, 7, 2].into_iter().map(start).collect()
}
