//! Pages that SQLite allocated and freed again without ever writing them. A client's log has no frame of
//! such a page, although the database grew by it. It must be on the freelist: a
//! page that is missing for another reason means that the frames belong to another database.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#the_freelist>. Page 1 has the first trunk page at
//! offset 32 (big-endian); a trunk page has the next one, the number of leaves, and the leaves.

use std::collections::BTreeSet;

use highwater_ltx::PageNo;

/// The most leaves that a trunk page names, and the page itself.
pub(super) const LEAVES: usize = super::frames::PAGE / 4 - 2 + 1;

/// Takes the leaves of a trunk page out of `missing`; the next trunk page, if there is one.
pub(super) fn trunk(page: &[u8], missing: &mut BTreeSet<PageNo>) -> Option<PageNo> {
    let mut numbers = page
        .chunks_exact(4)
        .map(|bytes| bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes)));
    let (next, leaves) = (numbers.next()?, numbers.next()?);
    for leaf in numbers.take(leaves as usize) {
        missing.remove(&PageNo(leaf));
    }
    (next != 0).then_some(PageNo(next))
}

/// The first trunk page of the freelist.
pub(super) fn first(page_one: &[u8]) -> Option<PageNo> {
    let number = page_one.get(32..36)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))?;
    (number != 0).then_some(PageNo(number))
}
