//! The log of one database: what is known of it in memory, and the one writer at a time.
//!
//! Invariants
//! - The store is the truth. Memory is rebuilt from it on open and never ahead of it: a push is
//!   taken into memory only after its file is durable.
//! - Within the process, deciding and appending happen in turns ([`Database::turn`]); between
//!   processes the creation of the file for head+1 decides, and the loser reads on.
//! - Nothing is ever removed from the log: there is no pruning yet.

mod append;
mod conflict;
mod decide;
mod delta;
mod entries;
mod file;
mod images;
mod locate;
mod merge;
mod merges;
mod open;
mod rebased;
mod refusals;
mod snapshot;
mod state;
mod table;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use highwater_ltx::{DeviceId, Generation, PageNo, PageSize, TxId};
use highwater_wire::{DbName, LIBSQL_NODE};
use tokio_util::task::TaskTracker;

pub(crate) use append::{Appended, Plan, Planned, unencodable};
pub(crate) use decide::{Claim, Refusal, Sender, SyncRequest, UnknownBase, Verdict};
pub(crate) use delta::{Delta, DeltaImages, Staged};
pub(crate) use entries::{Entry, Log};
pub(crate) use images::{Batch, Images, blocking};
pub(crate) use locate::Located;
pub(crate) use merges::MergeName;
pub(crate) use rebased::RebasedName;
pub(crate) use refusals::{RefusedFrames, RefusedName, reason};
pub(crate) use snapshot::snapshot_header;
pub(crate) use state::{Kept, State};

use crate::libsql::{Branches, Detours};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::ready::Ready;
use crate::share::Shares;
use crate::store::Store;
use crate::{DeletionPolicy, Error, LibsqlConfig, Limits, MergeConfig, Result, SnapshotPolicy, paths};
use file::StoredFile;

/// Who pushed, in the log, when it was a libSQL client: they have no device id of their own. The node id
/// in the files reads `libsql`.
pub(crate) const LIBSQL: DeviceId = DeviceId((LIBSQL_NODE as u128) << 64);

/// How long no snapshot is tried after one failed: a full disk is not helped by trying.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// What all databases of a server share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) snapshot: SnapshotPolicy,
    pub(crate) limits: Limits,
    /// What requests share.
    pub(crate) shares: Shares,
    pub(crate) ready: Ready,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) libsql: LibsqlConfig,
    pub(crate) merge: MergeConfig,
    pub(crate) clock: crate::Clock,
    pub(crate) deletion: DeletionPolicy,
    /// Work that outlives a connection: pushes being made durable, snapshots being written.
    pub(crate) tasks: TaskTracker,
    /// Set when the server stops: work that can be done later is not begun.
    pub(crate) stopping: AtomicBool,
}

/// An open database; it may not exist yet.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) name: DbName,
    pub(crate) context: Arc<Context>,
    /// Whoever decides about a push and appends it holds this.
    pub(crate) turn: tokio::sync::Mutex<()>,
    log: RwLock<Option<Log>>,
    snapshotting: AtomicBool,
    /// When the last attempt at a snapshot failed.
    snapshot_failed: Mutex<Option<Instant>>,
    /// For eviction: the registry's count when it was last asked for.
    pub(crate) last_used: AtomicU64,
    /// Unfinished pushes of libSQL clients.
    pub(crate) branches: Branches,
    /// Private generations of libSQL clients that wrote while others did.
    pub(crate) detours: Detours,
    /// What had happened to it as a whole when it was opened.
    lifecycle: Lifecycle,
    /// Set when something happened to it since: whoever asks next opens it anew.
    stale: AtomicBool,
}

impl Database {
    /// Reads what the store has of it.
    pub(crate) async fn open(context: &Arc<Context>, name: &DbName) -> Result<Self> {
        let began = Instant::now();
        let lifecycle = Lifecycle::read(&context.store, name).await?;
        if lifecycle.deleted().is_some() {
            return Err(Error::Deleted { database: name.to_string() });
        }
        let log = open::open(&context.store, name).await?;
        context.metrics.opened.inc();
        if let Some(log) = &log {
            let head = log.head();
            tracing::debug!(
                db = %name, generation = head.position.generation.0, durable_frame_num = head.position.frame.0,
                txid = head.txid.0, pages = head.page_count.0, ms = ms_since(began), "opened"
            );
        }
        Ok(Self {
            name: name.clone(),
            context: Arc::clone(context),
            turn: tokio::sync::Mutex::new(()),
            log: RwLock::new(log),
            snapshotting: AtomicBool::new(false),
            snapshot_failed: Mutex::new(None),
            last_used: AtomicU64::new(0),
            branches: Branches::default(),
            detours: Detours::default(),
            lifecycle,
            stale: AtomicBool::new(false),
        })
    }

    /// Whether it has a position.
    pub(crate) fn exists(&self) -> bool {
        self.read(|_| ()).is_some()
    }

    /// Whether whoever may write may begin it although it does not exist.
    pub(crate) fn is_reserved(&self) -> bool {
        self.lifecycle.is_reserved()
    }

    /// The generation that its first push begins, or began.
    pub(crate) fn first_generation(&self) -> Generation {
        self.lifecycle.first_generation()
    }

    /// Whether it has to be opened anew.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::SeqCst)
    }

    /// Waits for a push that is being appended, so that what is done meanwhile comes after it.
    pub(crate) async fn between_pushes(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.read(Log::memory).unwrap_or(0)
    }

    /// Looks at the log; `None` when the database does not exist.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Log) -> T) -> Option<T> {
        self.log.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Option<Log>) -> T) -> T {
        change(&mut self.log.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in what other servers on the same store appended.
    pub(crate) async fn refresh(&self) -> Result<()> {
        if self.next_push().await?.is_some() {
            let _turn = self.turn.lock().await;
            self.refresh_in_turn().await?;
        }
        Ok(())
    }

    /// [`Database::refresh`] for whoever has the turn.
    pub(crate) async fn refresh_in_turn(&self) -> Result<()> {
        let store = &self.context.store;
        loop {
            let txid = self.next_txid();
            let Some(size) = self.next_push().await? else { return Ok(()) };
            let (header, file) = StoredFile::open(store, &self.name, (false, txid, size), true).await?;
            let file = Arc::new(file);
            let index = file.index(store, &self.name).await?;
            // It may be a merge, and then its record is there: it came first. What other merges left is known.
            let since = paths::merges_since(&self.name, txid);
            let found = store.list_after(&paths::merges(&self.name), &since).await?;
            self.write(|log| {
                let entry = open::follow(&self.name, log.as_ref(), &header, &file)?;
                tracing::debug!(db = %self.name, txid = txid.0, "found a push of another server");
                Log::append(log, header.page_size, entry, &index, &[]);
                if let Some(log) = log {
                    log.merges.follow(&found, &log.head);
                    log.refusals.add_all(&found);
                    log.rebased.add_all(&found);
                }
                Ok::<_, Error>(())
            })?;
        }
    }

    /// The size of the push that another server appended to the head, if one did. An error when
    /// something happened to the database as a whole.
    pub(super) async fn next_push(&self) -> Result<Option<u64>> {
        let store = &self.context.store;
        let (event, push) = (self.lifecycle.next(&self.name), paths::push(&self.name, self.next_txid()));
        let (event, size) = store.sizes(&event, &push).await?;
        if event.is_none() {
            return Ok(size);
        }
        self.stale.store(true, Ordering::SeqCst);
        let database = self.name.to_string();
        match Lifecycle::read(store, &self.name).await?.deleted() {
            Some(_) => Err(Error::Deleted { database }),
            None => Err(Error::Administered { database }),
        }
    }

    fn next_txid(&self) -> TxId {
        self.read(|log| log.head().txid.next()).unwrap_or(TxId::FIRST)
    }

    /// The newest image of every page that changed after `from`; of every page of the head when
    /// nothing is given.
    pub(crate) async fn images_since(&self, from: Option<TxId>) -> Result<Option<(Entry, Images)>> {
        let plan = self.read(|log| {
            let files = from.map_or_else(|| log.files_of(log.head().txid), |from| log.files_after(from));
            Some((log.head().clone(), log.page_size, files?))
        });
        self.gather(plan.flatten()).await
    }

    /// Every page of the position after `txid`.
    pub(crate) async fn images_at(&self, txid: TxId) -> Result<Option<(Entry, Images)>> {
        let plan = self.read(|log| Some((log.entry(txid)?.clone(), log.page_size, log.files_of(txid)?)));
        self.gather(plan.flatten()).await
    }

    async fn gather(
        &self,
        plan: Option<(Entry, PageSize, Vec<Arc<StoredFile>>)>,
    ) -> Result<Option<(Entry, Images)>> {
        let Some((entry, page_size, files)) = plan else { return Ok(None) };
        let size = (page_size, entry.page_count);
        let images = Images::newest(&self.context.store, &self.name, size, files).await?;
        Ok(Some((entry, images)))
    }

    /// The hashes of pages of the head, in the order of `pages`; read and remembered where they
    /// were not known. Pages that the head does not have are left out.
    pub(crate) async fn head_hashes(
        &self,
        pages: impl Iterator<Item = PageNo> + Clone,
    ) -> Result<Vec<(PageNo, highwater_pages::PageHash)>> {
        let missing = self.read(|log| {
            let unknown = |page: &PageNo| log.table.hash(*page).is_none();
            let list: Vec<_> =
                pages.clone().filter(unknown).filter_map(|page| log.table.image(page)).collect();
            let files = if list.is_empty() { Vec::new() } else { log.table.files().to_vec() };
            Images { db: self.name.clone(), page_size: log.page_size, files, list }
        });
        let Some(missing) = missing.map(Arc::new) else { return Ok(Vec::new()) };
        if !missing.list.is_empty() {
            let found = missing.hashes(&self.context.store).await?;
            self.write(|log| {
                if let Some(log) = log {
                    found.iter().for_each(|(image, hash)| log.table.remember(*image, *hash));
                }
            });
        }
        Ok(self
            .read(|log| pages.filter_map(|page| Some((page, log.table.hash(page)?))).collect())
            .unwrap_or_default())
    }

    /// Where those pages of the head stand; `None` when the head is another one by now.
    pub(crate) fn images_of_head(&self, head: TxId, pages: &BTreeSet<PageNo>) -> Option<Images> {
        let found = self.read(|log| {
            let list = pages.iter().filter_map(|page| log.table.image(*page)).collect();
            let files = log.table.files().to_vec();
            (log.head().txid == head).then(|| Images {
                db: self.name.clone(),
                page_size: log.page_size,
                files,
                list,
            })
        });
        found.flatten()
    }

    /// One page of the head, canonical; `None` when it has no such page.
    pub(crate) async fn head_page(&self, page: PageNo) -> Result<Option<Vec<u8>>> {
        let found = self.read(|log| {
            let list = vec![log.table.image(page)?];
            let files = log.table.files().to_vec();
            Some(Images { db: self.name.clone(), page_size: log.page_size, files, list })
        });
        let Some(images) = found.flatten() else { return Ok(None) };
        let mut data = Vec::new();
        images.read_one(&self.context.store, 0, &mut data).await?;
        Ok(Some(data))
    }

    /// Marks the beginning of a snapshot; false when one is being written already, or failed lately.
    fn begin_snapshot(&self) -> bool {
        let failed = self.snapshot_failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_none_or(|failed| failed.elapsed() > AFTER_FAILURE)
            && !self.context.stopping.load(Ordering::SeqCst)
            && !self.snapshotting.swap(true, Ordering::SeqCst)
    }
}

/// Milliseconds since then, for the log.
pub(crate) fn ms_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}
