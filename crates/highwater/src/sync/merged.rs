//! The merges that a sync led to, and what they could not keep.
//!
//! A sync merges more than once when the application commits while the answer is under way: each time what
//! was sent is in the log, whether or not the pages of the answer fitted here.

use std::collections::BTreeMap;

use highwater_ltx::TxId;
use highwater_wire::{Conflict, MergeRecord};
use http::Method;

use super::Run;
use crate::api::{Api, SyncAnswer};
use crate::error::Result;
use crate::metadata::RebaseNote;
use crate::transport::Body;

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

impl Api<'_> {
    /// `POST /DB/v1/conflicts/TXID/rebased`.
    fn tell_rebased(&self, note: &RebaseNote) -> Result<()> {
        let url = format!("{}/{}/rebased", self.remote.request(Some("conflicts")), note.merge);
        let body = serde_json::to_vec(&note.told).unwrap_or_default();
        let answer =
            self.send(&Method::POST, &url, &self.headers(), &mut || Body::Whole(body.clone().into()));
        answer.map(drop).map_err(|refused| self.explain(refused))
    }
}

impl Run<'_> {
    /// Tells the server which ids rows got here. Nobody waits for it: what cannot be told now is told by a later sync, and the outcome of the sync
    /// that committed them has them as well.
    pub(super) fn tell_rebased(&mut self) {
        let notes = std::mem::take(&mut self.meta.rebased);
        let told = notes.len();
        for note in notes {
            match self.api.tell_rebased(&note) {
                Ok(()) => {}
                Err(error) if error.is_passing() => self.meta.rebased.push(note),
                Err(error) => {
                    tracing::warn!(%error, merge = note.merge, "the server does not record ids that rows got here")
                }
            }
        }
        if self.meta.rebased.len() < told
            && let Err(error) = self.meta.note(&self.files.info)
        {
            tracing::debug!(%error, "ids that rows got here will be told once more");
        }
    }

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
