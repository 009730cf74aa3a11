//! `/DB/v1/conflicts`: what merges could not keep as it was.
//!
//! | request | answer |
//! |---|---|
//! | `GET /DB/v1/conflicts?after=TXID&limit=N&all=1` | merges, newest first; without `all` those with conflicts that nobody has seen |
//! | `GET /DB/v1/conflicts/TXID` | one merge |
//! | `POST /DB/v1/conflicts/TXID/resolve` | marks it as seen |
//! | `POST /DB/v1/conflicts/TXID/rebased` | adds ids that rows got on the device ([`highwater_wire::Rebased`]) |
//!
//! The first answer of a list also has the pushes of libSQL clients that were refused; they are named by an id (`r…`)
//! where merges are by TXID.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use highwater_ltx::TxId;
use highwater_wire::{
    Conflict, ConflictKind, ConflictPage, DEVICE, DbName, ErrorCode, MergeRecord, Rebased, RefusedPush,
};
use http::HeaderMap;

use super::query::Query;
use super::read::{existing, only};
use super::sync::{encoding, header};
use super::{App, Failure, check, json, path};
use crate::log::{Database, Log, MergeName, RebasedName, RefusedName};
use crate::paths;
use crate::push::{self, Encoding};

/// Merges in an answer, unless the request says how many.
const LIMIT: usize = 20;
/// The most merges in an answer.
const MOST: usize = 1000;
/// Records are read until an answer has so many conflicts; at least one record is in it.
const ENOUGH: usize = 10_000;
/// The largest body of a request, in bytes: a thousand rows, the largest of which stay out.
const LARGEST_BODY: usize = 4 << 20;
/// The longest sentence of a conflict that a device tells, in bytes.
const LONGEST_MESSAGE: usize = 2000;

/// `rest` is what follows `conflicts` in the path.
pub(super) async fn conflicts(
    app: &App,
    name: &DbName,
    rest: &str,
    query: &Query,
    (headers, body): (&HeaderMap, &mut Option<Body>),
) -> Result<Response, Failure> {
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [""] => list(&*existing(app, name).await?, query).await,
        ["", txid] => {
            only(query, &[])?;
            let db = existing(app, name).await?;
            if let Some(name) = refused(&db, txid)? {
                return Ok(json(&refused_record(&db, &name).await?));
            }
            Ok(json(&record(&db, &merge(&db, txid)?).await?))
        }
        ["", txid, "resolve"] => {
            only(query, &[])?;
            let db = existing(app, name).await?;
            if let Some(name) = refused(&db, txid)? {
                db.see_refused(&name).await?;
                return Ok(json(&refused_record(&db, &name).await?));
            }
            resolve(&db, &merge(&db, txid)?).await
        }
        ["", txid, "rebased"] => {
            only(query, &[])?;
            let db = existing(app, name).await?;
            let merge = merge(&db, txid)?;
            rebased(app, &db, &merge, headers, body).await
        }
        _ => Err(path::nothing_here()),
    }
}

async fn list(db: &Database, query: &Query) -> Result<Response, Failure> {
    only(query, &["after", "limit", "all"])?;
    let limit = query.limit(LIMIT, MOST)?;
    let before = match &query.after {
        None => u64::MAX,
        Some(after) => {
            after.parse().map_err(|_| Failure::bad_request("after must be the number of a merge"))?
        }
    };
    let all = query.all.as_deref().is_some_and(|all| all != "0");
    let refused = if query.after.is_none() { refused_list(db, all, limit).await? } else { Vec::new() };
    let wanted: Vec<MergeName> = db
        .read(|log| {
            let merges = log.merges.newest_first().filter(|merge| merge.txid.0 < before);
            merges
                .filter(|merge| all || told(merge, log) && !log.merges.is_seen(merge.txid))
                .take(limit + 1)
                .copied()
                .collect()
        })
        .unwrap_or_default();
    let (mut merges, mut found, mut seen) = (Vec::new(), 0, 0);
    for merge in wanted.iter().take(limit) {
        if found >= ENOUGH {
            break;
        }
        seen += 1;
        match shown(db, merge).await {
            Ok(Some(record)) if record.resolved && !all => {}
            Ok(Some(record)) => {
                found += record.conflicts.len();
                merges.push(record);
            }
            // One that cannot be read does not hide the others.
            Ok(None) => {}
            Err(error) => tracing::error!(
                db = %db.name, txid = merge.txid.0, error = %crate::error::chain(&error),
                "the record of a merge cannot be read"
            ),
        }
    }
    let more = seen < wanted.len();
    Ok(json(&ConflictPage { refused, merges, more }))
}

/// Whether there is something to tell of a merge.
fn told(merge: &MergeName, log: &Log) -> bool {
    merge.conflicts > 0 || log.rebased.any(merge.txid)
}

/// The newest refused pushes.
async fn refused_list(db: &Database, all: bool, limit: usize) -> Result<Vec<RefusedPush>, Failure> {
    let names = db.read(|log| log.refusals.newest_first(all)).unwrap_or_default();
    let mut found = Vec::new();
    for name in names.iter().take(limit) {
        match db.refused(name).await {
            Ok(record) => found.extend(record),
            Err(error) => tracing::error!(
                db = %db.name, id = name.id(), error = %crate::error::chain(&error),
                "the record of a refused push cannot be read"
            ),
        }
    }
    Ok(found)
}

/// The refused push of that id; `None` when it is no such id.
fn refused(db: &Database, id: &str) -> Result<Option<RefusedName>, Failure> {
    let Some(salts) = RefusedName::salts_of(id) else { return Ok(None) };
    let found = db.read(|log| log.refusals.get(salts)).flatten();
    found.map(Some).ok_or_else(|| no_record("this refused push"))
}

async fn refused_record(db: &Database, name: &RefusedName) -> Result<RefusedPush, Failure> {
    db.refused(name).await?.ok_or_else(|| no_record("this refused push"))
}

fn no_record(of: &str) -> Failure {
    Failure::new(
        ErrorCode::UnknownPosition,
        format!("there is no record of {of} (any more); the list has those there are"),
    )
}

/// The merge of that number.
fn merge(db: &Database, txid: &str) -> Result<MergeName, Failure> {
    let number =
        txid.parse().map_err(|_| Failure::bad_request("a merge is named by its number in the log"))?;
    db.read(|log| log.merges.get(TxId(number)).copied()).flatten().ok_or_else(|| {
        let message =
            format!("no merge of this database has the number {number}; the list has those there are");
        Failure::new(ErrorCode::UnknownPosition, message)
    })
}

async fn record(db: &Database, merge: &MergeName) -> Result<MergeRecord, Failure> {
    shown(db, merge).await?.ok_or_else(|| no_record("this merge"))
}

/// A record with what devices told of the merge.
async fn shown(db: &Database, merge: &MergeName) -> crate::Result<Option<MergeRecord>> {
    let mut record = db.record(merge).await?;
    if let Some(record) = &mut record {
        record.conflicts.extend(db.rebased(merge).await);
    }
    Ok(record)
}

/// Takes what a device tells of a merge that it was part of.
async fn rebased(
    app: &App,
    db: &Database,
    merge: &MergeName,
    headers: &HeaderMap,
    body: &mut Option<Body>,
) -> Result<Response, Failure> {
    if encoding(headers)? != Encoding::Identity {
        return Err(Failure::bad_request("this body is plain JSON, not compressed"));
    }
    let device = header(headers, DEVICE)?
        .ok_or_else(|| Failure::bad_request(format!("the header {DEVICE} has to say whose ids they are")))?;
    let charge = app.context.shares.incoming.charge(u64::MAX);
    let (body, idle) = (body.take().unwrap_or_default(), app.context.limits.idle_timeout);
    let body = push::read_whole(body, idle, LARGEST_BODY, &charge).await?;
    check::prove_body(headers, &body)?;
    let told: Rebased = serde_json::from_slice(&body).map_err(|error| {
        Failure::new(ErrorCode::CorruptBody, format!("the body is not what it should be: {error}"))
    })?;
    let state =
        told.state.parse().map_err(|_| Failure::bad_request("`state` must be a hash of 32 hex digits"))?;
    let plain = |conflict: &Conflict| {
        conflict.kind == ConflictKind::Renumbered
            && conflict.sql.is_none()
            && conflict.message.len() <= LONGEST_MESSAGE
    };
    if !told.conflicts.iter().all(plain) || told.conflicts.len() > Rebased::MOST {
        let most = Rebased::MOST;
        return Err(Failure::bad_request(format!("only ids that changed can be told, and {most} at once")));
    }
    if device != merge.device {
        return Err(Failure::bad_request("that merge was of another device"));
    }
    if !db.add_rebased(RebasedName { txid: merge.txid, device, state }, &told).await? {
        return Err(Failure::bad_request("this merge was told of more often than any device has to"));
    }
    Ok(json(&record(db, merge).await?))
}

async fn resolve(db: &Arc<Database>, merge: &MergeName) -> Result<Response, Failure> {
    let object = paths::seen(&db.name, merge.txid);
    // That it is there already is as good.
    db.context.store.create(&object, Bytes::new()).await?;
    db.see(merge.txid);
    Ok(json(&record(db, merge).await?))
}
