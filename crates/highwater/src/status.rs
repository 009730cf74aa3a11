//! What is known about a local copy without asking the server.

use std::path::PathBuf;

use highwater_ltx::{DeviceId, PageCount, PageSize, Position, TxId};

/// The state of a local copy, from its own files alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The database file.
    pub db: PathBuf,
    /// Whether the file exists.
    pub exists: bool,
    /// The URL that it is synced with.
    pub remote: Option<String>,
    /// The identity of this copy.
    pub device: Option<DeviceId>,
    /// Where the last sync left it. None: never synced, or the metadata file was lost.
    pub base: Option<Position>,
    /// The base's number in the server's log.
    pub txid: Option<TxId>,
    /// Of the local file.
    pub page_size: Option<PageSize>,
    /// Of the local file.
    pub page_count: PageCount,
    /// Pages that changed since the base and wait for a push. None: not known without a base.
    pub unpushed_pages: Option<u64>,
    /// Size of the write-ahead log, in bytes.
    pub wal_bytes: u64,
    /// What is odd about the metadata file or the page sums, in words; the next sync mends it.
    pub warning: Option<String>,
}
