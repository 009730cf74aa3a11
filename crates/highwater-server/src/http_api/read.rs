//! Requests that only read: about the database, its history, its pages at any retained position.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::response::Response;
use highwater_ltx::{PageNo, Place, TxId};
use highwater_pages::{PageHash, StateSum};
use highwater_wire::{DatabaseInfo, DbName, ErrorCode, LogEntry, LogPage, SUMS_CONTENT};
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::query::Query;
use super::sync::{accepts_zstd, ltx_response, position_headers};
use super::{App, Failure, header_value, json, note};
use crate::log::{Database, Entry, Log};
use crate::metrics::Did;
use crate::share::Charged;
use crate::{Error, answer};

/// Response: the page size of the database that the sums are of, in bytes.
const PAGE_SIZE: &str = "highwater-page-size";
/// Response: how many sums there are.
const PAGE_COUNT: &str = "highwater-page-count";

/// Log entries in an answer, unless the request says how many.
const LIMIT: usize = 100;
/// The most log entries in an answer.
const MOST: usize = 10_000;

/// Opens a database that must exist.
pub(super) async fn existing(app: &App, name: &DbName) -> Result<Arc<Database>, Failure> {
    let db = app.registry.get(name).await?;
    db.refresh().await?;
    if db.exists() {
        return Ok(db);
    }
    app.registry.forget(name);
    Err(Failure::unknown_database(name.as_str()))
}

/// `GET /DB/v1`
pub(super) async fn info(app: &App, name: &DbName, query: &Query) -> Result<Response, Failure> {
    only(query, &[])?;
    let db = existing(app, name).await?;
    let info = db.read(|log| {
        let head = log.head();
        let info = DatabaseInfo {
            name: name.to_string(),
            head: head.position.into(),
            txid: head.txid.0,
            page_size: log.page_size.get(),
            page_count: head.page_count.0,
            bytes: head.page_count.bytes(log.page_size),
            created_ms: log.oldest().timestamp_ms,
            updated_ms: head.timestamp_ms,
        };
        (info, head.clone())
    });
    let (info, head) = info.ok_or_else(|| Failure::unknown_database(name.as_str()))?;
    let mut response = json(&info);
    position_headers(&mut response, &head)?;
    Ok(response)
}

/// `GET /DB/v1/log?after=G/F&limit=N`
pub(super) async fn log(app: &App, name: &DbName, query: &Query) -> Result<Response, Failure> {
    only(query, &["after", "limit"])?;
    let limit = query.limit(LIMIT, MOST)?;
    let db = existing(app, name).await?;
    let page = db.read(|log| {
        let entries = match &query.after {
            None => log.all(),
            Some(after) => log.after(at(log, after)?.txid),
        };
        let shown = entries.iter().take(limit).map(log_entry).collect();
        Ok(LogPage { entries: shown, more: entries.len() > limit })
    });
    page.ok_or_else(|| Failure::unknown_database(name.as_str()))?.map(|page| json(&page))
}

fn log_entry(entry: &Entry) -> LogEntry {
    LogEntry {
        position: entry.position.into(),
        txid: entry.txid.0,
        device: format!("{:016x}", entry.node_id),
        time_ms: entry.timestamp_ms,
        pages: entry.frames,
        page_count: entry.page_count.0,
        bytes: entry.file.as_ref().map_or(0, |file| file.size),
    }
}

/// `GET /DB/v1/snapshot[?at=G/F|?time=RFC3339]`
pub(super) async fn snapshot(
    app: &App,
    name: &DbName,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    only(query, &["at", "time"])?;
    let db = existing(app, name).await?;
    let txid = chosen(&db, query)?;
    let (entry, images) = db.images_at(txid).await?.ok_or_else(|| gone(&db))?;
    note(|facts| {
        facts.head = Some((entry.position, entry.txid));
        facts.frames_out = images.list.len() as u64;
        facts.did = Some(Did::Pulled);
    });
    let header = answer::header(&entry, &images, None);
    let body = answer::ltx_body(&app.context, header, images, accepts_zstd(headers)).await?;
    let mut response = ltx_response(body)?;
    position_headers(&mut response, &entry)?;
    Ok(response)
}

/// `GET /DB/v1/sums[?at=G/F]`
pub(super) async fn sums(app: &App, name: &DbName, query: &Query) -> Result<Response, Failure> {
    only(query, &["at", "time"])?;
    let db = existing(app, name).await?;
    let txid = chosen(&db, query)?;
    let (entry, images) = db.images_at(txid).await?.ok_or_else(|| gone(&db))?;
    let size = images.page_size;
    // A page's hash, and where the page stands, while they are gathered.
    let charge = app.context.shares.outgoing.charge(u64::MAX);
    charge.cover(u64::from(entry.page_count.0) * 24).await?;
    let state = |hashes: &[(PageNo, PageHash)]| {
        let mut sum = StateSum::EMPTY;
        hashes.iter().for_each(|(_, hash)| sum.add(*hash));
        sum.state(entry.page_count, size)
    };
    let mut hashes = Vec::new();
    if db.read(|log| log.head().txid) == Some(txid) {
        // What is remembered of the head spares reading it; should the head have moved on
        // meanwhile, the state tells.
        hashes = db.head_hashes(entry.page_count.data_pages(size)).await?;
    }
    if state(&hashes) != entry.position.state {
        let found = Arc::new(images).hashes(&app.context.store).await?;
        hashes = found.into_iter().map(|(image, hash)| (image.page, hash)).collect();
    }
    if state(&hashes) != entry.position.state {
        let object = crate::paths::pushes(&db.name);
        return Err(Error::damaged(
            &object,
            format!("the pages at {} are not those of its state", entry.position),
        )
        .into());
    }
    let mut table = vec![0; entry.page_count.0 as usize * 16];
    for (page, hash) in hashes {
        let at = (page.0 as usize).saturating_sub(1) * 16;
        if let Some(place) = table.get_mut(at..at + 16) {
            place.copy_from_slice(&hash.0.to_be_bytes());
        }
    }
    let mut response = Response::new(Charged::body(Body::from(table), charge));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, header_value(SUMS_CONTENT)?);
    headers.insert(PAGE_SIZE, size.get().into());
    headers.insert(PAGE_COUNT, entry.page_count.0.into());
    position_headers(&mut response, &entry)?;
    Ok(response)
}

/// The position that a request names; the head when it names none.
pub(super) fn chosen(db: &Database, query: &Query) -> Result<TxId, Failure> {
    let chosen = db.read(|log| match (&query.at, &query.time) {
        (Some(_), Some(_)) => Err(Failure::bad_request("give either at or time")),
        (None, None) => Ok(log.head().txid),
        (Some(place), None) => at(log, place).map(|entry| entry.txid),
        (None, Some(time)) => at_time(log, time).map(|entry| entry.txid),
    });
    chosen.ok_or_else(|| Failure::unknown_database(db.name.as_str()))?
}

fn at<'a>(log: &'a Log, place: &str) -> Result<&'a Entry, Failure> {
    let place: Place =
        place.parse().map_err(|error: highwater_ltx::InvalidUnit| Failure::bad_request(error.to_string()))?;
    log.at(place).ok_or_else(|| unknown(log, &format!("no push ended at {place}")))
}

fn at_time<'a>(log: &'a Log, time: &str) -> Result<&'a Entry, Failure> {
    let parsed = humantime::parse_rfc3339_weak(time)
        .map_err(|_| Failure::bad_request("time must be like 2026-01-31T18:30:00Z"))?;
    let since = parsed.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let ms = i64::try_from(since).unwrap_or(i64::MAX);
    log.at_time(ms).ok_or_else(|| unknown(log, &format!("nothing is kept of {time}")))
}

fn unknown(log: &Log, what: &str) -> Failure {
    let time = |entry: &Entry| {
        let ms = u64::try_from(entry.timestamp_ms).unwrap_or(0);
        humantime::format_rfc3339_millis(UNIX_EPOCH + std::time::Duration::from_millis(ms)).to_string()
    };
    let (oldest, head) = (log.oldest(), log.head());
    let message = format!(
        "{what}; kept are {} ({}) to {} ({}), see the log",
        oldest.position.place(),
        time(oldest),
        head.position.place(),
        time(head)
    );
    Failure::new(ErrorCode::UnknownPosition, message)
}

/// The position is known, but its pages are not.
pub(super) fn gone(db: &Database) -> Failure {
    db.read(|log| unknown(log, "the pages of this position are not kept"))
        .unwrap_or_else(|| Failure::unknown_database(db.name.as_str()))
}

/// Refuses parameters that this request does not have.
pub(super) fn only(query: &Query, known: &[&str]) -> Result<(), Failure> {
    let given = [
        ("at", &query.at),
        ("time", &query.time),
        ("after", &query.after),
        ("limit", &query.limit),
        ("all", &query.all),
    ];
    match given.iter().find(|(name, value)| value.is_some() && !known.contains(name)) {
        Some((name, _)) => Err(Failure::bad_request(format!("{name} means nothing here"))),
        None => Ok(()),
    }
}
