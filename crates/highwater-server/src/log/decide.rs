//! What to do with a sync request: decided by content, in the order of the protocol.
//!
//! 1. The client's state is a position newer than its base: its last answer was lost, it is there.
//! 2. Its base is the head: append what it changed.
//! 3. Its base is behind the head: a conflict if it changed something, else it pulls.
//! 4. Its base is not in the retained history: it has to ask `locate`.
//!
//! Before rule 2, a client that lost sight of its file asks whether what it sends is rather an
//! earlier position of the history, or that with changes on top.
//!
//! A client without a base either creates the database with its first push, or is recognised by
//! rule 1, or, sending nothing, is given the whole database.

use std::sync::Arc;

use highwater_ltx::{DeviceId, PageSize, Position, StateHash, TxId};
use highwater_wire::{ConflictDetail, Outcome};

use super::append::Appended;
use super::delta::{Delta, DeltaImages};
use super::entries::{Entry, Log};
use super::images::Images;
use super::{Database, conflict};
use crate::Error;

/// How often a server that loses the race for head+1 decides again before it gives up.
const ATTEMPTS: usize = 16;

/// A sync request, received and read.
#[derive(Debug)]
pub(crate) struct SyncRequest {
    pub(crate) base: Option<Position>,
    pub(crate) device: DeviceId,
    pub(crate) delta: Option<Delta>,
    /// Whether the client asks to make sure that its copy is not an earlier state.
    pub(crate) confirm: bool,
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
    /// Both sides changed.
    Conflict(Box<ConflictDetail>),
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
    Conflict(TxId),
    Refuse(Refusal),
}

/// The rules. `change`: the page size and the state of the client's delta.
pub(super) fn decide(
    log: Option<&Log>,
    base: Option<Position>,
    change: Option<(PageSize, StateHash)>,
) -> Decision {
    let Some(log) = log else {
        let creates = base.is_none() && change.is_some();
        return if creates { Decision::Append } else { Decision::Refuse(Refusal::UnknownDatabase) };
    };
    if let Some((sent, _)) = change
        && sent != log.page_size
    {
        return Decision::Refuse(Refusal::WrongPageSize { database: log.page_size, sent });
    }
    let unknown = || {
        let (head, oldest) = (log.head().position, log.oldest().position);
        Decision::Refuse(Refusal::UnknownBase(Box::new(UnknownBase { base, head, oldest })))
    };
    // A delta to the state that it started from is none.
    let changed = change.map(|(_, state)| state).filter(|state| base.is_none_or(|base| base.state != *state));
    let Some(base) = base else {
        return match changed.map(|state| log.newest_of(state)) {
            None => Decision::At { from: None },
            Some(Some(entry)) => Decision::At { from: Some(entry.txid) },
            Some(None) => unknown(),
        };
    };
    let Some(base) = log.find(base) else { return unknown() };
    if let Some(entry) = changed.and_then(|state| log.newest_of(state))
        && entry.txid > base.txid
    {
        return Decision::At { from: Some(entry.txid) };
    }
    // A libSQL client's push may have changed nothing: another place, the same state.
    let at_head = log.after(base.txid).iter().all(|entry| entry.position.state == base.position.state);
    match (changed.is_some(), at_head) {
        (true, true) => Decision::Append,
        (true, false) => Decision::Conflict(base.txid),
        (false, _) => Decision::At { from: Some(base.txid) },
    }
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
            return self.carry_out(decision, request).await;
        }
        if let (true, Some(base), Some(delta)) = (request.confirm, request.base, &request.delta) {
            self.refresh().await?;
            if let Some(entry) = self.earlier_state(base, delta).await? {
                return Err(Refusal::EarlierState(entry.position));
            }
        }
        for _ in 0..ATTEMPTS {
            let turn = self.turn.lock().await;
            self.refresh_in_turn().await?;
            let decision = self.decide_now(request);
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
                    });
                }
            }
        }
        Err(Refusal::Busy)
    }

    fn decide_now(&self, request: &SyncRequest) -> Decision {
        let change = request.delta.as_ref().map(|delta| (delta.page_size, delta.state));
        self.read(|log| decide(Some(log), request.base, change))
            .unwrap_or_else(|| decide(None, request.base, change))
    }

    /// What a body would be good for that says this in its header, as things stand now.
    pub(super) fn foresee(&self, base: Option<Position>, change: (PageSize, StateHash)) -> Decision {
        self.read(|log| decide(Some(log), base, Some(change)))
            .unwrap_or_else(|| decide(None, base, Some(change)))
    }

    async fn carry_out(
        self: &Arc<Self>,
        decision: Decision,
        request: &mut SyncRequest,
    ) -> Result<Verdict, Refusal> {
        let from = match decision {
            Decision::Append => return Err(Refusal::Busy),
            Decision::Refuse(refusal) => return Err(refusal),
            Decision::Conflict(base) => {
                let detail = conflict::detail(self, base, request).await?;
                return Err(Refusal::Conflict(Box::new(detail)));
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
        Ok(Verdict { outcome, head, from, send })
    }
}
