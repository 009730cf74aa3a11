//! A simulated world instead of network and clock, so that whole runs of several devices can be repeated from one seed.
//!
//! The world sees each request whole and gives each answer whole, or broken off at a chosen byte. A sync asks it
//! for nothing in parallel: between two calls it computes, and when it waits, it waits in one of these calls.
//!
//! What does not go through here: file times, by which a capture decides whether it must read a file, but not what
//! it finds; and the quarter of a second for which an application that never pauses is held back.

use std::fmt::Debug;
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use highwater_ltx::DeviceId;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::oneshot;

use crate::transport::{Body, BodyReader, InFlight, NetworkError, Request, Response, Transport};

/// What a request says.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The verb.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// All headers that the client sets itself.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// What comes back.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, or what arrived of it.
    pub body: Bytes,
    /// Whether the connection broke behind the body's last byte.
    pub cut: bool,
}

/// No answer came.
#[derive(Debug, Clone)]
pub struct Unanswered {
    /// Why, in words.
    pub reason: String,
    /// Whether no connection came about, so that the server has certainly seen nothing.
    pub connecting: bool,
}

/// What stands in for network and clock.
pub trait World: Send + Sync + Debug {
    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// When none comes.
    fn exchange(&self, asked: Asked) -> Result<Answered, Unanswered>;

    /// The clock that deadlines are kept by.
    fn now(&self) -> Instant;

    /// Waits.
    fn pause(&self, time: Duration);

    /// Some number that spreads out what would else happen at once.
    fn chance(&self) -> u8;
}

/// The world as the client's transport.
#[derive(Debug)]
pub(crate) struct Simulated(pub(crate) Arc<dyn World>);

impl Transport for Simulated {
    fn start(&self, request: Request) -> InFlight {
        let (sender, answer) = oneshot::channel();
        let world = Arc::clone(&self.0);
        // The body may be produced by the caller of this: only another thread can wait for it.
        std::thread::spawn(move || {
            let answered = world.exchange(whole(request));
            // Whoever asked may be gone.
            let _ = sender.send(answered.map(answer_of).map_err(error_of));
        });
        InFlight::new(answer)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn pause(&self, time: Duration) {
        self.0.pause(time);
    }

    fn chance(&self) -> u8 {
        self.0.chance()
    }

    fn device(&self) -> crate::Result<DeviceId> {
        Ok(DeviceId(u128::from_be_bytes(std::array::from_fn(|_| self.0.chance()))))
    }
}

fn whole(request: Request) -> Asked {
    let body = match request.body {
        Body::Empty => Bytes::new(),
        Body::Whole(bytes) => bytes,
        Body::Streamed(mut chunks) => {
            let mut all = BytesMut::new();
            while let Some(chunk) = chunks.blocking_recv() {
                all.extend_from_slice(&chunk);
            }
            all.freeze()
        }
    };
    Asked { method: request.method, url: request.url, headers: request.headers, body }
}

fn answer_of(answered: Answered) -> Response {
    let broken = answered.cut.then(|| Error::new(ErrorKind::ConnectionReset, "connection reset"));
    let body = BodyReader::of(answered.body, broken);
    Response { status: answered.status, headers: answered.headers, body }
}

fn error_of(unanswered: Unanswered) -> NetworkError {
    NetworkError { reason: unanswered.reason, connecting: unanswered.connecting, foreign: false }
}
