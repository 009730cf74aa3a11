//! One LTX file of the log, as the server knows it: what it covers, how long it is, and, when
//! asked, where in it each page stands.
//!
//! The index of a file is read from its end and kept; the pages are never kept.

use std::sync::Arc;

use bytes::Bytes;
use highwater_ltx::{Header, PageIndex, TailIndex, TxId};
use highwater_wire::DbName;
use object_store::path::Path;
use tokio::sync::OnceCell;

use crate::store::Store;
use crate::{Error, Result, paths};

/// The first guess at how much of a file's end holds its index, in bytes.
const TAIL: u64 = 32 << 10;

/// A file of the log.
#[derive(Debug)]
pub(crate) struct StoredFile {
    /// A snapshot, or an accepted push.
    pub(crate) snapshot: bool,
    /// The last transaction that it covers.
    pub(crate) txid: TxId,
    /// In bytes.
    pub(crate) size: u64,
    index: OnceCell<Arc<PageIndex>>,
}

impl StoredFile {
    /// A file whose index was just made.
    pub(crate) fn new(snapshot: bool, txid: TxId, size: u64, index: PageIndex) -> Self {
        Self { snapshot, txid, size, index: OnceCell::new_with(Some(Arc::new(index))) }
    }

    /// A file of which only the name is known.
    pub(crate) fn unread(snapshot: bool, txid: TxId, size: u64) -> Self {
        Self { snapshot, txid, size, index: OnceCell::new() }
    }

    /// Its name in the store.
    pub(crate) fn path(&self, db: &DbName) -> Path {
        if self.snapshot { paths::snapshot(db, self.txid) } else { paths::push(db, self.txid) }
    }

    /// Reads the header of a file, and its index as well if that costs nothing more or `with_index`
    /// says so.
    pub(crate) async fn open(
        store: &Store,
        db: &DbName,
        (snapshot, txid, size): (bool, TxId, u64),
        with_index: bool,
    ) -> Result<(Header, Self)> {
        let file = Self::unread(snapshot, txid, size);
        let path = file.path(db);
        let head = 0..size.min(Header::SIZE as u64);
        let tail = size.saturating_sub(TAIL)..size;
        let ranges = if with_index || size <= TAIL { vec![head, tail] } else { vec![head] };
        let parts = store.read(&path, &ranges).await?;
        let mut parts = parts.into_iter();
        let head = parts.next().unwrap_or_default();
        let header = Header::decode(&head).map_err(|error| Error::undecodable(&path, error))?;
        let min = if snapshot { TxId::FIRST } else { txid };
        if header.min_txid != min || header.max_txid != txid {
            return Err(Error::damaged(&path, "it covers other transactions than its name says"));
        }
        if let Some(tail) = parts.next() {
            let index = complete(store, &path, size, tail).await?;
            index.check(&header).map_err(|error| Error::undecodable(&path, error))?;
            // The cell is new: nothing can be in it.
            let _ = file.index.set(Arc::new(index));
        }
        Ok((header, file))
    }

    /// Where each page stands; read from the store the first time.
    pub(crate) async fn index(&self, store: &Store, db: &DbName) -> Result<Arc<PageIndex>> {
        self.index
            .get_or_try_init(async || {
                let path = self.path(db);
                let tail = store.read_one(&path, self.size.saturating_sub(TAIL)..self.size).await?;
                complete(store, &path, self.size, tail).await.map(Arc::new)
            })
            .await
            .cloned()
    }
}

/// The header and the index of any file of pages; `None` when there is no such file.
pub(crate) async fn header_and_index(store: &Store, path: &Path) -> Result<Option<(Header, PageIndex)>> {
    let Some(size) = store.size(path).await? else { return Ok(None) };
    let ranges = [0..size.min(Header::SIZE as u64), size.saturating_sub(TAIL)..size];
    let mut parts = store.read(path, &ranges).await?.into_iter();
    let (head, tail) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let header = Header::decode(&head).map_err(|error| Error::undecodable(path, error))?;
    let index = complete(store, path, size, tail).await?;
    index.check(&header).map_err(|error| Error::undecodable(path, error))?;
    Ok(Some((header, index)))
}

/// The index in the end of a file, reading more of it when it does not fit into `tail`.
async fn complete(store: &Store, path: &Path, size: u64, tail: Bytes) -> Result<PageIndex> {
    let decode =
        |tail: &Bytes| PageIndex::decode_tail(tail, size).map_err(|error| Error::undecodable(path, error));
    match decode(&tail)? {
        TailIndex::Complete(index) => Ok(index),
        TailIndex::NeedMore { bytes } => {
            let tail = store.read_one(path, size.saturating_sub(bytes)..size).await?;
            match decode(&tail)? {
                TailIndex::Complete(index) => Ok(index),
                TailIndex::NeedMore { .. } => Err(Error::damaged(path, "its page index has no beginning")),
            }
        }
    }
}
