//! A relay between client and server that does to requests and answers what bad networks do: raw
//! sockets, so that a message can be cut at any byte.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What of a message is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first line, and the headers that the protocol means something by.
    Head,
    /// The body.
    Body,
}

impl Part {
    /// Where its bytes stand.
    pub fn places(self, message: &[u8]) -> Vec<usize> {
        let head = head_size(message).unwrap();
        if self == Self::Body {
            return (head..message.len()).collect();
        }
        let (mut places, mut at) = (Vec::new(), 0);
        for line in message[..head - 2].split_inclusive(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(line).to_lowercase();
            if at == 0 || text.starts_with("highwater-") || text.starts_with("content-encoding:") {
                places.extend(at..at + line.trim_ascii_end().len());
            }
            at += line.len();
        }
        places
    }

    /// Another bit in one of its bytes.
    fn flip(self, message: &mut [u8], place: usize) {
        let places = self.places(message);
        if let Some(at) = places.get(place % places.len().max(1)) {
            message[*at] ^= 1 << (place % 8);
        }
    }
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// The server answers; so many bytes of that arrive, then the connection is gone.
    CutAnswer(usize),
    /// So many bytes of the request arrive at the server, then both connections are gone.
    CutRequest(usize),
    /// The server gets the request twice, one after the other; the second answer arrives.
    Twice,
    /// The server gets the request twice at the same time; the answer to one of them arrives.
    TwiceAtOnce,
    /// The answer arrives twice.
    AnswerTwice,
    /// The request is under way until [`Proxy::deliver`]; the client hears nothing.
    Hold,
    /// First the held requests arrive, then this one.
    AfterHeld,
    /// One bit of the request is another when it arrives.
    FlipRequest(Part, usize),
    /// Both sides are of a version without checksums.
    Unsealed,
    /// So they are, and one bit of the request's body is another: the server finds that out by what is in it.
    Corrupt,
    /// Something in between says that there is a conflict; the server hears nothing.
    FalseConflict,
    /// One bit of the answer is another when it arrives.
    FlipAnswer(Part, usize),
    /// The server answers at once, and the answer takes so many milliseconds.
    Slow(u64),
}

#[derive(Debug, Default)]
struct State {
    plan: VecDeque<Fault>,
    /// Every request that arrived whole at the server, oldest first.
    requests: Vec<Vec<u8>>,
    /// The sizes of the answers to them.
    answers: Vec<usize>,
    /// The last one of them.
    answer: Vec<u8>,
    held: Vec<Vec<u8>>,
    /// Requests that the proxy has seen from clients.
    seen: usize,
}

/// The relay.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub addr: SocketAddr,
    server: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Proxy {
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { addr: listener.local_addr().unwrap(), server, state: Arc::default() };
        let relay = proxy.clone();
        // It ends with the test program.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let relay = relay.clone();
                std::thread::spawn(move || {
                    // A connection that breaks is this program's purpose.
                    let _ = relay.serve(client);
                });
            }
        });
        proxy
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.addr)
    }

    /// What becomes of the next requests; all after them pass.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.with(|state| state.plan = faults.into_iter().collect());
    }

    /// The size of the last whole answer, in bytes.
    pub fn last_answer(&self) -> usize {
        self.with(|state| *state.answers.last().unwrap())
    }

    /// The last whole answer.
    pub fn answer(&self) -> Vec<u8> {
        self.with(|state| state.answer.clone())
    }

    /// The size of the last request that arrived whole.
    pub fn last_request(&self) -> usize {
        self.with(|state| state.requests.last().unwrap().len())
    }

    /// How many requests came from clients so far.
    pub fn seen(&self) -> usize {
        self.with(|state| state.seen)
    }

    /// Every request that arrived whole.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.with(|state| state.requests.clone())
    }

    /// Lets the held requests arrive; nobody waits for the answers any more.
    pub fn deliver(&self) -> usize {
        let held = self.with(|state| std::mem::take(&mut state.held));
        for request in &held {
            self.replay(request);
        }
        held.len()
    }

    /// Sends a request to the server (again), and returns the answer.
    pub fn replay(&self, request: &[u8]) -> Vec<u8> {
        self.ask(request).unwrap()
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.0.lock().unwrap())
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        loop {
            let mut request = read_request(&mut client)?;
            let fault = self.with(|state| {
                state.seen += 1;
                state.plan.pop_front().unwrap_or(Fault::Pass)
            });
            if let Fault::FlipRequest(part, place) = fault {
                part.flip(&mut request, place);
            }
            if matches!(fault, Fault::Unsealed | Fault::Corrupt) {
                request = unsealed(&request);
            }
            if fault == Fault::Corrupt {
                let middle = Part::Body.places(&request).len() / 2;
                Part::Body.flip(&mut request, middle);
            }
            let mut answer = match fault {
                Fault::CutRequest(bytes) if bytes < request.len() => {
                    let mut server = TcpStream::connect(self.server)?;
                    server.write_all(&request[..bytes])?;
                    server.shutdown(Shutdown::Write)?;
                    // The server is done with it when it hangs up.
                    server.set_read_timeout(Some(Duration::from_secs(5)))?;
                    let _ = io::copy(&mut server, &mut io::sink());
                    return Ok(());
                }
                Fault::Hold => {
                    self.with(|state| state.held.push(request));
                    // Silence, until the client gives up.
                    let _ = io::copy(&mut client, &mut io::sink());
                    return Ok(());
                }
                Fault::FalseConflict => false_conflict(),
                Fault::AfterHeld => {
                    self.deliver();
                    self.ask(&request)?
                }
                Fault::Twice => {
                    self.ask(&request)?;
                    self.ask(&request)?
                }
                Fault::TwiceAtOnce => std::thread::scope(|scope| {
                    let other = scope.spawn(|| self.ask(&request));
                    let answer = self.ask(&request);
                    other.join().unwrap()?;
                    answer
                })?,
                _ => self.ask(&request)?,
            };
            match fault {
                Fault::CutAnswer(bytes) if bytes < answer.len() => {
                    client.write_all(&answer[..bytes])?;
                    client.shutdown(Shutdown::Both)?;
                    return Ok(());
                }
                Fault::Unsealed | Fault::Corrupt => answer = unsealed(&answer),
                Fault::FlipAnswer(part, place) => part.flip(&mut answer, place),
                Fault::Slow(ms) => std::thread::sleep(Duration::from_millis(ms)),
                _ => {}
            }
            client.write_all(&answer)?;
            if fault == Fault::AnswerTwice {
                client.write_all(&answer)?;
            }
        }
    }

    /// One request on a connection of its own, and the whole answer.
    fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(self.server)?;
        server.set_nodelay(true)?;
        let head = head_size(request).unwrap();
        server.write_all(&request[..head - 2])?;
        server.write_all(b"connection: close\r\n\r\n")?;
        server.write_all(&request[head..])?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        // The client may use its connection again.
        let close = b"connection: close\r\n";
        if let Some(at) = answer.windows(close.len()).position(|bytes| bytes == close) {
            answer.drain(at..at + close.len());
        }
        self.with(|state| {
            state.requests.push(request.to_vec());
            state.answers.push(answer.len());
            state.answer.clone_from(&answer);
        });
        Ok(answer)
    }
}

fn false_conflict() -> Vec<u8> {
    let body = r#"{"code":"conflict","message":"somebody says that there is a conflict"}"#;
    let head = "HTTP/1.1 409 Conflict\r\ncontent-type: application/json\r\ncontent-length";
    format!("{head}: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn unsealed(message: &[u8]) -> Vec<u8> {
    let head = head_size(message).unwrap();
    let names = ["highwater-check:", "highwater-body:", "highwater-path:"];
    let is_seal = |line: &&[u8]| {
        let text = String::from_utf8_lossy(line).to_lowercase();
        names.iter().any(|name| text.starts_with(name))
    };
    let lines = message[..head].split_inclusive(|byte| *byte == b'\n').filter(|line| !is_seal(line));
    [lines.collect::<Vec<_>>().concat(), message[head..].to_vec()].concat()
}

fn head_size(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4)
}

/// A whole request as it came; an error when the client is gone.
fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(head) = head_size(&request) {
            break head;
        }
        more(client, &mut request)?;
    };
    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("transfer-encoding:") == Some("chunked") {
        let mut at = head;
        loop {
            let line = loop {
                if let Some(end) = request[at..].windows(2).position(|bytes| bytes == b"\r\n") {
                    break at + end;
                }
                more(client, &mut request)?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&request[at..line]).unwrap(), 16).unwrap();
            let end = line + 2 + size + 2;
            while request.len() < end {
                more(client, &mut request)?;
            }
            if size == 0 {
                return Ok(request);
            }
            at = end;
        }
    }
    let length: usize = field("content-length:").map_or(0, |length| length.parse().unwrap());
    while request.len() < head + length {
        more(client, &mut request)?;
    }
    Ok(request)
}

fn more(client: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 1 << 16];
    match client.read(&mut bytes)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            into.extend_from_slice(&bytes[..count]);
            Ok(())
        }
    }
}
