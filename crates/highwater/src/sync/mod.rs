//! One sync, from the lock to the metadata file.
//!
//! The order of steps that makes it safe to be killed between any two of them:
//!
//! 1. the lock of this database file; only one sync runs at a time;
//! 2. the metadata file, trusted only as far as the files themselves confirm it ([`base`]);
//! 3. a read transaction, and what differs from the base in it ([`base`]);
//! 4. the log's fsync, and the state about to be sent noted as pending in the metadata file;
//! 5. one request ([`exchange`]); the server answers when what it accepted is durable;
//! 6. received pages in one transaction of the local database ([`pull`]), what was committed meanwhile on top ([`rebase`]);
//! 7. page sums, then the metadata file ([`record`]).
//!
//! Killed before 5: nothing happened. After 5: the pending state, or failing that the content,
//! tells the next sync where the server is. After 6: the same for where the file is.

mod base;
mod bootstrap;
mod compare;
mod exchange;
mod explain;
mod hold;
mod lineage;
mod merged;
mod pull;
mod rebase;
mod record;
mod refused;
mod traces;

use std::cell::Cell;
use std::time::{Duration, Instant};

use highwater_ltx::TxId;
use highwater_pages::{Replica, durable, kill_point};
use highwater_wire::{Conflict, Remote};

use crate::api::Api;
use crate::builder::Options;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::home;
use crate::lock::SyncLock;
use crate::metadata::{BaseInfo, Loaded, Metadata};
use crate::outcome::{Action, Moved, Progress, Stage, SyncOutcome};
use crate::sync::merged::Merges;
use crate::transport::Transport;

/// Longer than anybody waits; clocks cannot count to the largest durations.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often a sync starts over because the local file changed under it, before it reports that the
/// application never paused.
const ROUNDS: u32 = 12;

/// After so many, the application's writes are held back for a moment ([`hold`]): nothing could be rebased ([`rebase`]).
const FREE_ROUNDS: u32 = 8;

/// What a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Both directions.
    Sync,
    /// Only local changes to the server.
    Push,
    /// Only the server's changes to the local file.
    Pull,
    /// A local file that does not exist yet.
    Clone,
}

/// Everything that one sync works with.
pub(crate) struct Run<'a> {
    pub(crate) options: &'a Options,
    pub(crate) files: &'a Files,
    pub(crate) api: Api<'a>,
    pub(crate) meta: Metadata,
    /// Whether the metadata describes this very file: another file's may be wrong about anything.
    pub(crate) at_home: bool,
    /// Whether another file stands where the metadata's was: what it was based on says nothing.
    pub(crate) replaced: bool,
    /// What the metadata said that the file at this place was based on, be it the same file or one that it replaced.
    pub(crate) remembered: Option<BaseInfo>,
    /// Whether nothing beside the file says that it was ever synced.
    pub(crate) fresh: bool,
    /// The server found the file to be an earlier state than its base.
    pub(crate) earlier_state: bool,
    /// Whether the states whose answers are missing were asked about.
    pub(crate) pending_checked: bool,
    /// First half of the id of the device that sent the states whose answers are missing.
    pub(crate) pending_device: Option<u64>,
    /// Whether what was noted beside the file is lost, and with it the name under which it sent anything.
    pub(crate) nameless: bool,
    /// Whether the state that is being sent waits for an answer since an earlier sync.
    pub(crate) sent_before: bool,
    /// Whether the page sums were asked if the metadata file is an older copy of itself.
    pub(crate) sums_checked: bool,
    /// The newest base that was taken from the page sums because the one that was found seemed too old.
    pub(crate) taken_from_sums: TxId,
    /// A request or an answer turned out to be damaged, and was asked for once more.
    pub(crate) damaged_once: bool,
    /// How many rounds there were before this one.
    pub(crate) round: u32,
    /// The application's writes are held back.
    pub(crate) hold: Option<hold::Hold>,
    /// For how long they were held back, in all.
    pub(crate) held: Duration,
    /// Ids that rows got which were committed during a request.
    pub(crate) rebased: Vec<Conflict>,
    /// How long the quickest round took.
    pub(crate) quickest: Duration,
    /// The merges that this sync led to.
    pub(crate) merges: Merges,
    /// What the metadata file holds, where that is known.
    pub(crate) saved: Option<Metadata>,
    /// The caches were found wrong once already; from here on only content counts.
    pub(crate) healing: bool,
    pub(crate) pushed: Moved,
    pub(crate) pulled: Moved,
    pub(crate) began: Instant,
}

/// What a round of a sync came to.
pub(crate) enum Round {
    /// It is done.
    Done(Action),
    /// The ground moved; look again.
    Again,
}

/// Runs one sync.
pub(crate) fn run(
    options: &Options,
    files: &Files,
    transport: &dyn Transport,
    mode: Mode,
) -> Result<SyncOutcome> {
    let began = Instant::now();
    let fresh = ![&files.lock, &files.info, &files.sums].into_iter().any(|file| file.exists());
    let waiting = || {
        options.report(Progress { stage: Stage::Waiting, done: 0, total: None });
        tracing::info!(db = %files.db.display(), "another sync of this file is running; waiting for it");
    };
    let lock = SyncLock::acquire(&files.lock, &files.db, options.lock_timeout, waiting)?;
    for file in [&files.db, &files.info, &files.sums] {
        if let Err(error) = durable::remove_stale_temps(file) {
            tracing::debug!(%error, "looking for left-over temporary files failed");
        }
    }
    let (mut meta, at_home, sender) = load_metadata(files, options)?;
    // Without metadata nobody knows what this file sent, and under which name.
    let nameless = sender.is_none() && files.db.exists();
    let saved = at_home.then(|| meta.clone());
    let remote = choose_remote(&mut meta, at_home, files, options)?;
    if options.forget {
        meta.base = None;
        meta.mark = None;
        meta.pending.clear();
        meta.forget_notes();
    }
    if meta.device.is_none() || options.device.is_some() {
        meta.device = Some(options.device.map_or_else(crate::device::random, Ok)?);
    }
    meta.pending_device = sender.filter(|sender| !meta.pending.is_empty() && meta.device != Some(*sender));
    meta.remote = Some(remote.to_string());
    let here = home::of(&files.db);
    let replaced = !at_home && meta.home.as_deref().is_some_and(|home| home::same_place(home, &here));
    if replaced {
        // Most likely an older copy of the first file: what that one sent is not in it, and would look undone.
        meta.pending.clear();
        meta.pending_device = None;
    }
    let remembered = meta.base.filter(|_| at_home || replaced);
    if at_home || meta.base.is_none() {
        // The base of a file at another home is not this file's before a sync has confirmed it.
        meta.home = Some(here);
    }
    let api = Api {
        transport,
        remote: &remote,
        token: options.token.as_deref(),
        device: meta.device,
        deadline: transport.now() + options.timeout.min(LONGEST_TIMEOUT),
        requests: Cell::new(0),
        delivered: Cell::new(false),
        bare: Cell::new(false),
        denied: Cell::new(false),
        repeated: Cell::new(false),
    };
    let mut run = Run {
        options,
        files,
        api,
        meta,
        at_home,
        replaced,
        remembered,
        fresh,
        earlier_state: false,
        pending_checked: false,
        pending_device: sender.map(highwater_ltx::DeviceId::node_id),
        nameless,
        sent_before: false,
        sums_checked: false,
        taken_from_sums: TxId(0),
        damaged_once: false,
        round: 0,
        hold: None,
        quickest: Duration::MAX,
        held: Duration::ZERO,
        rebased: Vec::new(),
        merges: Merges::default(),
        saved,
        healing: false,
        pushed: Moved::default(),
        pulled: Moved::default(),
        began,
    };
    let outcome = run.rounds(mode);
    if !files.db.exists() && !files.info.exists() {
        lock.remove();
    }
    outcome
}

impl Run<'_> {
    fn rounds(&mut self, mode: Mode) -> Result<SyncOutcome> {
        for round in 0..ROUNDS {
            self.round = round;
            let began = Instant::now();
            let done = self.round(mode);
            self.quickest = self.quickest.min(began.elapsed());
            self.held += self.hold.take().map_or(Duration::ZERO, |hold| hold.lasted());
            match done? {
                Round::Done(action) => {
                    let outcome = self.outcome(action);
                    self.tell_rebased();
                    return Ok(outcome);
                }
                Round::Again => {
                    tracing::debug!(round, "the ground moved under this sync; looking again");
                    // A short pause lets an application that commits without end come to a rest.
                    std::thread::sleep(Duration::from_millis(u64::from(round) * 2));
                }
            }
        }
        let mut reason = "the application committed again and again while pages were on their way".to_owned();
        if self.merges.any() {
            reason.push_str("; what was committed until then is merged at the server");
        }
        Err(Error::Busy { db: self.files.db.clone(), reason })
    }

    fn round(&mut self, mode: Mode) -> Result<Round> {
        if !self.files.db.exists() {
            return self.bootstrap_file(mode);
        }
        kill_point("sync.begin");
        let mut replica = Replica::open(&self.files.db, self.options.busy_timeout)?;
        if replica.is_blank()? {
            return self.bootstrap_blank(&mut replica, mode);
        }
        if mode == Mode::Clone {
            return Err(Error::Exists { path: self.files.db.clone() });
        }
        self.exchange(&mut replica, mode)
    }

    fn outcome(&mut self, action: Action) -> SyncOutcome {
        let merges = std::mem::take(&mut self.merges);
        let (merged, conflict_count) = (merges.any(), merges.conflicts());
        let conflict_count = conflict_count + self.rebased.len() as u64;
        let mut conflicts = self.fetch_conflicts(merges);
        conflicts.append(&mut self.rebased);
        let base = self.meta.base.filter(|_| action != Action::NothingYet);
        SyncOutcome {
            action,
            pushed: self.pushed,
            pulled: self.pulled,
            requests: self.api.requests.get(),
            position: base.map(|base| base.position),
            txid: base.map(|base| base.txid),
            merged,
            conflicts,
            conflict_count,
            held: self.held,
            elapsed: self.began.elapsed(),
        }
    }

    pub(crate) fn report(&self, stage: Stage, done: u64, total: Option<u64>) {
        self.options.report(Progress { stage, done, total });
    }
}

/// Reads the metadata file, whether it describes this very database file, and which device wrote it.
fn load_metadata(
    files: &Files,
    options: &Options,
) -> Result<(Metadata, bool, Option<highwater_ltx::DeviceId>)> {
    let info = files.info.display();
    match Metadata::load(&files.info)? {
        Loaded::Valid(mut meta) => {
            let sender = meta.pending_device.or(meta.device);
            let at_home = meta.home.as_deref() == Some(home::of(&files.db).as_str());
            if !at_home && files.db.exists() {
                tracing::debug!(%info, "this file was moved or copied here; it goes on as a device of its own");
                meta.device = options.device;
                meta.forget_notes();
            }
            Ok((*meta, at_home, sender))
        }
        Loaded::Missing => {
            tracing::debug!(%info, "no metadata file found");
            Ok((Metadata::default(), false, None))
        }
        Loaded::Legacy(place) => {
            tracing::info!(%info, generation = place.generation.0, durable_frame_num = place.frame.0,
                "a metadata file of libSQL is taken over; what the server has is found by content");
            Ok((Metadata::default(), false, None))
        }
        Loaded::Damaged(reason) => {
            tracing::warn!(%info, %reason, "the metadata file cannot be used and is made anew; nothing is lost");
            Ok((Metadata::default(), false, None))
        }
    }
}

/// The URL to sync with: the one asked for, or else the remembered one.
fn choose_remote(meta: &mut Metadata, at_home: bool, files: &Files, options: &Options) -> Result<Remote> {
    let Some(given) = &options.remote else {
        let recorded = meta.remote.as_deref().ok_or_else(|| Error::NoRemote { db: files.db.clone() })?;
        return Ok(recorded.parse()?);
    };
    match &meta.remote {
        Some(recorded) if recorded != given.as_str() => {
            // A URL that no sync ever reached may have been a slip.
            if at_home && meta.base.is_some() && !options.switch_remote {
                return Err(Error::OtherRemote {
                    db: files.db.clone(),
                    recorded: recorded.clone(),
                    given: given.to_string(),
                });
            }
            if !at_home {
                tracing::warn!(info = %files.info.display(), %recorded,
                    "the metadata file is another database's and is made anew; nothing is lost");
            }
            // What another remote had says nothing of this one: found out by content.
            meta.base = None;
            meta.mark = None;
            meta.pending.clear();
            meta.forget_notes();
        }
        _ => {}
    }
    Ok(given.clone())
}
