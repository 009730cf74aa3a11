//! What Highwater's client and server say to each other.
//!
//! Everything that crosses the network in the native protocol has its one definition here: the
//! names of databases, the paths below them, the headers, the JSON bodies, the binary body of
//! `locate`, the error codes and the version. The crate knows nothing of how either side works.
//!
//! The protocol itself, request by request, is described in `docs/PROTOCOL.md`.

mod admin;
mod body;
mod check;
mod error;
mod locate;
mod merge;
mod name;
mod put_back;
mod query;
mod remote;
mod value;

pub use admin::{
    AdminCreate, AdminDatabase, AdminDetail, AdminEvent, AdminEventKind, AdminPage, AdminState, AdminStats,
};
pub use body::{
    ConflictDetail, DatabaseInfo, HeadJson, LocateAnswer, LogEntry, LogPage, Outcome, VersionInfo,
};
pub use check::{BODY, CHECK, Check, NO_BODY, OWN_CHECKS, PATH, arrived_as_sent};
pub use error::{ErrorBody, ErrorCode};
pub use locate::{LocateBodyError, LocateRequest, PageSum, SumsOf};
pub use merge::{
    CannotMerge, Conflict, ConflictKind, ConflictPage, Kept, MergeCounts, MergePolicy, MergeRecord, Rebased,
    RefusedPush, Rejected, Renumbered, RowJson,
};
pub use name::{DbName, InvalidName, MAX_NAME_SEGMENTS, RESERVED_SEGMENTS};
pub use query::{QueryAnswer, QueryCut, QueryRequest};
pub use remote::{InvalidRemote, Remote};
pub use value::SqlValue;

/// In place of the first half of a device id, in logs and LTX files: a libSQL client pushed it. They have no
/// ids, so that many devices are behind this one.
pub const LIBSQL_NODE: u64 = u64::from_be_bytes(*b"libsql\0\0");

/// The protocol's version, as it stands in paths.
pub const PROTOCOL: &str = "v1";

/// Request: the position that the client's copy was last known to be equal to, as `G/F/HASH`.
/// Absent: never synced.
pub const BASE: &str = "highwater-base";
/// Request: the identity of the copy that asks, 32 hex digits.
pub const DEVICE: &str = "highwater-device";
/// Request: hashes of states that this client sent since its base without learning the answer.
pub const PENDING: &str = "highwater-pending";
/// Request: the device that sent the states in [`PENDING`], when it was another one than [`DEVICE`]: a file that was moved goes on
/// as a device of its own. `*`: nobody knows, because what was noted beside the file is lost.
pub const PENDING_DEVICE: &str = "highwater-pending-device";
/// Request: which side wins where the change meets another one, a [`MergePolicy`]. Absent: as the server is set.
pub const POLICY: &str = "highwater-policy";
/// Response to a sync that merged: the number of the merge in the log, in decimal.
pub const MERGE: &str = "highwater-merge";
/// Response to a sync that merged: how many changes could not be kept as they were, in decimal.
pub const CONFLICTS: &str = "highwater-conflicts";
/// Request, with any value: the client lost sight of its file for a while and asks the server to
/// make sure, before it accepts the delta, that the copy is not an earlier state of the database.
pub const CONFIRM: &str = "highwater-confirm";

/// Request: `1` if the base was found by content and may be older than the copy: what both sides have alike counts
/// as one.
pub const DOUBT: &str = "highwater-doubt";
/// Response: the server's newest position, as `G/F/HASH`.
pub const HEAD: &str = "highwater-head";
/// Response: what a sync did, an [`Outcome`].
pub const OUTCOME: &str = "highwater-outcome";
/// Response: transaction id of the position in [`HEAD`], in decimal.
pub const TXID: &str = "highwater-txid";
/// Response to `sums` and `snapshot`: the size of the database there, in pages, in decimal.
pub const PAGE_COUNT: &str = "highwater-page-count";
/// Response to `sums` and `snapshot`: the size of its pages, in bytes, in decimal.
pub const PAGE_SIZE: &str = "highwater-page-size";
/// Response: the identity of this request in the server's log.
pub const REQUEST_ID: &str = "x-request-id";

/// The content type of LTX bodies.
pub const LTX_CONTENT: &str = "application/vnd.highwater.ltx";
/// The content type of page sums and `locate` bodies.
pub const SUMS_CONTENT: &str = "application/vnd.highwater.sums";
/// `Content-Encoding` of bodies that are compressed as a whole.
pub const ZSTD: &str = "zstd";
/// The largest zstd window that either side accepts, as a power of two in bytes: what bounds the
/// memory that a decoder spends on a frame, whatever the frame asks for.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
