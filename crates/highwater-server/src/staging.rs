//! Writing a file of the log without holding it in memory: a thread encodes it page by page, and
//! what comes out is stored in parts under a name of its own.

use std::io;
use std::sync::Arc;

use futures::StreamExt;
use highwater_ltx::{Encoder, Finished, Header, PageEncoding};
use highwater_pages::kill_point;
use object_store::PutPayload;
use object_store::path::Path;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::buffers::{self, Buffers, ChannelWriter};
use crate::log::{Context, Images};
use crate::metrics::StoreOp;
use crate::{Error, Result};

/// How many full buffers may wait between the thread that fills them and the one that stores them.
const DEPTH: usize = 4;
/// Buffers in a part: stores in the cloud want parts of at least 5 MiB.
const PART: usize = 8;
/// Parts on their way at once.
const IN_FLIGHT: usize = 2;

/// A name for an upload that nobody else chooses.
pub(crate) fn unique() -> u128 {
    let mut bytes = [0; 16];
    // Without the system's randomness, time and place still tell uploads apart.
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        return now.as_nanos() ^ (u128::from(std::process::id()) << 96);
    }
    u128::from_be_bytes(bytes)
}

/// Stores what comes out of the channel. When its writer did not finish, nothing is stored and `false` is
/// returned: the writer knows why.
pub(crate) async fn store_parts(context: &Context, upload: &Path, mut buffers: Buffers) -> Result<bool> {
    let mut object = context.store.upload(upload).await?;
    kill_point("server-upload-begun");
    let mut parts: JoinSet<object_store::Result<()>> = JoinSet::new();
    let outcome = async {
        let mut ended = false;
        while !ended {
            let mut part = Vec::with_capacity(PART);
            while part.len() < PART && !ended {
                match buffers.next().await {
                    Some(Ok(buffer)) => part.push(buffer),
                    Some(Err(_)) => return Ok(false),
                    None => ended = true,
                }
            }
            if part.is_empty() {
                continue;
            }
            while parts.len() >= IN_FLIGHT {
                next(&mut parts).await?;
            }
            let part = object.put_part(part.into_iter().collect::<PutPayload>());
            let store = context.store.clone();
            parts.spawn(async move { store.measured(StoreOp::Upload, part).await });
        }
        while !parts.is_empty() {
            next(&mut parts).await?;
        }
        Ok(true)
    }
    .await;
    let failed = |error| Error::store("writing", upload, error);
    match outcome {
        Ok(true) => {
            kill_point("server-upload-before-complete");
            context.store.measured(StoreOp::Upload, object.complete()).await.map_err(failed)?;
            kill_point("server-upload-completed");
            Ok(true)
        }
        unfinished => {
            // Closing the channel stops the thread that fills it.
            drop(buffers);
            while parts.join_next().await.is_some() {}
            if let Err(error) = object.abort().await {
                tracing::debug!(%upload, %error, "could not remove an unfinished upload");
            }
            unfinished.map_err(failed)
        }
    }
}

async fn next(parts: &mut JoinSet<object_store::Result<()>>) -> object_store::Result<()> {
    match parts.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(source)) => Err(object_store::Error::JoinError { source }),
        None => Ok(()),
    }
}

/// Runs `fill` on a thread of its own while what it writes is stored.
pub(crate) async fn write<T, E>(
    context: &Context,
    upload: &Path,
    fill: impl FnOnce(ChannelWriter) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let (writer, buffers) = buffers::channel(DEPTH, context.limits.idle_timeout);
    let filling = tokio::task::spawn_blocking(move || fill(writer));
    let stored = store_parts(context, upload, buffers).await;
    let filled = filling.await.map_err(|error| E::from(Error::Run(io::Error::other(error))))?;
    // A store that failed made the thread fail, too; its own error is the cause.
    if stored? && filled.is_err() {
        context.store.remove(upload).await;
    }
    filled
}

/// Writes a file of these images.
pub(crate) async fn write_images(
    context: &Arc<Context>,
    header: Header,
    images: Images,
    upload: &Path,
) -> Result<Finished> {
    let images = Arc::new(images);
    let (sender, mut batches) = mpsc::channel(2);
    let reading = {
        let (images, store) = (Arc::clone(&images), context.store.clone());
        context.tasks.spawn(async move {
            let mut read = images.read(&store);
            while let Some(batch) = read.next().await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
        })
    };
    let encoding = encoding_of(&images);
    let finished = write(context, upload, move |writer| {
        let (writer, finished) =
            encode_batches(writer, header, encoding, &images, || batches.blocking_recv())?;
        writer.finish().map_err(Error::Run)?;
        Ok(finished)
    })
    .await;
    reading.abort();
    finished
}

/// Pages that did not shrink when they were stored will not shrink now.
pub(crate) fn encoding_of(images: &Images) -> PageEncoding {
    let shrunk = images.stored_bytes() < images.bytes() / 100 * 95;
    if shrunk { PageEncoding::Lz4 } else { PageEncoding::Literal }
}

/// Encodes the batches of `images` as they come.
pub(crate) fn encode_batches<W: io::Write>(
    writer: W,
    header: Header,
    encoding: PageEncoding,
    images: &Images,
    mut next: impl FnMut() -> Option<Result<crate::log::Batch>>,
) -> Result<(W, Finished)> {
    let unwritable = |error| match error {
        highwater_ltx::Error::Io(error) => Error::Run(error),
        other => crate::log::unencodable(other),
    };
    let mut encoder = Encoder::new(writer, header, encoding).map_err(unwritable)?;
    let mut page = Vec::new();
    while let Some(batch) = next() {
        images.decode::<Error>(&batch?, &mut page, |image, data| {
            encoder.page(image.page, data).map_err(unwritable)
        })?;
    }
    // Refuses when batches are missing from a snapshot; counted here for every other file.
    let whole = encoder.bytes();
    let (writer, finished) = encoder.finish().map_err(unwritable)?;
    if finished.index.len() != images.list.len() {
        let what = format!("reading ended after {whole} bytes, before the last page");
        return Err(Error::Run(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
    }
    Ok((writer, finished))
}
