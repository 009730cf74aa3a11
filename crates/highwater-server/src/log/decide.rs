//! What to do with a sync request: decided by content, in the order of the protocol.
//!
//! 1. The client's state is a position newer than its base, or was merged into one: its last answer was lost, it is there.
//! 2. Its base is the head: append what it changed.
//! 3. Its base is behind the head: merge what it changed; without a change, it pulls.
//! 4. Its base is not in the retained history: it has to ask `locate`.
//!
//! A device that pushed after its base and does not name that is told so, like one whose base is unknown: its request was
//! overtaken by a later one, or its copy is older than what it pushed.
//!
//! A client names the states that it sent since its base without learning what came of them. The newest of them that
//! arrived is what the rest of its change is measured from: nothing is merged twice.
//!
//! Before rule 2, a client that lost sight of its file asks whether what it sends is rather an
//! earlier position of the history, or that with changes on top.
//!
//! A client without a base either creates the database with its first push, or is recognised by
//! rule 1, or, sending nothing, is given the whole database.

use std::sync::Arc;

use highwater_ltx::{DeviceId, PageSize, Position, StateHash, TxId, planted};
use highwater_wire::{CannotMerge, Conflict, ConflictDetail, MergePolicy, Outcome};

use super::append::Appended;
use super::delta::{Delta, DeltaImages};
use super::entries::{Entry, Log};
use super::images::Images;
use super::merge::{Merging, Origin};
use super::{Database, LIBSQL, MergeName};
use crate::Error;

/// How often a server that loses the race for head+1 decides again before it gives up.
pub(super) const ATTEMPTS: usize = 16;

/// A sync request, received and read.
#[derive(Debug)]
pub(crate) struct SyncRequest {
    pub(crate) base: Option<Position>,
    pub(crate) device: DeviceId,
    pub(crate) delta: Option<Delta>,
    /// Whether the client asks to make sure that its copy is not an earlier state.
    pub(crate) confirm: bool,
    /// Whether the client's copy may have more of the head than its base has.
    pub(crate) doubt: bool,
    /// States that the client sent since its base without learning the answer.
    pub(crate) pending: Vec<StateHash>,
    /// Who sent them.
    pub(crate) sender: Sender,
    /// Whether its change is measured from an empty database; it names no base then.
    pub(crate) from_nothing: bool,
    /// What the client wants to happen where its change meets others; `None`: as the server is set.
    pub(crate) policy: Option<MergePolicy>,
}

/// What a client says of itself before its delta.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) base: Option<Position>,
    pub(crate) device: DeviceId,
    pub(crate) pending: &'a [StateHash],
    pub(crate) sender: Sender,
    /// Whether its change is measured from an empty database.
    pub(crate) from_nothing: bool,
}

/// Who sent what a client has, beside the client itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sender {
    #[default]
    Itself,
    /// It was another device then.
    Other(DeviceId),
    /// It does not know any more.
    Anybody,
}

impl Claim<'_> {
    /// Whether this client may have sent what the log has of a device.
    fn sent(&self, device: DeviceId) -> bool {
        device == self.device
            || planted("equal-change-taken-for-own")
            || self.sender == Sender::Anybody
            || self.sender == Sender::Other(device)
    }

    /// The same of an entry, which has only half of the id.
    fn pushed(&self, entry: &Entry) -> bool {
        let other = match self.sender {
            _ if planted("equal-change-taken-for-own") => true,
            Sender::Itself => false,
            Sender::Other(device) => entry.node_id == device.node_id(),
            Sender::Anybody => true,
        };
        other || entry.node_id == self.device.node_id()
    }
}

impl SyncRequest {
    pub(crate) fn claim(&self) -> Claim<'_> {
        let Self { base, device, sender, from_nothing, .. } = *self;
        Claim { base, device, pending: &self.pending, sender, from_nothing }
    }
}

/// What the client is told.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) head: Entry,
    /// The client's own state, from which [`Verdict::send`] leads to the head; `None`: from nothing.
    pub(crate) from: Option<TxId>,
    /// The pages that bring the client to the head, if it is not there.
    pub(crate) send: Option<Images>,
    /// The merge that the client's change went into, if it was merged.
    pub(crate) merge: Option<MergeName>,
}

/// Why a request is not done.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such database, and the request does not make one.
    UnknownDatabase,
    /// The base is not in the retained history.
    UnknownBase(Box<UnknownBase>),
    /// The copy is rather this earlier position than its base with changes.
    EarlierState(Position),
    /// Both sides changed, and the policy is not to merge what meets.
    Conflict(Box<(ConflictDetail, Vec<Conflict>)>),
    /// Both sides changed, and that cannot be merged.
    CannotMerge(Box<(ConflictDetail, CannotMerge)>),
    /// More than the server takes, in bytes.
    TooLarge { limit: u64 },
    /// The database has another page size.
    WrongPageSize { database: PageSize, sent: PageSize },
    /// The body is not what it says.
    Corrupt(String),
    /// Others appended faster.
    Busy,
    /// The server failed.
    Failed(Error),
}

/// A base that is not in the retained history, and what is.
#[derive(Debug)]
pub(crate) struct UnknownBase {
    pub(crate) base: Option<Position>,
    pub(crate) head: Position,
    pub(crate) oldest: Position,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What the log says to a request.
#[derive(Debug)]
pub(super) enum Decision {
    Append,
    /// The client is at this position, known to it or not.
    At {
        from: Option<TxId>,
    },
    /// The client's state was merged, on top of this base, by this merge.
    Merged {
        base: TxId,
        merge: MergeName,
    },
    /// What the client changed on top of `base`, measured from `origin`, is to be merged.
    Merge {
        base: TxId,
        origin: Origin,
    },
    Refuse(Refusal),
}

/// The rules. `change`: the page size and the state of the client's delta.
pub(super) fn decide(log: Option<&Log>, claim: Claim<'_>, change: Option<(PageSize, StateHash)>) -> Decision {
    let Some(log) = log else {
        let creates = claim.base.is_none() && change.is_some();
        return if creates { Decision::Append } else { Decision::Refuse(Refusal::UnknownDatabase) };
    };
    if let Some((sent, _)) = change
        && sent != log.page_size
    {
        return Decision::Refuse(Refusal::WrongPageSize { database: log.page_size, sent });
    }
    let unknown = || {
        let (head, oldest) = (log.head().position, log.oldest().position);
        Decision::Refuse(Refusal::UnknownBase(Box::new(UnknownBase { base: claim.base, head, oldest })))
    };
    // A delta to the state that it started from is none.
    let changed =
        change.map(|(_, state)| state).filter(|state| claim.base.is_none_or(|base| base.state != *state));
    let base =
        if claim.from_nothing { log.base(TxId(0)).map(|nothing| nothing.position) } else { claim.base };
    let Some(base) = base else {
        return match changed.map(|state| log.newest_of(state)) {
            None => Decision::At { from: None },
            Some(Some(entry)) => Decision::At { from: Some(entry.txid) },
            Some(None) => unknown(),
        };
    };
    let found = if claim.from_nothing { log.base(TxId(0)) } else { log.find(base).cloned() };
    let Some(entry) = found else { return unknown() };
    let (base, local) = (entry.txid, changed.unwrap_or(base.state));
    let origin = arrived(log, &claim, base);
    let since = origin.map_or(base, |origin| origin.txid());
    if changed.is_some() || origin.is_some() {
        // What the client has now may have arrived too: after, or as, the newest state that is known to have.
        // Two devices that wrote the same from the same base made two changes: only the client's own counts.
        let position = pushed(log, &claim, base, local).map(|entry| entry.txid);
        let merge = log.merges.alias(local, |merge| merge.txid > base && claim.sent(merge.device));
        let newest = position.max(merge.map(|merge| merge.txid));
        if let Some(txid) = newest.filter(|txid| *txid >= since) {
            return match merge.filter(|merge| merge.txid == txid) {
                Some(merge) => Decision::Merged { base, merge: *merge },
                None => Decision::At { from: Some(txid) },
            };
        }
    }
    // A libSQL client's push may have changed nothing: another place, the same state.
    let at_head = log.after(base).iter().all(|later| later.position.state == entry.position.state);
    // What this device sent since and does not name: its request comes late, or its copy is an older one. What it sent
    // then holds some of the same rows, and they would be merged twice.
    let ours = |entry: &&Entry| entry.txid > since && entry.node_id == claim.device.node_id();
    // libSQL's clients are many devices of one name.
    let named = claim.device != DeviceId(0) && claim.device != LIBSQL;
    let named = named && !planted("late-push-not-recognised");
    let overtaken = named && log.after(base).iter().any(|entry| ours(&entry));
    match (changed.is_some(), origin) {
        (true, None) if overtaken && !at_head => unknown(),
        (_, Some(_)) if overtaken => unknown(),
        (_, Some(origin)) => Decision::Merge { base, origin },
        (true, None) if at_head => Decision::Append,
        (true, None) => Decision::Merge { base, origin: Origin::Position(base) },
        (false, None) => Decision::At { from: Some(base) },
    }
}

/// The newest state that this device sent after `base` and that arrived, as far as the device does not know.
fn arrived(log: &Log, claim: &Claim<'_>, base: TxId) -> Option<Origin> {
    let arrived = claim.pending.iter().filter_map(|state| {
        let position = pushed(log, claim, base, *state).map(|entry| Origin::Position(entry.txid));
        let merge = log.merges.alias(*state, |merge| merge.txid > base && claim.sent(merge.device));
        position
            .into_iter()
            .chain(merge.map(|merge| Origin::Merged(*merge)))
            .max_by_key(|origin| origin.txid())
    });
    arrived.max_by_key(|origin| origin.txid())
}

/// The newest position after `base` that has this state and that the client pushed.
fn pushed<'l>(log: &'l Log, claim: &Claim<'_>, base: TxId, state: StateHash) -> Option<&'l Entry> {
    log.after(base).iter().rev().find(|entry| entry.position.state == state && claim.pushed(entry))
}

impl Database {
    /// Decides about a request, and appends what is accepted. Returns when it is durable.
    pub(crate) async fn sync(self: &Arc<Self>, mut request: SyncRequest) -> Result<Verdict, Refusal> {
        let verdict = self.sync_or_leave(&mut request).await;
        if let Some(Delta { images: DeltaImages::Staged(staged), .. }) = &request.delta {
            self.context.store.remove(&staged.path).await;
        }
        verdict
    }

    /// [`Database::sync`]; a staged file that was not used is left.
    async fn sync_or_leave(self: &Arc<Self>, request: &mut SyncRequest) -> Result<Verdict, Refusal> {
        if request.delta.is_none() {
            self.refresh().await?;
            let decision = self.decide_now(request);
            if !matches!(decision, Decision::Merge { .. }) {
                return self.carry_out(decision, request).await;
            }
        }
        if let (true, Some(base), Some(delta)) = (request.confirm, request.base, &request.delta) {
            self.refresh().await?;
            let earlier = self.earlier_state(base, delta).await?;
            if let Some(entry) = earlier.filter(|_| !planted("older-copy-not-recognised")) {
                return Err(Refusal::EarlierState(entry.position));
            }
        }
        let mut merging = Merging::default();
        for _ in 0..ATTEMPTS {
            let turn = self.turn.lock().await;
            self.refresh_in_turn().await?;
            let decision = self.decide_now(request);
            if let Decision::Merge { base, origin } = decision {
                match self.merge(request, (base, origin), &mut merging).await? {
                    None => continue,
                    Some(verdict) => {
                        drop(turn);
                        self.snapshot_if_due();
                        return Ok(verdict);
                    }
                }
            }
            if !matches!(decision, Decision::Append) {
                drop(turn);
                return self.carry_out(decision, request).await;
            }
            let Some(delta) = &mut request.delta else { break };
            self.check_state(delta).await?;
            match self.append(delta, request.device, None).await? {
                Appended::Lost => {}
                Appended::Done(head) => {
                    drop(turn);
                    self.snapshot_if_due();
                    return Ok(Verdict {
                        outcome: Outcome::Pushed,
                        from: Some(head.txid),
                        head: *head,
                        send: None,
                        merge: None,
                    });
                }
            }
        }
        Err(Refusal::Busy)
    }

    fn decide_now(&self, request: &SyncRequest) -> Decision {
        let change = request.delta.as_ref().map(|delta| (delta.page_size, delta.state));
        self.foresee(request.claim(), change)
    }

    /// What a body would be good for that says this in its header, as things stand now.
    pub(super) fn foresee(&self, claim: Claim<'_>, change: Option<(PageSize, StateHash)>) -> Decision {
        self.read(|log| decide(Some(log), claim, change)).unwrap_or_else(|| decide(None, claim, change))
    }

    async fn carry_out(
        self: &Arc<Self>,
        decision: Decision,
        request: &mut SyncRequest,
    ) -> Result<Verdict, Refusal> {
        let from = match decision {
            Decision::Append | Decision::Merge { .. } => return Err(Refusal::Busy),
            Decision::Refuse(refusal) => return Err(refusal),
            Decision::Merged { base, merge } => {
                return self.merged(base, request.delta.as_ref(), merge).await;
            }
            Decision::At { from } => from,
        };
        let lost = || {
            let what = "a file of its history is not retained";
            Refusal::Failed(Error::damaged(&crate::paths::pushes(&self.name), what))
        };
        let (head, images) = self.images_since(from).await?.ok_or_else(lost)?;
        let send = (from != Some(head.txid)).then_some(images);
        let outcome = if send.is_some() { Outcome::Pulled } else { Outcome::UpToDate };
        Ok(Verdict { outcome, head, from, send, merge: None })
    }
}
