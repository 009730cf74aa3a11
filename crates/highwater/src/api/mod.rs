//! The requests of the native protocol, with retries: from a [`Remote`] and a token to typed
//! answers and errors.
//!
//! A file for each verb: [`read`] asks, [`locate`] looks a file up, [`sync`] pushes and pulls. All of them
//! go through [`send`], which tries again, and [`explain`] says why one was refused.
//!
//! A retry is always safe: the server recognises a state that it already has by its content.

mod explain;
mod locate;
mod read;
mod send;
mod sync;

use std::cell::Cell;
use std::io::Read;
use std::time::Instant;

use highwater_ltx::DeviceId;
use highwater_wire::Remote;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use self::explain::Refused;
pub(crate) use self::locate::Located;
pub(crate) use self::send::PreparedBody;
pub(crate) use self::sync::SyncAnswer;
pub(crate) use crate::claim::{Claim, Sender};
use crate::error::Result;
use crate::receive::plain_body;
use crate::transport::{Response, Transport};

/// JSON answers are small; more than this is not one of ours.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// One database on one server, for the duration of one operation.
pub(crate) struct Api<'a> {
    pub(crate) transport: &'a dyn Transport,
    pub(crate) remote: &'a Remote,
    pub(crate) token: Option<&'a str>,
    pub(crate) device: Option<DeviceId>,
    /// When to give up on a failing network.
    pub(crate) deadline: Instant,
    /// Requests made so far.
    pub(crate) requests: Cell<u32>,
    /// Whether any attempt of the last request may have reached the server.
    pub(crate) delivered: Cell<bool>,
    /// Whether an answer without a seal was asked for once more already, and is taken as it is from then on.
    pub(crate) bare: Cell<bool>,
    /// Whether a token was refused and sent once more already.
    pub(crate) denied: Cell<bool>,
    /// Whether one before the last may have: then what the last one was told is not the whole truth.
    pub(crate) repeated: Cell<bool>,
}

impl Api<'_> {
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(token) = self.token {
            set(&mut headers, AUTHORIZATION.as_str(), &format!("Bearer {token}"));
            // Whatever shows headers does not show it.
            headers.get_mut(AUTHORIZATION).into_iter().for_each(|value| value.set_sensitive(true));
        }
        if let Some(device) = self.device {
            set(&mut headers, highwater_wire::DEVICE, &device.to_string());
        }
        headers
    }

    /// The body of an answer, decompressed.
    pub(crate) fn plain_body<'r>(&self, answer: &'r mut Response) -> Box<dyn Read + 'r> {
        plain_body(&answer.headers, &mut answer.body)
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, mut answer: Response) -> Result<T> {
        let mut bytes = Vec::new();
        let body = self.plain_body(&mut answer);
        body.take(MAX_JSON_BYTES).read_to_end(&mut bytes).map_err(|error| self.cut(&error))?;
        serde_json::from_slice(&bytes).map_err(|_| self.strange("its JSON is not what was asked for"))
    }
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}
