//! `/DB/v1/conflicts`: what merges could not keep as it was.
//!
//! | request | answer |
//! |---|---|
//! | `GET /DB/v1/conflicts?after=TXID&limit=N&all=1` | merges, newest first; without `all` those with conflicts that nobody has seen |
//! | `GET /DB/v1/conflicts/TXID` | one merge |
//! | `POST /DB/v1/conflicts/TXID/resolve` | marks it as seen |

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use highwater_ltx::TxId;
use highwater_wire::{ConflictPage, DbName, ErrorCode, MergeRecord};

use super::query::Query;
use super::read::{existing, only};
use super::{App, Failure, json, path};
use crate::log::{Database, MergeName};
use crate::paths;

/// Merges in an answer, unless the request says how many.
const LIMIT: usize = 20;
/// The most merges in an answer.
const MOST: usize = 1000;
/// Records are read until an answer has so many conflicts; at least one record is in it.
const ENOUGH: usize = 10_000;

/// `rest` is what follows `conflicts` in the path.
pub(super) async fn conflicts(
    app: &App,
    name: &DbName,
    rest: &str,
    query: &Query,
) -> Result<Response, Failure> {
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [""] => list(&*existing(app, name).await?, query).await,
        ["", txid] => {
            only(query, &[])?;
            let db = existing(app, name).await?;
            Ok(json(&record(&db, &merge(&db, txid)?).await?))
        }
        ["", txid, "resolve"] => {
            only(query, &[])?;
            let db = existing(app, name).await?;
            resolve(&db, &merge(&db, txid)?).await
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
    let wanted: Vec<MergeName> = db
        .read(|log| {
            let merges = log.merges.newest_first().filter(|merge| merge.txid.0 < before);
            merges
                .filter(|merge| all || (merge.conflicts > 0 && !log.merges.is_seen(merge.txid)))
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
        match db.record(merge).await {
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
    Ok(json(&ConflictPage { merges, more }))
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
    db.record(merge).await?.ok_or_else(|| {
        Failure::new(ErrorCode::UnknownPosition, "the record of this merge is not kept any more")
    })
}

async fn resolve(db: &Arc<Database>, merge: &MergeName) -> Result<Response, Failure> {
    let object = paths::seen(&db.name, merge.txid);
    // That it is there already is as good.
    db.context.store.create(&object, Bytes::new()).await?;
    db.see(merge.txid);
    Ok(json(&record(db, merge).await?))
}
