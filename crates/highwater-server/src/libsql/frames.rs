//! Frames as they cross the network: 24 bytes of header, of which the first eight count (page number
//! and, in the last frame of a transaction, the size of the database after it; big-endian), and a page.

use bytes::Bytes;
use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_pages::{PageHash, canonicalise_first_page, page_hash};

/// libSQL's clients know no other page size.
pub(super) const PAGE_SIZE: PageSize = PageSize::DEFAULT;
/// Bytes in a page.
pub(super) const PAGE: usize = PAGE_SIZE.as_usize();
/// Bytes before the page in a frame.
pub(super) const HEADER: usize = 24;
/// Bytes in a frame.
pub(crate) const FRAME: usize = HEADER + PAGE;

/// What a frame says, without its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) page: PageNo,
    /// The size of the database if this frame ends a transaction, else 0.
    pub(super) commit: PageCount,
    /// Of the page's canonical form. Salts and checksums of the client's log do not count.
    pub(super) hash: PageHash,
}

/// Consecutive frames from a client.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) heads: Vec<FrameHead>,
    /// Their pages, canonical, one after the other.
    pub(super) pages: Bytes,
    /// The salts of the client's log: another log has others.
    pub(super) salts: Salts,
}

/// Bytes 8 to 16 of a frame.
pub(super) type Salts = [u8; 8];

impl Batch {
    /// Reads a body; says what is wrong with it, as a clause.
    pub(crate) fn parse(mut body: Vec<u8>) -> Result<Self, String> {
        if body.is_empty() || !body.len().is_multiple_of(FRAME) {
            return Err(format!(
                "{} bytes are no whole number of frames of {FRAME} bytes; the protocol has pages of {PAGE} bytes",
                body.len()
            ));
        }
        let count = body.len() / FRAME;
        let salts = body.get(8..16).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        let mut heads = Vec::with_capacity(count);
        for at in 0..count {
            let from = at * FRAME;
            let head = body.get(from..from + 8).and_then(|bytes| bytes.first_chunk::<8>());
            let [a, b, c, d, e, f, g, h] = *head.unwrap_or(&[0; 8]);
            let (page, commit) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
            if page == 0 || PageNo(page) == PAGE_SIZE.lock_page() {
                return Err(format!("frame {} of the batch is of page {page}, which holds no data", at + 1));
            }
            body.copy_within(from + HEADER..from + FRAME, at * PAGE);
            let data = body.get_mut(at * PAGE..at * PAGE + PAGE).unwrap_or_default();
            if page == 1 {
                canonicalise_first_page(data);
            }
            let (page, commit) = (PageNo(page), PageCount(commit));
            heads.push(FrameHead { page, commit, hash: page_hash(page, data) });
        }
        body.truncate(count * PAGE);
        Ok(Self { heads, pages: Bytes::from(body), salts })
    }

    /// How many frames it has.
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Without its first `count` frames.
    pub(super) fn skip(&self, count: usize) -> Self {
        Self {
            heads: self.heads.get(count..).unwrap_or_default().to_vec(),
            pages: self.pages.slice((count * PAGE).min(self.pages.len())..),
            salts: self.salts,
        }
    }
}

/// What whole transactions leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settled {
    /// The size of the database after them.
    pub(super) commit: PageCount,
    /// Each page with its last image, ascending.
    pub(super) pages: Vec<SettledPage>,
}

/// A page that transactions leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SettledPage {
    pub(super) page: PageNo,
    pub(super) hash: PageHash,
    /// Which of the frames has the image. `None`: no frame has one, although the database grew by this
    /// page: it was freed before it was ever written. [`FILLED`] stands for it. Or it is a page of before the
    /// frames ([`Settled::carry`]).
    pub(super) frame: Option<usize>,
}

impl Settled {
    /// Adds pages as they were before the frames.
    pub(super) fn carry(&mut self, pages: impl Iterator<Item = (PageNo, PageHash)>) {
        self.pages.extend(pages.map(|(page, hash)| SettledPage { page, hash, frame: None }));
        self.pages.sort_unstable_by_key(|page| page.page);
    }
}

/// What a page holds that no frame had. It is a free page, so nobody reads it; but it must not look like
/// one that was written: those that pull are given as many pages as there were frames, without this one.
pub(super) const FILLED: &[u8; PAGE] = &filled();

const fn filled() -> [u8; PAGE] {
    let text = b"highwater: a free page that was never written";
    let (mut page, mut at) = ([0; PAGE], 0);
    while at < text.len() {
        // Within both: the text is far shorter than a page.
        #[allow(clippy::indexing_slicing)]
        {
            page[at] = text[at];
        }
        at += 1;
    }
    page
}

/// The hash of [`FILLED`] in that place.
pub(super) fn filled_hash(page: PageNo) -> PageHash {
    page_hash(page, FILLED)
}

/// The last images of frames that end with a commit, on a database of `before` pages.
pub(super) fn settle(heads: &[FrameHead], before: PageCount) -> Settled {
    let commit = heads.last().map_or(PageCount(0), |head| head.commit);
    let mut order: Vec<usize> = (0..heads.len()).collect();
    let page_of = |at: usize| heads.get(at).map_or(PageNo(0), |head| head.page);
    // The last of each page first, so that the others are the duplicates.
    order.sort_unstable_by_key(|at| (page_of(*at), std::cmp::Reverse(*at)));
    order.dedup_by_key(|at| page_of(*at));
    let mut sent = order.into_iter().filter_map(|at| Some((at, heads.get(at)?))).peekable();
    let mut pages = Vec::new();
    let mut take = |pages: &mut Vec<SettledPage>, upto: u32| {
        while let Some((at, head)) = sent.next_if(|(_, head)| head.page.0 <= upto) {
            pages.push(SettledPage { page: head.page, hash: head.hash, frame: Some(at) });
        }
    };
    take(&mut pages, before.0.min(commit.0));
    for page in (before.0.saturating_add(1)..=commit.0).map(PageNo) {
        let known = pages.len();
        take(&mut pages, page.0);
        if pages.len() == known && page != PAGE_SIZE.lock_page() {
            pages.push(SettledPage { page, hash: filled_hash(page), frame: None });
        }
    }
    Settled { commit, pages }
}

/// The header of a frame that is served.
pub(super) fn header(page: PageNo, commit: PageCount) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (number, size) = (page.0.to_be_bytes(), commit.0.to_be_bytes());
    for (to, from) in header.iter_mut().zip(number.iter().chain(&size)) {
        *to = *from;
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(page: u32, commit: u32, hash: u128) -> FrameHead {
        FrameHead { page: PageNo(page), commit: PageCount(commit), hash: PageHash(hash) }
    }

    #[test]
    fn only_the_last_image_of_each_page_within_the_database_is_left() {
        let heads = [head(3, 0, 1), head(1, 3, 2), head(3, 0, 3), head(1, 2, 4), head(2, 2, 5)];
        let left = settle(&heads, PageCount(3));
        let pages: Vec<_> = left.pages.iter().map(|page| (page.page.0, page.hash.0, page.frame)).collect();
        assert_eq!((left.commit.0, pages), (2, vec![(1, 4, Some(3)), (2, 5, Some(4))]));
    }

    #[test]
    fn pages_that_were_never_written_are_filled() {
        let left = settle(&[head(5, 0, 1), head(1, 6, 2)], PageCount(3));
        let pages: Vec<_> = left.pages.iter().map(|page| (page.page.0, page.frame)).collect();
        assert_eq!(pages, [(1, Some(1)), (4, None), (5, Some(0)), (6, None)]);
    }

    #[test]
    fn a_body_that_is_no_frames_is_refused() {
        for body in [vec![], vec![1; FRAME - 1], vec![0; FRAME]] {
            assert!(Batch::parse(body).is_err());
        }
        let mut body = vec![7; FRAME * 2];
        body[..8].copy_from_slice(&[0, 0, 0, 2, 0, 0, 0, 0]);
        body[FRAME..FRAME + 8].copy_from_slice(&[0, 0, 0, 3, 0, 0, 0, 3]);
        let batch = Batch::parse(body).unwrap();
        assert_eq!((batch.len(), batch.pages.len()), (2, PAGE * 2));
        assert_eq!(batch.heads[1].commit, PageCount(3));
        assert_eq!(batch.skip(1).heads, batch.heads[1..]);
    }
}
