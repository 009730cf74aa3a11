//! What several tests need: databases as plain maps of pages, files made of them and read back.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::Write;

use highwater_ltx::*;

/// A database as its data pages.
pub(crate) type Pages = BTreeMap<u32, Vec<u8>>;

/// 2026-01-01, in milliseconds.
pub(crate) const TIME: i64 = 1_767_225_600_000;

pub(crate) fn page_size(bytes: u32) -> PageSize {
    PageSize::new(bytes).unwrap()
}

/// A page that compresses when `noise` is small and does not when it is large.
pub(crate) fn page(size: PageSize, seed: u64, noise: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![(seed % 251) as u8; size.as_usize()];
    for byte in bytes.iter_mut().take(noise) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 32) as u8;
    }
    bytes
}

pub(crate) fn push_header(size: PageSize, commit: u32, txid: u64, frames: u64) -> Header {
    Header::new_push(
        size,
        PageCount(commit),
        TxId(txid),
        TIME,
        Generation(3),
        FrameNo(10 * txid),
        frames,
        DeviceId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        StateHash(0xaaaa_bbbb_cccc_dddd_eeee_ffff_0000_0000 + u128::from(txid)),
    )
}

pub(crate) fn snapshot_header(size: PageSize, commit: u32, txid: u64) -> Header {
    let at = Place { generation: Generation(3), frame: FrameNo(7) };
    Header::new_snapshot(size, PageCount(commit), TxId(txid), TIME, at, StateHash(99))
}

pub(crate) fn encode(header: Header, pages: &Pages, encoding: PageEncoding) -> (Vec<u8>, Finished) {
    let mut encoder = Encoder::new(Vec::new(), header, encoding).unwrap();
    for (number, data) in pages {
        encoder.page(PageNo(*number), data).unwrap();
    }
    encoder.finish().unwrap()
}

/// Everything that a file says, or the first error.
pub(crate) fn decode(file: &[u8]) -> Result<(Header, Pages, PageIndex)> {
    let mut decoder = Decoder::new(file)?;
    let mut pages = Pages::new();
    let mut data = Vec::new();
    while let Some(PageNo(number)) = decoder.next_page(&mut data)? {
        pages.insert(number, data.clone());
    }
    assert_eq!(decoder.next_page(&mut data)?, None, "the end stays the end");
    assert_eq!(decoder.bytes(), file.len() as u64);
    Ok((*decoder.header(), pages, decoder.into_parts().1))
}

/// CRC-64/GO-ISO the slow way, to check the fast one against.
pub(crate) fn crc(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xd800_0000_0000_0000 } else { crc >> 1 };
        }
    }
    !crc | 1 << 63
}

/// How a page frame of a file made by hand looks: the bytes before the data that the checksum
/// covers, and the data as stored.
pub(crate) type FrameMaker = dyn Fn(u32, &[u8]) -> (Vec<u8>, Vec<u8>);

/// A file built field by field from the published format, without the crate's encoder.
pub(crate) fn by_hand(header: [u8; 100], pages: &[(u32, Vec<u8>)], frame: &FrameMaker) -> Vec<u8> {
    by_hand_with_index(header, pages, frame, |_| ())
}

/// The same with an index that `change` may have made a lie of: page, offset, size.
pub(crate) fn by_hand_with_index(
    header: [u8; 100],
    pages: &[(u32, Vec<u8>)],
    frame: &FrameMaker,
    change: impl FnOnce(&mut Vec<[u64; 3]>),
) -> Vec<u8> {
    let (mut file, mut checked) = (header.to_vec(), header.to_vec());
    let mut entries = Vec::new();
    for (number, data) in pages {
        let (head, stored) = frame(*number, data);
        entries.push([u64::from(*number), file.len() as u64, (head.len() + stored.len()) as u64]);
        file.extend([&head[..], &stored].concat());
        checked.extend([&head[..], data].concat());
    }
    change(&mut entries);
    let mut index = Vec::new();
    entries.iter().flatten().for_each(|value| put_varint(&mut index, *value));
    index.push(0);
    index.extend((index.len() as u64).to_be_bytes());
    let tail = [&[0; 6][..], &index, &[0; 8]].concat();
    file.extend(&tail);
    checked.extend(&tail);
    file.extend(crc(&checked).to_be_bytes());
    file
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The frames of older writers: an LZ4 frame without a length before it.
pub(crate) fn lz4_frame_of(info: lz4_flex::frame::FrameInfo) -> Box<FrameMaker> {
    Box::new(move |number, data| {
        let mut lz4 = lz4_flex::frame::FrameEncoder::with_frame_info(info.clone(), Vec::new());
        lz4.write_all(data).unwrap();
        ([&number.to_be_bytes()[..], &[0, 0]].concat(), lz4.finish().unwrap())
    })
}

/// The frames of today's writers, with any LZ4 block.
pub(crate) fn block_of(number: u32, block: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let length = (block.len() as u32).to_be_bytes();
    ([&number.to_be_bytes()[..], &[0, 1], &length].concat(), block.to_vec())
}
