//! Rebasing: what the application committed while a request was under way goes on top of the answer, here.
//!
//! The pages of an answer fit the state that was sent. An application that commits faster than a request takes would never
//! get them. So from the second round of a sync on, the image that was sent is kept while the request is under way, and when the answer finds other
//! commits in the file, they are merged onto the head by the rules that the server merges by: the base is what was sent,
//! local what the file is now. The order of steps:
//!
//! 1. without a lock: what was committed since is rebased in memory, then what was committed meanwhile, and so on, until
//!    that takes next to no time;
//! 2. under the write lock the last such step: nobody can commit now;
//! 3. page sums go ahead of the commit, of three states: the file before it, the file after it, and the head. Killed
//!    later, the log tells which of the first two the file is ([`super::refused`]);
//! 4. one commit of the pages in which the result differs from the file. The base is the head then, and what was rebased is a change on top of it
//!    like any other: the next sync sends it.
//!
//! The application waits for 2 to 4, which is a merge of few rows and the commit. What is rebased has never left this machine, so the server
//! need not know; but nothing may be lost by it. Whatever has to be decided between two devices is decided by the server alone, which records
//! it: then nothing is committed here, and another round sends it there. Only a row whose id was given twice gets another one here; that is
//! noted before the commit, and the server adds it to the record of the merge ([`super::merged`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater_ltx::{PageCount, PageNo, PageSize, Position, planted};
use highwater_merge::{Bounds, Merged, Options, Pages, Sides};
use highwater_pages::owners::PageSource;
use highwater_pages::{
    Error as Local, Image, LocalState, Mark, NewPages, PageHash, PageSums, Replica, Snapshot, Suspects,
    WriteLock, durable, kill_point, page_hash,
};
use highwater_wire::{Conflict, ConflictKind, MergeRecord, Rebased};

use super::Run;
use crate::api::SyncAnswer;
use crate::error::{Error, Result};
use crate::metadata::RebaseNote;
use crate::receive::Received;

/// A step that takes no longer leaves so little to the next one that the application can wait for that.
const QUICK: Duration = Duration::from_millis(10);
/// Steps without a lock. Each leaves what is committed while it runs; more do not get it down.
const MOST_STEPS: u32 = 6;
/// A step may take this long: longer ones are the server's.
const LONGEST: Duration = Duration::from_secs(10);
/// The step under the write lock, at most.
const LONGEST_LOCKED: Duration = Duration::from_secs(1);
/// Memory of one step, in bytes.
const MOST_MEMORY: u64 = 256 << 20;

/// What was sent, and what came back: received whole, and found to lead to the head.
pub(super) struct Answered {
    /// The image that was sent.
    pub(super) image: Arc<Image>,
    /// Its page sums, and where the log stood then.
    pub(super) sums: PageSums,
    pub(super) mark: Mark,
    pub(super) head: Position,
    pub(super) received: Received,
}

/// What is known after some steps.
struct Rebase {
    /// The file as the last step found it.
    local: Pages,
    local_sums: PageSums,
    mark: Mark,
    /// The head with everything on top that was rebased so far.
    result: Pages,
    result_sums: PageSums,
    /// Every page in which those two may differ.
    moved: BTreeSet<PageNo>,
    /// Those that were committed here since the request.
    committed: BTreeSet<PageNo>,
    /// None: nothing was committed so far, and the record of the merge was not needed.
    options: Option<Options>,
    /// SQLite's count of commits at the last step: as long as it stays, nobody has committed.
    seen: Option<i64>,
    /// The number of the merge that led to the head, and ids that rows got here.
    merge: u64,
    conflicts: Vec<Conflict>,
}

/// Why a step led nowhere. Nothing was written.
enum Stop {
    /// The server has to decide.
    Undecided,
    /// Something was committed, and the record of the merge is needed. The step can be taken again with it.
    NoRecord,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<highwater_pages::Error> for Stop {
    fn from(error: highwater_pages::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Run<'_> {
    /// Brings the file to the head, with what was committed since the request on top. The head's page sums, and whether the next capture
    /// may look on from where the log stood at the request; None: it cannot be done here, and nothing was written.
    pub(super) fn rebase(
        &mut self,
        replica: &mut Replica,
        answered: Answered,
        answer: &SyncAnswer,
    ) -> Result<Option<(PageSums, bool)>> {
        // What an earlier attempt noted did not come.
        self.meta.rebasing = None;
        let (head_sums, mut rebase) = Rebase::new(answered);
        let done = self.free_steps(replica, &mut rebase, answer).and_then(|()| {
            let keeper = replica.another()?;
            let lock = replica.lock_writes()?;
            let locked = Instant::now();
            let done = self.locked_step(replica, (lock, keeper), &mut rebase, &head_sums);
            self.held += locked.elapsed();
            done
        });
        match done {
            Ok(sums) => {
                self.rebased.append(&mut rebase.conflicts);
                return Ok(Some(sums));
            }
            // Somebody else writes, or did: there is another round.
            Err(Stop::Failed(Error::Local(Local::ChangedSince { .. } | Local::Busy { .. })))
            | Err(Stop::Undecided | Stop::NoRecord) => {}
            Err(Stop::Failed(error)) => return Err(error),
        }
        self.meta.rebasing = None;
        Ok(None)
    }

    /// The steps that nobody waits for.
    fn free_steps(
        &mut self,
        replica: &mut Replica,
        rebase: &mut Rebase,
        answer: &SyncAnswer,
    ) -> Result<(), Stop> {
        for _ in 0..MOST_STEPS {
            let began = Instant::now();
            let since = rebase.mark;
            let (snapshot, image) = replica.snapshot_and_image(Some(&since))?;
            match rebase.step(&snapshot, Arc::new(image.ok_or(Stop::Undecided)?), LONGEST) {
                Err(Stop::NoRecord) => rebase.knows(self.record_of(answer, rebase).ok_or(Stop::Undecided)?),
                done => {
                    done?;
                    rebase.seen = Some(snapshot.data_version());
                }
            }
            if rebase.seen.is_some() && began.elapsed() < QUICK {
                break;
            }
        }
        Ok(())
    }

    /// The record of the merge: it says which rows of what was sent have other ids at the head, or are not there.
    fn record_of(&self, answer: &SyncAnswer, rebase: &Rebase) -> Option<MergeRecord> {
        let record = self.api.record::<MergeRecord>(&answer.merge?.0.to_string());
        let sent = rebase.local_sums.position().state.to_string();
        match record {
            Ok(record) => (record.local_state == sent).then_some(record),
            Err(error) => {
                tracing::debug!(%error, "the record of the merge was not fetched");
                None
            }
        }
    }

    /// The last step, and the commit.
    fn locked_step(
        &mut self,
        replica: &mut Replica,
        (lock, keeper): (WriteLock, Replica),
        rebase: &mut Rebase,
        head_sums: &PageSums,
    ) -> Result<(PageSums, bool), Stop> {
        kill_point("rebase.locked");
        let since = rebase.mark;
        let snapshot = replica.snapshot(Some(&since))?;
        if rebase.seen != Some(snapshot.data_version()) {
            if matches!(snapshot.suspects(Some(&since))?, Suspects::All(_)) {
                // To read the whole file takes longer than anybody should wait.
                return Err(Stop::Undecided);
            }
            rebase.step(&snapshot, Arc::new(Image::begin(keeper)?), LONGEST_LOCKED)?;
        }
        let data_version = snapshot.data_version();
        drop(snapshot);
        let after = self.note_rebase(rebase, head_sums)?;
        kill_point("rebase.sums_ahead");
        let state = LocalState {
            data_version,
            state: rebase.local_sums.position().state,
            base: Some(&rebase.local_sums),
            since: Some(&since),
        };
        let pages = rebase.differing();
        let source = Arc::clone(&rebase.result);
        let mut new = NewPages {
            page_size: source.page_size(),
            page_count: source.page_count(),
            pages: &pages,
            read: &mut |page, into| source.read(page, into),
            progress: &mut |_, _| (),
        };
        replica.commit_locked(lock, state, &mut new)?;
        tracing::debug!(pages = pages.len(), "what was committed meanwhile is on top of the head");
        Ok((after, rebase.is_named(&pages, head_sums)))
    }

    /// Page sums of the file before the commit, of the file after it, and of the head; and ids that rows get with it.
    fn note_rebase(&mut self, rebase: &Rebase, head: &PageSums) -> Result<PageSums, Stop> {
        let mut sums = rebase.local_sums.clone();
        let only_the_head = planted("rebase-notes-only-the-head");
        if !only_the_head {
            sums.append_ahead(&self.files.sums)?;
        }
        for next in [&rebase.result_sums, head] {
            // Where neither has a page that the other one has not, that page is in both.
            let moved = rebase.moved.iter().filter_map(|page| Some((*page, next.get(*page)?)));
            let moved: Vec<_> = moved.filter(|(page, hash)| sums.get(*page) != Some(*hash)).collect();
            sums.apply(&moved, next.page_count(), next.position());
            if !only_the_head || std::ptr::eq(next, head) {
                sums.append_ahead(&self.files.sums)?;
            }
        }
        if !rebase.conflicts.is_empty() {
            let state = rebase.result_sums.position().state.to_string();
            self.meta.rebasing = Some(RebaseNote {
                merge: rebase.merge,
                head: head.position().state.to_string(),
                told: Rebased { state, conflicts: rebase.conflicts.clone() },
            });
            self.meta.save(&self.files.info)?;
        }
        durable::sync_path(&self.files.sums)?;
        durable::sync_dir(self.files.folder())?;
        Ok(sums)
    }
}

impl Rebase {
    /// Before the first step: the file is what was sent, the result the head. Also the head's page sums.
    fn new(answered: Answered) -> (PageSums, Self) {
        let Answered { image, sums: local_sums, mark, head, received } = answered;
        let mut head_sums = local_sums.clone();
        head_sums.apply(&received.pages, received.header.commit, head);
        let mut moved: BTreeSet<PageNo> = received.pages.iter().map(|(page, _)| *page).collect();
        moved.extend(pages_between(local_sums.page_count(), received.header.commit));
        let local: Pages = image;
        let result: Pages = Arc::new(Head {
            sent: Arc::clone(&local),
            page_count: received.header.commit,
            received: Mutex::new(received),
        });
        let result_sums = head_sums.clone();
        let rebase = Self {
            local,
            local_sums,
            mark,
            result,
            result_sums,
            moved,
            committed: BTreeSet::new(),
            options: None,
            seen: None,
            merge: 0,
            conflicts: Vec::new(),
        };
        (head_sums, rebase)
    }

    /// Takes what is known of the merge that led to the head.
    fn knows(&mut self, record: MergeRecord) {
        let MergeRecord { txid, policy, renumbered, rejected, .. } = record;
        let bounds = Bounds::default();
        self.merge = txid;
        self.options = Some(Options { policy, renumbered, rejected, doubt: false, bounds });
    }

    /// Rebases what was committed since the last step. `image` is of the same state as the snapshot.
    fn step(&mut self, snapshot: &Snapshot<'_>, image: Arc<Image>, longest: Duration) -> Result<(), Stop> {
        let suspects = snapshot.suspects(Some(&self.mark))?;
        let delta = snapshot.diff(Some(&self.local_sums), &suspects, &mut |_, _| ())?;
        if snapshot.page_size() != self.result.page_size() {
            return Err(Stop::Undecided);
        }
        let next = snapshot.next_mark()?;
        if delta.is_empty() {
            (self.local, self.mark) = (image, next);
            return Ok(());
        }
        let options = self.options.clone().ok_or(Stop::NoRecord)?;
        let local: Pages = image;
        let sides = Sides {
            base: Arc::clone(&self.local),
            local: Arc::clone(&local),
            head: Arc::clone(&self.result),
            local_changed: delta.changed.iter().map(|(page, _)| *page).collect(),
            head_changed: self.moved.iter().copied().collect(),
        };
        let bounds = Bounds { until: Instant::now().checked_add(longest), memory: Some(MOST_MEMORY) };
        let options = Options { bounds, ..options };
        let mut merged = match highwater_merge::merge(&sides, &options) {
            Ok(Merged::Done(merged)) => *merged,
            Ok(other) => {
                tracing::debug!(?other, "the server has to merge what was committed meanwhile");
                return Err(Stop::Undecided);
            }
            Err(error) => {
                tracing::debug!(%error, "the server has to merge what was committed meanwhile");
                return Err(Stop::Undecided);
            }
        };
        if planted("rebase-loses-what-was-committed") {
            (merged.pages, merged.page_count) = (Vec::new(), self.result.page_count());
        }
        let plain = merged.conflicts.iter().all(|conflict| conflict.kind == ConflictKind::Renumbered);
        let plain = plain || planted("rebase-decides-alone");
        if !plain || self.conflicts.len() + merged.conflicts.len() > Rebased::MOST {
            return Err(Stop::Undecided);
        }
        let place = self.result_sums.position();
        let here = Position { state: delta.state, ..place };
        let counts = (self.local_sums.page_count(), self.result_sums.page_count());
        self.local_sums.apply(&delta.changed, delta.page_count, here);
        self.moved.extend(delta.changed.iter().map(|(page, _)| *page));
        self.committed.extend(delta.changed.iter().map(|(page, _)| *page));
        self.moved.extend(pages_between(counts.0, delta.page_count));
        self.moved.extend(pages_between(counts.1, merged.page_count));
        self.moved.extend(merged.pages.iter().map(|(page, _)| *page));
        (self.local, self.mark) = (local, next);
        let hashes: Vec<(PageNo, PageHash)> =
            merged.pages.iter().map(|(page, data)| (*page, page_hash(*page, data))).collect();
        let state = self.result_sums.state_with(&hashes, merged.page_count).ok_or(Stop::Undecided)?;
        self.result_sums.apply(&hashes, merged.page_count, Position { state, ..place });
        self.result = Arc::new(Changed {
            before: Arc::clone(&self.result),
            page_count: merged.page_count,
            pages: merged.pages.into_iter().collect(),
        });
        self.conflicts.extend(merged.conflicts);
        self.options = Some(Options { renumbered: merged.renumbered, rejected: merged.rejected, ..options });
        Ok(())
    }

    /// The pages in which the result differs from the file.
    fn differing(&self) -> Vec<PageNo> {
        let count = self.result_sums.page_count();
        let there = self.moved.iter().copied().filter(|page| count.contains(*page));
        there.filter(|page| self.result_sums.get(*page) != self.local_sums.get(*page)).collect()
    }

    /// Whether the log, from where it stood when the request was made, names every page in which the result differs from the head. It does not if what
    /// came is undone, page by page, by what was committed here.
    fn is_named(&self, written: &[PageNo], head: &PageSums) -> bool {
        let mut differ = self.moved.iter().filter(|page| self.result_sums.get(**page) != head.get(**page));
        differ.all(|page| self.committed.contains(page) || written.binary_search(page).is_ok())
    }
}

/// The pages that only the larger of two states has.
fn pages_between(one: PageCount, two: PageCount) -> impl Iterator<Item = PageNo> {
    (one.min(two).0.saturating_add(1)..=one.max(two).0).map(PageNo)
}

/// The server's head: what was sent, with the pages of the answer on top.
struct Head {
    sent: Pages,
    page_count: PageCount,
    received: Mutex<Received>,
}

impl PageSource for Head {
    fn page_size(&self) -> PageSize {
        self.sent.page_size()
    }

    fn page_count(&self) -> PageCount {
        self.page_count
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        match received.page(page, into) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.sent.read(page, into),
            other => other,
        }
    }
}

/// A state with some pages changed.
struct Changed {
    before: Pages,
    page_count: PageCount,
    pages: BTreeMap<PageNo, Vec<u8>>,
}

impl PageSource for Changed {
    fn page_size(&self) -> PageSize {
        self.before.page_size()
    }

    fn page_count(&self) -> PageCount {
        self.page_count
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        match self.pages.get(&page) {
            Some(data) => {
                into.clear();
                into.extend_from_slice(data);
                Ok(())
            }
            None => self.before.read(page, into),
        }
    }
}
