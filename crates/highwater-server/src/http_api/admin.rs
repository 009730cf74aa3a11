//! `/admin/v1/…`: which databases there are, creating, deleting and undeleting them.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/v1/databases[?after=NAME][&limit=N]` | [`AdminPage`] |
//! | `POST /admin/v1/databases` | [`AdminCreate`] → 201, [`AdminDatabase`] |
//! | `GET /admin/v1/databases/DB` | [`AdminDetail`] |
//! | `DELETE /admin/v1/databases/DB` | [`AdminDatabase`]; again: the same |
//! | `POST /admin/v1/databases/DB/undelete` | [`AdminDatabase`]; again: the same |
//! | `GET /admin/v1/stats` | [`AdminStats`] |
//!
//! A database may be called `…/undelete`: it is the method that tells.

use axum::body::Body;
use axum::response::Response;
use futures::{StreamExt, TryStreamExt};
use highwater_wire::{
    AdminCreate, AdminDatabase, AdminDetail, AdminEventKind as Kind, AdminPage, AdminState, AdminStats,
    DbName, ErrorCode,
};
use http::request::Parts;
use http::{Method, StatusCode};

use super::access::{Caller, Need};
use super::query::Query;
use super::{App, Failure, allowed, check, json, not_found, note};
use crate::inventory::{self, Found};
use crate::lifecycle::{self, Lifecycle};
use crate::metrics::Did;
use crate::{Error, push};

/// Databases in an answer, unless the request says how many.
const LIMIT: usize = 100;
/// The most databases in an answer.
const MOST: usize = 1_000;
/// How many databases are looked at at once.
const AT_ONCE: usize = 16;
/// The most bytes of a request to create a database.
const CREATE: usize = 4096;

/// Does what stands below `/admin/v1/`.
pub(super) async fn admin(
    app: &App,
    head: &Parts,
    rest: &str,
    body: &mut Option<Body>,
) -> Result<Response, Failure> {
    let caller = allowed(app, head, Need::Admin)?;
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    let query = Query::parse(head.uri.query())?;
    if let Some(name) = rest.strip_prefix("databases/") {
        if query != Query::default() {
            return Err(Failure::bad_request("this request has no parameters"));
        }
        return match head.method {
            Method::DELETE => delete(app, &parsed(name)?, &caller).await,
            Method::POST => match name.strip_suffix("/undelete") {
                Some(name) => undelete(app, &parsed(name)?, &caller).await,
                None => Err(not_found("a database is brought back with POST …/NAME/undelete")),
            },
            _ if reads => detail(app, &parsed(name)?).await,
            _ => Err(Failure::method_not_allowed("GET, HEAD, DELETE, POST")),
        };
    }
    match rest {
        "databases" if head.method == Method::POST => create(app, head, body, &caller).await,
        "databases" if reads => list(app, &query).await,
        "databases" => Err(Failure::method_not_allowed("GET, HEAD, POST")),
        "stats" if reads => stats(app).await,
        "stats" => Err(Failure::method_not_allowed("GET, HEAD")),
        _ => {
            Err(not_found("there is nothing at this path; there are /admin/v1/databases and /admin/v1/stats"))
        }
    }
}

fn parsed(name: &str) -> Result<DbName, Failure> {
    name.parse().map_err(|error: highwater_wire::InvalidName| Failure::bad_request(error.to_string()))
}

async fn list(app: &App, query: &Query) -> Result<Response, Failure> {
    if query.at.is_some() || query.time.is_some() {
        return Err(Failure::bad_request("this request has the parameters after and limit only"));
    }
    let limit = query.limit(LIMIT, MOST)?;
    let after = query.after.as_deref().map(parsed).transpose()?;
    let found = inventory::inventory(&app.context.store).await?;
    let later = found.into_iter().filter(move |(name, _)| after.as_ref().is_none_or(|after| name > after));
    let described = futures::stream::iter(later)
        .map(|(name, found)| {
            let app = app.clone();
            async move { describe(&app, &name, &found).await }
        })
        .buffered(AT_ONCE);
    // One more than is shown tells whether there are more. A name without a database is none.
    let databases = described.try_filter_map(async |described| Ok(described.map(|(database, _)| database)));
    let mut databases: Vec<AdminDatabase> = databases.take(limit + 1).try_collect().await?;
    let more = databases.len() > limit;
    databases.truncate(limit);
    Ok(json(&AdminPage { databases, more }))
}

async fn describe(
    app: &App,
    name: &DbName,
    found: &Found,
) -> Result<Option<(AdminDatabase, Lifecycle)>, Failure> {
    let open = app.registry.in_memory(name).is_some_and(|db| db.exists() && !db.is_stale());
    Ok(inventory::describe(&app.context, name, found, open).await?)
}

async fn described(app: &App, name: &DbName) -> Result<(AdminDatabase, Lifecycle, Found), Failure> {
    let found = inventory::find(&app.context.store, name).await?;
    let (database, lifecycle) =
        describe(app, name, &found).await?.ok_or_else(|| Failure::unknown_database(name.as_str()))?;
    Ok((database, lifecycle, found))
}

async fn detail(app: &App, name: &DbName) -> Result<Response, Failure> {
    let (database, lifecycle, found) = described(app, name).await?;
    let events = lifecycle.events().to_vec();
    Ok(json(&AdminDetail { database, pushes: found.pushes, snapshots: found.snapshots, events }))
}

async fn create(
    app: &App,
    head: &Parts,
    body: &mut Option<Body>,
    caller: &Caller,
) -> Result<Response, Failure> {
    let body = body.take().unwrap_or_default();
    let charge = app.context.shares.incoming.charge(CREATE as u64);
    let bytes = push::read_whole(body, app.context.limits.idle_timeout, CREATE, &charge).await?;
    check::prove_body(&head.headers, &bytes)?;
    let AdminCreate { name } = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::bad_request(format!("the body must be {{\"name\":NAME}} ({error})")))?;
    let name = parsed(&name)?;
    let found = inventory::find(&app.context.store, &name).await?;
    let exists = found.pushes + found.snapshots > 0;
    lifecycle::change(&app.context.store, &name, &caller.to_string(), |lifecycle| {
        if lifecycle.deleted().is_some() {
            return Err(Failure::from(Error::Deleted { database: name.to_string() }));
        }
        if exists || lifecycle.is_reserved() {
            let message = format!("there is a database {name} already; choose another name");
            return Err(Failure::new(ErrorCode::AlreadyExists, message));
        }
        Ok(Some(Kind::Created))
    })
    .await?;
    app.registry.forget(&name);
    note(|facts| facts.did = Some(Did::Created));
    let (database, ..) = described(app, &name).await?;
    let mut response = json(&database);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

async fn delete(app: &App, name: &DbName, caller: &Caller) -> Result<Response, Failure> {
    described(app, name).await?;
    let open = app.registry.in_memory(name);
    // A push that is being appended comes first and is deleted with the rest; one that waits is refused.
    let turn = match &open {
        Some(open) => Some(open.between_pushes().await),
        None => None,
    };
    lifecycle::change(&app.context.store, name, &caller.to_string(), |lifecycle| {
        Ok::<_, Failure>(lifecycle.deleted().is_none().then_some(Kind::Deleted))
    })
    .await?;
    drop(turn);
    app.registry.forget(name);
    note(|facts| facts.did = Some(Did::Deleted));
    Ok(json(&described(app, name).await?.0))
}

async fn undelete(app: &App, name: &DbName, caller: &Caller) -> Result<Response, Failure> {
    let (database, ..) = described(app, name).await?;
    if database.state != AdminState::Deleted && database.state != AdminState::Removing {
        return Ok(json(&database));
    }
    lifecycle::change(&app.context.store, name, &caller.to_string(), |lifecycle| {
        if lifecycle.collecting().is_some() {
            let message = format!("the files of {name} are being removed; it cannot be brought back");
            return Err(Failure::new(ErrorCode::Deleted, message));
        }
        Ok(lifecycle.deleted().map(|_| Kind::Undeleted))
    })
    .await?;
    app.registry.forget(name);
    note(|facts| facts.did = Some(Did::Undeleted));
    Ok(json(&described(app, name).await?.0))
}

async fn stats(app: &App) -> Result<Response, Failure> {
    let found = inventory::inventory(&app.context.store).await?;
    let mut stats = AdminStats {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: app.context.metrics.began.elapsed().as_secs(),
        databases: 0,
        deleted: 0,
        stored_bytes: 0,
        stored_files: 0,
        open: count(app.context.metrics.open.get()),
        connections: count(app.context.metrics.connections.get()),
        in_flight: count(app.context.metrics.in_flight.get()),
    };
    for (name, found) in &found {
        stats.stored_bytes += found.stored_bytes;
        stats.stored_files += found.pushes + found.snapshots;
        let lifecycle = match found.administered {
            true => Lifecycle::read(&app.context.store, name).await?,
            false => Lifecycle::default(),
        };
        if lifecycle.deleted().is_some() {
            stats.deleted += 1;
        } else if found.pushes + found.snapshots > 0 || lifecycle.is_reserved() {
            stats.databases += 1;
        }
    }
    Ok(json(&stats))
}

fn count(gauge: i64) -> u64 {
    u64::try_from(gauge).unwrap_or(0)
}
