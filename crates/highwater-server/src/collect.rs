//! Removing for good what was deleted long enough ago.
//!
//! Order: the event `collecting` is added (from then on the deletion cannot be undone), the objects are removed,
//! the event `collected` is added and the name is free. Killed anywhere, the next run goes on: whoever
//! finds a claim that is older than [`TAKEN_OVER`] makes its own.
//!
//! A slow collector must not remove files of a new database of that name. So it works for
//! [`GIVES_UP`] at most, and nobody else, who would free the name, begins before twice that time: the servers'
//! clocks may differ by as much as lies between. A claim ends with the next event, too: where `keep` is short, another
//! server takes over as early. `collected` is added only when nothing is left.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use highwater_pages::kill_point;
use highwater_wire::{AdminEventKind as Kind, DbName};
use object_store::path::Path;

use crate::lifecycle::{self, Lifecycle, now_ms};
use crate::log::Context;
use crate::store::Store;
use crate::{Error, Result, paths};

/// The longest that one collector works on a database.
const GIVES_UP: Duration = Duration::from_secs(30 * 60);
/// When another one takes over.
const TAKEN_OVER: Duration = Duration::from_secs(60 * 60);
/// Who removes, in events.
const BY: &str = "server";

/// Looks for what is to be removed, now and every [`crate::DeletionPolicy::check`], as long as the server exists.
pub(crate) async fn run(context: Weak<Context>) {
    loop {
        let check = {
            let Some(context) = context.upgrade() else { return };
            if context.stopping.load(Ordering::SeqCst) {
                return;
            }
            let tasks = context.tasks.clone();
            // Shutting down waits for the database that is being removed.
            tasks.track_future(due(&context)).await;
            context.deletion.check
        };
        tokio::time::sleep(check).await;
    }
}

/// Removes every database whose time has come.
async fn due(context: &Context) {
    let names = match context.store.administered().await {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(error = %crate::error::chain(&error), "could not look for deleted databases");
            return;
        }
    };
    for name in names {
        if context.stopping.load(Ordering::SeqCst) {
            return;
        }
        match collect(&context.store, &name, context.deletion.keep).await {
            Ok(None) => {}
            Ok(Some(files)) => {
                context.metrics.collected.inc();
                tracing::info!(db = %name, files, "removed a deleted database; its name is free");
            }
            Err(error) => tracing::warn!(
                db = %name, error = %crate::error::chain(&error),
                "could not remove a deleted database; it is tried again"
            ),
        }
    }
}

/// Removes the objects of a database if its time has come; how many.
async fn collect(store: &Store, db: &DbName, keep: Duration) -> Result<Option<usize>> {
    let Some(claim) = Claim::stake(store, db, keep).await? else { return Ok(None) };
    kill_point("server-collect-claimed");
    let Some(removed) = claim.remove(store, db).await? else { return Ok(None) };
    kill_point("server-collect-before-event");
    let mut ours = false;
    lifecycle::change(store, db, BY, |lifecycle| {
        ours = lifecycle.next(db) == claim.successor && claim.began.elapsed() <= GIVES_UP;
        Ok::<_, Error>(ours.then_some(Kind::Collected))
    })
    .await?;
    Ok(ours.then_some(removed))
}

/// The right to remove a database's objects.
struct Claim {
    began: Instant,
    /// The event that ends it, by whomever.
    successor: Path,
}

impl Claim {
    /// `None` when nothing is due, or another server was faster.
    async fn stake(store: &Store, db: &DbName, keep: Duration) -> Result<Option<Self>> {
        if !is_due(&Lifecycle::read(store, db).await?, keep) {
            return Ok(None);
        }
        let began = Instant::now();
        let mut claimed = false;
        let before = lifecycle::change(store, db, BY, |lifecycle| {
            claimed = is_due(lifecycle, keep);
            Ok::<_, Error>(claimed.then_some(Kind::Collecting))
        })
        .await?;
        let successor = paths::event(db, before.events().len() as u64 + 2);
        Ok(claimed.then_some(Self { began, successor }))
    }

    /// Removes every object; how many, or `None` when another server took over.
    async fn remove(&self, store: &Store, db: &DbName) -> Result<Option<usize>> {
        let mut removed = 0;
        for folder in paths::removed_with(db) {
            for object in store.list(&folder).await? {
                if self.began.elapsed() > GIVES_UP {
                    return Err(Error::Administered { database: db.to_string() });
                }
                // Where `keep` is short it may have come early, and the name be somebody else's by now.
                if store.size(&self.successor).await?.is_some() {
                    return Ok(None);
                }
                store.remove(&object.location).await;
                removed += 1;
                kill_point("server-collect-removed-one");
            }
        }
        for folder in paths::removed_with(db) {
            if let Some(left) = store.list(&folder).await?.first() {
                return Err(Error::damaged(&left.location, "it could not be removed with its database"));
            }
        }
        Ok(Some(removed))
    }
}

/// Whether a deletion is older than `keep` and nobody is at it.
fn is_due(lifecycle: &Lifecycle, keep: Duration) -> bool {
    let older = |time_ms: i64, than: Duration| {
        u128::try_from(now_ms().saturating_sub(time_ms)).is_ok_and(|age| age >= than.as_millis())
    };
    match (lifecycle.deleted(), lifecycle.collecting()) {
        (None, _) => false,
        // Where little time is left to undo anything, little is waited for, too.
        (Some(_), Some(claim)) => older(claim.time_ms, TAKEN_OVER.min(keep)),
        (Some(deleted), None) => older(deleted.time_ms, keep),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreUrl;
    use bytes::Bytes;
    use highwater_ltx::TxId;

    #[tokio::test]
    async fn a_collector_that_was_succeeded_removes_nothing_of_a_new_database() {
        let store = Store::open(&StoreUrl::Memory).unwrap();
        let db: DbName = "app".parse().unwrap();
        let push = paths::push(&db, TxId(1));
        store.create(&push, Bytes::from_static(b"old")).await.unwrap();
        lifecycle::change(&store, &db, "test", |_| Ok::<_, Error>(Some(Kind::Deleted))).await.unwrap();
        let slow = Claim::stake(&store, &db, Duration::ZERO).await.unwrap().unwrap();
        assert_eq!(collect(&store, &db, Duration::ZERO).await.unwrap(), Some(1));
        store.create(&push, Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(slow.remove(&store, &db).await.unwrap(), None);
        assert_eq!(store.size(&push).await.unwrap(), Some(3));
    }
}
