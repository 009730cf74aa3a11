//! Reading the LTX file in a push.

use std::io::Read;
use std::sync::Arc;

use axum::body::Body;
use highwater_ltx::{Decoder, Encoder, Header, PageEncoding, PageNo};
use highwater_pages::{PageHash, kill_point, page_hash};
use highwater_wire::ZSTD_WINDOW_LOG_MAX;
use tokio::runtime::Handle;

use super::body::{BodyFault, Limited};
use super::check::{header_fault, page_fault};
use super::{Encoding, Incoming};
use crate::buffers::ChannelWriter;
use crate::http_api::Announced;
use crate::log::{Claim, Database, Delta, DeltaImages, Plan, Planned, Refusal, Staged};
use crate::share::Charge;
use crate::{Error, Limits, paths, staging};

/// How many pages at the beginning of a body are tried out to see whether LZ4 shrinks them.
const SAMPLE: usize = 64;
/// Bodies up to this many bytes are decoded without another thread.
const INLINE: usize = 32 << 10;

/// Why a body is not a delta.
#[derive(Debug)]
pub(crate) enum PushError {
    /// It has too many bytes.
    TooLarge { limit: u64 },
    /// It stopped arriving, or the connection broke. Nobody may be there to read an answer.
    Gone(String),
    /// It is not the one that was sent.
    Damaged,
    /// The database refuses it.
    Refused(Refusal),
}

impl From<Refusal> for PushError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for PushError {
    fn from(error: Error) -> Self {
        Self::Refused(Refusal::Failed(error))
    }
}

impl From<BodyFault> for PushError {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge(limit) => Self::TooLarge { limit },
            BodyFault::Idle(_) | BodyFault::Broken => Self::Gone(fault.to_string()),
        }
    }
}

impl From<highwater_ltx::Error> for PushError {
    /// Of reading the body: whatever is wrong is wrong with it.
    fn from(error: highwater_ltx::Error) -> Self {
        if let highwater_ltx::Error::Io(io) = &error
            && let Some(fault) = io.get_ref().and_then(|inner| inner.downcast_ref::<BodyFault>())
        {
            return fault.clone().into();
        }
        corrupt(crate::error::chain(&error))
    }
}

fn corrupt(what: impl Into<String>) -> PushError {
    PushError::Refused(Refusal::Corrupt(what.into()))
}

type BodyDecoder = Decoder<Box<dyn Read + Send>>;

/// Receives the delta of a push to `db`; `None` when the body is empty. `charge` is what its memory is
/// taken from.
pub(crate) async fn receive(
    db: &Arc<Database>,
    body: Body,
    (encoding, announced): (Encoding, Announced),
    claim: Claim<'_>,
    charge: &Charge,
) -> Result<Option<Delta>, PushError> {
    let limits = &db.context.limits;
    let incoming = Incoming::begin(body, limits.idle_timeout, &db.context.tasks).await?;
    if !incoming.can_be(announced) {
        return Err(PushError::Damaged);
    }
    if incoming.is_empty() {
        return Ok(None);
    }
    kill_point("server-push-receiving");
    let small = incoming.in_memory().filter(|size| *size <= INLINE && encoding == Encoding::Identity);
    // Only a thread of its own may wait for memory.
    let runtime = small.is_none().then(Handle::current);
    let begin = {
        let (limits, charge) = (limits.clone(), charge.clone());
        move || begin(incoming, encoding, &limits, (&charge, runtime.as_ref()))
    };
    let begun = if small.is_some() { begin()? } else { blocking(begin).await? };
    let decoder = match begun {
        Begun::Whole(delta) => return Ok(Some(*delta)),
        Begun::Large(decoder) => decoder,
    };
    large(db, *decoder, claim).await.map(Some)
}

enum Begun {
    Whole(Box<Delta>),
    Large(Box<BodyDecoder>),
}

/// Reads the header, and everything else as well if it is not too much for memory.
fn begin(
    incoming: Incoming,
    encoding: Encoding,
    limits: &Limits,
    (charge, runtime): (&Charge, Option<&Handle>),
) -> Result<Begun, PushError> {
    let reader: Box<dyn Read + Send> = match encoding {
        Encoding::Identity => Box::new(Limited::new(incoming, limits.push_bytes)),
        Encoding::Zstd => {
            let incoming = Limited::new(incoming, limits.push_bytes);
            let mut zstd = zstd::Decoder::new(incoming).map_err(highwater_ltx::Error::Io)?;
            zstd.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(highwater_ltx::Error::Io)?;
            Box::new(Limited::new(zstd, limits.push_bytes))
        }
    };
    let decoder = Decoder::new(reader)?;
    let header = *decoder.header();
    if let Some(what) = header_fault(&header) {
        return Err(corrupt(what));
    }
    let size = u64::from(header.page_size.get());
    let bytes = announced(&header).map(|pages| pages.saturating_mul(size));
    if bytes.is_some_and(|bytes| bytes > limits.in_memory_body() as u64) {
        charge.cover_now(u64::MAX, runtime)?;
        return Ok(Begun::Large(Box::new(decoder)));
    }
    charge.cover_now(bytes.unwrap_or(0), runtime)?;
    let cover = |bytes: usize| charge.cover_now(bytes as u64, runtime);
    small(decoder, limits.in_memory_body(), cover).map(|delta| Begun::Whole(Box::new(delta)))
}

/// How many pages a body says it has: all of the database, or as many as the frames in its header.
fn announced(header: &Header) -> Option<u64> {
    if header.is_snapshot() {
        return Some(u64::from(header.commit.data_page_count(header.page_size)));
    }
    let frame = header.page_size.frame_size();
    (header.wal_size > 0 && header.wal_size.is_multiple_of(frame)).then(|| header.wal_size / frame)
}

/// Reads all pages into memory, of which `cover` gets as much as is needed.
fn small(
    mut decoder: BodyDecoder,
    most: usize,
    cover: impl Fn(usize) -> crate::Result<()>,
) -> Result<Delta, PushError> {
    let header = *decoder.header();
    let (mut pages, mut images, mut page) = (Vec::new(), Vec::new(), Vec::new());
    while let Some((number, hash)) = next(&mut decoder, &mut page)? {
        if images.len() + page.len() > most {
            return Err(corrupt(format!(
                "it has more pages than its header announces (WALSize); bodies of more than {most} bytes must say how many come"
            )));
        }
        cover(images.len() + page.len())?;
        pages.push((number, hash));
        images.extend_from_slice(&page);
    }
    Ok(delta(&header, pages, DeltaImages::Memory(images)))
}

/// The next page, checked and hashed.
fn next(decoder: &mut BodyDecoder, page: &mut Vec<u8>) -> Result<Option<(PageNo, PageHash)>, PushError> {
    let Some(number) = decoder.next_page(page)? else { return Ok(None) };
    match page_fault(number, page, decoder.header().page_size) {
        Some(what) => Err(corrupt(what)),
        None => Ok(Some((number, page_hash(number, page)))),
    }
}

fn delta(header: &Header, pages: Vec<(PageNo, PageHash)>, images: DeltaImages) -> Delta {
    Delta {
        page_size: header.page_size,
        commit: header.commit,
        // Its absence is a fault that was found before.
        state: header.state.unwrap_or(highwater_ltx::StateHash(0)),
        frames: pages.len() as u64,
        pages,
        images,
    }
}

/// Reads a body that is too large for memory: into a file of the store if it has a chance to be
/// accepted, else only to check it.
async fn large(db: &Arc<Database>, decoder: BodyDecoder, claim: Claim<'_>) -> Result<Delta, PushError> {
    let header = *decoder.header();
    let pages = announced(&header).unwrap_or(0);
    let state = delta(&header, Vec::new(), DeltaImages::Dropped).state;
    match db.plan(claim, (header.page_size, state)).await? {
        Plan::Check => blocking(move || check_only(decoder)).await,
        Plan::Write(planned) => {
            let ours = planned.header(header.page_size, header.commit, pages, claim.device, state);
            let path = paths::upload(&db.name, staging::unique());
            let written = staging::write(&db.context, &path, move |writer| {
                transcode(decoder, writer, ours, pages).map(|(pages, finished)| (pages, finished, planned))
            })
            .await?;
            let (pages, finished, planned): (_, highwater_ltx::Finished, Planned) = written;
            let staged = Staged { path, planned, index: finished.index, size: finished.bytes };
            Ok(delta(&header, pages, DeltaImages::Staged(staged)))
        }
    }
}

fn check_only(mut decoder: BodyDecoder) -> Result<Delta, PushError> {
    let header = *decoder.header();
    let (mut pages, mut page) = (Vec::new(), Vec::new());
    while let Some(found) = next(&mut decoder, &mut page)? {
        pages.push(found);
    }
    Ok(delta(&header, pages, DeltaImages::Dropped))
}

type Transcoded = (Vec<(PageNo, PageHash)>, highwater_ltx::Finished);

/// Reads pages and writes them again, under the server's header.
fn transcode(
    mut decoder: BodyDecoder,
    writer: ChannelWriter,
    header: Header,
    announced: u64,
) -> Result<Transcoded, PushError> {
    let mut pages = Vec::with_capacity(usize::try_from(announced.min(1 << 18)).unwrap_or(0));
    let mut page = Vec::new();
    // The first pages wait until they have shown whether LZ4 is worth its time.
    let mut sample = Vec::new();
    while sample.len() < SAMPLE {
        let Some(found) = next(&mut decoder, &mut page)? else { break };
        pages.push(found);
        sample.push(page.clone());
    }
    let mut encoder = Encoder::new(writer, header, worthwhile(&sample)).map_err(written)?;
    for ((number, _), page) in pages.iter().zip(&sample) {
        encoder.page(*number, page).map_err(written)?;
    }
    drop(sample);
    while let Some((number, hash)) = next(&mut decoder, &mut page)? {
        pages.push((number, hash));
        if pages.len() as u64 > announced {
            break;
        }
        encoder.page(number, &page).map_err(written)?;
    }
    if pages.len() as u64 != announced {
        return Err(corrupt(format!(
            "its header announces {announced} pages (WALSize), but another number came"
        )));
    }
    let (writer, finished) = encoder.finish().map_err(written)?;
    writer.finish().map_err(|error| PushError::from(Error::Run(error)))?;
    kill_point("server-push-transcoded");
    Ok((pages, finished))
}

/// Whether LZ4 makes these pages smaller.
fn worthwhile(sample: &[Vec<u8>]) -> PageEncoding {
    let bytes: usize = sample.iter().map(Vec::len).sum();
    let small: usize = sample.iter().map(|page| lz4_flex::block::compress(page).len()).sum();
    if small < bytes / 100 * 95 { PageEncoding::Lz4 } else { PageEncoding::Literal }
}

/// An error of writing is never the body's fault.
fn written(error: highwater_ltx::Error) -> PushError {
    match error {
        highwater_ltx::Error::Io(error) => Error::Run(error).into(),
        // The pages come in an order that the decoder accepted for the same kind of file.
        other => corrupt(crate::error::chain(&other)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PushError> + Send + 'static,
) -> Result<T, PushError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Run(std::io::Error::other(error)).into()))
}
