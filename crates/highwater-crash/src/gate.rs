//! One address for all servers of a case, and the moments of its exchanges.
//!
//! What a client may find at the server after its crash depends on what it had sent by then. So the gate notes for
//! each exchange how long the client's record file was before the request went on and when the answer had
//! arrived, and calls somebody to keep what the server has by then.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

/// What is called when a request is about to go on (`false`) and when its answer has arrived (`true`).
pub(crate) type Watcher = Box<dyn FnMut(bool) + Send>;

#[derive(Default)]
struct State {
    server: Option<SocketAddr>,
    watcher: Option<Watcher>,
    /// Whether the last bytes were a client's.
    asking: bool,
}

/// Stands before a server that changes.
#[derive(Clone)]
pub(crate) struct Gate {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Gate {
    /// Opens it; it ends with the program.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub(crate) fn open() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a socket")?;
        let gate = Self { addr: listener.local_addr().context("a socket")?, state: Arc::default() };
        let serving = gate.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let gate = serving.clone();
                // A connection that breaks is the client's to notice.
                std::thread::spawn(move || drop(gate.serve(client)));
            }
        });
        Ok(gate)
    }

    /// The URL of a database behind it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("http://{}/{database}", self.addr)
    }

    /// From now on this server answers.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        self.lock().server = Some(server);
    }

    /// From now on this is called for each exchange.
    pub(crate) fn watch(&self, watcher: Option<Watcher>) {
        let mut state = self.lock();
        (state.watcher, state.asking) = (watcher, false);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let server = self.lock().server.ok_or(io::ErrorKind::ConnectionRefused)?;
        let server = TcpStream::connect(server)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (back_from, back_to) = (server.try_clone()?, client.try_clone()?);
        let gate = self.clone();
        std::thread::spawn(move || gate.pass(back_from, &back_to, true));
        self.pass(client, &server, false);
        Ok(())
    }

    fn pass(&self, mut from: TcpStream, mut to: &TcpStream, answers: bool) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            self.turn(answers);
            if to.write_all(bytes.get(..count).unwrap_or_default()).is_err() {
                break;
            }
        }
        // The other direction ends with this one.
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }

    /// The first bytes in the other direction are the moment.
    fn turn(&self, answers: bool) {
        let mut state = self.lock();
        if state.asking != answers {
            return;
        }
        state.asking = !answers;
        if let Some(watcher) = &mut state.watcher {
            watcher(answers);
        }
    }
}
