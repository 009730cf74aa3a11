//! The JSON bodies.

use std::fmt;
use std::str::FromStr;

use highwater_ltx::{FrameNo, Generation, InvalidUnit, Position};
use serde::{Deserialize, Serialize};

/// What a sync did, in the header [`crate::OUTCOME`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Client and server already had the same state.
    UpToDate,
    /// The client's delta was appended to the log.
    Pushed,
    /// The client was behind; the body brings it to the head.
    Pulled,
    /// Both had changed; the body brings the client to the merged head.
    Merged,
}

impl Outcome {
    /// As it stands in the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "up-to-date",
            Self::Pushed => "pushed",
            Self::Pulled => "pulled",
            Self::Merged => "merged",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        match text {
            "up-to-date" => Ok(Self::UpToDate),
            "pushed" => Ok(Self::Pushed),
            "pulled" => Ok(Self::Pulled),
            "merged" => Ok(Self::Merged),
            _ => Err(InvalidUnit {
                value: text.to_owned(),
                expected: "an outcome (up-to-date, pushed, pulled or merged)",
            }),
        }
    }
}

/// A position in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadJson {
    /// The epoch.
    pub generation: u32,
    /// The last frame of the state.
    pub frame: u64,
    /// The state hash, 32 hex digits.
    pub state: String,
}

impl From<Position> for HeadJson {
    fn from(position: Position) -> Self {
        Self { generation: position.generation.0, frame: position.frame.0, state: position.state.to_string() }
    }
}

impl TryFrom<&HeadJson> for Position {
    type Error = InvalidUnit;

    fn try_from(json: &HeadJson) -> Result<Self, InvalidUnit> {
        Ok(Self {
            generation: Generation(json.generation),
            frame: FrameNo(json.frame),
            state: json.state.parse()?,
        })
    }
}

/// The answer to `GET /DB/v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseInfo {
    /// The database's name.
    pub name: String,
    /// The newest position.
    pub head: HeadJson,
    /// How many pushes were accepted.
    pub txid: u64,
    /// In bytes.
    pub page_size: u32,
    /// In pages.
    pub page_count: u32,
    /// The size of the database at the head, in bytes.
    pub bytes: u64,
    /// When the first push was accepted, milliseconds since 1970 (UTC), by the server's clock.
    pub created_ms: i64,
    /// When the newest push was accepted, milliseconds since 1970 (UTC), by the server's clock.
    pub updated_ms: i64,
}

/// One accepted push in the answer to `GET /DB/v1/log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The position after it.
    pub position: HeadJson,
    /// Its number in the log.
    pub txid: u64,
    /// First half of the id of the device that pushed it, 16 hex digits.
    pub device: String,
    /// When it was accepted, milliseconds since 1970 (UTC), by the server's clock.
    pub time_ms: i64,
    /// Pages in it; as many frames.
    pub pages: u32,
    /// The size of the database after it, in pages.
    pub page_count: u32,
    /// Its size in storage, in bytes.
    pub bytes: u64,
}

/// The answer to `GET /DB/v1/log`: entries oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// The accepted pushes.
    pub entries: Vec<LogEntry>,
    /// Whether more follow after the last one.
    pub more: bool,
}

/// The answer to `POST /DB/v1/locate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocateAnswer {
    /// The position that the client's copy is at, or was before its own changes.
    pub position: HeadJson,
    /// Its number in the log.
    pub txid: u64,
    /// Whether the client's state is that position, without changes on top.
    pub exact: bool,
    /// First half of the id of the device that pushed the position, 16 hex digits.
    #[serde(default)]
    pub device: String,
    /// When not exact: how many of the client's pages are the position's own.
    #[serde(default)]
    pub known_pages: u32,
}

/// What both sides changed, with [`crate::ErrorCode::Conflict`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictDetail {
    /// Where the client started from.
    pub base: HeadJson,
    /// Where the server is.
    pub head: HeadJson,
    /// How many pages the client's delta changed.
    pub local_pages: u32,
    /// How many pages the server changed since the base.
    pub remote_pages: u32,
    /// Page numbers that both changed, ascending; at most a thousand are named.
    pub both_pages: Vec<u32>,
    /// Tables (and indexes' tables) that the client's delta touches, by name.
    pub local_tables: Vec<String>,
    /// Tables that the server's changes touch, by name.
    pub remote_tables: Vec<String>,
    /// Tables that both touch.
    pub both_tables: Vec<String>,
    /// Devices (first half of the id) whose pushes came in between.
    #[serde(default)]
    pub devices: Vec<String>,
}

/// The answer to `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// Always `highwater`: how a client tells this server from another kind.
    pub server: String,
    /// The server's version.
    pub version: String,
    /// The native protocol versions that it speaks.
    pub protocols: Vec<String>,
}
