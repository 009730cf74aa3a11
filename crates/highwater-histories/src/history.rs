//! One history: its steps carried out with real devices and a real server, each sync checked against the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use highwater::{At, ErrorKind, FrameNo, Generation, Place, RemoteDatabase, TxId};
use highwater_wire::{MergePolicy, MergeRecord};

use crate::contents::{Contents, tokens};
use crate::device::{Device, Synced, connect};
use crate::lab::Lab;
use crate::oracle::{Debt, Merge};
use crate::plan::{Action, Beside, Plan, Trouble};
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
    history.relay.forget(&history.name);
    match ended {
        Ok(state) => Ok(Quiet { state, merges: history.merges, conflicts: history.conflicts, trace }),
        Err(Broken { kind, message }) => Err(Box::new(Failure { kind, message, trace })),
    }
}

pub(crate) struct History<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) relay: Relay,
    pub(crate) name: String,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) devices: Vec<Device>,
    /// The rows that the server has.
    pub(crate) head: Arc<Contents>,
    /// The number of that in the log.
    txid: Option<TxId>,
    /// Requests that are late: of whom, and with which base and rows.
    late: Vec<(usize, Arc<Contents>, Arc<Contents>)>,
    pub(crate) debts: Vec<Debt>,
    /// Rows that merges of a device did not apply, and that it still has.
    refused: BTreeMap<usize, BTreeSet<String>>,
    vacuumed: bool,
    merges: usize,
    conflicts: usize,
    restored: usize,
    pub(crate) trace: Vec<String>,
}

impl<'a> History<'a> {
    fn new(lab: &mut Lab, plan: &'a Plan) -> Result<Self> {
        let (relay, name, folder) = lab.place(plan.server)?;
        relay.add_header(&name, &format!("highwater-policy: {}", plan.policy));
        let url = relay.url(&name);
        let devices = (0..plan.devices).map(|number| Device::new(plan, number, folder.path(), &url));
        let devices: Vec<Device> = devices.collect::<Result<_>>()?;
        if let Some(first) = devices.first() {
            let sql: String = plan.features.iter().map(|feature| feature.sql()).collect();
            first.connection()?.execute_batch(&format!("BEGIN; {sql}; COMMIT")).context("the schema")?;
        }
        let mut history = Self {
            plan,
            relay,
            name,
            folder,
            devices,
            head: Arc::default(),
            txid: None,
            late: Vec::new(),
            debts: Vec::new(),
            refused: BTreeMap::new(),
            vacuumed: false,
            merges: 0,
            conflicts: 0,
            restored: 0,
            trace: Vec::new(),
        };
        history.trace.push(format!(
            "{} devices, pages of {} bytes, {}, {:?}{}",
            plan.devices,
            plan.page_size,
            plan.policy,
            plan.features,
            if plan.reuse_ids { ", ids are used again" } else { "" }
        ));
        // Everybody starts from the same empty tables.
        for device in 0..plan.devices {
            history.sync(device, &Trouble::default()).map_err(|broken| anyhow::anyhow!(broken.message))?;
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
        let (relay, name) = (self.relay.clone(), self.name.clone());
        let synced = self.device(number)?.sync(trouble, &relay, &name)?;
        self.trace.extend(relay.said(&name));
        self.take_trace(number)?;
        let faulty = trouble.fault.is_some();
        let text = match &synced.result {
            Ok(outcome) => format!("{:?}, txid {:?}", outcome.action, outcome.txid.map(|txid| txid.0)),
            Err(error) => format!("{error}"),
        };
        let fault = trouble
            .fault
            .map_or_else(String::new, |fault| format!(" ({fault:?}, request {})", trouble.request));
        self.say(number, &format!("sync{fault}: {text}"));
        if let Err(error) = &synced.result
            && !(faulty && error.kind() == ErrorKind::Offline)
        {
            return broken("refused", format!("device {number}: {error}"));
        }
        if self.relay.late(&name) > self.late.len() {
            let base = Arc::clone(&self.device(number)?.base);
            self.late.push((number, base, Arc::clone(&synced.before)));
        }
        let changed = synced.result.as_ref().is_ok_and(highwater::SyncOutcome::changed);
        self.judge(number, &synced, faulty)?;
        Ok(changed)
    }

    fn judge(&mut self, number: usize, synced: &Synced, faulty: bool) -> Result<(), Broken> {
        let after = self.device(number)?.contents()?;
        let plain = synced.result.as_ref().ok().filter(|_| !faulty && synced.during.is_none());
        let (head, txid) = match plain {
            Some(outcome) => (Arc::clone(&after), outcome.txid),
            None => self.read_head()?,
        };
        // A commit after the answer was applied is for the next sync.
        let (last, later) = match &synced.during {
            Some((found, written)) if *found == synced.before => (written, None),
            Some((found, written)) => (&synced.before, Some((found, written))),
            None => (&synced.before, None),
        };
        let base = Arc::clone(&self.device(number)?.base);
        let mut stages = self.stages(txid)?;
        stages.push(Arc::clone(&head));
        let accepted = self.relay.accepted(&self.name);
        let new = accepted.iter().filter(|(number, _)| Some(*number) > self.txid.map(|txid| txid.0));
        let pushes: BTreeMap<u64, bool> = new.copied().collect();
        // What the server took in: the rows before the commit during the sync, or after it. A request that was sent
        // after it may still carry what was read before it.
        let late = pushes.values().filter(|later| **later).count();
        let first = pushes.len() - late;
        let locals = |with: usize| -> Vec<&Arc<Contents>> {
            (0..pushes.len()).map(|at| if at >= first + with { last } else { &synced.before }).collect()
        };
        let mut taken = locals(0);
        let refused = self.refused.get(&number).cloned().unwrap_or_default();
        let debts = if taken.is_empty() {
            // Nothing came from here, and so nothing must have changed there.
            self.check(&base, &base, &self.head, &head, &refused)
        } else {
            let mut debts = self.check_all(&base, &taken, &stages, &refused);
            // What was not sent would seem to be lost.
            for without in (1..=late).filter(|_| *last != synced.before) {
                let other = locals(without);
                let found = self.check_all(&base, &other, &stages, &refused);
                let better =
                    |found: &Vec<Debt>| debts.as_ref().map_or(true, |debts| found.len() < debts.len());
                if found.as_ref().is_ok_and(better) {
                    (debts, taken) = (found, other);
                }
            }
            debts
        };
        let local = Arc::clone(taken.last().unwrap_or(&&base));
        let debts =
            debts.map_err(|error| Broken { kind: "merge", message: format!("device {number}: {error}") })?;
        if *local != *base && *base != *self.head {
            self.merges += 1;
        }
        (self.head, self.txid) = (Arc::clone(&head), txid);
        let caught_up =
            after == head || later.is_some_and(|(found, written)| *found == head && *written == after);
        let refused = self.refused.entry(number).or_default();
        refused.extend(debts.iter().filter_map(|debt| debt.refused.clone()));
        if caught_up {
            refused.clear();
        }
        self.debts.extend(debts);
        if synced.result.is_ok() && !caught_up && !(head == local && after == *last) {
            return broken(
                "behind",
                format!(
                    "device {number}: its sync succeeded, and it does not have the server's rows: {}",
                    after.difference(&head)
                ),
            );
        }
        if synced.result.is_err() && !caught_up && after != *last {
            return broken(
                "half",
                format!(
                    "device {number}: its sync failed, and its rows are not what they were: {}",
                    last.difference(&after)
                ),
            );
        }
        self.device(number)?.base = if caught_up { head } else { local };
        Ok(())
    }

    /// Several merges, one after the other.
    fn check_all(
        &self,
        base: &Arc<Contents>,
        locals: &[&Arc<Contents>],
        stages: &[Arc<Contents>],
        refused: &BTreeSet<String>,
    ) -> Result<Vec<Debt>, String> {
        let (mut base, mut head, mut debts) = (base, &self.head, Vec::new());
        let mut refused = refused.clone();
        if locals.len() != stages.len() {
            return Err(format!("one sync is {} pushes", stages.len()));
        }
        for (local, result) in locals.iter().zip(stages) {
            let found = self.check(base, local, head, result, &refused)?;
            refused.extend(found.iter().filter_map(|debt| debt.refused.clone()));
            debts.extend(found);
            (base, head) = (local, result);
        }
        Ok(debts)
    }

    fn check(
        &self,
        base: &Contents,
        local: &Contents,
        head: &Contents,
        result: &Contents,
        refused: &BTreeSet<String>,
    ) -> Result<Vec<Debt>, String> {
        if self.plan.reuse_ids {
            return Ok(Vec::new());
        }
        let last_wins = self.plan.policy == MergePolicy::LastPushWins;
        Merge { base, local, head, result, last_wins, vacuumed: self.vacuumed, refused }.check()
    }

    /// The server's rows at the positions after the last known head and before `until`.
    fn stages(&mut self, until: Option<TxId>) -> Result<Vec<Arc<Contents>>> {
        let (Some(from), Some(until)) = (self.txid, until) else { return Ok(Vec::new()) };
        if until.0 <= from.0 + 1 {
            return Ok(Vec::new());
        }
        let log = RemoteDatabase::new(&self.relay.url(&self.name), None)?.log_blocking(None, 1000)?;
        let between = log.entries.iter().filter(|entry| entry.txid > from.0 && entry.txid < until.0);
        between
            .map(|entry| {
                let (generation, frame) = (entry.position.generation, entry.position.frame);
                let place = Place { generation: Generation(generation), frame: FrameNo(frame) };
                Ok(self.read_at(At::Place(place))?.0)
            })
            .collect()
    }

    /// Requests that arrive late change nothing that their device has not brought to the server since.
    pub(crate) fn deliver(&mut self) -> Result<(), Broken> {
        while self.relay.deliver_one(&self.name)? {
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
                    let refused = self.refused.entry(number).or_default();
                    refused.extend(debts.iter().filter_map(|debt| debt.refused.clone()));
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
        let out = self.folder.path().join(format!("head-{}.db", self.restored));
        // Not through the relay's orders: they are over.
        let remote = RemoteDatabase::new(&self.relay.url(&self.name), None)?;
        let restored = remote.restore_blocking(&out, at, |_| ())?;
        Ok((out, restored.txid))
    }

    fn read_head(&mut self) -> Result<(Arc<Contents>, Option<TxId>)> {
        self.read_at(At::Head)
    }

    fn read_at(&mut self, at: At) -> Result<(Arc<Contents>, Option<TxId>)> {
        let (path, txid) = self.restored(at)?;
        let connection = connect(&path, self.plan.page_size)?;
        Ok((Arc::new(Contents::read(&connection)?), Some(txid)))
    }

    /// All merges' records, and every word in them that a debt may ask for.
    pub(crate) fn records(&mut self) -> Result<BTreeSet<String>> {
        let path = format!("/{}/v1/conflicts?all=1&limit=1000", self.name);
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
