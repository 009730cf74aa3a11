//! The requests of libSQL's clients: `/DB/info`, `/DB/export/G`, `/DB/sync/G/START/END[/BATON]`.
//!
//! A client takes 400 with a generation for the end of a pull, retries 5xx, and shows the body of anything
//! else as its error. So what goes wrong here is told as elsewhere, except that a pull is never answered
//! with another 400.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use highwater_ltx::{FrameNo, Generation};
use highwater_wire::{DbName, ErrorCode};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use super::access::{Caller, Need};
use super::path::{self, Libsql};
use super::track::note;
use super::{App, Failure, allowed, json as json_response, not_found};
use crate::libsql::{self, Batch, FRAME, Outcome, Pull, Request};
use crate::log::{Database, LIBSQL};
use crate::metrics::Did;
use crate::share::Charged;
use crate::{answer, push};

/// A client that has its data encrypted at the server sends the key in this header.
const ENCRYPTION_KEY: &str = "x-turso-encryption-key";

/// Does what a libSQL client asks for.
pub(super) async fn libsql(
    app: &App,
    head: &Parts,
    name: Option<DbName>,
    verb: Libsql<'_>,
    body: &mut Option<Body>,
) -> Result<Response, Failure> {
    let name = match name {
        Some(name) => name,
        None => of_host(app, head)?,
    };
    let pushes = match verb {
        Libsql::Sync { .. } if head.method == Method::POST => true,
        _ if matches!(head.method, Method::GET | Method::HEAD) => false,
        Libsql::Sync { .. } => return Err(Failure::method_not_allowed("GET, HEAD, POST")),
        Libsql::Info | Libsql::Export(_) => return Err(Failure::method_not_allowed("GET, HEAD")),
    };
    let caller = allowed(app, head, if pushes { Need::Write(&name) } else { Need::Read(&name) })?;
    if head.headers.get(ENCRYPTION_KEY).is_some_and(|key| !key.is_empty()) {
        return Err(Failure::new(
            ErrorCode::CorruptBody,
            "this server does not encrypt databases with a client's key; leave the remote encryption key out",
        ));
    }
    let db = match app.registry.get(&name).await {
        Ok(db) => db,
        Err(error) if pushes => return Err(error.into()),
        Err(error) => return Err(try_again(error.into())),
    };
    let answer = match verb {
        Libsql::Info => info(&db).await.map_err(try_again),
        Libsql::Export(generation) => export(&db, generation).await.map_err(try_again),
        Libsql::Sync { generation, start, .. } if !pushes => {
            pull(&db, &caller, generation, start).await.map_err(try_again)
        }
        Libsql::Sync { generation, start, end, baton } => {
            let body = body.take().unwrap_or_default();
            post(&db, &caller, (generation, start, end, baton), body).await
        }
    };
    if !db.exists() {
        app.registry.forget(&name);
    }
    answer
}

/// Clients ask again after every failure of a server, except 500 to a pull.
fn try_again(failure: Failure) -> Failure {
    if failure.code() == ErrorCode::Internal { Failure::unavailable(failure.message()) } else { failure }
}

fn of_host(app: &App, head: &Parts) -> Result<DbName, Failure> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| head.uri.authority().map(http::uri::Authority::as_str));
    host.filter(|_| app.context.libsql.host_label).and_then(path::of_host).ok_or_else(|| {
        not_found("the path names no database; a libSQL client's URL ends with its name: http://HOST/NAME")
    })
}

async fn info(db: &Database) -> Result<Response, Failure> {
    let generation = libsql::newest(db).await?;
    Ok(json_response(&json!({ "current_generation": generation.0 })))
}

async fn export(db: &Arc<Database>, generation: Generation) -> Result<Response, Failure> {
    let Some(export) = libsql::export(db, generation).await? else {
        return Err(Failure::new(
            ErrorCode::UnknownPosition,
            format!(
                "the beginning of generation {generation} of {} is not kept; ask `info` for the newest one",
                db.name
            ),
        ));
    };
    octets(db, export.size, export.body).await
}

async fn pull(
    db: &Arc<Database>,
    caller: &Caller,
    generation: Generation,
    start: FrameNo,
) -> Result<Response, Failure> {
    if start == FrameNo(0) {
        return Err(Failure::new(ErrorCode::UnknownPosition, "frames are numbered from 1"));
    }
    match libsql::pull(db, generation, start).await? {
        Pull::Frames(frames, body) => {
            note(|facts| (facts.did, facts.frames_out) = (Some(Did::Pulled), frames));
            octets(db, frames * FRAME as u64, body).await
        }
        Pull::End(newest) => {
            note(|facts| facts.did = Some(Did::UpToDate));
            let mut response = json_response(&json!({ "generation": newest.0 }));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            Ok(response)
        }
        Pull::Unproven(at) => {
            tracing::warn!(
                db = %db.name, protocol = "libsql", %caller, generation = generation.0, start = start.0,
                "a client asks for frames after a place that this history does not have: its database or its `-info` file \
                 belongs to another history. If it has rows that are nowhere else, write one more and sync: then it sends \
                 all it has. Else remove its files and open it anew"
            );
            Err(Failure::new(
                ErrorCode::UnknownBase,
                format!(
                    "{} has no state at generation {}, frame {}: this copy belongs to another history. Write to it and sync, \
                     and all of it is sent; or remove its files and open it anew",
                    db.name, at.generation, at.frame
                ),
            ))
        }
    }
}

async fn post(
    db: &Arc<Database>,
    caller: &Caller,
    (generation, first, end, baton): (Generation, FrameNo, FrameNo, Option<&str>),
    body: Body,
) -> Result<Response, Failure> {
    let limits = &db.context.limits;
    // Held until the push is done.
    let charge = db.context.shares.incoming.charge(u64::MAX);
    let body = push::read_whole(body, limits.idle_timeout, limits.body_memory, &charge).await?;
    let batch = Batch::parse(body).map_err(|what| Failure::new(ErrorCode::CorruptBody, what))?;
    if first == FrameNo(0) || end.0.checked_sub(first.0) != Some(batch.len() as u64) {
        return Err(Failure::new(
            ErrorCode::CorruptBody,
            format!("the path announces frames {first} to {end} (exclusive), but {} came", batch.len()),
        ));
    }
    if !caller.may_create() {
        db.refresh().await?;
        if !db.exists() && !db.is_reserved() {
            return Err(caller.needs_create(&db.name));
        }
    }
    let frames = batch.len();
    note(|facts| facts.frames_in = frames as u64);
    let client = caller.to_string();
    let pushed = libsql::push(db, Request { generation, first, batch, baton, client: &client }).await?;
    let (now, durable) = (pushed.generation, pushed.max_frame_no);
    let head = db.read(|log| (log.head().position, log.head().txid));
    note(|facts| (facts.did, facts.device, facts.head) = (did(pushed.outcome), Some(LIBSQL), head));
    if pushed.outcome == Outcome::Conflict {
        let why = pushed.why.as_deref().unwrap_or_default();
        tracing::warn!(
            db = %db.name, protocol = "libsql", device = %caller, generation = generation.0, first = first.0, frames,
            head_generation = now, durable_frame_num = durable, why,
            "conflict: this device and another one both wrote since frame {durable} of generation {now}, and that cannot be \
             merged: {why}. Its database has all of it, nothing was lost; `highwater conflicts list` shows it. Remove the reason and let it sync again; or copy \
             the device's new rows from its database, remove its database and `-info` files, open it anew, and write the \
             rows again"
        );
    } else if pushed.outcome == Outcome::Merged {
        tracing::info!(
            db = %db.name, protocol = "libsql", device = %caller, generation = generation.0, first = first.0, frames,
            detour = now, durable_frame_num = durable, "merged what this device wrote while others did"
        );
    } else {
        tracing::debug!(
            db = %db.name, outcome = ?pushed.outcome, generation = now, first = first.0, frames, durable_frame_num = durable,
            "took in a batch"
        );
    }
    Ok(json_response(&pushed))
}

/// What a push did, for the metrics.
fn did(outcome: Outcome) -> Option<Did> {
    match outcome {
        Outcome::Known => Some(Did::UpToDate),
        Outcome::Appended => Some(Did::Pushed),
        Outcome::Merged => Some(Did::Merged),
        Outcome::Staged | Outcome::Aside => Some(Did::Staged),
        Outcome::Conflict => Some(Did::Conflict),
        Outcome::Again => None,
    }
}

/// A body of raw bytes.
async fn octets(db: &Database, size: u64, body: Body) -> Result<Response, Failure> {
    let charge = db.context.shares.outgoing.charge(db.context.limits.body_memory as u64);
    charge.cover(size.min(answer::STREAMED)).await?;
    let mut response = Response::new(Charged::body(body, charge));
    response.headers_mut().insert(CONTENT_LENGTH, size.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}
