//! Any state of a database as pages to read one by one: a position of the log, perhaps with a delta on top.
//!
//! Nothing is copied to make one. A page of an older position is looked for in the head's page table first: if what
//! stands there was written before, it is the one; else in the files of the position, newest first. Pages are read on the
//! thread that asks, which must be one that may block.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use highwater_ltx::{PageCount, PageIndex, PageNo, PageSize, TxId, decode_page_frame};
use highwater_pages::canonicalise_first_page;
use highwater_pages::owners::PageSource;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::Database;
use super::delta::{Delta, DeltaImages};
use super::file::StoredFile;
use crate::{Error, Result};

/// How many bytes of pages are kept for states that are read together.
const KEPT_BYTES: usize = 32 << 20;

/// By file and place.
type Read = HashMap<(Path, u64), Arc<Vec<u8>>>;

/// Pages that were read, for states that are read together: where two states have the same page, it is read once.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pages: Mutex<Read>,
    /// Why a page could not be read, the first time that one could not.
    failed: Mutex<Option<Error>>,
}

/// Pages on top of a position.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// The size of the database with them.
    pub(crate) page_count: PageCount,
    /// Ascending.
    pages: Vec<PageNo>,
    images: OverlayImages,
}

#[derive(Debug)]
enum OverlayImages {
    /// One after the other.
    Memory(Bytes),
    /// In an LTX file of the store.
    File(Path, PageIndex),
}

impl Overlay {
    /// The pages of a delta, whose images are taken out of it when they are in memory. `None` when it has none.
    pub(crate) fn of(delta: &mut Delta) -> Option<Self> {
        let images = match std::mem::replace(&mut delta.images, DeltaImages::Dropped) {
            DeltaImages::Memory(bytes) => OverlayImages::Memory(bytes.into()),
            DeltaImages::Staged(staged) => {
                let images = OverlayImages::File(staged.path.clone(), staged.index.clone());
                delta.images = DeltaImages::Staged(staged);
                images
            }
            DeltaImages::Dropped => return None,
        };
        let pages = delta.pages.iter().map(|(page, _)| *page).collect();
        Some(Self { page_count: delta.commit, pages, images })
    }

    /// A file of the store.
    pub(crate) fn stored(path: Path, index: PageIndex, page_count: PageCount) -> Self {
        let pages = index.iter().map(|entry| entry.page).collect();
        Self { page_count, pages, images: OverlayImages::File(path, index) }
    }

    /// Its pages, ascending.
    pub(crate) fn pages(&self) -> &[PageNo] {
        &self.pages
    }

    /// Its images one after the other, if they are in memory.
    pub(crate) fn in_memory(&self) -> Option<&Bytes> {
        match &self.images {
            OverlayImages::Memory(images) => Some(images),
            OverlayImages::File(..) => None,
        }
    }
}

/// A state of a database.
#[derive(Debug)]
pub(crate) struct State {
    db: Arc<Database>,
    /// The position.
    txid: TxId,
    page_size: PageSize,
    /// Of the position.
    page_count: PageCount,
    /// Those of the position, newest first.
    files: Vec<Arc<StoredFile>>,
    overlay: Option<Arc<Overlay>>,
    kept: Arc<Kept>,
    runtime: Handle,
}

impl Database {
    /// The position after `txid` as pages, after 0 none; `None` when it is not retained.
    pub(crate) fn state(self: &Arc<Self>, txid: TxId, kept: &Arc<Kept>) -> Option<State> {
        let found = self.read(|log| {
            let files = if txid == TxId(0) { Vec::new() } else { log.files_of(txid)? };
            Some((log.page_size, log.base(txid)?.page_count, files))
        });
        let (page_size, page_count, files) = found.flatten()?;
        let (db, kept, runtime) = (Arc::clone(self), Arc::clone(kept), Handle::current());
        Some(State { db, txid, page_size, page_count, files, overlay: None, kept, runtime })
    }
}

impl State {
    /// The state with these pages on top.
    pub(crate) fn with(self, overlay: Option<Arc<Overlay>>) -> Self {
        Self { overlay, ..self }
    }

    /// Reads a page. The lock page, and pages that no file has, are not found.
    async fn page(&self, page: PageNo) -> Result<Option<Arc<Vec<u8>>>> {
        if let Some(overlay) = &self.overlay {
            if !overlay.page_count.contains(page) {
                return Ok(None);
            }
            match &overlay.images {
                OverlayImages::Memory(images) => {
                    if let Ok(at) = overlay.pages.binary_search(&page) {
                        let size = self.page_size.as_usize();
                        return Ok(images
                            .get(at * size..at * size + size)
                            .map(|image| Arc::new(image.to_vec())));
                    }
                }
                OverlayImages::File(path, index) => {
                    if let Some(entry) = entry_of(index, page) {
                        return self.frame(path.clone(), page, entry).await.map(Some);
                    }
                }
            }
        }
        if !self.page_count.contains(page) {
            return Ok(None);
        }
        let newest = self.db.read(|log| {
            let image = log.table.image(page)?;
            let file = log.table.files().get(image.file as usize)?;
            (file.txid <= self.txid).then(|| (file.path(&self.db.name), (image.offset, image.size)))
        });
        if let Some((path, place)) = newest.flatten() {
            return self.frame(path, page, place).await.map(Some);
        }
        for file in &self.files {
            let index = file.index(&self.db.context.store, &self.db.name).await?;
            if let Some(place) = entry_of(&index, page) {
                return self.frame(file.path(&self.db.name), page, place).await.map(Some);
            }
        }
        Ok(None)
    }

    /// The page that stands at a place in a file.
    async fn frame(&self, path: Path, page: PageNo, (offset, size): (u64, u32)) -> Result<Arc<Vec<u8>>> {
        let key = (path, offset);
        if let Some(kept) = self.kept.lock().get(&key) {
            return Ok(Arc::clone(kept));
        }
        let frame = self.db.context.store.read_one(&key.0, offset..offset + u64::from(size)).await?;
        let mut data = Vec::with_capacity(self.page_size.as_usize());
        let found = decode_page_frame(&frame, self.page_size, &mut data)
            .map_err(|error| Error::undecodable(&key.0, error))?;
        if found != page {
            let what = format!("page {found} stands where its index says page {page}");
            return Err(Error::damaged(&key.0, what));
        }
        if page.0 == 1 {
            canonicalise_first_page(&mut data);
        }
        let data = Arc::new(data);
        let mut kept = self.kept.lock();
        if kept.len() * data.len() < KEPT_BYTES {
            kept.insert(key, Arc::clone(&data));
        }
        Ok(data)
    }
}

impl Kept {
    /// Why a page could not be read, if one could not: then nothing that was found out from these states counts.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes why a page could not be read; the reader gets the words of it.
    fn fail(&self, error: Error) -> io::Error {
        let told = io::Error::other(crate::error::chain(&error));
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        told
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Read> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a page stands in a file.
fn entry_of(index: &PageIndex, page: PageNo) -> Option<(u64, u32)> {
    index.get(page).map(|entry| (entry.offset, entry.size))
}

impl PageSource for State {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn page_count(&self) -> PageCount {
        self.overlay.as_ref().map_or(self.page_count, |overlay| overlay.page_count)
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        let found = self.runtime.block_on(self.page(page)).map_err(|error| self.kept.fail(error))?;
        let found = found.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("page {page} of the database is in none of its files"),
            )
        })?;
        into.clear();
        into.extend_from_slice(&found);
        Ok(())
    }
}
