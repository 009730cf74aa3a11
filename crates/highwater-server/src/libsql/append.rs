//! From frames to a delta for the log: the last image of each page, from memory or, when they are many,
//! from the files of a branch into a file of the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use highwater_ltx::{Encoder, Generation, PageCount, PageEncoding, PageNo, StateHash};
use tokio::sync::mpsc;

use super::branch::Branch;
use super::frames::{Batch, FILLED, PAGE, PAGE_SIZE, Settled, SettledPage};
use super::{freelist, standing};
use crate::buffers::ChannelWriter;
use crate::log::{Database, Delta, DeltaImages, LIBSQL, Refusal, Staged, State, unencodable};
use crate::{Error, Result, paths, push, staging};

/// Pages that are read at once.
const CHUNK: usize = 256;

/// Where the pages of frames are.
pub(super) struct Source<'a> {
    /// The first of them.
    pub(super) branch: Option<&'a Branch>,
    /// How many of the frames since the fork are the branch's.
    pub(super) waiting: usize,
    pub(super) batch: &'a Batch,
    /// Which frame since the fork is the first of those that [`SettledPage::frame`] counts.
    pub(super) from: usize,
    /// What the frames are on top of, and how many pages it has; `None`: the head.
    pub(super) before: Option<(Arc<State>, PageCount)>,
}

impl Source<'_> {
    /// Reads pages, in order.
    async fn read(&self, db: &Database, pages: &[SettledPage]) -> Result<Vec<Bytes>> {
        let filled = Bytes::from_static(FILLED);
        let frame = |page: &SettledPage| page.frame.map(|frame| frame + self.from);
        let stored: Vec<usize> = pages.iter().filter_map(frame).filter(|at| *at < self.waiting).collect();
        let mut stored = match self.branch {
            Some(branch) if !stored.is_empty() => branch.read(&db.context.store, &stored).await?,
            _ => Vec::new(),
        }
        .into_iter();
        let carried: Vec<PageNo> =
            pages.iter().filter(|page| self.is_carried(page)).map(|page| page.page).collect();
        let mut carried = match &self.before {
            Some((state, _)) if !carried.is_empty() => standing::read(state, carried).await?,
            _ => Vec::new(),
        }
        .into_iter();
        let lost = || Error::damaged(&paths::pushes(&db.name), "a frame of a push is nowhere");
        let image = |page: &SettledPage| match frame(page) {
            None if self.is_carried(page) => carried.next().map(Bytes::from).ok_or_else(lost),
            None => Ok(filled.clone()),
            Some(at) if at < self.waiting => stored.next().ok_or_else(lost),
            Some(at) => {
                let start = (at - self.waiting) * PAGE;
                let end = start + PAGE;
                (end <= self.batch.pages.len()).then(|| self.batch.pages.slice(start..end)).ok_or_else(lost)
            }
        };
        pages.iter().map(image).collect()
    }

    /// Whether it is a page as it was before the frames.
    fn is_carried(&self, page: &SettledPage) -> bool {
        page.frame.is_none() && self.before.as_ref().is_some_and(|(_, count)| count.contains(page.page))
    }
}

/// The delta that these pages are, checked; what it leads to is computed. The caller has the turn.
pub(super) async fn delta(
    db: &Database,
    source: &Source<'_>,
    settled: &Settled,
    (generation, frames): (Generation, u64),
) -> Result<Delta, Refusal> {
    let mut delta = without_images(db, source, settled, frames).await?;
    delta.state = db.state_after(&delta).await?;
    take_images(db, source, settled, (Some(generation), &mut delta)).await?;
    Ok(delta)
}

/// The same for frames that are on top of [`Source::before`] and lead to that state.
pub(super) async fn delta_on(
    db: &Database,
    source: &Source<'_>,
    settled: &Settled,
    (frames, state): (u64, StateHash),
) -> Result<Delta, Refusal> {
    let mut delta = without_images(db, source, settled, frames).await?;
    delta.state = state;
    take_images(db, source, settled, (None, &mut delta)).await?;
    Ok(delta)
}

async fn without_images(
    db: &Database,
    source: &Source<'_>,
    settled: &Settled,
    frames: u64,
) -> Result<Delta, Refusal> {
    check_first_page(db, source, settled).await?;
    check_filled(db, source, settled).await?;
    let pages = settled.pages.iter().map(|page| (page.page, page.hash)).collect();
    let (commit, images) = (settled.commit, DeltaImages::Dropped);
    Ok(Delta { page_size: PAGE_SIZE, commit, state: StateHash(0), frames, pages, images })
}

async fn take_images(
    db: &Database,
    source: &Source<'_>,
    settled: &Settled,
    (counts_in, delta): (Option<Generation>, &mut Delta),
) -> Result<()> {
    delta.images = if settled.pages.len() * PAGE <= db.context.limits.in_memory_body() {
        DeltaImages::Memory(source.read(db, &settled.pages).await?.concat())
    } else {
        DeltaImages::Staged(stage(db, source, settled, (counts_in, delta)).await?)
    };
    Ok(())
}

async fn check_first_page(db: &Database, source: &Source<'_>, settled: &Settled) -> Result<(), Refusal> {
    let first = settled.pages.first().filter(|page| page.page.0 == 1 && !source.is_carried(page));
    let Some(first) = first else { return Ok(()) };
    let image = source.read(db, &[*first]).await?.concat();
    match push::page_fault(PageNo(1), &image, PAGE_SIZE) {
        _ if first.frame.is_none() => Err(another_database(PageNo(1))),
        Some(what) => Err(Refusal::Corrupt(what)),
        None => Ok(()),
    }
}

/// Pages without a frame must be free ones.
async fn check_filled(db: &Database, source: &Source<'_>, settled: &Settled) -> Result<(), Refusal> {
    let filled = settled.pages.iter().filter(|page| page.frame.is_none() && !source.is_carried(page));
    let mut missing: BTreeSet<PageNo> = filled.map(|page| page.page).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut next = freelist::first(&page(db, source, settled, PageNo(1)).await?);
    let mut seen = BTreeSet::new();
    while let Some(trunk) = next.filter(|trunk| !missing.is_empty() && seen.insert(*trunk)) {
        next = freelist::trunk(&page(db, source, settled, trunk).await?, &mut missing);
    }
    missing.first().map_or(Ok(()), |page| Err(another_database(*page)))
}

fn another_database(page: PageNo) -> Refusal {
    Refusal::Corrupt(format!(
        "the database grows, but no frame has page {page}: these frames continue another database, or the server lost what came before"
    ))
}

/// A page as it is after the frames.
async fn page(
    db: &Database,
    source: &Source<'_>,
    settled: &Settled,
    page: PageNo,
) -> Result<Vec<u8>, Refusal> {
    let found = settled.pages.binary_search_by_key(&page, |settled| settled.page);
    if let Some(page) = found.ok().and_then(|at| settled.pages.get(at)) {
        return Ok(source.read(db, &[*page]).await?.concat());
    }
    let what = || Refusal::Corrupt(format!("its freelist names page {page}, which does not exist"));
    match &source.before {
        None => db.head_page(page).await?.ok_or_else(what),
        Some((_, count)) if !count.contains(page) => Err(what()),
        Some((state, _)) => Ok(standing::read(state, vec![page]).await?.concat()),
    }
}

type Pages = Vec<(PageNo, Bytes)>;

/// Writes a file of the log that only waits for its name.
async fn stage(
    db: &Database,
    source: &Source<'_>,
    settled: &Settled,
    (counts_in, delta): (Option<Generation>, &Delta),
) -> Result<Staged> {
    let planned = db.next(counts_in);
    let header = planned.header(PAGE_SIZE, delta.commit, delta.frames, LIBSQL, delta.state);
    let path = paths::upload(&db.name, staging::unique());
    let (sender, mut chunks) = mpsc::channel::<Pages>(2);
    let feed = async {
        for chunk in settled.pages.chunks(CHUNK) {
            let images = source.read(db, chunk).await?;
            if sender.send(chunk.iter().map(|page| page.page).zip(images).collect()).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok::<_, Error>(())
    };
    let count = settled.pages.len();
    let fill = move |writer: ChannelWriter| {
        let mut encoder = Encoder::new(writer, header, PageEncoding::Lz4).map_err(unencodable)?;
        let mut left = count;
        while let Some(pages) = chunks.blocking_recv() {
            left -= pages.len();
            for (page, image) in pages {
                encoder.page(page, &image).map_err(unencodable)?;
            }
        }
        let (writer, finished) = encoder.finish().map_err(unencodable)?;
        if left == 0 {
            writer.finish().map_err(Error::Run)?;
        }
        Ok::<_, Error>(finished)
    };
    let (fed, written) = tokio::join!(feed, staging::write(&db.context, &path, fill));
    let staged = written.map(|finished| Staged {
        path: path.clone(),
        planned,
        index: finished.index,
        size: finished.bytes,
    });
    match fed {
        Ok(()) => staged,
        Err(error) => {
            db.context.store.remove(&path).await;
            Err(error)
        }
    }
}
