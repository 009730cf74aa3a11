//! The requests of the native protocol, with retries: from a [`Remote`] and a token to typed
//! answers and errors.
//!
//! A retry is always safe: the server recognises a state that it already has by its content.

use std::cell::Cell;
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_ltx::{DeviceId, PageCount, Place, Position, TxId};
use highwater_pages::PageHash;
use highwater_wire::{
    Check, DatabaseInfo, ErrorBody, ErrorCode, LocateAnswer, LocateRequest, LogPage, Outcome, Remote,
    VersionInfo,
};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub(crate) use crate::claim::{Claim, Sender};
use crate::error::{Error, Result};
use crate::receive::plain_body;
use crate::seal;
use crate::transport::{Body, InFlight, NetworkError, Request, Response, Transport};

/// JSON answers are small; more than this is not one of ours.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// How often a server is tried that cannot be connected to, or that fails by itself.
const FEW_ATTEMPTS: u32 = 3;
/// The first pause between two attempts; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer, whatever the server asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One database on one server, for the duration of one operation.
pub(crate) struct Api<'a> {
    pub(crate) transport: &'a dyn Transport,
    pub(crate) remote: &'a Remote,
    pub(crate) token: Option<&'a str>,
    pub(crate) device: Option<DeviceId>,
    /// When to give up on a failing network.
    pub(crate) deadline: Instant,
    /// Requests made so far.
    pub(crate) requests: Cell<u32>,
    /// Whether any attempt of the last request may have reached the server.
    pub(crate) delivered: Cell<bool>,
    /// Whether an answer without a seal was asked for once more already, and is taken as it is from then on.
    pub(crate) bare: Cell<bool>,
    /// Whether a token was refused and sent once more already.
    pub(crate) denied: Cell<bool>,
    /// Whether one before the last may have: then what the last one was told is not the whole truth.
    pub(crate) repeated: Cell<bool>,
}

/// The answer to a sync request.
pub(crate) struct SyncAnswer {
    pub(crate) outcome: Outcome,
    pub(crate) head: Position,
    pub(crate) txid: TxId,
    /// The merge that the client's change went into.
    pub(crate) merge: Option<TxId>,
    /// How many things that merge could not keep as they were.
    pub(crate) conflicts: u64,
    pub(crate) body: Response,
}

/// Why a request was refused.
pub(crate) enum Refused {
    /// The server's own words.
    Told(StatusCode, Box<ErrorBody>),
    /// Anything else, already an error of the library.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Api<'_> {
    /// `GET /DB/v1`. None: the server has no database of that name.
    pub(crate) fn info(&self) -> Result<Option<DatabaseInfo>> {
        match self.get(&self.remote.request(None)) {
            Ok(answer) => self.json(answer).map(Some),
            Err(Refused::Told(_, body)) if body.code == ErrorCode::UnknownDatabase => Ok(None),
            Err(refused) => Err(self.explain(refused)),
        }
    }

    /// `GET /DB/v1/log`.
    pub(crate) fn log(&self, after: Option<Place>, limit: u32) -> Result<LogPage> {
        let after = after.map(|place| format!("&after={place}")).unwrap_or_default();
        let url = format!("{}?limit={limit}{after}", self.remote.request(Some("log")));
        let answer = self.get(&url).map_err(|refused| self.explain(refused))?;
        self.json(answer)
    }

    /// `GET /DB/v1/snapshot`, with a query such as `at=1/9`. None: no such database.
    pub(crate) fn snapshot(&self, query: Option<&str>) -> Result<Option<Response>> {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        match self.get(&format!("{}{query}", self.remote.request(Some("snapshot")))) {
            Ok(answer) => Ok(Some(answer)),
            Err(Refused::Told(_, body)) if body.code == ErrorCode::UnknownDatabase => Ok(None),
            Err(refused) => Err(self.explain(refused)),
        }
    }

    /// `GET /DB/v1/sums`: the size of the database at a position, and one hash for each page. None:
    /// the server does not know the position.
    pub(crate) fn sums(&self, at: Place) -> Result<Option<(PageCount, Vec<PageHash>)>> {
        let mut answer = match self.get(&format!("{}?at={at}", self.remote.request(Some("sums")))) {
            Ok(answer) => answer,
            Err(Refused::Told(_, body))
                if matches!(body.code, ErrorCode::UnknownPosition | ErrorCode::UnknownDatabase) =>
            {
                return Ok(None);
            }
            Err(refused) => return Err(self.explain(refused)),
        };
        let count = answer.headers.get(highwater_wire::PAGE_COUNT).and_then(|value| value.to_str().ok());
        let count: u32 = count
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| self.strange("its page sums come without a page count"))?;
        let mut bytes = Vec::new();
        let limit = u64::from(count) * 16;
        let body = self.plain_body(&mut answer).take(limit + 1);
        std::io::BufReader::new(body).read_to_end(&mut bytes).map_err(|error| self.cut(&error))?;
        if bytes.len() as u64 != limit {
            return Err(self.bad(format!("page sums of {} bytes for {count} pages", bytes.len())));
        }
        let (sums, _) = bytes.as_chunks::<16>();
        let hashes = sums.iter().map(|sum| PageHash(u128::from_be_bytes(*sum))).collect();
        Ok(Some((PageCount(count), hashes)))
    }

    /// `POST /DB/v1/locate`. Ok(None): the state is none of the history's; `unknown_database` stays
    /// an error of its own.
    pub(crate) fn locate(&self, what: &LocateRequest, base: Option<Position>) -> Result<Located> {
        let mut headers = self.headers();
        if let Some(base) = base {
            set(&mut headers, highwater_wire::BASE, &base.to_string());
        }
        set(&mut headers, CONTENT_TYPE.as_str(), highwater_wire::SUMS_CONTENT);
        let body = Bytes::from(what.encode());
        let url = self.remote.request(Some("locate"));
        match self.send(&Method::POST, &url, &headers, &mut || Body::Whole(body.clone())) {
            Ok(answer) => {
                let answer: LocateAnswer = self.json(answer)?;
                let position =
                    Position::try_from(&answer.position).map_err(|error| self.bad(error.to_string()))?;
                Ok(Located::At {
                    device: u64::from_str_radix(&answer.device, 16).ok(),
                    position,
                    txid: TxId(answer.txid),
                    exact: answer.exact,
                    known_pages: answer.known_pages,
                })
            }
            Err(Refused::Told(_, body)) if body.code == ErrorCode::UnknownState => Ok(Located::Nowhere),
            Err(Refused::Told(_, body)) if body.code == ErrorCode::UnknownDatabase => Ok(Located::NoDatabase),
            Err(refused) => Err(self.explain(refused)),
        }
    }

    /// `POST /DB/v1/sync`. `body` is asked for the body of each attempt and may go on producing it.
    pub(crate) fn sync<'b>(
        &self,
        claim: Claim<'_>,
        encoded: bool,
        body: &mut dyn FnMut() -> PreparedBody<'b>,
    ) -> Result<SyncAnswer, Refused> {
        let mut headers = self.headers();
        if let Some(base) = claim.base {
            set(&mut headers, highwater_wire::BASE, &base.to_string());
        }
        if claim.doubt {
            set(&mut headers, highwater_wire::DOUBT, "1");
        }
        if claim.confirm {
            set(&mut headers, highwater_wire::CONFIRM, "1");
        }
        if !claim.pending.is_empty() {
            let hashes: Vec<String> = claim.pending.iter().map(ToString::to_string).collect();
            set(&mut headers, highwater_wire::PENDING, &hashes.join(","));
        }
        match claim.sender {
            Sender::Itself => {}
            Sender::Other(device) => {
                set(&mut headers, highwater_wire::PENDING_DEVICE, &device.to_string());
            }
            Sender::Anybody => set(&mut headers, highwater_wire::PENDING_DEVICE, "*"),
        }
        if let Some(policy) = claim.policy {
            set(&mut headers, highwater_wire::POLICY, policy.as_str());
        }
        set(&mut headers, ACCEPT_ENCODING.as_str(), highwater_wire::ZSTD);
        set(&mut headers, CONTENT_TYPE.as_str(), highwater_wire::LTX_CONTENT);
        if encoded {
            set(&mut headers, CONTENT_ENCODING.as_str(), highwater_wire::ZSTD);
        }
        let answer =
            self.send_producing(&Method::POST, &self.remote.request(Some("sync")), &headers, body)?;
        let field = |name: &'static str| {
            let value = answer.headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or_else(|| self.strange(&format!("the header {name} is missing")))
        };
        let parse = |error: highwater_ltx::InvalidUnit| self.bad(error.to_string());
        let outcome = field(highwater_wire::OUTCOME)?.parse().map_err(parse)?;
        let head = field(highwater_wire::HEAD)?.parse().map_err(parse)?;
        let txid = field(highwater_wire::TXID)?.parse().map(TxId);
        let txid = txid.map_err(|_| self.bad("the transaction id is not a number".to_owned()))?;
        let number = |name| answer.headers.get(name)?.to_str().ok()?.parse().ok();
        let merge = number(highwater_wire::MERGE).map(TxId);
        let conflicts = number(highwater_wire::CONFLICTS).unwrap_or(0);
        Ok(SyncAnswer { outcome, head, txid, merge, conflicts, body: answer })
    }

    /// Which position an answer's body leads to.
    pub(crate) fn position_of(&self, answer: &Response) -> Result<(Position, TxId)> {
        let field = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let head = field(highwater_wire::HEAD).and_then(|head| head.parse().ok());
        let txid = field(highwater_wire::TXID).and_then(|txid| txid.parse().ok()).map(TxId);
        head.zip(txid).ok_or_else(|| self.strange("it does not say which position its snapshot is of"))
    }

    /// Whether what answers at this URL is a Highwater server at all.
    fn server_kind(&self) -> Option<String> {
        let url = self.remote.as_str();
        let after_scheme = url.find("://").map_or(0, |at| at + 3);
        let host_end = url.get(after_scheme..)?.find('/').map_or(url.len(), |at| after_scheme + at);
        let version = format!("{}/version", url.get(..host_end)?);
        let mut answer = self.attempt(&Method::GET, &version, &HeaderMap::new(), Body::Empty).ok()?;
        let mut text = String::new();
        (&mut answer.body).take(4096).read_to_string(&mut text).ok()?;
        serde_json::from_str::<VersionInfo>(&text).ok().map(|info| info.server)
    }

    /// The body of an answer, decompressed.
    pub(crate) fn plain_body<'r>(&self, answer: &'r mut Response) -> Box<dyn Read + 'r> {
        plain_body(&answer.headers, &mut answer.body)
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(token) = self.token {
            set(&mut headers, AUTHORIZATION.as_str(), &format!("Bearer {token}"));
            // Whatever shows headers does not show it.
            headers.get_mut(AUTHORIZATION).into_iter().for_each(|value| value.set_sensitive(true));
        }
        if let Some(device) = self.device {
            set(&mut headers, highwater_wire::DEVICE, &device.to_string());
        }
        headers
    }

    pub(crate) fn get(&self, url: &str) -> Result<Response, Refused> {
        let mut headers = self.headers();
        set(&mut headers, ACCEPT_ENCODING.as_str(), highwater_wire::ZSTD);
        self.send(&Method::GET, url, &headers, &mut || Body::Empty)
    }

    pub(crate) fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        body: &mut dyn FnMut() -> Body,
    ) -> Result<Response, Refused> {
        self.send_producing(method, url, headers, &mut || PreparedBody { body: body(), produce: None })
    }

    /// Sends until there is an answer that a retry would not change.
    fn send_producing<'b>(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        body: &mut dyn FnMut() -> PreparedBody<'b>,
    ) -> Result<Response, Refused> {
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        self.delivered.set(false);
        loop {
            self.repeated.set(self.delivered.get());
            let mut wait = jitter(pause, self.transport.chance());
            attempts += 1;
            let answer = self.attempt_producing(method, url, headers, body())?;
            if !matches!(&answer, Err(error) if error.connecting) {
                self.delivered.set(true);
            }
            let in_time = self.transport.now() + wait < self.deadline;
            let (refused, few) = match answer {
                Ok(answer) if in_time && self.is_doubtful(&answer) => {
                    tracing::debug!(%url, attempts, "something else than the server may have answered; asking again");
                    self.transport.pause(wait);
                    continue;
                }
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer) if is_passing(answer.status) => {
                    wait = retry_after(&answer.headers).unwrap_or(wait);
                    let failed = answer.status == StatusCode::INTERNAL_SERVER_ERROR;
                    let refused = self.refused(answer);
                    // If every request arrives damaged it is no accident.
                    let few = failed
                        || matches!(&refused, Refused::Told(_, body) if body.code == ErrorCode::Damaged);
                    (refused, few)
                }
                Ok(answer) => return Err(self.refused(answer)),
                Err(error) => (Refused::Failed(self.unreached(&error)), error.connecting || error.foreign),
            };
            if self.transport.now() + wait >= self.deadline || few && attempts >= FEW_ATTEMPTS {
                return Err(refused);
            }
            tracing::debug!(%url, attempts, wait_ms = wait.as_millis(), "the request failed and is tried again");
            self.transport.pause(wait);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether an answer is asked for once more before it is believed. One without a seal may be of a server that
    /// does not know of seals, or of a proxy; and one bit less in the token makes it another.
    fn is_doubtful(&self, answer: &Response) -> bool {
        if is_passing(answer.status) {
            return false;
        }
        let denied = answer.status == StatusCode::UNAUTHORIZED && self.remote.as_str().starts_with("http://");
        seal::is_bare(answer) && !self.bare.replace(true) || denied && !self.denied.replace(true)
    }

    fn attempt(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, NetworkError> {
        let (in_flight, check) = self.start(method, url, headers, body);
        seal::proven(in_flight.wait()?, check)
    }

    fn start(&self, method: &Method, url: &str, headers: &HeaderMap, body: Body) -> (InFlight, Check) {
        self.requests.set(self.requests.get() + 1);
        let (method, headers) = (method.clone(), headers.clone());
        let mut request = Request { method, url: url.to_owned(), headers, body };
        let check = seal::seal(&mut request);
        (self.transport.start(request), check)
    }

    fn attempt_producing(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        prepared: PreparedBody<'_>,
    ) -> Result<Result<Response, NetworkError>> {
        let Some(produce) = prepared.produce else {
            return Ok(self.attempt(method, url, headers, prepared.body));
        };
        let (in_flight, check) = self.start(method, url, headers, prepared.body);
        produce()?;
        Ok(in_flight.wait().and_then(|answer| seal::proven(answer, check)))
    }

    /// Reads what a refusal says, and finds out whether it is a Highwater server that refuses.
    fn refused(&self, mut answer: Response) -> Refused {
        let mut text = Vec::new();
        let read = plain_body(&answer.headers, &mut answer.body).take(MAX_JSON_BYTES).read_to_end(&mut text);
        if read.is_ok()
            && let Ok(body) = serde_json::from_slice::<ErrorBody>(&text)
        {
            return Refused::Told(answer.status, Box::new(body));
        }
        if let Err(error) = &read
            && matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::TimedOut
            )
            && !is_passing(answer.status)
        {
            // Half a refusal says nothing of who refused.
            return Refused::Failed(self.cut(error));
        }
        if is_passing(answer.status) {
            // A proxy in front of the server speaks like this.
            let message = "the server is not available".to_owned();
            let body = ErrorBody {
                code: ErrorCode::Unavailable,
                message,
                request_id: None,
                conflict: None,
                conflicts: Vec::new(),
                cannot_merge: None,
            };
            return Refused::Told(answer.status, Box::new(body));
        }
        let elsewhere = answer.headers.get(LOCATION).and_then(|place| place.to_str().ok());
        let found = match self.server_kind() {
            _ if answer.status.is_redirection() && elsewhere.is_some() => format!(
                "it answered HTTP {} and leads to {}; if that is your server, use its URL",
                answer.status,
                elsewhere.unwrap_or_default()
            ),
            Some(kind) if kind == "highwater" => {
                format!("a Highwater server answered HTTP {}, but not at this path", answer.status)
            }
            Some(kind) => format!("a server that calls itself {kind:?}"),
            None => format!("it answered HTTP {}", answer.status),
        };
        Refused::Failed(Error::NotHighwater { remote: self.remote.to_string(), found })
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, mut answer: Response) -> Result<T> {
        let mut bytes = Vec::new();
        let body = self.plain_body(&mut answer);
        body.take(MAX_JSON_BYTES).read_to_end(&mut bytes).map_err(|error| self.cut(&error))?;
        serde_json::from_slice(&bytes).map_err(|_| self.strange("its JSON is not what was asked for"))
    }

    /// A success that lacks what every one of Highwater's has.
    fn strange(&self, what: &str) -> Error {
        if self.server_kind().as_deref() == Some("highwater") {
            self.bad(what.to_owned())
        } else {
            let found = format!("it answers with success, but {what}");
            Error::NotHighwater { remote: self.remote.to_string(), found }
        }
    }

    /// Turns a refusal that nobody knows better into an error of the library.
    pub(crate) fn explain(&self, refused: Refused) -> Error {
        let (status, body) = match refused {
            Refused::Failed(error) => return error,
            Refused::Told(status, body) => (status, *body),
        };
        let remote = self.remote.to_string();
        let message = body.message;
        match body.code {
            ErrorCode::UnknownDatabase => Error::UnknownDatabase { remote },
            ErrorCode::Deleted => Error::Deleted { remote },
            ErrorCode::UnknownPosition => Error::UnknownPosition { remote, message },
            ErrorCode::Unauthenticated => Error::Unauthenticated { remote, message },
            ErrorCode::Forbidden => Error::Forbidden { remote, message },
            ErrorCode::Unavailable | ErrorCode::TooManyRequests | ErrorCode::Damaged => {
                Error::Offline { remote, reason: format!("HTTP {}: {message}", status.as_u16()) }
            }
            code => Error::Server { remote, code, message, request_id: body.request_id },
        }
    }

    /// An answer that cannot be right.
    pub(crate) fn bad(&self, what: String) -> Error {
        Error::BadAnswer { remote: self.remote.to_string(), what }
    }

    /// A connection that broke while an answer was read.
    pub(crate) fn cut(&self, error: &std::io::Error) -> Error {
        let reason = format!("the connection broke while its answer was read: {error}");
        Error::Offline { remote: self.remote.to_string(), reason }
    }

    fn unreached(&self, error: &NetworkError) -> Error {
        let (remote, reason) = (self.remote.to_string(), error.reason.clone());
        if error.foreign {
            Error::NotHighwater { remote, found: reason }
        } else {
            Error::Offline { remote, reason }
        }
    }
}

/// What `locate` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Located {
    /// In the history, with or without changes on top.
    At {
        position: Position,
        txid: TxId,
        exact: bool,
        known_pages: u32,
        /// First half of the id of the device that pushed the position, if the server says it.
        device: Option<u64>,
    },
    /// No state of this database.
    Nowhere,
    /// There is no such database.
    NoDatabase,
}

/// A body, and the work that fills it while it is being sent.
pub(crate) struct PreparedBody<'a> {
    pub(crate) body: Body,
    pub(crate) produce: Option<Box<dyn FnOnce() -> Result<()> + 'a>>,
}

/// Whether the same request may succeed a little later.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// How long the server asks to wait.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// Between half and all of a pause, so that clients that failed together do not return together.
fn jitter(pause: Duration, chance: u8) -> Duration {
    pause / 2 + pause / 2 * u32::from(chance) / 256
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}
