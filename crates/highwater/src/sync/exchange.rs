//! The one request of a sync, and what follows from its answer.

use std::thread::{Scope, ScopedJoinHandle};

use highwater_ltx::{PageCount, PageNo, PageSize, StateHash, TxId};
use highwater_pages::{LocalState, Mark, PageSums, Replica, Snapshot, StateSum, durable, kill_point};
use highwater_wire::{ErrorBody, ErrorCode, LocateRequest, Outcome, SumsOf};
use tokio::sync::mpsc;

use super::base::{Ground, sums_of};
use super::{Mode, Round, Run};
use crate::api::{Claim, Located, PreparedBody, Refused, SyncAnswer};
use crate::encode::{self, Plan};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::metadata::BaseInfo;
use crate::outcome::{Action, Moved, Stage};
use crate::receive::Received;
use crate::transport::Body;

/// Chunks of a large body that may wait for the network.
const CHUNKS_AHEAD: usize = 4;

/// What the image was when it was captured.
struct Captured {
    ground: Ground,
    data_version: i64,
    /// Where the capture before this one looked.
    since: Option<Mark>,
    /// Where the next one looks on.
    next: Mark,
    change_counter: u32,
}

impl Run<'_> {
    /// Captures, sends, and applies the answer.
    pub(crate) fn exchange(&mut self, replica: &mut Replica, mode: Mode) -> Result<Round> {
        if !std::mem::replace(&mut self.pending_checked, true)
            && let Some(round) = self.resolve_pending(replica.page_size()?)?
        {
            return Ok(round);
        }
        let since = self.meta.mark;
        let snapshot = replica.snapshot(since.as_ref())?;
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
        };
        kill_point("sync.captured");
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
                Err(error)
            }
        }
    }

    /// A state that certainly never left this machine waits for no answer.
    fn forget_undelivered(&mut self, ground: &Ground, error: &Error) -> Result<()> {
        if matches!(error, Error::Offline { .. }) && !self.api.delivered.get() && !ground.delta.is_empty() {
            self.meta.pending.retain(|state| *state != ground.delta.state);
            self.meta.note(&self.files.info)?;
        }
        Ok(())
    }

    /// Push without anything to push, and pull while local changes wait, only need to ask.
    fn one_way(&mut self, captured: &Captured, mode: Mode) -> Result<Option<Round>> {
        let ground = &captured.ground;
        match (mode, ground.delta.is_empty(), ground.base) {
            (Mode::Push, true, Some(base)) => {
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
        if delta.is_empty() {
            drop(snapshot);
            let claim = Claim { base: position, confirm: false, pending: &[] };
            return self.api.sync(claim, false, &mut || PreparedBody { body: Body::Empty, produce: None });
        }
        let pending: Vec<StateHash> =
            self.meta.pending.iter().copied().filter(|state| *state != delta.state).collect();
        self.meta.add_pending(delta.state);
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
        let claim = Claim { base: position, confirm: ground.unsure, pending: &pending };
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
        if matches!(answer.outcome, Outcome::Pulled | Outcome::Merged) {
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
            Outcome::Pushed => Action::Pushed,
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

    /// Receives pages, checks that they lead to the head, and commits them.
    fn apply_pages(
        &mut self,
        replica: &mut Replica,
        captured: Captured,
        answer: &mut SyncAnswer,
    ) -> Result<Round> {
        let Captured { ground, data_version, since, next, .. } = captured;
        let Ground { base, sums, delta, .. } = ground;
        let mut progress = |done, total| self.report(Stage::Receiving, done, total);
        let received =
            Received::read(self.api.plain_body(&mut answer.body), self.files.folder(), &mut progress);
        let mut received = received.map_err(|error| self.receive_error(error))?;
        kill_point("pull.received");
        // The base's sums, without the local changes, say later whether the file is still the same.
        let sums = match (sums, base) {
            (Some(sums), _) => Some(sums),
            (None, Some(base)) => Some(self.sums_for_pull(replica, base)?),
            (None, None) => None,
        };
        let mut local = match &sums {
            Some(sums) => sums.clone(),
            None => PageSums::new(answer.head, delta.page_size, PageCount(0)),
        };
        let here = highwater_ltx::Position { state: delta.state, ..answer.head };
        local.apply(&delta.changed, delta.page_count, here);
        if self.state_after(&local, &received) != Some(answer.head.state) {
            return self.heal_or(|run| run.api.bad("its pages do not lead to the state it names".to_owned()));
        }
        let state = LocalState {
            data_version,
            state: delta.state,
            base: sums.as_ref(),
            since: since.as_ref().filter(|_| sums.is_some()),
        };
        let base = BaseInfo {
            position: answer.head,
            txid: answer.txid,
            page_size: received.header.page_size,
            page_count: received.header.commit,
        };
        // The sums go ahead of the commit: killed right after it, they prove that it happened.
        let mut after = local;
        after.apply(&received.pages, base.page_count, base.position);
        if let Err(error) = after.append_ahead(&self.files.sums) {
            tracing::debug!(%error, "the page sums could not be saved ahead of the commit");
        }
        kill_point("pull.sums_ahead");
        if !self.commit(replica, state, &mut received)? {
            return Ok(Round::Again);
        }
        kill_point("pull.committed");
        // Whatever was sent, the server had it already.
        self.pushed = Moved { bytes: self.pushed.bytes, ..Moved::default() };
        let pages = received.pages.len() as u64;
        self.pulled = Moved { frames: pages, pages, bytes: answer.body.body.received() };
        tracing::debug!(
            generation = base.position.generation.0,
            durable_frame_num = base.position.frame.0,
            count = pages,
            bytes = self.pulled.bytes,
            "pulled"
        );
        self.meta.change_counter = Some(replica.snapshot(None)?.change_counter());
        self.record(base, Some(next), Some(&mut after))?;
        if let Err(error) = replica.checkpoint_if_large(next.wal.as_ref()) {
            // Somebody is in the way; the next pull tries again.
            tracing::debug!(%error, "the log was not checkpointed");
        }
        Ok(Round::Done(Action::Pulled))
    }

    /// Nothing differed, so the sums were not needed; now they are.
    fn sums_for_pull(&mut self, replica: &mut Replica, base: BaseInfo) -> Result<PageSums> {
        if let Some(sums) = self.load_sums(base)? {
            return Ok(sums);
        }
        let snapshot = replica.snapshot(None)?;
        let all = snapshot.diff(None, &highwater_pages::Suspects::ALL, &mut |_, _| ())?;
        if all.state == base.position.state {
            return Ok(sums_of(&all, base.position));
        }
        drop(snapshot);
        Ok(self.fetch_base(base.position, base.txid, base.page_size)?.1)
    }

    /// The state that received pages lead to; None when they cannot be right.
    fn state_after(&self, local: &PageSums, received: &Received) -> Option<StateHash> {
        let (size, count) = (received.header.page_size, received.header.commit);
        let mut sum = StateSum::from_state(local.position().state, local.page_count(), size);
        for page in count.0.saturating_add(1)..=local.page_count().0 {
            if let Some(old) = local.get(PageNo(page)) {
                sum.remove(old);
            }
        }
        let grown = received.pages.iter().filter(|(page, _)| *page > PageNo(local.page_count().0)).count();
        let expected = count.data_page_count(size).saturating_sub(local.page_count().data_page_count(size));
        if size != local.page_size() || grown != expected as usize {
            return None;
        }
        for (page, hash) in &received.pages {
            if let Some(old) = local.get(*page) {
                sum.remove(old);
            }
            sum.add(*hash);
        }
        Some(sum.state(count, size))
    }

    /// The caches may be to blame: once, everything is found out anew by content.
    fn heal_or(&mut self, error: impl FnOnce(&Self) -> Error) -> Result<Round> {
        if self.healing {
            return Err(error(self));
        }
        tracing::debug!("client and server disagree; the base is found out anew by content");
        self.healing = true;
        self.meta.base = None;
        self.meta.mark = None;
        Ok(Round::Again)
    }

    /// The server did not take it.
    fn refused(&mut self, ground: &Ground, status: http::StatusCode, body: ErrorBody) -> Result<Round> {
        if status.is_client_error() {
            // A definite no: this state is not stored, and no answer is outstanding for it.
            self.meta.pending.retain(|state| *state != ground.delta.state);
        }
        match body.code {
            ErrorCode::Conflict => match self.resolve_pending(ground.delta.page_size)? {
                Some(round) => Ok(round),
                None if self.newer_base_of_sums(ground)? => Ok(Round::Again),
                None => {
                    self.meta.save(&self.files.info)?;
                    Err(self.conflict(body))
                }
            },
            ErrorCode::EarlierState if !self.earlier_state => {
                self.earlier_state = true;
                Ok(Round::Again)
            }
            ErrorCode::UnknownBase | ErrorCode::CorruptBody | ErrorCode::EarlierState => {
                self.heal_or(|run| run.api.explain(Refused::Told(status, Box::new(body))))
            }
            ErrorCode::UnknownDatabase => match ground.base {
                Some(base) => Err(self.gone(base)),
                None => Ok(Round::Done(Action::NothingYet)),
            },
            ErrorCode::WrongPageSize => {
                let server =
                    self.api.info()?.and_then(|info| highwater_ltx::PageSize::new(info.page_size).ok());
                Err(match server {
                    Some(server) => self.page_size_error(ground.delta.page_size, server),
                    None => self.api.explain(Refused::Told(status, Box::new(body))),
                })
            }
            _ => Err(self.api.explain(Refused::Told(status, Box::new(body)))),
        }
    }

    /// States were sent whose answers never came: if the server has one of them, that is the base
    /// now, and what changed since is on top of it. A state that the server does not have stays
    /// noted, because its request may still be under way.
    fn resolve_pending(&mut self, page_size: PageSize) -> Result<Option<Round>> {
        // Without a base, the lost answer was the one to the first push.
        let known = self.meta.base.map_or(TxId(0), |base| base.txid);
        let page_count = self.meta.base.map_or(PageCount(0), |base| base.page_count);
        let mut newest: Option<(highwater_ltx::Position, TxId)> = None;
        for state in self.meta.pending.clone() {
            let request = LocateRequest { page_size, page_count, state, sums: SumsOf::Nothing };
            // Another device may have come to the same state by itself.
            if let Located::At { position, txid, device, .. } = self.api.locate(&request, None)?
                && txid > newest.map_or(known, |(_, newest)| newest)
                && device.is_none_or(|device| Some(device) == self.pending_device)
            {
                newest = Some((position, txid));
            }
        }
        let Some((position, txid)) = newest else { return Ok(None) };
        tracing::debug!(
            generation = position.generation.0,
            durable_frame_num = position.frame.0,
            "an earlier push had arrived, only its answer was lost"
        );
        let (base, mut sums) = self.fetch_base(position, txid, page_size)?;
        let mark = self.meta.mark;
        self.record(base, mark, Some(&mut sums))?;
        Ok(Some(Round::Again))
    }

    /// A metadata file that is an older copy of itself makes what was pushed since look like another
    /// device's. The page sums know better, and what proves that they are this file's is that some
    /// of what changed since the older base is as they say, or that no row of theirs is missing.
    /// True: the base is theirs now.
    fn newer_base_of_sums(&mut self, ground: &Ground) -> Result<bool> {
        let known = ground.base.map_or(TxId(0), |base| base.txid);
        if self.earlier_state {
            return Ok(false);
        }
        let Some((base, mut sums)) = self.base_of_sums(ground.delta.page_size, known)? else {
            return Ok(false);
        };
        let changed = &ground.delta.changed;
        let as_they_say = changed.iter().any(|(page, hash)| sums.get(*page) == Some(*hash));
        // A page that is still as at the older base, but not as they say, proves the opposite: they
        // were written ahead of a commit that never came.
        let as_before = ground.sums.as_ref().is_some_and(|before| {
            let moved = sums.iter().filter(|(page, hash)| before.get(*page) != Some(*hash));
            moved.into_iter().any(|(page, _)| changed.binary_search_by_key(&page, |(page, _)| *page).is_err())
        });
        if as_before || !as_they_say && !self.keeps_all_rows(base.position)? {
            return Ok(false);
        }
        // Without a mark, the server will make sure that the file is no earlier state.
        self.record(base, None, Some(&mut sums))?;
        Ok(true)
    }

    /// The server had this database once and has none now.
    fn gone(&self, base: BaseInfo) -> Error {
        tracing::debug!(last = %base.position.place(), "the server does not know the database any more");
        Error::Gone {
            db: self.files.db.clone(),
            remote: self.api.remote.to_string(),
            last: base.position.place().to_string(),
        }
    }
}

fn sync_log(files: &Files) -> Result<()> {
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
