//! A device: a real SQLite file, an application that keeps its connection open, and the real client.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result};
use highwater::{Builder, Database, DeviceId, ErrorKind, MergePolicy, TxId};
use rusqlite::Connection;

use crate::child::{Programs, killed_sync};
use crate::contents::Contents;
use crate::plan::{Beside, Commit, Kill, Moment, Plan, Trouble};
use crate::relay::{Pause, Relay};
use crate::sdk::{Sdk, connect_beside};
use crate::writer::Writer;

/// A device.
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    id: DeviceId,
    policy: MergePolicy,
    client: Client,
    own: Option<PathBuf>,
    /// Open from the beginning to the end. None: only while its file is exchanged.
    connection: Option<Connection>,
    pub(crate) writer: Writer,
    /// Its rows when the server last took them in, or gave them.
    pub(crate) base: Arc<Contents>,
    /// The base at the time of the backup.
    backup: Option<Arc<Contents>>,
    /// What its rows were after each of its transactions since the base. Of a libSQL device only, which may push a part.
    pub(crate) states: Vec<Arc<Contents>>,
}

/// Who syncs its file.
enum Client {
    Native(Database),
    Libsql(Box<Sdk>),
}

/// What a sync that succeeded told.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) moved: bool,
    pub(crate) txid: Option<TxId>,
    /// What was committed while the answer was on its way is on top of it, and was not sent.
    pub(crate) rebased: bool,
    pub(crate) text: String,
}

/// What a sync that failed told.
#[derive(Debug)]
pub(crate) struct Unheard {
    /// It is the network's fault, or its process was killed.
    pub(crate) offline: bool,
    pub(crate) text: String,
}

pub(crate) type Told = Result<Heard, Unheard>;

fn told(result: highwater::Result<highwater::SyncOutcome>) -> Told {
    match result {
        Ok(outcome) => Ok(Heard {
            moved: outcome.changed(),
            txid: outcome.txid,
            rebased: !outcome.held.is_zero(),
            text: format!("{:?}", outcome.action),
        }),
        Err(error) => Err(Unheard { offline: error.kind() == ErrorKind::Offline, text: error.to_string() }),
    }
}

/// How a sync went, and what the application wrote meanwhile.
pub(crate) struct Synced {
    pub(crate) result: Told,
    /// Its rows before the sync.
    pub(crate) before: Arc<Contents>,
    /// Its rows before and after each commit that happened during it.
    pub(crate) during: Vec<(Arc<Contents>, Arc<Contents>)>,
}

impl Device {
    pub(crate) fn new(
        plan: &Plan,
        number: usize,
        folder: &Path,
        url: &str,
        programs: &Programs,
    ) -> Result<Self> {
        let path = folder.join(format!("device-{number}.db"));
        let id = DeviceId(((u128::from(plan.seed) << 8) | u128::try_from(number + 1)?) << 64);
        let (client, connection) = if plan.libsql.contains(&number) {
            let program = programs.libsql.as_ref().context("libSQL devices need the SDK's driver")?;
            let mut sdk = Sdk::start(program, &path, url)?;
            sdk.first_copy()?;
            (Client::Libsql(Box::new(sdk)), connect_beside(&path)?)
        } else {
            let builder = Builder::new(&path).remote(url).device(id).merge_policy(plan.policy);
            let database = builder.timeout(Duration::ZERO).open()?;
            (Client::Native(database), connect(&path, plan.page_size)?)
        };
        Ok(Self {
            path,
            id,
            policy: plan.policy,
            client,
            own: programs.own.clone(),
            connection: Some(connection),
            writer: Writer::new(number, plan.reuse_ids),
            base: Arc::default(),
            backup: None,
            states: Vec::new(),
        })
    }

    pub(crate) const fn is_libsql(&self) -> bool {
        matches!(self.client, Client::Libsql(_))
    }

    /// Another connection of the application.
    pub(crate) fn connect(&self) -> Result<Connection> {
        if self.is_libsql() { connect_beside(&self.path) } else { connect(&self.path, 4096) }
    }

    pub(crate) fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().context("the connection is closed")
    }

    pub(crate) fn contents(&self) -> Result<Arc<Contents>> {
        Ok(Arc::new(Contents::read(self.connection()?)?))
    }

    pub(crate) fn write(&mut self, seeds: &[u64]) -> Result<()> {
        let connection = self.connection.as_ref().context("the connection is closed")?;
        self.writer.transaction(connection, seeds)?;
        self.note_state()
    }

    fn note_state(&mut self) -> Result<()> {
        if self.is_libsql() {
            let now = self.contents()?;
            self.states.push(now);
        }
        Ok(())
    }

    pub(crate) fn change_schema(&mut self, seed: u64) -> Result<()> {
        let connection = self.connection.as_ref().context("the connection is closed")?;
        self.writer.change_schema(connection, seed)?;
        self.note_state()
    }

    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.connection = None;
        self.connection = Some(self.connect()?);
        Ok(())
    }

    pub(crate) fn sync(&mut self, trouble: &Trouble, relay: &Relay, name: &str) -> Result<Synced> {
        let before = self.contents()?;
        let quiet = |result| Ok(Synced { result, before: Arc::clone(&before), during: Vec::new() });
        let database = match &mut self.client {
            Client::Libsql(sdk) => return quiet(sdk.sync(trouble, relay, name)?),
            Client::Native(database) => database.clone(),
        };
        if matches!(trouble.kill, Some(Kill::Step(_) | Kill::Moment(_) | Kill::After(_))) {
            let program = self.own.as_ref().context("kills need the program that runs them")?;
            return quiet(killed_sync(program, (&self.path, self.id, self.policy), trouble, (relay, name))?);
        }
        let (reached, moments) = channel();
        let pause = |commit: &Commit| Pause {
            request: commit.request,
            moment: commit.moment,
            reached: reached.clone(),
        };
        let pauses = trouble.commits.iter().map(pause).collect();
        drop(reached);
        relay.order(name, trouble.fault.map(|fault| (trouble.request, fault)), pauses);
        let mut during = Vec::new();
        let result = std::thread::scope(|scope| -> Result<_> {
            let syncing = scope.spawn(|| {
                let result = told(database.sync_blocking());
                // Nobody waits for a moment that did not come.
                relay.order(name, None, Vec::new());
                result
            });
            for commit in &trouble.commits {
                let Ok(go) = moments.recv() else { break };
                let found = self.contents();
                let written = self.write(&commit.seeds).and_then(|()| self.contents());
                drop(go);
                // An error waits until nobody waits for a word.
                during.push(found.and_then(|found| Ok((found, written?))));
                let when = said(commit.moment);
                self.writer.trace.push(format!("device {}: (that was {when})", self.writer.device));
            }
            syncing.join().map_err(|_| anyhow::anyhow!("the sync panicked"))
        })?;
        Ok(Synced { result, before, during: during.into_iter().collect::<Result<_>>()? })
    }

    fn copy(&self, suffix: &str) -> (PathBuf, PathBuf) {
        (
            highwater_pages::beside(&self.path, suffix),
            highwater_pages::beside(&self.path, &format!("-kept{suffix}")),
        )
    }

    /// Puts a copy aside, as backup programs do.
    pub(crate) fn back_up(&mut self) -> Result<()> {
        let (_, copy) = self.copy("");
        remove(&copy)?;
        std::fs::File::create(&copy)?.write_all(&image(self.connection()?)?)?;
        for suffix in ["-info", "-sums"] {
            let (file, copy) = self.copy(suffix);
            match std::fs::copy(file, &copy) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => remove(&copy)?,
                copied => drop(copied.context("copying metadata")?),
            }
        }
        self.backup = Some(Arc::clone(&self.base));
        Ok(())
    }

    /// Brings the copy back. False: there is none.
    pub(crate) fn restore(&mut self, beside: Beside) -> Result<bool> {
        let Some(base) = self.backup.clone() else { return Ok(false) };
        self.connection = None;
        for suffix in ["-wal", "-shm"] {
            remove(&self.copy(suffix).0)?;
        }
        let (file, copy) = self.copy("");
        remove(&file)?;
        std::fs::copy(copy, file)?;
        for suffix in ["-info", "-sums"] {
            let (file, copy) = self.copy(suffix);
            match beside {
                Beside::Old if copy.exists() => drop(std::fs::copy(copy, file)?),
                Beside::New => {}
                Beside::Old | Beside::Nothing => remove(&file)?,
            }
        }
        self.base = base;
        self.reopen()?;
        Ok(true)
    }
}

const fn said(moment: Moment) -> &'static str {
    match moment {
        Moment::BeforeServer => "while the request was on its way",
        Moment::AfterServer => "while the answer was on its way",
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// As an application connects.
pub(crate) fn connect(path: &Path, page_size: u32) -> Result<Connection> {
    let connection = Connection::open(path).with_context(|| format!("opening {}", path.display()))?;
    connection.set_prepared_statement_cache_capacity(200);
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "page_size", page_size)?;
    connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get::<_, String>(0))?;
    connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = OFF")?;
    Ok(connection)
}

/// The bytes of a database, as its file has them after a checkpoint.
pub(crate) fn image(connection: &Connection) -> Result<Vec<u8>> {
    let mut statement = connection.prepare_cached("SELECT data FROM sqlite_dbpage ORDER BY pgno")?;
    let mut rows = statement.query([])?;
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        bytes.extend_from_slice(row.get_ref(0)?.as_blob()?);
    }
    Ok(bytes)
}
