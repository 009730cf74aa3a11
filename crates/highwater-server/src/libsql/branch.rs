//! Branches: frames of unfinished pushes, under a private generation number.
//!
//! A branch is a prefix of the log (up to its fork) and then frames of one client. Each batch is one
//! object, created once and never changed; the objects of a branch follow each other without a gap. So a
//! restarted server carries on where the one before stopped. They are removed some days after the last
//! one was written: a client that comes back later is asked for its whole log.
//!
//! The objects (all numbers big-endian):
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `HWFRAM01` |
//! | 8 | 4 | the generation that the branch was forked from; 0: not known |
//! | 12 | 4 | how many frames |
//! | 16 | 8 | the frame that it was forked after |
//! | 24 | 8 | the number of the first frame |
//! | 32 | 24 each | for each frame: page number, size of the database after it or 0, hash of the page |
//! | then | 16 | XXH3-128 of everything before |
//! | then | 4096 each | the pages |

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use highwater_ltx::{FrameNo, Generation, PageCount, PageNo, Place};
use highwater_pages::{PageHash, kill_point, page_hash};
use highwater_wire::DbName;
use object_store::path::Path;

use super::frames::{Batch, FrameHead, PAGE, Salts};
use super::{PRIVATE, STRIDE};
use crate::log::Database;
use crate::store::{Created, Store};
use crate::{Error, Result, paths, staging};

const MAGIC: &[u8; 8] = b"HWFRAM01";
const FIXED: usize = 32;
const HEAD: usize = 24;
const SUM: usize = 16;
/// How many branches of a database are kept in memory; others are read again when they are asked for.
const KEPT: usize = 32;
/// How many logs are remembered. A log that was forgotten is asked to show a little more of itself again.
const PROVEN: usize = 4096;

/// Frames of one client after a place of the log.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) number: Generation,
    /// The place of the log that it continues; `None` when only its content can tell.
    pub(super) fork: Option<Place>,
    pub(super) heads: Vec<FrameHead>,
    /// Of the client's log, as long as this server has seen it.
    pub(super) salts: Option<Salts>,
    pieces: Vec<Piece>,
}

/// One object of a branch.
#[derive(Debug)]
struct Piece {
    /// Which of the branch's frames is its first.
    from: usize,
    path: Path,
    /// Where its pages begin, in bytes.
    pages_at: u64,
}

impl Branch {
    /// The number of the last frame before it.
    pub(super) fn before(&self) -> FrameNo {
        self.fork.map_or(FrameNo(0), |fork| fork.frame)
    }

    /// The number of its last frame.
    pub(super) fn last(&self) -> FrameNo {
        FrameNo(self.before().0 + self.heads.len() as u64)
    }

    /// Adds frames, durably.
    pub(super) async fn add(&mut self, store: &Store, db: &DbName, batch: &Batch) -> Result<()> {
        let first = FrameNo(self.last().0 + 1);
        let last = FrameNo(self.last().0 + batch.len() as u64);
        let path = paths::branch_frames(db, self.number, first, last);
        let object = encode(self.fork, first, batch);
        let pages_at = (object.len() - batch.pages.len()) as u64;
        kill_point("server-libsql-before-stage");
        if store.create(&path, Bytes::from(object)).await? == Created::Lost {
            return Err(Error::damaged(&path, "another server wrote other frames under the same number"));
        }
        kill_point("server-libsql-staged");
        self.pieces.push(Piece { from: self.heads.len(), path, pages_at });
        self.heads.extend_from_slice(&batch.heads);
        self.salts = Some(batch.salts);
        Ok(())
    }

    /// Reads pages of frames, in the order of `frames` (indices into [`Branch::heads`]).
    pub(super) async fn read(&self, store: &Store, frames: &[usize]) -> Result<Vec<Bytes>> {
        let mut wanted: HashMap<usize, (Vec<usize>, Vec<std::ops::Range<u64>>)> = HashMap::new();
        for (at, frame) in frames.iter().enumerate() {
            let after = self.pieces.partition_point(|piece| piece.from <= *frame);
            let number = after.saturating_sub(1);
            let Some(piece) = self.pieces.get(number) else { return Err(self.lost()) };
            let start = piece.pages_at + ((frame - piece.from) * PAGE) as u64;
            let (places, ranges) = wanted.entry(number).or_default();
            places.push(at);
            ranges.push(start..start + PAGE as u64);
        }
        let mut found = vec![Bytes::new(); frames.len()];
        for (number, (places, ranges)) in wanted {
            let Some(piece) = self.pieces.get(number) else { return Err(self.lost()) };
            for (place, page) in places.into_iter().zip(store.read(&piece.path, &ranges).await?) {
                let head = frames.get(place).and_then(|frame| self.heads.get(*frame));
                if head.is_none_or(|head| page_hash(head.page, &page) != head.hash) {
                    return Err(Error::damaged(
                        &piece.path,
                        "a page does not have the hash that was noted for it",
                    ));
                }
                if let Some(slot) = found.get_mut(place) {
                    *slot = page;
                }
            }
        }
        Ok(found)
    }

    fn lost(&self) -> Error {
        Error::damaged(&Path::from(format!("sync/{:08x}", self.number.0)), "a frame is in none of its files")
    }
}

/// The branches of a database that are in memory.
#[derive(Debug, Default)]
pub(crate) struct Branches {
    kept: Mutex<HashMap<Generation, Shared>>,
    /// Logs that were seen to hold the history of the generation, by their salts.
    proven: Mutex<HashSet<(Generation, Salts)>>,
    /// Logs that were asked for what comes before what they sent, and after which frame.
    asked: Mutex<HashMap<Salts, FrameNo>>,
}

/// A branch; who holds the lock may add to it.
pub(super) type Shared = Arc<tokio::sync::Mutex<Branch>>;

impl Branches {
    /// A new branch without frames; nothing of it is stored yet.
    pub(super) async fn begin(db: &Database, fork: Option<Place>) -> Result<Shared> {
        let number = Self::number(db).await?;
        Ok(db.branches.keep(Branch { number, fork, heads: Vec::new(), salts: None, pieces: Vec::new() }))
    }

    /// A private number that nothing has.
    pub(super) async fn number(db: &Database) -> Result<Generation> {
        loop {
            let number = Generation(PRIVATE | (low_bits(staging::unique()) / STRIDE * STRIDE));
            // Twice the same number is unlikely enough that looking is all that is needed.
            if db.context.store.list(&paths::branch(&db.name, number)).await?.is_empty() {
                return Ok(number);
            }
        }
    }

    /// A branch of that number; `None` when there is none (any more).
    pub(super) async fn find(db: &Database, number: Generation) -> Result<Option<Shared>> {
        if let Some(branch) = db.branches.with(|kept| kept.get(&number).cloned()) {
            return Ok(Some(branch));
        }
        let found = open(&db.context.store, &db.name, number).await?;
        Ok(found.map(|branch| db.branches.keep(branch)))
    }

    /// Lets go of a branch that cannot be read any more.
    pub(super) fn forget(&self, number: Generation) {
        self.with(|kept| kept.remove(&number));
    }

    /// Whether the log with these salts was seen to hold the history of the generation.
    pub(super) fn is_proven(&self, generation: Generation, salts: Salts) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).contains(&(generation, salts))
    }

    /// After which frame the client with this log was asked to send again what it sent before, if it was.
    pub(super) fn was_asked(&self, salts: Salts) -> Option<FrameNo> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).get(&salts).copied()
    }

    /// Notes that it is asked to.
    pub(super) fn ask(&self, salts: Salts, after: FrameNo) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= PROVEN {
            asked.clear();
        }
        asked.insert(salts, after);
    }

    /// Notes that it does.
    pub(super) fn prove(&self, generation: Generation, salts: Salts) {
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.len() >= PROVEN {
            proven.clear();
        }
        proven.insert((generation, salts));
    }

    /// A branch of that number, as the store has it if what is in memory ends before that frame: its next
    /// batches may have gone to another server.
    pub(super) async fn find_up_to(db: &Database, place: Place) -> Result<Option<Shared>> {
        let found = Self::find(db, place.generation).await?;
        if let Some(branch) = &found
            && branch.lock().await.last() < place.frame
        {
            db.branches.forget(place.generation);
            return Self::find(db, place.generation).await;
        }
        Ok(found)
    }

    fn keep(&self, branch: Branch) -> Shared {
        self.with(|kept| {
            while kept.len() >= KEPT {
                // Any one that nobody uses at the moment: they all can be read again.
                let idle = kept.iter().find(|(_, branch)| Arc::strong_count(branch) == 1);
                let Some(number) = idle.map(|(number, _)| *number) else { break };
                kept.remove(&number);
            }
            Arc::clone(kept.entry(branch.number).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(branch))))
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Generation, Shared>) -> T) -> T {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The lowest bits below [`PRIVATE`]; the highest numbers are left out, some clients cut them off.
fn low_bits(random: u128) -> u32 {
    u32::try_from(random % u128::from(PRIVATE - STRIDE)).unwrap_or(0)
}

/// Reads what the store has of a branch.
async fn open(store: &Store, db: &DbName, number: Generation) -> Result<Option<Branch>> {
    let mut objects = store.list(&paths::branch(db, number)).await?;
    // Names sort as their first frames do.
    objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
    let mut branch: Option<Branch> = None;
    for object in objects {
        let (fork, first, heads) = match decode(store, &object.location, object.size).await {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // The client sends its whole log again when the branch ends earlier than it thinks.
            Err(error @ Error::Damaged { .. }) => {
                tracing::warn!(%db, error = %crate::error::chain(&error), "an unfinished push ends here");
                break;
            }
            Err(error) => return Err(error),
        };
        let pages_at = (FIXED + heads.len() * HEAD + SUM) as u64;
        let empty = || Branch { number, fork, heads: Vec::new(), salts: None, pieces: Vec::new() };
        let branch = branch.get_or_insert_with(empty);
        if branch.fork != fork || first.0 != branch.last().0 + 1 {
            tracing::warn!(%db, object = %object.location, "an unfinished push ends here: a file does not continue it");
            break;
        }
        store.settle(&object.location).await?;
        branch.pieces.push(Piece { from: branch.heads.len(), path: object.location, pages_at });
        branch.heads.extend(heads);
    }
    Ok(branch)
}

fn encode(fork: Option<Place>, first: FrameNo, batch: &Batch) -> Vec<u8> {
    let table = FIXED + batch.len() * HEAD + SUM;
    let mut object = Vec::with_capacity(table + batch.pages.len());
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&fork.map_or(0, |fork| fork.generation.0).to_be_bytes());
    // A batch is far smaller than 4 GiB.
    object.extend_from_slice(&u32::try_from(batch.len()).unwrap_or(u32::MAX).to_be_bytes());
    object.extend_from_slice(&fork.map_or(0, |fork| fork.frame.0).to_be_bytes());
    object.extend_from_slice(&first.0.to_be_bytes());
    for head in &batch.heads {
        object.extend_from_slice(&head.page.0.to_be_bytes());
        object.extend_from_slice(&head.commit.0.to_be_bytes());
        object.extend_from_slice(&head.hash.0.to_be_bytes());
    }
    let sum = checksum(&object);
    object.extend_from_slice(&sum);
    object.extend_from_slice(&batch.pages);
    object
}

fn checksum(bytes: &[u8]) -> [u8; SUM] {
    page_hash(PageNo(0), bytes).0.to_be_bytes()
}

type Decoded = (Option<Place>, FrameNo, Vec<FrameHead>);

/// Reads the table of an object; `None` for a file that is not one of ours by name.
async fn decode(store: &Store, path: &Path, size: u64) -> Result<Option<Decoded>> {
    if !paths::is_branch_frames(path) {
        return Ok(None);
    }
    let damaged = |what: &'static str| Error::damaged(path, what);
    let fixed = store.read_one(path, 0..size.min(FIXED as u64)).await?;
    let count = number(&fixed, 12, 4).filter(|_| fixed.starts_with(MAGIC));
    let count = count.ok_or_else(|| damaged("it does not begin as such a file does"))?;
    let table = FIXED as u64 + count * HEAD as u64;
    if size != table + SUM as u64 + count * PAGE as u64 {
        return Err(damaged("it has another size than its header says"));
    }
    let bytes = store.read_one(path, 0..table + SUM as u64).await?;
    let (table, sum) = bytes.split_at_checked(bytes.len().saturating_sub(SUM)).unwrap_or_default();
    if checksum(table) != sum {
        return Err(damaged("its checksum is wrong"));
    }
    let field = |at: usize, size: usize| number(table, at, size).unwrap_or(0);
    let generation = Generation(u32::try_from(field(8, 4)).unwrap_or(0));
    let fork = (generation.0 != 0).then(|| Place { generation, frame: FrameNo(field(16, 8)) });
    let heads = table.get(FIXED..).unwrap_or_default().chunks_exact(HEAD).map(|head| {
        let small = |at| u32::try_from(number(head, at, 4).unwrap_or(0)).unwrap_or(0);
        let hash = head.last_chunk::<16>().map_or(0, |hash| u128::from_be_bytes(*hash));
        FrameHead { page: PageNo(small(0)), commit: PageCount(small(4)), hash: PageHash(hash) }
    });
    Ok(Some((fork, FrameNo(field(24, 8)), heads.collect())))
}

/// A big-endian number of up to eight bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    Some(bytes.get(at..at + size)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
