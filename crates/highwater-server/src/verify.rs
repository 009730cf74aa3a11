//! Checking a store file by file: every byte against its checksum, every state against its pages.
//!
//! For each database: the pushes are read in order; each must be a whole LTX file, follow the one
//! before, and make exactly the state that its header claims. Each snapshot must hold exactly the
//! state after its transaction. Memory: 16 bytes for each page of the database being checked.

use std::collections::BTreeMap;
use std::io::{self, Read};

use futures::TryStreamExt;
use highwater_ltx::{Decoder, Header, PageCount, PageNo, StateHash, TxId};
use highwater_pages::{StateSum, canonical, page_hash};
use highwater_wire::DbName;
use object_store::path::Path;
use serde::Serialize;
use tokio_util::io::SyncIoBridge;

use crate::lifecycle::Lifecycle;
use crate::store::Store;
use crate::{Error, Result, paths};

/// What was found in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreReport {
    /// One report for each database, by name.
    pub databases: Vec<DatabaseReport>,
}

impl StoreReport {
    /// Whether nothing is wrong anywhere.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.databases.iter().all(|database| database.faults.is_empty())
    }
}

/// What was found of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseReport {
    /// The database's name.
    pub name: String,
    /// Accepted pushes that were read.
    pub pushes: u64,
    /// Snapshots that were read.
    pub snapshots: u64,
    /// The size of all files in bytes.
    pub bytes: u64,
    /// The newest position that the files give, as `G/F/HASH`.
    pub head: Option<String>,
    /// The size of the database at the head, in pages.
    pub page_count: u32,
    /// When it was deleted, milliseconds since 1970 (UTC); it can be undeleted while its files are here.
    pub deleted_ms: Option<i64>,
    /// Everything that is wrong, in the order in which it was found.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The object in the store.
    pub object: String,
    /// What is wrong with it, as a sentence.
    pub what: String,
}

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The database that is being checked.
    pub database: &'a str,
    /// Files that were checked so far, of all databases.
    pub files: u64,
    /// Bytes that were checked so far, of all databases.
    pub bytes: u64,
}

/// The names of all databases in a store that are not deleted, in order.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_databases(store: &Store) -> Result<Vec<DbName>> {
    let mut names = store.databases().await?;
    for name in store.administered().await? {
        if Lifecycle::read(store, &name).await?.deleted().is_some() {
            names.retain(|other| *other != name);
        }
    }
    Ok(names)
}

/// Checks every database of a store. `progress` is called after each file.
///
/// What is wrong with a file is part of the report, not an error. Pushes that are accepted
/// meanwhile are not looked at.
///
/// # Errors
/// [`Error::Store`] when the store cannot be read at all.
pub async fn verify_store(store: &Store, mut progress: impl FnMut(Progress<'_>)) -> Result<StoreReport> {
    let mut databases = Vec::new();
    let (mut files, mut bytes) = (0, 0);
    let mut names = store.databases().await?;
    names.extend(store.administered().await?);
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut step = |size: u64| {
            files += 1;
            bytes += size;
            progress(Progress { database: name.as_str(), files, bytes });
        };
        let report = verify_database(store, &name, &mut step).await?;
        // Of a database that was removed, or never begun, only events are left.
        if report.pushes + report.snapshots > 0 || !report.faults.is_empty() {
            databases.push(report);
        }
    }
    Ok(StoreReport { databases })
}

/// The state that the files read so far give.
#[derive(Debug, Default)]
struct Image {
    hashes: Vec<u128>,
    sum: StateSum,
    txid: Option<TxId>,
}

async fn verify_database(store: &Store, name: &DbName, step: &mut impl FnMut(u64)) -> Result<DatabaseReport> {
    let lifecycle = Lifecycle::read(store, name).await;
    let pushes = named(store, &paths::pushes(name), false).await?;
    let snapshots = named(store, &paths::snapshots(name), true).await?;
    let mut report = DatabaseReport {
        name: name.to_string(),
        pushes: 0,
        snapshots: 0,
        bytes: 0,
        head: None,
        page_count: 0,
        deleted_ms: lifecycle.as_ref().ok().and_then(|events| Some(events.deleted()?.time_ms)),
        faults: Vec::new(),
    };
    match lifecycle {
        // What is being removed has gaps.
        Ok(lifecycle) if lifecycle.collecting().is_some() => return Ok(report),
        Ok(_) => {}
        Err(Error::Damaged { object, what, .. }) => report.faults.push(Fault { object, what }),
        Err(error) => return Err(error),
    }
    // A state after each push, to compare the snapshots with.
    let mut states: BTreeMap<TxId, StateHash> = BTreeMap::new();
    let mut image = Image::default();
    let oldest = pushes.first_key_value().map(|(txid, _)| *txid);
    for (txid, (path, size)) in &snapshots {
        // One that stands before the first push is where the image begins.
        let begins = oldest.is_none_or(|oldest| *txid < oldest);
        if begins {
            check_file(store, (path, *size), *txid, true, &mut image, &mut report).await?;
            states.extend(image.state_at(*txid, &report));
            step(*size);
        }
    }
    for (txid, (path, size)) in &pushes {
        check_file(store, (path, *size), *txid, false, &mut image, &mut report).await?;
        states.extend(image.state_at(*txid, &report));
        step(*size);
    }
    for (txid, (path, size)) in &snapshots {
        if oldest.is_none_or(|oldest| *txid < oldest) {
            continue;
        }
        let (head, count) = (report.head.clone(), report.page_count);
        let mut own = Image::default();
        check_file(store, (path, *size), *txid, true, &mut own, &mut report).await?;
        let state = own.state_at(*txid, &report).map(|(_, state)| state);
        (report.head, report.page_count) = (head, count);
        if let (Some(state), Some(expected)) = (state, states.get(txid))
            && state != *expected
        {
            report
                .fault(path, format!("it holds the state {state}, but the pushes up to it give {expected}"));
        }
        step(*size);
    }
    Ok(report)
}

impl DatabaseReport {
    fn fault(&mut self, path: &Path, what: impl Into<String>) {
        self.faults.push(Fault { object: path.to_string(), what: what.into() });
    }
}

impl Image {
    /// The state after `txid`, if the image is at it.
    fn state_at(&self, txid: TxId, report: &DatabaseReport) -> Option<(TxId, StateHash)> {
        let state = report.head.as_ref()?.rsplit('/').next()?.parse().ok()?;
        (self.txid == Some(txid)).then_some((txid, state))
    }

    fn set(&mut self, page: PageNo, hash: u128) {
        if let Some(place) = (page.0 as usize).checked_sub(1).and_then(|at| self.hashes.get_mut(at)) {
            self.sum.remove(highwater_pages::PageHash(*place));
            self.sum.add(highwater_pages::PageHash(hash));
            *place = hash;
        }
    }

    fn resize(&mut self, count: PageCount) {
        for dropped in self.hashes.get(count.0 as usize..).unwrap_or_default() {
            self.sum.remove(highwater_pages::PageHash(*dropped));
        }
        self.hashes.resize(count.0 as usize, 0);
    }
}

/// The files of a folder by the transaction that they end with.
async fn named(store: &Store, folder: &Path, snapshot: bool) -> Result<BTreeMap<TxId, (Path, u64)>> {
    let objects = store.list(folder).await?;
    let named = objects.into_iter().filter_map(|object| {
        let (min, max) = paths::covers(&object.location)?;
        let fits = min == if snapshot { TxId::FIRST } else { max };
        fits.then_some((max, (object.location, object.size)))
    });
    Ok(named.collect())
}

/// Reads a file and takes its pages into the image; what is wrong goes into the report.
async fn check_file(
    store: &Store,
    (path, size): (&Path, u64),
    txid: TxId,
    snapshot: bool,
    image: &mut Image,
    report: &mut DatabaseReport,
) -> Result<()> {
    *(if snapshot { &mut report.snapshots } else { &mut report.pushes }) += 1;
    report.bytes += size;
    if !snapshot && image.txid.map_or(txid != TxId::FIRST, |before| before.next() != txid) {
        report.fault(path, "the file before it is missing or damaged, so its state cannot be checked");
    }
    let continues = snapshot || image.txid.map_or(TxId::FIRST, TxId::next) == txid;
    let stream = store.stream(path).await?;
    let reader = SyncIoBridge::new(tokio_util::io::StreamReader::new(stream.map_err(io::Error::other)));
    let before = std::mem::take(image);
    let read = tokio::task::spawn_blocking(move || read_file(reader, before, snapshot)).await;
    match read.map_err(|error| Error::Run(io::Error::other(error)))? {
        Err(error) => report.fault(path, crate::error::chain(&error)),
        Ok((header, after)) => {
            let min = if snapshot { TxId::FIRST } else { txid };
            if (header.min_txid, header.max_txid) != (min, txid) {
                report.fault(path, "it covers other transactions than its name says");
            }
            let state = after.sum.state(header.commit, header.page_size);
            if let Some(claimed) = header.state.filter(|claimed| continues && *claimed != state) {
                report.fault(path, format!("it claims the state {claimed}, but its pages give {state}"));
            }
            let place = header.place().map_or_else(String::new, |place| format!("{place}/"));
            report.head = Some(format!("{place}{state}"));
            report.page_count = header.commit.0;
            *image = Image { txid: Some(txid), ..after };
        }
    }
    Ok(())
}

fn read_file(reader: impl Read, image: Image, snapshot: bool) -> highwater_ltx::Result<(Header, Image)> {
    let mut image = if snapshot { Image::default() } else { image };
    let mut decoder = Decoder::new(reader)?;
    let header = *decoder.header();
    let mut pages = Vec::new();
    let mut page = Vec::new();
    while let Some(number) = decoder.next_page(&mut page)? {
        pages.push((number, page_hash(number, &canonical(number, &page)).0));
    }
    image.resize(header.commit);
    pages.into_iter().for_each(|(number, hash)| image.set(number, hash));
    Ok((header, image))
}
