//! Where a capture looked, so that the next one knows where to look on.
//!
//! A mark is taken *before* the read transaction of a capture begins, and candidates are collected
//! *after* it began: whatever is committed in between is seen twice rather than never.
//!
//! Two kinds of evidence say that nothing but certain pages can have changed since a mark:
//!
//! - the write-ahead log continues where the mark was set ([`crate::wal`]);
//! - the log was empty at the mark, and the database file's own inode, size and times are the same
//!   as then. File times have the granularity of a kernel tick, so they are only recorded when the
//!   last change lay at least [`QUIET`] back.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use highwater_ltx::PageSize;

use crate::error::{Error, Result};
use crate::replica::beside;
use crate::wal::{self, Candidates, LostReason, WalMark, WalTail};

/// How long a file must have been left alone for its times to prove that it still is.
const QUIET: Duration = Duration::from_secs(2);

/// The identity and times of the database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMark {
    /// The device that the file is on.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its last change of content, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Its last change of anything, in nanoseconds since 1970.
    pub changed_ns: i128,
}

/// Where a capture looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The end of the write-ahead log. None: there was none, or it was empty.
    pub wal: Option<WalMark>,
    /// The database file. None: it had changed too recently to tell.
    pub file: Option<FileMark>,
}

/// What may have changed since a mark.
#[derive(Debug)]
pub enum Suspects {
    /// No page.
    Nothing,
    /// These pages and no others.
    Some(Candidates),
    /// Any page, and why.
    All(LostReason),
}

impl Suspects {
    /// Any page, when nothing is known.
    pub const ALL: Self = Self::All(LostReason::NoMark);
}

impl Mark {
    /// Looks at the files as they are now. `since` is an earlier mark from which to read on.
    pub fn take(db: &Path, since: Option<&Self>) -> Result<Self> {
        let file = stat(db)?.filter(is_quiet);
        let wal = wal::mark_from(&beside(db, "-wal"), since.and_then(|mark| mark.wal.as_ref()))?;
        Ok(Self { wal, file })
    }

    /// The mark of a file that was just published with the modification time `modified`, which lies
    /// in the past: a file that still has it was written by nobody else. None if it was.
    pub(crate) fn of_new_file(db: &Path, modified: SystemTime) -> Result<Option<Self>> {
        let modified = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let file = stat(db)?.filter(|mark| mark.modified_ns == modified.cast_signed());
        Ok(file.map(|file| Self { wal: None, file: Some(file) }))
    }

    /// What may have changed since this mark. To be called after the read transaction began.
    pub fn suspects(&self, db: &Path, size: PageSize) -> Result<Suspects> {
        let wal_path = beside(db, "-wal");
        let tail = match &self.wal {
            Some(mark) => wal::tail(&wal_path, Some(mark), size)?,
            None if self.file.is_none() || stat(db)? != self.file => WalTail::Lost(LostReason::NoMark),
            // Nothing was moved from a log into the file since the mark, and there was no log then:
            // all of the log that exists now, if any, is newer.
            None => match start_of_log(&wal_path)? {
                Some(start) => wal::tail(&wal_path, Some(&start), size)?,
                None => return Ok(Suspects::Nothing),
            },
        };
        Ok(match tail {
            WalTail::Lost(reason) => Suspects::All(reason),
            WalTail::Continuous(found) if found.pages.is_empty() && found.smallest_commit.is_none() => {
                Suspects::Nothing
            }
            WalTail::Continuous(candidates) => Suspects::Some(candidates),
        })
    }
}

/// The place before the first frame of the log as it is now; None without a log.
fn start_of_log(wal_path: &Path) -> Result<Option<WalMark>> {
    let mut header = Vec::with_capacity(32);
    let read = std::fs::File::open(wal_path).and_then(|file| file.take(32).read_to_end(&mut header));
    match read {
        Ok(0) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io(wal_path, "reading", source)),
        Ok(_) => {}
    }
    let field = |at: usize| {
        header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    // Whether this is a valid header is for the reader of the tail to find out.
    Ok(Some(WalMark { salt1: field(16), salt2: field(20), frames: 0, checksum: (field(24), field(28)) }))
}

fn is_quiet(mark: &FileMark) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    let Ok(now) = i128::try_from(now) else { return false };
    let newest = mark.modified_ns.max(mark.changed_ns);
    now.saturating_sub(newest) >= QUIET.as_nanos().cast_signed()
}

#[cfg(unix)]
fn stat(path: &Path) -> Result<Option<FileMark>> {
    use std::os::unix::fs::MetadataExt;
    const SECOND: i128 = 1_000_000_000;
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some(FileMark {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.len(),
            modified_ns: i128::from(meta.mtime()) * SECOND + i128::from(meta.mtime_nsec()),
            changed_ns: i128::from(meta.ctime()) * SECOND + i128::from(meta.ctime_nsec()),
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io(path, "reading the times of", source)),
    }
}

/// Elsewhere there is no inode to tell a file from its replacement: never evidence.
#[cfg(not(unix))]
fn stat(_path: &Path) -> Result<Option<FileMark>> {
    Ok(None)
}
