//! Who asks, and whether they may: asked once for each request, after its path is understood and
//! before anything is looked up.

use std::fmt;
use std::net::SocketAddr;

use highwater_wire::{DbName, ErrorCode};
use http::request::Parts;

use super::{App, Failure};

/// The other end of the connection; the server notes it in each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What a request needs to be allowed.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code)]
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
    /// Whom the token was made for.
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
            format!("the token of {self} does not allow create on {name}, and there is no such database yet"),
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
#[allow(clippy::unnecessary_wraps)]
pub(super) fn check(_app: &App, head: &Parts, _need: Need<'_>) -> Result<Caller, Failure> {
    let peer = head.extensions.get::<Peer>().map(|peer| peer.0);
    Ok(Caller { subject: None, peer, may_create: true })
}
