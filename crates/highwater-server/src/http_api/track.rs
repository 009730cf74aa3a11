//! One request from its head to the last byte of its answer: what the log line and the metrics say
//! of it.
//!
//! A [`Tracked`] is held by the task that does the work and by the bodies of request and answer;
//! when the last of them lets go, the request has ended and is told, once. So a client that goes
//! away does not hide what its request did.
//!
//! Code that works on a request adds facts with [`note`]; outside of one that does nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use highwater_ltx::{DeviceId, Position, TxId};
use highwater_wire::{DbName, ErrorCode};
use http::request::Parts;
use http::{HeaderMap, Method};
use http_body::{Frame, SizeHint};

use super::path::{self, Libsql, Target};
use super::{App, Peer, shortened};
use crate::log::ms_since;
use crate::metrics::{Did, Held, Metrics, Route};

tokio::task_local! {
    static REQUEST: Arc<Tracked>;
}

/// The longest request id of a client's that is taken into the log.
const LONGEST_ID: usize = 64;
/// In place of a status when the client went away before the answer, as many servers write it.
const CLIENT_GONE: u16 = 499;

/// What is learnt of a request while it is worked on.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Who sent it, in words fit for a log.
    pub(crate) caller: Option<String>,
    pub(crate) did: Option<Did>,
    pub(crate) device: Option<DeviceId>,
    /// Where the database is afterwards.
    pub(crate) head: Option<(Position, TxId)>,
    /// Frames, or pages, that came from the client.
    pub(crate) frames_in: u64,
    /// Frames, or pages, that were sent to it.
    pub(crate) frames_out: u64,
    /// Why it was refused.
    pub(super) code: Option<ErrorCode>,
}

/// Adds to what is known of the request that the present task works on.
pub(crate) fn note(add: impl FnOnce(&mut Facts)) {
    // Work beside requests has nobody to tell.
    let _ = REQUEST.try_with(|request| request.note(add));
}

/// A request that has not ended.
#[derive(Debug)]
pub(super) struct Tracked {
    metrics: Arc<Metrics>,
    began: Instant,
    id: String,
    client_id: Option<String>,
    method: Method,
    route: Route,
    db: Option<DbName>,
    /// Only of a request for nothing that there is.
    path: Option<String>,
    peer: Option<SocketAddr>,
    status: AtomicU16,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    facts: Mutex<Facts>,
    _in_flight: Held,
}

impl Tracked {
    pub(super) fn new(app: &App, head: &Parts, id: String) -> Arc<Self> {
        let path = head.uri.path();
        let (route, db) = match path::parse(path) {
            Ok(target) => (target.route(&head.method), target.into_database()),
            Err(_) => (Route::Other, None),
        };
        let metrics = Arc::clone(&app.context.metrics);
        Arc::new(Self {
            _in_flight: Held::new(&metrics.in_flight),
            metrics,
            began: Instant::now(),
            id,
            client_id: client_id(&head.headers),
            method: head.method.clone(),
            route,
            db,
            path: (route == Route::Other).then(|| shortened(path).to_owned()),
            peer: head.extensions.get::<Peer>().map(|peer| peer.0),
            status: AtomicU16::new(CLIENT_GONE),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            facts: Mutex::default(),
        })
    }

    /// Does the work on a request, which may [`note`] facts.
    pub(super) async fn working<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        REQUEST.scope(self, work).await
    }

    pub(super) fn note(&self, add: impl FnOnce(&mut Facts)) {
        add(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts the bytes of the request.
    pub(super) fn incoming(self: &Arc<Self>, body: Body) -> Body {
        Body::new(Counted { body, request: Arc::clone(self), outgoing: false })
    }

    /// Counts the bytes of the answer.
    pub(super) fn outgoing(self: &Arc<Self>, status: http::StatusCode, body: Body) -> Body {
        self.status.store(status.as_u16(), Ordering::Relaxed);
        Body::new(Counted { body, request: Arc::clone(self), outgoing: true })
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let status = self.status.load(Ordering::Relaxed);
        let facts = std::mem::take(self.facts.get_mut().unwrap_or_else(PoisonError::into_inner));
        let bytes = (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed));
        self.metrics.answered(self.route, status, self.began.elapsed(), bytes);
        let met = matches!(facts.code, Some(ErrorCode::Conflict | ErrorCode::CannotMerge));
        let did = facts.did.or(met.then_some(Did::Conflict));
        if let Some(did) = did {
            self.metrics.did(self.route.protocol(), did, (facts.frames_in, facts.frames_out));
        }
        if let Some(code) = facts.code {
            self.metrics.refused(code.as_str());
        }
        self.tell(status, &facts, did, bytes);
    }
}

impl Tracked {
    /// The one line of the log. Requests that only read are told when more is asked for.
    fn tell(&self, status: u16, facts: &Facts, did: Option<Did>, (bytes_in, bytes_out): (u64, u64)) {
        let caller = facts.caller.clone().or_else(|| self.peer.map(|peer| peer.ip().to_string()));
        let (head, txid) = facts.head.unzip();
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "highwater_server::requests",
                    parent: None,
                    method = self.method.as_str(),
                    route = self.route.as_str(),
                    path = self.path,
                    db = self.db.as_ref().map(DbName::as_str),
                    status,
                    did = did.map(Did::as_str),
                    code = facts.code.map(ErrorCode::as_str),
                    device = facts.device.map(tracing::field::display),
                    generation = head.map(|head| head.generation.0),
                    durable_frame_num = head.map(|head| head.frame.0),
                    txid = txid.map(|txid| txid.0),
                    frames_in = (facts.frames_in > 0).then_some(facts.frames_in),
                    frames_out = (facts.frames_out > 0).then_some(facts.frames_out),
                    bytes_in,
                    bytes_out,
                    ms = ms_since(self.began),
                    caller,
                    request_id = self.id,
                    client_request_id = self.client_id,
                    "request"
                )
            };
        }
        if (500..600).contains(&status) {
            line!(warn);
        } else if self.route.changes() {
            line!(info);
        } else {
            line!(debug);
        }
    }
}

impl Target<'_> {
    /// Its class, for logs and metrics.
    fn route(&self, method: &Method) -> Route {
        match self {
            Self::Health => Route::Health,
            Self::Ready => Route::Ready,
            Self::Version => Route::Version,
            Self::Metrics => Route::Metrics,
            Self::Admin(_) if matches!(*method, Method::GET | Method::HEAD) => Route::AdminRead,
            Self::Admin(_) => Route::AdminWrite,
            Self::Libsql(_, Libsql::Info) => Route::LibsqlInfo,
            Self::Libsql(_, Libsql::Export(_)) => Route::LibsqlExport,
            Self::Libsql(_, Libsql::Sync { .. }) if *method == Method::POST => Route::LibsqlPush,
            Self::Libsql(_, Libsql::Sync { .. }) => Route::LibsqlPull,
            Self::Database(_, verb) => match *verb {
                None => Route::Info,
                Some("sync") => Route::Sync,
                Some("locate") => Route::Locate,
                Some("query") => Route::Query,
                Some("snapshot") => Route::Snapshot,
                Some("sums") => Route::Sums,
                Some("log") => Route::Log,
                Some(_) => Route::Other,
            },
        }
    }

    fn into_database(self) -> Option<DbName> {
        match self {
            Self::Database(name, _) => Some(name),
            Self::Libsql(name, _) => name,
            Self::Admin(rest) => {
                let name = rest.strip_prefix("databases/")?;
                name.strip_suffix("/undelete").unwrap_or(name).parse().ok()
            }
            _ => None,
        }
    }
}

/// The client's own name for its request, if it is one word of plain characters.
fn client_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(highwater_wire::REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(plain);
    fits.then(|| id.to_owned())
}

/// A body that counts.
struct Counted {
    body: Body,
    request: Arc<Tracked>,
    outgoing: bool,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let count = if self.outgoing { &self.request.bytes_out } else { &self.request.bytes_in };
            count.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
