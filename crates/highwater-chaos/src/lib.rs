//! A network that fails: a TCP proxy that delays, narrows, cuts, damages or swallows what passes.
//!
//! It knows nothing of HTTP. For every connection a [`Faults`] value and a seed decide beforehand what
//! becomes of it: the same seed and the same order of connections give the same fates. Use it by hand:
//! ```text
//! highwater-chaos --listen 127.0.0.1:9000 --to 127.0.0.1:8080 --delay 50ms --reset 0.1
//! ```
//! or in a test:
//! ```
//! # fn main() -> std::io::Result<()> {
//! use highwater_chaos::{Faults, Proxy};
//!
//! let faults = Faults { reset: 0.5, ..Faults::default() };
//! let proxy = Proxy::start(([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 8080).into(), faults, 1)?;
//! println!("the server is behind http://{}", proxy.addr());
//! # Ok(())
//! # }
//! ```
//!
//! Two threads a connection: it is for tests, not for crowds.

mod pump;
mod random;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use random::Random;

/// What becomes of connections. Chances are between 0 and 1; at most one of the fates strikes a
/// connection, in one of its directions, somewhere in its first [`Faults::within`] bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// Everything comes so much later, each way.
    pub delay: Duration,
    /// And up to so much later still.
    pub jitter: Duration,
    /// Bytes a second, each way; no limit unless said.
    pub bandwidth: Option<u64>,
    /// Chance that a connection is reset (RST, both ways).
    pub reset: f64,
    /// Chance that one direction ends, as if that side had said all.
    pub half_close: f64,
    /// Chance that a bit is flipped.
    pub corrupt: f64,
    /// Chance that one direction is swallowed from some byte on, and nobody is told.
    pub blackhole: f64,
    /// No bit is flipped before this byte: what a protocol does not protect without TLS can be left alone.
    pub corrupt_after: u64,
    /// Where fates strike.
    pub within: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            bandwidth: None,
            reset: 0.0,
            half_close: 0.0,
            corrupt: 0.0,
            blackhole: 0.0,
            corrupt_after: 0,
            within: 20_000,
        }
    }
}

/// What strikes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    None,
    Reset,
    HalfClose,
    Corrupt,
    Blackhole,
}

/// How often each fate struck.
#[derive(Debug, Default)]
pub struct Counts {
    /// All that were accepted.
    pub connections: AtomicU64,
    /// Connections that were reset.
    pub resets: AtomicU64,
    /// Directions that were ended.
    pub half_closes: AtomicU64,
    /// Bits that were flipped.
    pub corruptions: AtomicU64,
    /// Directions that were swallowed.
    pub blackholes: AtomicU64,
}

impl Counts {
    pub(crate) fn add(&self, fate: Fate) {
        let count = match fate {
            Fate::None => return,
            Fate::Reset => &self.resets,
            Fate::HalfClose => &self.half_closes,
            Fate::Corrupt => &self.corruptions,
            Fate::Blackhole => &self.blackholes,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "{} connections: {} reset, {} half-closed, {} corrupted, {} swallowed",
            count(&self.connections),
            count(&self.resets),
            count(&self.half_closes),
            count(&self.corruptions),
            count(&self.blackholes)
        )
    }
}

/// A running proxy. Dropping it stops it; connections that are open end by themselves.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens, and forwards to the other address. Port 0 lets the system choose one.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(listen: SocketAddr, to: SocketAddr, faults: Faults, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let proxy = Self {
            addr: listener.local_addr()?,
            faults: Arc::new(Mutex::new(faults)),
            counts: Arc::default(),
            stop: Arc::default(),
        };
        let (faults, counts) = (Arc::clone(&proxy.faults), Arc::clone(&proxy.counts));
        let stop = Arc::clone(&proxy.stop);
        std::thread::Builder::new().name("chaos".to_owned()).spawn(move || {
            let mut random = Random::new(seed);
            for client in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                counts.connections.fetch_add(1, Ordering::Relaxed);
                let faults = faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let connection = Random::new(random.next());
                match TcpStream::connect(to) {
                    Ok(server) => pump::join(client, server, &faults, connection, &counts),
                    // The client sees what it would see without a proxy: nobody is there.
                    Err(_) => pump::reset(&client),
                }
            }
        })?;
        Ok(proxy)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What becomes of the connections from now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it up; if that fails it ends with the program.
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
    }
}
