//! What a merge could not keep, as it is stored and shown.

use std::fmt;
use std::str::FromStr;

use highwater_ltx::InvalidUnit;
use serde::{Deserialize, Serialize};

use crate::{HeadJson, SqlValue};

/// Which side wins where two devices changed the same thing and only one change can stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MergePolicy {
    /// The change that reaches the server later; the other one is recorded.
    #[default]
    LastPushWins,
    /// The change that reached the server first; the later one is recorded.
    FirstPushWins,
    /// Neither: the push is refused, with the conflicts, and nothing is stored.
    Fail,
}

impl MergePolicy {
    /// As it stands in headers and settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastPushWins => "last-push-wins",
            Self::FirstPushWins => "first-push-wins",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for MergePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MergePolicy {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        [Self::LastPushWins, Self::FirstPushWins, Self::Fail]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| InvalidUnit {
                value: text.to_owned(),
                expected: "a merge policy (last-push-wins, first-push-wins or fail)",
            })
    }
}

/// What kind of conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConflictKind {
    /// Both changed the same columns of a row, or inserted a row with the same declared key.
    Update,
    /// One side changed a row that the other one deleted: the change survives.
    UpdateDelete,
    /// Both inserted a row with the same id: the pushed one has a new id now, both live.
    Renumbered,
    /// The pushed row has the value of another row in a UNIQUE column; it was not applied.
    Unique,
    /// The pushed row breaks a CHECK; it was not applied.
    Check,
    /// The pushed row has no value where one is demanded; it was not applied.
    NotNull,
    /// The pushed row points to a row that is not there, or its deletion would leave rows that point to it; it
    /// was not applied.
    ForeignKey,
    /// Both changed the definition of a table, an index, a view or a trigger: the head's stays.
    Schema,
    /// The pushed row belongs to a table, or has a value of a column, that the head does not have any more.
    NoPlace,
    /// A kind that a newer server knows.
    #[serde(other)]
    Other,
}

impl ConflictKind {
    /// As it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::UpdateDelete => "update_delete",
            Self::Renumbered => "renumbered",
            Self::Unique => "unique",
            Self::Check => "check",
            Self::NotNull => "not_null",
            Self::ForeignKey => "foreign_key",
            Self::Schema => "schema",
            Self::NoPlace => "no_place",
            Self::Other => "other",
        }
    }

    /// Whether something that a device wrote is not in the result.
    #[must_use]
    pub const fn loses(self) -> bool {
        !matches!(self, Self::Renumbered)
    }
}

impl fmt::Display for ConflictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose version is in the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// The pushing device's.
    Local,
    /// What the server had.
    Head,
    /// Both, next to each other.
    Both,
}

/// Column names and values, in the order of the table's columns.
pub type RowJson = Vec<(String, SqlValue)>;

/// One thing that a merge could not bring together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// What kind.
    pub kind: ConflictKind,
    /// The table, or with [`ConflictKind::Schema`] the object.
    pub table: String,
    /// What identifies the row: its declared key, or `rowid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: RowJson,
    /// With [`ConflictKind::Renumbered`]: what identifies the pushed row now. With [`ConflictKind::Unique`]: the row that has
    /// the value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_key: RowJson,
    /// The columns that both changed to different values; for the rest the row says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// The row that both started from. Absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<RowJson>,
    /// The pushing device's row. Absent: it has none, or deleted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<RowJson>,
    /// The server's row before the merge. Absent: it had none, or it was deleted there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<RowJson>,
    /// Whose version is in the result.
    pub kept: Kept,
    /// With [`ConflictKind::Schema`]: the definition that was not kept. Absent: it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// A sentence for a person.
    pub message: String,
}

/// A row that has another id at the server than on the device that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Renumbered {
    /// The table.
    pub table: String,
    /// The id (INTEGER PRIMARY KEY or rowid) on the device.
    pub from: i64,
    /// The id at the server.
    pub to: i64,
}

/// A row that a device wrote and that the head has not got, because a merge refused to insert it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// The table, by its name on the device.
    pub table: String,
    /// What identifies the row on the device: its declared key, or its rowid.
    pub key: RowJson,
}

/// How much a merge did, in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MergeCounts {
    /// Rows of the device that were inserted.
    pub inserted: u64,
    /// Rows that were changed.
    pub updated: u64,
    /// Rows that were deleted.
    pub deleted: u64,
    /// Changes that the server had already.
    pub same: u64,
}

/// Ids that rows got on a device, because it had given them while the answer to a push that was merged was under way: what `POST
/// /DB/v1/conflicts/TXID/rebased` adds to the record of that merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rebased {
    /// Hash of the device's file with those rows on top of the head, 32 hex digits.
    pub state: String,
    /// Of the kind [`ConflictKind::Renumbered`] only.
    pub conflicts: Vec<Conflict>,
}

impl Rebased {
    /// The most conflicts in one; what has more goes through the server.
    pub const MOST: usize = 1000;
}

/// Why a merge is not possible at all, with [`crate::ErrorCode::CannotMerge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CannotMerge {
    /// The table, index, view or trigger that stands in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// A sentence: why, and what can be done.
    pub reason: String,
}

/// One merge, as it is stored and as `GET /DB/v1/conflicts` lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MergeRecord {
    /// Of this format: 1.
    pub version: u32,
    /// The number of the merge in the log.
    pub txid: u64,
    /// The device that pushed, 32 hex digits; of libSQL clients the one that stands for all.
    pub device: String,
    /// When, milliseconds since 1970 (UTC), by the server's clock.
    pub time_ms: i64,
    /// What decided.
    pub policy: MergePolicy,
    /// What the device started from.
    pub base: HeadJson,
    /// The head before it.
    pub head_before: HeadJson,
    /// The head after it.
    pub head: HeadJson,
    /// Hash of the device's own state, 32 hex digits: another name of the head after it.
    pub local_state: String,
    /// How much was done.
    pub counts: MergeCounts,
    /// What could not be kept.
    pub conflicts: Vec<Conflict>,
    /// Rows of the device that have another id at the server, from this merge and from earlier ones that the
    /// device had not heard of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renumbered: Vec<Renumbered>,
    /// Rows of the device that the head has not got, from this merge and from earlier ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// Whether somebody marked it as seen.
    #[serde(default)]
    pub resolved: bool,
}

/// A push of a libSQL client that was refused: the client is told `conflict`, and this says why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedPush {
    /// Of this format: 1.
    pub version: u32,
    /// What names it: `r` and the 16 hex digits that tell the client's log from others.
    pub id: String,
    /// Who pushed, as far as it is known: the token's subject, or the address.
    pub client: String,
    /// When, milliseconds since 1970 (UTC), by the server's clock.
    pub time_ms: i64,
    /// The generation that the client counts in.
    pub generation: u32,
    /// The frame that what it pushed comes after.
    pub after: u64,
    /// How many frames it pushed.
    pub frames: u64,
    /// How many pages of it the server keeps beside the record; 0: only the client has them.
    pub pages: u32,
    /// Hash of the client's own state, 32 hex digits, if the pages are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What the client started from, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<HeadJson>,
    /// The head that it could not be merged with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadJson>,
    /// The table, index, view or trigger that stands in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// A sentence: why, and what can be done.
    pub reason: String,
    /// The rows that meet others, where the policy forbids that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
    /// Whether the client got through since, or somebody marked it as seen.
    #[serde(default)]
    pub resolved: bool,
}

/// The answer to `GET /DB/v1/conflicts`: merges that could not keep everything, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictPage {
    /// Pushes of libSQL clients that were refused, newest first; in the first answer of a list only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedPush>,
    /// The merges.
    pub merges: Vec<MergeRecord>,
    /// Whether older ones follow.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_in_json() {
        for kind in [ConflictKind::UpdateDelete, ConflictKind::NoPlace, ConflictKind::Renumbered] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("{:?}", kind.as_str()));
        }
        for policy in [MergePolicy::LastPushWins, MergePolicy::FirstPushWins, MergePolicy::Fail] {
            assert_eq!(serde_json::to_string(&policy).unwrap(), format!("{:?}", policy.as_str()));
            assert_eq!(policy.as_str().parse::<MergePolicy>().unwrap(), policy);
        }
    }
}
