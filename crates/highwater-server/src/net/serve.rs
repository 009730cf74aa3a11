//! One connection from its first byte to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guests::{Full, Guest, Guests};
use super::paced::{Answer, Paced};
use super::patient::Patient;
use super::watch::{Active, Verdict};
use crate::http_api::{self, App, Peer};
use crate::metrics::Held;
use crate::tls::Tls;

/// How much of a connection is read at once, in bytes. Larger buffers are made anew from fresh memory
/// for every read, which made a push of 1 GB take half as long again.
const READ_BUFFER: usize = 128 << 10;
/// The largest head of an HTTP/2 request, in bytes.
const HEADER_LIST: u32 = 32 << 10;
/// An idle connection is told to end, and has this long to do so.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all connections share. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Host {
    app: App,
    tls: Option<Arc<Tls>>,
    guests: Arc<Guests>,
    builder: Builder<TokioExecutor>,
    /// The tasks of connections.
    tasks: TaskTracker,
    /// Cancelled when connections shall end after the requests that they have.
    stop: CancellationToken,
}

impl Host {
    pub(crate) fn new(app: App, tls: Option<Arc<Tls>>) -> Self {
        let limits = &app.context.limits;
        let timeout = limits.header_timeout;
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(READ_BUFFER);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(timeout)
            .keep_alive_timeout(timeout)
            .max_concurrent_streams(limits.streams.max(1))
            .max_header_list_size(HEADER_LIST);
        let guests = Guests::new(limits);
        Self { app, tls, guests, builder, tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Serves a connection in a task of its own.
    pub(crate) fn receive(&self, stream: TcpStream, peer: SocketAddr) {
        let metrics = &self.app.context.metrics;
        metrics.accepted.inc();
        let guest = match self.guests.admit(peer.ip()) {
            Ok(guest) => guest,
            Err(full) => return self.refuse(full, peer),
        };
        tracing::debug!(%peer, "connected");
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "answers may wait for more to send");
        }
        let (host, open) = (self.clone(), Held::new(&metrics.connections));
        self.tasks.spawn(async move {
            let _open = open;
            Box::pin(host.connection(stream, peer, guest)).await;
        });
    }

    fn refuse(&self, full: Full, peer: SocketAddr) {
        tracing::debug!(%peer, limit = full.as_str(), "a connection was refused");
        self.app.context.metrics.limited(full.as_str());
    }

    /// Tells every connection to end after the requests that it has, and waits until all have.
    pub(crate) async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr, guest: Guest) {
        let Some(tls) = &self.tls else { return self.http(stream, peer, guest).await };
        let handshake = tls.acceptor().accept(stream);
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(self.app.context.limits.handshake_timeout, handshake) => shaken,
            () = guest.watch.evicted.cancelled() => return,
            () = self.stop.cancelled() => return,
        };
        match shaken {
            Ok(Ok(stream)) => self.http(stream, peer, guest).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }

    async fn http(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        guest: Guest,
    ) {
        let limits = &self.app.context.limits;
        let watch = &guest.watch;
        let io = TokioIo::new(Patient::new(io, limits.write_timeout, Arc::clone(watch)));
        let service = service_fn(|request| self.request(request, peer, &guest));
        let mut connection = std::pin::pin!(self.builder.serve_connection(io, service));
        let period = limits.header_timeout.min(limits.write_timeout) / 8;
        let mut look = tokio::time::interval(period.clamp(Duration::from_millis(20), Duration::from_secs(5)));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ending: Option<Instant> = None;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "a connection broke");
                    }
                    return;
                }
                () = self.stop.cancelled(), if ending.is_none() => {
                    ending = Some(Instant::now());
                    connection.as_mut().graceful_shutdown();
                }
                () = watch.evicted.cancelled() => return,
                _ = look.tick() => match watch.verdict(limits) {
                    Verdict::Fine => {}
                    Verdict::Stalled => return tracing::debug!(%peer, "closed: an answer is not taken"),
                    Verdict::Idle => match ending {
                        Some(since) if since.elapsed() >= FAREWELL => return,
                        Some(_) => {}
                        None => {
                            ending = Some(Instant::now());
                            connection.as_mut().graceful_shutdown();
                        }
                    },
                },
            }
        }
    }

    fn request(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        guest: &Guest,
    ) -> impl Future<Output = Result<Response<Answer>, Infallible>> + Send + use<> {
        let limits = &self.app.context.limits;
        let active = Active::new(&guest.watch);
        let mut request =
            request.map(|body| Body::new(Paced::new(body, limits.idle_timeout, limits.slowest)));
        request.extensions_mut().insert(Peer(peer));
        let app = self.app.clone();
        // Two ways to say where the body ends: a proxy may have chosen the other one.
        let ambiguous = request.headers().contains_key(CONTENT_LENGTH)
            && request.headers().contains_key(TRANSFER_ENCODING);
        async move {
            let mut response = http_api::answer(app, request).await;
            if ambiguous {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Answer::new(body, active)))
        }
    }
}
