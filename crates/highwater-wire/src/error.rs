//! Errors as they cross the network.

use serde::{Deserialize, Serialize};

use crate::body::ConflictDetail;
use crate::{CannotMerge, Conflict};

/// A stable name for each way in which a request can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// 400: the request itself is malformed: a header, a name, a query.
    BadRequest,
    /// 401: no valid token.
    Unauthenticated,
    /// 403: the token does not allow this.
    Forbidden,
    /// 404: no database of that name.
    UnknownDatabase,
    /// 404: no such position or time in the retained history.
    UnknownPosition,
    /// 404: `locate` found no position for the state that the client described.
    UnknownState,
    /// 404: nothing at that path.
    NotFound,
    /// 405: another method is meant.
    MethodNotAllowed,
    /// 409: both sides changed, and the policy is not to merge what meets.
    Conflict,
    /// 409: both sides changed, and what they changed cannot be merged.
    CannotMerge,
    /// 409: there is a database of that name already.
    AlreadyExists,
    /// 410: the database was deleted; an administrator can undelete it.
    Deleted,
    /// 410: the base is not in the retained history.
    UnknownBase,
    /// 410: the copy is an earlier state of the database, or that with changes, and not its base.
    EarlierState,
    /// 413: more than the server takes.
    TooLarge,
    /// 422: the body is not a valid delta on its base.
    CorruptBody,
    /// 422: a page size other than the database's.
    WrongPageSize,
    /// 429: slow down.
    TooManyRequests,
    /// 503: try again later.
    Unavailable,
    /// 503: the request is not what was sent: it was damaged on its way.
    Damaged,
    /// 507: the server's disk is full.
    StorageFull,
    /// 500: a fault of the server; its log knows more under the request id.
    Internal,
    /// A code of a newer server.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::UnknownDatabase => "unknown_database",
            Self::UnknownPosition => "unknown_position",
            Self::UnknownState => "unknown_state",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::CannotMerge => "cannot_merge",
            Self::AlreadyExists => "already_exists",
            Self::Deleted => "deleted",
            Self::UnknownBase => "unknown_base",
            Self::EarlierState => "earlier_state",
            Self::TooLarge => "too_large",
            Self::CorruptBody => "corrupt_body",
            Self::WrongPageSize => "wrong_page_size",
            Self::TooManyRequests => "too_many_requests",
            Self::Unavailable => "unavailable",
            Self::Damaged => "damaged",
            Self::StorageFull => "storage_full",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::UnknownDatabase | Self::UnknownPosition | Self::UnknownState | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict | Self::CannotMerge | Self::AlreadyExists => 409,
            Self::Deleted | Self::UnknownBase | Self::EarlierState => 410,
            Self::TooLarge => 413,
            Self::CorruptBody | Self::WrongPageSize => 422,
            Self::TooManyRequests => 429,
            Self::Unavailable | Self::Damaged => 503,
            Self::StorageFull => 507,
            Self::Internal | Self::Unknown => 500,
        }
    }
}

/// The JSON body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind of failure.
    pub code: ErrorCode,
    /// A sentence for a person.
    pub message: String,
    /// The request's identity in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// With [`ErrorCode::Conflict`]: what both sides changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<ConflictDetail>,
    /// With [`ErrorCode::Conflict`]: what would have been merged, and how it meets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
    /// With [`ErrorCode::CannotMerge`]: what stands in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot_merge: Option<CannotMerge>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_servers_code_is_still_readable() {
        let body: ErrorBody =
            serde_json::from_str(r#"{"code":"from_the_future","message":"m","x":1}"#).unwrap();
        assert_eq!(body.code, ErrorCode::Unknown);
    }

    #[test]
    fn codes_are_snake_case_on_the_wire() {
        for code in [ErrorCode::UnknownBase, ErrorCode::TooManyRequests, ErrorCode::Internal] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("{:?}", code.as_str()));
        }
    }
}
