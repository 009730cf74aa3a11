//! The keys that a server checks tokens with.
//!
//! A file holds one or more keys, in one of three forms, told apart by how it begins:
//!
//! | form | begins with |
//! |---|---|
//! | PEM: Ed25519 public keys (a private one counts as its public half), one after the other | `-----BEGIN` |
//! | JWKS: Ed25519 (`OKP`) and HS256 (`oct`) keys; others in it are passed over | `{` |
//! | one HS256 secret, base64url | `hs256:` |
//!
//! A secret never is whatever a file happens to hold: a public key without its dashes would make
//! tokens that anyone can sign.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;

use crate::{Claims, KeyError, Refused, SigningKey, Timestamp, pem};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 << 10;
/// The most keys in a set: each costs a signature check for a token that no key fits.
const MAX_KEYS: usize = 32;
/// How a file with a secret begins.
pub(crate) const SECRET: &str = "hs256:";
/// The shortest secret, in bytes: as long as the hash (RFC 7518, 3.2).
pub(crate) const MIN_SECRET: usize = 32;

/// How far a token's beginning may lie ahead: clocks differ.
const AHEAD: Duration = Duration::from_secs(60);
/// How long a token is still taken after its end: on its way, it may have been valid.
const OVERDUE: Duration = Duration::from_secs(10);

/// Whom a server takes itself to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'a> {
    /// Nobody in particular: a token that is for somebody in particular is not for it.
    None,
    /// A token must name this one.
    Named(&'a str),
    /// Whoever the token is for: for looking at tokens, not for admitting them.
    Any,
}

/// One key, and the only algorithm that it is used with.
#[derive(Clone)]
pub(crate) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Key {
    pub(crate) fn ed25519(public: &[u8], id: Option<String>) -> Result<Self, KeyError> {
        let public: [u8; 32] =
            public.try_into().map_err(|_| KeyError::NotEd25519 { label: "OKP".to_owned() })?;
        Ok(Self { id, algorithm: Algorithm::EdDSA, key: DecodingKey::from_ed_der(&public) })
    }

    pub(crate) fn secret(secret: &[u8], id: Option<String>) -> Result<Self, KeyError> {
        if secret.len() < MIN_SECRET {
            return Err(KeyError::Short { min: MIN_SECRET });
        }
        Ok(Self { id, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) })
    }

    /// Whether a token with this header may be this key's. A token that names a key means that
    /// one, or one without a name.
    fn fits(&self, header: &Header) -> bool {
        let named = match (&header.kid, &self.id) {
            (Some(asked), Some(id)) => asked == id,
            _ => true,
        };
        named && header.alg == self.algorithm
    }
}

/// The keys that tokens are checked with.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<Key>,
    private: bool,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| (key.algorithm, key.id.as_deref()));
        f.debug_list().entries(ids).finish()
    }
}

impl KeySet {
    pub(crate) fn of(key: Key) -> Self {
        Self { keys: vec![key], private: false }
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let begins = |with: &str| text.trim_start().starts_with(with);
        let mut set = if begins("{") {
            Self { keys: of_jwks(text)?, private: false }
        } else if let Some(secret) = secret(text)? {
            Self { keys: vec![Key::secret(&secret, None)?], private: false }
        } else {
            of_pem(text)?
        };
        if set.keys.len() > MAX_KEYS {
            return Err(KeyError::TooMany { max: MAX_KEYS });
        }
        set.keys.shrink_to_fit();
        Ok(set)
    }

    /// How many keys there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whether the file holds a private key, of which checking needs only the public half.
    #[must_use]
    pub fn holds_private(&self) -> bool {
        self.private
    }

    /// Checks signature, time and audience, in this order.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub fn verify(&self, token: &str, now: Timestamp, audience: Audience<'_>) -> Result<Claims, Refused> {
        let claims = self.signed(token)?;
        in_time(&claims, now)?;
        let meant = match audience {
            Audience::Any => true,
            Audience::None => claims.audience.is_empty(),
            Audience::Named(name) => claims.audience.iter().any(|meant| meant == name),
        };
        if meant { Ok(claims) } else { Err(Refused::Audience) }
    }

    /// Checks the signature only.
    ///
    /// # Errors
    /// [`Refused::TooLong`], [`Refused::NotAToken`], [`Refused::Signature`], [`Refused::Claims`].
    pub fn signed(&self, token: &str) -> Result<Claims, Refused> {
        let header = header(token)?;
        for key in self.keys.iter().filter(|key| key.fits(&header)) {
            let mut validation = Validation::new(key.algorithm);
            // What the claims mean is judged by `verify`, by its own clock.
            validation.required_spec_claims.clear();
            validation.validate_exp = false;
            validation.validate_aud = false;
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => match error.into_kind() {
                    // Only what is signed is ever decoded.
                    ErrorKind::Json(error) => return Err(Refused::Claims { what: error.to_string() }),
                    ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => {
                        return Err(Refused::NotAToken);
                    }
                    _ => {}
                },
            }
        }
        Err(Refused::Signature)
    }
}

/// Judges when a token is valid.
fn in_time(claims: &Claims, now: Timestamp) -> Result<(), Refused> {
    let latest = now.after(AHEAD);
    if claims.not_before.into_iter().chain(claims.issued).any(|begins| begins > latest) {
        return Err(Refused::NotYet);
    }
    if claims.expires.is_some_and(|expires| expires.after(OVERDUE) <= now) {
        return Err(Refused::Expired);
    }
    Ok(())
}

fn header(token: &str) -> Result<Header, Refused> {
    if token.len() > MAX_TOKEN {
        return Err(Refused::TooLong { max: MAX_TOKEN });
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::NotAToken)?;
    // Conditions that must be understood, and none is.
    if header.crit.is_some() { Err(Refused::NotAToken) } else { Ok(header) }
}

/// What a token says, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    /// The algorithm of its header.
    pub algorithm: String,
    /// The key that its header names.
    pub key_id: Option<String>,
    /// Its claims.
    pub claims: Claims,
}

impl Unverified {
    /// Whether the time is right for it.
    ///
    /// # Errors
    /// [`Refused::NotYet`], [`Refused::Expired`].
    pub fn in_time(&self, now: Timestamp) -> Result<(), Refused> {
        in_time(&self.claims, now)
    }
}

/// Reads a token without checking anything: for showing it, never for admitting anybody.
///
/// # Errors
/// [`Refused::TooLong`], [`Refused::NotAToken`], [`Refused::Claims`].
pub fn unverified(token: &str) -> Result<Unverified, Refused> {
    let header = header(token)?;
    match jsonwebtoken::dangerous::insecure_decode::<Claims>(token) {
        Ok(data) => {
            Ok(Unverified { algorithm: format!("{:?}", header.alg), key_id: header.kid, claims: data.claims })
        }
        Err(error) => Err(match error.into_kind() {
            ErrorKind::Json(error) => Refused::Claims { what: error.to_string() },
            _ => Refused::NotAToken,
        }),
    }
}

/// The secret in a file's content, if it has one.
pub(crate) fn secret(text: &str) -> Result<Option<Vec<u8>>, KeyError> {
    let Some(encoded) = text.trim().strip_prefix(SECRET) else { return Ok(None) };
    let secret = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).map_err(|_| KeyError::Unknown)?;
    if secret.len() < MIN_SECRET { Err(KeyError::Short { min: MIN_SECRET }) } else { Ok(Some(secret)) }
}

fn of_pem(text: &str) -> Result<KeySet, KeyError> {
    let (mut keys, mut private) = (Vec::new(), false);
    for block in pem::blocks(text) {
        let not_ed25519 = || KeyError::NotEd25519 { label: block.label.to_owned() };
        match block.label {
            pem::PUBLIC => {
                let public = block.der.as_deref().and_then(pem::of_spki).ok_or_else(not_ed25519)?;
                keys.push(Key::ed25519(&public, None)?);
            }
            pem::PRIVATE => {
                let der = block.der.as_deref().ok_or_else(not_ed25519)?;
                keys.extend(SigningKey::parse(&pem::write(pem::PRIVATE, der))?.checks().keys);
                private = true;
            }
            label => return Err(KeyError::Kind { found: label.chars().take(40).collect() }),
        }
    }
    if keys.is_empty() { Err(KeyError::Unknown) } else { Ok(KeySet { keys, private }) }
}

/// The fields of a JWK (RFC 7517) that matter here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    k: Option<String>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

fn of_jwks(text: &str) -> Result<Vec<Key>, KeyError> {
    let wrong = |what: String| KeyError::Jwks { what };
    // The message names a place and a field, never a value that could be a secret.
    let set: Jwks = serde_json::from_str(text).map_err(|error| {
        wrong(format!("the JSON is not as expected at line {}, column {}", error.line(), error.column()))
    })?;
    let mut keys = Vec::new();
    for (at, jwk) in set.keys.into_iter().enumerate() {
        if jwk.purpose.is_some_and(|purpose| purpose != "sig") {
            continue;
        }
        let is = |algorithms: &[&str]| jwk.alg.as_deref().is_none_or(|alg| algorithms.contains(&alg));
        let bytes = |value: Option<String>| {
            value
                .and_then(|value| URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).ok())
                .ok_or_else(|| wrong(format!("key {} has no value in base64url", at + 1)))
        };
        match jwk.kty.as_str() {
            "OKP" if jwk.crv.as_deref() == Some("Ed25519") && is(&["EdDSA", "Ed25519"]) => {
                keys.push(Key::ed25519(&bytes(jwk.x)?, jwk.kid)?);
            }
            "oct" if is(&["HS256"]) => keys.push(Key::secret(&bytes(jwk.k)?, jwk.kid)?),
            _ => {}
        }
    }
    if keys.is_empty() { Err(KeyError::NoneUsable) } else { Ok(keys) }
}
