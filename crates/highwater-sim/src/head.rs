//! Flipped bits in what stands before a body: method, path, status, headers. A message is written down as HTTP/1.1 has
//! it, a bit becomes another, and it is read again, or is no message any more.

use bytes::Bytes;
use highwater::simulation::{Answered, Asked};
use highwater_wire::{BODY, CHECK, REQUEST_ID};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::dice::Dice;

/// A request with one other bit. None: it is none any more.
pub(crate) fn request(mut asked: Asked, dice: &mut Dice) -> Option<Asked> {
    let (before, path) = asked.url.split_once("://sim").map(|(before, path)| (before.to_owned(), path))?;
    let head = write(&format!("{} {path}", asked.method), &asked.headers);
    let (first, headers) = read(&flipped(head, dice))?;
    let (method, path) = first.split_once(' ')?;
    asked.method = Method::from_bytes(method.as_bytes()).ok()?;
    asked.url = format!("{before}://sim{path}");
    asked.headers = headers;
    let uri: http::Uri = asked.url.parse().ok()?;
    (path.starts_with('/') && uri.host() == Some("sim")).then_some(asked)
}

/// An answer with one other bit. None: it is none any more.
pub(crate) fn answer(mut answered: Answered, dice: &mut Dice) -> Option<Answered> {
    let head = write(answered.status.as_str(), &answered.headers);
    let (first, headers) = read(&flipped(head, dice))?;
    answered.status = StatusCode::from_bytes(first.as_bytes()).ok()?;
    answered.headers = headers;
    Some(answered)
}

/// What an HTTP server says by itself to what is no request.
pub(crate) fn no_http() -> Answered {
    let (headers, body) = (HeaderMap::new(), Bytes::new());
    Answered { status: StatusCode::BAD_REQUEST, headers, body, cut: false }
}

fn write(first: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut text = first.as_bytes().to_vec();
    for (name, value) in headers {
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
    }
    text
}

fn flipped(mut text: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let at = dice.index(text.len());
    let bit = dice.below(8);
    // What is random in every run must not say what becomes of it: with this bit every letter is none.
    let bit = if is_random(&text, at) { 7 } else { bit };
    if let Some(byte) = text.get_mut(at) {
        *byte ^= 1 << bit;
    }
    text
}

/// Whether a byte stands in the value of a header that no two runs share.
fn is_random(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    [AUTHORIZATION.as_str(), REQUEST_ID, BODY, CHECK]
        .iter()
        .any(|name| line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b": ")))
}

/// The first line, and the headers.
fn read(text: &[u8]) -> Option<(String, HeaderMap)> {
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = String::from_utf8(lines.next()?.to_vec()).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let value = value.get(1..)?.trim_ascii();
        headers.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some((first, headers))
}
