//! The merges that a sync led to, and what they could not keep.
//!
//! A sync merges more than once when the application commits while the answer is under way: each time what
//! was sent is in the log, whether or not the pages of the answer fitted here.

use highwater_ltx::{StateHash, TxId};
use highwater_wire::Conflict;

use super::Run;
use crate::api::SyncAnswer;

/// One answer `merged`.
#[derive(Debug)]
struct Noted {
    /// What was sent.
    state: StateHash,
    base: TxId,
    head: TxId,
    conflicts: u64,
}

/// The merges of one sync, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Merges(Vec<Noted>);

impl Merges {
    /// Notes an answer; the same merge counts once, however often it is told.
    pub(super) fn note(&mut self, state: StateHash, base: Option<TxId>, answer: &SyncAnswer) {
        tracing::debug!(txid = answer.txid.0, conflicts = answer.conflicts, "the server merged");
        self.0.retain(|noted| noted.state != state);
        let base = base.unwrap_or(TxId(0));
        self.0.push(Noted { state, base, head: answer.txid, conflicts: answer.conflicts });
    }

    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn conflicts(&self) -> u64 {
        self.0.iter().map(|noted| noted.conflicts).sum()
    }
}

impl Run<'_> {
    /// Fetches what the merges could not keep. The sync itself is done: that the records cannot be had right now does
    /// not make it fail, for they stay at the server.
    pub(super) fn fetch_conflicts(&self, merges: Merges) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for noted in merges.0.into_iter().filter(|noted| noted.conflicts > 0) {
            match self.api.record_of(noted.state, noted.base, noted.head) {
                Ok(Some(record)) => conflicts.extend(record.conflicts),
                Ok(None) => tracing::warn!(txid = noted.head.0, "the server has no record of this merge"),
                Err(error) => {
                    tracing::warn!(%error, "what a merge could not keep was not fetched; `highwater conflicts` shows it");
                }
            }
        }
        conflicts
    }
}
