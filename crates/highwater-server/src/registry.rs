//! The databases that are open in memory, at most a configured number and about so many bytes; the
//! ones that were not asked for the longest are let go. A database that is let go while a request still uses it stays usable:
//! the store, not memory, says what is true.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use highwater_wire::DbName;
use tokio::sync::OnceCell;

use crate::Result;
use crate::log::{Context, Database};

/// Databases grow as they are pushed to: after so many requests their memory is counted again.
const RECOUNT: u64 = 256;

type Slot = Arc<OnceCell<Arc<Database>>>;

/// Open databases by name.
#[derive(Debug)]
pub(crate) struct Registry {
    context: Arc<Context>,
    slots: Mutex<HashMap<DbName, Slot>>,
    /// Counts requests: the age of a database is how long ago it was asked for.
    clock: AtomicU64,
}

impl Registry {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, slots: Mutex::default(), clock: AtomicU64::new(1) }
    }

    /// The database of that name, opened if it is not; it may not exist in the store.
    pub(crate) async fn get(&self, name: &DbName) -> Result<Arc<Database>> {
        let mut database = self.opened(name).await?;
        if database.is_stale() {
            self.forget(name);
            database = self.opened(name).await?;
        }
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let before = database.last_used.swap(now, Ordering::Relaxed);
        // 0: it was just opened.
        self.evict(before == 0 || now.is_multiple_of(RECOUNT));
        Ok(database)
    }

    /// The database if it is in memory.
    pub(crate) fn in_memory(&self, name: &DbName) -> Option<Arc<Database>> {
        self.with(|slots| slots.get(name)?.get().cloned())
    }

    async fn opened(&self, name: &DbName) -> Result<Arc<Database>> {
        let slot = self.with(|slots| Arc::clone(slots.entry(name.clone()).or_default()));
        let opened =
            slot.get_or_try_init(async || Database::open(&self.context, name).await.map(Arc::new)).await;
        match opened {
            Ok(database) => Ok(Arc::clone(database)),
            Err(error) => {
                self.forget(name);
                Err(error)
            }
        }
    }

    /// Lets go of a database that turned out not to exist.
    pub(crate) fn forget(&self, name: &DbName) {
        self.with(|slots| slots.remove(name));
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<DbName, Slot>) -> T) -> T {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut slots);
        self.context.metrics.open.set(i64::try_from(slots.len()).unwrap_or(i64::MAX));
        result
    }

    fn evict(&self, count: bool) {
        let limits = &self.context.limits;
        self.with(|slots| {
            let memory = |slot: &Slot| slot.get().map_or(0, |db| db.memory());
            let mut bytes = if count { slots.values().map(memory).sum() } else { 0 };
            // The last one stays however large it is: somebody is using it.
            while slots.len() > limits.open_databases.max(1) || (bytes > limits.open_bytes && slots.len() > 1)
            {
                let age =
                    |slot: &Slot| slot.get().map_or(u64::MAX, |db| db.last_used.load(Ordering::Relaxed));
                let Some(oldest) =
                    slots.iter().min_by_key(|(_, slot)| age(slot)).map(|(name, _)| name.clone())
                else {
                    return;
                };
                tracing::debug!(db = %oldest, "closed: it was not asked for the longest");
                let closed = slots.remove(&oldest);
                bytes = bytes.saturating_sub(closed.as_ref().map_or(0, memory));
            }
        });
    }
}
