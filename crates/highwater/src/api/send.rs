//! Sending, and sending again: which answers are believed, which are waited out, and for how long.

use std::time::Duration;

use highwater_wire::{Check, ErrorCode};
use http::header::{ACCEPT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};

use super::{Api, Refused, set};
use crate::error::Result;
use crate::seal;
use crate::transport::{Body, InFlight, NetworkError, Request, Response};

/// How often a server is tried that cannot be connected to, or that fails by itself.
const FEW_ATTEMPTS: u32 = 3;
/// The first pause between two attempts; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer, whatever the server asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A body, and the work that fills it while it is being sent.
pub(crate) struct PreparedBody<'a> {
    pub(crate) body: Body,
    pub(crate) produce: Option<Box<dyn FnOnce() -> Result<()> + 'a>>,
}

impl Api<'_> {
    pub(crate) fn get(&self, url: &str) -> Result<Response, Refused> {
        let mut headers = self.headers();
        set(&mut headers, ACCEPT_ENCODING.as_str(), highwater_wire::ZSTD);
        self.send(&Method::GET, url, &headers, &mut || Body::Empty)
    }

    pub(crate) fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        body: &mut dyn FnMut() -> Body,
    ) -> Result<Response, Refused> {
        self.send_producing(method, url, headers, &mut || PreparedBody { body: body(), produce: None })
    }

    /// Sends until there is an answer that a retry would not change.
    pub(super) fn send_producing<'b>(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        body: &mut dyn FnMut() -> PreparedBody<'b>,
    ) -> Result<Response, Refused> {
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        self.delivered.set(false);
        loop {
            self.repeated.set(self.delivered.get());
            let mut wait = jitter(pause, self.transport.chance());
            attempts += 1;
            let answer = self.attempt_producing(method, url, headers, body())?;
            if !matches!(&answer, Err(error) if error.connecting) {
                self.delivered.set(true);
            }
            let in_time = self.transport.now() + wait < self.deadline;
            let (refused, few) = match answer {
                Ok(answer) if in_time && self.is_doubtful(&answer) => {
                    tracing::debug!(%url, attempts, "something else than the server may have answered; asking again");
                    self.transport.pause(wait);
                    continue;
                }
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer) if is_passing(answer.status) => {
                    wait = retry_after(&answer.headers).unwrap_or(wait);
                    let failed = answer.status == StatusCode::INTERNAL_SERVER_ERROR;
                    let refused = self.refused(answer);
                    // If every request arrives damaged it is no accident.
                    let few = failed
                        || matches!(&refused, Refused::Told(_, body) if body.code == ErrorCode::Damaged);
                    (refused, few)
                }
                Ok(answer) => return Err(self.refused(answer)),
                Err(error) => (Refused::Failed(self.unreached(&error)), error.connecting || error.foreign),
            };
            if self.transport.now() + wait >= self.deadline || few && attempts >= FEW_ATTEMPTS {
                return Err(refused);
            }
            tracing::debug!(%url, attempts, wait_ms = wait.as_millis(), "the request failed and is tried again");
            self.transport.pause(wait);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether an answer is asked for once more before it is believed. One without a seal may be of a server that
    /// does not know of seals, or of a proxy; and one bit less in the token makes it another.
    fn is_doubtful(&self, answer: &Response) -> bool {
        if is_passing(answer.status) {
            return false;
        }
        let denied = answer.status == StatusCode::UNAUTHORIZED && self.remote.as_str().starts_with("http://");
        seal::is_bare(answer) && !self.bare.replace(true) || denied && !self.denied.replace(true)
    }

    pub(super) fn attempt(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, NetworkError> {
        let (in_flight, check) = self.start(method, url, headers, body);
        seal::proven(in_flight.wait()?, check)
    }

    fn attempt_producing(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        prepared: PreparedBody<'_>,
    ) -> Result<Result<Response, NetworkError>> {
        let Some(produce) = prepared.produce else {
            return Ok(self.attempt(method, url, headers, prepared.body));
        };
        let (in_flight, check) = self.start(method, url, headers, prepared.body);
        produce()?;
        Ok(in_flight.wait().and_then(|answer| seal::proven(answer, check)))
    }

    fn start(&self, method: &Method, url: &str, headers: &HeaderMap, body: Body) -> (InFlight, Check) {
        self.requests.set(self.requests.get() + 1);
        let (method, headers) = (method.clone(), headers.clone());
        let mut request = Request { method, url: url.to_owned(), headers, body };
        let check = seal::seal(&mut request);
        (self.transport.start(request), check)
    }
}

/// Whether the same request may succeed a little later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// How long the server asks to wait.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// Between half and all of a pause, so that clients that failed together do not return together.
fn jitter(pause: Duration, chance: u8) -> Duration {
    pause / 2 + pause / 2 * u32::from(chance) / 256
}
