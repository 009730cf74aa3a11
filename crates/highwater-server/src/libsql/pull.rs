//! `GET /DB/sync/G/START/END` and `GET /DB/export/G`: what a client lacks.
//!
//! A pull is answered with whole pushes, each as one transaction with as many frames as it has numbers:
//! pages in ascending order, and fillers in front of them where the client that pushed wrote pages more
//! than once. At the end of a generation the client is told the newest one, and goes to the next.
//!
//! No page comes twice in a transaction. SQLite writes a page that its transaction wrote before over the
//! earlier frame, so the client's log would have fewer frames than it counts, and what it writes next
//! would never be pushed. A filler is therefore a page of zeros behind the end of the database, each
//! another one: SQLite neither reads nor checkpoints it. Should the database grow to
//! there by a page that is never written, that page is a free one, which nobody reads.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use highwater_ltx::{FrameNo, Generation, PageCount, PageNo, Place};

use super::branch::Branches;
use super::compare::{Compared, begins_next, compare, is_boundary, pages_at, push_images};
use super::frames::{FRAME, PAGE, PAGE_SIZE, filled_hash, header};
use super::ground::{self, Ground};
use super::is_private;
use super::{catch_up, heal, standing};
use crate::log::{Database, Entry, Images, Refusal, State};
use crate::store::Store;
use crate::{Error, Result};

/// Further pushes are left for the next request when an answer has so many bytes.
const ENOUGH: u64 = 4 << 20;

/// Fillers that are made at once.
const BLOCK: usize = 64;

/// The answer to a pull.
#[derive(Debug)]
pub(crate) enum Pull {
    /// Frames: how many, and the bytes.
    Frames(u64, Body),
    /// There is nothing more in this generation; the newest one is this.
    End(Generation),
    /// The server cannot tell what this client has.
    Unproven(Place),
}

/// The image of a database at the beginning of a generation.
#[derive(Debug)]
pub(crate) struct Export {
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) body: Body,
}

/// The generation that a new client begins with.
pub(crate) async fn newest(db: &Database) -> Result<Generation> {
    db.refresh().await?;
    let begun =
        db.read(|log| begins_next(log).map_or(log.head().position.generation, |next| next.generation));
    Ok(begun.unwrap_or_else(|| db.first_generation()))
}

/// Answers a pull of the frames from `first` on.
pub(crate) async fn pull(
    db: &Arc<Database>,
    generation: Generation,
    first: FrameNo,
) -> Result<Pull, Refusal> {
    db.refresh().await?;
    let at = Place { generation, frame: FrameNo(first.0.saturating_sub(1)) };
    let Some((page_size, newest)) = db.read(|log| (log.page_size, log.head().position.generation)) else {
        let start = Place { generation: db.first_generation(), frame: FrameNo(0) };
        return Ok(if at == start { Pull::End(start.generation) } else { Pull::Unproven(at) });
    };
    if page_size != PAGE_SIZE {
        return Err(Refusal::WrongPageSize { database: page_size, sent: PAGE_SIZE });
    }
    let place = match ground::at(db, at).await? {
        Ground::Detour(node) => return catch_up::pull(db, *node).await,
        Ground::Branch(branch) => match in_log(db, at).await? {
            Some(place) => Some(place),
            None => match heal::finish(db, &branch, at).await? {
                Some(node) => return catch_up::pull(db, node).await,
                None => None,
            },
        },
        Ground::Log(place) => Some(place),
        Ground::Unknown | Ground::Unproven => None,
    };
    let Some(place) = place.filter(|place| db.read(|log| is_boundary(log, *place)) == Some(true)) else {
        return Ok(Pull::Unproven(at));
    };
    let mut entries = db.read(|log| pushes_after(log, place)).unwrap_or_default();
    if entries.is_empty() {
        // A branch is not followed by the generation that its number is followed by.
        let end = if is_private(generation) { generation } else { newest };
        return Ok(Pull::End(end));
    }
    let frames = first_of(&mut entries, |(entry, _)| entry.frames.into());
    let mut parts = Vec::with_capacity(entries.len());
    for (entry, before) in entries {
        parts.push(Part::of(db, entry, before).await?);
    }
    Ok(Pull::Frames(frames, body(db, parts, Part::chunk)))
}

/// Leaves so many transactions as are worth an answer; their frames.
pub(super) fn first_of<T>(transactions: &mut Vec<T>, count: impl Fn(&T) -> u64) -> u64 {
    let mut frames = 0;
    transactions.retain(|transaction| {
        let wanted = frames * (FRAME as u64) < ENOUGH;
        frames += if wanted { count(transaction) } else { 0 };
        wanted
    });
    frames
}

/// The pushes after a place in its generation, and the size of the database before each.
fn pushes_after(log: &crate::log::Log, at: Place) -> Vec<(Entry, PageCount)> {
    let mut before = pages_at(log, at);
    let entries = log.of_generation(at.generation).iter().filter(|entry| entry.position.frame > at.frame);
    entries.map(|entry| (entry.clone(), std::mem::replace(&mut before, entry.page_count))).collect()
}

/// The place of the log that a frame of a branch is, if everything up to it was taken in.
async fn in_log(db: &Database, at: Place) -> Result<Option<Place>> {
    let Some(branch) = Branches::find(db, at.generation).await? else { return Ok(None) };
    let branch = branch.lock().await;
    let count = usize::try_from(at.frame.0.saturating_sub(branch.before().0)).unwrap_or(usize::MAX);
    let (Some(fork), Some(heads)) = (branch.fork, branch.heads.get(..count)) else { return Ok(None) };
    Ok(match compare(db, fork, heads).await? {
        Compared::Known { at, known } if known == count => Some(at),
        _ => None,
    })
}

/// One push as frames.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) images: Pages,
    /// After it.
    pub(super) pages: PageCount,
    /// How many fillers come before all of them.
    pub(super) fillers: u64,
}

/// Where the pages of a transaction are.
#[derive(Debug, Clone)]
pub(super) enum Pages {
    /// In files of the log.
    Stored(Arc<Images>),
    /// In a state of the history.
    Of(Arc<State>, Arc<Vec<PageNo>>),
}

impl Pages {
    fn last(&self) -> Option<PageNo> {
        match self {
            Self::Stored(images) => images.list.last().map(|image| image.page),
            Self::Of(_, pages) => pages.last().copied(),
        }
    }

    /// Reads them in order, some at a time, and gives each to `take`.
    fn read(
        &self,
        store: &Store,
        take: impl Fn(PageNo, &[u8], &mut BytesMut) + Send + Clone + 'static,
    ) -> BoxStream<'static, Result<Bytes>> {
        match self {
            Self::Stored(images) => {
                let found = Arc::clone(images);
                let batches = images.read(store).map(move |batch| {
                    let (batch, mut out) = (batch?, BytesMut::new());
                    found.decode::<Error>(&batch, &mut Vec::new(), |image, data| {
                        take(image.page, data, &mut out);
                        Ok(())
                    })?;
                    Ok(out.freeze())
                });
                batches.boxed()
            }
            Self::Of(state, pages) => {
                let chunks: Vec<Vec<PageNo>> = pages.chunks(BLOCK).map(<[PageNo]>::to_vec).collect();
                let state = Arc::clone(state);
                let blocks = futures::stream::iter(chunks).then(move |chunk| {
                    let (state, take) = (Arc::clone(&state), take.clone());
                    async move {
                        let (images, mut out) =
                            (standing::read(&state, chunk.clone()).await?, BytesMut::new());
                        chunk.iter().zip(&images).for_each(|(page, data)| take(*page, data, &mut out));
                        Ok(out.freeze())
                    }
                });
                blocks.boxed()
            }
        }
    }
}

impl Part {
    async fn of(db: &Database, entry: Entry, before: PageCount) -> Result<Self> {
        let missing =
            || Error::damaged(&crate::paths::pushes(&db.name), "a push of its history is not retained");
        let mut images = push_images(db, &entry).await?.ok_or_else(missing)?;
        let frames = u64::from(entry.frames);
        let excess = (images.list.len() as u64).saturating_sub(frames);
        if excess > 0 {
            images = without_filled(db, images, before, excess).await?;
        }
        let fillers = frames.saturating_sub(images.list.len() as u64);
        Ok(Self { images: Pages::Stored(Arc::new(images)), pages: entry.page_count, fillers })
    }

    /// The page of a filler, counted from 0.
    fn filler(&self, nth: u64) -> PageNo {
        let (after, lock) = (u64::from(self.pages.0) + 1 + nth, u64::from(PAGE_SIZE.lock_page().0));
        let skips = u64::from(u64::from(self.pages.0) < lock && after >= lock);
        // 2^32 pages are 16 TiB, far more than a push may bring.
        PageNo(u32::try_from(after + skips).unwrap_or(u32::MAX))
    }

    /// The fillers, in blocks.
    fn filled(&self) -> impl Iterator<Item = Bytes> + use<> {
        let part = Self { images: self.images.clone(), ..*self };
        (0..self.fillers).step_by(BLOCK).map(move |first| {
            let numbers = first..part.fillers.min(first + BLOCK as u64);
            let mut block = BytesMut::zeroed(numbers.clone().count() * FRAME);
            for (frame, nth) in block.chunks_exact_mut(FRAME).zip(numbers) {
                let header = header(part.filler(nth), PageCount(0));
                frame.iter_mut().zip(header).for_each(|(to, from)| *to = from);
            }
            block.freeze()
        })
    }

    /// One page of the push, as what is sent of it.
    pub(super) fn chunk(&self, page: PageNo, data: &[u8], out: &mut BytesMut) {
        let last = self.images.last() == Some(page);
        out.extend_from_slice(&header(page, if last { self.pages } else { PageCount(0) }));
        out.extend_from_slice(data);
    }
}

/// Leaves out pages that no frame had when they were pushed: nobody reads them.
async fn without_filled(db: &Database, images: Images, before: PageCount, mut excess: u64) -> Result<Images> {
    let images = Arc::new(images);
    let hashes = images.hashes(&db.context.store).await?;
    let mut list = Vec::with_capacity(images.list.len());
    for (image, hash) in hashes {
        if excess > 0 && image.page.0 > before.0 && hash == filled_hash(image.page) {
            excess -= 1;
        } else {
            list.push(image);
        }
    }
    if excess > 0 {
        let what = "it has more pages than frames";
        return Err(Error::damaged(&crate::paths::pushes(&db.name), what));
    }
    Ok(Images { db: images.db.clone(), page_size: images.page_size, files: images.files.clone(), list })
}

/// Answers with the database as it was when the generation began; `None` when that is not known.
pub(crate) async fn export(db: &Arc<Database>, generation: Generation) -> Result<Option<Export>, Refusal> {
    db.refresh().await?;
    let empty = || Some(Export { size: 0, body: Body::empty() });
    let start = Place { generation, frame: FrameNo(0) };
    let found =
        db.read(|log| (log.page_size, is_boundary(log, start), log.at(start).map(|entry| entry.txid)));
    let Some((page_size, begins, before)) = found else {
        return Ok(if generation == db.first_generation() { empty() } else { None });
    };
    if page_size != PAGE_SIZE {
        return Err(Refusal::WrongPageSize { database: page_size, sent: PAGE_SIZE });
    }
    if !begins {
        return Ok(None);
    }
    let Some(before) = before else { return Ok(empty()) };
    let Some((entry, images)) = db.images_at(before).await? else { return Ok(None) };
    let size = entry.page_count.bytes(PAGE_SIZE);
    let images = Pages::Stored(Arc::new(images));
    let part = Part { images, pages: entry.page_count, fillers: 0 };
    let image = |part: &Part, page: PageNo, data: &[u8], out: &mut BytesMut| {
        out.extend_from_slice(data);
        if page.0 + 1 == PAGE_SIZE.lock_page().0 && page.0 < part.pages.0 {
            // The page that holds SQLite's locks has a place in a file, and no image.
            out.extend_from_slice(&[0; PAGE]);
        }
    };
    Ok(Some(Export { size, body: body(db, vec![part], image) }))
}

/// A body that reads pages while they are sent.
pub(super) fn body(
    db: &Arc<Database>,
    parts: Vec<Part>,
    write: impl Fn(&Part, PageNo, &[u8], &mut BytesMut) + Send + Copy + 'static,
) -> Body {
    let store = db.context.store.clone();
    let stream = futures::stream::iter(parts).flat_map(move |part| {
        let part = Arc::new(part);
        let fillers = futures::stream::iter(part.filled().map(Ok));
        let of = Arc::clone(&part);
        let images = part.images.read(&store, move |page, data, out| write(&of, page, data, out));
        fillers.chain(images)
    });
    let name = db.name.clone();
    let told = move |result: &Result<Bytes>| {
        if let Err(error) = result {
            // The client sees the body end too early, and asks again.
            tracing::warn!(db = %name, error = %crate::error::chain(error), "an answer was cut short");
        }
    };
    Body::from_stream(stream.inspect(told))
}
