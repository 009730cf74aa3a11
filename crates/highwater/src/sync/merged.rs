//! The merges that a sync led to, and what they could not keep.
//!
//! A sync merges more than once when the application commits while the answer is under way: each time what
//! was sent is in the log, whether or not the pages of the answer fitted here.

use std::collections::BTreeMap;

use highwater_ltx::TxId;
use highwater_wire::{Conflict, MergeRecord};

use super::Run;
use crate::api::SyncAnswer;

/// The merges of one sync, by their numbers in the log, and how much each could not keep.
#[derive(Debug, Default)]
pub(crate) struct Merges(BTreeMap<TxId, u64>);

impl Merges {
    /// Notes what an answer says; the same merge counts once, however often it is told.
    pub(super) fn note(&mut self, answer: &SyncAnswer) {
        if let Some(merge) = answer.merge {
            tracing::debug!(txid = merge.0, conflicts = answer.conflicts, "the server merged");
            self.0.insert(merge, answer.conflicts);
        }
    }

    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn conflicts(&self) -> u64 {
        self.0.values().sum()
    }
}

impl Run<'_> {
    /// Fetches what the merges could not keep. The sync itself is done: that the records cannot be had right now does
    /// not make it fail, for they stay at the server.
    pub(super) fn fetch_conflicts(&self, merges: Merges) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (txid, _) in merges.0.into_iter().filter(|(_, conflicts)| *conflicts > 0) {
            match self.api.record::<MergeRecord>(&txid.0.to_string()) {
                Ok(record) => conflicts.extend(record.conflicts),
                Err(error) => {
                    tracing::warn!(%error, "what a merge could not keep was not fetched; `highwater conflicts` shows it");
                }
            }
        }
        conflicts
    }
}
