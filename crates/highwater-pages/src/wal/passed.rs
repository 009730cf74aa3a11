//! Whether a database has been in a state, by what its log still holds of the time since a mark.
//!
//! A transaction is there whole or not at all. So a log that continues from a mark tells exactly whether some commit
//! since brought the database to a state that is known by its page sums, whatever was written afterwards.
//!
//! A commit frame alone is no proof: SQLite writes it before readers see the commit, and when the log cannot be flushed
//! then, it stays in the file and is never seen. The next writer begins in its place. So a commit counts when a frame
//! follows it. Of the very last one its caller has to know: it is what the database holds now, or was never there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use highwater_ltx::{PageNo, planted};

use super::log::{Chain, HeaderRead, LogFile, LogHeader, Stop};
use super::{Restarts, WalMark, restarts_between};
use crate::canonical;
use crate::error::Result;
use crate::hash::page_hash;
use crate::sums::PageSums;

/// A frame: its page, its number, and the database's size if it ends a transaction.
type Frame = (PageNo, u64, u32);

/// Whether, after some commit since `since`, the database was in the state of these page sums. `moved` are the pages in
/// which that state differs from the mark's. When the log does not continue from the mark, it can still prove that the
/// state was there, but not that it never was. `None`: it says nothing. Not to be asked about the state that the database is in. Reads the log behind the mark, or all of it.
pub fn passed_through(
    wal_path: &Path,
    since: Option<&WalMark>,
    state: &PageSums,
    moved: &BTreeSet<PageNo>,
) -> Result<Option<bool>> {
    let page_size = state.page_size();
    let Some(mut log) = LogFile::open(wal_path)? else { return Ok(None) };
    let before = log.header()?;
    let HeaderRead::Valid(header) = before else { return Ok(None) };
    if moved.is_empty() || header.page_size != page_size {
        return Ok(None);
    }
    let mut search = Search { state, missing: moved.clone(), wrong: BTreeSet::new() };
    let continued = match since {
        Some(since) if log.holds(since.chain(), page_size)? => {
            restarts_between(since, &header).zip(Some(since))
        }
        _ => None,
    };
    let (found, whole) = match continued {
        Some((Restarts::None, since)) => (search.look(&mut log, &header, since.chain(), u64::MAX)?.0, true),
        Some((Restarts::One, since)) if since.frames > 0 => {
            let (found, stop) = search.look(&mut log, &header, since.chain(), u64::MAX)?;
            // A round that was cut may have lost the very commit, and whether its last one was seen is not told.
            let whole = found != Found::AtTheEnd && matches!(stop, Stop::OtherFrame | Stop::Limit);
            match found {
                Found::Followed => (found, whole),
                _ => (search.look(&mut log, &header, header.chain(), since.frames)?.0, whole),
            }
        }
        _ => (search.look(&mut log, &header, header.chain(), u64::MAX)?.0, false),
    };
    let found = found == Found::Followed;
    let held = match continued {
        Some((_, since)) => log.holds(since.chain(), page_size)?,
        None => true,
    };
    let steady = held && log.header()? == before;
    Ok((steady && (found || whole)).then_some(found))
}

/// What a part of a log holds of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// Its last commit leads there.
    AtTheEnd,
    /// A commit leads there, and another frame comes after it.
    Followed,
}

struct Search<'a> {
    state: &'a PageSums,
    /// Pages that moved and have no frame yet.
    missing: BTreeSet<PageNo>,
    /// Pages with a frame that are not as in the state, after the last commit.
    wrong: BTreeSet<PageNo>,
}

impl Search<'_> {
    /// Looks at each commit of a part of the log.
    fn look(
        &mut self,
        log: &mut LogFile,
        header: &LogHeader,
        from: Chain,
        limit: u64,
    ) -> Result<(Found, Stop)> {
        let mut frames: Vec<Frame> = Vec::new();
        let (_, stop) = log.follow(header, from, limit, |frame, chain| {
            frames.push((frame.page, chain.frames, frame.commit))
        })?;
        let end = frames.len();
        let mut written = BTreeMap::new();
        let mut content = Vec::new();
        for (nth, (page, number, commit)) in frames.into_iter().enumerate() {
            written.insert(page, number);
            if commit == 0 {
                continue;
            }
            for (page, number) in std::mem::take(&mut written) {
                let read = log.frame_page(number, self.state.page_size(), &mut content)?;
                let hash = page_hash(page, &canonical(page, &content));
                self.missing.remove(&page);
                if read && self.state.get(page) == Some(hash) {
                    self.wrong.remove(&page);
                } else {
                    self.wrong.insert(page);
                }
            }
            let beyond = |page: &PageNo| page.0 > commit;
            if commit == self.state.page_count().0 && self.missing.is_empty() && self.wrong.iter().all(beyond)
            {
                let found = if nth + 1 < end || planted("last-frame-is-proof") {
                    Found::Followed
                } else {
                    Found::AtTheEnd
                };
                return Ok((found, stop));
            }
        }
        Ok((Found::Nothing, stop))
    }
}
