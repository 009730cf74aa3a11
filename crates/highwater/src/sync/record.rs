//! Writing down where the local copy is, after it got there.
//!
//! Page sums first, then the metadata file: killed in between, the sums still hold the older
//! position that the metadata names.

use highwater_ltx::{StateHash, planted};
use highwater_pages::{Mark, PageSums, kill_point};

use super::Run;
use crate::error::Result;
use crate::home;
use crate::metadata::BaseInfo;

impl Run<'_> {
    /// The local file is equal to `base`, whose page sums are `sums` (None: they did not change),
    /// and the next capture looks on from `mark`.
    pub(crate) fn record(
        &mut self,
        base: BaseInfo,
        mark: Option<Mark>,
        sums: Option<&mut PageSums>,
    ) -> Result<()> {
        self.record_awaiting(base, mark, sums, Vec::new())
    }

    /// As [`Run::record`]; the answers for some states are still awaited.
    pub(crate) fn record_awaiting(
        &mut self,
        base: BaseInfo,
        mark: Option<Mark>,
        sums: Option<&mut PageSums>,
        awaited: Vec<StateHash>,
    ) -> Result<()> {
        kill_point("record.begin");
        let saved = sums.map_or(Ok(()), |sums| sums.append(&self.files.sums));
        if let Err(error) = saved {
            // Only a cache: without it the next sync looks at every page.
            tracing::warn!(sums = %self.files.sums.display(), %error, "the page sums could not be saved");
        }
        kill_point("record.sums_saved");
        self.meta.base = Some(base);
        self.meta.mark = mark;
        self.meta.pending = awaited;
        if self.meta.pending.is_empty() {
            self.meta.pending_device = None;
        }
        // A commit that was about to happen has, if it led here.
        match self.meta.rebasing.take() {
            Some(_) if planted("rebased-ids-not-told") => {}
            Some(note) if note.head == base.position.state.to_string() => self.meta.rebased.push(note),
            // It is not known yet.
            Some(note) if base.txid.0 < note.merge => self.meta.rebasing = Some(note),
            _ => {}
        }
        self.meta.home = Some(home::of(&self.files.db));
        if self.saved.as_ref() != Some(&self.meta) {
            // A pull leaves no other trace of where it led to.
            if self.pulled.pages > 0 {
                self.meta.save(&self.files.info)?;
            } else {
                self.meta.note(&self.files.info)?;
            }
            self.saved = Some(self.meta.clone());
        }
        kill_point("record.done");
        Ok(())
    }
}
