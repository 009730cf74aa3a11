//! Ed25519 keys as PEM: PKCS#8 (RFC 8410) for the private, SubjectPublicKeyInfo for the public one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(crate) const PRIVATE: &str = "PRIVATE KEY";
pub(crate) const PUBLIC: &str = "PUBLIC KEY";

/// Characters of base64 in a line.
const LINE: usize = 64;

/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo: a sequence of the
/// algorithm's identifier (1.3.101.112) and a bit string.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A block between two lines of dashes; None: it cannot be decoded.
pub(crate) struct Block<'a> {
    pub(crate) label: &'a str,
    pub(crate) der: Option<Vec<u8>>,
}

/// Every block of a text, in order.
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    text.split("-----BEGIN ").skip(1).filter_map(|rest| {
        let (label, rest) = rest.split_once("-----")?;
        let body = rest.split_once("-----END ").map(|(body, _)| body);
        let packed: Option<String> = body.map(|body| body.chars().filter(|c| !c.is_whitespace()).collect());
        Some(Block { label, der: packed.and_then(|packed| STANDARD.decode(packed).ok()) })
    })
}

/// A block as text.
pub(crate) fn write(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = STANDARD.encode(der);
    while !rest.is_empty() {
        let after = rest.split_off(rest.len().min(LINE));
        text.push_str(&rest);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The 32 bytes of a public key as a SubjectPublicKeyInfo.
pub(crate) fn spki(public: &[u8]) -> Vec<u8> {
    [&SPKI, public].concat()
}

/// The 32 bytes within a SubjectPublicKeyInfo.
pub(crate) fn of_spki(der: &[u8]) -> Option<[u8; 32]> {
    der.strip_prefix(&SPKI)?.try_into().ok()
}
