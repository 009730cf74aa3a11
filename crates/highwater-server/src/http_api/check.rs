//! Whether a request arrived as it was sent, and the checksum that tells the client the same of the answer
//! ([`highwater_wire::Check`]).
//!
//! A request without any of the three headers is not checked: other programs, and older clients, know nothing of
//! them. One that has only some of them has lost the others on its way.

use axum::body::HttpBody;
use axum::response::Response;
use highwater_ltx::planted;
use highwater_wire::{BODY, CHECK, Check, NO_BODY, OWN_CHECKS, PATH, arrived_as_sent};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::Failure;
use super::sync::length;

/// What a request says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// Nothing.
    Unsaid,
    /// That there is none.
    Nothing,
    /// There is one, which has checksums of its own.
    Body,
    /// This is its checksum.
    Sum(Check),
}

impl Announced {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(BODY).and_then(|value| value.to_str().ok()) {
            None => Self::Unsaid,
            Some(NO_BODY) => Self::Nothing,
            Some(text) => text.parse().map_or(Self::Body, Self::Sum),
        }
    }

    /// Whether a body in these pieces can be the one that was announced.
    pub(crate) fn fits<'b>(self, pieces: impl Iterator<Item = &'b [u8]> + Clone) -> bool {
        let is_empty = || pieces.clone().all(<[u8]>::is_empty);
        match self {
            Self::Unsaid => true,
            Self::Nothing => is_empty(),
            Self::Body => !is_empty(),
            Self::Sum(sum) => Check::of_body(pieces) == sum,
        }
    }
}

/// The checksum that a request has.
pub(super) fn named(headers: &HeaderMap) -> Option<Check> {
    headers.get(CHECK)?.to_str().ok()?.trim().parse().ok()
}

/// Refuses a request that is not what was sent.
pub(super) fn prove(head: &Parts) -> Result<(), Failure> {
    let headers = &head.headers;
    if ![CHECK, BODY, PATH].iter().any(|name| headers.contains_key(*name)) {
        return Ok(());
    }
    let found = Check::of_request(head.method.as_str(), all(headers));
    if named(headers) != Some(found) && !planted("request-head-not-compared") {
        return Err(Failure::damaged("its headers are not those that were sent"));
    }
    // Who waits for such a body waits for ever.
    if Announced::of(headers) == Announced::Nothing && length(headers).is_some_and(|length| length > 0) {
        return Err(Failure::damaged("it was sent without a body"));
    }
    let arrived = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let sent = headers.get(PATH).map(HeaderValue::as_bytes).unwrap_or_default();
    if !arrived_as_sent(sent, arrived.as_bytes()) {
        return Err(Failure::damaged(format!(
            "it was sent for {} and came for {}, which is not the end of that",
            super::shortened(&String::from_utf8_lossy(sent)),
            super::shortened(arrived)
        )));
    }
    Ok(())
}

/// Refuses a body that is not what was sent.
pub(super) fn prove_body(headers: &HeaderMap, body: &[u8]) -> Result<(), Failure> {
    if Announced::of(headers).fits(std::iter::once(body)) {
        Ok(())
    } else {
        Err(Failure::damaged("its body is not the one that was sent"))
    }
}

/// Says what the answer's body is.
pub(super) fn announce(headers: &mut HeaderMap, body: &[u8]) {
    insert(headers, BODY, Check::of_body(std::iter::once(body)));
}

/// Gives an answer its checksum, when everything else is in it.
pub(super) fn seal(response: &mut Response, request: Option<Check>) {
    let body = if response.body().is_end_stream() { NO_BODY } else { OWN_CHECKS };
    let status = response.status().as_u16();
    let headers = response.headers_mut();
    headers.entry(BODY).or_insert(HeaderValue::from_static(body));
    let check = Check::of_answer(request, status, all(headers));
    insert(headers, CHECK, check);
}

fn insert(headers: &mut HeaderMap, name: &'static str, check: Check) {
    // Sixteen digits: this cannot fail.
    if let Ok(value) = HeaderValue::try_from(check.to_string()) {
        headers.insert(name, value);
    }
}

fn all(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}
