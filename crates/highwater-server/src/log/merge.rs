//! Merging a device's change into the head, when others were faster.
//!
//! Steps, each safe to be the last one: the delta is checked against its base; the merge is computed on snapshots, which
//! writes nothing; the delta is stored, then the record, then the log's entry. Without the entry nothing happened: a
//! record that has none counts for nothing, and the device sends its change again. With it, the device's own
//! state is another name of the position ([`MergeName`]): sent again, it is known.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use highwater_ltx::{DeviceId, PageNo, StateHash, TxId, planted};
use highwater_merge::{Bounds, Exceeded, Merged, Options, Sides};
use highwater_pages::owners::PageSource;
use highwater_pages::{PageHash, StateSum, kill_point, page_hash};
use highwater_wire::{CannotMerge, MergePolicy, MergeRecord, Outcome};

use super::append::Appended;
use super::decide::{Refusal, SyncRequest, Verdict};
use super::delta::{Delta, DeltaImages};
use super::entries::Entry;
use super::state::{Kept, Overlay, State};
use super::{Database, MergeName, blocking, conflict, file, ms_since};
use crate::{Error, Limits, Result, paths};

/// The version of a record.
const RECORD: u32 = 1;

/// What a change is measured from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A position.
    Position(TxId),
    /// A device's own state, which went into a merge.
    Merged(MergeName),
}

impl Origin {
    /// The entry of the log that has it.
    pub(crate) fn txid(&self) -> TxId {
        match self {
            Self::Position(txid) => *txid,
            Self::Merged(merge) => merge.txid,
        }
    }
}

/// What stays from one attempt at a merge to the next.
#[derive(Debug, Default)]
pub(crate) struct Merging {
    overlay: Option<Arc<Overlay>>,
    /// Whether the delta was found to lead from its base to the state that it says, and is stored.
    checked: bool,
    stored: bool,
}

/// A change that is to be merged into the head.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The position that `overlay` is on top of.
    pub(crate) base: TxId,
    /// What the change is measured from: the base, or a state that went into a merge before.
    pub(crate) origin: Origin,
    /// The device's pages; `None`: its state is the base.
    pub(crate) overlay: Option<Arc<Overlay>>,
    /// The device's state.
    pub(crate) state: StateHash,
    pub(crate) device: DeviceId,
    pub(crate) policy: MergePolicy,
    /// Whether the device may have got from the server what it has beyond the base.
    pub(crate) doubt: bool,
}

impl Database {
    /// Merges a request's change into the head. The caller has the turn. `None`: another server was faster.
    pub(super) async fn merge(
        self: &Arc<Self>,
        request: &mut SyncRequest,
        (base, origin): (TxId, Origin),
        merging: &mut Merging,
    ) -> Result<Option<Verdict>, Refusal> {
        if let (None, Some(delta)) = (&merging.overlay, &mut request.delta) {
            let staged = matches!(delta.images, DeltaImages::Staged(_));
            merging.overlay = Overlay::of(delta).map(Arc::new);
            if merging.overlay.is_none() || (staged && delta.pages.is_empty()) {
                // When its header came, it seemed to be there already.
                return Err(Refusal::Busy);
            }
        }
        let base_state = self.read(|log| log.base(base).map(|entry| entry.position.state)).flatten();
        let base_state = base_state.ok_or_else(|| lost(self))?;
        let change = Change {
            base,
            origin,
            overlay: merging.overlay.clone(),
            state: request.delta.as_ref().map_or(base_state, |delta| delta.state),
            device: request.device,
            doubt: request.doubt,
            policy: request.policy.unwrap_or_else(|| self.context.merge.policy_of(self.name.as_str())),
        };
        if let Some(delta) = request.delta.as_ref().filter(|_| !merging.checked) {
            if !planted("merged-push-not-verified") {
                self.check_on(base, delta).await?;
            }
            merging.checked = true;
        }
        let merge = self.compute(&change).await?;
        if let (false, Some(overlay)) = (merging.stored, &change.overlay) {
            merging.overlay = Some(self.store_delta(request, overlay, base).await?);
            merging.stored = true;
        }
        let Some((_, name)) = self.append_merge(&change, merge).await? else { return Ok(None) };
        self.merged(base, request.delta.as_ref(), name).await.map(Some)
    }

    /// Whether a delta leads from a position to the state that it says.
    async fn check_on(self: &Arc<Self>, base: TxId, delta: &Delta) -> Result<(), Refusal> {
        let found = self.read(|log| log.base(base).map(|entry| (entry.position.state, entry.page_count)));
        let (state, before) = found.flatten().ok_or_else(|| lost(self))?;
        if let Some(page) = delta.missing_growth(before) {
            return Err(Refusal::Corrupt(format!(
                "the database grows from {before} to {} pages, but page {page} is not in the body",
                delta.commit
            )));
        }
        let size = delta.page_size;
        let kept = delta.pages.iter().map(|(page, _)| *page).take_while(|page| page.0 <= before.0);
        let dropped = (delta.commit.0 + 1..=before.0).map(PageNo).filter(|page| *page != size.lock_page());
        let replaced: Vec<PageNo> = kept.chain(dropped).collect();
        let source = self.state(base, &Arc::default()).ok_or_else(|| lost(self))?;
        let old = hashes(source, replaced).await?;
        let mut sum = StateSum::from_state(state, before, size);
        old.iter().for_each(|hash| sum.remove(*hash));
        delta.pages.iter().for_each(|(_, hash)| sum.add(*hash));
        let found = sum.state(delta.commit, size);
        if found == delta.state {
            return Ok(());
        }
        Err(Refusal::Corrupt(format!(
            "the base and the pages of the body give the state {found}, but its header claims {}",
            delta.state
        )))
    }

    /// Computes a merge into the head; nothing is written. The caller has the turn.
    pub(crate) async fn compute(
        self: &Arc<Self>,
        change: &Change,
    ) -> Result<highwater_merge::Merge, Refusal> {
        let began = Instant::now();
        let kept = Arc::new(Kept::default());
        let head = self.read(|log| log.head().txid).ok_or(Refusal::UnknownDatabase)?;
        let state = |txid: TxId| self.state(txid, &kept).ok_or_else(|| lost(self));
        let local = state(change.base)?.with(change.overlay.clone());
        let (origin, origin_base, carried) = match change.origin {
            Origin::Position(txid) => (state(txid)?, txid, None),
            Origin::Merged(merge) => {
                let overlay = self.stored_delta(&merge).await?;
                (state(merge.base)?.with(overlay.clone()), merge.base, overlay)
            }
        };
        let carried = carried.iter().flat_map(|overlay| overlay.pages().iter().copied());
        let mut local_changed: BTreeSet<PageNo> = carried.clone().collect();
        local_changed.extend(change.overlay.iter().flat_map(|overlay| overlay.pages().iter().copied()));
        local_changed
            .extend(self.pages_between(change.base.min(origin_base), change.base.max(origin_base)).await?);
        let mut head_changed: BTreeSet<PageNo> = carried.collect();
        head_changed.extend(self.pages_between(origin_base, head).await?);
        let earlier = match &change.origin {
            Origin::Position(_) => None,
            Origin::Merged(merge) => self.record(merge).await?,
        };
        let (renumbered, rejected) =
            earlier.map(|record| (record.renumbered, record.rejected)).unwrap_or_default();
        let sides = Sides {
            base: Arc::new(origin),
            local: Arc::new(local),
            head: Arc::new(state(head)?),
            local_changed: local_changed.into_iter().collect(),
            head_changed: head_changed.into_iter().collect(),
        };
        let (policy, limits) = (change.policy, self.context.limits.clone());
        let bounds =
            Bounds { until: began.checked_add(limits.merge_timeout), memory: Some(limits.merge_memory) };
        let options = Options { policy, renumbered, rejected, doubt: change.doubt, bounds };
        let kept_sides = sides.clone();
        let merged = blocking(move || {
            let merged = highwater_merge::merge(&sides, &options);
            // What could not be read says nothing of the push: it is the store's failure, and it passes.
            if let Some(failure) = kept.failure() {
                return Err(failure);
            }
            match merged {
                Ok(Merged::Exceeded(what)) => Ok(Merged::Refused(too_much(what, &limits))),
                Ok(merged) => Ok(merged),
                Err(highwater_merge::Error::Read(error)) => Err(Error::Run(error)),
                // Whoever pushed it has to mend it: trying again does not help.
                Err(error) => {
                    Ok(Merged::Refused(CannotMerge { object: None, reason: crate::error::chain(&error) }))
                }
            }
        })
        .await?;
        match merged {
            Merged::Done(merge) => {
                tracing::debug!(
                    db = %self.name, txid = head.0 + 1, pages = merge.pages.len(), conflicts = merge.conflicts.len(),
                    pages_read = merge.pages_read, ms = ms_since(began), "merged"
                );
                Ok(*merge)
            }
            Merged::Conflicts(conflicts) => {
                let detail = conflict::detail(self, change, &kept_sides).await?;
                Err(Refusal::Conflict(Box::new((detail, conflicts))))
            }
            Merged::Exceeded(_) => Err(Refusal::Busy),
            Merged::Refused(why) => {
                tracing::warn!(
                    db = %self.name, device = %change.device, object = why.object.as_deref(), reason = %why.reason,
                    "a push cannot be merged; nothing is stored"
                );
                let detail = conflict::detail(self, change, &kept_sides).await?;
                Err(Refusal::CannotMerge(Box::new((detail, why))))
            }
        }
    }

    /// Appends a merge that was computed on the head, its record before it: the new head, and the merge. `None`:
    /// another server was faster.
    pub(crate) async fn append_merge(
        self: &Arc<Self>,
        change: &Change,
        merge: highwater_merge::Merge,
    ) -> Result<Option<(Entry, MergeName)>, Refusal> {
        let page_size = self.read(|log| log.page_size).ok_or(Refusal::UnknownDatabase)?;
        let mut pages = merge.pages;
        if pages.is_empty() {
            // Nothing is new, but the device's state needs a place in the log: a push that changes nothing.
            let first = self.head_page(PageNo(1)).await?.ok_or_else(|| lost(self))?;
            pages.push((PageNo(1), first));
        }
        let hashes: Vec<(PageNo, PageHash)> =
            pages.iter().map(|(page, image)| (*page, page_hash(*page, image))).collect();
        let images = pages.into_iter().map(|(_, image)| image).collect::<Vec<_>>().concat();
        let mut delta = Delta {
            page_size,
            commit: merge.page_count,
            state: StateHash(0),
            frames: hashes.len() as u64,
            pages: hashes,
            images: DeltaImages::Memory(images),
        };
        delta.state = self.state_after(&delta).await?;
        let planned = self.next(None);
        let name = MergeName {
            txid: planned.txid,
            base: change.base,
            device: change.device,
            result: delta.state,
            local: change.state,
            conflicts: u32::try_from(merge.conflicts.len()).unwrap_or(u32::MAX),
        };
        let found = self.read(|log| (log.base(change.base).map(|entry| entry.position), log.head().position));
        let (Some(base), head_before) = found.ok_or(Refusal::UnknownDatabase)? else {
            return Err(lost(self));
        };
        let record = MergeRecord {
            version: RECORD,
            txid: name.txid.0,
            device: change.device.to_string(),
            time_ms: planned.timestamp_ms,
            policy: change.policy,
            base: base.into(),
            head_before: head_before.into(),
            head: planned.position(&delta).into(),
            local_state: change.state.to_string(),
            counts: merge.counts,
            conflicts: merge.conflicts,
            renumbered: merge.renumbered,
            rejected: merge.rejected,
            resolved: false,
        };
        kill_point("server-merge-before-record");
        let bytes = serde_json::to_vec(&record).map_err(|error| Error::Run(std::io::Error::other(error)))?;
        // One of that name is of the same merge, by a server that did not get further.
        self.context.store.create(&name.path(&self.name), Bytes::from(bytes)).await?;
        kill_point("server-merge-recorded");
        let Appended::Done(entry) = self.append_at(&mut delta, change.device, planned).await? else {
            return Ok(None);
        };
        self.write(|log| {
            if let Some(log) = log {
                log.merges.add(name);
            }
        });
        self.context.metrics.merged(name.conflicts);
        Ok(Some((*entry, name)))
    }

    /// Stores what the device sent, under a name that says what it is. Where it stands from now on.
    async fn store_delta(
        &self,
        request: &mut SyncRequest,
        overlay: &Arc<Overlay>,
        base: TxId,
    ) -> Result<Arc<Overlay>, Refusal> {
        let Some(delta) = &mut request.delta else { return Ok(Arc::clone(overlay)) };
        let object = paths::merged_delta(&self.name, base, delta.state);
        match std::mem::replace(&mut delta.images, DeltaImages::Dropped) {
            // One of that name has the same pages: its name says which.
            DeltaImages::Staged(staged) => {
                self.context.store.publish(&staged.path, &object).await?;
            }
            _ => self.store_overlay(overlay, delta, request.device, &object).await?,
        }
        kill_point("server-merge-delta-stored");
        if overlay.in_memory().is_some() {
            return Ok(Arc::clone(overlay));
        }
        // The file of that name may be an earlier attempt's, encoded in another way.
        let found = file::header_and_index(&self.context.store, &object).await?;
        let (header, index) = found.ok_or_else(|| lost(self))?;
        Ok(Arc::new(Overlay::stored(object, index, header.commit)))
    }

    /// Stores a delta whose images are in memory.
    pub(crate) async fn store_overlay(
        &self,
        overlay: &Overlay,
        delta: &Delta,
        device: DeviceId,
        object: &object_store::path::Path,
    ) -> Result<(), Refusal> {
        let Some(images) = overlay.in_memory().cloned() else { return Ok(()) };
        let frames = delta.pages.len() as u64;
        let header = self.next(None).header(delta.page_size, delta.commit, frames, device, delta.state);
        let pages: Vec<PageNo> = overlay.pages().to_vec();
        let (file, _) = blocking(move || super::append::encode(header, &pages, &images)).await?;
        self.context.store.create(object, Bytes::from(file)).await?;
        Ok(())
    }

    /// The pages that a device had on top of its base when it was merged.
    pub(crate) async fn stored_delta(&self, merge: &MergeName) -> Result<Option<Arc<Overlay>>> {
        let base = self.read(|log| log.base(merge.base).map(|entry| entry.position.state)).flatten();
        if base == Some(merge.local) {
            return Ok(None);
        }
        let object = paths::merged_delta(&self.name, merge.base, merge.local);
        let found = file::header_and_index(&self.context.store, &object).await?;
        let (header, index) =
            found.ok_or_else(|| Error::damaged(&object, "the pages of a state that was merged are gone"))?;
        Ok(Some(Arc::new(Overlay::stored(object, index, header.commit))))
    }

    /// The record of a merge; `None` when it is gone.
    pub(crate) async fn record(&self, merge: &MergeName) -> Result<Option<MergeRecord>> {
        let object = merge.path(&self.name);
        let Some(size) = self.context.store.size(&object).await? else { return Ok(None) };
        let bytes = self.context.store.read_one(&object, 0..size).await?;
        let record: MergeRecord = serde_json::from_slice(&bytes)
            .map_err(|error| Error::damaged(&object, format!("it is no record of a merge: {error}")))?;
        let mut resolved = self.read(|log| log.merges.is_seen(merge.txid)).unwrap_or(false);
        if !resolved && self.context.store.size(&paths::seen(&self.name, merge.txid)).await?.is_some() {
            // Noted by another server.
            self.see(merge.txid);
            resolved = true;
        }
        Ok(Some(MergeRecord { resolved, ..record }))
    }

    /// Notes that somebody has seen what a merge could not keep. The store knows already.
    pub(crate) fn see(&self, txid: TxId) {
        self.write(|log| {
            if let Some(log) = log {
                log.merges.see(txid);
            }
        });
    }

    /// Every page that was written after `from` up to `to`.
    pub(crate) async fn pages_between(&self, from: TxId, to: TxId) -> Result<BTreeSet<PageNo>> {
        let files = self.read(|log| {
            let entries = log.after(from).iter().take_while(|entry| entry.txid <= to);
            entries.map(|entry| entry.file.clone()).collect::<Option<Vec<_>>>()
        });
        let files = files.flatten().unwrap_or_default();
        let mut pages = BTreeSet::new();
        for file in files {
            let index = file.index(&self.context.store, &self.name).await?;
            pages.extend(index.iter().map(|entry| entry.page));
        }
        Ok(pages)
    }

    /// The answer to a device whose state went into a merge: the pages in which the head differs from it.
    pub(super) async fn merged(
        self: &Arc<Self>,
        base: TxId,
        delta: Option<&Delta>,
        merge: MergeName,
    ) -> Result<Verdict, Refusal> {
        for _ in 0..super::decide::ATTEMPTS {
            let found = self.read(|log| Some((log.head().clone(), log.base(base)?.page_count)));
            let (head, before) = found.flatten().ok_or_else(|| lost(self))?;
            let own: &[(PageNo, PageHash)] = delta.map_or(&[], |delta| &delta.pages);
            let local_count = delta.map_or(before, |delta| delta.commit);
            let mut differ = self.pages_between(base, head.txid).await?;
            differ.extend(own.iter().map(|(page, _)| *page));
            differ.extend((local_count.0 + 1..=head.page_count.0).map(PageNo));
            differ.retain(|page| head.page_count.contains(*page));
            let same = self.head_hashes(own.iter().map(|(page, _)| *page)).await?;
            for (page, hash) in own.iter().filter(|(page, _)| local_count.contains(*page)) {
                if same
                    .binary_search_by_key(page, |(page, _)| *page)
                    .is_ok_and(|at| same.get(at) == Some(&(*page, *hash)))
                {
                    differ.remove(page);
                }
            }
            let Some(images) = self.images_of_head(head.txid, &differ) else { continue };
            let there = images.list.is_empty() && local_count == head.page_count;
            return Ok(Verdict {
                outcome: if there { Outcome::Pushed } else { Outcome::Merged },
                head,
                from: Some(base),
                send: (!there).then_some(images),
                merge: Some(merge),
            });
        }
        Err(Refusal::Busy)
    }
}

/// Why a merge that takes too much is refused.
fn too_much(what: Exceeded, limits: &Limits) -> CannotMerge {
    let reason = match what {
        Exceeded::Time => format!(
            "the merge takes longer than {} s: sync more often, or let the operator raise `timeouts.merge`",
            limits.merge_timeout.as_secs_f32()
        ),
        Exceeded::Memory => format!(
            "the merge takes more than {} MiB of memory: sync more often, or let the operator raise `limits.merge_memory`",
            limits.merge_memory >> 20
        ),
    };
    CannotMerge { object: None, reason }
}

/// The hashes of pages, read on a thread of its own.
async fn hashes(source: State, pages: Vec<PageNo>) -> Result<Vec<PageHash>> {
    blocking(move || {
        let mut data = Vec::new();
        let hash = |page: PageNo| {
            source.read(page, &mut data).map_err(Error::Run)?;
            Ok(page_hash(page, &data))
        };
        pages.into_iter().map(hash).collect()
    })
    .await
}

/// A part of the history that should be there is not.
fn lost(db: &Database) -> Refusal {
    Refusal::Failed(Error::damaged(&paths::pushes(&db.name), "a file of its history is not retained"))
}
