//! The JSON bodies of administration.

use serde::{Deserialize, Serialize};

use crate::body::HeadJson;

/// How a database stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdminState {
    /// It has at least one position.
    Live,
    /// It was created and nothing was pushed yet.
    Empty,
    /// It is deleted and can be undeleted.
    Deleted,
    /// Its files are being removed; that cannot be undone.
    Removing,
    /// A state of a newer server.
    #[serde(other)]
    Unknown,
}

impl AdminState {
    /// As it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Empty => "empty",
            Self::Deleted => "deleted",
            Self::Removing => "removing",
            Self::Unknown => "unknown",
        }
    }
}

/// One database, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminDatabase {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: AdminState,
    /// The newest position.
    pub head: Option<HeadJson>,
    /// How many pushes were accepted.
    pub txid: u64,
    /// In bytes.
    pub page_size: u32,
    /// In pages.
    pub page_count: u32,
    /// The size of the database at the head, in bytes.
    pub bytes: u64,
    /// What its files take in the store, in bytes.
    pub stored_bytes: u64,
    /// The time of its oldest kept push, milliseconds since 1970 (UTC).
    pub created_ms: Option<i64>,
    /// The time of its newest push, milliseconds since 1970 (UTC).
    pub updated_ms: Option<i64>,
    /// Whether this server has it in memory.
    pub open: bool,
    /// When it was deleted, milliseconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_ms: Option<i64>,
    /// When its files will be removed, milliseconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_after_ms: Option<i64>,
    /// Why its head is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The answer to `GET /admin/v1/databases`: by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminPage {
    /// Databases of every state.
    pub databases: Vec<AdminDatabase>,
    /// Whether more follow after the last one.
    pub more: bool,
}

/// The answer to `GET /admin/v1/databases/DB`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminDetail {
    /// The database.
    #[serde(flatten)]
    pub database: AdminDatabase,
    /// How many files of pushes it has.
    pub pushes: u64,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// What administrators did to it, oldest first, and to those that had its name before.
    pub events: Vec<AdminEvent>,
}

/// What is created with `POST /admin/v1/databases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminCreate {
    /// The name of the new database.
    pub name: String,
}

/// The answer to `GET /admin/v1/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminStats {
    /// The server's version.
    pub version: String,
    /// Since the server was started, in seconds.
    pub uptime_s: u64,
    /// Databases that are live or empty.
    pub databases: u64,
    /// Databases that are deleted and not removed yet.
    pub deleted: u64,
    /// What all files of all databases take in the store, in bytes.
    pub stored_bytes: u64,
    /// How many files that are.
    pub stored_files: u64,
    /// Databases that this server has in memory.
    pub open: u64,
    /// Connections that are open.
    pub connections: u64,
    /// Requests that are being answered, this one included.
    pub in_flight: u64,
}

/// What happened to a database as a whole; also an object in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminEvent {
    /// Of this object: 1.
    pub version: u32,
    /// What happened.
    pub event: AdminEventKind,
    /// When, milliseconds since 1970 (UTC), by the server's clock.
    pub time_ms: i64,
    /// Who asked for it: whom the token was made for, or an address, or the server itself.
    pub by: String,
    /// The last generation of the log then; 0 when there was none.
    pub generation: u32,
    /// The last transaction of the log then; 0 when there was none.
    pub txid: u64,
    /// Random: tells two events apart that are the same otherwise.
    pub id: String,
}

/// What can happen to a database as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminEventKind {
    /// The name was reserved for a database without content.
    Created,
    /// It was deleted: no request reaches it.
    Deleted,
    /// It was brought back as it was.
    Undeleted,
    /// Somebody began to remove its files.
    Collecting,
    /// Its files are gone; the name is free.
    Collected,
}

impl AdminEventKind {
    /// As it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Undeleted => "undeleted",
            Self::Collecting => "collecting",
            Self::Collected => "collected",
        }
    }
}
