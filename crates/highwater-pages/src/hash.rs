//! How a page and a whole database are named by their content.
//!
//! - The hash of a page is XXH3-128 of its canonical bytes with the page number as the seed.
//! - The hash of a state is the sum of its page hashes plus a hash of page count and page size,
//!   modulo 2^128. A delta therefore costs only its own pages, and the sum can be taken back out
//!   of a state hash ([`StateSum::from_state`]).
//!
//! This is deliberately not the database checksum of LTX files: that one is an XOR of CRCs, which
//! is linear, so that equal changes at equal places of two pages cancel out (a test keeps the
//! example). The hash is not meant to withstand somebody who searches for collisions.

use highwater_ltx::{PageCount, PageNo, PageSize, StateHash};
use twox_hash::XxHash3_128;

/// The hash of one page's canonical content at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageHash(pub u128);

/// Hashes a page that is already canonical (see [`crate::canonical`]).
#[must_use]
pub fn page_hash(page: PageNo, canonical: &[u8]) -> PageHash {
    PageHash(XxHash3_128::oneshot_with_seed(u64::from(page.0), canonical))
}

/// The sum of page hashes of a state, without its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateSum(u128);

impl StateSum {
    /// A database without pages.
    pub const EMPTY: Self = Self(0);

    /// Takes the sum out of a state's hash.
    #[must_use]
    pub fn from_state(state: StateHash, count: PageCount, size: PageSize) -> Self {
        Self(state.0.wrapping_sub(size_hash(count, size)))
    }

    /// A page that the state has now.
    pub fn add(&mut self, page: PageHash) {
        self.0 = self.0.wrapping_add(page.0);
    }

    /// A page that the state had before.
    pub fn remove(&mut self, page: PageHash) {
        self.0 = self.0.wrapping_sub(page.0);
    }

    /// The hash of the state of this size.
    #[must_use]
    pub fn state(self, count: PageCount, size: PageSize) -> StateHash {
        StateHash(self.0.wrapping_add(size_hash(count, size)))
    }
}

fn size_hash(count: PageCount, size: PageSize) -> u128 {
    let [a, b, c, d] = count.0.to_be_bytes();
    let [e, f, g, h] = size.get().to_be_bytes();
    XxHash3_128::oneshot(&[a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_at_different_places_hash_differently() {
        assert_ne!(page_hash(PageNo(1), &[0; 512]), page_hash(PageNo(2), &[0; 512]));
    }

    #[test]
    fn a_sum_comes_back_out_of_its_state() {
        let mut sum = StateSum::EMPTY;
        sum.add(page_hash(PageNo(1), &[1; 512]));
        sum.add(page_hash(PageNo(2), &[2; 512]));
        let size = PageSize::new(512).unwrap();
        let state = sum.state(PageCount(2), size);
        assert_eq!(StateSum::from_state(state, PageCount(2), size), sum);
        assert_ne!(sum.state(PageCount(3), size), state);
    }
}
