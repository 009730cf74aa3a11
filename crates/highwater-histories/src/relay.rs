//! Stands between the devices and the server, and does to requests and answers what bad networks do.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::plan::{Fault, Moment};

/// What becomes of the requests of one database.
#[derive(Debug, Default)]
struct Orders {
    /// A header line that every request gets which carries no checksum of its headers: libSQL's.
    header: String,
    /// How many requests there were.
    seen: usize,
    /// What becomes of one of them.
    fault: Option<(usize, Fault)>,
    /// The pauses that are still to come.
    pauses: Vec<Pause>,
    late: Vec<Vec<u8>>,
    /// The moments of how many pauses have come.
    paused: usize,
    /// The numbers of the pushes that were accepted, and after how many pauses they were sent.
    accepted: Vec<(u64, usize)>,
    /// Whether a push said that its base is a guess.
    doubted: bool,
    /// What was said, for people who read failures.
    said: Vec<String>,
}

/// Tells that the moment of a request has come, and waits for a word to go on.
#[derive(Debug)]
pub(crate) struct Pause {
    /// Counted from 0. It may be a later one, if nobody waited at that one.
    pub(crate) request: usize,
    pub(crate) moment: Moment,
    pub(crate) reached: Sender<Sender<()>>,
}

/// The relay in front of one server.
#[derive(Debug, Clone)]
pub struct Relay {
    addr: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    orders: Arc<Mutex<HashMap<String, Orders>>>,
    open: Arc<(Mutex<Open>, Condvar)>,
}

/// Connections, numbered as they come.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    open: BTreeSet<u64>,
    /// Of the last one.
    port: u16,
}

impl Relay {
    /// Starts it. It ends with the program.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let relay = Self {
            addr: listener.local_addr()?,
            server: Arc::new(Mutex::new(server)),
            orders: Arc::default(),
            open: Arc::default(),
        };
        let serving = relay.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let relay = serving.clone();
                let port = client.peer_addr().map_or(0, |addr| addr.port());
                let number = relay.begun(port);
                std::thread::spawn(move || {
                    // Broken connections are the purpose.
                    let _ = relay.serve(client);
                    relay.ended(number);
                });
            }
        });
        Ok(relay)
    }

    fn begun(&self, port: u16) -> u64 {
        let mut all = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = all.next;
        all.next += 1;
        all.port = port;
        all.open.insert(number);
        self.open.1.notify_all();
        number
    }

    fn ended(&self, number: u64) {
        self.open.0.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&number);
        self.open.1.notify_all();
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> u64 {
        self.open.0.lock().unwrap_or_else(PoisonError::into_inner).next
    }

    /// Waits until a killed process's connections, made since there were so many, have nothing more to say: what it sent
    /// whole has been answered.
    pub(crate) fn wait_for_the_end_of(&self, since: u64) -> io::Result<()> {
        // Connections are accepted in their order, so this one comes after all of the dead.
        let last = TcpStream::connect(self.addr)?;
        let port = last.local_addr()?.port();
        let mut all = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        while all.port != port || all.open.range(since..all.next - 1).next().is_some() {
            all = self.open.1.wait(all).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// From now on this is the server.
    pub(crate) fn point(&self, server: SocketAddr) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    fn server(&self) -> SocketAddr {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where devices find the database.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.addr)
    }

    /// Every request of libSQL's clients for the database gets this header line.
    pub fn add_header(&self, name: &str, line: &str) {
        let mut orders = self.lock();
        line.clone_into(&mut orders.entry(name.to_owned()).or_default().header);
    }

    /// What is to become of the requests from now on: of the one with this number, counted from 0, and of those with a pause.
    pub(crate) fn order(&self, name: &str, fault: Option<(usize, Fault)>, pauses: Vec<Pause>) {
        let mut orders = self.lock();
        let order = orders.entry(name.to_owned()).or_default();
        (order.seen, order.paused) = (0, 0);
        (order.fault, order.pauses) = (fault, pauses);
    }

    /// Pushes that were accepted since the last call: their numbers in the log, and after how many pauses they were sent.
    pub(crate) fn accepted(&self, name: &str) -> Vec<(u64, usize)> {
        self.lock().get_mut(name).map(|order| std::mem::take(&mut order.accepted)).unwrap_or_default()
    }

    /// Whether any push so far said that its base is a guess.
    pub(crate) fn doubted(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|order| order.doubted)
    }

    fn accept(&self, name: &str, answer: &[u8], paused: usize) {
        let head = answer.get(..head_size(answer).unwrap_or(0)).unwrap_or_default();
        let text = String::from_utf8_lossy(head).into_owned();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if matches!(field("highwater-outcome:"), Some("pushed" | "merged"))
            && let Some(txid) = field("highwater-txid:").and_then(|txid| txid.parse().ok())
            && let Some(order) = self.lock().get_mut(name)
        {
            order.accepted.push((txid, paused));
        }
    }

    /// How many requests are late.
    #[must_use]
    pub fn late(&self, name: &str) -> usize {
        self.lock().get(name).map_or(0, |order| order.late.len())
    }

    /// Lets the oldest late request arrive. False: there is none.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn deliver_one(&self, name: &str) -> io::Result<bool> {
        let mut all = self.lock();
        let Some(late) = all.get_mut(name).map(|order| &mut order.late).filter(|late| !late.is_empty())
        else {
            return Ok(false);
        };
        let request = late.remove(0);
        drop(all);
        let mut server = TcpStream::connect(self.server())?;
        server.write_all(&request)?;
        read_message(&mut server, &mut Vec::new())?;
        Ok(true)
    }

    /// The body of the answer to a GET, straight from the server.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn get(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(self.server())?;
        write!(server, "GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.addr)?;
        let answer = read_message(&mut server, &mut Vec::new())?;
        Ok(body_of(&answer))
    }

    /// What devices and server said to each other since the last call, a line each.
    #[must_use]
    pub fn said(&self, name: &str) -> Vec<String> {
        self.lock().get_mut(name).map(|order| std::mem::take(&mut order.said)).unwrap_or_default()
    }

    fn note(&self, name: &str, what: &str, message: &[u8]) {
        let text =
            String::from_utf8_lossy(message.get(..head_size(message).unwrap_or(0)).unwrap_or_default())
                .into_owned();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
        let known = ["base", "pending", "confirm", "doubt", "head", "outcome", "txid"];
        let fields = lines.filter(|line| {
            let field = line.strip_prefix("highwater-").and_then(|rest| rest.split(':').next());
            field.is_some_and(|field| known.contains(&field))
        });
        let fields: Vec<&str> = fields.map(|line| line.trim_start_matches("highwater-")).collect();
        let line = format!("    {what} {first} {}", fields.join(", "));
        if let Some(order) = self.lock().get_mut(name) {
            order.doubted |= line.contains("doubt: ");
            order.said.push(line);
        }
    }

    /// Forgets a database.
    pub fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Orders>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut addr = self.server();
        let mut server = TcpStream::connect(addr)?;
        server.set_nodelay(true)?;
        let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
        loop {
            let request = read_message(&mut client, &mut from_client)?;
            let name = name_of(&request);
            self.note(&name, ">", &request);
            let paused = self.lock().get(&name).map_or(0, |order| order.paused);
            let (request, fault, pause) = self.take_order(&name, request);
            let (before, after) = match pause {
                Some(pause) if pause.moment == Moment::BeforeServer => (Some(pause), None),
                pause => (None, pause),
            };
            if addr != self.server() {
                addr = self.server();
                server = TcpStream::connect(addr)?;
                server.set_nodelay(true)?;
                from_server.clear();
            }
            wait(before);
            match fault {
                Some(Fault::Lost) => {
                    wait(after);
                    return client.shutdown(Shutdown::Both);
                }
                Some(Fault::Late) => {
                    self.lock().entry(name).or_default().late.push(request);
                    wait(after);
                    return client.shutdown(Shutdown::Both);
                }
                Some(Fault::Twice) => {
                    server.write_all(&request)?;
                    let answer = read_message(&mut server, &mut from_server)?;
                    self.accept(&name, &answer, paused);
                }
                _ => {}
            }
            server.write_all(&request)?;
            let answer = read_message(&mut server, &mut from_server)?;
            self.note(&name, "<", &answer);
            self.accept(&name, &answer, paused);
            wait(after);
            if let Some(Fault::AnswerCut(thousandths)) = fault {
                let some = answer.get(..answer.len() * thousandths / 1000).unwrap_or_default();
                client.write_all(some)?;
                return client.shutdown(Shutdown::Both);
            }
            client.write_all(&answer)?;
        }
    }

    fn take_order(&self, name: &str, mut request: Vec<u8>) -> (Vec<u8>, Option<Fault>, Option<Pause>) {
        let mut all = self.lock();
        let Some(order) = all.get_mut(name) else { return (request, None, None) };
        let sealed = |head: &usize| {
            let text = String::from_utf8_lossy(request.get(..*head).unwrap_or_default()).to_lowercase();
            text.contains("\r\nhighwater-check:")
        };
        if let Some(head) = head_size(&request).filter(|head| !order.header.is_empty() && !sealed(head)) {
            let line = format!("{}\r\n", order.header);
            request.splice(head - 2..head - 2, line.into_bytes());
        }
        let number = order.seen;
        order.seen += 1;
        let fault = order.fault.take_if(|(request, _)| number >= *request).map(|(_, fault)| fault);
        let pause = order.pauses.iter().position(|pause| number >= pause.request);
        let pause = pause.map(|at| order.pauses.remove(at));
        order.paused += usize::from(pause.is_some());
        (request, fault, pause)
    }
}

fn wait(pause: Option<Pause>) {
    if let Some(pause) = pause {
        let (go, wait): (Sender<()>, Receiver<()>) = channel();
        if pause.reached.send(go).is_ok() {
            // Gone without a word means the same.
            let _ = wait.recv();
        }
    }
}

/// The database's name: the first part of the path.
fn name_of(request: &[u8]) -> String {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let path = String::from_utf8_lossy(line);
    path.split('/').nth(1).unwrap_or_default().to_owned()
}

fn head_size(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4)
}

/// One whole message, request or answer; what follows it stays in `buffer`.
fn read_message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let head = loop {
        match head_size(buffer) {
            Some(head) => break head,
            None => more(stream, buffer)?,
        }
    };
    let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_lowercase();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mut end = head;
    if field("transfer-encoding:") == Some("chunked") {
        loop {
            let size = read_chunk_size(stream, buffer, &mut end)?;
            end += size + 2;
            while buffer.len() < end {
                more(stream, buffer)?;
            }
            if size == 0 {
                break;
            }
        }
    } else {
        end += field("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
        while buffer.len() < end {
            more(stream, buffer)?;
        }
    }
    let rest = buffer.split_off(end);
    Ok(std::mem::replace(buffer, rest))
}

/// The size of the chunk that begins at `at`, which moves behind the line that says it.
fn read_chunk_size(stream: &mut TcpStream, buffer: &mut Vec<u8>, at: &mut usize) -> io::Result<usize> {
    loop {
        let rest = buffer.get(*at..).unwrap_or_default();
        if let Some(line) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
            let text = String::from_utf8_lossy(rest.get(..line).unwrap_or_default()).into_owned();
            *at += line + 2;
            let size = usize::from_str_radix(text.trim(), 16);
            return size.map_err(|_| io::Error::other("a chunk without a size"));
        }
        more(stream, buffer)?;
    }
}

fn body_of(message: &[u8]) -> Vec<u8> {
    let Some(head) = head_size(message) else { return Vec::new() };
    let text = String::from_utf8_lossy(message.get(..head).unwrap_or_default()).to_lowercase();
    let mut rest = message.get(head..).unwrap_or_default();
    if !text.contains("transfer-encoding: chunked") {
        return rest.to_vec();
    }
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let text = String::from_utf8_lossy(rest.get(..line).unwrap_or_default()).into_owned();
        let size = usize::from_str_radix(text.trim(), 16).unwrap_or(0);
        body.extend_from_slice(rest.get(line + 2..line + 2 + size).unwrap_or_default());
        rest = rest.get(line + size + 4..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    body
}

fn more(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 1 << 14];
    match stream.read(&mut bytes)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            into.extend_from_slice(bytes.get(..count).unwrap_or_default());
            Ok(())
        }
    }
}
