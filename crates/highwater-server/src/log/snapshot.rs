//! Writing a snapshot: the whole database at one position as one file, beside the pushes.
//!
//! It is written under a name of its own first and published when it is whole and durable; a crash
//! before that leaves nothing. The push after it begins a new generation, because the log then
//! shows a snapshot within the present one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use highwater_ltx::{Header, TxId, planted};
use highwater_pages::kill_point;

use super::entries::Entry;
use super::file::StoredFile;
use super::images::Images;
use super::{Database, ms_since};
use crate::store::Created;
use crate::{Error, Result, paths, staging};

impl Database {
    /// Starts to write a snapshot of the head if the policy asks for one and none is being written.
    pub(crate) fn snapshot_if_due(self: &Arc<Self>) {
        let due = self.read(|log| log.snapshot_due(&self.context.snapshot)).unwrap_or(false);
        if !due || !self.begin_snapshot() {
            return;
        }
        let database = Arc::clone(self);
        self.context.tasks.spawn(async move {
            let began = Instant::now();
            match database.write_snapshot().await {
                Ok(Some((entry, bytes))) => {
                    database.context.metrics.snapshot(true);
                    tracing::info!(
                        db = %database.name, position = %entry.position.place(), pages = entry.page_count.0, bytes,
                        ms = ms_since(began), "wrote a snapshot; the next push begins a new generation"
                    );
                }
                Ok(None) => {}
                Err(error) => {
                    database.context.metrics.snapshot(false);
                    tracing::warn!(
                        db = %database.name, error = %crate::error::chain(&error),
                        "could not write a snapshot; pushes go on, a later one tries again"
                    );
                    let failed = &database.snapshot_failed;
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
            }
            database.snapshotting.store(false, Ordering::SeqCst);
        });
    }

    /// Writes a snapshot of the head; the position and the size of the file in bytes.
    async fn write_snapshot(&self) -> Result<Option<(Entry, u64)>> {
        let Some((entry, images)) = self.images_since(None).await? else { return Ok(None) };
        let header = snapshot_header(&entry, &images);
        let images = match planted("snapshot-of-the-push-before") {
            true => self.images_at(TxId(entry.txid.0 - 1)).await?.map_or(images, |(_, older)| older),
            false => images,
        };
        let upload = paths::upload(&self.name, staging::unique());
        let written = staging::write_images(&self.context, header, images, &upload).await?;
        kill_point("server-snapshot-before-publish");
        if let Err(error) = self.next_push().await {
            self.context.store.remove(&upload).await;
            // Deleted meanwhile: a snapshot must not be what is left of it.
            let administered = matches!(error, Error::Deleted { .. } | Error::Administered { .. });
            return if administered { Ok(None) } else { Err(error) };
        }
        let created = self.context.store.publish(&upload, &paths::snapshot(&self.name, entry.txid)).await?;
        kill_point("server-snapshot-after-publish");
        if created == Created::Lost {
            // Another server's: the same pages, perhaps compressed in another way.
            let path = paths::snapshot(&self.name, entry.txid);
            let Some(size) = self.context.store.size(&path).await? else { return Ok(None) };
            self.note_snapshot(StoredFile::unread(true, entry.txid, size));
            return Ok(None);
        }
        let bytes = written.bytes;
        self.note_snapshot(StoredFile::new(true, entry.txid, bytes, written.index));
        Ok(Some((entry, bytes)))
    }

    fn note_snapshot(&self, file: StoredFile) {
        self.write(|log| {
            if let Some(log) = log {
                log.add_snapshot(Arc::new(file));
            }
        });
    }
}

/// The header of a whole database at a position.
pub(crate) fn snapshot_header(entry: &Entry, images: &Images) -> Header {
    Header::new_snapshot(
        images.page_size,
        entry.page_count,
        entry.txid,
        entry.timestamp_ms,
        entry.position.place(),
        entry.position.state,
    )
}
