//! What is known of a database's history: one entry for each retained position, oldest first,
//! without gaps in the transaction ids.
//!
//! Everything here is derived from the headers of the files in the store, so that a server that
//! restarts decides exactly as the one before it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use highwater_ltx::{
    FrameNo, Generation, PageCount, PageIndex, PageNo, PageSize, Place, Position, StateHash, TxId,
};
use highwater_pages::{PageHash, StateSum};

use super::LIBSQL;
use super::file::StoredFile;
use super::merges::Merges;
use super::rebased::RebasedNames;
use super::refusals::Refusals;
use super::table::PageTable;
use crate::SnapshotPolicy;

/// The least size at which the pushes since a snapshot count as outweighing a database, in bytes.
const LEAST_OUTWEIGHING: u64 = 1 << 20;

/// What one position takes in memory with its file and its place in the maps, in bytes.
const ENTRY: u64 = 400;

/// One retained position.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) txid: TxId,
    /// After this transaction.
    pub(crate) position: Position,
    /// After this transaction.
    pub(crate) page_count: PageCount,
    pub(crate) timestamp_ms: i64,
    pub(crate) node_id: u64,
    /// The frames that the push takes in its generation; at most as many pages are in its file.
    pub(crate) frames: u32,
    /// The push. `None` when only a snapshot of the position is left.
    pub(crate) file: Option<Arc<StoredFile>>,
}

/// An open database that has at least one position.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) page_size: PageSize,
    /// Never empty; consecutive transaction ids.
    entries: Vec<Entry>,
    /// Its own copy of the last entry, so that there always is one.
    pub(super) head: Entry,
    newest: HashMap<StateHash, TxId>,
    /// By the transaction that they are taken after.
    snapshots: BTreeMap<TxId, Arc<StoredFile>>,
    /// When a libSQL client pushed last, in milliseconds since 1970.
    last_libsql_ms: Option<i64>,
    pub(crate) table: PageTable,
    pub(crate) merges: Merges,
    pub(crate) refusals: Refusals,
    /// What devices told of merges.
    pub(crate) rebased: RebasedNames,
}

impl Log {
    /// A log that begins with `first`; its pages are taken in with [`PageTable::apply`].
    pub(crate) fn new(page_size: PageSize, first: Entry) -> Self {
        Self {
            page_size,
            newest: HashMap::from([(first.position.state, first.txid)]),
            last_libsql_ms: pushed_by_libsql(&first),
            head: first.clone(),
            entries: vec![first],
            snapshots: BTreeMap::new(),
            table: PageTable::default(),
            merges: Merges::default(),
            refusals: Refusals::default(),
            rebased: RebasedNames::default(),
        }
    }

    /// The newest position.
    pub(crate) fn head(&self) -> &Entry {
        &self.head
    }

    /// The oldest retained position.
    pub(crate) fn oldest(&self) -> &Entry {
        self.entries.first().unwrap_or(&self.head)
    }

    /// All retained positions after `txid`, oldest first.
    pub(crate) fn after(&self, txid: TxId) -> &[Entry] {
        let skip = txid.0.saturating_add(1).saturating_sub(self.oldest().txid.0);
        usize::try_from(skip).ok().and_then(|skip| self.entries.get(skip..)).unwrap_or_default()
    }

    /// All retained positions, oldest first.
    pub(crate) fn all(&self) -> &[Entry] {
        &self.entries
    }

    /// The position after `txid`.
    pub(crate) fn entry(&self, txid: TxId) -> Option<&Entry> {
        let at = usize::try_from(txid.0.checked_sub(self.oldest().txid.0)?).ok()?;
        self.entries.get(at)
    }

    /// The position that a change is measured from: one of the history, or with 0 the empty database before it.
    pub(crate) fn base(&self, txid: TxId) -> Option<Entry> {
        if txid != TxId(0) {
            return self.entry(txid).cloned();
        }
        let page_count = PageCount(0);
        let state = StateSum::EMPTY.state(page_count, self.page_size);
        let generation = self.oldest().position.generation;
        let (timestamp_ms, node_id, frames, file) = (0, 0, 0, None);
        let position = Position { generation, frame: FrameNo(0), state };
        Some(Entry { txid, position, page_count, timestamp_ms, node_id, frames, file })
    }

    /// Whether nothing comes before that place: the history is kept from its first push on, and begins there.
    pub(crate) fn is_beginning(&self, at: Place) -> bool {
        let oldest = self.oldest();
        let begins = Place { generation: oldest.position.generation, frame: FrameNo(0) };
        oldest.txid == TxId::FIRST && at == begins
    }

    /// Adds the position after the head. Its pages are taken in by the caller.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.newest.insert(entry.position.state, entry.txid);
        self.last_libsql_ms = pushed_by_libsql(&entry).or(self.last_libsql_ms);
        self.head = entry.clone();
        self.entries.push(entry);
    }

    /// Takes in an accepted push, perhaps the first: its position and its pages.
    pub(crate) fn append(
        log: &mut Option<Self>,
        page_size: PageSize,
        entry: Entry,
        index: &PageIndex,
        hashes: &[(PageNo, PageHash)],
    ) {
        let (file, count) = (entry.file.clone(), entry.page_count);
        let log = match log {
            Some(log) => {
                log.push(entry);
                log
            }
            None => log.insert(Self::new(page_size, entry)),
        };
        if let Some(file) = &file {
            log.table.apply(file, index, count, hashes);
        }
    }

    /// About how much memory it takes, in bytes: the page table, the indexes of the files, the history.
    pub(crate) fn memory(&self) -> u64 {
        self.table.memory()
            + self.merges.memory()
            + self.refusals.memory()
            + self.rebased.memory()
            + (self.entries.len() as u64) * ENTRY
    }

    /// Notes a durable snapshot.
    pub(crate) fn add_snapshot(&mut self, file: Arc<StoredFile>) {
        self.snapshots.insert(file.txid, file);
    }

    /// The newest position of that state.
    pub(crate) fn newest_of(&self, state: StateHash) -> Option<&Entry> {
        self.entry(*self.newest.get(&state)?)
    }

    /// Where a client's base is. A place of this history counts only with its own state; a place
    /// that is none of this history's is found by its state.
    pub(crate) fn find(&self, base: Position) -> Option<&Entry> {
        match self.at(base.place()) {
            Some(entry) => (entry.position.state == base.state).then_some(entry),
            None => self.newest_of(base.state),
        }
    }

    /// The position at a place. The start of a generation is the end of the one before.
    pub(crate) fn at(&self, place: Place) -> Option<&Entry> {
        let after = self.entries.partition_point(|entry| entry.position.place() <= place);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        let here = entry.position.place();
        let same = here == place || (place.frame == FrameNo(0) && here.generation.next() == place.generation);
        same.then_some(entry)
    }

    /// The position that was the head at that time, in milliseconds since 1970.
    pub(crate) fn at_time(&self, ms: i64) -> Option<&Entry> {
        let after = self.entries.partition_point(|entry| entry.timestamp_ms <= ms);
        self.entries.get(after.checked_sub(1)?)
    }

    /// The sum of the head's page hashes.
    pub(crate) fn sum(&self) -> StateSum {
        StateSum::from_state(self.head.position.state, self.head.page_count, self.page_size)
    }

    /// The generation and the first frame of the next push. A new generation begins when a
    /// snapshot was taken within the present one; but never against the counting of a libSQL client that
    /// pushes, nor when one pushed less than `quiet_ms` before: what such a client
    /// repeats after a crash, or wrote since, has numbers of the generation it knows.
    pub(crate) fn next_frame(
        &self,
        counts_in: Option<Generation>,
        now_ms: i64,
        quiet_ms: i64,
    ) -> (Generation, FrameNo) {
        let Position { generation, frame, .. } = self.head.position;
        let pays = self.newest_snapshot().is_some_and(|txid| txid >= self.generation_start());
        let quiet = self.last_libsql_ms.is_none_or(|last| last.saturating_add(quiet_ms) <= now_ms);
        let begins = counts_in.map_or(pays && quiet, |counts_in| counts_in > generation);
        if begins { (generation.next(), FrameNo(1)) } else { (generation, FrameNo(frame.0 + 1)) }
    }

    /// The oldest retained transaction of the present generation.
    fn generation_start(&self) -> TxId {
        self.of_generation(self.head.position.generation).first().map_or(self.head.txid, |entry| entry.txid)
    }

    /// The retained positions of a generation, oldest first.
    pub(crate) fn of_generation(&self, generation: Generation) -> &[Entry] {
        let start = self.entries.partition_point(|entry| entry.position.generation < generation);
        let end = self.entries.partition_point(|entry| entry.position.generation <= generation);
        self.entries.get(start..end).unwrap_or_default()
    }

    fn newest_snapshot(&self) -> Option<TxId> {
        self.snapshots.last_key_value().map(|(txid, _)| *txid)
    }

    /// Whether a snapshot of the head is due. The first push holds the whole database, so it
    /// counts as a snapshot here.
    pub(crate) fn snapshot_due(&self, policy: &SnapshotPolicy) -> bool {
        let since = self.newest_snapshot().unwrap_or(TxId::FIRST);
        let later = self.after(since);
        if later.is_empty() {
            return false;
        }
        let bytes: u64 = later.iter().filter_map(|entry| entry.file.as_ref()).map(|file| file.size).sum();
        let database = self.head.page_count.bytes(self.page_size).max(LEAST_OUTWEIGHING);
        later.len() as u64 >= u64::from(policy.max_files) || (policy.outweigh && bytes > database)
    }

    /// The files after `txid`, newest first; `None` when one of them is not retained.
    pub(crate) fn files_after(&self, txid: TxId) -> Option<Vec<Arc<StoredFile>>> {
        if txid.next() < self.oldest().txid {
            return None;
        }
        self.after(txid).iter().rev().map(|entry| entry.file.clone()).collect()
    }

    /// The files that together hold every page of the position after `txid`, newest first.
    pub(crate) fn files_of(&self, txid: TxId) -> Option<Vec<Arc<StoredFile>>> {
        let snapshot = self.snapshots.range(..=txid).next_back().map(|(_, file)| Arc::clone(file));
        let since = snapshot.as_ref().map_or(TxId(0), |file| file.txid);
        if since.next() < self.oldest().txid && since != txid {
            return None;
        }
        let later = self.after(since);
        let mut files: Vec<_> = later
            .iter()
            .take_while(|entry| entry.txid <= txid)
            .map(|entry| entry.file.clone())
            .collect::<Option<_>>()?;
        files.reverse();
        files.extend(snapshot);
        (!files.is_empty()).then_some(files)
    }
}

/// When the push was made, if a libSQL client made it.
fn pushed_by_libsql(entry: &Entry) -> Option<i64> {
    (entry.node_id == LIBSQL.node_id()).then_some(entry.timestamp_ms)
}
