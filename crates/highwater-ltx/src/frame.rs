//! One page within a file: a header of six bytes, then the page as LZ4.
//!
//! With the flag that Highwater always sets, a length and one LZ4 block follow; without it (older
//! writers) an LZ4 frame, which ends itself.

use crate::{Error, PageNo, PageSize, Result, lz4, lz4_frame};

/// The bytes of page number and flags.
pub(crate) const HEAD: usize = 6;
/// [`HEAD`] and the length of the block.
pub(crate) const HEAD_AND_LENGTH: usize = 10;
/// The flag: a length of four bytes and an LZ4 block follow.
pub(crate) const FLAG_BLOCK: u16 = 1;

/// A frame's first bytes.
pub(crate) struct Head {
    /// 0 in the bytes that end the pages.
    pub(crate) page: PageNo,
    flags: u16,
}

impl Head {
    pub(crate) fn decode(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, d, e, f] = bytes;
        Self { page: PageNo(u32::from_be_bytes([a, b, c, d])), flags: u16::from_be_bytes([e, f]) }
    }

    pub(crate) fn ends_the_pages(&self) -> bool {
        self.page.0 == 0 && self.flags == 0
    }

    /// Whether an LZ4 block with its length follows, not an LZ4 frame.
    pub(crate) fn has_block(&self) -> Result<bool> {
        match self.flags {
            0 => Ok(false),
            FLAG_BLOCK => Ok(true),
            flags => Err(Error::Unsupported { what: format!("a page with the flags {flags:#x}").into() }),
        }
    }
}

/// The bytes before a block: the page's number, the flag, the block's length.
pub(crate) fn encode_head(page: PageNo, block: u32) -> [u8; HEAD_AND_LENGTH] {
    let [a, b, c, d] = page.0.to_be_bytes();
    let [e, f] = FLAG_BLOCK.to_be_bytes();
    let [g, h, i, j] = block.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j]
}

/// A block's length, if a page can need that much.
pub(crate) fn block_length(bytes: [u8; 4], size: PageSize, page: PageNo) -> Result<usize, String> {
    let length = u32::from_be_bytes(bytes) as usize;
    if length <= lz4::bound(size) {
        Ok(length)
    } else {
        Err(format!("page {page} claims {length} bytes, more than a page of {size} can need"))
    }
}

/// Decodes one page frame, whole, as [`IndexEntry`](crate::IndexEntry) places it in the file.
/// `out` becomes the page's data.
///
/// The data has no checksum of its own: compare its hash, or [`Decoder`](crate::Decoder) the file.
///
/// # Errors
/// [`Error::Truncated`], [`Error::Corrupt`] and [`Error::Unsupported`], with offsets from the
/// start of the frame. `out` holds nothing of use then.
pub fn decode_page_frame(frame: &[u8], size: PageSize, out: &mut Vec<u8>) -> Result<PageNo> {
    let truncated = || Error::Truncated { at: frame.len() as u64, part: "page" };
    let (head, rest) = frame.split_first_chunk::<HEAD>().ok_or_else(truncated)?;
    let head = Head::decode(*head);
    if head.page.0 == 0 {
        return Err(Error::corrupt(0, "page 0 does not exist"));
    }
    out.resize(size.as_usize(), 0);
    let rest = if head.has_block()? {
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        let length =
            block_length(*length, size, head.page).map_err(|what| Error::corrupt(HEAD as u64, what))?;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
        if !lz4::decode(block, out) {
            return Err(undecodable(HEAD_AND_LENGTH as u64, head.page));
        }
        rest
    } else {
        let mut rest = rest;
        lz4_frame::decode(out, &mut Vec::new(), lz4::bound(size), |bytes| {
            let (here, behind) = rest.split_at_checked(bytes.len()).ok_or_else(truncated)?;
            bytes.copy_from_slice(here);
            rest = behind;
            Ok(())
        })?;
        rest
    };
    if rest.is_empty() {
        Ok(head.page)
    } else {
        Err(Error::corrupt((frame.len() - rest.len()) as u64, "bytes follow the page"))
    }
}

/// The error for a block that is not its page.
pub(crate) fn undecodable(at: u64, page: PageNo) -> Error {
    Error::corrupt(at, format!("page {page} cannot be decoded"))
}
