//! The LTX file in an answer: built in memory and compressed as a whole when it is small, streamed
//! when it is not.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use highwater_ltx::{Header, PageEncoding, TxId};
use tokio::sync::mpsc;

use crate::log::{Context, Entry, Images, blocking, snapshot_header};
use crate::share::Charged;
use crate::staging::{encode_batches, encoding_of};
use crate::{Error, Result, buffers};

/// Full buffers that may wait for the connection.
const DEPTH: usize = 4;
/// Level of compression: already far better than none, and not slower than a network.
const ZSTD_LEVEL: i32 = 1;
/// Below this many bytes, another thread would cost more than the work.
const INLINE: u64 = 64 << 10;

/// An answer that is streamed takes the memory of one of this size, in bytes: what is being read, and
/// the buffers that wait.
pub(crate) const STREAMED: u64 = 6 << 20;

/// A body.
pub(crate) struct LtxBody {
    pub(crate) body: Body,
    /// Whether it is compressed as a whole.
    pub(crate) zstd: bool,
    /// Its size in bytes, when known before it is sent.
    pub(crate) size: Option<u64>,
}

/// The header of the pages that lead from the position after `from` to `entry`; from nothing, a
/// snapshot.
pub(crate) fn header(entry: &Entry, images: &Images, from: Option<TxId>) -> Header {
    let snapshot = snapshot_header(entry, images);
    match from {
        Some(from) => Header { min_txid: from.next(), ..snapshot },
        None => snapshot,
    }
}

/// The file with this header and these pages, compressed if the client takes zstd.
pub(crate) async fn ltx_body(
    context: &Arc<Context>,
    header: Header,
    images: Images,
    zstd: bool,
) -> Result<LtxBody> {
    let charge = context.shares.outgoing.charge(context.limits.body_memory as u64);
    let file = if images.bytes() <= context.limits.in_memory_answer() as u64 {
        charge.cover(images.bytes()).await?;
        in_memory(context, header, images, zstd).await?
    } else {
        charge.cover(STREAMED).await?;
        LtxBody { body: streamed(context, header, images), zstd: false, size: None }
    };
    Ok(LtxBody { body: Charged::body(file.body, charge), ..file })
}

async fn in_memory(context: &Context, header: Header, images: Images, zstd: bool) -> Result<LtxBody> {
    let inline = images.bytes() <= INLINE;
    let images = Arc::new(images);
    let mut batches = images.read(&context.store).try_collect::<Vec<_>>().await?.into_iter();
    let encoding = if zstd { PageEncoding::Literal } else { encoding_of(&images) };
    let mut build = move || {
        let file = Vec::with_capacity(usize::try_from(images.bytes()).unwrap_or(0) + 1024);
        let (file, _) = encode_batches(file, header, encoding, &images, || batches.next().map(Ok))?;
        if zstd { zstd::bulk::compress(&file, ZSTD_LEVEL).map_err(Error::Run) } else { Ok(file) }
    };
    let file = if inline { build()? } else { blocking(build).await? };
    let size = Some(file.len() as u64);
    Ok(LtxBody { body: Body::from(file), zstd, size })
}

/// Reading, encoding and sending go on at the same time; a client that stops reading stops all.
fn streamed(context: &Arc<Context>, header: Header, images: Images) -> Body {
    let images = Arc::new(images);
    let (sender, mut batches) = mpsc::channel(2);
    let (source, store) = (Arc::clone(&images), context.store.clone());
    context.tasks.spawn(async move {
        let mut read = source.read(&store);
        while let Some(batch) = read.next().await {
            if sender.send(batch).await.is_err() {
                break;
            }
        }
    });
    let (writer, buffers) = buffers::channel(DEPTH, context.limits.idle_timeout);
    let encoding = encoding_of(&images);
    let db = images.db.clone();
    context.tasks.spawn_blocking(move || {
        let written = encode_batches(writer, header, encoding, &images, || batches.blocking_recv())
            .and_then(|(writer, _)| writer.finish().map_err(Error::Run));
        if let Err(error) = written {
            // The client sees the body end without its end, and asks again.
            tracing::warn!(%db, error = %crate::error::chain(&error), "an answer was cut short");
        }
    });
    let stream = futures::stream::unfold(buffers, async |mut buffers| {
        let buffer: io::Result<Bytes> = buffers.next().await?;
        Some((buffer, buffers))
    });
    Body::from_stream(stream)
}
