//! How a database is opened for syncing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use highwater_ltx::{DeviceId, PageSize};
use highwater_wire::{MergePolicy, Remote};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::outcome::Progress;
use crate::transport::Transport;

/// Collects the options of a [`Database`].
///
/// ```no_run
/// # fn main() -> highwater::Result<()> {
/// let db = highwater::Builder::new("app.db")
///     .remote("http://127.0.0.1:8080/app")
///     .open()?;
/// db.connect()?.execute_batch("CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, text TEXT)").unwrap();
/// println!("{:?}", db.sync_blocking()?.action);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `open`"]
pub struct Builder {
    path: PathBuf,
    remote: Option<String>,
    options: Options,
}

type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// What a [`Builder`] collected, checked.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) remote: Option<Remote>,
    pub(crate) switch_remote: bool,
    pub(crate) forget: bool,
    pub(crate) token: Option<String>,
    pub(crate) device: Option<DeviceId>,
    pub(crate) merge_policy: Option<MergePolicy>,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) busy_timeout: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) page_size: Option<PageSize>,
    pub(crate) wal: bool,
    /// What stands in for the network. None: the network.
    pub(crate) transport: Option<Arc<dyn Transport>>,
    on_progress: Option<OnProgress>,
}

impl std::fmt::Debug for Options {
    /// Without the token: logs are read by many.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("remote", &self.remote)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            remote: None,
            switch_remote: false,
            forget: false,
            token: None,
            device: None,
            merge_policy: None,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            busy_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(60),
            page_size: None,
            wal: true,
            transport: None,
            on_progress: None,
        }
    }
}

impl Options {
    pub(crate) fn report(&self, progress: Progress) {
        if let Some(on_progress) = &self.on_progress {
            on_progress(progress);
        }
    }
}

impl Builder {
    /// For the database file at `path`, which need not exist yet.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_path_buf(), remote: None, options: Options::default() }
    }

    /// The database's URL on a server, such as `http://127.0.0.1:8080/guestbook`. Remembered beside
    /// the file from the first sync on.
    pub fn remote(mut self, url: impl Into<String>) -> Self {
        self.remote = Some(url.into());
        self
    }

    /// Whether another URL than the remembered one is meant. Default: no, it is an error.
    pub fn switch_remote(mut self, yes: bool) -> Self {
        self.options.switch_remote = yes;
        self
    }

    /// Whether to forget what the last sync knew of the server, and find it out anew by content.
    /// For a database that the server no longer has ([`Error::Gone`]). Default: no.
    pub fn forget(mut self, yes: bool) -> Self {
        self.options.forget = yes;
        self
    }

    /// The bearer token that the server asks for.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options.token = Some(token.into());
        self
    }

    /// The identity of this copy. Default: made at random once, and remembered.
    pub fn device(mut self, id: DeviceId) -> Self {
        self.options.device = Some(id);
        self
    }

    /// Which side wins where this device and another changed the same column of a row to different values.
    /// What loses is recorded, unless the policy is [`MergePolicy::Fail`]: then nothing is merged, and
    /// the sync ends with [`Error::Conflict`]. Default: as the server is set, for most that the last push wins.
    pub fn merge_policy(mut self, policy: MergePolicy) -> Self {
        self.options.merge_policy = Some(policy);
        self
    }

    /// How long one sync goes on retrying when the network fails. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// How long to wait for a connection. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long a transfer may stand still. Default: 60 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.idle_timeout = timeout;
        self
    }

    /// How long to wait for locks that other connections hold on the file, in syncs and in
    /// connections from [`Database::connect`]. Default: 5 s.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.options.busy_timeout = timeout;
        self
    }

    /// How long to wait for another sync of the same file. Default: 60 s.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.options.lock_timeout = timeout;
        self
    }

    /// The page size of a file that [`Database::connect`] creates. Default: SQLite's.
    pub fn page_size(mut self, size: PageSize) -> Self {
        self.options.page_size = Some(size);
        self
    }

    /// Whether [`Database::connect`] puts the file into WAL mode. Default: yes. Without it, every
    /// sync has to look at every page.
    pub fn wal(mut self, yes: bool) -> Self {
        self.options.wal = yes;
        self
    }

    /// Is told how long work comes along, from the thread that does it.
    pub fn on_progress(mut self, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.options.on_progress = Some(Arc::new(report));
        self
    }

    /// Lets a simulated world stand in for network and clock.
    #[cfg(feature = "simulation")]
    pub fn world(mut self, world: Arc<dyn crate::simulation::World>) -> Self {
        self.options.transport = Some(Arc::new(crate::simulation::Simulated(world)));
        self
    }

    /// Checks the options and opens the database for syncing. Touches neither the network nor the
    /// file; its folder must exist.
    ///
    /// # Errors
    /// [`Error::InvalidRemote`], [`Error::InvalidToken`], [`Error::Io`].
    pub fn open(mut self) -> Result<Database> {
        self.options.remote = self.remote.map(|url| url.parse()).transpose()?;
        check_token(self.options.token.as_deref())?;
        Database::new(&self.path, self.options)
    }
}

/// Refuses what no token is: it would be sent cut, or not at all.
pub(crate) fn check_token(token: Option<&str>) -> Result<()> {
    let fits = |token: &str| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_none_or(fits) { Ok(()) } else { Err(Error::InvalidToken) }
}
