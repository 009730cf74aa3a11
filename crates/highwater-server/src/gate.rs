//! Which keys and which list of revoked tokens a server judges by.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::{Error, Result};

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

/// The judge of tokens.
#[derive(Debug)]
pub(crate) struct Gate {
    config: AuthConfig,
}

impl Gate {
    /// Reads the keys.
    pub(crate) fn open(config: &AuthConfig) -> Result<Self> {
        if config.keys.is_some() {
            return Err(Error::Run(std::io::Error::other("this version cannot check tokens yet")));
        }
        Ok(Self { config: config.clone() })
    }

    /// Whether a server may listen there.
    pub(crate) fn may_listen(&self, addr: SocketAddr) -> Result<()> {
        let AuthConfig { keys, open_to_network, .. } = &self.config;
        if keys.is_some() || *open_to_network || addr.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(Error::Unprotected { addr })
    }
}
