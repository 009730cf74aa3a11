//! Pushes of libSQL clients that were refused: such a client is told `conflict` and no more, so that somebody can
//! read here why.
//!
//! Two objects in the folder of what was merged, under one name: the pages as an LTX file (unless they are many), then
//! the record. A client that tries again with the same frames for the same reason changes nothing; when either is another
//! one, the newer record takes the place of the older. When the client gets through, the record is marked as seen and
//! the pages are removed: they are in the log. A record has no part in what is served or merged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use highwater_ltx::{FrameNo, PageNo, Place};
use highwater_pages::{kill_point, page_hash};
use highwater_wire::{DbName, RefusedPush};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::delta::{Delta, DeltaImages};
use super::state::Overlay;
use super::{Database, LIBSQL, Refusal};
use crate::lifecycle::now_ms;
use crate::{Error, Result, paths};

/// The version of a record.
const RECORD: u32 = 1;
/// The most records of a database; then those that were seen make room, and without such none is added.
const MOST: usize = 1000;

/// The name of a record: `refused-<salts>-<last>-<time>-<key>`, all in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RefusedName {
    /// Of the client's log: they tell clients apart.
    pub(crate) salts: u64,
    /// The last of the refused frames.
    pub(crate) last: FrameNo,
    /// Milliseconds since 1970.
    time_ms: u64,
    /// A hash of what was refused, and why.
    key: u128,
}

impl RefusedName {
    fn stem(&self) -> String {
        let Self { salts, last, time_ms, key } = self;
        format!("refused-{salts:016x}-{:016x}-{time_ms:016x}-{key:032x}", last.0)
    }

    fn object(&self, db: &DbName, ending: &str) -> Path {
        paths::merge(db, &format!("{}.{ending}", self.stem()))
    }

    /// What people and requests call it.
    pub(crate) fn id(&self) -> String {
        format!("r{:016x}", self.salts)
    }

    /// The salts in an id.
    pub(crate) fn salts_of(id: &str) -> Option<u64> {
        let digits = id.strip_prefix('r').filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    }

    /// Reads a name and its ending; `None` for anything else in the folder.
    fn parse(object: &Path) -> Option<(Self, &str)> {
        let (stem, ending) = object.filename()?.strip_prefix("refused-")?.split_once('.')?;
        let mut parts = stem.split('-');
        let mut next = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            u128::from_str_radix(part, 16).ok()
        };
        let name = Self {
            salts: u64::try_from(next(16)?).ok()?,
            last: FrameNo(u64::try_from(next(16)?).ok()?),
            time_ms: u64::try_from(next(16)?).ok()?,
            key: next(32)?,
        };
        parts.next().is_none().then_some((name, ending))
    }
}

/// The records of a database, by their names.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// The newest of each client's log.
    all: BTreeMap<u64, RefusedName>,
    seen: BTreeSet<RefusedName>,
    /// The log whose push began the database.
    founder: Option<u64>,
}

impl Refusals {
    /// Takes in what the folder says.
    pub(crate) fn add_all(&mut self, objects: &[ObjectMeta]) {
        for object in objects {
            self.founder = paths::founder_of(&object.location).or(self.founder);
            match RefusedName::parse(&object.location) {
                Some((name, "json")) => self.add(name),
                Some((name, "seen")) => {
                    self.seen.insert(name);
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, name: RefusedName) {
        let newest = self.all.entry(name.salts).or_insert(name);
        if name.time_ms > newest.time_ms {
            *newest = name;
        }
    }

    fn remove(&mut self, name: &RefusedName) {
        self.seen.remove(name);
        if self.all.get(&name.salts) == Some(name) {
            self.all.remove(&name.salts);
        }
    }

    /// Whether the database was begun by a push of this log.
    pub(crate) fn is_founder(&self, salts: [u8; 8]) -> bool {
        self.founder == Some(u64::from_be_bytes(salts))
    }

    /// That of a client's log.
    pub(crate) fn get(&self, salts: u64) -> Option<RefusedName> {
        self.all.get(&salts).copied()
    }

    /// Newest first; without `all` those that nobody has seen.
    pub(crate) fn newest_first(&self, all: bool) -> Vec<RefusedName> {
        let mut names: Vec<_> =
            self.all.values().filter(|name| all || !self.is_seen(name)).copied().collect();
        names.sort_unstable_by_key(|name| std::cmp::Reverse(name.time_ms));
        names
    }

    fn is_seen(&self, name: &RefusedName) -> bool {
        self.seen.contains(name)
    }

    /// About how much memory they take, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.all.len() as u64 * 150
    }

    /// The one that has to go before another client's is added; `Err`: there is no room.
    fn make_room(&self, salts: u64) -> Result<Option<RefusedName>, ()> {
        if let Some(own) = self.get(salts) {
            return Ok(Some(own));
        }
        if self.all.len() < MOST {
            return Ok(None);
        }
        let seen = self.all.values().filter(|name| self.is_seen(name));
        seen.min_by_key(|name| name.time_ms).map(|name| Some(*name)).ok_or(())
    }
}

/// What was refused.
#[derive(Debug)]
pub(crate) struct RefusedFrames<'a> {
    /// As far as it is known: the token's subject, or the address.
    pub(crate) client: &'a str,
    /// Of the client's log.
    pub(crate) salts: [u8; 8],
    /// What the frames continue, as the client counts.
    pub(crate) after: Place,
    pub(crate) frames: u64,
}

impl Database {
    /// Records that frames were refused. A failure to do so is only logged: the client is told all the same.
    pub(crate) async fn refuse(
        self: &Arc<Self>,
        frames: &RefusedFrames<'_>,
        refusal: &Refusal,
        delta: Option<Delta>,
    ) {
        if let Err(error) = self.try_refuse(frames, refusal, delta).await {
            let error = crate::error::chain(&error);
            tracing::warn!(db = %self.name, %error, "could not record why a push was refused");
        }
    }

    /// Whether the same frames were refused for the same reason before, and that is recorded.
    pub(crate) fn is_refused(&self, frames: &RefusedFrames<'_>, refusal: &Refusal) -> bool {
        let found = self.read(|log| log.refusals.get(u64::from_be_bytes(frames.salts))).flatten();
        found.is_some_and(|found| key(frames, refusal) == Some(found.key))
    }

    async fn try_refuse(
        self: &Arc<Self>,
        frames: &RefusedFrames<'_>,
        refusal: &Refusal,
        delta: Option<Delta>,
    ) -> Result<()> {
        let Some(key) = key(frames, refusal).filter(|_| !self.is_refused(frames, refusal)) else {
            return discard(self, delta).await;
        };
        let (salts, now) = (u64::from_be_bytes(frames.salts), now_ms());
        let last = FrameNo(frames.after.frame.0 + frames.frames);
        let name = RefusedName { salts, last, time_ms: u64::try_from(now).unwrap_or(0), key };
        let Some(Ok(goes)) = self.read(|log| log.refusals.make_room(salts)) else {
            tracing::warn!(
                db = %self.name, client = frames.client,
                "a refused push is not recorded: {MOST} are, and nobody has marked one of them as seen"
            );
            return discard(self, delta).await;
        };
        let mut record = self.record_of(&name, frames, refusal);
        if let Some(delta) = delta {
            record.pages = u32::try_from(delta.pages.len()).unwrap_or(u32::MAX);
            record.state = Some(delta.state.to_string());
            self.keep(delta, &name.object(&self.name, "ltx")).await?;
        }
        kill_point("server-refused-before-record");
        let bytes = serde_json::to_vec(&record).map_err(|error| Error::Run(std::io::Error::other(error)))?;
        self.context.store.create(&name.object(&self.name, "json"), Bytes::from(bytes)).await?;
        if let Some(goes) = goes {
            self.forget(&goes).await;
        }
        self.with_refusals(|refusals| refusals.add(name));
        Ok(())
    }

    fn record_of(&self, name: &RefusedName, frames: &RefusedFrames<'_>, refusal: &Refusal) -> RefusedPush {
        let head = self.read(|log| log.head().position.into());
        let (detail, object, conflicts) = match refusal {
            Refusal::Conflict(met) => (Some(&met.0), None, met.1.clone()),
            Refusal::CannotMerge(why) => (Some(&why.0), why.1.object.clone(), Vec::new()),
            _ => (None, None, Vec::new()),
        };
        RefusedPush {
            version: RECORD,
            id: name.id(),
            client: frames.client.to_owned(),
            time_ms: i64::try_from(name.time_ms).unwrap_or(i64::MAX),
            generation: frames.after.generation.0,
            after: frames.after.frame.0,
            frames: frames.frames,
            pages: 0,
            state: None,
            base: detail.map(|detail| detail.base.clone()),
            head: detail.map(|detail| detail.head.clone()).or(head),
            object,
            reason: reason(refusal).unwrap_or_default(),
            conflicts,
            resolved: false,
        }
    }

    /// Keeps the pages of a refused push.
    async fn keep(self: &Arc<Self>, mut delta: Delta, object: &Path) -> Result<()> {
        if let DeltaImages::Staged(staged) = &delta.images {
            return self.context.store.publish(&staged.path, object).await.map(drop);
        }
        let Some(overlay) = Overlay::of(&mut delta) else { return Ok(()) };
        match self.store_overlay(&overlay, &delta, LIBSQL, object).await {
            Err(Refusal::Failed(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The record of that name; `None` when it is gone.
    pub(crate) async fn refused(&self, name: &RefusedName) -> Result<Option<RefusedPush>> {
        let object = name.object(&self.name, "json");
        let Some(size) = self.context.store.size(&object).await? else { return Ok(None) };
        let bytes = self.context.store.read_one(&object, 0..size).await?;
        let record = serde_json::from_slice(&bytes)
            .map_err(|error| Error::damaged(&object, format!("it is no record of a push: {error}")))?;
        let resolved = self.read(|log| log.refusals.is_seen(name)).unwrap_or(false);
        Ok(Some(RefusedPush { resolved, ..record }))
    }

    /// Notes whose push began the database, so that an older copy of that client's files is not taken for a client that
    /// began with an empty database, too.
    pub(crate) async fn begun_by(&self, salts: [u8; 8]) -> Result<()> {
        let salts = u64::from_be_bytes(salts);
        self.context.store.create(&paths::founder(&self.name, salts), Bytes::new()).await?;
        self.with_refusals(|refusals| refusals.founder = Some(salts));
        Ok(())
    }

    /// A client's log came through up to that frame.
    pub(crate) async fn came_through(&self, salts: [u8; 8], last: FrameNo) {
        let found = self.read(|log| {
            let found = log.refusals.get(u64::from_be_bytes(salts))?;
            (found.last <= last && !log.refusals.is_seen(&found)).then_some(found)
        });
        if let Some(name) = found.flatten()
            && let Err(error) = self.see_refused(&name).await
        {
            let error = crate::error::chain(&error);
            tracing::warn!(db = %self.name, %error, "could not note that a refused push came through");
        }
    }

    /// Marks a record as seen. Its pages are not kept any longer.
    pub(crate) async fn see_refused(&self, name: &RefusedName) -> Result<()> {
        self.context.store.create(&name.object(&self.name, "seen"), Bytes::new()).await?;
        self.with_refusals(|refusals| {
            refusals.seen.insert(*name);
        });
        self.context.store.remove(&name.object(&self.name, "ltx")).await;
        Ok(())
    }

    async fn forget(&self, name: &RefusedName) {
        // The record goes last: what is left of a removal that was cut short is found by it.
        for ending in ["ltx", "seen", "json"] {
            self.context.store.remove(&name.object(&self.name, ending)).await;
        }
        self.with_refusals(|refusals| refusals.remove(name));
    }

    fn with_refusals(&self, change: impl FnOnce(&mut Refusals)) {
        self.write(|log| {
            if let Some(log) = log {
                change(&mut log.refusals);
            }
        });
    }
}

async fn discard(db: &Database, delta: Option<Delta>) -> Result<()> {
    if let Some(delta) = delta {
        delta.discard(&db.context.store).await;
    }
    Ok(())
}

/// Why, as a clause; `None` for what is no matter of the rules.
pub(crate) fn reason(refusal: &Refusal) -> Option<String> {
    match refusal {
        Refusal::Conflict(met) => {
            Some(format!("the policy is to merge nothing that meets ({} rows do)", met.1.len()))
        }
        Refusal::CannotMerge(why) => Some(why.1.reason.clone()),
        Refusal::UnknownBase(_) => Some("its log does not continue this database's history".to_owned()),
        _ => None,
    }
}

fn key(frames: &RefusedFrames<'_>, refusal: &Refusal) -> Option<u128> {
    let RefusedFrames { after, frames, .. } = frames;
    let text = format!("{} {} {frames} {}", after.generation.0, after.frame.0, reason(refusal)?);
    Some(page_hash(PageNo(0), text.as_bytes()).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(salts: u64, time_ms: u64) -> RefusedName {
        RefusedName { salts, last: FrameNo(7), time_ms, key: u128::MAX - u128::from(time_ms) }
    }

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let (db, name) = ("team/app".parse().unwrap(), name(u64::MAX - 3, 9));
        for ending in ["json", "ltx", "seen"] {
            assert_eq!(RefusedName::parse(&name.object(&db, ending)), Some((name, ending)));
            assert_eq!(super::super::MergeName::parse(&name.object(&db, ending)), None);
        }
        assert_eq!(RefusedName::salts_of(&name.id()), Some(name.salts));
        assert_eq!(RefusedName::salts_of("12"), None);
    }

    #[test]
    fn records_are_bounded_and_those_that_were_seen_make_room() {
        let mut refusals = Refusals::default();
        (0..MOST as u64).for_each(|salts| refusals.add(name(salts, salts)));
        assert_eq!(refusals.make_room(3), Ok(Some(name(3, 3))), "each client has one");
        assert_eq!(refusals.make_room(u64::MAX), Err(()));
        refusals.seen.insert(name(5, 5));
        refusals.seen.insert(name(9, 9));
        assert_eq!(refusals.make_room(u64::MAX), Ok(Some(name(5, 5))));
        refusals.add(name(9, 10));
        assert_eq!(refusals.newest_first(false).len(), MOST - 1);
    }
}
