//! What many histories share: servers that differ in how often they begin a new generation, each with a relay.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use highwater_server::{Config, Embedded, MergeConfig, SnapshotPolicy, StoreUrl};
use highwater_wire::MergePolicy;

use crate::child::{Mortal, Programs, mortal_server};
use crate::relay::Relay;

/// How many servers a lab has.
pub(crate) const SERVERS: usize = 3;
/// So many histories, then the servers start anew, so that what they keep in memory does not pile up.
const HISTORIES: usize = 100;

/// The policy of a server for those who name none.
pub(crate) const fn policy(server: usize) -> MergePolicy {
    if server % SERVERS == 1 { MergePolicy::FirstPushWins } else { MergePolicy::LastPushWins }
}

pub(crate) fn config(store: StoreUrl, max_files: u32, policy: MergePolicy) -> Config {
    let snapshot = SnapshotPolicy { max_files, ..SnapshotPolicy::default() };
    let merge = MergeConfig { policy, ..MergeConfig::default() };
    Config { store, snapshot, merge, ..Config::default() }
}

/// One server and what stands in front of it.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) relay: Relay,
    /// None: it is down.
    server: Option<Embedded>,
    max_files: u32,
    policy: MergePolicy,
    /// Where its databases are. None: in its memory.
    store: Option<tempfile::TempDir>,
}

impl Stand {
    fn new(number: usize, max_files: u32, folder: Option<&Path>) -> Result<Self> {
        let store = folder.map(tempfile::tempdir_in).transpose().context("a folder for the store")?;
        let nowhere = ([127, 0, 0, 1], 1).into();
        let relay = Relay::start(nowhere).context("a relay")?;
        let mut stand = Self { relay, server: None, max_files, policy: policy(number), store };
        stand.start()?;
        Ok(stand)
    }

    fn start(&mut self) -> Result<()> {
        let store = self.store.as_ref();
        let store = store.map_or(StoreUrl::Memory, |folder| StoreUrl::Local(folder.path().to_path_buf()));
        let config = config(store, self.max_files, self.policy);
        let server = Embedded::start(config, ([127, 0, 0, 1], 0).into()).context("a server")?;
        self.relay.point(server.addr());
        self.server = Some(server);
        Ok(())
    }

    /// The server ends and begins again, with what is in its store.
    pub(crate) fn restart(&mut self) -> Result<()> {
        if self.store.is_some() {
            self.server = None;
            self.start()?;
        }
        Ok(())
    }

    /// From now on a process serves that dies at the n-th named step that it passes.
    pub(crate) fn doomed(&mut self, program: &Path, step: u32) -> Result<Option<Mortal>> {
        let Some(store) = &self.store else { return Ok(None) };
        self.server = None;
        let (child, addr) = mortal_server(program, (store.path(), self.max_files, self.policy), step)?;
        self.relay.point(addr);
        Ok(Some(child))
    }
}

/// What a history gets of a lab.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) stand: Arc<Mutex<Stand>>,
    pub(crate) relay: Relay,
    /// A name that no other database there has.
    pub(crate) name: String,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) programs: Programs,
}

impl Place {
    pub(crate) fn stand(&self) -> MutexGuard<'_, Stand> {
        self.stand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program whose children are killed.
    pub(crate) fn own(&self) -> Result<&PathBuf> {
        self.programs.own.as_ref().context("kills need the program that runs them")
    }
}

/// Servers, and a folder for the devices' files.
#[derive(Debug)]
pub struct Lab {
    stands: Vec<Arc<Mutex<Stand>>>,
    folder: tempfile::TempDir,
    programs: Programs,
    taken: usize,
}

impl Lab {
    /// A lab whose files are in memory where the system has such a folder.
    ///
    /// # Errors
    /// When there is neither a socket nor a folder.
    pub fn new(programs: Programs) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).context("a folder")?;
        let mut lab = Self { stands: Vec::new(), folder, programs, taken: 0 };
        lab.start()?;
        Ok(lab)
    }

    fn start(&mut self) -> Result<()> {
        self.stands.clear();
        // Only a store in files outlives its server.
        let folder = self.programs.own.as_ref().map(|_| self.folder.path());
        for (number, max_files) in [1000, 7, 2].into_iter().enumerate() {
            self.stands.push(Arc::new(Mutex::new(Stand::new(number, max_files, folder)?)));
        }
        Ok(())
    }

    pub(crate) fn place(&mut self, server: usize) -> Result<Place> {
        self.taken += 1;
        if self.taken.is_multiple_of(HISTORIES) {
            self.start()?;
        }
        let stand = Arc::clone(self.stands.get(server % SERVERS).context("a server")?);
        let relay = stand.lock().unwrap_or_else(PoisonError::into_inner).relay.clone();
        let folder = tempfile::tempdir_in(self.folder.path()).context("a folder")?;
        let name = format!("h{}", self.taken);
        Ok(Place { stand, relay, name, folder, programs: self.programs.clone() })
    }
}
