//! Page images in the log, and reading them: near ones together, far ones at once, and never more
//! than a few megabytes at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use highwater_ltx::{PageCount, PageNo, PageSize, decode_page_frame};
use highwater_pages::{PageHash, canonicalise_first_page, page_hash};
use highwater_wire::DbName;

use super::file::StoredFile;
use crate::store::Store;
use crate::{Error, Result};

/// How much is read at a time, in bytes.
const BATCH: u64 = 1 << 20;
/// The most images in a batch.
const BATCH_IMAGES: usize = 1024;
/// Bytes between two images that are read along rather than skipped.
const GAP: u64 = 16 << 10;
/// How many batches are read ahead.
const AHEAD: usize = 4;
/// Up to so many images are hashed at once, without another thread.
const INLINE: usize = 32;

/// Where one page image stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageAt {
    pub(crate) page: PageNo,
    /// Which of the files that belong to the list.
    pub(crate) file: u32,
    /// The size of its frame in bytes.
    pub(crate) size: u32,
    /// Where its frame begins in the file, in bytes.
    pub(crate) offset: u64,
}

/// A list of page images, by ascending page.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) db: DbName,
    pub(crate) page_size: PageSize,
    pub(crate) files: Vec<Arc<StoredFile>>,
    pub(crate) list: Vec<ImageAt>,
}

/// Some images of a list, read.
#[derive(Debug)]
pub(crate) struct Batch {
    images: Range<usize>,
    /// By file and place.
    parts: Vec<(u32, u64, Bytes)>,
}

impl Images {
    /// The newest image of each page that is within `count`, from files given newest first.
    pub(crate) async fn newest(
        store: &Store,
        db: &DbName,
        (page_size, count): (PageSize, PageCount),
        files: Vec<Arc<StoredFile>>,
    ) -> Result<Self> {
        let mut seen = vec![0u64; count.0 as usize / 64 + 1];
        let mut list = Vec::new();
        for (file, stored) in (0u32..).zip(&files) {
            for entry in &*stored.index(store, db).await? {
                let (word, bit) = (entry.page.0 as usize / 64, 1u64 << (entry.page.0 % 64));
                let Some(word) = seen.get_mut(word).filter(|word| **word & bit == 0) else { continue };
                if count.contains(entry.page) {
                    *word |= bit;
                    list.push(ImageAt { page: entry.page, file, size: entry.size, offset: entry.offset });
                }
            }
        }
        list.sort_unstable_by_key(|image| image.page);
        Ok(Self { db: db.clone(), page_size, files, list })
    }

    /// The size of the pages themselves, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.list.len() as u64 * u64::from(self.page_size.get())
    }

    /// The pages as they are stored, in bytes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.list.iter().map(|image| u64::from(image.size)).sum()
    }

    /// Splits the list into pieces of about [`BATCH`] bytes.
    fn batches(&self) -> Vec<Range<usize>> {
        let mut batches = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (at, image) in self.list.iter().enumerate() {
            if at > start && (bytes + u64::from(image.size) > BATCH || at - start >= BATCH_IMAGES) {
                batches.push(start..at);
                (start, bytes) = (at, 0);
            }
            bytes += u64::from(image.size);
        }
        if start < self.list.len() {
            batches.push(start..self.list.len());
        }
        batches
    }

    /// All images in order, read ahead.
    pub(crate) fn read(self: &Arc<Self>, store: &Store) -> impl Stream<Item = Result<Batch>> + Send + use<> {
        let (images, store) = (Arc::clone(self), store.clone());
        futures::stream::iter(self.batches())
            .map(move |range| {
                let (images, store) = (Arc::clone(&images), store.clone());
                async move { images.read_batch(&store, range).await }
            })
            .buffered(AHEAD)
    }

    async fn read_batch(&self, store: &Store, range: Range<usize>) -> Result<Batch> {
        let mut wanted: BTreeMap<u32, Vec<Range<u64>>> = BTreeMap::new();
        for image in self.list.get(range.clone()).unwrap_or_default() {
            let place = image.offset..image.offset + u64::from(image.size);
            wanted.entry(image.file).or_default().push(place);
        }
        let reads = wanted.into_iter().map(async |(number, places)| {
            let ranges = joined(places);
            let file = self.files.get(number as usize).ok_or_else(|| self.lost())?;
            let parts = store.read(&file.path(&self.db), &ranges).await?;
            Ok::<_, Error>(ranges.into_iter().zip(parts).map(move |(at, part)| (number, at.start, part)))
        });
        let parts = futures::future::try_join_all(reads).await?;
        Ok(Batch { images: range, parts: parts.into_iter().flatten().collect() })
    }

    /// Reads one image of the list into `page`, decoded and in its canonical form.
    pub(crate) async fn read_one(&self, store: &Store, at: usize, page: &mut Vec<u8>) -> Result<()> {
        let batch = self.read_batch(store, at..at + 1).await?;
        self.decode(&batch, page, |_, _| Ok(()))
    }

    /// Gives each page of a batch, decoded and in its canonical form, to `take`.
    pub(crate) fn decode<E: From<Error>>(
        &self,
        batch: &Batch,
        page: &mut Vec<u8>,
        mut take: impl FnMut(ImageAt, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for image in self.list.get(batch.images.clone()).unwrap_or_default() {
            let frame = batch.frame(image).ok_or_else(|| self.lost())?;
            let found = decode_page_frame(frame, self.page_size, page)
                .map_err(|error| Error::undecodable(&self.path_of(image), error))?;
            if found != image.page {
                let what = format!("page {found} stands where its index says page {}", image.page);
                return Err(Error::damaged(&self.path_of(image), what).into());
            }
            if found.0 == 1 {
                // Other programs' files hold it as it was.
                canonicalise_first_page(page);
            }
            take(*image, page)?;
        }
        Ok(())
    }

    /// The hash of every image, in order.
    pub(crate) async fn hashes(self: &Arc<Self>, store: &Store) -> Result<Vec<(ImageAt, PageHash)>> {
        let hash = |images: &Self, batch: &Batch| {
            let mut hashes = Vec::with_capacity(batch.images.len());
            images.decode::<Error>(batch, &mut Vec::new(), |image, page| {
                hashes.push((image, page_hash(image.page, page)));
                Ok(())
            })?;
            Ok::<_, Error>(hashes)
        };
        let small = self.list.len() <= INLINE;
        let batches: Vec<_> = self
            .read(store)
            .map(|batch| async {
                let batch = batch?;
                if small {
                    return hash(self, &batch);
                }
                let images = Arc::clone(self);
                blocking(move || hash(&images, &batch)).await
            })
            .buffered(2)
            .try_collect()
            .await?;
        Ok(batches.into_iter().flatten().collect())
    }

    fn path_of(&self, image: &ImageAt) -> object_store::path::Path {
        self.files.get(image.file as usize).map(|file| file.path(&self.db)).unwrap_or_default()
    }

    /// An image without its file: lists are made together with their files, so this cannot be.
    fn lost(&self) -> Error {
        Error::damaged(&crate::paths::pushes(&self.db), "an image is not in any file")
    }
}

impl Batch {
    fn frame(&self, image: &ImageAt) -> Option<&[u8]> {
        let after =
            self.parts.partition_point(|(file, start, _)| (*file, *start) <= (image.file, image.offset));
        let (file, start, part) = self.parts.get(after.checked_sub(1)?)?;
        let from = usize::try_from(image.offset.checked_sub(*start)?).ok()?;
        (*file == image.file).then(|| part.get(from..from + image.size as usize)).flatten()
    }
}

/// Ranges in ascending order, with those that are near each other joined.
fn joined(mut places: Vec<Range<u64>>) -> Vec<Range<u64>> {
    places.sort_unstable_by_key(|place| place.start);
    let mut ranges: Vec<Range<u64>> = Vec::with_capacity(places.len());
    for place in places {
        match ranges.last_mut() {
            Some(last) if place.start <= last.end + GAP => last.end = last.end.max(place.end),
            _ => ranges.push(place),
        }
    }
    ranges
}

/// Runs work that takes long on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Run(std::io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_read_together_and_far_ones_are_not() {
        let far = GAP * 10;
        let places = vec![far..far + 5, 0..10, 10..20, 30..40];
        assert_eq!(joined(places), vec![0..40, far..far + 5]);
    }
}
