//! What both sides of a conflict changed, so that a person can see where they met.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Mutex, PoisonError};

use highwater_ltx::{PageCount, PageNo, PageSize, TxId};
use highwater_pages::owners::{self, PageSource};
use highwater_wire::ConflictDetail;
use tokio::runtime::Handle;

use super::Database;
use super::decide::{Refusal, SyncRequest};
use super::delta::{Delta, DeltaImages};
use super::images::Images;
use crate::store::Store;
use crate::{Error, paths};

/// The most pages that are named.
const MOST_NAMED: usize = 1000;
/// The most pages that are kept while owners are looked for.
const MOST_KEPT: usize = 4096;

/// Compares the client's delta with what the log has after its base.
pub(super) async fn detail(
    db: &Database,
    base: TxId,
    request: &mut SyncRequest,
) -> Result<ConflictDetail, Refusal> {
    let lost = || Error::damaged(&paths::pushes(&db.name), "a file of its history is not retained");
    let base_position =
        db.read(|log| log.entry(base).map(|entry| entry.position)).flatten().ok_or_else(lost)?;
    let (head, remote) = db.images_since(Some(base)).await?.ok_or_else(lost)?;
    let remote_pages: BTreeSet<PageNo> = remote.list.iter().map(|image| image.page).collect();
    let local = request.delta.as_ref().map(|delta| delta.pages.as_slice()).unwrap_or_default();
    let local_pages: BTreeSet<PageNo> = local.iter().map(|(page, _)| *page).collect();
    let devices: BTreeSet<String> = db
        .read(|log| log.after(base).iter().map(|entry| format!("{:016x}", entry.node_id)).collect())
        .unwrap_or_default();
    let in_memory = |delta: &mut Delta| matches!(delta.images, DeltaImages::Memory(_));
    let delta = request.delta.take_if(in_memory);
    let (local_tables, remote_tables) = db.tables(base, head.txid, delta, &local_pages, &remote_pages).await;
    let count = |pages: &BTreeSet<PageNo>| u32::try_from(pages.len()).unwrap_or(u32::MAX);
    Ok(ConflictDetail {
        base: base_position.into(),
        head: head.position.into(),
        local_pages: count(&local_pages),
        remote_pages: count(&remote_pages),
        both_pages: local_pages.intersection(&remote_pages).take(MOST_NAMED).map(|page| page.0).collect(),
        both_tables: local_tables.intersection(&remote_tables).cloned().collect(),
        local_tables: local_tables.into_iter().collect(),
        remote_tables: remote_tables.into_iter().collect(),
        devices: devices.into_iter().collect(),
    })
}

impl Database {
    /// The tables that own the pages of the client's delta and those that changed from `base` to
    /// `head`: before the change or after it, for a freed page has an owner only before, a new one
    /// only after. What cannot be read owns nothing: without tables the answer is still right.
    async fn tables(
        &self,
        base: TxId,
        head: TxId,
        delta: Option<Delta>,
        local_pages: &BTreeSet<PageNo>,
        remote_pages: &BTreeSet<PageNo>,
    ) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut local = self.tables_at(base, None, local_pages).await;
        if delta.is_some() {
            local.append(&mut self.tables_at(base, delta, local_pages).await);
        }
        let mut remote = self.tables_at(base, None, remote_pages).await;
        remote.append(&mut self.tables_at(head, None, remote_pages).await);
        (local, remote)
    }

    /// The tables that own `pages` in the position after `txid` with a delta on top.
    async fn tables_at(
        &self,
        txid: TxId,
        delta: Option<Delta>,
        pages: &BTreeSet<PageNo>,
    ) -> BTreeSet<String> {
        let found = async {
            let Some((_, images)) = self.images_at(txid).await? else { return Ok(BTreeSet::new()) };
            let (store, runtime) = (self.context.store.clone(), Handle::current());
            let source = State { images, delta, store, runtime, kept: Mutex::default() };
            let pages = pages.clone();
            super::blocking(move || {
                let found = owners::owners(&source, &pages).map_err(Error::Run)?;
                let schema = found.schema.then(|| "sqlite_schema".to_owned());
                Ok(found.tables.into_keys().chain(schema).collect())
            })
            .await
        };
        found.await.unwrap_or_else(|error: Error| {
            tracing::debug!(error = %crate::error::chain(&error), "could not name the tables of a conflict");
            BTreeSet::new()
        })
    }
}

/// A position of the log, perhaps with a delta on top, as pages to read one by one.
struct State {
    images: Images,
    delta: Option<Delta>,
    store: Store,
    runtime: Handle,
    /// The interior pages are asked for again and again.
    kept: Mutex<HashMap<PageNo, Vec<u8>>>,
}

impl State {
    fn of_delta(&self, page: PageNo) -> Option<&[u8]> {
        let delta = self.delta.as_ref()?;
        let at = delta.pages.binary_search_by_key(&page, |(page, _)| *page).ok()?;
        delta.image(at)
    }
}

impl PageSource for State {
    fn page_size(&self) -> PageSize {
        self.images.page_size
    }

    fn page_count(&self) -> PageCount {
        let last = self.images.list.last().map_or(0, |image| image.page.0);
        self.delta.as_ref().map_or(PageCount(last), |delta| delta.commit)
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        if let Some(image) = self.of_delta(page) {
            into.extend_from_slice(image);
            return Ok(());
        }
        if let Some(kept) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&page) {
            into.extend_from_slice(kept);
            return Ok(());
        }
        let at = self.images.list.binary_search_by_key(&page, |image| image.page);
        let at = at.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        self.runtime.block_on(self.images.read_one(&self.store, at, into)).map_err(io::Error::other)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_KEPT {
            kept.insert(page, into.clone());
        }
        Ok(())
    }
}
