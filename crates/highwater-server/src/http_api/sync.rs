//! `POST /DB/v1/sync`: push and pull at once.

use std::str::FromStr;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use highwater_ltx::{DeviceId, Position};
use highwater_pages::kill_point;
use highwater_wire::{
    BASE, CONFIRM, CONFLICTS, DEVICE, DOUBT, DbName, HEAD, LTX_CONTENT, MERGE, OUTCOME, Outcome, PENDING,
    PENDING_DEVICE, POLICY, TXID, ZSTD,
};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};

use super::access::Caller;
use super::{Announced, App, Failure, header_value, note};
use crate::answer::{self, LtxBody};
use crate::log::{Database, Entry, Sender, SyncRequest, Verdict};
use crate::metrics::Did;
use crate::push::{self, Encoding};

/// The most states that a client may wait for answers for.
const MOST_PENDING: usize = 64;

pub(super) async fn sync(
    app: &App,
    name: &DbName,
    caller: &Caller,
    headers: &HeaderMap,
    body: &mut Option<Body>,
) -> Result<Response, Failure> {
    let base: Option<Position> = header(headers, BASE)?;
    let device: Option<DeviceId> = header(headers, DEVICE)?;
    let encoding = encoding(headers)?;
    let limit = app.context.limits.push_bytes;
    if length(headers).is_some_and(|length| length > limit) {
        return Err(Failure::too_large(limit));
    }
    let db = app.registry.get(name).await?;
    let claim = SyncRequest {
        base,
        device: device.unwrap_or(DeviceId(0)),
        delta: None,
        confirm: headers.contains_key(CONFIRM),
        doubt: headers.contains_key(DOUBT),
        pending: list(headers, PENDING)?,
        sender: match headers.get(PENDING_DEVICE).map(http::HeaderValue::as_bytes) {
            None => Sender::Itself,
            Some(b"*") => Sender::Anybody,
            Some(_) => header(headers, PENDING_DEVICE)?.map_or(Sender::Itself, Sender::Other),
        },
        from_nothing: false,
        policy: header(headers, POLICY)?,
    };
    let body = body.take().unwrap_or_default();
    if base.is_none() && !body.is_end_stream() && !caller.may_create() {
        // Whoever may write may know whether there is a database.
        db.refresh().await?;
        if !db.exists() && !db.is_reserved() {
            app.registry.forget(name);
            return Err(caller.needs_create(name));
        }
    }
    let announced = Announced::of(headers);
    let result = receive_and_sync(&db, (claim, device), body, (encoding, announced)).await;
    if !db.exists() {
        app.registry.forget(name);
    }
    let verdict = result?;
    kill_point("server-sync-answering");
    respond(app, verdict, accepts_zstd(headers)).await
}

async fn receive_and_sync(
    db: &Arc<Database>,
    (request, device): (SyncRequest, Option<DeviceId>),
    body: Body,
    (encoding, announced): (Encoding, Announced),
) -> Result<Verdict, Failure> {
    // Held until the push is done.
    let charge = db.context.shares.incoming.charge(db.context.limits.body_memory as u64);
    let delta = push::receive(db, body, (encoding, announced), request.claim(), &charge).await?;
    if (delta.is_some() || !request.pending.is_empty()) && device.is_none() {
        return Err(Failure::bad_request(format!(
            "a push says which copy it comes from: the header {DEVICE} is missing"
        )));
    }
    let sent = delta.as_ref().map_or(0, |delta| delta.pages.len());
    note(|facts| (facts.device, facts.frames_in) = (device, sent as u64));
    let verdict = db.sync(SyncRequest { delta, ..request }).await?;
    note(|facts| {
        facts.head = Some((verdict.head.position, verdict.head.txid));
        facts.frames_out = verdict.send.as_ref().map_or(0, |images| images.list.len() as u64);
        facts.did = Some(match verdict.outcome {
            Outcome::Pushed => Did::Pushed,
            Outcome::Pulled => Did::Pulled,
            Outcome::Merged => Did::Merged,
            _ => Did::UpToDate,
        });
    });
    Ok(verdict)
}

async fn respond(app: &App, verdict: Verdict, zstd: bool) -> Result<Response, Failure> {
    let Verdict { outcome, head, from, send, merge } = verdict;
    let mut response = match send {
        None => Response::new(Body::empty()),
        Some(images) => {
            let header = answer::header(&head, &images, from);
            ltx_response(answer::ltx_body(&app.context, header, images, zstd).await?)?
        }
    };
    response.headers_mut().insert(OUTCOME, header_value(outcome.as_str())?);
    if let Some(merge) = merge {
        response.headers_mut().insert(MERGE, merge.txid.0.into());
        response.headers_mut().insert(CONFLICTS, merge.conflicts.into());
    }
    position_headers(&mut response, &head)?;
    Ok(response)
}

/// An answer that carries an LTX file.
pub(super) fn ltx_response(file: LtxBody) -> Result<Response, Failure> {
    let mut response = Response::new(file.body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, header_value(LTX_CONTENT)?);
    if file.zstd {
        headers.insert(CONTENT_ENCODING, header_value(ZSTD)?);
    }
    if let Some(size) = file.size {
        headers.insert(CONTENT_LENGTH, size.into());
    }
    Ok(response)
}

/// Says which position an answer is about.
pub(super) fn position_headers(response: &mut Response, entry: &Entry) -> Result<(), Failure> {
    response.headers_mut().insert(HEAD, header_value(&entry.position.to_string())?);
    response.headers_mut().insert(TXID, entry.txid.0.into());
    Ok(())
}

/// The value of one of Highwater's headers.
pub(super) fn header<T: FromStr<Err = highwater_ltx::InvalidUnit>>(
    headers: &HeaderMap,
    name: &str,
) -> Result<Option<T>, Failure> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Failure::bad_request(format!("the header {name} is given twice")));
    }
    let text =
        value.to_str().map_err(|_| Failure::bad_request(format!("the header {name} is not plain text")))?;
    text.parse().map(Some).map_err(|error: highwater_ltx::InvalidUnit| {
        Failure::bad_request(format!("the header {name}: {error}"))
    })
}

/// The values of one of Highwater's headers that is a list, separated by commas.
fn list<T: FromStr<Err = highwater_ltx::InvalidUnit>>(
    headers: &HeaderMap,
    name: &str,
) -> Result<Vec<T>, Failure> {
    let mut values = Vec::new();
    for value in headers.get_all(name) {
        let text = value
            .to_str()
            .map_err(|_| Failure::bad_request(format!("the header {name} is not plain text")))?;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if values.len() == MOST_PENDING {
                return Err(Failure::bad_request(format!(
                    "the header {name} has more than {MOST_PENDING} values"
                )));
            }
            values.push(part.parse().map_err(|error: highwater_ltx::InvalidUnit| {
                Failure::bad_request(format!("the header {name}: {error}"))
            })?);
        }
    }
    Ok(values)
}

/// How the body of a request is compressed.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, Failure> {
    match headers.get(CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Encoding::Identity),
        Some(b"zstd") => Ok(Encoding::Zstd),
        Some(_) => Err(Failure::bad_request("the body's Content-Encoding must be zstd or none")),
    }
}

/// The size of the body, when the request says it.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the client reads zstd.
pub(super) fn accepts_zstd(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case(ZSTD))
            && !parts.any(|weight| matches!(weight, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}
