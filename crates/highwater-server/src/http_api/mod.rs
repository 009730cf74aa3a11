//! HTTP: one entrance for every request. It names the request, parses the raw path itself (nothing
//! is decoded or collapsed on the way to a database's name), runs the work in a task of its own, so
//! that a client that goes away does not stop what was accepted, and turns every failure and panic
//! into the documented answer.
//!
//! | path | module |
//! |---|---|
//! | `/DB/v1/sync` | [`sync`] |
//! | `/DB/v1/locate` | [`locate`] |
//! | `/DB/v1`, `/DB/v1/log`, `/DB/v1/snapshot`, `/DB/v1/sums` | [`read`] |
//! | `/DB/v1/query` | [`sql`] |
//! | `/DB/v1/conflicts/…` | [`conflicts`] |
//! | `/DB/info`, `/DB/export/…`, `/DB/sync/…` | [`libsql`] |
//! | `/admin/v1/…` | [`admin`] |
//! | `/healthz`, `/readyz`, `/version`, `/metrics` | here |
//!
//! Whether a request is allowed is decided in [`route`] by [`access`], before the database is looked up.
//! Later: uploads, watch and administration get modules of their own beside [`sync`].

mod access;
mod admin;
mod check;
mod conflicts;
mod error;
mod libsql;
mod locate;
mod path;
mod query;
mod read;
mod sql;
mod sync;
mod track;

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::Response;
use highwater_wire::{ErrorCode, PROTOCOL, REQUEST_ID, VersionInfo};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use tracing::Instrument;

use crate::gate::Gate;
use crate::log::Context;
use crate::registry::Registry;
use crate::{push, staging};
use access::Need;
pub(crate) use access::Peer;
pub(crate) use check::Announced;
pub(crate) use error::Failure;
use path::Target;
use track::Tracked;
pub(crate) use track::note;

/// What every request needs.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) context: Arc<Context>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) gate: Arc<Gate>,
}

/// The router: everything goes through [`answer`].
pub(crate) fn router(app: App) -> axum::Router {
    let enter = |State(app): State<App>, request: Request| answer(app, request);
    axum::Router::new().fallback(enter).with_state(app)
}

/// Answers a request.
pub(crate) async fn answer(app: App, request: Request) -> Response {
    let id = format!("{:016x}", staging::unique() >> 64);
    let span = tracing::info_span!("request", id, method = %request.method(), path = shortened(request.uri().path()));
    let (mut head, body) = request.into_parts();
    access::hide(&mut head.headers);
    let named = check::named(&head.headers);
    let tracked = Tracked::new(&app, &head, id.clone());
    let body = tracked.incoming(body);
    // The task goes on when the client goes away; shutting down waits for it.
    let tasks = app.context.tasks.clone();
    let working = Arc::clone(&tracked);
    let work = async move { working.working(dispatch(&app, &head, body)).await };
    let work = tasks.spawn(work.instrument(span.clone()));
    let outcome = work.await.unwrap_or_else(|error| {
        let _entered = span.enter();
        Err(Failure::internal(&format!("a request ended early: {error}")))
    });
    let mut response = match outcome {
        Ok(response) => response,
        Err(failure) => {
            let _entered = span.enter();
            tracing::debug!(code = ?failure.code(), why = shortened(failure.message()), "refused");
            tracked.note(|facts| facts.code = Some(failure.code()));
            failure.into_response(&id)
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    check::seal(&mut response, named);
    let status = response.status();
    response.map(|body| tracked.outgoing(status, body))
}

/// A path of any length, or a text that has one, fit for a log line: cut off where a token may begin that somebody put into it.
fn shortened(path: &str) -> &str {
    let path = path.split_once("eyJ").map_or(path, |(before, _)| before);
    path.get(..200).unwrap_or(path.get(..path.floor_char_boundary(200)).unwrap_or_default())
}

async fn dispatch(app: &App, head: &Parts, body: Body) -> Result<Response, Failure> {
    let mut body = Some(body);
    let answer = match check::prove(head) {
        Ok(()) => in_turn(app, head, &mut body).await,
        Err(failure) => Err(failure),
    };
    if let (Err(_), Some(body)) = (&answer, body) {
        push::discard(body, app.context.limits.idle_timeout, &app.context.tasks);
    }
    answer
}

/// Does the work when it is its turn. What tells operators how the server is never waits.
async fn in_turn(app: &App, head: &Parts, body: &mut Option<Body>) -> Result<Response, Failure> {
    if let Ok(Target::Health | Target::Ready | Target::Version | Target::Metrics) =
        path::parse(head.uri.path())
    {
        return route(app, head, body).await;
    }
    let Some(_place) = app.context.shares.enter().await else {
        app.context.metrics.limited("requests");
        return Err(Failure::unavailable("the server has as many requests as it takes at once"));
    };
    route(app, head, body).await
}

/// Finds out what is asked for and does it. The body is taken when it is needed.
async fn route(app: &App, head: &Parts, body: &mut Option<Body>) -> Result<Response, Failure> {
    let target = path::parse(head.uri.path())?;
    let method = head.method.clone();
    let allow = |methods: &'static str| {
        let allowed = methods.split(", ").any(|allowed| allowed == method.as_str());
        if allowed { Ok(()) } else { Err(Failure::method_not_allowed(methods)) }
    };
    let (name, verb) = match target {
        Target::Health => {
            allow("GET, HEAD")?;
            return Ok(json(&serde_json::json!({ "status": "ok" })));
        }
        Target::Ready => {
            allow("GET, HEAD")?;
            return ready(app).await;
        }
        Target::Version => {
            allow("GET, HEAD")?;
            return Ok(json(&version()));
        }
        Target::Metrics => {
            allow("GET, HEAD")?;
            allowed(app, head, Need::Admin)?;
            return Ok(metrics(app));
        }
        Target::Admin(rest) => return admin::admin(app, head, rest, body).await,
        Target::Libsql(name, verb) => return libsql::libsql(app, head, name, verb, body).await,
        Target::Database(name, verb) => (name, verb),
    };
    let conflicts = verb.and_then(|verb| verb.strip_prefix("conflicts"));
    match verb {
        _ if conflicts.is_some_and(|rest| rest.ends_with("/resolve") || rest.ends_with("/rebased")) => {
            allow("POST")?;
        }
        _ if conflicts.is_some() => allow("GET, HEAD")?,
        Some("sync" | "locate" | "query") => allow("POST")?,
        None | Some("snapshot" | "sums" | "log") => allow("GET, HEAD")?,
        Some(_) => return Err(path::nothing_here()),
    }
    // A sync without a body asks for pages only. (A body of unknown length counts as one.)
    let pushes = verb == Some("sync") && body.as_ref().is_some_and(|body| !body.is_end_stream());
    // What was sent before may have to be merged with what is there now.
    let pushes = pushes || verb == Some("sync") && head.headers.contains_key(highwater_wire::PENDING);
    let resolves = conflicts.is_some() && method == http::Method::POST;
    let need = if pushes || resolves { Need::Write(&name) } else { Need::Read(&name) };
    let caller = allowed(app, head, need)?;
    let query = query::Query::parse(head.uri.query())?;
    if let Some(rest) = conflicts {
        return conflicts::conflicts(app, &name, rest, &query, (&head.headers, body)).await;
    }
    match verb {
        Some("sync") => sync::sync(app, &name, &caller, &head.headers, body).await,
        Some("locate") => locate::locate(app, &name, &head.headers, body).await,
        Some("query") => sql::query(app, &name, &head.headers, body).await,
        Some("snapshot") => read::snapshot(app, &name, &query, &head.headers).await,
        Some("sums") => read::sums(app, &name, &query).await,
        Some("log") => read::log(app, &name, &query).await,
        _ => read::info(app, &name, &query).await,
    }
}

/// Whether the request may be done; the log learns whose it is.
fn allowed(app: &App, head: &Parts, need: Need<'_>) -> Result<access::Caller, Failure> {
    let caller = access::check(app, head, need)?;
    let name = caller.to_string();
    let counted = if matches!(need, Need::Admin) { Ok(()) } else { app.context.shares.count(&name) };
    note(|facts| facts.caller = Some(name));
    counted.map_err(|too_often| {
        app.context.metrics.limited("rate");
        Failure::too_many(too_often.wait)
    })?;
    Ok(caller)
}

async fn ready(app: &App) -> Result<Response, Failure> {
    match app.context.ready.check(&app.context).await {
        Ok(()) => Ok(json(&serde_json::json!({ "status": "ready" }))),
        Err(what) => Err(Failure::unavailable(what)),
    }
}

fn metrics(app: &App) -> Response {
    let mut response = Response::new(Body::from(app.context.metrics.render()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(crate::metrics::CONTENT));
    response
}

fn version() -> VersionInfo {
    VersionInfo {
        server: "highwater".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocols: vec![PROTOCOL.to_owned()],
    }
}

/// A JSON answer.
fn json(value: &impl Serialize) -> Response {
    // The bodies are plain structures of strings and numbers: this cannot fail.
    json_text(serde_json::to_vec(value).unwrap_or_default())
}

fn json_text(text: Vec<u8>) -> Response {
    let mut headers = HeaderMap::new();
    check::announce(&mut headers, &text);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut response = Response::new(Body::from(text));
    *response.headers_mut() = headers;
    response
}

/// A text as the value of a header; the texts used here are plain.
fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|error| Failure::internal(&error.to_string()))
}

/// A failure for a path that means nothing.
fn not_found(message: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, message)
}
