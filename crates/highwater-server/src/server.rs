//! The server: databases, router, connections, and the order in which it stops.
//!
//! Stopping: no connection is accepted any more, every open one finishes the request it is in, and
//! so does work that outlives its connection; all of that within the grace period. What was not
//! acknowledged by then is found again by the client's next sync.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::collect;
use crate::gate::Gate;
use crate::http_api::{self, App, Peer};
use crate::log::Context;
use crate::metrics::{Held, Metrics};
use crate::registry::Registry;
use crate::{Config, Error, Result, Store};

/// How long to wait after the system refused a connection (usually: too many open files).
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// How much of a connection is read at once, in bytes. Larger buffers are made anew from fresh memory
/// for every read, which made a push of 1 GB take half as long again.
const READ_BUFFER: usize = 128 << 10;

/// A sync server on a store. Cloning it is cheap and gives the same server.
#[derive(Debug, Clone)]
pub struct Server {
    app: App,
}

impl Server {
    /// Opens the store. Databases are opened when they are asked for.
    ///
    /// # Errors
    /// [`crate::Error::OpenStore`] when the store's folder cannot be used.
    pub async fn open(config: Config) -> Result<Self> {
        let gate = Arc::new(Gate::open(&config.auth)?);
        let store = Store::open(&config.store)?;
        let metrics = Arc::new(Metrics::new(store.metrics()));
        let context = Arc::new(Context {
            metrics,
            store,
            snapshot: config.snapshot,
            limits: config.limits,
            deletion: config.deletion,
            libsql: config.libsql,
            tasks: TaskTracker::new(),
            stopping: AtomicBool::new(false),
        });
        let sweeping = Arc::clone(&context);
        context.tasks.spawn(async move {
            match sweeping.store.sweep().await {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "removed files that an earlier server did not finish"),
                Err(error) => tracing::warn!(error = %crate::error::chain(&error), "could not look for unfinished files"),
            }
        });
        tokio::spawn(collect::run(Arc::downgrade(&context)));
        let registry = Arc::new(Registry::new(Arc::clone(&context)));
        Ok(Self { app: App { context, registry, gate } })
    }

    /// Where the databases are kept.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.app.context.store
    }

    /// Whether a server with these keys may listen there: without keys only where no other machine
    /// can reach it, unless [`crate::AuthConfig::open_to_network`] says so.
    ///
    /// # Errors
    /// [`Error::Unprotected`].
    pub fn may_listen(&self, addr: SocketAddr) -> Result<()> {
        self.app.gate.may_listen(addr)
    }

    /// Every route of the server, for a program that serves it by itself. Such a program calls
    /// [`Server::finish`] before it ends.
    pub fn router(&self) -> axum::Router {
        http_api::router(self.app.clone())
    }

    /// Serves connections until `shutdown` is ready, then finishes what was accepted.
    ///
    /// # Errors
    /// [`Error::Unprotected`] when other machines could reach it and no token is asked for.
    /// Connections that fail are logged.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        self.may_listen(listener.local_addr().map_err(Error::Run)?)?;
        let router = self.router();
        let connections = GracefulShutdown::new();
        let metrics = Arc::clone(&self.app.context.metrics);
        let builder = self.connection_builder();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    tracing::debug!(%peer, "connected");
                    let router = router.clone().layer(axum::Extension(Peer(peer)));
                    let open = Held::new(&metrics.connections);
                    metrics.accepted.inc();
                    serve_connection(stream, &builder, &connections, router, open);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(AFTER_REFUSAL).await;
                }
            }
        }
        drop(listener);
        tracing::debug!("stopping: no new connections");
        self.app.context.stopping.store(true, Ordering::SeqCst);
        let grace = self.app.context.limits.grace;
        if tokio::time::timeout(grace, connections.shutdown()).await.is_err() {
            tracing::warn!(
                seconds = grace.as_secs(),
                "some requests were not finished within the grace period"
            );
        }
        self.finish().await;
        Ok(())
    }

    /// Waits, within the grace period, for work that outlives its connection.
    pub async fn finish(&self) {
        let context = &self.app.context;
        context.stopping.store(true, Ordering::SeqCst);
        context.tasks.close();
        if tokio::time::timeout(context.limits.grace, context.tasks.wait()).await.is_err() {
            tracing::warn!("some work was not finished within the grace period");
        }
        context.tasks.reopen();
    }

    fn connection_builder(&self) -> Builder<TokioExecutor> {
        let timeout = self.app.context.limits.header_timeout;
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(READ_BUFFER);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(timeout).keep_alive_timeout(timeout);
        builder
    }
}

fn serve_connection(
    stream: TcpStream,
    builder: &Builder<TokioExecutor>,
    connections: &GracefulShutdown,
    router: axum::Router,
    open: Held,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "answers may wait for more to send");
    }
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        let _open = open;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection broke");
        }
    });
}

/// Errors of one connection that was gone before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
