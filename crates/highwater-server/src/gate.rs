//! Which keys and which list of revoked tokens a server judges by.

use std::net::SocketAddr;
use std::path::PathBuf;

use highwater_auth::{Audience, Claims, KeySet, Refused, Revoked, Timestamp, Watched};
use highwater_ltx::planted;

use crate::{Clock, Error, Result};

/// Who may use a server. Without keys everyone who reaches it may do everything, so it serves this
/// machine only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// The file with the keys that tokens are checked with: a public key (PEM), a secret, or a JWKS.
    /// It is read again when it changes. Without it no token is asked for.
    pub keys: Option<PathBuf>,
    /// What the tokens' `aud` must name. Without it tokens must not name any.
    pub audience: Option<String>,
    /// The file that lists revoked tokens, one a line. It is read again when it changes, and may
    /// come into being later.
    pub revoked: Option<PathBuf>,
    /// Lets a server without keys listen on addresses that other machines can reach.
    pub open_to_network: bool,
}

impl AuthConfig {
    /// Tries to read what a server with these settings would read.
    ///
    /// # Errors
    /// [`Error::Auth`].
    pub fn check(&self) -> Result<()> {
        Gate::open(self, Clock::SYSTEM).map(drop)
    }
}

/// The judge of tokens.
#[derive(Debug)]
pub(crate) struct Gate {
    config: AuthConfig,
    clock: Clock,
    keys: Option<Watched<KeySet>>,
    revoked: Option<Watched<Revoked>>,
}

impl Gate {
    /// Reads the files.
    pub(crate) fn open(config: &AuthConfig, clock: Clock) -> Result<Self> {
        let keys = config.keys.as_deref().map(|path| Watched::open(path, None, KeySet::parse)).transpose()?;
        let revoked = config
            .revoked
            .as_deref()
            .map(|path| Watched::open(path, Some(Revoked::default()), Revoked::parse));
        Ok(Self { config: config.clone(), clock, keys, revoked: revoked.transpose()? })
    }

    /// Tells the log what is judged by.
    pub(crate) fn announce(&self) {
        let Some(keys) = &self.keys else { return };
        let file = keys.path().display();
        let set = keys.get();
        if set.holds_private() {
            tracing::warn!(%file, "the server has a private key, and needs only the public one: whoever gets it can make tokens");
        }
        let revoked = self.revoked.as_ref().map_or(0, |revoked| revoked.get().count());
        tracing::info!(%file, keys = set.count(), revoked, "tokens are asked for");
    }

    /// Whether no token is asked for.
    pub(crate) fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    /// What a token says, if it is accepted. (The files are looked at here, once a second at most: they are
    /// small and on a local disk.)
    pub(crate) fn claims(&self, token: &str) -> std::result::Result<Claims, Refused> {
        let Some(keys) = &self.keys else { return Err(Refused::Signature) };
        let audience = self.config.audience.as_deref().map_or(Audience::None, Audience::Named);
        let now = Timestamp(self.clock.since_1970().as_secs());
        let claims = match keys.get().verify(token, now, audience) {
            Err(Refused::Expired) if planted("ended-token-accepted") => {
                highwater_auth::unverified(token)?.claims
            }
            claims => claims?,
        };
        if self.revoked.as_ref().is_some_and(|revoked| revoked.get().names(&claims)) {
            return Err(Refused::Revoked);
        }
        Ok(claims)
    }

    /// Whether a server may listen there.
    pub(crate) fn may_listen(&self, addr: SocketAddr) -> Result<()> {
        if !self.is_open() || self.config.open_to_network || addr.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(Error::Unprotected { addr })
    }
}
