//! The checksums of requests and answers ([`highwater_wire::Check`]): what is damaged on its way is sent again, and is
//! never acted upon.

use std::io::Read;

use highwater_ltx::planted;
use highwater_wire::{BODY, CHECK, Check, NO_BODY, OWN_CHECKS, PATH};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::transport::{Body, BodyReader, NetworkError, Request, Response};

/// No answer of one piece is larger, in bytes.
const MOST_WHOLE: u64 = 64 << 20;

/// Gives a request its checksums, when everything else is in it.
pub(crate) fn seal(request: &mut Request) -> Check {
    let after_scheme = request.url.find("://").map_or(0, |at| at + 3);
    let rest = request.url.get(after_scheme..).unwrap_or_default();
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/");
    let body = match &request.body {
        Body::Empty => NO_BODY.to_owned(),
        Body::Whole(bytes) => sum_of(bytes).to_string(),
        Body::Streamed(_) => OWN_CHECKS.to_owned(),
    };
    set(&mut request.headers, PATH, path.as_bytes());
    set(&mut request.headers, BODY, body.as_bytes());
    let check = Check::of_request(request.method.as_str(), all(&request.headers));
    set(&mut request.headers, CHECK, check.to_string().as_bytes());
    check
}

/// Whether an answer has nothing of a seal: a program in between gave it, or an older server.
pub(crate) fn is_bare(answer: &Response) -> bool {
    ![CHECK, BODY].iter().any(|name| answer.headers.contains_key(*name))
}

/// The answer, if it is the one that was given to the request with this checksum.
pub(crate) fn proven(mut answer: Response, request: Check) -> Result<Response, NetworkError> {
    if is_bare(&answer) {
        return Ok(answer);
    }
    let damaged = |what: &str| NetworkError {
        reason: format!("its answer was damaged on its way: {what}"),
        connecting: false,
        foreign: false,
    };
    let field = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let named = field(CHECK).and_then(|check| check.parse().ok());
    let found = Check::of_answer(Some(request), answer.status.as_u16(), all(&answer.headers));
    if named != Some(found) && !planted("answer-head-not-compared") {
        return Err(damaged("its headers are not those that were sent"));
    }
    if let Some(sum) = field(BODY).and_then(|body| body.parse().ok()) {
        let mut bytes = Vec::new();
        let read = (&mut answer.body).take(MOST_WHOLE).read_to_end(&mut bytes);
        read.map_err(|error| NetworkError {
            reason: format!("the connection broke while its answer was read: {error}"),
            connecting: false,
            foreign: false,
        })?;
        if sum_of(&bytes) != sum {
            return Err(damaged("its body is not the one that was sent"));
        }
        answer.body = BodyReader::of(bytes.into(), None);
    }
    Ok(answer)
}

fn sum_of(bytes: &[u8]) -> Check {
    Check::of_body(std::iter::once(bytes))
}

fn all(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &[u8]) {
    // A URL may hold letters that no header holds as they are; what comes before a database's name is not compared.
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
