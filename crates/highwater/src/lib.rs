//! Offline-first SQLite: an application writes to an ordinary SQLite file, online or not, and
//! Highwater brings all copies of it together through a sync server.
//!
//! # Writing offline, syncing later
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let db = highwater::Builder::new("guestbook.db")
//!     .remote("http://127.0.0.1:8080/guestbook")
//!     .open()?;
//!
//! // A plain rusqlite connection. Any other SQLite library will do as well.
//! let connection = db.connect()?;
//! connection.execute_batch("CREATE TABLE IF NOT EXISTS entries(id INTEGER PRIMARY KEY, text TEXT)")?;
//! connection.execute("INSERT INTO entries(text) VALUES (?1)", ["hello"])?;
//!
//! match db.sync_blocking() {
//!     Ok(outcome) => println!("{} pages up, {} down", outcome.pushed.pages, outcome.pulled.pages),
//!     Err(error) if error.kind() == highwater::ErrorKind::Offline => println!("later, then: {error}"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Two devices wrote
//! When another device has pushed since this one last synced, the server merges the two changes row by row and
//! column by column, and the local file becomes the result. What could not be kept is recorded:
//! ```no_run
//! # fn main() -> highwater::Result<()> {
//! let db = highwater::Database::open("guestbook.db")?;
//! for conflict in db.sync_blocking()?.conflicts {
//!     println!("{}: {}", conflict.table, conflict.message);
//! }
//! // Those of earlier syncs and of other devices too, until somebody has seen to them.
//! for merge in db.conflicts_blocking()? {
//!     println!("{} could not be kept by device {}", merge.conflicts.len(), merge.device);
//!     db.resolve_conflicts_blocking(highwater::TxId(merge.txid))?;
//! }
//! # Ok(())
//! # }
//! ```
//! The rules, with examples, are in `docs/MERGING.md`.
//!
//! # Keeping a file synced in the background
//! ```no_run
//! # fn main() -> highwater::Result<()> {
//! let db = highwater::Database::open("guestbook.db")?;
//! let watch = db.watch(highwater::WatchOptions::default(), |result| match result {
//!     Ok(outcome) => println!("{:?}", outcome.action),
//!     Err(error) => eprintln!("{error}"),
//! });
//! // … and when the application ends:
//! watch.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # What it keeps beside the database
//! `<db>-info`, the metadata file, and `<db>-sums`, the page sums, are caches: losing or damaging
//! them costs time, never data. `<db>-lock` is empty; it keeps two syncs of one file apart.
//!
//! # Building
//! The SQLite that `rusqlite` bundles must be compiled with the `sqlite_dbpage` table: set
//! `LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB` in the `[env]` table of `.cargo/config.toml`.
//! Opening a database says so when it is missing. The applications that share the file need nothing.

mod admin;
mod api;
mod builder;
mod chunks;
mod claim;
mod conflicts;
mod database;
mod device;
mod encode;
mod error;
mod files;
mod home;
mod lock;
mod metadata;
mod outcome;
mod query;
mod receive;
mod remote_database;
mod seal;
#[cfg(feature = "simulation")]
pub mod simulation;
mod status;
mod sync;
mod transport;
mod watch;

pub use admin::Admin;
pub use builder::Builder;
pub use database::Database;
pub use error::{Error, ErrorKind, Result};
pub use highwater_ltx::{
    DeviceId, FrameNo, Generation, PageCount, PageNo, PageSize, Place, Position, StateHash, TxId,
};
pub use highwater_wire::{
    AdminDatabase, AdminDetail, AdminEvent, AdminEventKind, AdminPage, AdminState, AdminStats, DbName,
};
pub use highwater_wire::{
    CannotMerge, Conflict, ConflictKind, ConflictPage, Kept, MergeCounts, MergePolicy, MergeRecord,
    RefusedPush, Renumbered, RowJson, SqlValue,
};
pub use highwater_wire::{ConflictDetail, DatabaseInfo, ErrorCode, HeadJson, LIBSQL_NODE, LogEntry, LogPage};
pub use highwater_wire::{QueryAnswer, QueryCut};
pub use outcome::{Action, Moved, Progress, Stage, SyncOutcome};
pub use remote_database::{At, RemoteDatabase, Restored};
pub use status::Status;
pub use watch::{Watch, WatchOptions};

// The connections that `Database::connect` returns.
pub use rusqlite;
