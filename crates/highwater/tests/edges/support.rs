//! What the edges share: processes with a disk of their own, servers that are none, and messages read
//! as a stranger reads them.

use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{World, assert_same};
use highwater::{Builder, Database};

/// Tells a child process of this test program where its disk is.
const DISK: &str = "HIGHWATER_TEST_DISK";

/// Runs `body` in a process of its own with a file system of `size` mounted at the path that it is
/// given. `test` is the full name of the calling test. Where this machine does not allow to mount
/// anything, that is said and nothing is tested.
pub(crate) fn with_small_disk(test: &str, size: &str, body: impl FnOnce(&Path)) {
    if let Some(disk) = std::env::var_os(DISK) {
        return body(Path::new(&disk));
    }
    let Some(unshare) = ["-rm", "-m"].into_iter().find(|option| may_mount(option)) else {
        println!("SKIPPED {test}: this machine does not allow to mount a small file system (unshare -rm)");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=\"$0\" tmpfs \"$1\" && shift && exec \"$@\"";
    let output = Command::new("unshare")
        .args([unshare, "sh", "-c", script, size])
        .arg(place.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(DISK, place.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        said.contains("1 passed"),
        "{test} in a process of its own:\n{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn may_mount(option: &str) -> bool {
    let tried = Command::new("unshare").args([option, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// Runs a command of the system, such as `mount`.
pub(crate) fn system(program: &str, args: &[&str], path: &Path) {
    let output = Command::new(program).args(args).arg(path).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file that takes all the room of a disk but `leave` bytes, as long as it lives.
pub(crate) struct Filler(PathBuf);

impl Filler {
    pub(crate) fn leaving(disk: &Path, leave: u64) -> Self {
        let path = disk.join("filler");
        let mut file = File::create(&path).unwrap();
        for chunk in [1 << 20, 1 << 12] {
            while file.write_all(&vec![1; chunk]).is_ok() {}
        }
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(leave)).unwrap();
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Every temporary file that is left in a folder.
pub(crate) fn litter(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with('.') || name.contains("tmp-")).collect()
}

/// The message of an error with all its causes has each of these words.
#[track_caller]
pub(crate) fn says(error: &dyn std::error::Error, words: &[&dyn Display]) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if !text.contains(&cause.to_string()) {
            text = format!("{text}: {cause}");
        }
        source = cause.source();
    }
    println!("    says: {text}");
    for word in words {
        let word = word.to_string();
        assert!(text.contains(&word), "{word:?} is missing in: {text}");
    }
    text
}

/// How many pushes the server has accepted for a database.
pub(crate) fn accepted(database: &Database) -> usize {
    database.on_server().unwrap().log_blocking(None, 1000).unwrap().entries.len()
}

/// A database with another copy, both synced; content of `on_a` arrives in both.
pub(crate) struct Pair {
    pub a: Database,
    pub b: Database,
    pub name: String,
}

impl Pair {
    /// Two copies of the database `name` in files of the world's folder.
    pub(crate) fn new(world: &World, name: &str) -> Self {
        let copy = |file: &str| builder(&world.path(&format!("{name}-{file}.db")), &world.url(name));
        Self { a: copy("a").open().unwrap(), b: copy("b").open().unwrap(), name: name.to_owned() }
    }

    /// Pushes from the first copy and pulls into the second.
    #[track_caller]
    pub(crate) fn sync(&self) {
        self.a.sync_blocking().unwrap();
        self.b.sync_blocking().unwrap();
        assert_same(self.a.path(), self.b.path());
    }
}

/// Options with timeouts that fit a test.
pub(crate) fn builder(path: &Path, url: &str) -> Builder {
    Builder::new(path).remote(url).timeout(Duration::from_secs(5)).busy_timeout(Duration::from_millis(500))
}

/// Waits until `done`, and not longer than `most`.
#[track_caller]
pub(crate) fn within(most: Duration, what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < most, "{what}: not within {most:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

/// Something that listens and is not Highwater: `answer` turns each request's head into the bytes to
/// send back.
pub(crate) struct Fake {
    pub addr: SocketAddr,
    pub requests: Arc<AtomicU32>,
}

impl Fake {
    pub(crate) fn start(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU32::new(0));
        let (counter, answer) = (Arc::clone(&requests), Arc::new(answer));
        // It ends with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, answer, counter) =
                    (stream.unwrap(), Arc::clone(&answer), Arc::clone(&counter));
                std::thread::spawn(move || {
                    let head = request(&mut stream);
                    counter.fetch_add(1, Ordering::SeqCst);
                    answer(&head, &mut stream);
                });
            }
        });
        Self { addr, requests }
    }

    /// Answers every request with the same status, headers and body.
    pub(crate) fn answering(status: &str, headers: &str, body: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        Self::start(move |_, stream| drop(stream.write_all(answer.as_bytes())))
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.addr)
    }
}

/// Reads a request with its body, and returns its head.
fn request(stream: &mut TcpStream) -> String {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    loop {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return text;
            }
        }
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
            _ => return String::from_utf8_lossy(&bytes).into_owned(),
        }
    }
}
