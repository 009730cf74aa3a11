//! Who asks, and whether they may: asked once for each request, after its path is understood and
//! before anything is looked up.
//!
//! So an answer never depends on whether a database exists, unless the token covers it. No message
//! and no log line holds a token.

use std::fmt;
use std::net::SocketAddr;

use highwater_auth::{Access, Grant, Refused};
use highwater_wire::{DbName, ErrorCode};
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::{App, Failure};

/// How much of a subject is shown, in characters.
const SHOWN: usize = 64;
/// libSQL clients send the key of an encrypted database in it.
const ENCRYPTION_KEY: HeaderName = HeaderName::from_static("x-turso-encryption-key");

/// The other end of the connection; the server notes it in each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What a request needs to be allowed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need<'a> {
    /// To see a database.
    Read(&'a DbName),
    /// To change a database, or, when [`Caller::may_create`], to make it.
    Write(&'a DbName),
    /// To administer the server.
    Admin,
}

/// Who sent a request that is allowed.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Whom the token was made for, as it is shown.
    subject: Option<String>,
    peer: Option<SocketAddr>,
    may_create: bool,
}

impl Caller {
    /// Whether a database that does not exist may come into being by this request.
    pub(crate) fn may_create(&self) -> bool {
        self.may_create
    }

    /// The answer to a push that would make a database and may not.
    pub(crate) fn needs_create(&self, name: &DbName) -> Failure {
        Failure::new(
            ErrorCode::Forbidden,
            format!("there is no database {name} yet, and the token of {self} does not allow create"),
        )
    }
}

impl fmt::Display for Caller {
    /// For log lines: the token's subject, or else the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.subject, self.peer) {
            (Some(subject), _) => f.write_str(subject),
            (None, Some(peer)) => write!(f, "{}", peer.ip()),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// Decides whether a request may be done.
pub(super) fn check(app: &App, head: &Parts, need: Need<'_>) -> Result<Caller, Failure> {
    let peer = head.extensions.get::<Peer>().map(|peer| peer.0);
    if app.gate.is_open() {
        return Ok(Caller { subject: None, peer, may_create: true });
    }
    let denied = |reason: &'static str, message: String, challenge| {
        app.context.metrics.auth_failed(reason);
        Failure::unauthenticated(message, challenge)
    };
    let token = bearer(&head.headers).map_err(|what| denied("header", what.to_owned(), "Bearer"))?;
    let token = token.ok_or_else(|| {
        let message = "this server asks for a token; send one as `Authorization: Bearer TOKEN`";
        denied("missing", message.to_owned(), "Bearer")
    })?;
    let refused =
        |refused: Refused| denied(refused.reason(), refused.to_string(), "Bearer error=\"invalid_token\"");
    let claims = app.gate.claims(token).map_err(refused)?;
    let may_create = match need {
        Need::Read(name) | Need::Write(name) => claims.grant.allows(Access::Create, name),
        Need::Admin => false,
    };
    let subject = claims.subject.as_deref().unwrap_or("nobody in particular");
    let caller = Caller { subject: Some(shown(subject)), peer, may_create };
    match lacking(&claims.grant, need) {
        None => Ok(caller),
        Some(what) => {
            app.context.metrics.auth_failed("forbidden");
            let message = format!("the token of {caller} {what}");
            Err(Failure::new(ErrorCode::Forbidden, message))
        }
    }
}

/// What the token does not allow, as the rest of a sentence about it.
fn lacking(grant: &Grant, need: Need<'_>) -> Option<String> {
    let (name, access) = match need {
        Need::Admin if grant.has(Access::Admin) => return None,
        Need::Admin => {
            return Some(format!("allows {}; this needs admin", grant.access_in_words()));
        }
        Need::Read(name) => (name, Access::Read),
        Need::Write(name) => (name, Access::Write),
    };
    if !grant.covers(name) {
        Some(format!("is not for {name}"))
    } else if !grant.has(access) {
        Some(format!("allows {} on {name}; this needs {access}", grant.access_in_words()))
    } else {
        None
    }
}

/// The token of a request. libSQL clients without one send `Bearer` and nothing behind it.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("the header Authorization is given twice; send one token");
    }
    let value =
        value.to_str().map_err(|_| "the header Authorization is not plain text; send `Bearer TOKEN`")?;
    let (scheme, token) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if !scheme.eq_ignore_ascii_case("Bearer") && !value.trim().is_empty() {
        return Err("the header Authorization must be `Bearer TOKEN`");
    }
    let token = token.trim();
    Ok((!token.is_empty()).then_some(token))
}

/// Keeps secrets out of whatever shows the headers.
pub(super) fn hide(headers: &mut HeaderMap) {
    const SECRETS: [HeaderName; 4] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, ENCRYPTION_KEY];
    for (name, value) in headers.iter_mut() {
        if SECRETS.contains(name) {
            value.set_sensitive(true);
        }
    }
}

/// A subject as it may stand in a line of a log: the issuer of a token may not be the operator.
fn shown(subject: &str) -> String {
    subject.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}
