//! Pages as LZ4 blocks.
//!
//! Decoding never allocates by what the input claims: the output is a page, the input is at most
//! [`bound`] bytes. A *literal* block copies its page behind a few bytes of length, which is valid
//! LZ4; a body that is compressed as a whole afterwards shrinks better over such blocks.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::PageSize;

/// The most bytes that any sensible LZ4 encoder makes of one page.
pub(crate) const fn bound(size: PageSize) -> usize {
    let bytes = size.as_usize();
    bytes + bytes / 255 + 16
}

/// Decodes `block` into the whole of `page`; false if it is not exactly that page.
pub(crate) fn decode(block: &[u8], page: &mut [u8]) -> bool {
    decompress_into(block, page).is_ok_and(|length| length == page.len())
}

/// What stands before a page's own bytes in a block of nothing but literals.
pub(crate) fn literal_prefix(size: PageSize) -> Vec<u8> {
    // The token says 15 literals; the length bytes add the rest, up to 255 each.
    let mut rest = size.as_usize() - 15;
    let mut prefix = vec![0xf0];
    while rest >= 255 {
        prefix.push(255);
        rest -= 255;
    }
    // Below 255 after the loop.
    prefix.push(u8::try_from(rest).unwrap_or(0));
    prefix
}

/// An encoder with its working memory.
pub(crate) struct BlockEncoder {
    table: CompressTable,
    block: Vec<u8>,
}

impl BlockEncoder {
    pub(crate) fn new(size: PageSize) -> Self {
        let table = if size.as_usize() < usize::from(u16::MAX) {
            CompressTable::small()
        } else {
            CompressTable::large()
        };
        Self { table, block: vec![0; get_maximum_output_size(size.as_usize())] }
    }

    /// The page as a block, if that is shorter than `limit` bytes.
    pub(crate) fn encode(&mut self, page: &[u8], limit: usize) -> Option<&[u8]> {
        let length = compress_into_with_table(page, &mut self.block, &mut self.table).ok()?;
        self.block.get(..length).filter(|block| block.len() < limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_block_is_its_page_for_every_page_size() {
        for bits in 9..=16 {
            let size = PageSize::new(1 << bits).unwrap();
            let page: Vec<u8> = (0..size.as_usize()).map(|i| u8::try_from(i * i % 251).unwrap()).collect();
            let mut block = literal_prefix(size);
            block.extend_from_slice(&page);
            assert!(block.len() <= bound(size));
            let mut decoded = vec![0; size.as_usize()];
            assert!(decode(&block, &mut decoded));
            assert_eq!(decoded, page);
        }
    }

    #[test]
    fn a_block_of_another_length_than_the_page_is_refused() {
        let size = PageSize::new(512).unwrap();
        let block = [literal_prefix(size), vec![9; 512]].concat();
        assert!(!decode(&block, &mut [0; 511]));
        assert!(!decode(&block, &mut [0; 513]));
        assert!(!decode(&[], &mut [0; 512]));
    }
}
