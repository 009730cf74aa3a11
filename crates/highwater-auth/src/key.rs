//! Keys that sign, and how keys are made.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use crate::keyset::{Key, MIN_SECRET, SECRET};
use crate::{Claims, KeyError, KeySet, Token, pem};

/// A key that makes tokens.
#[derive(Clone)]
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
    /// The file's content.
    text: String,
    check: Key,
}

/// A key that makes tokens, and the key that checks them.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// For whoever makes tokens.
    pub private: SigningKey,
    /// For servers.
    pub public: KeySet,
    /// The public key as PEM.
    pub public_text: String,
}

impl KeyPair {
    /// A new Ed25519 pair.
    ///
    /// # Errors
    /// [`KeyError::Crypto`].
    pub fn generate() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Crypto)?;
        let der = pair.to_pkcs8v1().map_err(|_| KeyError::Crypto)?;
        let private = SigningKey::of_der(der.as_ref())?;
        let public_text = pem::write(pem::PUBLIC, &pem::spki(pair.public_key().as_ref()));
        Ok(Self { public: private.checks(), private, public_text })
    }
}

impl SigningKey {
    /// A new secret for HS256. Whoever can check its tokens can also make some.
    ///
    /// # Errors
    /// [`KeyError::Crypto`].
    pub fn generate_secret() -> Result<Self, KeyError> {
        let mut bytes = [0; MIN_SECRET];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Crypto)?;
        Self::parse(&format!("{SECRET}{}\n", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads a file's content: an Ed25519 private key as PEM, or a secret.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if let Some(secret) = crate::keyset::secret(text)? {
            let key = EncodingKey::from_secret(&secret);
            let check = Key::secret(&secret, None)?;
            return Ok(Self { algorithm: Algorithm::HS256, key, text: text.to_owned(), check });
        }
        let block = pem::blocks(text).next().ok_or(KeyError::Unknown)?;
        match (block.label, block.der) {
            (pem::PRIVATE, Some(der)) => Self::of_der(&der),
            (pem::PUBLIC, _) => Err(KeyError::OnlyPublic),
            (pem::PRIVATE, None) => Err(KeyError::NotEd25519 { label: block.label.to_owned() }),
            (label, _) => Err(KeyError::Kind { found: label.chars().take(40).collect() }),
        }
    }

    fn of_der(der: &[u8]) -> Result<Self, KeyError> {
        let not_ed25519 = |_| KeyError::NotEd25519 { label: pem::PRIVATE.to_owned() };
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(not_ed25519)?;
        Ok(Self {
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(der),
            text: pem::write(pem::PRIVATE, der),
            check: Key::ed25519(pair.public_key().as_ref(), None)?,
        })
    }

    /// What its file holds. Whoever reads it can make tokens.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// The keys that check what it signs: the one.
    #[must_use]
    pub fn checks(&self) -> KeySet {
        KeySet::of(self.check.clone())
    }

    /// The algorithm's name, as in a token's header.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        if self.algorithm == Algorithm::HS256 { "HS256" } else { "EdDSA" }
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`KeyError::Crypto`].
    pub fn sign(&self, claims: &Claims) -> Result<Token, KeyError> {
        let token = jsonwebtoken::encode(&Header::new(self.algorithm), claims, &self.key);
        token.map(Token::from).map_err(|_| KeyError::Crypto)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
