//! One HTTP request and its answer: what the rest of the client knows of the network.
//!
//! The sync itself is blocking code on a thread of its own (SQLite is blocking); the network is
//! asynchronous and lives on one small runtime that all databases of the process share. Bodies
//! cross between the two through bounded channels, so memory stays bounded in both directions.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_ltx::DeviceId;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

/// How many chunks of a body may wait between the two sides.
const CHUNKS_IN_FLIGHT: usize = 8;
/// Received chunks are gathered up to this many bytes before they cross.
const GATHER_BYTES: usize = 256 << 10;
/// For each so many bytes sent, the server may be silent for one idle timeout more.
const BYTES_PER_EXTRA_PERIOD: u64 = 256 << 20;
/// But never for more than so many.
const MOST_EXTRA_PERIODS: u64 = 10;
/// Larger bodies are given to the connection in pieces of this size, so that it shows whether they move.
const PIECE_BYTES: usize = 64 << 10;

/// A failure below HTTP.
#[derive(Debug, Clone)]
pub(crate) struct NetworkError {
    /// The innermost cause, in words.
    pub(crate) reason: String,
    /// Whether no connection came about, so that the server has certainly seen nothing.
    pub(crate) connecting: bool,
    /// Whether something answered that does not speak the URL's language.
    pub(crate) foreign: bool,
}

/// What is sent along.
#[derive(Debug)]
pub(crate) enum Body {
    Empty,
    Whole(Bytes),
    Streamed(mpsc::Receiver<Bytes>),
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// An answer whose body is read as it arrives.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyReader,
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct InFlight(oneshot::Receiver<Result<Response, NetworkError>>);

impl InFlight {
    /// A request whose answer comes from elsewhere than the network.
    #[cfg(feature = "simulation")]
    pub(crate) fn new(answer: oneshot::Receiver<Result<Response, NetworkError>>) -> Self {
        Self(answer)
    }

    /// Waits for the head of the answer.
    pub(crate) fn wait(self) -> Result<Response, NetworkError> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(broken("the network task ended early")))
    }
}

/// Sends requests.
pub(crate) trait Transport: Send + Sync + std::fmt::Debug {
    /// Begins a request; its body may still be produced.
    fn start(&self, request: Request) -> InFlight;

    /// The clock that deadlines are kept by.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Waits between two attempts.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// A new identity for a copy.
    fn device(&self) -> crate::Result<DeviceId> {
        crate::device::random()
    }

    /// Some number, so that clients that failed together do not return together.
    fn chance(&self) -> u8 {
        let mut byte = [0_u8; 1];
        if getrandom::fill(&mut byte).is_ok() { byte[0] } else { 0 }
    }
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For a connection.
    pub(crate) connect: Duration,
    /// For the next byte.
    pub(crate) idle: Duration,
}

/// HTTP over TCP and TLS.
#[derive(Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    idle: Duration,
}

impl Http {
    pub(crate) fn new(timeouts: Timeouts) -> Result<Self, NetworkError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("highwater/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeouts.connect)
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(50))
            .tcp_nodelay(true)
            .build()
            .map_err(|error| broken(&innermost(&error)))?;
        Ok(Self { client, idle: timeouts.idle })
    }
}

impl Transport for Http {
    fn start(&self, request: Request) -> InFlight {
        let (answer, receiver) = oneshot::channel();
        let (client, idle) = (self.client.clone(), self.idle);
        match runtime() {
            Ok(runtime) => drop(runtime.spawn(exchange(client, idle, request, answer))),
            Err(error) => drop(answer.send(Err(broken(&error.to_string())))),
        }
        InFlight(receiver)
    }
}

/// The runtime that all of the process's syncs share. A thread of it is cheap, a runtime for each
/// database is not.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(4)
        .thread_name("highwater-net")
        .enable_all()
        .build()?;
    Ok(RUNTIME.get_or_init(|| made))
}

async fn exchange(
    client: reqwest::Client,
    idle: Duration,
    request: Request,
    answer: oneshot::Sender<Result<Response, NetworkError>>,
) {
    let builder = client.request(request.method, request.url).headers(request.headers);
    let sending = Arc::new(Sending::default());
    let builder = match request.body {
        Body::Empty => builder,
        Body::Whole(bytes) if bytes.len() <= PIECE_BYTES => builder.body(bytes),
        Body::Whole(bytes) => builder
            .header(CONTENT_LENGTH, bytes.len())
            .body(reqwest::Body::wrap_stream(pieces_of(bytes, Arc::clone(&sending)))),
        Body::Streamed(chunks) => {
            builder.body(reqwest::Body::wrap_stream(stream_of(chunks, Arc::clone(&sending))))
        }
    };
    let sent = match sending.watch(idle, builder.send()).await {
        Some(Ok(response)) => response,
        Some(Err(error)) => return drop(answer.send(Err(network(&error)))),
        None => return drop(answer.send(Err(broken(&silence(idle))))),
    };
    let (chunks, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let response = Response {
        status: sent.status(),
        headers: sent.headers().clone(),
        body: BodyReader { chunks: receiver, current: Bytes::new(), received: 0, ended: false },
    };
    if answer.send(Ok(response)).is_ok() {
        pump(sent, idle, &chunks).await;
    }
}

/// How far a streamed body has come, so that a stalled connection can be told from a slow one.
#[derive(Debug, Default)]
struct Sending {
    /// Bytes that the connection has taken.
    taken: AtomicU64,
    /// Whether the connection waits for the producer, and not the other way round.
    starved: AtomicBool,
}

impl Sending {
    /// Waits for `answer` as long as something moves: None when nothing did for `idle`. After a
    /// large body the server gets more time to make it durable.
    async fn watch<T>(&self, idle: Duration, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        let (mut seen, mut silent) = (0, 0);
        loop {
            if let Ok(answer) = tokio::time::timeout(idle, &mut answer).await {
                return Some(answer);
            }
            let taken = self.taken.load(Ordering::Relaxed);
            let moving = taken != seen || self.starved.load(Ordering::Relaxed);
            silent = if moving { 0 } else { silent + 1 };
            seen = taken;
            if silent > (taken / BYTES_PER_EXTRA_PERIOD).min(MOST_EXTRA_PERIODS) {
                return None;
            }
        }
    }
}

fn pieces_of(bytes: Bytes, sending: Arc<Sending>) -> impl futures::Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold((bytes, sending), |(mut rest, sending)| async move {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        sending.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
        (!piece.is_empty()).then_some((Ok(piece), (rest, sending)))
    })
}

fn stream_of(
    chunks: mpsc::Receiver<Bytes>,
    sending: Arc<Sending>,
) -> impl futures::Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold((chunks, sending), |(mut chunks, sending)| async move {
        sending.starved.store(true, Ordering::Relaxed);
        let next = chunks.recv().await;
        sending.starved.store(false, Ordering::Relaxed);
        next.map(|chunk| {
            sending.taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            (Ok(chunk), (chunks, sending))
        })
    })
}

/// Moves the body across until it ends or nobody reads on.
async fn pump(
    mut response: reqwest::Response,
    idle: Duration,
    chunks: &mpsc::Sender<io::Result<Option<Bytes>>>,
) {
    let mut gathered = bytes::BytesMut::new();
    loop {
        let next = match tokio::time::timeout(idle, response.chunk()).await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                let error = io::Error::new(io::ErrorKind::ConnectionReset, innermost(&error));
                return drop(chunks.send(Err(error)).await);
            }
            Err(_) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, silence(idle));
                return drop(chunks.send(Err(error)).await);
            }
        };
        let ended = next.is_none();
        if let Some(chunk) = next {
            gathered.extend_from_slice(&chunk);
        }
        if (ended && !gathered.is_empty() || gathered.len() >= GATHER_BYTES)
            && chunks.send(Ok(Some(gathered.split().freeze()))).await.is_err()
        {
            return;
        }
        if ended {
            return drop(chunks.send(Ok(None)).await);
        }
    }
}

/// The body of an answer, as a blocking reader. A connection that breaks before the end is an
/// error, never an early end.
#[derive(Debug)]
pub(crate) struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Option<Bytes>>>,
    current: Bytes,
    received: u64,
    ended: bool,
}

impl BodyReader {
    /// A body that is there already, whole or with the error that it breaks off with.
    pub(crate) fn of(bytes: Bytes, broken: Option<io::Error>) -> Self {
        let (sender, chunks) = mpsc::channel(2);
        // The channel has room for both.
        let _ = sender.try_send(Ok(Some(bytes)));
        let _ = sender.try_send(broken.map_or(Ok(None), Err));
        Self { chunks, current: Bytes::new(), received: 0, ended: false }
    }

    /// Bytes received so far, as they crossed the network.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }
}

impl Read for BodyReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.chunks.blocking_recv() {
                Some(Ok(Some(chunk))) => {
                    self.received += chunk.len() as u64;
                    self.current = chunk;
                }
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(error),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let take = self.current.len().min(into.len());
        let chunk = self.current.split_to(take);
        into.get_mut(..take).unwrap_or_default().copy_from_slice(&chunk);
        Ok(take)
    }
}

fn network(error: &reqwest::Error) -> NetworkError {
    let reason = innermost(error);
    let (mut foreign, connecting) = (None, error.is_connect());
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            foreign = Some(format!("it does not speak HTTP: {reason}"));
        }
        let invalid = error.downcast_ref::<io::Error>().is_some_and(is_invalid_data);
        if connecting && invalid && !reason.contains("certificate") {
            foreign = Some(format!(
                "it does not speak TLS, so it may be http:// that is meant instead of https://: {reason}"
            ));
        }
        cause = error.source();
    }
    let is_foreign = foreign.is_some();
    NetworkError { reason: foreign.unwrap_or(reason), connecting, foreign: is_foreign }
}

/// How a TLS handshake fails; the error may be wrapped in others of its kind.
fn is_invalid_data(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
    error.kind() == io::ErrorKind::InvalidData || inner.is_some_and(is_invalid_data)
}

fn broken(reason: &str) -> NetworkError {
    NetworkError { reason: reason.to_owned(), connecting: false, foreign: false }
}

fn silence(idle: Duration) -> String {
    format!("nothing moved for {}", humantime::format_duration(idle))
}

/// The last error of a chain: "connection refused" rather than "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
