//! What happens to a database as a whole: reserved, deleted, brought back, removed for good.
//!
//! Each happening is an object `DB/admin/<number>.json`, numbered from 1 without gaps, made once and
//! never changed or removed. The newest says how things stand. So whoever has a database open finds out about
//! everything that was done to it since, by any server on the store, with a single question: is
//! there an event with the next number? (A tombstone that comes and goes could come, be undone, or be
//! followed by a new database of the same name between two looks, and nobody would notice.)
//!
//! Invariants
//! - Two servers that want to add an event race for its number; one wins, the other reads on and decides again.
//! - A push that was accepted in the moment of a deletion belongs to what was deleted: it is kept with it, and
//!   comes back with it. Nothing brings a deleted database back but [`Kind::Undeleted`].
//! - Objects of the log are removed only after [`Kind::Collecting`] was added, and it cannot be undone.
//! - The generations of a new database of a removed one's name begin [`STRIDE`] behind the last: a (generation, frame)
//!   names one history for ever.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use highwater_ltx::{Generation, Header, TxId};
use highwater_pages::kill_point;
use highwater_wire::{AdminEvent, AdminEventKind as Kind, DbName};
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::store::{Created, Store};
use crate::{Error, Result, paths, staging};

/// How far a new database's generations stay from those of the one that had its name.
const STRIDE: u32 = 16;

/// How often a server that loses the race for the next event looks again before it gives up.
const ATTEMPTS: usize = 16;

/// Everything that happened to a database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lifecycle {
    events: Vec<AdminEvent>,
}

impl Lifecycle {
    /// Reads what the store has.
    pub(crate) async fn read(store: &Store, db: &DbName) -> Result<Self> {
        let mut objects: Vec<Path> =
            store.list(&paths::events(db)).await?.into_iter().map(|object| object.location).collect();
        objects.retain(|object| paths::event_number(object).is_some());
        objects.sort_unstable();
        for (at, object) in objects.iter().enumerate() {
            if paths::event_number(object) != Some(at as u64 + 1) {
                return Err(Error::damaged(object, "an event before it is missing"));
            }
        }
        let read = futures::stream::iter(objects).map(async |object| {
            let size = store.size(&object).await?.unwrap_or_default();
            let bytes = store.read_one(&object, 0..size).await?;
            serde_json::from_slice(&bytes).map_err(|error| {
                Error::damaged(&object, format!("it is not an event that this version knows ({error})"))
            })
        });
        Ok(Self { events: read.buffered(8).try_collect().await? })
    }

    /// The name of the event that would come next.
    pub(crate) fn next(&self, db: &DbName) -> Path {
        paths::event(db, self.events.len() as u64 + 1)
    }

    /// Everything that happened, oldest first.
    pub(crate) fn events(&self) -> &[AdminEvent] {
        &self.events
    }

    fn last(&self) -> Option<&AdminEvent> {
        self.events.last()
    }

    /// The deletion, if the database is deleted now.
    pub(crate) fn deleted(&self) -> Option<&AdminEvent> {
        match self.last()?.event {
            Kind::Deleted | Kind::Collecting => {
                self.events.iter().rev().find(|event| event.event == Kind::Deleted)
            }
            _ => None,
        }
    }

    /// The claim of whoever removes its objects now, or was interrupted.
    pub(crate) fn collecting(&self) -> Option<&AdminEvent> {
        self.last().filter(|event| event.event == Kind::Collecting)
    }

    /// Whether the name is kept for a database that anyone who may write may begin.
    pub(crate) fn is_reserved(&self) -> bool {
        let last = |kind| self.events.iter().rposition(|event| event.event == kind);
        last(Kind::Created) > last(Kind::Collected)
    }

    /// The generation that the first push begins.
    pub(crate) fn first_generation(&self) -> Generation {
        let removed = self.events.iter().filter(|event| event.event == Kind::Collected);
        let last = removed.map(|event| event.generation).max().unwrap_or(0);
        if last == 0 { Generation::FIRST } else { Generation(last.saturating_add(STRIDE)) }
    }

    /// Adds an event; false when another server added one first.
    async fn append(&self, store: &Store, db: &DbName, kind: Kind, what: &What) -> Result<bool> {
        let event = AdminEvent {
            version: 1,
            event: kind,
            time_ms: now_ms(),
            by: what.by.clone(),
            generation: what.last.0,
            txid: what.last.1.0,
            id: format!("{:016x}", staging::unique() >> 64),
        };
        // Plain strings and numbers: this cannot fail.
        let bytes = Bytes::from(serde_json::to_vec(&event).unwrap_or_default());
        Ok(store.create(&self.next(db), bytes).await? == Created::Ours)
    }
}

/// What an event tells besides its kind.
#[derive(Debug, Clone)]
pub(crate) struct What {
    /// Who asked for it, in words fit for a log.
    pub(crate) by: String,
    /// The last generation and transaction of its log.
    pub(crate) last: (u32, TxId),
}

/// Adds an event, if `decide` says which, to how things stand then. Returns how they stood.
pub(crate) async fn change<E: From<Error>>(
    store: &Store,
    db: &DbName,
    by: &str,
    mut decide: impl FnMut(&Lifecycle) -> Result<Option<Kind>, E>,
) -> Result<Lifecycle, E> {
    for _ in 0..ATTEMPTS {
        let lifecycle = Lifecycle::read(store, db).await?;
        let Some(kind) = decide(&lifecycle)? else { return Ok(lifecycle) };
        let mut last = last_of(store, db).await?;
        if matches!(kind, Kind::Collecting | Kind::Collected) {
            // Some of the objects may be gone already.
            let earlier = lifecycle.collecting().map(|event| (event.generation, TxId(event.txid)));
            last = last.max(earlier.unwrap_or(last));
        }
        let what = What { by: by.to_owned(), last };
        kill_point("server-admin-before-event");
        if lifecycle.append(store, db, kind, &what).await? {
            kill_point("server-admin-after-event");
            return Ok(lifecycle);
        }
    }
    Err(Error::Administered { database: db.to_string() }.into())
}

/// The last generation and transaction of a log, from its newest file that can be read; a damaged
/// file may have begun a generation. Zero when there is none.
async fn last_of(store: &Store, db: &DbName) -> Result<(u32, TxId)> {
    let mut files = files_of(store, db).await?;
    files.sort_by_key(|object| std::cmp::Reverse(paths::covers(&object.location).map(|(_, last)| last)));
    let newest = files.first().and_then(|object| paths::covers(&object.location));
    let Some((_, newest)) = newest else { return Ok((0, TxId(0))) };
    let mut unknown = 0;
    for object in files {
        let head = store.read_one(&object.location, 0..object.size.min(Header::SIZE as u64)).await;
        let place = head.ok().and_then(|head| Header::decode(&head).ok()?.place());
        if let Some(place) = place {
            return Ok((place.generation.0.saturating_add(unknown), newest));
        }
        unknown = unknown.saturating_add(1);
    }
    Ok((unknown, newest))
}

/// The files of a database's log.
pub(crate) async fn files_of(store: &Store, db: &DbName) -> Result<Vec<ObjectMeta>> {
    let (pushes, snapshots) = (paths::pushes(db), paths::snapshots(db));
    let (mut files, snapshots) = tokio::try_join!(store.list(&pushes), store.list(&snapshots))?;
    files.extend(snapshots);
    files.retain(|object| paths::covers(&object.location).is_some());
    Ok(files)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
