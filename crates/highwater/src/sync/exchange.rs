//! The one request of a sync, and what follows from its answer.

use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

use highwater_ltx::{StateHash, planted};
use highwater_pages::{Image, Mark, Replica, Snapshot, durable, kill_point};
use highwater_wire::Outcome;
use tokio::sync::mpsc;

use super::base::{Ground, sums_of};
use super::hold::{self, Hold};
use super::{FREE_ROUNDS, Mode, Round, Run};
use crate::api::{Claim, PreparedBody, Refused, Sender, SyncAnswer};
use crate::encode::{self, Plan};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::metadata::BaseInfo;
use crate::outcome::{Action, Moved, Stage};
use crate::transport::Body;

/// Chunks of a large body that may wait for the network.
const CHUNKS_AHEAD: usize = 4;

/// What the image was when it was captured.
pub(super) struct Captured {
    pub(super) ground: Ground,
    pub(super) data_version: i64,
    /// Where the capture before this one looked.
    pub(super) since: Option<Mark>,
    /// Where the next one looks on.
    pub(super) next: Mark,
    pub(super) change_counter: u32,
    /// The image itself, where it is kept until the answer is here.
    pub(super) image: Option<Arc<Image>>,
}

impl Run<'_> {
    /// Captures, sends, and applies the answer.
    pub(crate) fn exchange(&mut self, replica: &mut Replica, mode: Mode) -> Result<Round> {
        if !std::mem::replace(&mut self.pending_checked, true)
            && let Some(round) = self.resolve_pending(replica.page_size()?)?
        {
            return Ok(round);
        }
        if self.round >= FREE_ROUNDS
            && mode != Mode::Push
            && let Some(most) = hold::time_for(self.quickest, self.round - FREE_ROUNDS)
        {
            self.hold = Some(Hold::take(replica, most)?);
        }
        let since = self.meta.mark;
        // The first answer fits, unless the application writes all the time: then what it commits is rebased.
        let (snapshot, image) = if self.round > 0 && mode == Mode::Sync && self.hold.is_none() {
            match replica.snapshot_and_image(since.as_ref()) {
                Err(highwater_pages::Error::ChangedSince { .. }) => return Ok(Round::Again),
                both => both?,
            }
        } else {
            (replica.snapshot(since.as_ref())?, None)
        };
        let ground = self.ground(&snapshot)?;
        let next = snapshot.next_mark()?;
        // A base that was found by content is not the one that the mark is of.
        let same_base = ground.base.is_some_and(|base| self.meta.base == Some(base));
        let since = since.filter(|_| same_base);
        let captured = Captured {
            data_version: snapshot.data_version(),
            change_counter: snapshot.change_counter(),
            since,
            next,
            ground,
            image: image.map(Arc::new),
        };
        kill_point("sync.captured");
        if self.sums_are_of_a_newer_base(&captured.ground)? {
            return Ok(Round::Again);
        }
        if let Some(round) = self.one_way(&captured, mode)? {
            return Ok(round);
        }
        let sent = self.send(snapshot, &captured.ground);
        kill_point("sync.answered");
        match sent {
            Ok(answer) => self.apply(replica, captured, answer),
            Err(Refused::Told(status, body)) => self.refused(&captured.ground, status, *body),
            Err(Refused::Failed(error)) => {
                self.forget_undelivered(&captured.ground, &error)?;
                if planted("lost-answer-makes-another-device") {
                    (self.meta.device, self.meta.pending) = (Some(crate::device::random()?), Vec::new());
                    self.meta.save(&self.files.info)?;
                }
                Err(error)
            }
        }
    }

    /// A state that certainly never left this machine waits for no answer.
    fn forget_undelivered(&mut self, ground: &Ground, error: &Error) -> Result<()> {
        if matches!(error, Error::Offline { .. })
            && !self.api.delivered.get()
            && self.awaits_nothing(ground.delta.state)
        {
            self.meta.note(&self.files.info)?;
        }
        Ok(())
    }

    /// The state that was just sent is not on its way any more. That of an earlier sync may be.
    pub(super) fn awaits_nothing(&mut self, state: StateHash) -> bool {
        let noted = self.meta.pending.len();
        if !self.sent_before {
            self.meta.pending.retain(|pending| *pending != state);
        }
        self.meta.pending.len() < noted
    }

    /// Push without anything to push, and pull while local changes wait, only need to ask.
    fn one_way(&mut self, captured: &Captured, mode: Mode) -> Result<Option<Round>> {
        let ground = &captured.ground;
        match (mode, ground.delta.is_empty(), ground.base) {
            // What was sent and taken back again is something to push.
            (Mode::Push, true, Some(base)) if self.meta.pending.is_empty() => {
                self.api.info()?.ok_or_else(|| self.gone(base))?;
                Ok(Some(Round::Done(Action::UpToDate)))
            }
            (Mode::Pull, false, Some(base)) => {
                let info = self.api.info()?.ok_or_else(|| self.gone(base))?;
                if info.txid == base.txid.0 {
                    return Ok(Some(Round::Done(Action::UpToDate)));
                }
                Err(self.conflict_of_pull(base, info.head, ground.delta.changed.len()))
            }
            (Mode::Pull, false, None) => match self.api.info()? {
                None => Ok(Some(Round::Done(Action::NothingYet))),
                Some(_) => Err(self.stranger()),
            },
            _ => Ok(None),
        }
    }

    /// Sends the delta. The read transaction ends as soon as the body is made.
    fn send(&mut self, snapshot: Snapshot<'_>, ground: &Ground) -> Result<SyncAnswer, Refused> {
        let (base, delta) = (ground.base, &ground.delta);
        let position = base.map(|base| base.position);
        let policy = self.options.merge_policy;
        let sender = match self.meta.pending_device {
            _ if self.nameless => Sender::Anybody,
            Some(device) => Sender::Other(device),
            None => Sender::Itself,
        };
        let pending: Vec<StateHash> =
            self.meta.pending.iter().copied().filter(|state| *state != delta.state).collect();
        self.sent_before = self.meta.pending.contains(&delta.state);
        if delta.is_empty() {
            if !pending.is_empty() {
                // What was sent is taken back, and the server may merge that.
                self.meta.add_pending(delta.state);
                self.make_durable(|| Ok(()))?;
            }
            drop(snapshot);
            let claim =
                Claim { base: position, confirm: false, doubt: false, pending: &pending, sender, policy };
            return self.api.sync(claim, false, &mut || PreparedBody { body: Body::Empty, produce: None });
        }
        if !planted("pending-not-noted") {
            self.meta.add_pending(delta.state);
        }
        let plan = Plan::of(delta, &snapshot)?;
        let device = self.api.device.unwrap_or(highwater_ltx::DeviceId(0));
        let header = encode::header(delta, device, base.map(|base| base.txid));
        tracing::debug!(
            generation = position.map_or(1, |position| position.generation.0),
            frame_no = position.map_or(1, |position| position.frame.0 + 1),
            count = delta.changed.len(),
            pages = delta.page_count.0,
            bytes = delta.changed.len() as u64 * u64::from(delta.page_size.get()),
            "pushing frames"
        );
        let encoded = plan.zstd.is_some();
        let claim = Claim {
            base: position,
            confirm: ground.unsure,
            doubt: ground.doubt,
            pending: &pending,
            sender,
            policy,
        };
        let mut sent_bytes = 0;
        let answer = if plan.whole {
            let body = self.make_durable(|| encode::whole(delta, &snapshot, header, plan))?;
            sent_bytes = body.len() as u64;
            drop(snapshot);
            kill_point("push.body_made");
            self.api
                .sync(claim, encoded, &mut || PreparedBody { body: Body::Whole(body.clone()), produce: None })
        } else {
            self.make_durable(|| Ok(()))?;
            let sent = std::cell::Cell::new(0);
            let (sent_now, run, snapshot) = (&sent, &*self, &snapshot);
            let answer = run.api.sync(claim, encoded, &mut || {
                let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
                PreparedBody {
                    body: Body::Streamed(receiver),
                    produce: Some(Box::new(move || {
                        let mut progress = |done, total| run.report(Stage::Sending, done, Some(total));
                        let bytes = encode::stream(delta, snapshot, header, plan, chunks, &mut progress)?;
                        sent_now.set(bytes);
                        Ok(())
                    })),
                }
            });
            sent_bytes += sent.get();
            answer
        };
        let pages = delta.changed.len() as u64;
        if answer.is_ok() {
            self.pushed = Moved { frames: pages, pages, bytes: sent_bytes };
        }
        answer
    }

    /// What is about to be told to the server must not be forgotten here by a power cut: neither
    /// that it is about to be told, nor what it says. Goes on with `meanwhile` while the disk works.
    fn make_durable<T>(&mut self, meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
        let (files, meta) = (self.files, &self.meta);
        let done = std::thread::scope(|scope| {
            let log = on_thread(scope, || sync_log(files));
            let note = on_thread(scope, || meta.save(&files.info));
            let done = meanwhile();
            joined(log)?;
            joined(note)?;
            done
        })?;
        self.saved = Some(self.meta.clone());
        kill_point("push.pending_saved");
        Ok(done)
    }

    /// Takes what the server answered.
    fn apply(&mut self, replica: &mut Replica, captured: Captured, mut answer: SyncAnswer) -> Result<Round> {
        let delta = &captured.ground.delta;
        let awaiting = self.meta.pending.iter().any(|state| *state != delta.state);
        self.merges.note(&answer);
        // The server knew what was awaited.
        if answer.outcome == Outcome::Merged && answer.head.state != delta.state {
            return self.apply_pages(replica, captured, &mut answer);
        }
        if answer.outcome == Outcome::Pulled {
            // What comes may be this device's own push, which was under way until now.
            if awaiting && let Some(round) = self.resolve_pending(delta.page_size)? {
                return Ok(round);
            }
            return self.apply_pages(replica, captured, &mut answer);
        }
        if answer.head.state != delta.state {
            return Err(self.api.bad(format!(
                "it says {} at {}, which is not the state of the local file",
                answer.outcome,
                answer.head.place()
            )));
        }
        let base = BaseInfo {
            position: answer.head,
            txid: answer.txid,
            page_size: delta.page_size,
            page_count: delta.page_count,
        };
        let action = match answer.outcome {
            Outcome::Pushed if answer.merge.is_none() => Action::Pushed,
            Outcome::Pushed | Outcome::Merged => Action::Merged,
            // Whatever was sent, the server had it already.
            _ => Action::UpToDate,
        };
        if action == Action::UpToDate {
            self.pushed = Moved { bytes: self.pushed.bytes, ..Moved::default() };
        } else {
            tracing::debug!(
                generation = base.position.generation.0,
                durable_frame_num = base.position.frame.0,
                count = delta.changed.len(),
                bytes = self.pushed.bytes,
                "pushed"
            );
        }
        if awaiting && captured.ground.base.is_some_and(|old| old.txid == base.txid) {
            self.awaits_nothing(base.position.state);
            // What was taken back before it arrived can still arrive, on top of this very base: it
            // stays noted, and so does the mark behind which it was written.
            return Ok(Round::Done(action));
        }
        let next = Some(captured.next);
        self.meta.change_counter = Some(captured.change_counter);
        let mut sums = match captured.ground {
            Ground { sums: Some(mut sums), delta, .. } => {
                sums.apply(&delta.changed, base.page_count, base.position);
                Some(sums)
            }
            Ground { sums: None, base: None, delta, .. } => Some(sums_of(&delta, base.position)),
            // Nothing differs; but the same state can have a new name, when a generation began.
            Ground { sums: None, base: Some(old), .. } if old.position != base.position => {
                let sums = self.load_sums(old)?;
                sums.map(|mut sums| {
                    sums.apply(&[], base.page_count, base.position);
                    sums
                })
            }
            Ground { sums: None, .. } => None,
        };
        self.record(base, next, sums.as_mut())?;
        Ok(Round::Done(action))
    }

    /// The server had this database once and has none now.
    pub(super) fn gone(&self, base: BaseInfo) -> Error {
        tracing::debug!(last = %base.position.place(), "the server does not know the database any more");
        Error::Gone {
            db: self.files.db.clone(),
            remote: self.api.remote.to_string(),
            last: base.position.place().to_string(),
        }
    }
}

fn sync_log(files: &Files) -> Result<()> {
    if planted("log-not-flushed") {
        return Ok(());
    }
    match durable::sync_path(&files.wal) {
        Err(highwater_pages::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Work on a thread of its own, or its result when there is no thread to be had.
type Begun<'s> = Result<ScopedJoinHandle<'s, Result<()>>, Result<()>>;

fn on_thread<'s>(scope: &'s Scope<'s, '_>, work: impl Fn() -> Result<()> + Send + Copy + 's) -> Begun<'s> {
    std::thread::Builder::new().spawn_scoped(scope, work).map_err(|_| work())
}

fn joined(begun: Begun<'_>) -> Result<()> {
    match begun {
        Ok(thread) => thread.join().unwrap_or(Err(Error::Stopped)),
        Err(done) => done,
    }
}
