//! The machines of a case: real SQLite files, the real client, the real server, and the rows that must be there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use highwater::{Action, Builder};
use highwater_server::{Config, Embedded, SnapshotPolicy, StoreUrl};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::disk::Tree;
use crate::folder::Folder;
use crate::gate::Gate;
use crate::scenario::{Machine, Step};

/// How many devices a case has.
const DEVICES: usize = 2;
/// A device that is not in sync after so many syncs never will be.
const MOST_SYNCS: usize = 4;

/// The rows that were committed.
pub(crate) type Rows = BTreeMap<i64, String>;

/// All machines at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) trees: BTreeMap<Machine, Tree>,
    pub(crate) rows: Rows,
}

/// The machines of a case.
pub(crate) struct World {
    root: tempfile::TempDir,
    folders: BTreeMap<Machine, Folder>,
    pub(crate) gate: Gate,
    /// Counts what was written, so that no two texts are the same.
    written: u64,
    pub(crate) rows: Rows,
    snapshot_after: u32,
}

/// The configuration of the server over a folder.
pub(crate) fn config(store: &Path, snapshot_after: u32) -> Config {
    let snapshot = SnapshotPolicy { max_files: snapshot_after, ..SnapshotPolicy::default() };
    Config { store: StoreUrl::Local(store.to_path_buf()), snapshot, ..Config::default() }
}

/// One sync of a database.
pub(crate) fn sync(db: &Path, url: &str) -> Result<Action> {
    let database = Builder::new(db).remote(url).timeout(Duration::ZERO).open()?;
    Ok(database.sync_blocking()?.action)
}

impl World {
    /// Machines with nothing on them.
    ///
    /// # Errors
    /// When there is no folder or socket to be had.
    pub(crate) fn new(snapshot_after: u32) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let root = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).context("a folder")?;
        let mut folders = BTreeMap::new();
        folders.insert(Machine::Server, Folder::new(root.path(), "server")?);
        for device in 0..DEVICES {
            folders.insert(Machine::Device(device), Folder::new(root.path(), &format!("device-{device}"))?);
        }
        let gate = Gate::open()?;
        Ok(Self { root, folders, gate, written: 0, rows: Rows::new(), snapshot_after })
    }

    pub(crate) fn folder(&self, machine: Machine) -> Result<&Folder> {
        self.folders.get(&machine).context("there is no such machine")
    }

    /// A file for records.
    pub(crate) fn records(&self) -> PathBuf {
        self.root.path().join("records")
    }

    /// The database's URL, the same for all servers.
    pub(crate) fn url(&self) -> String {
        self.gate.url("app")
    }

    /// Where a device has its database.
    pub(crate) fn db(&self, device: usize) -> Result<PathBuf> {
        Ok(self.folder(Machine::Device(device))?.path().join("app.db"))
    }

    /// A server over the store as it is.
    pub(crate) fn serve(&self) -> Result<Embedded> {
        let store = self.folder(Machine::Server)?.path();
        let server = Embedded::start(config(store, self.snapshot_after), ([127, 0, 0, 1], 0).into())?;
        self.gate.lead_to(server.addr());
        Ok(server)
    }

    pub(crate) fn snapshot_after(&self) -> u32 {
        self.snapshot_after
    }

    /// Everything as it is now.
    pub(crate) fn moment(&self) -> Result<Moment> {
        let mut trees = BTreeMap::new();
        for (machine, folder) in &self.folders {
            folder.keep()?;
            trees.insert(*machine, folder.read()?);
        }
        Ok(Moment { trees, rows: self.rows.clone() })
    }

    /// Makes everything as it was.
    pub(crate) fn go_to(&mut self, moment: &Moment) -> Result<()> {
        for (machine, tree) in &moment.trees {
            self.folder(*machine)?.become_state(tree)?;
        }
        self.rows.clone_from(&moment.rows);
        Ok(())
    }

    /// Lets something happen.
    pub(crate) fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Write(device, count) => self.write(device, count),
            Step::Rewrite(device) => self.rewrite(device),
            Step::Checkpoint(device) => {
                let connection = connect(&self.db(device)?)?;
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
                Ok(())
            }
            Step::Blank(device) => connect(&self.db(device)?).map(drop),
            Step::LoseMetadata(device) => {
                let info = self.db(device)?.with_file_name("app.db-info");
                std::fs::remove_file(info).context("removing the metadata")
            }
            Step::Sync(device) => sync(&self.db(device)?, &self.url()).map(drop),
        }
    }

    fn write(&mut self, device: usize, count: usize) -> Result<()> {
        let connection = connect(&self.db(device)?)?;
        connection
            .execute_batch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, text TEXT NOT NULL)")?;
        for _ in 0..count {
            self.written += 1;
            // Each device has ids of its own, so that what must come out is known.
            let id = i64::try_from(device)? * 1_000_000 + i64::try_from(self.written)?;
            let text = format!("row {} {}", self.written, "padding ".repeat(40));
            connection.execute("INSERT INTO t VALUES(?1, ?2)", (id, &text))?;
            self.rows.insert(id, text);
        }
        Ok(())
    }

    fn rewrite(&mut self, device: usize) -> Result<()> {
        self.written += 1;
        let connection = connect(&self.db(device)?)?;
        let from = i64::try_from(device)? * 1_000_000;
        let word = format!("change {} ", self.written);
        let range = from..from + 1_000_000;
        connection.execute(
            "UPDATE t SET text = ?1 || id WHERE id >= ?2 AND id < ?3",
            (&word, range.start, range.end),
        )?;
        self.rows.range_mut(range).for_each(|(id, text)| *text = format!("{word}{id}"));
        Ok(())
    }

    /// Lets every device sync until nothing moves, and compares all copies with what was committed.
    ///
    /// # Errors
    /// What is not as it must be.
    pub(crate) fn prove(&self) -> Result<()> {
        let server = self.serve()?;
        let url = self.url();
        let mut moved = true;
        for _ in 0..MOST_SYNCS {
            moved = false;
            for device in 0..DEVICES {
                let action = sync(&self.db(device)?, &url).with_context(|| format!("device {device}"))?;
                moved |= !matches!(action, Action::UpToDate | Action::NothingYet);
            }
            if !moved {
                break;
            }
        }
        ensure!(!moved, "the devices are not in sync after {MOST_SYNCS} rounds");
        let copy = tempfile::tempdir_in(self.root.path()).context("a folder")?;
        let fresh = copy.path().join("app.db");
        sync(&fresh, &url).context("a new device")?;
        for device in 0..DEVICES {
            compare(&self.db(device)?, &self.rows).with_context(|| format!("device {device}"))?;
        }
        compare(&fresh, &self.rows).context("a new device")?;
        server.stop()?;
        Ok(())
    }
}

/// A connection as a careful application has it: what it commits is safe, and its log stays for the next.
fn connect(db: &Path) -> Result<Connection> {
    let connection = Connection::open(db).with_context(|| format!("opening {}", db.display()))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection
        .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0")?;
    Ok(connection)
}

fn compare(db: &Path, expected: &Rows) -> Result<()> {
    let connection = connect(db)?;
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(check == "ok", "integrity_check says: {check}");
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let mut found = Rows::new();
    if tables > 0 {
        let mut rows = connection.prepare("SELECT id, text FROM t")?;
        for row in rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (id, text) = row?;
            found.insert(id, text);
        }
    }
    if found == *expected {
        return Ok(());
    }
    let mut said = format!("{} rows were committed, {} are there", expected.len(), found.len());
    for (id, text) in expected.iter().filter(|(id, text)| found.get(id) != Some(text)).take(3) {
        write!(said, "; {id} should be {text:.20?} and is {:.20?}", found.get(id))?;
    }
    for id in found.keys().filter(|id| !expected.contains_key(id)).take(3) {
        write!(said, "; nobody wrote {id}")?;
    }
    bail!(said)
}
