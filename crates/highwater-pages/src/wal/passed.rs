//! Whether a database once was in a certain state, whatever was written to it since.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use highwater_ltx::{PageCount, PageNo};

use super::log::{HeaderRead, LogFile};
use super::{Restarts, WalMark, restarts_between};
use crate::error::Result;
use crate::{PageHash, canonical, page_hash};

/// Whether right after one of the commits since `mark` all of `pages` were as given, and the database of that size. True
/// is proven by the log's frames; false may also mean that the log does not reach back to the mark any more.
pub fn passed(
    wal_path: &Path,
    mark: &WalMark,
    page_count: PageCount,
    pages: &BTreeMap<PageNo, PageHash>,
) -> Result<bool> {
    let Some(mut log) = LogFile::open(wal_path)? else { return Ok(false) };
    let before = log.header()?;
    let HeaderRead::Valid(header) = before else { return Ok(false) };
    let continues = matches!(restarts_between(mark, &header), Some(Restarts::None));
    if pages.is_empty() || !continues || !log.holds(mark.chain(), header.page_size)? {
        return Ok(false);
    }

    // Each commit's size, and the last frame that it has of each of the pages.
    let mut commits: Vec<(u32, BTreeMap<PageNo, u64>)> = Vec::new();
    let mut frames = BTreeMap::new();
    log.follow(&header, mark.chain(), u64::MAX, |frame, chain| {
        if pages.contains_key(&frame.page) {
            frames.insert(frame.page, chain.frames);
        }
        if frame.commit != 0 {
            commits.push((frame.commit, std::mem::take(&mut frames)));
        }
    })?;

    let (mut right, mut content) = (BTreeSet::new(), Vec::new());
    for (size, frames) in commits {
        for (page, frame) in frames {
            if !log.frame_page(frame, header.page_size, &mut content)? {
                return Ok(false);
            }
            if pages.get(&page) == Some(&page_hash(page, &canonical(page, &content))) {
                right.insert(page);
            } else {
                right.remove(&page);
            }
        }
        if right.len() == pages.len() && size == page_count.0 {
            // A restart meanwhile would have put other frames under our eyes.
            return Ok(log.header()? == before);
        }
    }
    Ok(false)
}
