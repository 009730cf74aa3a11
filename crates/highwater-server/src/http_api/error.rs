//! Failures as answers: a stable code, a sentence, the request's id.

use std::time::Duration;

use axum::response::Response;
use highwater_ltx::Position;
use highwater_wire::{CannotMerge, Conflict, ConflictDetail, ErrorBody, ErrorCode, HEAD};
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::Error;
use crate::log::{Refusal, UnknownBase};
use crate::push::PushError;

/// A request that is not done.
#[derive(Debug)]
pub(crate) struct Failure {
    code: ErrorCode,
    message: String,
    conflict: Option<Box<ConflictDetail>>,
    conflicts: Vec<Conflict>,
    cannot_merge: Option<Box<CannotMerge>>,
    headers: Vec<(HeaderName, String)>,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            conflict: None,
            conflicts: Vec::new(),
            cannot_merge: None,
            headers: Vec::new(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    pub(crate) fn unknown_database(name: &str) -> Self {
        let message =
            format!("there is no database {name} on this server; the first push to that name creates it");
        Self::new(ErrorCode::UnknownDatabase, message)
    }

    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        let message = format!("this path is asked for with {allowed}");
        Self { headers: vec![(ALLOW, allowed.to_owned())], ..Self::new(ErrorCode::MethodNotAllowed, message) }
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        let message = format!(
            "the body is larger than this server takes ({limit} bytes); raise its limit or push less"
        );
        Self::new(ErrorCode::TooLarge, message)
    }

    /// Not now; a second later, perhaps.
    pub(crate) fn unavailable(what: impl std::fmt::Display) -> Self {
        Self {
            headers: vec![(RETRY_AFTER, "1".to_owned())],
            ..Self::new(ErrorCode::Unavailable, format!("{what}; try again in a second"))
        }
    }

    /// It is not what was sent.
    pub(crate) fn damaged(what: impl std::fmt::Display) -> Self {
        let message = format!("the request was damaged on its way: {what}. Nothing was done; send it again");
        Self::new(ErrorCode::Damaged, message)
    }

    /// The caller asks too often.
    pub(crate) fn too_many(wait: Duration) -> Self {
        // Whole seconds are all that the header can say.
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let message = format!("this token, or address, sends more requests than it may; wait {seconds} s");
        Self {
            headers: vec![(RETRY_AFTER, seconds.to_string())],
            ..Self::new(ErrorCode::TooManyRequests, message)
        }
    }

    /// No token, or none that is accepted.
    pub(crate) fn unauthenticated(message: impl Into<String>, challenge: &str) -> Self {
        let headers = vec![(WWW_AUTHENTICATE, challenge.to_owned())];
        Self { headers, ..Self::new(ErrorCode::Unauthenticated, message) }
    }

    /// A failure of the server itself: logged in full, told without details that help nobody.
    pub(crate) fn internal(what: &str) -> Self {
        tracing::error!(error = what, "the server failed");
        Self::new(
            ErrorCode::Internal,
            "the server failed; its log says why, under this request's id. Try again",
        )
    }

    fn with_head(mut self, head: impl Into<Option<Position>>) -> Self {
        let head = head.into().map(|head| (HeaderName::from_static(HEAD), head.to_string()));
        self.headers.extend(head);
        self
    }

    /// What the request was refused with, for the log.
    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }

    /// The sentence, for the log.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn into_response(self, request_id: &str) -> Response {
        let body = ErrorBody {
            code: self.code,
            message: self.message,
            request_id: Some(request_id.to_owned()),
            conflict: self.conflict.map(|detail| *detail),
            conflicts: self.conflicts,
            cannot_merge: self.cannot_merge.map(|why| *why),
        };
        // Plain strings and numbers: this cannot fail.
        let mut response = super::json_text(serde_json::to_vec(&body).unwrap_or_default());
        *response.status_mut() =
            StatusCode::from_u16(body.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let what = crate::error::chain(&error);
        match error {
            Error::Full { .. } => {
                tracing::error!(error = %what, "the store is full");
                Self::new(
                    ErrorCode::StorageFull,
                    "the server's storage is full, nothing was stored; make room there, then sync again",
                )
            }
            Error::Deleted { .. } => Self::new(ErrorCode::Deleted, error.to_string()),
            Error::Administered { .. } => Self {
                headers: vec![(RETRY_AFTER, "1".to_owned())],
                ..Self::new(ErrorCode::Unavailable, error.to_string())
            },
            Error::Damaged { .. } | Error::Gap { .. } => {
                tracing::error!(error = %what, "the database cannot be served");
                Self::new(ErrorCode::Internal, format!("this database cannot be served: {error}"))
            }
            Error::Overloaded => {
                Self::unavailable("the server has no memory left for more bodies at the moment")
            }
            _ => Self::internal(&what),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownDatabase => Self::new(
                ErrorCode::UnknownDatabase,
                "there is no such database; a first push (without a base) creates it",
            ),
            Refusal::UnknownBase(unknown) => {
                let UnknownBase { base, head, oldest } = *unknown;
                let base = base.map_or("no base".to_owned(), |base| format!("the base {base}"));
                let message = format!(
                    "{base} is not in this database's history (kept: {} to {}); ask locate where this copy belongs",
                    oldest.place(),
                    head.place()
                );
                Self::new(ErrorCode::UnknownBase, message).with_head(head)
            }
            Refusal::EarlierState(position) => Self::new(
                ErrorCode::EarlierState,
                format!(
                    "the copy is the state at {} of this database, or that with changes, and not its base; ask `locate` where it is",
                    position.place()
                ),
            ),
            Refusal::Conflict(detail) => Self::conflict(*detail),
            Refusal::CannotMerge(refused) => {
                let (detail, why) = *refused;
                let object = why.object.as_ref().map(|object| format!(" ({object})")).unwrap_or_default();
                let message = format!(
                    "both this copy and the server changed, and that cannot be merged{object}: {}; nothing was stored, nothing is lost",
                    why.reason
                );
                let head = Position::try_from(&detail.head).ok();
                let failure = Self::new(ErrorCode::CannotMerge, message).with_head(head);
                Self { conflict: Some(Box::new(detail)), cannot_merge: Some(Box::new(why)), ..failure }
            }
            Refusal::TooLarge { limit } => Self::too_large(limit),
            Refusal::WrongPageSize { database, sent } => Self::new(
                ErrorCode::WrongPageSize,
                format!(
                    "the database has pages of {database} bytes, the body has pages of {sent}; they cannot be synced"
                ),
            ),
            Refusal::Corrupt(what) => Self::new(
                ErrorCode::CorruptBody,
                format!("the body is not a valid delta: {what}. Nothing was stored; sync again"),
            ),
            Refusal::Busy => Self::unavailable("others pushed at the same moment"),
            Refusal::Failed(error) => error.into(),
        }
    }
}

impl Failure {
    fn conflict((detail, conflicts): (ConflictDetail, Vec<Conflict>)) -> Self {
        let message = format!(
            "both this copy ({} pages) and the server ({} pages, now at {}/{}) changed since {}/{}, they meet in {} places, and the policy is not to merge then; nothing was stored, nothing is lost",
            detail.local_pages,
            detail.remote_pages,
            detail.head.generation,
            detail.head.frame,
            detail.base.generation,
            detail.base.frame,
            conflicts.len()
        );
        let head = Position::try_from(&detail.head).ok();
        let failure =
            Self { conflict: Some(Box::new(detail)), conflicts, ..Self::new(ErrorCode::Conflict, message) };
        match head {
            Some(head) => failure.with_head(head),
            None => failure,
        }
    }
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        match error {
            PushError::TooLarge { limit } => Self::too_large(limit),
            // The network's fault, not the request's: whoever is still there sends it again.
            PushError::Gone(what) => Self::unavailable(format!("{what}; nothing was stored")),
            PushError::Damaged => Self::damaged("its body is not the one that was sent"),
            PushError::Refused(refusal) => refusal.into(),
        }
    }
}
