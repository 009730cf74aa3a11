//! Moving a mark over the log's last transaction, by what a read transaction sees.
//!
//! Let P be the mark, S what the read transaction sees, and L the last commit on file. P is part
//! of S, and S of L, because L is looked for after S began. If the last image of every page that
//! has a frame between P and L is what S sees, and the sizes agree, then S and L do not differ,
//! and the mark may stand behind L, whether or not SQLite has published L to S.

use std::collections::BTreeMap;
use std::path::Path;

use highwater_ltx::{PageCount, PageNo};

use super::log::{HeaderRead, LogFile};
use super::{Restarts, WalMark, restarts_between};
use crate::error::Result;

/// A mark at least as far as `mark`, for a read transaction that began after `mark` was taken, is
/// still open, and sees a database of `page_count` pages. `sees` says whether that transaction sees
/// exactly this raw content of a page (page 1 need only agree in its canonical form). Costs one
/// reading of the log behind the mark, and a call for each page there. Where the last commit cannot
/// be proven to be seen, the answer is `mark`.
pub fn advance(
    wal_path: &Path,
    mark: &WalMark,
    page_count: PageCount,
    sees: &mut dyn FnMut(PageNo, &[u8]) -> Result<bool>,
) -> Result<WalMark> {
    let Some(mut log) = LogFile::open(wal_path)? else { return Ok(*mark) };
    let before = log.header()?;
    let HeaderRead::Valid(header) = before else { return Ok(*mark) };
    let continues = matches!(restarts_between(mark, &header), Some(Restarts::None));
    if !continues || !log.holds(mark.chain(), header.page_size)? {
        return Ok(*mark);
    }

    let mut last = mark.chain();
    let mut size = None;
    let mut shrunk = false;
    let mut images: BTreeMap<PageNo, u64> = BTreeMap::new();
    let mut uncommitted: Vec<(PageNo, u64)> = Vec::new();
    log.follow(&header, mark.chain(), u64::MAX, |frame, chain| {
        uncommitted.push((frame.page, chain.frames));
        if frame.commit != 0 {
            images.extend(uncommitted.drain(..));
            size = Some(PageCount(frame.commit));
            // What was dropped may have come back without a frame.
            shrunk |= frame.commit < page_count.0;
            last = *chain;
        }
    })?;
    if shrunk || size.is_some_and(|size| size != page_count) {
        return Ok(*mark);
    }

    let mut content = Vec::new();
    for (page, frame) in images.into_iter().filter(|(page, _)| page_count.contains(*page)) {
        if !log.frame_page(frame, header.page_size, &mut content)? || !sees(page, &content)? {
            return Ok(*mark);
        }
    }
    // A restart meanwhile would have put other frames under our eyes.
    Ok(if log.header()? == before { WalMark::at(last) } else { *mark })
}
