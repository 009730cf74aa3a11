//! `POST /DB/v1/query`: one statement that only reads, on the database as it was at any retained position.
//!
//! The statement comes from somebody who may read the database and no more, so everything about it is
//! bounded: how many run at once, for how long, and what they take and answer
//! ([`highwater_sqlite::query`]). It reads the pages that it needs; the database is never copied.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use highwater_ltx::Place;
use highwater_sqlite::query::{Cut, Error as QueryError, Limits};
use highwater_wire::{DbName, ErrorCode, QueryAnswer, QueryCut, QueryRequest, SqlValue};
use http::HeaderMap;
use rusqlite::types::ValueRef;

use super::query::Query;
use super::read::{chosen, existing, gone};
use super::sync::{encoding, position_headers};
use super::{App, Failure, check, json, note};
use crate::metrics::Did;
use crate::push::{self, Encoding};
use crate::share::Charged;

/// The largest body of a request, in bytes.
const LARGEST_BODY: usize = 256 << 10;
/// The most rows in an answer.
const ROWS: usize = 10_000;
/// The most bytes of values in an answer.
const BYTES: usize = 8 << 20;
/// What a query takes in memory, in bytes: pages that it read, SQLite's caches, the answer.
const MEMORY: u64 = 24 << 20;
/// How much longer than its time a query may take to notice that it is over.
const SLACK: Duration = Duration::from_secs(5);

pub(super) async fn query(
    app: &App,
    name: &DbName,
    headers: &HeaderMap,
    body: &mut Option<Body>,
) -> Result<Response, Failure> {
    if encoding(headers)? != Encoding::Identity {
        return Err(Failure::bad_request("the body of a query is plain JSON, not compressed"));
    }
    let limits = &app.context.limits;
    let charge = app.context.shares.incoming.charge(u64::MAX);
    let body = body.take().unwrap_or_default();
    let body = push::read_whole(body, limits.idle_timeout, LARGEST_BODY, &charge).await?;
    check::prove_body(headers, &body)?;
    let request: QueryRequest = serde_json::from_slice(&body).map_err(|error| {
        Failure::bad_request(format!(
            "the body must be JSON like {{\"sql\":\"SELECT 1\",\"at\":\"1/9\"}}: {error}"
        ))
    })?;
    let db = existing(app, name).await?;
    let txid = chosen(&db, &moment(request.at)?)?;
    let Some(place) = app.context.shares.query().await else {
        app.context.metrics.limited("queries");
        return Err(Failure::unavailable("the server runs as many queries as it does at once"));
    };
    let charge = app.context.shares.outgoing.charge(MEMORY);
    charge.cover(MEMORY).await?;
    let entry = db.read(|log| log.entry(txid).cloned()).flatten().ok_or_else(|| gone(&db))?;
    let state = db.state(txid, &Arc::default()).ok_or_else(|| gone(&db))?;
    note(|facts| {
        facts.head = Some((entry.position, entry.txid));
        facts.did = Some(Did::Pulled);
    });
    let within = Limits { time: limits.query_timeout, rows: ROWS, bytes: BYTES };
    let work = tokio::task::spawn_blocking(move || {
        // Held for as long as it really runs, whether somebody still waits or not.
        let _place = place;
        highwater_sqlite::query::query(Arc::new(state), &request.sql, &within, value)
    });
    let done = tokio::time::timeout(limits.query_timeout + SLACK, work).await;
    let Ok(done) = done else { return Err(refused(QueryError::TimedOut(within.time))) };
    let found = done.map_err(|error| Failure::internal(&error.to_string()))?.map_err(refused)?;
    let answer = QueryAnswer {
        position: entry.position.into(),
        txid: entry.txid.0,
        time_ms: entry.timestamp_ms,
        columns: found.columns,
        rows: found.rows,
        cut: found.cut.map(|cut| match cut {
            Cut::Rows => QueryCut::Rows,
            Cut::Bytes => QueryCut::Bytes,
        }),
        pages_read: found.pages_read,
    };
    let mut response = json(&answer).map(|body| Charged::body(body, charge));
    position_headers(&mut response, &entry)?;
    Ok(response)
}

/// What a position or a time is as parameters of a URL.
fn moment(at: Option<String>) -> Result<Query, Failure> {
    let Some(at) = at else { return Ok(Query::default()) };
    if at.parse::<Place>().is_ok() {
        return Ok(Query { at: Some(at), ..Query::default() });
    }
    if humantime::parse_rfc3339_weak(&at).is_err() {
        return Err(Failure::bad_request(
            "at must be a position like 1/9 or a time like 2026-01-31T18:30:00Z",
        ));
    }
    Ok(Query { time: Some(at), ..Query::default() })
}

fn value(value: ValueRef<'_>) -> SqlValue {
    match value {
        ValueRef::Null => SqlValue::Null,
        ValueRef::Integer(number) => SqlValue::Integer(number),
        ValueRef::Real(number) => SqlValue::Real(number),
        ValueRef::Text(text) => SqlValue::Text(text.to_vec()),
        ValueRef::Blob(bytes) => SqlValue::Blob(bytes.to_vec()),
    }
}

fn refused(error: QueryError) -> Failure {
    match error {
        QueryError::Wrong(_) | QueryError::NotAllowed(_) => Failure::bad_request(error.to_string()),
        QueryError::TimedOut(_) | QueryError::TooMuch(_) => {
            Failure::new(ErrorCode::TooLarge, error.to_string())
        }
        other => Failure::internal(&crate::error::chain(&other)),
    }
}
