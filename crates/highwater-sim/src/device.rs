//! A device: a real SQLite file, an application with its connection, and the real client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use highwater::{Builder, Database, DeviceId, Error, StateHash, SyncOutcome};
use highwater_pages::{Replica, Suspects};
use rusqlite::{Connection, OpenFlags};

use crate::bridge::{Bridge, Call, Calls, bridge};
use crate::dice::Dice;
use crate::history::{Event, Tx};
use crate::network::Network;
use crate::servers::Servers;
use crate::workloads;
use crate::world::World;

/// How long one sync goes on trying, in the world's time.
const TIMEOUT: Duration = Duration::from_secs(30);
/// No sync takes longer in the world's time, whatever goes wrong.
const LONGEST_SYNC: u64 = 30 * 60 * 1000;

/// A device.
#[derive(Debug)]
pub struct Device {
    /// From 1.
    pub number: u64,
    world: Arc<World>,
    servers: Arc<Servers>,
    path: PathBuf,
    bridge: Arc<Bridge>,
    calls: Calls,
    network: Network,
    database: Database,
    app: App,
}

/// The application.
#[derive(Debug)]
struct App {
    device: u64,
    world: Arc<World>,
    connection: Option<Connection>,
    dice: Dice,
    /// How many transactions it has committed.
    committed: u64,
}

impl Device {
    /// A device without a file yet.
    ///
    /// # Errors
    /// When its token or its database cannot be had.
    pub fn new(world: &Arc<World>, servers: &Arc<Servers>, folder: &Path, number: u64) -> Result<Self> {
        let (bridge, calls) = bridge(world, number);
        let path = folder.join(format!("device-{number}.db"));
        let database = database(world, servers, &path, &bridge, number)?;
        let dice = Dice::of(world.plan.seed, &format!("application of device {number}"));
        let app = App { device: number, world: Arc::clone(world), connection: None, dice, committed: 0 };
        let network = Network::new(world, servers, number);
        let (world, servers) = (Arc::clone(world), Arc::clone(servers));
        Ok(Self { number, world, servers, path, bridge, calls, network, database, app })
    }

    /// Whether it has no network.
    #[must_use]
    pub fn cut_off(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.network.cut_off)
    }

    /// Makes the tables.
    ///
    /// # Errors
    /// SQLite's.
    pub fn create(&mut self) -> Result<()> {
        let workloads = &self.world.plan.workloads;
        workloads::create(self.app.open(&self.path)?, workloads)
    }

    /// Everything that it does while there are faults.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub async fn live(&mut self) -> Result<()> {
        for _ in 0..self.world.plan.steps {
            let pause = self.app.dice.between(500, 90_000);
            self.world.sleep(pause).await;
            match self.app.dice.below(20) {
                0..=9 => {
                    for _ in 0..self.app.dice.between(1, 3) {
                        self.app.write("")?;
                    }
                }
                10 => self.app.checkpoint()?,
                11 => self.app.vacuum()?,
                12 => self.app.connection = None,
                _ => drop(self.sync().await?),
            }
            if self.path.exists() && self.app.connection.is_none() && self.holds_tables()? {
                self.app.open(&self.path)?;
            }
        }
        Ok(())
    }

    /// One sync, and what must hold after it. None: it failed, as it may.
    ///
    /// # Errors
    /// A promise that is broken.
    pub async fn sync(&mut self) -> Result<Option<SyncOutcome>> {
        self.world.note(&Event::Began { device: self.number })?;
        (self.network.forged, self.network.no_http, self.network.damaged) = (false, false, 0);
        let began = self.world.now_ms();
        let (database, bridge) = (self.database.clone(), Arc::clone(&self.bridge));
        std::thread::spawn(move || bridge.done(database.sync_blocking()));
        let (result, writes) = self.lock_step().await?;
        let took = self.world.now_ms() - began;
        let said = match &result {
            Ok(outcome) => format!("{:?}, {:?}", outcome.action, outcome.txid.map(|txid| txid.0)),
            Err(error) => plain(error, &self.path),
        };
        self.say(&format!("sync: {said}"));
        if took > LONGEST_SYNC {
            bail!("device {}: a sync took {} s", self.number, took / 1000);
        }
        match result {
            Ok(outcome) => {
                self.world.note(&Event::Acked { device: self.number })?;
                self.look()?;
                if writes == 0 {
                    self.is_where_it_says(&outcome)?;
                }
                Ok(Some(outcome))
            }
            Err(error) => {
                self.look()?;
                self.may_fail(error)?;
                Ok(None)
            }
        }
    }

    /// After a sync during which nobody wrote, the copy is the very state that the sync names.
    fn is_where_it_says(&self, outcome: &SyncOutcome) -> Result<()> {
        let Some(said) = state_of(outcome) else { return Ok(()) };
        let mut replica = Replica::open(&self.path, Duration::from_secs(10))?;
        let state = replica.snapshot(None)?.diff(None, &Suspects::ALL, &mut |_, _| ())?.state;
        anyhow::ensure!(
            state == said,
            "device {}: it says that it is at {said}, and is {state}",
            self.number
        );
        Ok(())
    }

    /// Also returns how often the application wrote meanwhile.
    async fn lock_step(&mut self) -> Result<(highwater::Result<SyncOutcome>, u32)> {
        let mut writes = 0;
        loop {
            match self.calls.next()? {
                Call::Done(result) => return Ok((*result, writes)),
                Call::Pause(time, over) => {
                    self.world.sleep(u64::try_from(time.as_millis())?).await;
                    let _ = over.send(());
                }
                Call::Exchange(asked, sender) => {
                    let (app, mut failed) = (&mut self.app, Ok(()));
                    let write = |when: &str| {
                        // Only so often: from the fifth round on the application is held back by real time.
                        if !app.world.is_calm() && app.dice.permille(60) && writes < 3 {
                            writes += 1;
                            failed = app.write(when);
                        }
                    };
                    let answer = self.network.carry(*asked, write).await;
                    failed?;
                    let _ = sender.send(answer);
                }
            }
        }
    }

    /// Whether a sync may fail like this. What passes by itself may; a token may end; anything may be said to who
    /// was lied to.
    fn may_fail(&mut self, error: Error) -> Result<()> {
        match error {
            Error::Unauthenticated { .. } => {
                self.say("gets a new token");
                self.database = database(&self.world, &self.servers, &self.path, &self.bridge, self.number)?;
                Ok(())
            }
            error if error.is_passing() && !self.world.is_calm() => Ok(()),
            Error::Server { .. } if !self.world.is_calm() => Ok(()),
            Error::NotHighwater { .. } | Error::BadAnswer { .. } | Error::Conflict { .. }
                if self.network.forged =>
            {
                Ok(())
            }
            // What is damaged twice is taken for the fault of the caches, and what is then found out anew may not show
            // the file's origin. It says so, changes nothing, and the next sync goes on.
            Error::Stranger { .. } if self.network.damaged > 1 => Ok(()),
            error => bail!("device {}: a sync failed as it must not: {error}", self.number),
        }
    }

    fn holds_tables(&self) -> Result<bool> {
        let connection = read_only(&self.path)?;
        let tables =
            connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'tx'", [], |row| {
                row.get::<_, i64>(0)
            });
        Ok(tables? > 0)
    }

    /// Reads the whole copy as another program would, and judges it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn look(&self) -> Result<()> {
        if !self.path.exists() || !self.holds_tables()? {
            return Ok(());
        }
        let connection = read_only(&self.path)?;
        let broken = || format!("the copy of device {}", self.number);
        let seen = workloads::read(&connection, &self.world.plan.workloads).with_context(broken)?;
        self.world.note(&Event::Read { device: self.number, seen })
    }

    /// The name of the state of its copy, and every page in the form in which copies are compared.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn pages(&self) -> Result<Vec<u8>> {
        let connection = read_only(&self.path)?;
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        anyhow::ensure!(sound == "ok", "device {}: integrity_check: {sound}", self.number);
        let mut statement = connection.prepare("SELECT data FROM sqlite_dbpage ORDER BY pgno")?;
        let mut rows = statement.query([])?;
        let mut bytes = Vec::new();
        while let Some(row) = rows.next()? {
            bytes.extend_from_slice(row.get_ref(0)?.as_blob()?);
        }
        // What SQLite changes by itself: the journal mode, the change counter, its version.
        for range in [18..20, 24..28, 92..100] {
            bytes.get_mut(range).context("a first page")?.fill(0);
        }
        Ok(bytes)
    }

    fn say(&self, what: &str) {
        self.world.say(format!("device {}: {what}", self.number));
    }
}

/// An error without what is another in every run.
fn plain(error: &Error, path: &Path) -> String {
    let folder = path.parent().unwrap_or(path).to_string_lossy();
    let said = error.to_string().replace(&*folder, "…");
    match error {
        Error::Server { request_id: Some(id), .. } => said.replace(id, "…"),
        _ => said,
    }
}

/// The state of an outcome.
#[must_use]
pub fn state_of(outcome: &SyncOutcome) -> Option<StateHash> {
    outcome.position.map(|position| position.state)
}

fn database(
    world: &Arc<World>,
    servers: &Servers,
    path: &Path,
    bridge: &Arc<Bridge>,
    number: u64,
) -> Result<Database> {
    let id = (u128::from(world.plan.seed) << 80) | (u128::from(number) << 64) | u128::from(number);
    let database = Builder::new(path)
        .remote("http://sim/sim")
        .device(DeviceId(id))
        .token(servers.token(number)?)
        .timeout(TIMEOUT)
        .world(Arc::<Bridge>::clone(bridge))
        .open()?;
    Ok(database)
}

fn read_only(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    Ok(connection)
}

impl App {
    fn open(&mut self, path: &Path) -> Result<&mut Connection> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "page_size", self.world.plan.page_size)?;
        connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get::<_, String>(0))?;
        // Files are in memory, and nobody pulls the plug here.
        connection.execute_batch("PRAGMA synchronous = OFF")?;
        connection.busy_timeout(Duration::ZERO)?;
        Ok(self.connection.insert(connection))
    }

    /// One transaction, unless it is not its turn.
    fn write(&mut self, when: &str) -> Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let workload = *self.dice.pick(&self.world.plan.workloads).context("a workload")?;
        let tx = Tx { device: self.device, number: self.committed + 1 };
        match workloads::write(connection, workload, tx, &mut self.dice) {
            Ok(()) => {
                self.committed += 1;
                self.world.say(format!(
                    "device {}: commits {}, {} {when}",
                    self.device,
                    tx.number,
                    workload.name()
                ));
                self.world.note(&Event::Committed(tx))
            }
            Err(error) if is_busy(&error) => {
                self.world.say(format!("device {}: {} is busy {when}", self.device, workload.name()));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn checkpoint(&self) -> Result<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        self.world.say(format!("device {}: checkpoint", self.device));
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        Ok(connection.query_row(sql, [], |_| Ok(()))?)
    }

    fn vacuum(&self) -> Result<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        self.world.say(format!("device {}: VACUUM", self.device));
        Ok(connection.execute_batch("VACUUM")?)
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<rusqlite::Error>())
        .any(|error| error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy))
}
