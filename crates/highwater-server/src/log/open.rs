//! Opening a database: from the names, headers and page indexes of its files to a [`Log`].
//!
//! Read are the names of all files, the headers of the retained pushes, and the page indexes of
//! the newest snapshot and the pushes after it; no page. A file that is torn, unreadable or out of
//! line is an error that names it: the newest push may be the one that was acknowledged last.
//!
//! Files that other programs wrote carry no state hash; it is computed by reading their pages, and
//! their frames are counted on from the position before them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use highwater_ltx::{FrameNo, Generation, Header, PageCount, PageIndex, PageNo, Place, Position, TxId};
use highwater_pages::{PageHash, StateSum, kill_point};
use highwater_wire::DbName;
use object_store::ObjectMeta;

use super::entries::{Entry, Log};
use super::file::StoredFile;
use super::images::{ImageAt, Images};
use super::merges::Merges;
use super::table::PageTable;
use crate::store::Store;
use crate::{Error, Result, paths};

/// How many files are read at once.
const AT_ONCE: usize = 16;

/// Opens a database; `None` when the store has nothing of it.
pub(crate) async fn open(store: &Store, db: &DbName) -> Result<Option<Log>> {
    let (pushes, snapshots, merges) = (paths::pushes(db), paths::snapshots(db), paths::merges(db));
    // Records come before their entries: listed after them, none is missing.
    let (pushes, snapshots) = tokio::try_join!(store.list(&pushes), store.list(&snapshots))?;
    let merges = store.list(&merges).await?;
    let (pushes, snapshots) = (sizes(&pushes, false)?, sizes(&snapshots, true)?);
    kill_point("server-open-listed");
    let newest = snapshots.last_key_value().map(|(txid, _)| *txid);
    let run = newest_run(&pushes, newest);
    let first = run.first().map(|(txid, _)| *txid);
    if let Some(first) = first
        && first > TxId::FIRST
        && newest.is_none_or(|snapshot| snapshot.next() < first)
    {
        return Err(Error::Gap { database: db.to_string(), missing: TxId(first.0 - 1) });
    }
    if run.is_empty() && newest.is_none() {
        return Ok(None);
    }
    // Only the newest of each can be younger than the last wait for the disk.
    if let Some((txid, _)) = run.last() {
        store.settle(&paths::push(db, *txid)).await?;
    }
    if let Some(txid) = newest {
        store.settle(&paths::snapshot(db, txid)).await?;
    }
    let mut files: Vec<(Header, Arc<StoredFile>)> = futures::stream::iter(run)
        .map(async |(txid, size)| {
            let with_index = newest.is_none_or(|snapshot| txid > snapshot);
            let (header, file) = StoredFile::open(store, db, (false, txid, size), with_index).await?;
            Ok::<_, Error>((header, Arc::new(file)))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let start = first_read(&mut files, &snapshots);
    let mut opening = Opening { store, db, log: None, table: PageTable::default() };
    let before = files.first().map_or(newest, |(_, file)| Some(TxId(file.txid.0 - 1)));
    for (txid, size) in &snapshots {
        let needed = start == Some(*txid) || before == Some(*txid);
        opening.snapshot((*txid, *size), (needed, start == Some(*txid), before == Some(*txid))).await?;
    }
    for (header, file) in files {
        let within = start.is_some_and(|snapshot| file.txid <= snapshot);
        opening.push(&header, file, within).await?;
    }
    let Opening { log, table, .. } = opening;
    Ok(log.map(|mut log| {
        log.table = table;
        for (txid, size) in snapshots {
            log.add_snapshot(Arc::new(StoredFile::unread(true, txid, size)));
        }
        log.merges = Merges::of(&merges, |txid| log.entry(txid));
        log.refusals.add_all(&merges);
        log.rebased.add_all(&merges);
        log
    }))
}

/// Where to begin to read pages: after the newest snapshot. But the states of files that other
/// programs wrote are computed from the pages before them; so after the newest snapshot before those
/// files, or, without one, from the first push. If that is not kept, neither is their history.
fn first_read(files: &mut Vec<(Header, Arc<StoredFile>)>, snapshots: &BTreeMap<TxId, u64>) -> Option<TxId> {
    let newest = snapshots.last_key_value().map(|(txid, _)| *txid)?;
    let foreign = files.iter().find(|(header, _)| header.place().is_none()).map(|(_, file)| file.txid);
    let Some(foreign) = foreign.filter(|foreign| *foreign <= newest) else { return Some(newest) };
    let earlier = snapshots.range(..foreign).next_back().map(|(txid, _)| *txid);
    if earlier.is_none() && files.first().is_some_and(|(_, file)| file.txid > TxId::FIRST) {
        files.retain(|(_, file)| file.txid > newest);
        return Some(newest);
    }
    earlier
}

/// The position of a push that another server appended to the head.
pub(crate) fn follow(
    db: &DbName,
    log: Option<&Log>,
    header: &Header,
    file: &Arc<StoredFile>,
) -> Result<Entry> {
    let path = file.path(db);
    if log.is_some_and(|log| log.page_size != header.page_size) {
        return Err(Error::damaged(&path, "its page size is another than the database's"));
    }
    let entry = native(header, file, log.map(Log::head)).ok_or_else(|| {
        Error::damaged(&path, "another program appended it while the server ran; restart the server")
    })?;
    in_line(&path, log.map(|log| log.head().position), entry.position)?;
    Ok(entry)
}

/// Files by the transaction that they end with.
fn sizes(objects: &[ObjectMeta], snapshot: bool) -> Result<BTreeMap<TxId, u64>> {
    let mut sizes = BTreeMap::new();
    for object in objects {
        let Some((min, max)) = paths::covers(&object.location) else {
            tracing::warn!(object = %object.location, "ignored: its name is not that of a file of the log");
            continue;
        };
        if min != if snapshot { TxId::FIRST } else { max } {
            return Err(Error::damaged(
                &object.location,
                "its name covers transactions that do not belong here",
            ));
        }
        sizes.insert(max, object.size);
    }
    Ok(sizes)
}

/// The pushes without a gap up to the newest, oldest first; none when a snapshot is newer than all.
fn newest_run(pushes: &BTreeMap<TxId, u64>, snapshot: Option<TxId>) -> Vec<(TxId, u64)> {
    let last = pushes.last_key_value().map(|(txid, _)| *txid);
    if last < snapshot {
        return Vec::new();
    }
    let mut run = Vec::new();
    let mut next = last;
    while let Some((txid, size)) = next.and_then(|txid| pushes.get(&txid).map(|size| (txid, *size))) {
        run.push((txid, size));
        next = txid.0.checked_sub(1).map(TxId);
    }
    run.reverse();
    run
}

struct Opening<'a> {
    store: &'a Store,
    db: &'a DbName,
    log: Option<Log>,
    table: PageTable,
}

impl Opening<'_> {
    /// Takes in a snapshot: as the pages that later files change, as the oldest position, or not.
    async fn snapshot(
        &mut self,
        (txid, size): (TxId, u64),
        (needed, pages, oldest): (bool, bool, bool),
    ) -> Result<()> {
        if !needed {
            return Ok(());
        }
        let (header, file) = StoredFile::open(self.store, self.db, (true, txid, size), pages).await?;
        let file = Arc::new(file);
        let mut sum = None;
        if pages {
            let index = file.index(self.store, self.db).await?;
            let mut hashes = Vec::new();
            if header.state.is_none() {
                let (all, found) =
                    self.sum_after(&header, &file, &index, (StateSum::EMPTY, PageCount(0))).await?;
                (sum, hashes) = (Some(all), found);
            }
            self.table.apply(&file, &index, header.commit, &hashes);
        }
        if !oldest {
            return Ok(());
        }
        let entry = native(&header, &file, None).or_else(|| {
            let state = sum?.state(header.commit, header.page_size);
            Some(foreign(&header, &file, state, None))
        });
        let path = file.path(self.db);
        let entry = entry.ok_or_else(|| Error::damaged(&path, "it does not say which state it holds"))?;
        let entry = Entry { file: None, frames: 0, ..entry };
        self.log = Some(Log::new(header.page_size, entry));
        Ok(())
    }

    /// Takes in a push; only its position when a snapshot has its pages.
    async fn push(&mut self, header: &Header, file: Arc<StoredFile>, within: bool) -> Result<()> {
        let path = file.path(self.db);
        let head = self.log.as_ref().map(Log::head);
        if self.log.as_ref().is_some_and(|log| log.page_size != header.page_size) {
            return Err(Error::damaged(&path, "its page size is another than the database's"));
        }
        let mut entry = native(header, &file, head);
        if !within {
            let index = file.index(self.store, self.db).await?;
            let mut hashes = Vec::new();
            if entry.is_none() {
                let before = self.log.as_ref().map(|log| (log.sum(), log.head().page_count));
                let before = before.unwrap_or((StateSum::EMPTY, PageCount(0)));
                let (sum, found) = self.sum_after(header, &file, &index, before).await?;
                let state = sum.state(header.commit, header.page_size);
                let head = self.log.as_ref().map(Log::head);
                entry = Some(foreign(header, &file, state, head.map(|head| (head, index.len()))));
                hashes = found;
            }
            self.table.apply(&file, &index, header.commit, &hashes);
        }
        let entry = entry.ok_or_else(|| Error::damaged(&path, "it does not say which state it makes"))?;
        in_line(&path, self.log.as_ref().map(|log| log.head().position), entry.position)?;
        match &mut self.log {
            Some(log) => log.push(entry),
            None => self.log = Some(Log::new(header.page_size, entry)),
        }
        Ok(())
    }

    /// The sum of page hashes after a file, by reading its pages and the ones that they replace.
    async fn sum_after(
        &self,
        header: &Header,
        file: &Arc<StoredFile>,
        index: &PageIndex,
        (mut sum, count): (StateSum, PageCount),
    ) -> Result<(StateSum, Vec<(PageNo, PageHash)>)> {
        let page_size = header.page_size;
        let images = |files, list| Arc::new(Images { db: self.db.clone(), page_size, files, list });
        let dropped = (header.commit.0 + 1..=count.0).map(PageNo);
        let replaced = index.iter().map(|entry| entry.page).chain(dropped);
        let old: Vec<ImageAt> = replaced.filter_map(|page| self.table.image(page)).collect();
        let old = images(self.table.files().to_vec(), old);
        for (_, hash) in old.hashes(self.store).await? {
            sum.remove(hash);
        }
        let new = index.iter().map(|e| ImageAt { page: e.page, file: 0, size: e.size, offset: e.offset });
        let new = images(vec![Arc::clone(file)], new.collect());
        let mut hashes = Vec::with_capacity(index.len());
        for (image, hash) in new.hashes(self.store).await? {
            sum.add(hash);
            hashes.push((image.page, hash));
        }
        Ok((sum, hashes))
    }
}

/// The entry of a file that Highwater wrote.
fn native(header: &Header, file: &Arc<StoredFile>, head: Option<&Entry>) -> Option<Entry> {
    let Place { generation, frame } = header.place()?;
    let frames = header.wal_size / header.page_size.frame_size();
    Some(Entry {
        txid: file.txid,
        position: Position { generation, frame, state: header.state? },
        page_count: header.commit,
        timestamp_ms: header.timestamp_ms.max(head.map_or(i64::MIN, |head| head.timestamp_ms)),
        node_id: header.node_id,
        frames: u32::try_from(frames).unwrap_or(u32::MAX),
        file: Some(Arc::clone(file)),
    })
}

/// The entry of a file that another program wrote, on top of a head.
fn foreign(
    header: &Header,
    file: &Arc<StoredFile>,
    state: highwater_ltx::StateHash,
    head: Option<(&Entry, usize)>,
) -> Entry {
    let frames = head.map_or(header.commit.data_page_count(header.page_size), |(_, pages)| {
        u32::try_from(pages).unwrap_or(u32::MAX)
    });
    let head = head.map(|(head, _)| head);
    let before = head.map_or(FrameNo(0), |head| head.position.frame);
    let generation = head.map_or(Generation::FIRST, |head| head.position.generation);
    Entry {
        txid: file.txid,
        position: Position { generation, frame: FrameNo(before.0 + u64::from(frames)), state },
        page_count: header.commit,
        timestamp_ms: header.timestamp_ms.max(head.map_or(i64::MIN, |head| head.timestamp_ms)),
        node_id: header.node_id,
        frames,
        file: Some(Arc::clone(file)),
    }
}

/// Positions only ever go forward.
fn in_line(path: &object_store::path::Path, before: Option<Position>, after: Position) -> Result<()> {
    match before {
        Some(before) if before.place() >= after.place() => {
            let what = format!("its position {} does not follow {}", after.place(), before.place());
            Err(Error::damaged(path, what))
        }
        _ => Ok(()),
    }
}
