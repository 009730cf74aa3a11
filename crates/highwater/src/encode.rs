//! From a delta to the body of a push.
//!
//! Small bodies are made whole in memory: pages as LZ4 literals, and zstd over all of them, which
//! compresses far better than page by page. Large ones are produced while they are sent ([`chunks`]),
//! so that memory does not grow with the database; whether zstd pays is then tried on a sample first.
//!
//! [`chunks`]: crate::chunks

use std::io::{self, Write};

use bytes::Bytes;
use highwater_ltx::{DeviceId, Encoder, FrameNo, Generation, Header, PageEncoding, PageNo, TxId};
use highwater_pages::{Delta, Snapshot};
use tokio::sync::mpsc;

use crate::chunks::ChunkSender;
use crate::error::{Error, Result};

/// Bodies with up to this many bytes of pages are made whole in memory.
const WHOLE_BYTES: u64 = 32 << 20;
/// Below this, a better level costs nothing that anyone could notice.
const THOROUGH_BYTES: u64 = 4 << 20;
const THOROUGH_LEVEL: i32 = 3;
const FAST_LEVEL: i32 = 1;
/// Pages of a large body that are compressed to see whether it pays.
const SAMPLE_PAGES: usize = 64;
/// A body that compresses to more than this share (in percent) is sent as it is.
const WORTHWHILE_PERCENT: usize = 85;

/// How a body will be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whether it is made in memory before it is sent.
    pub(crate) whole: bool,
    /// Whether it is compressed as a whole, and how hard.
    pub(crate) zstd: Option<i32>,
}

impl Plan {
    /// Chooses for this delta.
    pub(crate) fn of(delta: &Delta, snapshot: &Snapshot<'_>) -> Result<Self> {
        let bytes = delta.changed.len() as u64 * u64::from(delta.page_size.get());
        if bytes <= WHOLE_BYTES {
            let level = if bytes <= THOROUGH_BYTES { THOROUGH_LEVEL } else { FAST_LEVEL };
            return Ok(Self { whole: true, zstd: Some(level) });
        }
        let mut sample = Vec::new();
        let mut page = Vec::new();
        let step = (delta.changed.len() / SAMPLE_PAGES).max(1);
        for (number, _) in delta.changed.iter().step_by(step) {
            snapshot.read(*number, &mut page)?;
            sample.extend_from_slice(&page);
        }
        let packed = zstd::bulk::compress(&sample, FAST_LEVEL).map_or(usize::MAX, |packed| packed.len());
        let pays = packed.saturating_mul(100) <= sample.len() * WORTHWHILE_PERCENT;
        Ok(Self { whole: false, zstd: pays.then_some(FAST_LEVEL) })
    }
}

/// The header of a push's body. The server makes its own, and takes from this one the sizes and
/// the state.
pub(crate) fn header(delta: &Delta, device: DeviceId, base: Option<TxId>) -> Header {
    Header::new_push(
        delta.page_size,
        delta.page_count,
        base.map_or(TxId::FIRST, TxId::next),
        0,
        Generation::FIRST,
        FrameNo(1),
        delta.changed.len() as u64,
        device,
        delta.state,
    )
}

/// Makes the whole body in memory.
pub(crate) fn whole(delta: &Delta, snapshot: &Snapshot<'_>, header: Header, plan: Plan) -> Result<Bytes> {
    let mut out = Vec::new();
    encode(delta, snapshot, header, plan, &mut out)?;
    Ok(Bytes::from(out))
}

/// Produces the body into a channel from which it is sent, and returns its bytes. Ends early, and without an error, when
/// nobody receives any more: then the answer says why.
pub(crate) fn stream(
    delta: &Delta,
    snapshot: &Snapshot<'_>,
    header: Header,
    plan: Plan,
    chunks: mpsc::Sender<Bytes>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64> {
    let total = delta.changed.len() as u64 * u64::from(delta.page_size.get());
    let mut report = |done: u64| progress(done.min(total), total);
    let mut sender = ChunkSender::new(chunks, plan.zstd, &mut report).map_err(|error| stopped(&error))?;
    match write_pages(delta, snapshot, header, PageEncoding::Literal, &mut sender) {
        Ok(_) => {
            // Nobody receiving any more is not this side's failure either.
            let _ = sender.send();
        }
        Err(Error::Stopped) => {}
        Err(error) => return Err(error),
    }
    Ok(sender.sent())
}

fn encode(
    delta: &Delta,
    snapshot: &Snapshot<'_>,
    header: Header,
    plan: Plan,
    out: &mut dyn Write,
) -> Result<()> {
    let Some(level) = plan.zstd else {
        return write_pages(delta, snapshot, header, PageEncoding::Literal, out).map(drop);
    };
    let mut packer = zstd::stream::write::Encoder::new(out, level).map_err(|error| stopped(&error))?;
    // Both sides agree on the largest window; these levels stay below it by themselves.
    write_pages(delta, snapshot, header, PageEncoding::Literal, &mut packer)?;
    packer.finish().map(drop).map_err(|error| stopped(&error))
}

fn write_pages<W: Write>(
    delta: &Delta,
    snapshot: &Snapshot<'_>,
    header: Header,
    encoding: PageEncoding,
    out: W,
) -> Result<W> {
    let mut encoder = Encoder::new(out, header, encoding).map_err(refused)?;
    if let Some(pages) = delta.kept_pages() {
        for (page, data) in pages {
            encoder.page(page, data).map_err(refused)?;
        }
    } else {
        let mut data = Vec::new();
        for page in delta.changed.iter().map(|(page, _)| *page) {
            read(snapshot, page, &mut data)?;
            encoder.page(page, &data).map_err(refused)?;
        }
    }
    Ok(encoder.finish().map_err(refused)?.0)
}

fn read(snapshot: &Snapshot<'_>, page: PageNo, into: &mut Vec<u8>) -> Result<()> {
    Ok(snapshot.read(page, into)?)
}

/// The encoder fails only when its writer does, and that one only when nobody receives any more.
fn refused(error: highwater_ltx::Error) -> Error {
    tracing::debug!(%error, "encoding a push ended early");
    Error::Stopped
}

fn stopped(error: &io::Error) -> Error {
    tracing::debug!(%error, "compressing a push ended early");
    Error::Stopped
}
