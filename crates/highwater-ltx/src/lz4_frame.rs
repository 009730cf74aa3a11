//! Pages as LZ4 *frames*, which older writers of LTX made.
//!
//! A frame says its own length only by its end mark, so it is read piece by piece. Every piece is
//! bounded by the page before anything is allocated, whatever block size the frame announces.
//! Checksums inside the frame are verified. Written never.

use std::borrow::Cow;

use lz4_flex::block::decompress_into_with_dict;
use twox_hash::XxHash32;

use crate::{Error, Result};

const MAGIC: u32 = 0x184d_2204;
/// The version bits of the first descriptor byte must be 01.
const VERSION: u8 = 0b0100_0000;
const VERSION_MASK: u8 = 0b1100_0000;
const FLAG_BLOCK_CHECKSUM: u8 = 1 << 4;
const FLAG_CONTENT_SIZE: u8 = 1 << 3;
const FLAG_CONTENT_CHECKSUM: u8 = 1 << 2;
const RESERVED: u8 = 1 << 1;
const FLAG_DICTIONARY: u8 = 1;
const STORED: u32 = 1 << 31;
/// No real writer splits a page into more blocks; each costs work even when it holds one byte.
const MAX_BLOCKS: u32 = 256;

/// Reads one frame through `read` (which fills the slice that it is given) into the whole of
/// `page`, with `scratch` for a block's bytes. Returns the length of the frame in bytes.
pub(crate) fn decode(
    page: &mut [u8],
    scratch: &mut Vec<u8>,
    bound: usize,
    mut read: impl FnMut(&mut [u8]) -> Result<()>,
) -> Result<u64> {
    let mut input = Input { read: &mut read, length: 0 };
    let flags = descriptor(&mut input, page.len())?;
    let mut filled = 0;
    for _ in 0..MAX_BLOCKS {
        let word = u32::from_le_bytes(input.array()?);
        if word == 0 {
            if filled != page.len() {
                return Err(bad("its LZ4 frame is shorter than a page"));
            }
            if flags & FLAG_CONTENT_CHECKSUM != 0 {
                verify(&mut input, page)?;
            }
            return Ok(input.length);
        }
        let length = (word & !STORED) as usize;
        if length > bound {
            return Err(bad("a block of its LZ4 frame is longer than a page can be"));
        }
        scratch.resize(length, 0);
        input.fill(scratch)?;
        if flags & FLAG_BLOCK_CHECKSUM != 0 {
            verify(&mut input, scratch)?;
        }
        let (before, room) = page.split_at_mut(filled);
        filled += block(scratch, word & STORED != 0, before, room)?;
    }
    Err(bad("its LZ4 frame has too many blocks"))
}

/// Reads the magic number and the descriptor; returns the descriptor's flags.
fn descriptor(input: &mut Input<'_>, page: usize) -> Result<u8> {
    if u32::from_le_bytes(input.array()?) != MAGIC {
        return Err(bad("it is not an LZ4 frame"));
    }
    let [flags, sizes] = input.array()?;
    if flags & VERSION_MASK != VERSION || flags & (RESERVED | FLAG_DICTIONARY) != 0 {
        return Err(bad("its LZ4 frame is of a kind that no LTX file has"));
    }
    let mut described = vec![flags, sizes];
    if flags & FLAG_CONTENT_SIZE != 0 {
        let size = input.array::<8>()?;
        if u64::from_le_bytes(size) != page as u64 {
            return Err(bad("its LZ4 frame does not hold exactly a page"));
        }
        described.extend_from_slice(&size);
    }
    let [checksum] = input.array()?;
    let [_, found, ..] = XxHash32::oneshot(0, &described).to_le_bytes();
    if checksum != found {
        return Err(bad("the descriptor of its LZ4 frame has a wrong checksum"));
    }
    Ok(flags)
}

/// Decodes one block into the start of `room`; `before` is what earlier blocks gave.
fn block(bytes: &[u8], stored: bool, before: &[u8], room: &mut [u8]) -> Result<usize> {
    if !stored {
        return decompress_into_with_dict(bytes, room, before)
            .map_err(|_| bad("a block of its LZ4 frame cannot be decoded"));
    }
    let Some(place) = room.get_mut(..bytes.len()) else {
        return Err(bad("its LZ4 frame is longer than a page"));
    };
    place.copy_from_slice(bytes);
    Ok(bytes.len())
}

fn verify(input: &mut Input<'_>, bytes: &[u8]) -> Result<()> {
    if u32::from_le_bytes(input.array()?) == XxHash32::oneshot(0, bytes) {
        Ok(())
    } else {
        Err(bad("its LZ4 frame has a wrong checksum"))
    }
}

/// An error whose place the caller knows and fills in.
fn bad(what: &'static str) -> Error {
    Error::Corrupt { at: 0, what: Cow::Borrowed(what) }
}

struct Input<'a> {
    read: &'a mut dyn FnMut(&mut [u8]) -> Result<()>,
    length: u64,
}

impl Input<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        (self.read)(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}
