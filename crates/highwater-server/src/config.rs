//! What an operator may choose, with defaults that suit one small machine.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use highwater_wire::MergePolicy;

use crate::{AuthConfig, Clock};

/// Everything a server is told before it starts.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where the databases are kept.
    pub store: StoreUrl,
    /// When a snapshot is written, and with it a new generation begins.
    pub snapshot: SnapshotPolicy,
    /// What becomes of a database that was deleted.
    pub deletion: DeletionPolicy,
    /// How much one client may ask of the server.
    pub limits: Limits,
    /// Who may use it.
    pub auth: AuthConfig,
    /// How libSQL's clients are served.
    pub libsql: LibsqlConfig,
    /// What becomes of changes that meet others.
    pub merge: MergeConfig,
    /// Serve HTTPS with this certificate; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// What pushes are dated and tokens are judged by. Default: the system's clock.
    pub clock: Clock,
}

/// How libSQL's clients are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibsqlConfig {
    /// No new generation begins before libSQL clients have not pushed for so long. Moving to another
    /// generation is the moment in which a libSQL client that is killed can lose what it writes next,
    /// and frames that it repeats have numbers of the old one. The price of waiting: a libSQL client's
    /// first copy takes all frames since the generation began. Default 7 days.
    pub quiet_period: Duration,
    /// Take a database's name from the first label of the host (`app.example.org`) when the path has
    /// none. Default false.
    pub host_label: bool,
}

impl Default for LibsqlConfig {
    fn default() -> Self {
        Self { quiet_period: Duration::from_secs(7 * 24 * 60 * 60), host_label: false }
    }
}

/// What becomes of changes that meet others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergeConfig {
    /// Which side wins where only one can, unless a request says otherwise. Default: the later push.
    pub policy: MergePolicy,
    /// The same for single databases, by name.
    pub databases: BTreeMap<String, MergePolicy>,
}

impl MergeConfig {
    /// What holds for a database.
    pub(crate) fn policy_of(&self, database: &str) -> MergePolicy {
        self.databases.get(database).copied().unwrap_or(self.policy)
    }
}

/// Where the certificate stands that the server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to its root, PEM, the server's own first.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// How often both are looked at for changes. Default 5 s.
    pub check_every: Duration,
}

impl TlsFiles {
    /// A certificate and its key.
    #[must_use]
    pub fn new(cert: PathBuf, key: PathBuf) -> Self {
        Self { cert, key, check_every: Duration::from_secs(5) }
    }

    /// Whether the files can be used.
    ///
    /// # Errors
    /// [`crate::Error::Tls`], which says what is wrong with which file.
    pub fn check(&self) -> crate::Result<()> {
        crate::tls::Tls::load(self).map(drop)
    }
}

/// Where the databases are kept.
///
/// ```
/// # use highwater_server::StoreUrl;
/// # use std::path::PathBuf;
/// assert_eq!("./data".parse(), Ok(StoreUrl::Local(PathBuf::from("./data"))));
/// assert_eq!("file:///srv/data".parse(), Ok(StoreUrl::Local(PathBuf::from("/srv/data"))));
/// assert_eq!("memory:".parse(), Ok(StoreUrl::Memory));
/// assert!("s3://bucket".parse::<StoreUrl>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A folder of this machine. It is made when it does not exist.
    Local(PathBuf),
    /// The server's memory: for tests and demonstrations, gone when the server stops.
    Memory,
}

impl Default for StoreUrl {
    /// The folder `highwater-data` in the current folder.
    fn default() -> Self {
        Self::Local(PathBuf::from("highwater-data"))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(folder) => folder.display().fmt(f),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// A text that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} names no store ({reason}); give a folder, file:///FOLDER or memory:")]
pub struct InvalidStoreUrl {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(url: &str) -> Result<Self, InvalidStoreUrl> {
        let invalid = |reason| InvalidStoreUrl { url: url.to_owned(), reason };
        if matches!(url, "memory:" | "memory://") {
            return Ok(Self::Memory);
        }
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(invalid("the path after file:// must begin with /"));
            }
            let path = percent_decoded(path).ok_or_else(|| invalid("a wrong percent escape"))?;
            return Ok(Self::Local(PathBuf::from(path)));
        }
        if url.contains("://") {
            return Err(invalid("this version keeps databases in a local folder or in memory only"));
        }
        if url.is_empty() {
            return Err(invalid("it is empty"));
        }
        Ok(Self::Local(PathBuf::from(url)))
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |b: u8| char::from(b).to_digit(16);
            let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// When a snapshot is written. It happens beside the pushes, never in front of them; the first
/// push after the snapshot is durable begins a new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// After this many pushes since the last snapshot. Bounds what opening a database and
    /// restoring it have to read. Default 1,000.
    pub max_files: u32,
    /// When the pushes since the last snapshot take more bytes than the database itself (but at
    /// least 1 MiB). Bounds the store to about three times the changes. Default true.
    pub outweigh: bool,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { max_files: 1000, outweigh: true }
    }
}

/// What becomes of a database that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletionPolicy {
    /// How long it can be undeleted; then its files are removed. Longer than any request takes. Default 30 days.
    pub keep: Duration,
    /// How often to look for databases whose time has come. Default one hour.
    pub check: Duration,
}

impl Default for DeletionPolicy {
    fn default() -> Self {
        Self { keep: Duration::from_secs(30 * 24 * 60 * 60), check: Duration::from_secs(60 * 60) }
    }
}

/// How much one client may ask of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest body of a push, decompressed, in bytes. Default 16 GiB.
    pub push_bytes: u64,
    /// The memory that one request's buffers may take, in bytes. Default 64 MiB.
    pub body_memory: usize,
    /// Bodies up to this size (decompressed, in bytes) are handled in memory; larger ones go
    /// through a file in the store. Default 8 MiB, and never more than an eighth of
    /// [`Limits::body_memory`].
    pub small_body: usize,
    /// Answers up to this size (in bytes of pages) are built in memory and compressed as a whole
    /// for clients that take zstd; larger ones are streamed. Default 16 MiB, and never more than a
    /// quarter of [`Limits::body_memory`].
    pub small_answer: usize,
    /// How long a client may take for the head of a request, and stay silent between requests.
    /// Default 75 s.
    pub header_timeout: Duration,
    /// How long a client may stay silent within a body. Default 60 s.
    pub idle_timeout: Duration,
    /// How long accepted requests may go on after the server was told to stop. Default 30 s.
    pub grace: Duration,
    /// How many databases are kept open in memory. Default 1,000.
    pub open_databases: usize,
    /// About how many bytes the page indexes and histories of open databases may take. Default 512 MiB.
    pub open_bytes: u64,
    /// How many requests are worked on at once. Default 1,000.
    pub requests: usize,
    /// The memory that the bodies of all requests and answers may take at once, in bytes; half of it
    /// is for requests, half for answers. Small ones (up to 256 KiB) are not counted. Default 1 GiB.
    pub memory: u64,
    /// How long a request waits for its turn, or for memory, before it is refused. Default 2 s.
    pub wait: Duration,
    /// How many requests each token may send a second; callers without one are told apart by their
    /// address. 0, the default: as many as they like.
    pub rate: u32,
    /// How many requests may come at once after a pause, where [`Limits::rate`] holds. Default 500.
    pub burst: u32,
    /// How many connections may be open. When there are more, those that have been idle the longest
    /// are closed. Default 10,000.
    pub connections: usize,
    /// How many connections one address may have. 0, the default: no limit of its own.
    pub connections_per_address: usize,
    /// How many requests may share one HTTP/2 connection at a time. Default 100.
    pub streams: u32,
    /// A body that keeps its reader waiting for more than [`Limits::idle_timeout`] altogether must
    /// come, or be taken, at this many bytes a second at least. Default 1 KiB.
    pub slowest: u64,
    /// How many queries run at once. Default 4.
    pub queries: usize,
    /// How long a query may run. Default 10 s.
    pub query_timeout: Duration,
    /// How long a merge may take; it holds the database's turn meanwhile. Default 60 s.
    pub merge_timeout: Duration,
    /// How many bytes the rows and pages of one merge may take. Default 1 GiB.
    pub merge_memory: u64,
    /// How long a TLS handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a client may not take anything of an answer. Default 60 s.
    pub write_timeout: Duration,
    /// How long connections are still accepted after the server was told to stop, while `/readyz`
    /// says that it is not ready: time for a load balancer to notice. Default 0.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            push_bytes: 16 << 30,
            body_memory: 64 << 20,
            small_body: 8 << 20,
            small_answer: 16 << 20,
            header_timeout: Duration::from_secs(75),
            idle_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            open_databases: 1000,
            open_bytes: 512 << 20,
            requests: 1000,
            memory: 1 << 30,
            wait: Duration::from_secs(2),
            rate: 0,
            burst: 500,
            connections: 10_000,
            connections_per_address: 0,
            streams: 100,
            slowest: 1 << 10,
            queries: 4,
            query_timeout: Duration::from_secs(10),
            merge_timeout: Duration::from_secs(60),
            merge_memory: 1 << 30,
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            drain: Duration::ZERO,
        }
    }
}

impl Limits {
    /// [`Limits::small_body`] within the memory of a request.
    pub(crate) fn in_memory_body(&self) -> usize {
        self.small_body.min(self.body_memory / 8)
    }

    /// [`Limits::small_answer`] within the memory of a request.
    pub(crate) fn in_memory_answer(&self) -> usize {
        self.small_answer.min(self.body_memory / 4)
    }
}
