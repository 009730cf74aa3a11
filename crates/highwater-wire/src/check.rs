//! Checksums over what a request and an answer say beside their bodies: over plain HTTP nothing else protects that.
//!
//! The text that is summed is canonical, so that what proxies may do to a message does not change it: header names
//! are in lower case and sorted, values lose the white space around them and around commas, and values of one name are
//! joined by commas. A path is not compared in whole: a proxy may have removed a prefix of it ([`arrived_as_sent`]).
//!
//! ```text
//! request                      answer
//! POST                         200
//! content-encoding:zstd        0123456789abcdef          (the check of the request, or nothing)
//! highwater-base:1/9/…         highwater-body:own
//! …                            …
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use highwater_ltx::InvalidUnit;
use twox_hash::XxHash3_64;

/// Request and response: the [`Check`] of everything that this module covers.
pub const CHECK: &str = "highwater-check";
/// Request and response: what the body is: [`NO_BODY`], [`OWN_CHECKS`], or its [`Check`] as it crosses the network.
pub const BODY: &str = "highwater-body";
/// Request: path and query as the client sends them.
pub const PATH: &str = "highwater-path";
/// In [`BODY`]: there is none.
pub const NO_BODY: &str = "none";
/// In [`BODY`]: it carries checksums of its own, as LTX files and page sums do.
pub const OWN_CHECKS: &str = "own";

/// What the names of all headers of the protocol begin with.
const OURS: &str = "highwater-";
/// Without it a body is read wrongly.
const ENCODING: &str = "content-encoding";

/// A checksum, 16 hex digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check(u64);

impl Check {
    /// Of a request with this method and these headers.
    pub fn of_request<'a>(method: &str, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        Self::of_text(format!("request\n{method}\n").into_bytes(), headers)
    }

    /// Of an answer with this status and these headers, to a request with this check.
    pub fn of_answer<'a>(
        request: Option<Self>,
        status: u16,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let request = request.map(|check| check.to_string()).unwrap_or_default();
        Self::of_text(format!("answer\n{status}\n{request}\n").into_bytes(), headers)
    }

    /// Of a body in these pieces, as it crosses the network.
    pub fn of_body<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> Self {
        let mut hasher = XxHash3_64::new();
        pieces.for_each(|piece| hasher.write(piece));
        Self(hasher.finish())
    }

    fn of_text<'a>(mut text: Vec<u8>, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut covered: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            if name == CHECK || !(name.starts_with(OURS) || name == ENCODING) {
                continue;
            }
            let parts: Vec<&[u8]> = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
            let values = covered.entry(name).or_default();
            if !values.is_empty() {
                values.push(b',');
            }
            values.extend(parts.join(&b','));
        }
        for (name, value) in covered {
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            text.extend_from_slice(&value);
            text.push(b'\n');
        }
        Self(XxHash3_64::oneshot(&text))
    }
}

/// Whether a request for `arrived` can be the one that was sent for `sent`: between the two a proxy may have removed
/// the beginning of the path, up to a slash.
#[must_use]
pub fn arrived_as_sent(sent: &[u8], arrived: &[u8]) -> bool {
    arrived.starts_with(b"/") && sent.ends_with(arrived)
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Check {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = || InvalidUnit { value: text.to_owned(), expected: "a checksum (16 hex digits)" };
        let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if digits { u64::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Check {
        Check::of_request("POST", headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn what_proxies_may_do_to_headers_changes_no_check() {
        let sent = request(&[(BODY, "own"), ("highwater-pending", "a,b,c"), ("content-encoding", "zstd")]);
        for arrived in [
            &[("Content-Encoding", "zstd"), ("Highwater-Pending", "a, b , c"), ("Highwater-Body", " own ")][..],
            &[
                ("highwater-pending", "a"),
                (BODY, "own"),
                ("highwater-pending", "b, c"),
                ("content-encoding", "zstd"),
            ],
            &[
                (CHECK, "1"),
                ("via", "x"),
                ("highwater-pending", "a,b,c"),
                (BODY, "own"),
                ("content-encoding", "zstd"),
            ],
        ] {
            assert_eq!(request(arrived), sent, "{arrived:?}");
        }
    }

    #[test]
    fn every_other_value_name_method_status_and_request_is_another_check() {
        let headers = || [("highwater-base", b"1/9/ab".as_slice())].into_iter();
        let mut all = vec![
            request(&[]),
            request(&[("highwater-base", "1/9/ab")]),
            request(&[("highwater-base", "1/9/aa")]),
            request(&[("highwater-basf", "1/9/ab")]),
            request(&[("highwater-base", "1/9/ab"), ("highwater-doubt", "1")]),
            request(&[("highwater-base", "1/9/ab,")]),
            Check::of_request("GET", headers()),
            Check::of_answer(None, 200, headers()),
            Check::of_answer(None, 201, headers()),
            Check::of_answer(Some(Check(1)), 200, headers()),
            Check::of_answer(Some(Check(2)), 200, headers()),
        ];
        let count = all.len();
        all.sort_by_key(|check| check.0);
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_path_may_lose_a_prefix_and_nothing_else() {
        let sent = b"/prefix/team/app/v1/log?limit=3";
        for arrived in ["/prefix/team/app/v1/log?limit=3", "/team/app/v1/log?limit=3", "/app/v1/log?limit=3"]
        {
            assert!(arrived_as_sent(sent, arrived.as_bytes()), "{arrived}");
        }
        for arrived in [
            "/team/apq/v1/log?limit=3",
            "/team/app/v1/log",
            "pp/v1/log?limit=3",
            "/x/team/app/v1/log?limit=3",
            "",
        ] {
            assert!(!arrived_as_sent(sent, arrived.as_bytes()), "{arrived}");
        }
    }

    #[test]
    fn a_check_is_sixteen_digits_and_nothing_else() {
        let check = Check::of_body([b"bo".as_slice(), b"dy"].into_iter());
        assert_eq!(check, Check::of_body([b"body".as_slice()].into_iter()));
        assert_eq!(check.to_string().parse(), Ok(check));
        for text in ["", "1", "+123456789abcdef", "0123456789ABCDEF", "0123456789abcdef0", "0123456789abcdeg"]
        {
            assert!(text.parse::<Check>().is_err(), "{text}");
        }
    }
}
