//! Who may do what on a Highwater server: keys, tokens, and the claims within them.
//!
//! | task | use |
//! |---|---|
//! | make keys | [`KeyPair::generate`], [`SigningKey::generate_secret`] |
//! | make a token | [`Claims`], [`SigningKey::sign`] |
//! | check a token | [`KeySet::verify`], then [`Revoked::names`], then [`Grant::allows`] |
//! | look into a token without a key | [`unverified`] |
//! | follow a file that an operator changes | [`Watched`] |
//!
//! Invariants
//! - The algorithm belongs to the key, never to the token: an Ed25519 key checks EdDSA and nothing
//!   else, a secret checks HS256 and nothing else.
//! - Nothing of a token is believed before its signature is.
//! - Neither a token nor a key is ever shown by `Debug` or `Display`, nor is it part of an error.
//!
//! What stands in tokens and files is described in `docs/AUTHENTICATION.md`. Not here: HTTP, and
//! where keys and tokens are kept.
//!
//! ```
//! use highwater_auth::{Access, Audience, Claims, KeyPair, Timestamp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pair = KeyPair::generate()?;
//! let now = Timestamp::now();
//! let mut claims = Claims::new("alice", now);
//! claims.grant.databases.push("team/*".parse()?);
//! claims.grant.access.insert(Access::Read);
//! let token = pair.private.sign(&claims)?;
//!
//! let verified = pair.public.verify(token.reveal(), now, Audience::None)?;
//! assert!(verified.grant.allows(Access::Read, &"team/app".parse()?));
//! assert!(!verified.grant.allows(Access::Write, &"team/app".parse()?));
//! # Ok(())
//! # }
//! ```

mod access;
mod claims;
mod error;
mod key;
mod keyset;
mod pem;
mod revoked;
mod time;
mod token;
mod watch;

pub use access::{Access, Grant, InvalidAccess, InvalidPattern, Pattern};
pub use claims::Claims;
pub use error::{KeyError, Refused};
pub use key::{KeyPair, SigningKey};
pub use keyset::{Audience, KeySet, MAX_TOKEN, Unverified, unverified};
pub use revoked::{Revoked, RevokedError};
pub use time::Timestamp;
pub use token::Token;
pub use watch::{Watched, WatchedError};
