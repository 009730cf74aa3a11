//! What the acts of the demo share: the folder, the server that comes and goes at one address, the
//! two copies, the voice of the narrator, and the list of what crossed the wire.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use highwater::{Builder, Database, SyncOutcome};
use highwater_server::{Config, Embedded, StoreUrl};
use rusqlite::Connection;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;

/// What one sync moved.
#[derive(Debug, Serialize)]
pub(super) struct Wire {
    pub(super) what: &'static str,
    pub(super) requests: u32,
    pub(super) frames: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
}

/// The scene of the demo.
pub(super) struct Stage<'a> {
    out: &'a Output,
    folder: PathBuf,
    address: SocketAddr,
    server: Option<Embedded>,
    act: u32,
    wire: Vec<Wire>,
    pub(super) laptop: Database,
    pub(super) phone: Database,
}

impl<'a> Stage<'a> {
    /// Prepares two copies that know where the server will be. Nothing runs yet.
    pub(super) fn set(folder: &Path, out: &'a Output) -> Result<Self, Failure> {
        let address = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .and_then(|listener| listener.local_addr())
            .map_err(|error| {
                Failure::failed("listen", format!("no port is free on this machine: {error}"))
            })?;
        let url = format!("http://{address}/notes");
        let copy = |name: &str| Builder::new(folder.join(name)).remote(&url).open();
        let (laptop, phone) = (copy("laptop.db")?, copy("phone.db")?);
        Ok(Self {
            out,
            folder: folder.to_owned(),
            address,
            server: None,
            act: 0,
            wire: Vec::new(),
            laptop,
            phone,
        })
    }

    /// Begins an act with a heading.
    pub(super) fn act(&mut self, title: &str) -> Result<(), Failure> {
        self.act += 1;
        let gap = if self.act == 1 { "" } else { "\n" };
        self.narrate(format_args!("{gap}{}. {title}", self.act))
    }

    /// Tells something within an act.
    pub(super) fn say(&self, text: impl fmt::Display) -> Result<(), Failure> {
        self.narrate(format_args!("   {text}"))
    }

    fn narrate(&self, text: fmt::Arguments<'_>) -> Result<(), Failure> {
        if self.out.is_json() { Ok(()) } else { self.out.line(text) }
    }

    /// Notes what a sync moved, for the table at the end.
    pub(super) fn note(&mut self, what: &'static str, outcome: &SyncOutcome) {
        self.wire.push(Wire {
            what,
            requests: outcome.requests,
            frames: outcome.pushed.frames + outcome.pulled.frames,
            sent_bytes: outcome.pushed.bytes,
            received_bytes: outcome.pulled.bytes,
        });
    }

    /// Starts the server, always at the same address and with the same store.
    pub(super) fn start_server(&mut self) -> Result<(), Failure> {
        let config = Config { store: StoreUrl::Local(self.folder.join("server")), ..Config::default() };
        let server = Embedded::start(config, self.address)?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server; its store stays.
    pub(super) fn stop_server(&mut self) -> Result<(), Failure> {
        match self.server.take() {
            Some(server) => Ok(server.stop()?),
            None => Ok(()),
        }
    }

    /// A file beside the laptop's database.
    pub(super) fn beside_laptop(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("laptop.db{suffix}"))
    }

    /// The size of the database, in bytes.
    pub(super) fn laptop_size(&self) -> Result<u64, Failure> {
        let status = self.laptop.status()?;
        Ok(status.page_size.map_or(0, |size| status.page_count.bytes(size)))
    }

    /// Checks that both copies hold the same rows, and that SQLite finds nothing wrong with either.
    pub(super) fn same_on_both(&self) -> Result<u64, Failure> {
        let laptop = rows(&self.laptop.connect()?)?;
        let phone = rows(&self.phone.connect()?)?;
        check(laptop == phone, "both copies hold the same rows")?;
        Ok(u64::try_from(laptop.len()).unwrap_or(u64::MAX))
    }

    /// Ends the demo.
    pub(super) fn end(mut self) -> Result<Vec<Wire>, Failure> {
        self.stop_server()?;
        Ok(self.wire)
    }
}

/// Every note, after an integrity check.
fn rows(db: &Connection) -> Result<Vec<(i64, String)>, Failure> {
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(sqlite)?;
    check(verdict == "ok", "SQLite finds nothing wrong")?;
    let mut query = db.prepare("SELECT id, text FROM notes ORDER BY id").map_err(sqlite)?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(sqlite)?;
    rows.collect::<Result<_, _>>().map_err(sqlite)
}

/// A claim of the story that has to hold.
pub(super) fn check(holds: bool, claim: &str) -> Result<(), Failure> {
    if holds {
        return Ok(());
    }
    Err(Failure::failed("demo", format!("the demo claims that {claim}, but that is not so"))
        .hint("this is a defect of Highwater: please report it with what is printed above"))
}

/// A failure of the application's own SQL.
pub(super) fn sqlite(error: rusqlite::Error) -> Failure {
    Failure::failed("sqlite", format!("SQLite failed in the demo: {error}"))
}
