//! Ids that rows got on a device: it had given them while the answer to a push that was merged was under way, and rebased those
//! rows onto the answer itself. What it tells is added to the record of that merge.
//!
//! Each is an object beside the record, `<txid>-rebased-<device>-<state>.json`: the merge's number, the device, and its file's state. The name makes
//! telling it twice the same as once. It has no part in what is served or merged.

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_ltx::{DeviceId, StateHash, TxId};
use highwater_pages::kill_point;
use highwater_wire::{Conflict, DbName, Rebased};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::{Database, MergeName};
use crate::{Error, Result, paths};

/// So much can be told of one merge: a device tells of it once, and once more for each time that it was killed over it.
const MOST: usize = 16;

/// What a device told of a merge, as the name of the object says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RebasedName {
    pub(crate) txid: TxId,
    pub(crate) device: DeviceId,
    pub(crate) state: StateHash,
}

impl RebasedName {
    fn path(&self, db: &DbName) -> Path {
        paths::merge(db, &format!("{:016x}-rebased-{}-{}.json", self.txid.0, self.device, self.state))
    }

    /// Reads a name; `None` for anything else in the folder.
    fn parse(object: &Path) -> Option<Self> {
        let (txid, rest) = object.filename()?.strip_suffix(".json")?.split_once("-rebased-")?;
        let (device, state) = rest.split_once('-')?;
        let digits = (txid.len(), device.len(), state.len()) == (16, 32, 32);
        let txid = u64::from_str_radix(txid, 16).ok().filter(|_| digits)?;
        Some(Self { txid: TxId(txid), device: device.parse().ok()?, state: state.parse().ok()? })
    }
}

/// What devices told of the merges of a log.
#[derive(Debug, Default)]
pub(crate) struct RebasedNames(BTreeMap<TxId, Vec<RebasedName>>);

impl RebasedNames {
    /// Takes in what the folder says.
    pub(crate) fn add_all(&mut self, objects: &[ObjectMeta]) {
        objects
            .iter()
            .filter_map(|object| RebasedName::parse(&object.location))
            .for_each(|name| self.add(name));
    }

    fn add(&mut self, name: RebasedName) {
        let told = self.0.entry(name.txid).or_default();
        if !told.contains(&name) {
            told.push(name);
        }
    }

    /// Whether any device told something of that merge.
    pub(crate) fn any(&self, txid: TxId) -> bool {
        self.0.contains_key(&txid)
    }

    fn of(&self, txid: TxId) -> Vec<RebasedName> {
        self.0.get(&txid).into_iter().flatten().copied().collect()
    }

    /// About how much memory they take, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.0.values().map(|names| 100 + names.len() as u64 * 100).sum()
    }
}

impl Database {
    /// Stores what a device tells of a merge; `false` if too much was told of it.
    pub(crate) async fn add_rebased(&self, name: RebasedName, told: &Rebased) -> Result<bool> {
        let names = self.read(|log| log.rebased.of(name.txid)).unwrap_or_default();
        if names.len() >= MOST && !names.contains(&name) {
            return Ok(false);
        }
        let bytes = serde_json::to_vec(told).map_err(|error| Error::Run(std::io::Error::other(error)))?;
        // That it is there already is as good.
        self.context.store.create(&name.path(&self.name), Bytes::from(bytes)).await?;
        kill_point("server-rebased-stored");
        self.write(|log| log.iter_mut().for_each(|log| log.rebased.add(name)));
        Ok(true)
    }

    /// What devices told of a merge. What cannot be read is left out.
    pub(crate) async fn rebased(&self, merge: &MergeName) -> Vec<Conflict> {
        let names = self.read(|log| log.rebased.of(merge.txid)).unwrap_or_default();
        let mut conflicts = Vec::new();
        for name in names {
            match self.rebased_part(&name).await {
                Ok(told) => conflicts.extend(told.into_iter().flat_map(|told| told.conflicts)),
                Err(error) => tracing::error!(
                    db = %self.name, txid = merge.txid.0, error = %crate::error::chain(&error),
                    "a part of the record of a merge cannot be read"
                ),
            }
        }
        conflicts
    }

    async fn rebased_part(&self, name: &RebasedName) -> Result<Option<Rebased>> {
        let object = name.path(&self.name);
        let Some(size) = self.context.store.size(&object).await? else { return Ok(None) };
        let bytes = self.context.store.read_one(&object, 0..size).await?;
        let told = serde_json::from_slice(&bytes)
            .map_err(|error| Error::damaged(&object, format!("it is no part of a record: {error}")))?;
        Ok(Some(told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_is_no_merge() {
        let db = "team/app".parse().unwrap();
        let name = RebasedName { txid: TxId(7), device: DeviceId(u128::MAX - 1), state: StateHash(3) };
        assert_eq!(RebasedName::parse(&name.path(&db)), Some(name));
        assert_eq!(MergeName::parse(&name.path(&db)), None);
        assert_eq!(RebasedName::parse(&paths::merges_since(&db, TxId(7))), None);
    }
}
