//! Why a request was refused, and by whom: from what came back to an error that says what to do.

use std::io::{ErrorKind, Read};

use highwater_wire::{ErrorBody, ErrorCode, VersionInfo};
use http::header::LOCATION;
use http::{HeaderMap, Method, StatusCode};

use super::send::is_passing;
use super::{Api, MAX_JSON_BYTES};
use crate::error::Error;
use crate::receive::plain_body;
use crate::transport::{Body, NetworkError, Response};

/// Why a request was refused.
pub(crate) enum Refused {
    /// The server's own words.
    Told(StatusCode, Box<ErrorBody>),
    /// Anything else, already an error of the library.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Api<'_> {
    /// Reads what a refusal says, and finds out whether it is a Highwater server that refuses.
    pub(super) fn refused(&self, mut answer: Response) -> Refused {
        let mut text = Vec::new();
        let read = plain_body(&answer.headers, &mut answer.body).take(MAX_JSON_BYTES).read_to_end(&mut text);
        if read.is_ok()
            && let Ok(body) = serde_json::from_slice::<ErrorBody>(&text)
        {
            return Refused::Told(answer.status, Box::new(body));
        }
        if let Err(error) = &read
            && matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::TimedOut
            )
            && !is_passing(answer.status)
        {
            // Half a refusal says nothing of who refused.
            return Refused::Failed(self.cut(error));
        }
        if is_passing(answer.status) {
            // A proxy in front of the server speaks like this.
            let message = "the server is not available".to_owned();
            let body = ErrorBody {
                code: ErrorCode::Unavailable,
                message,
                request_id: None,
                conflict: None,
                conflicts: Vec::new(),
                cannot_merge: None,
            };
            return Refused::Told(answer.status, Box::new(body));
        }
        let elsewhere = answer.headers.get(LOCATION).and_then(|place| place.to_str().ok());
        let found = match self.server_kind() {
            _ if answer.status.is_redirection() && elsewhere.is_some() => format!(
                "it answered HTTP {} and leads to {}; if that is your server, use its URL",
                answer.status,
                elsewhere.unwrap_or_default()
            ),
            Some(kind) if kind == "highwater" => {
                format!("a Highwater server answered HTTP {}, but not at this path", answer.status)
            }
            Some(kind) => format!("a server that calls itself {kind:?}"),
            None => format!("it answered HTTP {}", answer.status),
        };
        Refused::Failed(Error::NotHighwater { remote: self.remote.to_string(), found })
    }

    /// Whether what answers at this URL is a Highwater server at all.
    fn server_kind(&self) -> Option<String> {
        let url = self.remote.as_str();
        let after_scheme = url.find("://").map_or(0, |at| at + 3);
        let host_end = url.get(after_scheme..)?.find('/').map_or(url.len(), |at| after_scheme + at);
        let version = format!("{}/version", url.get(..host_end)?);
        let mut answer = self.attempt(&Method::GET, &version, &HeaderMap::new(), Body::Empty).ok()?;
        let mut text = String::new();
        (&mut answer.body).take(4096).read_to_string(&mut text).ok()?;
        serde_json::from_str::<VersionInfo>(&text).ok().map(|info| info.server)
    }

    /// A success that lacks what every one of Highwater's has.
    pub(super) fn strange(&self, what: &str) -> Error {
        if self.server_kind().as_deref() == Some("highwater") {
            self.bad(what.to_owned())
        } else {
            let found = format!("it answers with success, but {what}");
            Error::NotHighwater { remote: self.remote.to_string(), found }
        }
    }

    /// Turns a refusal that nobody knows better into an error of the library.
    pub(crate) fn explain(&self, refused: Refused) -> Error {
        let (status, body) = match refused {
            Refused::Failed(error) => return error,
            Refused::Told(status, body) => (status, *body),
        };
        let remote = self.remote.to_string();
        let message = body.message;
        match body.code {
            ErrorCode::UnknownDatabase => Error::UnknownDatabase { remote },
            ErrorCode::Deleted => Error::Deleted { remote },
            ErrorCode::UnknownPosition => Error::UnknownPosition { remote, message },
            ErrorCode::Unauthenticated => Error::Unauthenticated { remote, message },
            ErrorCode::Forbidden => Error::Forbidden { remote, message },
            ErrorCode::Unavailable | ErrorCode::TooManyRequests | ErrorCode::Damaged => {
                Error::Offline { remote, reason: format!("HTTP {}: {message}", status.as_u16()) }
            }
            code => Error::Server { remote, code, message, request_id: body.request_id },
        }
    }

    /// An answer that cannot be right.
    pub(crate) fn bad(&self, what: String) -> Error {
        Error::BadAnswer { remote: self.remote.to_string(), what }
    }

    /// A connection that broke while an answer was read.
    pub(crate) fn cut(&self, error: &std::io::Error) -> Error {
        let reason = format!("the connection broke while its answer was read: {error}");
        Error::Offline { remote: self.remote.to_string(), reason }
    }

    pub(super) fn unreached(&self, error: &NetworkError) -> Error {
        let (remote, reason) = (self.remote.to_string(), error.reason.clone());
        if error.foreign {
            Error::NotHighwater { remote, found: reason }
        } else {
            Error::Offline { remote, reason }
        }
    }
}
