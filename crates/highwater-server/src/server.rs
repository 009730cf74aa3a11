//! The server: databases, router, connections, and the order in which it stops.
//!
//! Stopping: `/readyz` says that the server is not ready; connections are accepted for as long as
//! [`crate::Limits::drain`] says, then none is accepted any more, every open one finishes the request it is in, and
//! so does work that outlives its connection; all of that within the grace period. What was not
//! acknowledged by then is found again by the client's next sync.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::collect;
use crate::gate::Gate;
use crate::http_api::{self, App};
use crate::log::Context;
use crate::metrics::Metrics;
use crate::net::Host;
use crate::ready::Ready;
use crate::registry::Registry;
use crate::share::Shares;
use crate::tls::Tls;
use crate::{Config, Error, Result, Store};

/// How long to wait after the system refused a connection (usually: too many open files).
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// A sync server on a store. Cloning it is cheap and gives the same server.
#[derive(Debug, Clone)]
pub struct Server {
    app: App,
    tls: Option<Arc<Tls>>,
}

impl Server {
    /// Opens the store. Databases are opened when they are asked for.
    ///
    /// # Errors
    /// [`crate::Error::OpenStore`] when the store's folder cannot be used, [`crate::Error::Tls`] when
    /// the certificate cannot be.
    pub async fn open(config: Config) -> Result<Self> {
        let store = Store::open(&config.store)?;
        Self::open_on(config, store)
    }

    /// As [`Server::open`], with a store that is open already; [`Config::store`] does not count.
    /// To be called within a runtime.
    ///
    /// # Errors
    /// [`crate::Error::Auth`], [`crate::Error::Tls`].
    pub fn open_on(config: Config, store: Store) -> Result<Self> {
        let gate = Arc::new(Gate::open(&config.auth, config.clock.clone())?);
        gate.announce();
        let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let metrics = Arc::new(Metrics::new(store.metrics()));
        let context = Arc::new(Context {
            metrics,
            store,
            snapshot: config.snapshot,
            shares: Shares::new(&config.limits),
            ready: Ready::default(),
            limits: config.limits,
            deletion: config.deletion,
            libsql: config.libsql,
            merge: config.merge,
            clock: config.clock,
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
        Ok(Self { app: App { context, registry, gate }, tls })
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
        let host = Host::new(self.app.clone(), self.tls.clone());
        let following = self.tls.clone().map(|tls| tokio::spawn(tls.follow()));
        let mut shutdown = std::pin::pin!(shutdown);
        tokio::select! {
            () = accept(&listener, &host) => {}
            () = &mut shutdown => {}
        }
        self.app.context.stopping.store(true, Ordering::SeqCst);
        let drain = self.app.context.limits.drain;
        if !drain.is_zero() {
            tracing::info!(seconds = drain.as_secs(), "stopping: not ready any more, still accepting");
            // It never ends by itself.
            let _ = tokio::time::timeout(drain, accept(&listener, &host)).await;
        }
        drop(listener);
        tracing::debug!("stopping: no new connections");
        if let Some(following) = following {
            following.abort();
        }
        let grace = self.app.context.limits.grace;
        if tokio::time::timeout(grace, host.end()).await.is_err() {
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
}

/// Accepts connections for as long as it is asked to.
async fn accept(listener: &TcpListener, host: &Host) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => host.receive(stream, peer),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(AFTER_REFUSAL).await;
            }
        }
    }
}

/// Errors of one connection that was gone before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
