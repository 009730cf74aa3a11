//! A TCP proxy that counts bytes and makes every request wait: a network to measure with.
//!
//! It knows nothing of HTTP but that an answer follows a request: the first bytes of a client after
//! bytes of the server are a new request, and wait for the delay.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

/// Bytes that crossed since the last look, headers included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crossed {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

#[derive(Debug, Default)]
struct Counters {
    up: AtomicU64,
    down: AtomicU64,
}

/// A proxy in front of a server. Lives as long as the process.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    counters: Arc<Counters>,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let counting = Arc::clone(&counters);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counting = Arc::clone(&counting);
                // A connection that breaks shows in the client's error.
                drop(connect(client, server, delay, counting));
            }
        });
        Ok(Self { address, counters })
    }

    /// What crossed since this was last asked.
    pub(crate) fn crossed(&self) -> Crossed {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::SeqCst);
        Crossed { up: take(&self.counters.up), down: take(&self.counters.down) }
    }
}

fn connect(
    client: TcpStream,
    server: SocketAddr,
    delay: Duration,
    counters: Arc<Counters>,
) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let answered = Arc::new(AtomicBool::new(true));
    let (client_reads, server_writes) = (client.try_clone()?, server.try_clone()?);
    let (up, asked) = (Arc::clone(&counters), Arc::clone(&answered));
    std::thread::spawn(move || {
        pass(client_reads, server_writes, |count| {
            if asked.swap(false, Ordering::SeqCst) {
                std::thread::sleep(delay);
            }
            up.up.fetch_add(count, Ordering::SeqCst);
        })
    });
    std::thread::spawn(move || {
        pass(server, client, |count| {
            answered.store(true, Ordering::SeqCst);
            counters.down.fetch_add(count, Ordering::SeqCst);
        })
    });
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(u64)) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        seen(count as u64);
        if to.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
