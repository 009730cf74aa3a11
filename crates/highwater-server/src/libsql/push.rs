//! `POST /DB/sync/G/START/END[/BATON]`: frames of a client's log.
//!
//! Order of steps: what comes before is made certain; frames that decide nothing yet are stored in a
//! branch; at a commit everything since the last decided place is compared with the log, and what is new
//! is appended to its head, or, when others were faster, merged into it ([`super::heal`]). The client is answered when
//! that is durable. Killed anywhere, the client sends the same frames again, which are then known.

use std::sync::Arc;

use highwater_ltx::{FrameNo, Generation, Place, TxId};
use highwater_pages::kill_point;
use serde::Serialize;

use super::CLIENT_BATCH;
use super::append::{Source, delta};
use super::baton::Baton;
use super::branch::{Branch, Branches};
use super::compare::{Compared, compare, is_boundary, is_head, pages_at};
use super::frames::{Batch, FrameHead, PAGE, PAGE_SIZE, Salts, settle};
use super::freelist;
use super::ground::{Ground, Node, ground, node};
use super::heal::{Diverged, Healed};
use crate::log::{Appended, Database, LIBSQL, Refusal, RefusedFrames, UnknownBase, reason};

/// How often a server that loses the race for head+1 compares again before it gives up.
const ATTEMPTS: usize = 16;
/// The most frames that a client is asked to send only to show that it has them: 8 MiB.
const SHOWN: u32 = 2048;

/// A push, received and read.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) generation: Generation,
    /// The number of its first frame.
    pub(crate) first: FrameNo,
    pub(crate) batch: Batch,
    pub(crate) baton: Option<&'a str>,
    /// Who sends it, for people.
    pub(crate) client: &'a str,
}

/// The answer, as the protocol has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Pushed {
    /// `ok` or `conflict`.
    pub(crate) status: &'static str,
    /// The generation that the client is to go on with.
    pub(crate) generation: u32,
    /// The last frame that is durable, or 0: send everything again.
    pub(crate) max_frame_no: u64,
    pub(crate) baton: String,
    /// What was done.
    #[serde(skip)]
    pub(crate) outcome: Outcome,
    /// Why not, as a clause.
    #[serde(skip)]
    pub(crate) why: Option<String>,
}

/// What was done with a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The log has it already.
    Known,
    /// The log has it now.
    Appended,
    /// It was merged into the head.
    Merged,
    /// It waits for its commit.
    Staged,
    /// The client is asked for its whole log.
    Again,
    /// What it continues is not known: it is kept, and not merged.
    Aside,
    /// Others wrote too, and it cannot be merged with that.
    Conflict,
}

impl Pushed {
    fn new(outcome: Outcome, place: Place) -> Self {
        let (status, baton) = match outcome {
            Outcome::Known | Outcome::Appended | Outcome::Merged | Outcome::Aside => {
                ("ok", Baton::Log(place))
            }
            Outcome::Staged => ("ok", Baton::Branch(place)),
            Outcome::Again => ("ok", Baton::Again),
            Outcome::Conflict => ("conflict", Baton::Again),
        };
        let (generation, max_frame_no) = (place.generation.0, place.frame.0);
        Self { status, generation, max_frame_no, baton: baton.to_string(), outcome, why: None }
    }

    fn conflict(place: Place, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..Self::new(Outcome::Conflict, place) }
    }
}

/// Takes in a push.
pub(crate) async fn push(db: &Arc<Database>, request: Request<'_>) -> Result<Pushed, Refusal> {
    // What is appended to is looked up again by whoever has the turn. A batch that follows another one here
    // needs nothing newer before.
    if request.baton.is_none() || !db.exists() {
        db.refresh().await?;
    }
    if let Some(database) = db.read(|log| log.page_size).filter(|size| *size != PAGE_SIZE) {
        return Err(Refusal::WrongPageSize { database, sent: PAGE_SIZE });
    }
    let Request { generation, first, batch, baton, client } = request;
    let work = |fork: Option<Node>, branch, waiting| Work {
        db,
        fork,
        branch,
        waiting,
        batch: &batch,
        first,
        client,
        follows: matches!(baton.and_then(Baton::parse), Some(Baton::Log(_))),
    };
    if baton.and_then(Baton::parse) == Some(Baton::Again) {
        db.branches.ask(batch.salts, FrameNo(first.0.saturating_sub(1)));
    }
    let mut found = ground(db, (generation, first), baton).await?;
    if matches!(found, Ground::Unproven | Ground::Unknown) && baton.is_some() {
        // The batch before may have gone to another server.
        db.refresh().await?;
        found = ground(db, (generation, first), baton).await?;
    }
    match found {
        Ground::Log(place) => {
            if let Some(earlier) = unproven(db, place, &batch, baton) {
                db.branches.ask(batch.salts, earlier.frame);
                return Ok(Pushed::new(Outcome::Again, earlier));
            }
            work(Some(Node::at(db, place)), None, 0).take().await
        }
        Ground::Detour(node) => work(Some(*node), None, 0).take().await,
        Ground::Unknown => work(None, None, 0).take().await,
        Ground::Branch(branch) => {
            let mut branch = branch.lock().await;
            let waiting = first.0.saturating_sub(branch.before().0 + 1);
            let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
            // What waits already must be what is sent again.
            let again = branch.heads.get(waiting..).unwrap_or_default();
            if !again.iter().zip(&batch.heads).all(|(a, b)| a == b) {
                return Ok(send_all(db, generation, batch.salts));
            }
            let fork = match branch.fork {
                None => None,
                Some(fork) => match node(db, fork).await? {
                    Some(node) => Some(node),
                    None => return Ok(send_all(db, generation, batch.salts)),
                },
            };
            let pushed = work(fork, Some(&mut branch), waiting).take().await;
            if let Err(Refusal::Failed(_)) = pushed {
                // Its files may be gone: what the store has is asked for again.
                db.branches.forget(branch.number);
            }
            pushed
        }
        Ground::Unproven => Ok(send_all(db, generation, batch.salts)),
    }
}

/// Where the last push of the log begins, if it is not known that the client's log holds it. The numbers of a
/// log that a foreign checkpoint began anew, or of a client of a database that was lost, look like every
/// other; so a log that was not seen before is to show the last push, once.
fn unproven(db: &Database, at: Place, batch: &Batch, baton: Option<&str>) -> Option<Place> {
    if baton.is_some() || at.frame == FrameNo(0) || db.branches.is_proven(at.generation, batch.salts) {
        return None;
    }
    db.read(|log| {
        let last = Some(log.head()).filter(|head| head.position.place() == at && head.frames <= SHOWN)?;
        let frame = FrameNo(at.frame.0.checked_sub(last.frames.into())?);
        last.file.as_ref().map(|_| Place { frame, ..at })
    })
    .flatten()
}

/// Asks for the client's whole log.
fn send_all(db: &Database, generation: Generation, salts: Salts) -> Pushed {
    db.branches.ask(salts, FrameNo(0));
    let known = db.read(|log| {
        let known = !log.of_generation(generation).is_empty();
        if known { generation } else { log.head().position.generation }
    });
    let generation = known.unwrap_or_else(|| db.first_generation());
    Pushed::new(Outcome::Again, Place { generation, frame: FrameNo(0) })
}

/// A batch on its ground.
struct Work<'a> {
    db: &'a Arc<Database>,
    /// The place that comes before; `None`: the content tells.
    fork: Option<Node>,
    /// Frames between that place and the batch.
    branch: Option<&'a mut Branch>,
    /// How many of the branch's frames come before the batch; those after it are sent again.
    waiting: usize,
    batch: &'a Batch,
    /// The number of the batch's first frame.
    first: FrameNo,
    client: &'a str,
    /// Whether it follows what was taken in within the same sync.
    follows: bool,
}

/// What a comparison leads to.
enum Step {
    /// The client is there.
    Known(Place),
    /// The frames after so many are to be appended; the place is the head.
    Append(Place, usize),
    /// It takes more frames to tell.
    Wait,
    /// The client has the history up to this place, and the frames after so many are its own.
    Diverged { from: Node, known: usize, proven: bool },
    /// It is to show that its log is of this history, from this place on.
    Show(Place),
    /// It is of another history.
    Stranger(Place),
}

impl Work<'_> {
    async fn take(mut self) -> Result<Pushed, Refusal> {
        let limit = self.db.context.limits.push_bytes;
        if (self.waiting + self.batch.len()) as u64 * PAGE as u64 > limit {
            return Err(Refusal::TooLarge { limit });
        }
        if self.batch.heads.last().is_none_or(|head| head.commit.0 == 0) {
            return self.stage().await;
        }
        let waiting = self.branch.as_ref().and_then(|branch| branch.heads.get(..self.waiting));
        let heads = [waiting.unwrap_or_default(), &self.batch.heads].concat();
        for _ in 0..ATTEMPTS {
            let turn = self.db.turn.lock().await;
            self.db.refresh_in_turn().await?;
            match self.compare(&heads).await? {
                Step::Known(place) => {
                    self.db.branches.prove(place.generation, self.batch.salts);
                    drop(turn);
                    self.db.came_through(self.batch.salts, place.frame).await;
                    return Ok(Pushed::new(Outcome::Known, place));
                }
                Step::Stranger(place) => {
                    drop(turn);
                    return Ok(self.stranger(place, heads.len()).await);
                }
                Step::Show(place) => {
                    self.db.branches.ask(self.batch.salts, place.frame);
                    return Ok(Pushed::new(Outcome::Again, place));
                }
                Step::Wait => {
                    drop(turn);
                    return self.stage().await;
                }
                Step::Diverged { from, known, proven } => {
                    drop(turn);
                    return self.heal(from, &heads, (known, proven)).await;
                }
                Step::Append(at, known) => {
                    let Some(entry) = self.append(at, heads.get(known..).unwrap_or_default(), known).await?
                    else {
                        continue;
                    };
                    drop(turn);
                    self.db.branches.prove(entry.generation, self.batch.salts);
                    if at.frame == FrameNo(0) && self.db.read(|log| log.is_beginning(at)) == Some(true) {
                        self.db.begun_by(self.batch.salts).await?;
                    }
                    self.db.snapshot_if_due();
                    self.db.came_through(self.batch.salts, entry.frame).await;
                    return Ok(Pushed::new(Outcome::Appended, entry));
                }
            }
        }
        Err(Refusal::Busy)
    }

    /// Stores the frames of the batch that no branch has yet.
    async fn stage(&mut self) -> Result<Pushed, Refusal> {
        let (store, name) = (&self.db.context.store, &self.db.name);
        let last = FrameNo(self.first.0 + self.batch.len() as u64 - 1);
        let generation = match &mut self.branch {
            Some(branch) => {
                let there = branch.heads.len() - self.waiting;
                if there < self.batch.len() {
                    branch.add(store, name, &self.batch.skip(there)).await?;
                }
                branch.number
            }
            None => {
                let fork = self.fork.as_ref().map(|node| node.place);
                let branch = Branches::begin(self.db, fork).await?;
                let mut branch = branch.lock().await;
                branch.add(store, name, self.batch).await?;
                branch.number
            }
        };
        Ok(Pushed::new(Outcome::Staged, Place { generation, frame: last }))
    }

    /// Compares all frames since the fork with the log. The caller has the turn.
    async fn compare(&self, heads: &[FrameHead]) -> Result<Step, Refusal> {
        let compared = match &self.fork {
            Some(node) if node.detour.is_some() => return Ok(self.diverged(node.clone(), 0)),
            Some(node) => compare(self.db, node.place, heads).await?,
            None => by_content(self.db, heads).await?,
        };
        let differs = |at: Place| {
            let from = self.fork.as_ref().map_or(FrameNo(0), |node| node.place.frame);
            let known = usize::try_from(at.frame.0.saturating_sub(from.0)).unwrap_or(usize::MAX);
            if self.fork.is_none() && known == 0 {
                return Step::Stranger(at);
            }
            self.diverged(Node::at(self.db, at), known)
        };
        Ok(match compared {
            Compared::Known { at, known } if known == heads.len() => Step::Known(at),
            Compared::Known { at, known } if self.db.read(|log| is_head(log, at)) != Some(false) => {
                Step::Append(at, known)
            }
            Compared::Known { at, .. } | Compared::Differs { at } => differs(at),
            // A client that has more to send fills its batches, unless it was told to make them smaller: then it
            // comes here only when it was asked for what it sent before.
            Compared::Within { .. } if self.batch.len() >= CLIENT_BATCH || self.answers() => Step::Wait,
            Compared::Within { at } => differs(at),
        })
    }

    /// Whether it sends what it was asked for.
    fn answers(&self) -> bool {
        let from = self.fork.as_ref().map_or(FrameNo(0), |node| node.place.frame);
        self.db.branches.was_asked(self.batch.salts) == Some(from)
    }

    /// Frames after a place that is not the head's. They are only worth something on top of the state there, so it must
    /// be certain that the client has it: its log holds what comes before (so many frames of it were compared),
    /// or did when it was seen before, or was numbered here.
    fn diverged(&self, from: Node, known: usize) -> Step {
        let (salts, branches) = (self.batch.salts, &self.db.branches);
        // What it sends from there on is what it was asked for; from elsewhere, it was killed before it heard of that.
        let asked = branches.was_asked(salts) == Some(from.place.frame);
        let step = |proven| Step::Diverged { from: from.clone(), known, proven };
        if known > 0 {
            // Whatever becomes of what follows.
            branches.prove(from.place.generation, salts);
            return step(true);
        }
        if let Some(detour) = &from.detour {
            let seen = detour.knows(salts) || branches.is_proven(detour.number, salts);
            if seen || self.follows || asked || from.standing.txid == TxId(0) {
                return step(seen || self.follows);
            }
            let first = detour.before(from.place.frame).map_or(FrameNo(1), |step| step.first);
            return Step::Show(Place { frame: FrameNo(first.0 - 1), ..from.place });
        }
        let begins = from.place.frame == FrameNo(0) && branches.was_asked(salts).is_none();
        if from.standing.txid == TxId(0) {
            // It began with an empty database, as this history did. Of one that was asked for its whole log it is not
            // known with what that begins: what of it the history has may tell.
            let new = is_new(self.db, from.place, salts);
            return if new { step(begins) } else { Step::Stranger(from.place) };
        }
        if branches.is_proven(from.place.generation, salts) || self.follows || begins {
            return step(true);
        }
        if asked {
            return Step::Stranger(from.place);
        }
        let span = self.db.read(|log| log.at(from.place).map_or(0, |entry| entry.frames)).unwrap_or(0);
        Step::Show(Place { frame: FrameNo(from.place.frame.0.saturating_sub(span.into())), ..from.place })
    }

    /// Its frames are of another history; that is recorded.
    async fn stranger(&self, place: Place, frames: usize) -> Pushed {
        let refusal = self.db.read(|log| {
            let (head, oldest) = (log.head().position, log.oldest().position);
            Refusal::UnknownBase(Box::new(UnknownBase { base: None, head, oldest }))
        });
        let refusal = refusal.unwrap_or(Refusal::UnknownDatabase);
        let (client, salts, frames) = (self.client, self.batch.salts, frames as u64);
        self.db.refuse(&RefusedFrames { client, salts, after: place, frames }, &refusal, None).await;
        Pushed::conflict(place, reason(&refusal).unwrap_or_default())
    }

    /// Merges what a client wrote while others did.
    async fn heal(
        &self,
        from: Node,
        heads: &[FrameHead],
        (known, proven): (usize, bool),
    ) -> Result<Pushed, Refusal> {
        let (place, salts) = (from.place, self.batch.salts);
        let diverged = Diverged {
            db: self.db,
            from,
            branch: self.branch.as_deref(),
            waiting: self.waiting,
            batch: self.batch,
            heads,
            known,
            proven,
            number: None,
            client: self.client,
        };
        match diverged.heal().await {
            Ok(Healed { place, outcome: Outcome::Conflict }) => Ok(self.stranger(place, heads.len()).await),
            Ok(Healed { place, outcome }) => {
                self.db.branches.prove(place.generation, salts);
                if outcome != Outcome::Aside {
                    self.db.came_through(salts, place.frame).await;
                }
                Ok(Pushed::new(outcome, place))
            }
            Err(refusal) => match reason(&refusal) {
                Some(why) => Ok(Pushed::conflict(place, why)),
                None => Err(refusal),
            },
        }
    }

    /// Appends frames, of which the first is the `from`-th since the fork, to the head. `None`: another
    /// server was faster. The caller has the turn.
    async fn append(&self, at: Place, heads: &[FrameHead], from: usize) -> Result<Option<Place>, Refusal> {
        let before = self.db.read(|log| pages_at(log, at)).unwrap_or_default();
        // A free page is named by a page of the freelist, which names at most so many.
        let most = before.0 as usize + heads.len().saturating_mul(freelist::LEAVES);
        if heads.last().is_some_and(|last| last.commit.0 as usize > most) {
            let what = "the database grows by more pages than the frames can account for";
            return Err(Refusal::Corrupt(what.to_owned()));
        }
        let source = Source {
            branch: self.branch.as_deref(),
            waiting: self.waiting,
            batch: self.batch,
            from,
            before: None,
        };
        let mut delta =
            delta(self.db, &source, &settle(heads, before), (at.generation, heads.len() as u64)).await?;
        kill_point("server-libsql-before-append");
        let appended = self.db.append(&mut delta, LIBSQL, Some(at.generation)).await;
        delta.discard(&self.db.context.store).await;
        match appended? {
            Appended::Lost => Ok(None),
            Appended::Done(entry) => Ok(Some(entry.position.place())),
        }
    }
}

/// Whether a log that has nothing of this history may have begun with an empty database, as the history did. One that
/// pushed into it before did not: it is an older copy of a client's files, and its rows are here.
pub(super) fn is_new(db: &Database, at: Place, salts: Salts) -> bool {
    let begins = db.read(|log| log.is_beginning(at) && !log.refusals.is_founder(salts)) == Some(true);
    begins && !db.branches.is_proven(at.generation, salts)
}

/// Compares a whole log of an unknown generation with the generation that began with nothing: its first
/// push holds every page, so a log that begins with it is of this database. What a later generation began
/// with, a log does not show.
async fn by_content(db: &Database, heads: &[FrameHead]) -> Result<Compared, Refusal> {
    let start = |generation| Place { generation, frame: FrameNo(0) };
    let oldest = db.read(|log| (log.oldest().txid, log.oldest().position.generation));
    let Some((txid, generation)) = oldest else {
        return Ok(Compared::Known { at: start(db.first_generation()), known: 0 });
    };
    let at = start(generation);
    let from_nothing = txid == TxId::FIRST && db.read(|log| is_boundary(log, at)) == Some(true);
    match compare(db, at, heads).await? {
        compared if from_nothing && !matches!(compared, Compared::Known { known: 0, .. }) => Ok(compared),
        _ => Ok(Compared::Differs { at }),
    }
}
