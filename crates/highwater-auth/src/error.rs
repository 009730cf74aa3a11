//! Why a token is not accepted, and why a key cannot be used. Neither ever holds the token or key.

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Longer than any token is.
    #[error("the token is longer than {max} bytes; make one with `highwater token create`")]
    TooLong {
        /// The longest that is looked at, in bytes.
        max: usize,
    },
    /// No JSON Web Token.
    #[error("what was given is not a token; make one with `highwater token create`")]
    NotAToken,
    /// No key fits.
    #[error("the token is not signed by a key of this server; ask its operator for one")]
    Signature,
    /// Past its end.
    #[error("the token has expired; ask for a new one")]
    Expired,
    /// Before its beginning.
    #[error("the token is not valid yet; compare the clocks of this server and of whoever made it")]
    NotYet,
    /// Made for another server.
    #[error("the token is for another audience than this server; ask for one that is for this server")]
    Audience,
    /// Taken back.
    #[error("the token was revoked; ask for a new one")]
    Revoked,
    /// Well signed, but its claims cannot be read.
    #[error("the token's claims cannot be used ({what}); ask for a new one")]
    Claims {
        /// What is wrong with them.
        what: String,
    },
}

impl Refused {
    /// A stable word for it, for counting.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::NotAToken => "not_a_token",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Audience => "audience",
            Self::Revoked => "revoked",
            Self::Claims { .. } => "claims",
        }
    }
}

/// Why a key cannot be made or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a file of keys.
    #[error(
        "it holds no key: neither PEM, nor a JWKS, nor a secret that begins with `hs256:`; make one with `highwater keygen`"
    )]
    Unknown,
    /// PEM of another kind.
    #[error("it holds {found:?}, and only Ed25519 keys can be used; make one with `highwater keygen`")]
    Kind {
        /// The label between the dashes.
        found: String,
    },
    /// PEM that cannot be decoded, or a key of another algorithm.
    #[error("its {label} is not an Ed25519 key; make one with `highwater keygen`")]
    NotEd25519 {
        /// The label between the dashes.
        label: String,
    },
    /// Not the JSON of a JWKS.
    #[error("it is not a JWKS: {what}")]
    Jwks {
        /// What is wrong, in words.
        what: String,
    },
    /// A JWKS of other algorithms only.
    #[error("none of its keys is for EdDSA (kty OKP, crv Ed25519) or HS256 (kty oct)")]
    NoneUsable,
    /// Too short a secret.
    #[error(
        "its secret is shorter than {min} bytes, so it could be guessed; make one with `highwater keygen --hs256`"
    )]
    Short {
        /// The least, in bytes.
        min: usize,
    },
    /// More keys than anyone rotates.
    #[error("it holds more than {max} keys; remove old ones")]
    TooMany {
        /// The most.
        max: usize,
    },
    /// A public key where a private one is needed.
    #[error("it holds a public key, which signs nothing; name the private key")]
    OnlyPublic,
    /// AWS-LC failed.
    #[error("the key could not be made or used")]
    Crypto,
}
