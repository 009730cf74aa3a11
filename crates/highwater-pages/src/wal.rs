//! What a write-ahead log tells about changes, read from the `-wal` file itself.
//!
//! The log only narrows the search. A capture leaves a mark where it stopped; the next asks with
//! [`tail`] which pages may differ since, and gets candidates, or the answer that continuity is
//! lost and every page is one. Whether a candidate really differs is for its reader to find out.
//!
//! # The order that misses nothing
//! 1. take the mark ([`mark_from`]);
//! 2. start the read transaction, and keep it until the end;
//! 3. ask for the [`tail`] since the mark of the capture before.
//!
//! Then every commit that the read transaction sees is in the tail, or was seen by the capture
//! before; and every commit that it does not see lies behind the new mark.
//!
//! The second half is delicate: SQLite writes a transaction's commit frame to the file (and waits
//! for the disk) *before* readers can see it. A read transaction that starts in between does not
//! see the last commit of the log. Therefore [`mark`] and [`mark_from`] stop at the last commit
//! that something follows, which must have been published before its follower could begin. The
//! last transaction would so be looked at again by every capture, however large it is; therefore
//! [`advance`] moves the mark over it once the read transaction proves to contain it, without a
//! lock; and [`mark_locked`], for a caller that holds the write lock, goes to the very last.
//!
//! # Continuity
//! A checkpoint that finished lets the next writer restart the log: it writes a header with a new
//! second salt and a first salt that is greater by one, then frames over the old ones, from the
//! start. While the new round is shorter than the mark, the old round's frames behind the mark
//! still stand, chained by their checksums to the mark, and nothing was missed. Two restarts, a
//! truncated log or another log lose continuity; that costs time, never a change.
//!
//! The old round counts as whole if its last frame is followed by another whole frame (a remnant
//! of a still older round) or is a commit at the very end of the file. One case cannot be told
//! apart: a `journal_size_limit` that is exactly the size of a log of so many frames, and cut the
//! old round right after a commit. No power of two is such a number for page sizes up to 4096.
//!
//! Nothing here opens the database file or its `-shm`: closing those would drop SQLite's locks.

mod advance;
mod log;
mod passed;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use highwater_ltx::{PageCount, PageNo, PageSize, planted};

use crate::error::Result;
pub use advance::advance;
use log::{Chain, FrameHeader, HeaderRead, LogFile, LogHeader, Stop};
pub use passed::passed_through;

/// How often reading is tried again when the log is restarted meanwhile.
const ATTEMPTS: u32 = 5;

/// Where a capture stopped reading: behind a commit, or behind the header of a log without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalMark {
    /// The first salt of the log's round; the next round's is greater by one.
    pub salt1: u32,
    /// The second salt, random in every round.
    pub salt2: u32,
    /// How many frames of the round lie before the mark.
    pub frames: u64,
    /// The running checksum of the log there.
    pub checksum: (u32, u32),
}

/// What a log says about the time since a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalTail {
    /// Every page that changed since the mark is among these.
    Continuous(Candidates),
    /// Any page may have changed.
    Lost(LostReason),
}

/// Pages that may differ from what they were at a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Pages that the log has frames of since the mark. Some may lie beyond the database's end.
    pub pages: BTreeSet<PageNo>,
    /// The smallest size that the database had after any commit since the mark; `None` without a
    /// commit. Pages above it may have been dropped and come back without a frame: they are
    /// candidates too.
    pub smallest_commit: Option<PageCount>,
    /// Frames since the mark that belong to a finished transaction.
    pub committed_frames: u64,
    /// Whether the log was restarted since the mark.
    pub restarted: bool,
    /// The last commit that surely is published now: where [`mark_from`] may carry on. It is no
    /// mark for a read transaction that had started before.
    pub end: WalMark,
}

impl Candidates {
    /// Whether the page may have changed.
    #[must_use]
    pub fn contains(&self, page: PageNo) -> bool {
        self.smallest_commit.is_some_and(|size| page.0 > size.0) || self.pages.contains(&page)
    }
}

/// Why a log does not say what changed since a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// There was no mark.
    NoMark,
    /// There is no log, or an empty one.
    NoLog,
    /// The log's header is half written, or not one of a log.
    BadHeader,
    /// The log is of another page size.
    PageSize,
    /// The log is not the one of the mark, and not its direct successor.
    AnotherLog,
    /// The frame before the mark is gone: the log was cut, or a new round has reached it.
    MarkGone,
    /// The old round behind the mark may have been cut.
    Truncated,
    /// The log was restarted again and again while being read.
    Unsteady,
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMark => "nothing is known of an earlier capture",
            Self::NoLog => "there is no write-ahead log",
            Self::BadHeader => "the write-ahead log has no valid header",
            Self::PageSize => "the write-ahead log is of another page size",
            Self::AnotherLog => "the write-ahead log is another one",
            Self::MarkGone => "the write-ahead log no longer reaches back to the last capture",
            Self::Truncated => "the write-ahead log was cut",
            Self::Unsteady => "the write-ahead log was restarted while it was read",
        })
    }
}

/// The last commit in the log that any read transaction started from now on sees. `None` if there
/// is no log, an empty one, or one without a valid header. Reads the whole log.
pub fn mark(wal_path: &Path) -> Result<Option<WalMark>> {
    mark_from(wal_path, None)
}

/// As [`mark`], but reads only what follows `since`, if the log still continues it.
pub fn mark_from(wal_path: &Path, since: Option<&WalMark>) -> Result<Option<WalMark>> {
    find_mark(wal_path, since, |commits| commits.published)
}

/// The very last commit in the log, for a caller that holds the database's write lock: then no
/// commit can be half-way between the file and its readers.
pub fn mark_locked(wal_path: &Path, since: Option<&WalMark>) -> Result<Option<WalMark>> {
    find_mark(wal_path, since, |commits| commits.last)
}

/// What may have changed since a mark, according to the log as it is now.
pub fn tail(wal_path: &Path, since: Option<&WalMark>, page_size: PageSize) -> Result<WalTail> {
    let Some(since) = since else { return Ok(WalTail::Lost(LostReason::NoMark)) };
    let Some(mut log) = LogFile::open(wal_path)? else { return Ok(WalTail::Lost(LostReason::NoLog)) };
    for _ in 0..ATTEMPTS {
        let before = log.header()?;
        let header = match before {
            HeaderRead::Valid(header) => header,
            HeaderRead::Empty => return Ok(WalTail::Lost(LostReason::NoLog)),
            HeaderRead::Invalid => return Ok(WalTail::Lost(LostReason::BadHeader)),
        };
        if header.page_size != page_size {
            return Ok(WalTail::Lost(LostReason::PageSize));
        }
        let tail = match restarts_between(since, &header) {
            Some(Restarts::None) => same_round(&mut log, &header, since)?,
            Some(Restarts::One) => next_round(&mut log, &header, since)?,
            None => WalTail::Lost(LostReason::AnotherLog),
        };
        // Frames are overwritten only after a new header: with the old one in place, all that was
        // read belonged together.
        if log.header()? == before {
            return Ok(tail);
        }
    }
    Ok(WalTail::Lost(LostReason::Unsteady))
}

enum Restarts {
    None,
    One,
}

fn restarts_between(since: &WalMark, header: &LogHeader) -> Option<Restarts> {
    if header.salts == (since.salt1, since.salt2) {
        // A header of the same salts but another checksum (another page size, say) is another log.
        (since.frames > 0 || since.checksum == header.checksum).then_some(Restarts::None)
    } else {
        (header.salts.0 == since.salt1.wrapping_add(1)).then_some(Restarts::One)
    }
}

/// The log still is in the round of the mark.
fn same_round(log: &mut LogFile, header: &LogHeader, since: &WalMark) -> Result<WalTail> {
    if !log.holds(since.chain(), header.page_size)? {
        return Ok(WalTail::Lost(LostReason::MarkGone));
    }
    let mut seen = Seen::default();
    let mut commits = Commits::starting_at(since.chain());
    log.follow(header, since.chain(), u64::MAX, |frame, chain| {
        seen.frame(frame, chain.frames - since.frames);
        commits.frame(frame, chain);
    })?;
    Ok(seen.candidates(false, commits.published))
}

/// The log is in the round after that of the mark.
fn next_round(log: &mut LogFile, header: &LogHeader, since: &WalMark) -> Result<WalTail> {
    if since.frames == 0 || !log.holds(since.chain(), header.page_size)? {
        return Ok(WalTail::Lost(LostReason::MarkGone));
    }
    let mut seen = Seen::default();
    let mut ends_with_commit = true;
    let (_, stop) = log.follow(header, since.chain(), u64::MAX, |frame, chain| {
        seen.frame(frame, chain.frames - since.frames);
        ends_with_commit = frame.commit != 0;
    })?;
    let whole = match stop {
        Stop::OtherFrame | Stop::Limit => true,
        Stop::EndOfFile => ends_with_commit,
        Stop::PartialFrame => false,
    };
    let mut commits = Commits::starting_at(header.chain());
    let old_committed = std::mem::take(&mut seen.committed);
    log.follow(header, header.chain(), since.frames, |frame, chain| {
        seen.frame(frame, chain.frames);
        commits.frame(frame, chain);
    })?;
    seen.committed += old_committed;
    // A new round overwrites in order: with the mark in place now, all behind it was in place
    // when it was read. So was every new frame that a reader could see.
    if !log.holds(since.chain(), header.page_size)? {
        return Ok(WalTail::Lost(LostReason::MarkGone));
    }
    if !whole {
        return Ok(WalTail::Lost(LostReason::Truncated));
    }
    Ok(seen.candidates(true, commits.published))
}

fn find_mark(
    wal_path: &Path,
    since: Option<&WalMark>,
    choose: impl Fn(&Commits) -> Chain,
) -> Result<Option<WalMark>> {
    let Some(mut log) = LogFile::open(wal_path)? else { return Ok(None) };
    for _ in 0..ATTEMPTS {
        let before = log.header()?;
        let HeaderRead::Valid(header) = before else { return Ok(None) };
        let start = match since {
            Some(since)
                if matches!(restarts_between(since, &header), Some(Restarts::None))
                    && log.holds(since.chain(), header.page_size)? =>
            {
                since.chain()
            }
            _ => header.chain(),
        };
        let mut commits = Commits::starting_at(start);
        log.follow(&header, start, u64::MAX, |frame, chain| commits.frame(frame, chain))?;
        if log.header()? == before {
            return Ok(Some(WalMark::at(choose(&commits))));
        }
    }
    Ok(None)
}

/// The commits along a chain.
struct Commits {
    /// The last commit on file.
    last: Chain,
    /// The last one that a frame of another transaction follows: a writer begins only after the
    /// commit before it was published, or else overwrites that.
    published: Chain,
    last_frame: Option<FrameHeader>,
}

impl Commits {
    fn starting_at(start: Chain) -> Self {
        Self { last: start, published: start, last_frame: None }
    }

    fn frame(&mut self, frame: &FrameHeader, chain: &Chain) {
        // On disks without powersafe overwrites SQLite repeats a commit frame up to the end of
        // the sector. Such a frame belongs to the transaction that it repeats.
        let repeats = self.last_frame.is_some_and(|last| {
            (last.page, last.commit, last.content) == (frame.page, frame.commit, frame.content)
                && frame.commit != 0
        });
        if !repeats {
            self.published = self.last;
        }
        if frame.commit != 0 {
            self.last = *chain;
        }
        if planted("mark-behind-what-nobody-saw") {
            self.published = self.last;
        }
        self.last_frame = Some(*frame);
    }
}

/// What a walk has come across.
#[derive(Default)]
struct Seen {
    pages: Vec<PageNo>,
    smallest: Option<PageCount>,
    committed: u64,
}

impl Seen {
    /// A frame, the `nth` of its walk.
    fn frame(&mut self, frame: &FrameHeader, nth: u64) {
        self.pages.push(frame.page);
        if frame.commit != 0 {
            let size = PageCount(frame.commit);
            self.smallest = Some(self.smallest.map_or(size, |smallest| smallest.min(size)));
            self.committed = nth;
        }
    }

    fn candidates(self, restarted: bool, end: Chain) -> WalTail {
        WalTail::Continuous(Candidates {
            pages: self.pages.into_iter().collect(),
            smallest_commit: self.smallest,
            committed_frames: self.committed,
            restarted,
            end: WalMark::at(end),
        })
    }
}

impl WalMark {
    fn chain(&self) -> Chain {
        Chain { salts: (self.salt1, self.salt2), frames: self.frames, checksum: self.checksum }
    }

    fn at(chain: Chain) -> Self {
        Self { salt1: chain.salts.0, salt2: chain.salts.1, frames: chain.frames, checksum: chain.checksum }
    }
}
