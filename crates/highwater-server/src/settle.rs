//! Waiting for the disk where somebody else may not have waited: a server may be killed between making a file or a folder
//! and its flush, and whoever finds it there must not rely on it before it is flushed.

use std::collections::BTreeSet;
use std::path::{Path as Folder, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use highwater_ltx::planted;
use highwater_pages::durable;
use object_store::path::Path;

use crate::metrics::StoreOp;
use crate::store::Store;
use crate::{Error, Result, StoreUrl};

/// The folders of a local store that this process has flushed, with all above them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settled(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Settled {
    fn has(&self, folder: &Folder) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    fn add(&self, folder: PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(folder);
    }
}

impl Store {
    /// Makes sure that an object which was found in a local folder is on disk: the process that made
    /// it may have been killed between naming it and waiting for the disk, and whoever is told of it
    /// from now on relies on it.
    pub(crate) async fn settle(&self, object: &Path) -> Result<()> {
        let Some(path) = self.local(object).filter(|_| !planted("found-not-settled")) else { return Ok(()) };
        let flush = move || {
            durable::sync_path(&path)?;
            path.parent().map_or(Ok(()), durable::sync_dir)
        };
        self.wait(flush).await?;
        self.settle_folders(object).await
    }

    /// Makes sure that the folders of an object are on disk, the first time that this process writes there or reads a
    /// history from there. (A folder that it makes itself is flushed when it is made.)
    pub(crate) async fn settle_folders(&self, object: &Path) -> Result<()> {
        let (Some(path), StoreUrl::Local(root)) = (self.local(object), self.url()) else { return Ok(()) };
        let Some(folder) = path.parent().filter(|folder| !self.settled.has(folder)).map(PathBuf::from) else {
            return Ok(());
        };
        let (root, lowest) = (root.clone(), folder.clone());
        let flush = move || {
            let above = lowest.ancestors().skip(1).take_while(|above| above.starts_with(&root));
            above.filter(|_| !planted("folders-not-settled")).try_for_each(durable::sync_dir)
        };
        self.wait(flush).await?;
        self.settled.add(folder);
        Ok(())
    }

    async fn wait(&self, flush: impl FnOnce() -> highwater_pages::Result<()> + Send + 'static) -> Result<()> {
        let flush = async {
            match tokio::task::spawn_blocking(flush).await {
                Ok(flushed) => flushed.map_err(|error| Error::Run(std::io::Error::other(error))),
                Err(error) => Err(Error::Run(std::io::Error::other(error))),
            }
        };
        self.metrics().measure(StoreOp::Settle, flush, |_| true).await
    }
}

/// Flushes the folders in which a store's own folder stands, which may be new. One that this process may not read is the
/// operator's to look after.
pub(crate) fn folders_above(store: &Folder) {
    let Ok(store) = store.canonicalize() else { return };
    for above in store.ancestors().skip(1) {
        if let Err(error) = durable::sync_dir(above) {
            tracing::debug!(%error, "a folder above the store could not be flushed");
        }
    }
}
