//! Which entries of the log are merges: what their records' names tell, so that a server that opens a database knows
//! every state that is another name of a position without reading a record.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use highwater_ltx::{DeviceId, StateHash, TxId, planted};
use highwater_wire::DbName;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::entries::Entry;
use crate::paths;

/// A merge, as the name of its record says it: `<txid>-<base>-<device>-<result>-<local>-<conflicts>.json`, all in
/// hexadecimal digits. A record comes before its entry in the log, and counts only if the entry of that number has its
/// result and its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MergeName {
    /// Its number in the log.
    pub(crate) txid: TxId,
    /// The position that the device's pages are on top of.
    pub(crate) base: TxId,
    pub(crate) device: DeviceId,
    /// The state of the entry.
    pub(crate) result: StateHash,
    /// The device's own state: another name of the entry.
    pub(crate) local: StateHash,
    /// How much could not be kept as it was.
    pub(crate) conflicts: u32,
}

impl MergeName {
    /// The name of the record.
    pub(crate) fn path(&self, db: &DbName) -> Path {
        let Self { txid, base, device, result, local, conflicts } = self;
        let file = format!("{:016x}-{:016x}-{device}-{result}-{local}-{conflicts:08x}.json", txid.0, base.0);
        paths::merge(db, &file)
    }

    /// Reads a name; `None` for anything else in the folder.
    pub(crate) fn parse(object: &Path) -> Option<Self> {
        let mut parts = object.filename()?.strip_suffix(".json")?.split('-');
        let mut next = |digits: usize| parts.next().filter(|part| part.len() == digits);
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let name = Self {
            txid: TxId(number(next(16)?)?),
            base: TxId(number(next(16)?)?),
            device: next(32)?.parse().ok()?,
            result: next(32)?.parse().ok()?,
            local: next(32)?.parse().ok()?,
            conflicts: u32::try_from(number(next(8)?)?).ok()?,
        };
        parts.next().is_none().then_some(name)
    }

    /// Whether the merge that was recorded is the one that the log has.
    pub(crate) fn is_of(&self, entry: &Entry) -> bool {
        let same = (entry.txid, entry.position.state, entry.node_id);
        same == (self.txid, self.result, self.device.node_id())
    }
}

/// The merges of a log.
#[derive(Debug, Default)]
pub(crate) struct Merges {
    all: BTreeMap<TxId, MergeName>,
    /// The merges that a state went into, oldest first: of several devices when they had the same.
    aliases: HashMap<StateHash, Vec<TxId>>,
    seen: BTreeSet<TxId>,
}

impl Merges {
    /// What the folder says; names that do not belong to an entry count for nothing.
    pub(crate) fn of<'e>(objects: &[ObjectMeta], entry: impl Fn(TxId) -> Option<&'e Entry>) -> Self {
        let mut merges = Self::default();
        let mut names: Vec<MergeName> =
            objects.iter().filter_map(|object| MergeName::parse(&object.location)).collect();
        names.sort_unstable_by_key(|name| name.txid);
        for name in names {
            if entry(name.txid).is_some_and(|entry| name.is_of(entry)) {
                merges.add(name);
            }
        }
        merges.seen = objects.iter().filter_map(|object| seen(&object.location)).collect();
        merges
    }

    /// Takes in what the folder has of an entry of another server, and of what was seen since.
    pub(crate) fn follow(&mut self, objects: &[ObjectMeta], entry: &Entry) {
        let mut names = objects.iter().filter_map(|object| MergeName::parse(&object.location));
        if let Some(name) = names.find(|name| name.is_of(entry)) {
            self.add(name);
        }
        self.seen.extend(objects.iter().filter_map(|object| seen(&object.location)));
    }

    /// Takes in the merge of the newest entry.
    pub(crate) fn add(&mut self, name: MergeName) {
        if !planted("merged-state-forgotten") {
            self.aliases.entry(name.local).or_default().push(name.txid);
        }
        self.all.insert(name.txid, name);
    }

    /// The newest merge that a state went into, of those that count.
    pub(crate) fn alias(&self, state: StateHash, counts: impl Fn(&MergeName) -> bool) -> Option<&MergeName> {
        let merges = self.aliases.get(&state)?.iter().rev();
        merges.filter_map(|txid| self.all.get(txid)).find(|merge| counts(merge))
    }

    /// The merge that made an entry.
    pub(crate) fn get(&self, txid: TxId) -> Option<&MergeName> {
        self.all.get(&txid)
    }

    /// All merges, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &MergeName> {
        self.all.values().rev()
    }

    /// Whether somebody has seen what that merge could not keep.
    pub(crate) fn is_seen(&self, txid: TxId) -> bool {
        self.seen.contains(&txid)
    }

    /// Notes that somebody has.
    pub(crate) fn see(&mut self, txid: TxId) {
        self.seen.insert(txid);
    }

    /// About how much memory they take, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.all.len() as u64 * 250
    }
}

fn seen(object: &Path) -> Option<TxId> {
    let digits = object.filename()?.strip_suffix(".seen").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(TxId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let name = MergeName {
            txid: TxId(9),
            base: TxId(7),
            device: DeviceId(u128::MAX - 1),
            result: StateHash(5),
            local: StateHash(u128::MAX),
            conflicts: 3,
        };
        let db = "team/app".parse().unwrap();
        assert_eq!(MergeName::parse(&name.path(&db)), Some(name));
        for other in [paths::seen(&db, TxId(9)), paths::merged_delta(&db, TxId(7), StateHash(5))] {
            assert_eq!(MergeName::parse(&other), None);
        }
        assert_eq!(seen(&paths::seen(&db, TxId(9))), Some(TxId(9)));
    }
}
