//! The machines of a case: real SQLite files, the real client, the real server, and the rows that must be there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
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

/// What is in every row that [`Step::Ring`] adds.
const RING: &str = "ding";

/// The rows that were committed.
pub(crate) type Rows = BTreeMap<i64, String>;

/// All machines at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) trees: BTreeMap<Machine, Tree>,
    pub(crate) rows: Rows,
    /// Those whose sync was acknowledged.
    pub(crate) acknowledged: Rows,
    /// Those that this device may have, or not: nobody waited for the disk.
    pub(crate) relaxed: Option<(usize, Rows)>,
}

/// The machines of a case.
pub(crate) struct World {
    root: tempfile::TempDir,
    folders: BTreeMap<Machine, Folder>,
    pub(crate) gate: Gate,
    /// Counts what was written, so that no two texts are the same.
    written: u64,
    pub(crate) rows: Rows,
    acknowledged: Rows,
    backups: BTreeMap<usize, Vec<u8>>,
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
        Ok(Self {
            root,
            folders,
            gate,
            written: 0,
            rows: Rows::new(),
            acknowledged: Rows::new(),
            backups: BTreeMap::new(),
            snapshot_after,
        })
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
        let (rows, acknowledged) = (self.rows.clone(), self.acknowledged.clone());
        Ok(Moment { trees, rows, acknowledged, relaxed: None })
    }

    /// Makes everything as it was.
    pub(crate) fn go_to(&mut self, moment: &Moment) -> Result<()> {
        for (machine, tree) in &moment.trees {
            self.folder(*machine)?.become_state(tree)?;
        }
        self.rows.clone_from(&moment.rows);
        self.acknowledged.clone_from(&moment.acknowledged);
        if let Some((device, rows)) = &moment.relaxed {
            // Those that outlived the power cut are like any others from here on.
            let found = read(&self.db(*device)?)?;
            let there = rows.iter().filter(|(id, text)| found.get(id) == Some(text));
            self.rows.extend(there.map(|(id, text)| (*id, text.clone())));
        }
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
            Step::Ring(device) => self.ring(device),
            Step::Backup(device) => {
                self.step(Step::Checkpoint(device))?;
                let bytes = std::fs::read(self.db(device)?).context("copying a database")?;
                self.backups.insert(device, bytes);
                Ok(())
            }
            Step::Restore(device) => self.restore(device),
            Step::Relaxed(..) => bail!("what nobody waits for is only of interest while it is recorded"),
            Step::Sync(device) => {
                sync(&self.db(device)?, &self.url())?;
                let own = self.rows.range(own_ids(device)?).filter(|(_, text)| *text != RING);
                self.acknowledged.extend(own.map(|(id, text)| (*id, text.clone())));
                Ok(())
            }
        }
    }

    fn write(&mut self, device: usize, count: usize) -> Result<()> {
        let rows = self.new_rows(device, count)?;
        write(&self.db(device)?, &rows, "FULL")?;
        self.rows.extend(rows);
        Ok(())
    }

    /// Rows that nobody has written yet.
    pub(crate) fn new_rows(&mut self, device: usize, count: usize) -> Result<Rows> {
        let mut rows = Rows::new();
        for _ in 0..count {
            self.written += 1;
            let id = own_ids(device)?.start + i64::try_from(self.written)?;
            rows.insert(id, format!("row {} {}", self.written, "padding ".repeat(40)));
        }
        Ok(rows)
    }

    fn ring(&mut self, device: usize) -> Result<()> {
        connect(&self.db(device)?)?.execute("INSERT INTO t(text) VALUES(?1)", [RING])?;
        // Whichever is merged later gets the next id.
        let last = self.rows.last_key_value().map_or(0, |(id, _)| *id);
        self.rows.insert(last + 1, RING.to_owned());
        Ok(())
    }

    fn restore(&self, device: usize) -> Result<()> {
        let (db, bytes) = (self.db(device)?, self.backups.get(&device).context("a backup")?);
        for left in ["app.db-wal", "app.db-shm"] {
            // There may be none.
            let _ = std::fs::remove_file(db.with_file_name(left));
        }
        File::create(&db).and_then(|mut file| file.write_all(bytes)).context("restoring a database")
    }

    fn rewrite(&mut self, device: usize) -> Result<()> {
        self.written += 1;
        let connection = connect(&self.db(device)?)?;
        let word = format!("change {} ", self.written);
        let range = own_ids(device)?;
        connection.execute(
            "UPDATE t SET text = ?1 || id WHERE id >= ?2 AND id < ?3",
            (&word, range.start, range.end),
        )?;
        // After a power cut some may be at the server only.
        self.rows.extend(read(&self.db(device)?)?.into_iter().filter(|(_, text)| text.starts_with(&word)));
        Ok(())
    }

    /// Lets every device sync until nothing moves, and compares all copies with what was committed.
    ///
    /// # Errors
    /// What is not as it must be.
    pub(crate) fn prove(&self) -> Result<()> {
        let server = self.serve()?;
        let url = self.url();
        let copy = tempfile::tempdir_in(self.root.path()).context("a folder")?;
        if !self.acknowledged.is_empty() {
            let early = copy.path().join("early.db");
            sync(&early, &url).context("a new device, before any other syncs")?;
            self.has_what_was_acknowledged(&early)?;
        }
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
        let fresh = copy.path().join("app.db");
        sync(&fresh, &url).context("a new device")?;
        for device in 0..DEVICES {
            compare(&self.db(device)?, &self.rows).with_context(|| format!("device {device}"))?;
        }
        compare(&fresh, &self.rows).context("a new device")?;
        server.stop()?;
        Ok(())
    }

    /// The devices have everything still: only who asks the server alone finds out what it has lost.
    fn has_what_was_acknowledged(&self, db: &Path) -> Result<()> {
        let found = read(db)?;
        for (id, text) in &self.acknowledged {
            // It may have been changed since by a sync that was not answered.
            let there = found.get(id).is_some_and(|there| there == text || Some(there) == self.rows.get(id));
            ensure!(there, "the server lost {id}, which was acknowledged, and has {:.20?}", found.get(id));
        }
        Ok(())
    }
}

/// Each device has ids of its own, so that what must come out is known.
fn own_ids(device: usize) -> Result<Range<i64>> {
    let from = i64::try_from(device)? * 1_000_000;
    Ok(from..from + 1_000_000)
}

/// Writes rows, each in a transaction of its own.
pub(crate) fn write(db: &Path, rows: &Rows, synchronous: &str) -> Result<()> {
    let connection = connect(db)?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, text TEXT NOT NULL)")?;
    for row in rows {
        connection.execute("INSERT INTO t VALUES(?1, ?2)", row)?;
    }
    Ok(())
}

/// A connection as a careful application has it: what it commits is safe, and its log stays for the next.
fn connect(db: &Path) -> Result<Connection> {
    let connection = Connection::open(db).with_context(|| format!("opening {}", db.display()))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection
        .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0")?;
    Ok(connection)
}

fn read(db: &Path) -> Result<Rows> {
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
    Ok(found)
}

fn compare(db: &Path, expected: &Rows) -> Result<()> {
    let found = read(db)?;
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
