//! A push of a client that wrote while others did: it is merged, and the client goes on in a detour of its own.
//!
//! Order of steps: what of the push the history has already is found by the states that its transactions lead to; the rest
//! is merged, which is durable with its entry in the log; then the step of the detour is written, and the client is
//! answered. Killed before the merge, nothing happened; killed after it, the client sends the push again, perhaps with
//! more behind it, and what was merged is known by its state.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_ltx::{FrameNo, Generation, PageNo, Place, TxId};
use highwater_pages::kill_point;

use super::append::{Source, delta_on};
use super::branch::{Branches, Shared};
use super::compare::{Compared, compare};
use super::detour::{Detour, Step};
use super::frames::{Batch, FrameHead, PAGE, Salts, Settled, settle};
use super::ground::{Node, node};
use super::push::{Outcome, is_new};
use super::standing::{self, Opened, Standing, last_known, states_after};
use super::{branch::Branch, freelist};
use crate::log::{Database, Delta, LIBSQL, Refusal, RefusedFrames, Sender, SyncRequest, reason};
use crate::store::Created;

/// How often the end of a detour is looked for when another server adds to it.
const ATTEMPTS: usize = 4;

/// The frames of a branch that wait although they end with a commit, because they might have been a part of what is in
/// the log: whoever pulls after them has nothing more to send, so they are its own. The place after them in a
/// detour of the branch's number; `None` when it cannot be told what they are.
pub(super) async fn finish(db: &Arc<Database>, branch: &Shared, at: Place) -> Result<Option<Node>, Refusal> {
    let branch = branch.lock().await;
    let whole = branch.last() == at.frame && branch.heads.last().is_some_and(|head| head.commit.0 > 0);
    let (Some(fork), true) = (branch.fork, whole) else { return Ok(None) };
    // Another server may have taken it in: then its log has to be shown once more, when it pushes next.
    let salts = branch.salts.unwrap_or_default();
    let Some(mut from) = node(db, fork).await? else { return Ok(None) };
    let mut known = 0;
    if from.detour.is_none() {
        let place = match compare(db, fork, &branch.heads).await? {
            Compared::Known { at, .. } | Compared::Differs { at } | Compared::Within { at } => at,
        };
        known = usize::try_from(place.frame.0 - fork.frame.0).unwrap_or(usize::MAX);
        from = Node::at(db, place);
    }
    let nothing = from.standing.txid == TxId(0);
    if nothing && (from.detour.is_some() || !is_new(db, from.place, salts)) {
        return Ok(None);
    }
    let seen = from.detour.as_ref().is_some_and(|detour| detour.knows(salts));
    if known == 0 && !seen && !nothing && !db.branches.is_proven(from.place.generation, salts) {
        return Ok(None);
    }
    let batch = Batch { heads: Vec::new(), pages: bytes::Bytes::new(), salts };
    let heads = branch.heads.clone();
    let diverged = Diverged {
        db,
        from,
        branch: Some(&branch),
        waiting: heads.len(),
        batch: &batch,
        heads: &heads,
        known,
        proven: !nothing || db.branches.was_asked(salts).is_none(),
        number: Some(branch.number),
        client: "",
    };
    let healed = diverged.heal().await?;
    drop(branch);
    if healed.outcome == Outcome::Conflict {
        return Ok(None);
    }
    Ok(node(db, healed.place).await?)
}

/// A push that does not follow the head.
pub(super) struct Diverged<'a> {
    pub(super) db: &'a Arc<Database>,
    /// Where its frames begin to be another history.
    pub(super) from: Node,
    pub(super) branch: Option<&'a Branch>,
    pub(super) waiting: usize,
    pub(super) batch: &'a Batch,
    /// All frames since the fork.
    pub(super) heads: &'a [FrameHead],
    /// How many of them come before [`Diverged::from`].
    pub(super) known: usize,
    /// Whether it is certain that the client has the state there; else what it sends must show it.
    pub(super) proven: bool,
    /// The number that its detour must have, if it has none yet.
    pub(super) number: Option<Generation>,
    /// Who sends it, for people.
    pub(super) client: &'a str,
}

/// Where a push led.
#[derive(Debug, Clone, Copy)]
pub(super) struct Healed {
    pub(super) place: Place,
    pub(super) outcome: Outcome,
}

impl Diverged<'_> {
    /// Takes in what is new. The caller does not have the database's turn.
    pub(super) async fn heal(mut self) -> Result<Healed, Refusal> {
        let db = self.db;
        let _turn = db.detours.turn.lock().await;
        let mut outcome = Outcome::Known;
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                return Ok(Healed { place: self.from.place, outcome });
            }
            let nothing = self.from.standing.txid == TxId(0);
            if nothing && self.from.detour.is_some() {
                return self.aside().await;
            }
            let opened = match nothing {
                true => standing::nothing(db),
                false => standing::open(db, &self.from.standing).await?,
            };
            let opened = opened.ok_or_else(|| standing::lost(db))?;
            self.check_growth()?;
            if let Some(step) = self.own_step(&opened).await? {
                self.advance(&step);
                self.proven = true;
                continue;
            }
            if !self.proven && !nothing {
                return self.aside().await;
            }
            let after = states_after(&opened, self.from.standing, rest).await?;
            if let Some((frames, standing)) = last_known(db, &self.from.standing, &after) {
                self.note(frames, standing).await?;
                self.proven = true;
                continue;
            }
            if !self.proven {
                return Ok(Healed { place: self.from.place, outcome: Outcome::Conflict });
            }
            let last = after.last().ok_or(Refusal::Busy)?;
            let standing =
                self.merge(&opened, Standing { state: last.state, pages: last.pages, ..self.from.standing });
            let (standing, done) = standing.await?;
            kill_point("server-libsql-merged");
            outcome = done;
            self.note(self.rest().len(), standing).await?;
        }
    }

    fn rest(&self) -> &[FrameHead] {
        self.heads.get(self.known..).unwrap_or_default()
    }

    /// A free page is named by a page of the freelist, which names at most so many.
    fn check_growth(&self) -> Result<(), Refusal> {
        let most = self.from.standing.pages.0 as usize + self.rest().len().saturating_mul(freelist::LEAVES);
        if self.rest().iter().any(|head| head.commit.0 as usize > most) {
            let what = "the database grows by more pages than the frames can account for";
            return Err(Refusal::Corrupt(what.to_owned()));
        }
        Ok(())
    }

    /// The next step of the client's own detour, if that is what it sends.
    async fn own_step(&self, opened: &Opened) -> Result<Option<Step>, Refusal> {
        let Some(detour) = &self.from.detour else { return Ok(None) };
        let Some(step) = detour.after(self.from.place.frame).first() else { return Ok(None) };
        let span = usize::try_from(step.last.0 - self.from.place.frame.0).unwrap_or(usize::MAX);
        let Some(same) = self.rest().get(..span) else { return Ok(None) };
        let after = states_after(opened, self.from.standing, same).await?;
        let leads = after.last().is_some_and(|after| after.frames == span && after.state == step.after.state);
        Ok(leads.then(|| step.clone()))
    }

    fn advance(&mut self, step: &Step) {
        self.known += usize::try_from(step.last.0 + 1 - step.first.0).unwrap_or(usize::MAX);
        self.from.place.frame = step.last;
        self.from.standing = step.after;
    }

    /// Merges all frames that are left into the head. What the client has then, as a state of the history.
    async fn merge(&self, opened: &Opened, local: Standing) -> Result<(Standing, Outcome), Refusal> {
        let (db, before) = (self.db, self.from.standing);
        let mut settled = settle(self.rest(), before.pages);
        carry(opened, &mut settled).await?;
        let source = Source {
            branch: self.branch,
            waiting: self.waiting,
            batch: self.batch,
            from: self.known,
            before: Some((Arc::clone(&opened.source), before.pages)),
        };
        let frames = self.rest().len() as u64;
        let delta: Delta = delta_on(db, &source, &settled, (frames, local.state)).await?;
        let base = db.read(|log| log.base(opened.base).map(|entry| entry.position)).flatten();
        let is_position = db.read(|log| before.merge(log)).flatten().is_none();
        kill_point("server-libsql-before-merge");
        let request = SyncRequest {
            base: Some(base.ok_or_else(|| standing::lost(db))?),
            from_nothing: opened.base == TxId(0),
            device: LIBSQL,
            delta: Some(delta),
            confirm: false,
            doubt: false,
            pending: if is_position { Vec::new() } else { vec![before.state] },
            sender: Sender::Itself,
            policy: None,
        };
        let verdict = match db.sync(request).await {
            Ok(verdict) => verdict,
            Err(refusal) => {
                self.refused(&refusal, &source, &settled, local).await;
                return Err(refusal);
            }
        };
        let merged = verdict.merge.map(|merge| merge.txid);
        let txid = merged.or(verdict.from).ok_or_else(|| standing::lost(db))?;
        let outcome = if merged.is_some() { Outcome::Merged } else { Outcome::Appended };
        Ok((Standing { txid, ..local }, outcome))
    }

    /// Records that the rest cannot be merged, with its pages unless they are many.
    async fn refused(&self, refusal: &Refusal, source: &Source<'_>, settled: &Settled, local: Standing) {
        let (db, frames) = (self.db, self.rest().len() as u64);
        let (client, salts, after) = (self.client, self.batch.salts, self.from.place);
        let facts = RefusedFrames { client, salts, after, frames };
        if reason(refusal).is_none() || db.is_refused(&facts, refusal) {
            return;
        }
        let few = settled.pages.len() * PAGE <= db.context.limits.body_memory;
        let delta = if few { delta_on(db, source, settled, (frames, local.state)).await.ok() } else { None };
        db.refuse(&facts, refusal, delta).await;
    }

    /// Notes that so many frames lead to that state of the history, in the client's detour or in a new one.
    async fn note(&mut self, frames: usize, after: Standing) -> Result<(), Refusal> {
        let heads = self.rest().get(..frames).unwrap_or_default();
        let written = settle(heads, self.from.standing.pages);
        let pages = written.pages.iter().filter(|page| page.frame.is_some()).map(|page| page.page);
        let first = FrameNo(self.from.place.frame.0 + 1);
        let last = FrameNo(self.from.place.frame.0 + frames as u64);
        let salts: Salts = self.batch.salts;
        let step = Step { first, last, after, pages: pages.collect(), salts: Some(salts) };
        let detour = add(self.db, &self.from, step.clone(), self.number.take()).await?;
        self.advance(&step);
        self.from.place.generation = detour.number;
        self.from.detour = Some(detour);
        Ok(())
    }
}

impl Diverged<'_> {
    /// Takes in frames of which nobody knows what they continue: another program put the client's log into its file,
    /// and what it wrote before is in none of its frames. They are kept, and the client's next pull
    /// brings it all of the head.
    async fn aside(self) -> Result<Healed, Refusal> {
        let (db, from) = (self.db, self.from.place);
        let branch = Branches::begin(db, Some(from)).await?;
        let mut branch = branch.lock().await;
        branch.add(&db.context.store, &db.name, self.batch).await?;
        let first = FrameNo(from.frame.0 + 1);
        let last = FrameNo(from.frame.0 + self.rest().len() as u64);
        let (after, salts) = (Standing::nothing(), Some(self.batch.salts));
        let step = Step { first, last, after, pages: Vec::new(), salts };
        let mut detour = Detour::new(branch.number, from, self.from.standing);
        if detour.add(db, step).await? == Created::Lost {
            return Err(Refusal::Busy);
        }
        tracing::warn!(
            db = %db.name, protocol = "libsql", generation = from.generation.0, durable_frame_num = from.frame.0,
            frames = self.rest().len(), detour = branch.number.0,
            "another program checkpointed the file of a libSQL client: what its frames continue is not known. They are kept in \
             sync/{:08x} of this database for a week and not merged; the client gets the whole head with its next pull",
            branch.number.0
        );
        Ok(Healed { place: detour.tip(), outcome: Outcome::Aside })
    }
}

/// Adds a step after a place: to the detour that ends there, or to a new one that is forked there, perhaps with a
/// number that is kept for it.
pub(super) async fn add(
    db: &Database,
    from: &Node,
    step: Step,
    mut number: Option<Generation>,
) -> Result<Arc<Detour>, Refusal> {
    let mut detour = from.detour.as_ref().filter(|detour| detour.tip() == from.place).cloned();
    for _ in 0..ATTEMPTS {
        let mut longer = match detour.take() {
            Some(detour) => Detour::clone(&detour),
            None => {
                let number = match number.take() {
                    Some(number) => number,
                    None => Branches::number(db).await?,
                };
                Detour::new(number, from.place, from.standing)
            }
        };
        if longer.add(db, step.clone()).await? == Created::Ours {
            return Ok(Arc::new(longer));
        }
        // Another server was faster: the place is not the end any more.
        let found = Detour::find(db, longer.number).await?;
        if let Some(found) = found.filter(|found| found.after(from.place.frame).first() == Some(&step)) {
            return Ok(found);
        }
    }
    Err(Refusal::Busy)
}

/// The pages of the client's own that lie between the log and what it sends now belong to what is merged.
async fn carry(opened: &Opened, settled: &mut Settled) -> Result<(), Refusal> {
    let sent: BTreeSet<PageNo> = settled.pages.iter().map(|page| page.page).collect();
    let own = opened.own.iter().copied();
    let carried: Vec<PageNo> =
        own.filter(|page| settled.commit.contains(*page) && !sent.contains(page)).collect();
    let hashes = standing::hashes(&opened.source, carried.clone()).await?;
    settled.carry(carried.into_iter().zip(hashes));
    Ok(())
}
