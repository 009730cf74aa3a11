//! Receiving pages and committing them: what follows when the server has news.
//!
//! Pages are received whole and must lead to the head's state before any is written. The page sums go
//! ahead of the commit, so that a sync killed right after it is recognised.

use highwater_ltx::{PageCount, StateHash, planted};
use highwater_pages::{LocalState, PageSums, Replica, durable, kill_point};

use super::base::{Ground, sums_of};
use super::exchange::Captured;
use super::rebase::Answered;
use super::{Round, Run};
use highwater_wire::Outcome;

use crate::api::SyncAnswer;
use crate::error::{Error, Result};
use crate::metadata::BaseInfo;
use crate::outcome::{Action, Moved, Stage};
use crate::receive::Received;

impl Run<'_> {
    /// Receives pages, checks that they lead to the head, and commits them.
    pub(super) fn apply_pages(
        &mut self,
        replica: &mut Replica,
        captured: Captured,
        answer: &mut SyncAnswer,
    ) -> Result<Round> {
        let Captured { ground, data_version, since, next, image, .. } = captured;
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
        let merged = answer.outcome == Outcome::Merged;
        let fits = Self::state_after(&local, &received) == Some(answer.head.state);
        if !fits && !planted("received-not-verified") {
            // One damaged answer says nothing against what is known here, and to find the base by content can go wrong.
            let damaged = |run: &Self| run.api.bad("its pages do not lead to the state it names".to_owned());
            if planted("damaged-answer-forgets-the-base") {
                return self.heal_or(damaged);
            }
            if !std::mem::replace(&mut self.damaged_once, true) {
                return Ok(Round::Again);
            }
            return self.look_anew_or(damaged);
        }
        let base = BaseInfo {
            position: answer.head,
            txid: answer.txid,
            page_size: received.header.page_size,
            page_count: received.header.commit,
        };
        let pages = received.pages.len() as u64;
        self.sums_checked = true;
        let committed = match image.filter(|_| merged) {
            Some(image) => {
                let answered = Answered { image, sums: local, mark: next, head: answer.head, received };
                self.rebase(replica, answered, answer)
            }
            None => {
                let state = LocalState {
                    data_version,
                    state: delta.state,
                    base: sums.as_ref(),
                    since: since.as_ref().filter(|_| sums.is_some()),
                };
                let after = self.note_ahead(local, delta.is_empty(), &received, base);
                kill_point("pull.sums_ahead");
                if planted("metadata-before-commit") {
                    self.record(base, Some(next), Some(&mut after.clone()))?;
                }
                let committed = self.commit(replica, state, &mut received);
                committed.map(|committed| committed.then_some((after, true)))
            }
        };
        if matches!(&committed, Ok(None)) || committed.as_ref().is_err_and(Error::is_passing) {
            self.take_back_sums(sums);
        }
        let Some((mut after, named)) = committed? else { return Ok(Round::Again) };
        kill_point("pull.committed");
        if !merged {
            // Whatever was sent, the server had it already.
            self.pushed = Moved { bytes: self.pushed.bytes, ..Moved::default() };
        }
        self.pulled = Moved { frames: pages, pages, bytes: answer.body.body.received() };
        tracing::debug!(
            generation = base.position.generation.0,
            durable_frame_num = base.position.frame.0,
            count = pages,
            bytes = self.pulled.bytes,
            "{}",
            if merged { "merged" } else { "pulled" }
        );
        self.meta.change_counter = Some(replica.snapshot(None)?.change_counter());
        self.record(base, named.then_some(next), Some(&mut after))?;
        if let Err(error) = replica.checkpoint_if_large(next.wal.as_ref()) {
            // Somebody is in the way; the next pull tries again.
            tracing::debug!(%error, "the log was not checkpointed");
        }
        Ok(Round::Done(if merged { Action::Merged } else { Action::Pulled }))
    }

    /// The sums go ahead of the commit: killed right after it, they prove that it happened. Those of the
    /// state before it go first, for it has some pages in common with the one after it.
    fn note_ahead(&self, local: PageSums, unchanged: bool, received: &Received, to: BaseInfo) -> PageSums {
        let mut after = local;
        if planted("sums-not-ahead") {
            after.apply(&received.pages, to.page_count, to.position);
            return after;
        }
        let noted = if unchanged { Ok(()) } else { after.append_ahead(&self.files.sums) };
        after.apply(&received.pages, to.page_count, to.position);
        // They must be on disk before the commit is: after a power cut that kept only the commit, the pulled rows
        // would be taken for the device's own.
        let noted = noted
            .and_then(|()| after.append_ahead(&self.files.sums))
            .and_then(
                |()| if planted("sums-not-flushed") { Ok(()) } else { durable::sync_path(&self.files.sums) },
            )
            .and_then(|()| durable::sync_dir(self.files.folder()));
        if let Err(error) = noted {
            tracing::debug!(%error, "the page sums could not be saved ahead of the commit");
        }
        after
    }

    /// The commit that the page sums were written ahead of did not come, and they must not say that it did: a sync
    /// after this one would take the file for what they are of, and everything that it lacks for deleted.
    fn take_back_sums(&self, before: Option<PageSums>) {
        let path = &self.files.sums;
        if planted("sums-not-taken-back") {
            return;
        }
        let taken = match before {
            Some(mut before) => before.save(path).map_err(Error::from),
            None => match std::fs::remove_file(path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::Io { what: "removing", path: path.clone(), source })
                }
                _ => Ok(()),
            },
        };
        if let Err(error) = taken {
            tracing::warn!(%error, "the page sums of a commit that did not come could not be taken back");
        }
    }

    /// Nothing differed, so the sums were not needed; now they are.
    pub(super) fn sums_for_pull(&mut self, replica: &mut Replica, base: BaseInfo) -> Result<PageSums> {
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
    pub(super) fn state_after(local: &PageSums, received: &Received) -> Option<StateHash> {
        let (size, count) = (received.header.page_size, received.header.commit);
        (size == local.page_size()).then(|| local.state_with(&received.pages, count)).flatten()
    }
}
