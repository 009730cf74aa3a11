//! Appending a push to the log.
//!
//! Steps, each safe to be the last one: the delta is checked against the head (its pages and the
//! ones they replace must give the state that it claims); its file is created under the name of
//! head+1, durably; memory takes it in; the client is told. A crash before the creation leaves
//! nothing, a crash after it leaves the push accepted, and the client's next sync finds out.

use std::sync::Arc;

use bytes::Bytes;
use highwater_ltx::{
    DeviceId, Encoder, FrameNo, Generation, Header, PageCount, PageEncoding, PageNo, PageSize, Position,
    StateHash, TxId, planted,
};
use highwater_pages::{StateSum, kill_point};

use super::decide::{Claim, Decision, Refusal};
use super::delta::{Delta, DeltaImages};
use super::entries::{Entry, Log};
use super::file::StoredFile;
use super::{Database, blocking};
use crate::store::Created;
use crate::{Error, paths};

/// Deltas up to this many bytes are encoded without another thread.
const INLINE: usize = 128 << 10;

/// Where a push would come to stand, as long as the head stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) txid: TxId,
    pub(crate) generation: Generation,
    pub(crate) first_frame: FrameNo,
    pub(crate) timestamp_ms: i64,
}

/// What to do with the rest of a large body whose header has arrived.
#[derive(Debug)]
pub(crate) enum Plan {
    /// It will be accepted unless something changes: write it as it comes.
    Write(Planned),
    /// It will not be appended: only check it.
    Check,
}

pub(crate) enum Appended {
    Done(Box<Entry>),
    /// Another server was faster.
    Lost,
}

impl Database {
    /// What to do with a large body of which only the header has arrived.
    pub(crate) async fn plan(
        &self,
        claim: Claim<'_>,
        change: (PageSize, StateHash),
    ) -> Result<Plan, Refusal> {
        self.refresh().await?;
        match self.foresee(claim, Some(change)) {
            Decision::Append | Decision::Merge { .. } => Ok(Plan::Write(self.next(None))),
            Decision::At { .. } | Decision::Merged { .. } => Ok(Plan::Check),
            Decision::Refuse(refusal) => Err(refusal),
        }
    }

    /// Where the next push comes to stand: of a libSQL client in the generation that it counts in, of others
    /// in the present one or a new one.
    pub(crate) fn next(&self, counts_in: Option<Generation>) -> Planned {
        let now = self.context.clock.since_1970().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let quiet = self.context.libsql.quiet_period.as_millis();
        let quiet = i64::try_from(quiet).unwrap_or(i64::MAX);
        self.read(|log| {
            let (generation, first_frame) = log.next_frame(counts_in, now, quiet);
            // A clock that was set back does not turn the history around.
            let timestamp_ms = now.max(log.head().timestamp_ms);
            Planned { txid: log.head().txid.next(), generation, first_frame, timestamp_ms }
        })
        .unwrap_or(Planned {
            txid: TxId::FIRST,
            generation: self.first_generation(),
            first_frame: FrameNo(1),
            timestamp_ms: now,
        })
    }

    /// Appends a delta to the head. The caller has the turn, decided that the base is the head, and made
    /// sure that the delta leads to the state that it says.
    pub(crate) async fn append(
        &self,
        delta: &mut Delta,
        device: DeviceId,
        counts_in: Option<Generation>,
    ) -> Result<Appended, Refusal> {
        self.append_at(delta, device, self.next(counts_in)).await
    }

    /// [`Database::append`], where [`Database::next`] said that it comes to stand.
    pub(super) async fn append_at(
        &self,
        delta: &mut Delta,
        device: DeviceId,
        next: Planned,
    ) -> Result<Appended, Refusal> {
        let planned = match &delta.images {
            DeltaImages::Memory(_) => next,
            DeltaImages::Staged(staged) if staged.planned.txid == next.txid => staged.planned,
            // The head was another when the body came, and is what the base says now.
            DeltaImages::Staged(_) | DeltaImages::Dropped => return Err(Refusal::Busy),
        };
        let object = paths::push(&self.name, planned.txid);
        let (created, index, size) = match std::mem::replace(&mut delta.images, DeltaImages::Dropped) {
            DeltaImages::Staged(staged) => {
                kill_point("server-push-before-publish");
                let created = self.context.store.publish(&staged.path, &object).await?;
                (created, staged.index, staged.size)
            }
            DeltaImages::Memory(images) => {
                let header = header(delta, planned, device);
                let pages: Vec<PageNo> = delta.pages.iter().map(|(page, _)| *page).collect();
                let encode = move || Ok((encode(header, &pages, &images)?, images));
                let (encoded, images) = if delta.pages.len() * delta.page_size.as_usize() > INLINE {
                    blocking(encode).await?
                } else {
                    encode()?
                };
                delta.images = DeltaImages::Memory(images);
                let (file, index) = encoded;
                let size = file.len() as u64;
                kill_point("server-push-before-put");
                let file = Bytes::from(file);
                let created = if planted("acknowledged-before-stored") {
                    let (store, object) = (self.context.store.clone(), object.clone());
                    self.context.tasks.spawn(async move { store.create(&object, file).await });
                    Created::Ours
                } else {
                    self.context.store.create(&object, file).await?
                };
                (created, index, size)
            }
            DeltaImages::Dropped => return Err(Refusal::Busy),
        };
        if created == Created::Lost {
            return Ok(Appended::Lost);
        }
        kill_point("server-push-after-put");
        if self.read(|log| log.head().position.generation < planned.generation) == Some(true) {
            self.context.metrics.generations.inc();
        }
        let frames = delta.frames;
        let entry = Entry {
            txid: planned.txid,
            position: planned.position(delta),
            page_count: delta.commit,
            timestamp_ms: planned.timestamp_ms,
            node_id: device.node_id(),
            frames: u32::try_from(frames).unwrap_or(u32::MAX),
            file: Some(Arc::new(StoredFile::new(false, planned.txid, size, index.clone()))),
        };
        self.write(|log| Log::append(log, delta.page_size, entry.clone(), &index, &delta.pages));
        kill_point("server-push-before-answer");
        Ok(Appended::Done(Box::new(entry)))
    }

    /// Whether the head and the delta give the state that the delta claims.
    pub(super) async fn check_state(&self, delta: &Delta) -> Result<(), Refusal> {
        let found = self.state_after(delta).await?;
        if found == delta.state || planted("push-not-verified") {
            kill_point("server-push-verified");
            Ok(())
        } else {
            Err(Refusal::Corrupt(format!(
                "the base and the pages of the body give the state {found}, but its header claims {}",
                delta.state
            )))
        }
    }

    /// The state that the head and the delta give.
    pub(crate) async fn state_after(&self, delta: &Delta) -> Result<StateHash, Refusal> {
        let before = self.read(|log| (log.sum(), log.head().page_count));
        let (mut sum, before) = before.unwrap_or((StateSum::EMPTY, PageCount(0)));
        if let Some(page) = delta.missing_growth(before) {
            return Err(Refusal::Corrupt(format!(
                "the database grows from {before} to {} pages, but page {page} is not in the body",
                delta.commit
            )));
        }
        let lock = delta.page_size.lock_page();
        let kept = delta.pages.iter().map(|(page, _)| *page).take_while(|page| page.0 <= before.0);
        let dropped = (delta.commit.0 + 1..=before.0).map(PageNo).filter(|page| *page != lock);
        let replaced: Vec<PageNo> = kept.chain(dropped).collect();
        let old = self.head_hashes(replaced.iter().copied()).await?;
        if old.len() != replaced.len() {
            let what = "a page of the head is in none of its files";
            return Err(Error::damaged(&paths::pushes(&self.name), what).into());
        }
        old.iter().for_each(|(_, hash)| sum.remove(*hash));
        delta.pages.iter().for_each(|(_, hash)| sum.add(*hash));
        Ok(sum.state(delta.commit, delta.page_size))
    }
}

/// The header of a delta's file in the log.
fn header(delta: &Delta, planned: Planned, device: DeviceId) -> Header {
    planned.header(delta.page_size, delta.commit, delta.frames, device, delta.state)
}

impl Planned {
    /// The position after a delta that comes to stand here.
    pub(super) fn position(self, delta: &Delta) -> Position {
        Position {
            generation: self.generation,
            frame: FrameNo(self.first_frame.0 + delta.frames - u64::from(!planted("frame-off-by-one"))),
            state: delta.state,
        }
    }

    /// The header of a push that comes to stand here.
    pub(crate) fn header(
        self,
        page_size: PageSize,
        commit: PageCount,
        frames: u64,
        device: DeviceId,
        state: StateHash,
    ) -> Header {
        Header::new_push(
            page_size,
            commit,
            self.txid,
            self.timestamp_ms,
            self.generation,
            self.first_frame,
            frames,
            device,
            state,
        )
    }
}

pub(super) fn encode(
    header: Header,
    pages: &[PageNo],
    images: &[u8],
) -> crate::Result<(Vec<u8>, highwater_ltx::PageIndex)> {
    let mut encoder = Encoder::new(Vec::with_capacity(images.len() / 2 + 1024), header, PageEncoding::Lz4)
        .map_err(unencodable)?;
    for (page, image) in pages.iter().zip(images.chunks_exact(header.page_size.as_usize())) {
        encoder.page(*page, image).map_err(unencodable)?;
    }
    let (file, finished) = encoder.finish().map_err(unencodable)?;
    Ok((file, finished.index))
}

/// A file that cannot be written although everything in it was checked.
pub(crate) fn unencodable(error: highwater_ltx::Error) -> Error {
    Error::Run(std::io::Error::other(error))
}
