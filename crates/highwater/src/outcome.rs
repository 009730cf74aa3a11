//! What a sync tells its caller: what moved, where both sides are now, and how far it has come.

use std::time::Duration;

use highwater_ltx::{Position, TxId};
use highwater_wire::Conflict;
use serde::Serialize;

/// What a sync did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Action {
    /// Both sides already had the same state.
    UpToDate,
    /// Local changes are on the server now.
    Pushed,
    /// The server's changes are in the local file now.
    Pulled,
    /// Both sides had changed; the server merged them, and the result is in the local file now.
    Merged,
    /// The local file was made from the server's database.
    Bootstrapped,
    /// There is nothing on either side yet.
    NothingYet,
}

/// What moved in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Moved {
    /// Frames: one for each page image.
    pub frames: u64,
    /// Pages of the database; the same number as frames, but for what was already there.
    pub pages: u64,
    /// Bytes of bodies on the wire, compressed as they were sent.
    pub bytes: u64,
}

/// The result of a sync that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SyncOutcome {
    /// In one word.
    pub action: Action,
    /// What went to the server.
    pub pushed: Moved,
    /// What came from the server.
    pub pulled: Moved,
    /// HTTP requests made, retries included.
    pub requests: u32,
    /// Where the local file and the server's database both are now. None: nothing exists yet.
    #[serde(serialize_with = "position_text")]
    pub position: Option<Position>,
    /// The position's number in the server's log.
    #[serde(serialize_with = "txid_number")]
    pub txid: Option<TxId>,
    /// Whether local changes were merged with those of other devices.
    pub merged: bool,
    /// What the merges of this sync could not keep as it was, and ids that changed, those of rows that were committed during the
    /// sync included. Also in [`crate::Database::conflicts`], until somebody resolves it.
    pub conflicts: Vec<Conflict>,
    /// How many conflicts the server counted. More than there are in `conflicts` only when its record of them could
    /// not be fetched.
    pub conflict_count: u64,
    /// For how long the application's writes were held back, in all, apart from plain commits. Zero, unless it committed during
    /// each of two requests: then for one merge of few rows and its commit.
    #[serde(rename = "held_ms", serialize_with = "milliseconds", skip_serializing_if = "Duration::is_zero")]
    pub held: Duration,
    /// From start to end.
    #[serde(rename = "elapsed_ms", serialize_with = "milliseconds")]
    pub elapsed: Duration,
}

impl SyncOutcome {
    /// Whether anything moved.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.pushed.pages > 0 || self.pulled.pages > 0
    }
}

// The signatures that serde calls these with.
#[allow(clippy::ref_option, reason = "serde passes a reference to the field")]
fn position_text<S: serde::Serializer>(
    position: &Option<Position>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match position {
        Some(position) => serializer.collect_str(position),
        None => serializer.serialize_none(),
    }
}

#[allow(clippy::ref_option, reason = "serde passes a reference to the field")]
fn txid_number<S: serde::Serializer>(txid: &Option<TxId>, serializer: S) -> Result<S::Ok, S::Error> {
    txid.map(|txid| txid.0).serialize(serializer)
}

fn milliseconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64() * 1000.0)
}

/// What a sync is doing right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stage {
    /// Waiting for another sync of the same file to end.
    Waiting,
    /// Reading the local database to find what changed; in pages.
    Scanning,
    /// Sending the delta; in bytes of pages.
    Sending,
    /// Receiving pages; in bytes of pages.
    Receiving,
    /// Writing received pages into the local database; in pages.
    Applying,
}

/// How far a stage has come. Reported now and then, and never often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Done so far, in the stage's unit.
    pub done: u64,
    /// In all, when it is known.
    pub total: Option<u64>,
}
