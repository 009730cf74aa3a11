//! Processes of the histories' own that may be killed: a sync of the real client, and a server.
//!
//! A child is this very program with a hidden command. A debug build is killed at the n-th named step that it passes
//! (`highwater_pages::kill_point`); a release build has no such steps, and is killed at moments and after times only.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result};
use highwater::{Builder, DeviceId, ErrorKind, TxId};
use highwater_server::{Config, Embedded, StoreUrl};
use highwater_wire::MergePolicy;

use crate::device::{Heard, Told, Unheard};
use crate::lab::config;
use crate::plan::{Kill, Trouble};
use crate::relay::{Pause, Relay};

/// The hidden command of a sync.
pub const SYNC: &str = "child-sync";
/// The hidden command of a server.
pub const SERVE: &str = "child-serve";

/// What one sync came to, in a child's one line.
///
/// # Errors
/// When the database cannot be opened.
pub fn sync(path: &Path, url: &str, device: u128, policy: MergePolicy) -> Result<String> {
    let builder = Builder::new(path).remote(url).device(DeviceId(device)).merge_policy(policy);
    let database = builder.timeout(Duration::ZERO).open()?;
    let line = match database.sync_blocking() {
        Ok(outcome) => serde_json::json!({
            "moved": outcome.changed(),
            "rebased": !outcome.held.is_zero(),
            "txid": outcome.txid.map(|txid| txid.0),
            "text": format!("{:?}", outcome.action),
        }),
        Err(error) => serde_json::json!({
            "offline": error.kind() == ErrorKind::Offline,
            "error": error.to_string(),
        }),
    };
    Ok(line.to_string())
}

/// Serves the store until standard input ends.
///
/// # Errors
/// When there is no store or no socket.
pub fn serve(store: &Path, max_files: u32, policy: MergePolicy) -> Result<()> {
    let config: Config = config(StoreUrl::Local(store.to_path_buf()), max_files, policy);
    let server = Embedded::start(config, ([127, 0, 0, 1], 0).into())?;
    // The parent waits for this line.
    {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", server.addr())?;
        out.flush()?;
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A child that is dead when this is gone.
#[derive(Debug)]
pub(crate) struct Mortal(pub(crate) Child);

impl Mortal {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Ok(Self(child.with_context(|| format!("starting {}", command.get_program().display()))?))
    }

    /// SIGKILL, and waits until it is dead.
    pub(crate) fn kill(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.kill();
    }
}

fn killed_at(command: &mut Command, step: Option<u32>) {
    for name in ["HIGHWATER_KILL_AT", "HIGHWATER_KILL_LOG"] {
        command.env_remove(name);
    }
    if let Some(step) = step {
        command.env("HIGHWATER_KILL_AT", format!("*:{step}"));
    }
}

/// Lets `act` happen while `kill` is about to strike, and strikes when its time comes.
///
/// `act` gets the means to strike, and returns when the killed one has answered or is dead.
pub(crate) fn struck<T: Send>(
    trouble: &Trouble,
    relay: &Relay,
    name: &str,
    strike: &(dyn Fn() + Sync),
    act: impl FnOnce() -> T + Send,
) -> Result<T> {
    let (reached, moments) = channel();
    match trouble.kill {
        Some(Kill::Moment(moment)) => {
            relay.order(name, None, vec![Pause { request: trouble.request, moment, reached }]);
        }
        _ => {
            drop(reached);
            relay.order(name, None, Vec::new());
        }
    }
    let (ended, end) = channel::<()>();
    std::thread::scope(|scope| {
        let acting = scope.spawn(move || {
            let result = act();
            relay.order(name, None, Vec::new());
            drop(ended);
            result
        });
        if let Some(Kill::After(micros)) = trouble.kill
            && end.recv_timeout(Duration::from_micros(micros))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            strike();
        }
        if let Ok(go) = moments.recv() {
            strike();
            drop(go);
        }
        acting.join().map_err(|_| anyhow::anyhow!("a thread panicked"))
    })
}

/// A sync in a process of its own, which is killed.
pub(crate) fn killed_sync(
    program: &Path,
    (path, device, policy): (&Path, DeviceId, MergePolicy),
    trouble: &Trouble,
    (relay, name): (&Relay, &str),
) -> Result<Told> {
    let since = relay.connections();
    let mut command = Command::new(program);
    command.arg(SYNC).arg(path).arg(relay.url(name)).arg(format!("{:x}", device.0)).arg(policy.to_string());
    killed_at(&mut command, if let Some(Kill::Step(step)) = trouble.kill { Some(step) } else { None });
    let mut child = Mortal::start(&mut command)?;
    let mut out = child.0.stdout.take().context("its output")?;
    let pid = std::sync::Mutex::new(child);
    let strike = || {
        if let Ok(mut child) = pid.lock() {
            child.kill();
        }
    };
    let line = struck(trouble, relay, name, &strike, || {
        let mut line = String::new();
        out.read_to_string(&mut line).map(|_| line)
    })??;
    strike();
    relay.wait_for_the_end_of(since)?;
    if line.is_empty() {
        return Ok(Err(Unheard { offline: true, text: "its process was killed".to_owned() }));
    }
    let said: serde_json::Value =
        serde_json::from_str(&line).with_context(|| format!("a child said {line}"))?;
    let text = |name: &str| said.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let flag = |name: &str| said.get(name).and_then(serde_json::Value::as_bool).unwrap_or(false);
    Ok(if said.get("error").is_some() {
        Err(Unheard { offline: flag("offline"), text: text("error") })
    } else {
        let txid = said.get("txid").and_then(serde_json::Value::as_u64).map(TxId);
        Ok(Heard { moved: flag("moved"), txid, rebased: flag("rebased"), text: text("text") })
    })
}

/// A server in a process of its own, which dies at the n-th named step that it passes.
pub(crate) fn mortal_server(
    program: &Path,
    (store, max_files, policy): (&Path, u32, MergePolicy),
    step: u32,
) -> Result<(Mortal, SocketAddr)> {
    let mut command = Command::new(program);
    command.arg(SERVE).arg(store).arg(max_files.to_string()).arg(policy.to_string());
    killed_at(&mut command, Some(step));
    let mut child = Mortal::start(&mut command)?;
    let mut line = String::new();
    BufReader::new(child.0.stdout.as_mut().context("its output")?).read_line(&mut line)?;
    let addr = line.trim().parse().with_context(|| format!("the server said {line:?}"))?;
    Ok((child, addr))
}

/// The programs that a lab starts.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// This very one, for children that are killed. None: nobody is killed.
    pub own: Option<PathBuf>,
    /// The driver of the crate `libsql` (`interop/clients/rust`). None: no libSQL devices.
    pub libsql: Option<PathBuf>,
}
