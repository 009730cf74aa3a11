//! What a store holds, database by database, without opening them: from the names and sizes of all
//! objects, and the headers of a few.

use std::collections::BTreeMap;

use highwater_ltx::{Header, TxId};
use highwater_wire::{AdminDatabase, AdminState, DbName};
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::lifecycle::Lifecycle;
use crate::log::Context;
use crate::store::Store;
use crate::{Result, paths};

/// What the names of its objects tell of a database.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) pushes: u64,
    pub(crate) snapshots: u64,
    /// Of all files of its log.
    pub(crate) stored_bytes: u64,
    /// Whether something happened to it as a whole.
    pub(crate) administered: bool,
    oldest: Option<(TxId, Path, u64)>,
    newest: Option<(TxId, Path, u64)>,
}

impl Found {
    fn file(&mut self, object: ObjectMeta) {
        let Some((min, max)) = paths::covers(&object.location) else { return };
        let snapshot = min != max || object.location.as_ref().contains("/ltx/9/");
        *(if snapshot { &mut self.snapshots } else { &mut self.pushes }) += 1;
        self.stored_bytes += object.size;
        let file = (max, object.location, object.size);
        if self.newest.as_ref().is_none_or(|newest| newest.0 < max) {
            self.newest = Some(file.clone());
        }
        if self.oldest.as_ref().is_none_or(|oldest| max < oldest.0) {
            self.oldest = Some(file);
        }
    }
}

/// Every name in the store, by name.
pub(crate) async fn inventory(store: &Store) -> Result<BTreeMap<DbName, Found>> {
    let mut found: BTreeMap<DbName, Found> = BTreeMap::new();
    store
        .each(|object| {
            if let Some(name) = paths::database_of(&object.location) {
                found.entry(name).or_default().file(object);
            } else if let Some(name) = paths::database_of_event(&object.location) {
                found.entry(name).or_default().administered = true;
            }
        })
        .await?;
    Ok(found)
}

/// What the store holds of one name.
pub(crate) async fn find(store: &Store, name: &DbName) -> Result<Found> {
    let mut found = Found::default();
    for object in crate::lifecycle::files_of(store, name).await? {
        found.file(object);
    }
    found.administered = !store.list(&paths::events(name)).await?.is_empty();
    Ok(found)
}

/// A database as an administrator sees it; `None` when the name is free.
pub(crate) async fn describe(
    context: &Context,
    name: &DbName,
    found: &Found,
    open: bool,
) -> Result<Option<(AdminDatabase, Lifecycle)>> {
    let store = &context.store;
    let lifecycle =
        if found.administered { Lifecycle::read(store, name).await? } else { Lifecycle::default() };
    let state = match (lifecycle.deleted(), lifecycle.collecting()) {
        (Some(_), Some(_)) => AdminState::Removing,
        (Some(_), None) => AdminState::Deleted,
        (None, _) if found.newest.is_some() => AdminState::Live,
        (None, _) if lifecycle.is_reserved() => AdminState::Empty,
        (None, _) => return Ok(None),
    };
    let deleted_ms = lifecycle.deleted().map(|event| event.time_ms);
    let keep = i64::try_from(context.deletion.keep.as_millis()).unwrap_or(i64::MAX);
    let mut database = AdminDatabase {
        name: name.to_string(),
        state,
        head: None,
        txid: found.newest.as_ref().map_or(0, |(txid, ..)| txid.0),
        page_size: 0,
        page_count: 0,
        bytes: 0,
        stored_bytes: found.stored_bytes,
        created_ms: None,
        updated_ms: None,
        open,
        deleted_ms,
        removed_after_ms: deleted_ms.map(|deleted| deleted.saturating_add(keep)),
        problem: None,
    };
    // Files that are being removed may go at any moment.
    if state != AdminState::Removing {
        heads(store, found, &mut database).await;
    }
    Ok(Some((database, lifecycle)))
}

/// What the headers of the oldest and the newest file tell.
async fn heads(store: &Store, found: &Found, database: &mut AdminDatabase) {
    if let Some(newest) = &found.newest {
        match header(store, newest).await {
            Ok(header) => {
                database.head = header.place().zip(header.state).map(|(place, state)| {
                    highwater_ltx::Position { generation: place.generation, frame: place.frame, state }.into()
                });
                database.page_size = header.page_size.get();
                database.page_count = header.commit.0;
                database.bytes = header.commit.bytes(header.page_size);
                database.updated_ms = Some(header.timestamp_ms);
            }
            Err(error) => database.problem = Some(crate::error::chain(&error)),
        }
    }
    if let Some(oldest) = &found.oldest
        && let Ok(header) = header(store, oldest).await
    {
        database.created_ms = Some(header.timestamp_ms);
    }
}

async fn header(store: &Store, (_, path, size): &(TxId, Path, u64)) -> Result<Header> {
    let head = store.read_one(path, 0..(*size).min(Header::SIZE as u64)).await?;
    Header::decode(&head).map_err(|error| crate::Error::undecodable(path, error))
}
