//! A server within another program: a real one, on a real socket, on a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::{Config, Error, Result, Server, Store};

/// A running server. Dropping it stops it gracefully.
#[derive(Debug)]
pub struct Embedded {
    addr: SocketAddr,
    tls: bool,
    store: Store,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Embedded {
    /// Starts a server; port 0 lets the system choose one. Returns when it accepts connections.
    ///
    /// # Errors
    /// [`Error::Listen`] when the address is taken, [`Error::OpenStore`], [`Error::Run`].
    pub fn start(config: Config, addr: SocketAddr) -> Result<Self> {
        let (shutdown, stop) = oneshot::channel();
        let tls = config.tls.is_some();
        let (started, start) = mpsc::channel();
        let thread = std::thread::Builder::new().name("highwater-server".to_owned()).spawn(move || {
            let runtime = Builder::new_multi_thread().enable_all().build().map_err(Error::Run)?;
            runtime.block_on(run(config, addr, &started, stop))
        });
        let thread = thread.map_err(Error::Run)?;
        match start.recv() {
            Ok((addr, store)) => {
                Ok(Self { addr, tls, store, shutdown: Some(shutdown), thread: Some(thread) })
            }
            // It ended before it started: its result says why.
            Err(_) => Err(match join(thread) {
                Err(error) => error,
                Ok(()) => Error::Run(io::Error::other("the server ended before it started")),
            }),
        }
    }

    /// The address that it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL below which the databases stand, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.addr)
    }

    /// Where the databases are kept.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Finishes the requests that were accepted, then stops.
    ///
    /// # Errors
    /// Whatever ended the server before.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if let Some(shutdown) = self.shutdown.take() {
            // A server that has ended already needs no signal.
            let _ = shutdown.send(());
        }
        self.thread.take().map_or(Ok(()), join)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(error = %crate::error::chain(&error), "the embedded server failed");
        }
    }
}

async fn run(
    config: Config,
    addr: SocketAddr,
    started: &mpsc::Sender<(SocketAddr, Store)>,
    stop: oneshot::Receiver<()>,
) -> Result<()> {
    let listener = TcpListener::bind(addr).await.map_err(|source| Error::Listen { addr, source })?;
    let addr = listener.local_addr().map_err(Error::Run)?;
    let server = Server::open(config).await?;
    server.may_listen(addr)?;
    // Whoever started it waits for this.
    let _ = started.send((addr, server.store().clone()));
    let shutdown = async {
        // A handle that is gone without a word means the same.
        let _ = stop.await;
    };
    server.serve(listener, shutdown).await
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(Error::Run(io::Error::other("the server's thread panicked"))))
}
