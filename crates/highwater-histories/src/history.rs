//! One history: its steps carried out with real devices and a real server, each sync checked against the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use highwater::{At, RemoteDatabase, TxId};
use highwater_wire::MergeRecord;

use crate::contents::{Contents, tokens};
use crate::device::{Device, connect};
use crate::lab::{Lab, Place as Spot};
use crate::oracle::Debt;
use crate::plan::{Action, Beside, Kill, Plan, Trouble};
use crate::relay::Relay;

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which, in a word.
    pub kind: &'static str,
    /// What was found.
    pub message: String,
    /// What happened until then, a line each.
    pub trace: Vec<String>,
}

/// A history that kept all promises.
#[derive(Debug, Clone)]
pub struct Quiet {
    /// The hash of the state that all ended in.
    pub state: String,
    /// How many syncs merged.
    pub merges: usize,
    /// How many conflicts were recorded.
    pub conflicts: usize,
    /// What happened, a line each.
    pub trace: Vec<String>,
}

/// A promise that was broken, before its trace is known.
pub(crate) struct Broken {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl<E: Into<anyhow::Error>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self { kind: "error", message: format!("{:#}", error.into()) }
    }
}

pub(crate) fn broken<T>(kind: &'static str, message: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { kind, message: message.into() })
}

/// Runs a history.
///
/// # Errors
/// The first promise that was broken.
pub fn run(lab: &mut Lab, plan: &Plan) -> Result<Quiet, Box<Failure>> {
    let mut history = match History::new(lab, plan) {
        Ok(history) => history,
        Err(error) => {
            let message = format!("{error:#}");
            return Err(Box::new(Failure { kind: "setup", message, trace: Vec::new() }));
        }
    };
    let ended = history.steps(&plan.steps).and_then(|()| history.come_to_rest());
    let trace = std::mem::take(&mut history.trace);
    history.relay.forget(&history.spot.name);
    match ended {
        Ok(state) => Ok(Quiet { state, merges: history.merges, conflicts: history.conflicts, trace }),
        Err(Broken { kind, message }) => Err(Box::new(Failure { kind, message, trace })),
    }
}

pub(crate) struct History<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) relay: Relay,
    pub(crate) spot: Spot,
    pub(crate) devices: Vec<Device>,
    /// The rows that the server has.
    pub(crate) head: Arc<Contents>,
    /// The number of that in the log.
    pub(crate) txid: Option<TxId>,
    /// All that the server ever had, for devices that stop on the way.
    pub(crate) past: Vec<Arc<Contents>>,
    /// Requests that are late: of whom, and with which base and rows.
    late: Vec<(usize, Arc<Contents>, Arc<Contents>)>,
    pub(crate) debts: Vec<Debt>,
    /// Rows that merges of a device did not apply, and that it still has.
    pub(crate) refused: BTreeMap<usize, BTreeSet<String>>,
    pub(crate) vacuumed: bool,
    /// Whether a device had to guess what it was based on: then there may be rows that stand twice.
    pub(crate) doubtful: bool,
    pub(crate) merges: usize,
    conflicts: usize,
    restored: usize,
    pub(crate) trace: Vec<String>,
}

impl<'a> History<'a> {
    fn new(lab: &mut Lab, plan: &'a Plan) -> Result<Self> {
        let spot = lab.place(plan.server)?;
        let relay = spot.relay.clone();
        relay.add_header(&spot.name, &format!("highwater-policy: {}", plan.policy));
        let mut history = Self {
            plan,
            relay,
            spot,
            devices: Vec::new(),
            head: Arc::default(),
            txid: None,
            past: Vec::new(),
            late: Vec::new(),
            debts: Vec::new(),
            refused: BTreeMap::new(),
            vacuumed: false,
            doubtful: false,
            merges: 0,
            conflicts: 0,
            restored: 0,
            trace: Vec::new(),
        };
        history.trace.push(format!(
            "{} devices{}, pages of {} bytes, {}, {:?}{}",
            plan.devices,
            if plan.libsql.is_empty() { String::new() } else { format!(" (libSQL's: {:?})", plan.libsql) },
            plan.page_size,
            plan.policy,
            plan.features,
            if plan.reuse_ids { ", ids are used again" } else { "" }
        ));
        // Everybody starts from the same empty tables.
        for number in 0..plan.devices {
            let url = history.relay.url(&history.spot.name);
            let spot = &history.spot;
            let mut device = Device::new(plan, number, spot.folder.path(), &url, &spot.programs)?;
            if number == 0 {
                let sql: String = plan.features.iter().map(|feature| feature.sql()).collect();
                device.connection()?.execute_batch(&format!("BEGIN; {sql}; COMMIT")).context("the schema")?;
            } else if device.is_libsql() {
                device.base = device.contents()?;
            }
            history.devices.push(device);
            history.sync(number, &Trouble::default()).map_err(|broken| anyhow::anyhow!(broken.message))?;
        }
        Ok(history)
    }

    pub(crate) fn device(&mut self, number: usize) -> Result<&mut Device> {
        self.devices.get_mut(number).context("a device")
    }

    fn steps(&mut self, steps: &[crate::plan::Step]) -> Result<(), Broken> {
        for step in steps {
            let number = step.device;
            match &step.action {
                Action::Sync(trouble) => drop(self.sync(number, trouble)?),
                Action::Deliver => self.deliver()?,
                Action::Backup => {
                    let now = self.device(number)?.contents()?;
                    let device = self.device(number)?;
                    // Of a state that the server has: what was never synced would come twice.
                    if now == device.base {
                        device.back_up()?;
                        self.say(number, "backed up");
                    }
                }
                Action::Restore(beside) => {
                    if self.device(number)?.restore(*beside)? {
                        self.say(number, &format!("restored from its backup, metadata: {beside:?}"));
                        if *beside == Beside::Nothing {
                            // With changes on every page it would be a stranger.
                            self.sync(number, &Trouble::default())?;
                        }
                    }
                }
                Action::Write(seeds) => self.device(number)?.write(seeds)?,
                Action::Schema(seed) => self.device(number)?.change_schema(*seed)?,
                Action::Vacuum => {
                    self.vacuumed = true;
                    self.device(number)?.connection()?.execute_batch("VACUUM").context("VACUUM")?;
                    self.say(number, "VACUUM");
                }
                Action::Reopen => self.device(number)?.reopen()?,
            }
            self.take_trace(number)?;
        }
        Ok(())
    }

    fn take_trace(&mut self, number: usize) -> Result<()> {
        let lines = std::mem::take(&mut self.device(number)?.writer.trace);
        self.trace.extend(lines);
        Ok(())
    }

    pub(crate) fn say(&mut self, number: usize, what: &str) {
        self.trace.push(format!("device {number}: {what}"));
    }

    /// One sync, and whether it came to what the rules say. Returns whether anything moved.
    pub(crate) fn sync(&mut self, number: usize, trouble: &Trouble) -> Result<bool, Broken> {
        let (relay, name) = (self.relay.clone(), self.spot.name.clone());
        let doomed = match trouble.kill {
            Some(Kill::Server(step)) => self.spot.stand().doomed(self.spot.own()?, step)?,
            Some(Kill::Restart) => {
                self.spot.stand().restart()?;
                None
            }
            _ => None,
        };
        let synced = self.device(number)?.sync(trouble, &relay, &name);
        if let Some(mut server) = doomed {
            let died = server.0.try_wait().is_ok_and(|status| status.is_some());
            server.kill();
            self.spot.stand().restart()?;
            self.say(
                number,
                if died { "the server died" } else { "the server was never there where it dies" },
            );
        }
        let synced = synced?;
        self.trace.extend(relay.said(&name));
        self.take_trace(number)?;
        let killed = trouble.kill.filter(|kill| *kill != Kill::Restart);
        let faulty = trouble.fault.is_some() || killed.is_some();
        let text = match &synced.result {
            Ok(heard) => format!("{}, txid {:?}", heard.text, heard.txid.map(|txid| txid.0)),
            Err(unheard) => unheard.text.clone(),
        };
        let fault = trouble
            .fault
            .map_or_else(String::new, |fault| format!(" ({fault:?}, request {})", trouble.request));
        let kill = trouble.kill.map_or_else(String::new, |kill| format!(" ({kill:?} killed)"));
        self.say(number, &format!("sync{fault}{kill}: {text}"));
        if let Err(unheard) = &synced.result
            && !(faulty && (unheard.offline || self.device(number)?.is_libsql()))
        {
            return broken("refused", format!("device {number}: {}", unheard.text));
        }
        if self.relay.late(&name) > self.late.len() {
            let base = Arc::clone(&self.device(number)?.base);
            self.late.push((number, base, Arc::clone(&synced.before)));
        }
        if self.device(number)?.is_libsql() {
            return self.judge_libsql(number, &synced);
        }
        let changed = synced.result.as_ref().is_ok_and(|heard| heard.moved);
        self.judge(number, &synced, faulty, matches!(killed, Some(Kill::Server(_))))?;
        Ok(changed)
    }

    /// Requests that arrive late change nothing that their device has not brought to the server since.
    pub(crate) fn deliver(&mut self) -> Result<(), Broken> {
        while self.relay.deliver_one(&self.spot.name)? {
            let (head, txid) = self.read_head()?;
            let (number, base, local) = if self.late.is_empty() { break } else { self.late.remove(0) };
            self.say(number, &format!("a late request arrives: txid {:?}", txid.map(|txid| txid.0)));
            if txid == self.txid {
                continue;
            }
            if !Arc::ptr_eq(&base, &self.device(number)?.base) {
                return broken("late", "a request that nobody waits for any more was carried out");
            }
            let refused = self.refused.get(&number).cloned().unwrap_or_default();
            match self.check(&base, &local, &self.head, &head, &refused) {
                Ok(debts) => {
                    self.note_refused(number, &debts);
                    self.debts.extend(debts);
                }
                Err(error) => return broken("merge", format!("device {number}, late: {error}")),
            }
            (self.head, self.txid) = (head, txid);
            self.device(number)?.base = local;
        }
        Ok(())
    }

    /// Restores the server's database into a new file.
    pub(crate) fn restored(&mut self, at: At) -> Result<(PathBuf, TxId)> {
        self.restored += 1;
        let out = self.spot.folder.path().join(format!("head-{}.db", self.restored));
        // Not through the relay's orders: they are over.
        let remote = RemoteDatabase::new(&self.relay.url(&self.spot.name), None)?;
        let restored = remote.restore_blocking(&out, at, |_| ())?;
        Ok((out, restored.txid))
    }

    pub(crate) fn read_head(&mut self) -> Result<(Arc<Contents>, Option<TxId>)> {
        self.read_at(At::Head)
    }

    pub(crate) fn read_at(&mut self, at: At) -> Result<(Arc<Contents>, Option<TxId>)> {
        let (path, txid) = self.restored(at)?;
        let connection = connect(&path, self.plan.page_size)?;
        Ok((Arc::new(Contents::read(&connection)?), Some(txid)))
    }

    /// All merges' records, and every word in them that a debt may ask for.
    pub(crate) fn records(&mut self) -> Result<BTreeSet<String>> {
        let path = format!("/{}/v1/conflicts?all=1&limit=1000", self.spot.name);
        let body = self.relay.get(&path)?;
        let page: highwater_wire::ConflictPage = serde_json::from_slice(&body)
            .with_context(|| format!("the records: {}", String::from_utf8_lossy(&body)))?;
        let mut words = BTreeSet::new();
        for record in &page.merges {
            self.words_of(record, &mut words);
        }
        Ok(words)
    }

    fn words_of(&mut self, record: &MergeRecord, words: &mut BTreeSet<String>) {
        for conflict in &record.conflicts {
            self.conflicts += 1;
            let json = serde_json::to_string(conflict).unwrap_or_default();
            self.trace.push(format!(
                "record of {}: {}",
                record.txid,
                json.chars().take(600).collect::<String>()
            ));
            words.extend(tokens(&json).into_iter().map(str::to_owned));
            words.insert(format!("{} {}", conflict.kind, conflict.table));
        }
    }
}
