//! `POST /DB/v1/locate`: where in the history a copy is.

use axum::body::Body;
use axum::response::Response;
use highwater_ltx::Position;
use highwater_wire::{BASE, DbName, ErrorCode, LocateAnswer, LocateRequest};
use http::HeaderMap;

use super::sync::{encoding, header, length, position_headers};
use super::{App, Failure, check, json};
use crate::log::Located;
use crate::push::{self, Encoding};
use crate::share::{Charge, Metered};

pub(super) async fn locate(
    app: &App,
    name: &DbName,
    headers: &HeaderMap,
    body: &mut Option<Body>,
) -> Result<Response, Failure> {
    let base: Option<Position> = header(headers, BASE)?;
    let limit = app.context.limits.body_memory;
    if length(headers).is_some_and(|length| length > limit as u64) {
        return Err(Failure::too_large(limit as u64));
    }
    let charge = app.context.shares.incoming.charge(u64::MAX);
    let body = body.take().unwrap_or_default();
    let mut bytes = push::read_whole(body, app.context.limits.idle_timeout, limit, &charge).await?;
    check::prove_body(headers, &bytes)?;
    if encoding(headers)? == Encoding::Zstd {
        bytes = inflated(bytes, limit, charge.clone()).await?;
    }
    let request = LocateRequest::decode(&bytes).map_err(|error| {
        Failure::new(ErrorCode::CorruptBody, format!("the body is no locate request: {error}"))
    })?;
    drop(bytes);
    let db = app.registry.get(name).await?;
    let Some(located) = db.locate(request, base).await? else {
        app.registry.forget(name);
        return Err(Failure::unknown_database(name.as_str()));
    };
    let (entry, exact, known_pages) = match located {
        Located::Exact(entry) => (entry, true, 0),
        Located::Base(entry, known) => (entry, false, known),
        Located::Stranger => {
            return Err(Failure::new(
                ErrorCode::UnknownState,
                format!(
                    "this copy is not a position of {name}, nor one with changes on top: it may be another database"
                ),
            ));
        }
        Located::UnknownBase => {
            return Err(Failure::new(
                ErrorCode::UnknownBase,
                "the base that the request names is not in this database's history; ask with all page sums",
            ));
        }
    };
    tracing::debug!(db = %name, position = %entry.position.place(), exact, known_pages, "located a copy");
    let answer = LocateAnswer {
        position: entry.position.into(),
        txid: entry.txid.0,
        exact,
        device: format!("{:016x}", entry.node_id),
        known_pages,
    };
    let mut response = json(&answer);
    position_headers(&mut response, &entry)?;
    Ok(response)
}

async fn inflated(bytes: Vec<u8>, limit: usize, charge: Charge) -> Result<Vec<u8>, Failure> {
    let work = tokio::task::spawn_blocking(move || {
        let mut out = Vec::new();
        let mut zstd = zstd::Decoder::new(bytes.as_slice())?;
        zstd.window_log_max(highwater_wire::ZSTD_WINDOW_LOG_MAX)?;
        let mut limited = std::io::Read::take(Metered::new(zstd, charge), limit as u64 + 1);
        std::io::Read::read_to_end(&mut limited, &mut out)?;
        Ok::<_, std::io::Error>(out)
    });
    let out = work.await.map_err(|error| Failure::internal(&error.to_string()))?;
    match out {
        Ok(out) if out.len() > limit => Err(Failure::too_large(limit as u64)),
        Ok(out) => Ok(out),
        Err(error) if error.get_ref().is_some_and(|error| error.is::<crate::Error>()) => {
            Err(crate::Error::Overloaded.into())
        }
        Err(error) => {
            Err(Failure::new(ErrorCode::CorruptBody, format!("the body cannot be decompressed: {error}")))
        }
    }
}
