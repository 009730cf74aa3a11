//! The only door to storage.
//!
//! Everything that is acknowledged goes through [`Store::create`] or [`Store::publish`]: both make
//! an object under a name that did not exist before, exactly once, and return only when it is
//! durable (local folders are used with fsync on). An outcome that is unclear after an error is
//! resolved by reading the object back and comparing, never guessed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use highwater_ltx::{Header, Trailer, planted};
use highwater_wire::DbName;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::metrics::{StoreMetrics, StoreOp};
use crate::settle::{self, Settled};
use crate::{Error, Result, StoreUrl, paths};

/// Files that were being written and are older than this belong to nobody.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Unfinished pushes of libSQL clients are kept for so long. A client that comes back later is asked for its
/// whole log.
const UNFINISHED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A store of databases. Cloning it is cheap and gives the same store.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    url: StoreUrl,
    /// Whether a successful answer can be lost on its way: then our own object may come back as
    /// somebody else's.
    remote: bool,
    pub(crate) settled: Settled,
    metrics: StoreMetrics,
}

/// How an attempt to create an object ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// It is there, it is ours, it is durable.
    Ours,
    /// Somebody else's stands there.
    Lost,
}

impl Store {
    /// Opens a store; a folder is made when it does not exist.
    ///
    /// # Errors
    /// [`Error::OpenStore`].
    pub fn open(url: &StoreUrl) -> Result<Self> {
        let objects: Arc<dyn ObjectStore> = match url {
            StoreUrl::Memory => Arc::new(InMemory::new()),
            StoreUrl::Local(folder) => {
                let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::OpenStore {
                    store: url.to_string(),
                    source,
                };
                std::fs::create_dir_all(folder).map_err(|error| failed(Box::new(error)))?;
                settle::folders_above(folder);
                let local = LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(Box::new(e)))?;
                Arc::new(local.with_fsync(!planted("store-not-flushed")))
            }
        };
        Ok(Self { remote: false, url: url.clone(), ..Self::on(objects) })
    }

    /// A store of any kind, with objects that others may have made, too. It must create conditionally
    /// ([`PutMode::Create`]) and show an object whole or not at all; whether an attempt that failed has succeeded
    /// after all is found out by reading.
    #[must_use]
    pub fn on(objects: Arc<dyn ObjectStore>) -> Self {
        let (settled, metrics) = (Settled::default(), StoreMetrics::default());
        Self { objects, url: StoreUrl::Memory, remote: true, settled, metrics }
    }

    /// What it was opened as. (Those of [`Store::on`] count as `memory:`.)
    #[must_use]
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// What it measured so far, and goes on to measure.
    pub(crate) fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// Does something with an object, measured. That it does not exist, or does, is no failure.
    pub(crate) async fn measured<T>(
        &self,
        operation: StoreOp,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let failed = |error: &object_store::Error| {
            !matches!(error, object_store::Error::NotFound { .. } | object_store::Error::AlreadyExists { .. })
        };
        self.metrics.measure(operation, work, failed).await
    }

    /// The names of all databases, in order.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn databases(&self) -> Result<Vec<DbName>> {
        let mut names = std::collections::BTreeSet::new();
        self.each(|object| names.extend(paths::database_of(&object.location))).await?;
        Ok(names.into_iter().collect())
    }

    /// The names of all databases to which something happened as a whole, in order.
    pub(crate) async fn administered(&self) -> Result<Vec<DbName>> {
        let mut names = std::collections::BTreeSet::new();
        self.each(|object| names.extend(paths::database_of_event(&object.location))).await?;
        Ok(names.into_iter().collect())
    }

    /// Shows every object there is, in no order.
    pub(crate) async fn each(&self, mut show: impl FnMut(ObjectMeta)) -> Result<()> {
        let list = self.objects.list(None).try_for_each(|object| {
            show(object);
            futures::future::ready(Ok(()))
        });
        let listed = self.measured(StoreOp::List, list).await;
        listed.map_err(|error| Error::store("listing the store", &Path::default(), error))
    }

    /// The objects in a folder, in no order.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        self.measured(StoreOp::List, self.objects.list(Some(folder)).try_collect())
            .await
            .map_err(|error| Error::store("listing", folder, error))
    }

    /// The objects of a folder whose names come after that one, in no order.
    pub(crate) async fn list_after(&self, folder: &Path, name: &Path) -> Result<Vec<ObjectMeta>> {
        self.measured(StoreOp::List, self.objects.list_with_offset(Some(folder), name).try_collect())
            .await
            .map_err(|error| Error::store("listing", folder, error))
    }

    /// The size of an object in bytes; `None` when there is none.
    pub(crate) async fn size(&self, object: &Path) -> Result<Option<u64>> {
        match self.measured(StoreOp::Head, self.objects.head(object)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::store("looking up", object, error)),
        }
    }

    /// The sizes of two objects, in the time of one.
    pub(crate) async fn sizes(&self, one: &Path, other: &Path) -> Result<(Option<u64>, Option<u64>)> {
        if let Some((one, other)) = self.local(one).zip(self.local(other)) {
            // Two questions at once to a local folder cost two changes of thread each.
            let look = move || Ok((size_of_file(&one)?, size_of_file(&other)?));
            let look = async {
                tokio::task::spawn_blocking(look)
                    .await
                    .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            };
            // The other way has an error that names the object.
            if let Ok(sizes) = self.metrics.measure(StoreOp::Head, look, |_| true).await {
                return Ok(sizes);
            }
        }
        tokio::try_join!(self.size(one), self.size(other))
    }

    /// Where an object stands in a local folder.
    pub(crate) fn local(&self, object: &Path) -> Option<std::path::PathBuf> {
        let StoreUrl::Local(folder) = &self.url else { return None };
        Some(object.parts().fold(folder.clone(), |path, part| path.join(part.as_ref())))
    }

    /// Parts of an object.
    pub(crate) async fn read(&self, object: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let parts = self
            .measured(StoreOp::Read, self.objects.get_ranges(object, ranges))
            .await
            .map_err(|error| Error::store("reading", object, error))?;
        let whole = parts.len() == ranges.len()
            && parts.iter().zip(ranges).all(|(part, range)| part.len() as u64 == range.end - range.start);
        if whole { Ok(parts) } else { Err(Error::damaged(object, "it is shorter than it was")) }
    }

    /// One part of an object.
    pub(crate) async fn read_one(&self, object: &Path, range: Range<u64>) -> Result<Bytes> {
        let mut parts = self.read(object, std::slice::from_ref(&range)).await?;
        parts.pop().ok_or_else(|| Error::damaged(object, "it is shorter than it was"))
    }

    /// A whole object, as it comes.
    pub(crate) async fn stream(
        &self,
        object: &Path,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>> {
        let found = self
            .measured(StoreOp::Read, self.objects.get(object))
            .await
            .map_err(|error| Error::store("reading", object, error))?;
        Ok(found.into_stream())
    }

    /// Makes an object of these bytes, unless there is one of that name.
    pub(crate) async fn create(&self, object: &Path, bytes: Bytes) -> Result<Created> {
        let put = self.objects.put_opts(object, PutPayload::from(bytes.clone()), PutMode::Create.into());
        let attempt = self.measured(StoreOp::Create, put).await;
        let Err(error) = attempt else { return self.settle_folders(object).await.map(|()| Created::Ours) };
        self.resolve(object, error, async |store, size| {
            Ok(size == bytes.len() as u64 && store.read_one(object, 0..size).await? == bytes)
        })
        .await
    }

    /// Gives a finished upload its final name, unless there is an object of that name; the upload
    /// is removed either way.
    pub(crate) async fn publish(&self, upload: &Path, object: &Path) -> Result<Created> {
        let copy = self.objects.copy_if_not_exists(upload, object);
        let attempt = self.measured(StoreOp::Publish, copy).await;
        let outcome = match attempt {
            Ok(()) => self.settle_folders(object).await.map(|()| Created::Ours),
            Err(error) => {
                self.resolve(object, error, async |store, size| {
                    // The file's checksum covers all of its contents.
                    let ours = store.size(upload).await? == Some(size);
                    Ok(ours && store.ends(object, size).await? == store.ends(upload, size).await?)
                })
                .await
            }
        };
        self.remove(upload).await;
        outcome
    }

    /// Finds out how an attempt ended that returned an error.
    async fn resolve(
        &self,
        object: &Path,
        error: object_store::Error,
        is_ours: impl AsyncFnOnce(&Self, u64) -> Result<bool>,
    ) -> Result<Created> {
        let exists = matches!(error, object_store::Error::AlreadyExists { .. });
        if exists && planted("exists-means-ours") {
            return Ok(Created::Ours);
        }
        let size = match self.size(object).await {
            Ok(Some(size)) => size,
            Ok(None) | Err(_) => return Err(Error::store("writing", object, error)),
        };
        // What stands there may be of a server that was killed before it was on disk.
        match is_ours(self, size).await {
            Ok(false) => self.settle(object).await.map(|()| Created::Lost),
            Ok(true) if exists || self.remote => self.settle(object).await.map(|()| Created::Ours),
            // On a local disk an error means that the last fsync failed: the object is there but
            // may not be durable, so it must not be acknowledged.
            Ok(true) | Err(_) => Err(Error::store("writing", object, error)),
        }
    }

    /// The first and the last bytes of an LTX file: header and trailer.
    async fn ends(&self, object: &Path, size: u64) -> Result<Vec<Bytes>> {
        let head = size.min(Header::SIZE as u64);
        self.read(object, &[0..head, size.saturating_sub(Trailer::SIZE as u64)..size]).await
    }

    /// Whether objects can be written and read at present.
    pub(crate) async fn probe(&self) -> Result<()> {
        let object = paths::ready();
        let put = self.objects.put(&object, PutPayload::from_static(b"ready"));
        self.measured(StoreOp::Create, put).await.map_err(|error| Error::store("writing", &object, error))?;
        self.read_one(&object, 0..5).await.map(drop)
    }

    /// Begins to write an object in parts. Nothing of it exists before it is completed.
    pub(crate) async fn upload(&self, object: &Path) -> Result<Box<dyn MultipartUpload>> {
        self.measured(StoreOp::Upload, self.objects.put_multipart(object))
            .await
            .map_err(|error| Error::store("beginning to write", object, error))
    }

    /// Removes an object that nobody needs. A failure is only logged: what stays is swept later.
    pub(crate) async fn remove(&self, object: &Path) {
        if let Err(error) = self.measured(StoreOp::Remove, self.objects.delete(object)).await
            && !matches!(error, object_store::Error::NotFound { .. })
        {
            tracing::warn!(%object, error = %crate::error::chain(&error), "could not remove a file that is no longer needed");
        }
    }

    /// Removes files that were being written a day ago and never finished, and pushes of libSQL clients that
    /// were not finished for a week. Returns how many.
    pub(crate) async fn sweep(&self) -> Result<usize> {
        let root = Path::default();
        let objects: Vec<ObjectMeta> = self
            .objects
            .list(None)
            .try_filter(|meta| futures::future::ready(kept(&meta.location).is_some()))
            .try_collect()
            .await
            .map_err(|error| Error::store("listing the store", &root, error))?;
        let now = std::time::SystemTime::now();
        let mut removed = 0;
        for object in objects {
            let written = std::time::SystemTime::from(object.last_modified);
            let kept = kept(&object.location).unwrap_or(Duration::MAX);
            if now.duration_since(written).is_ok_and(|age| age > kept) {
                self.remove(&object.location).await;
                removed += 1;
            }
        }
        if let StoreUrl::Local(folder) = &self.url {
            let folder = folder.clone();
            removed += tokio::task::spawn_blocking(move || sweep_parts(&folder)).await.unwrap_or(0);
        }
        Ok(removed)
    }
}

/// For how long an object is kept that nothing may need any more; `None`: for ever.
fn kept(object: &Path) -> Option<Duration> {
    match object {
        _ if paths::is_upload(object) => Some(ABANDONED),
        _ if paths::is_branch_frames(object) => Some(UNFINISHED),
        _ => None,
    }
}

/// `None` when there is no such file.
fn size_of_file(path: &std::path::Path) -> std::io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found.len())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the unpublished files (`NAME.ltx#N`) that `object_store` leaves in a local folder when the
/// process is killed while it writes; it never lists them. Returns how many.
fn sweep_parts(folder: &std::path::Path) -> usize {
    let (mut folders, mut removed) = (vec![folder.to_owned()], 0);
    // What cannot be read or removed is left: nothing depends on it.
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let name = entry.file_name();
            let part = name.to_str().and_then(|name| name.rsplit_once(".ltx#"));
            let part = part.is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()));
            let age = entry.metadata().and_then(|meta| meta.modified()).map(|time| time.elapsed());
            if kind.is_file() && part && age.is_ok_and(|age| age.is_ok_and(|age| age > ABANDONED)) {
                removed += usize::from(std::fs::remove_file(entry.path()).is_ok());
            }
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[tokio::test]
    async fn only_old_files_that_were_being_written_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreUrl::Local(folder.path().to_owned())).unwrap();
        let push = "db/ltx/0/0000000000000001-0000000000000001.ltx";
        let upload = format!("db/uploads/{:032x}.ltx", 7);
        let kept = [push.to_owned(), "db/ltx/0/notes.ltx#x".to_owned(), format!("{upload}.txt")];
        let staged = "team/db/sync/80000010/0000000000000001-0000000000000080.frames".to_owned();
        let swept = [format!("{push}#1"), upload.clone(), format!("{upload}#12"), staged];
        for name in kept.iter().chain(&swept) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let old = std::time::SystemTime::now() - UNFINISHED * 2;
            File::create(path).unwrap().set_modified(old).unwrap();
        }
        let fresh = format!("{push}#2");
        File::create(folder.path().join(&fresh)).unwrap();
        assert_eq!(store.sweep().await.unwrap(), 4);
        assert!(kept.iter().chain([&fresh]).all(|name| folder.path().join(name).exists()));
        assert!(!swept.iter().any(|name| folder.path().join(name).exists()));
    }

    #[tokio::test]
    async fn a_name_is_given_once_and_ones_own_object_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        for url in [StoreUrl::Memory, StoreUrl::Local(folder.path().to_owned())] {
            let store = Store::open(&url).unwrap();
            let object = Path::from("db/ltx/0/a.ltx");
            assert_eq!(store.create(&object, Bytes::from_static(b"one")).await.unwrap(), Created::Ours);
            assert_eq!(store.create(&object, Bytes::from_static(b"one")).await.unwrap(), Created::Ours);
            assert_eq!(store.create(&object, Bytes::from_static(b"two")).await.unwrap(), Created::Lost);
            assert_eq!(store.create(&object, Bytes::from_static(b"three")).await.unwrap(), Created::Lost);
            assert_eq!(store.read_one(&object, 0..3).await.unwrap(), "one");
        }
    }
}
