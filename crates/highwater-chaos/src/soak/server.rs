//! `highwater serve` as a process that ends and begins again.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub(crate) struct Served {
    highwater: PathBuf,
    store: PathBuf,
    log: PathBuf,
    addr: SocketAddr,
    child: Option<Child>,
}

impl Served {
    pub(crate) fn start(highwater: &Path, store: &Path, folder: &Path) -> Result<Self> {
        // Below the ports that the system hands out by itself, so that it is free when it is needed again.
        let near = 18_000 + u16::try_from(std::process::id() % 2_000).unwrap_or(0);
        let free = (near..near + 2_000).find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
        let addr = (Ipv4Addr::LOCALHOST, free.context("no port is free")?).into();
        let log = folder.join("server.log");
        let mut served =
            Self { highwater: highwater.to_owned(), store: store.to_owned(), log, addr, child: None };
        served.again()?;
        Ok(served)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub(crate) fn again(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(&self.log)?;
        let mut command = Command::new(&self.highwater);
        command.args(["serve", "--json", "--listen", &self.addr.to_string(), "--store"]).arg(&self.store);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command
            .spawn()
            .with_context(|| format!("running {}; name it with --highwater", self.highwater.display()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        ensure!(line.contains("listening"), "the server does not start: {line}; see {}", self.log.display());
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("a server")?;
        ensure!(child.try_wait()?.is_none(), "the server ended by itself; see {}", self.log.display());
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and a graceful end.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("a server")?;
        ensure!(child.try_wait()?.is_none(), "the server ended by itself; see {}", self.log.display());
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            ensure!(began.elapsed() < Duration::from_secs(60), "the server does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = child.wait()?;
        ensure!(status.success(), "the server ended with {status}; see {}", self.log.display());
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
