//! A damaged or hostile file is an error: never a panic, never wrong data, never much memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod common;

use common::*;
use highwater_ltx::*;
use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};

/// Small files of every kind.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let size = page_size(512);
    let pages: Pages = [1, 2, 3].map(|n| (n, page(size, n.into(), 40))).into();
    let some: Pages = [(2, page(size, 8, 600)), (5, page(size, 9, 5))].into();
    let list: Vec<_> = some.clone().into_iter().collect();
    let checked = |info: FrameInfo| {
        let info = info.content_checksum(true).block_checksums(true).content_size(Some(512));
        by_hand(push_header(size, 9, 2, 2).encode(), &list, &*lz4_frame_of(info))
    };
    vec![
        ("push", encode(push_header(size, 9, 2, 2), &some, PageEncoding::Lz4).0),
        ("literal push", encode(push_header(size, 9, 2, 2), &some, PageEncoding::Literal).0),
        ("snapshot", encode(snapshot_header(size, 3, 8), &pages, PageEncoding::Lz4).0),
        ("empty", encode(push_header(size, 0, 4, 0), &Pages::new(), PageEncoding::Lz4).0),
        ("old push", checked(FrameInfo::new().block_size(BlockSize::Max64KB))),
        ("old push, 4 MiB", checked(FrameInfo::new().block_size(BlockSize::Max4MB))),
    ]
}

#[test]
fn every_flipped_byte_is_an_error_or_the_same_data() {
    for (name, file) in samples() {
        let intact = decode(&file).unwrap();
        let mut same = 0;
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff, 0x10] {
                let mut damaged = file.clone();
                damaged[at] ^= flip;
                if let Ok(read) = decode(&damaged) {
                    // Only other LZ4 bytes for the same pages can pass: the data must not differ.
                    assert_eq!(read, intact, "{name}: byte {at} ^ {flip:#x}");
                    assert!(at >= 100, "{name}: byte {at} of the header");
                    same += 1;
                }
            }
        }
        assert!(same <= 16, "{name}: {same} flips went unnoticed");
    }
}

#[test]
fn a_file_cut_anywhere_is_truncated() {
    for (name, file) in samples() {
        for length in 0..file.len() {
            let error = decode(&file[..length]).unwrap_err();
            assert!(matches!(error, Error::Truncated { .. }), "{name}: {length} bytes: {error}");
        }
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    for (name, file) in samples() {
        for more in [vec![0], vec![0; 5000], file.clone()] {
            let error = decode(&[&file[..], &more].concat()).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn a_decoder_that_failed_keeps_failing() {
    let (_, mut file) = samples().swap_remove(0);
    *file.last_mut().unwrap() ^= 1;
    let mut decoder = Decoder::new(file.as_slice()).unwrap();
    let mut data = Vec::new();
    assert!(decoder.next_page(&mut data).is_ok());
    assert!(decoder.next_page(&mut data).is_ok());
    let error = decoder.next_page(&mut data).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    assert!(decoder.next_page(&mut data).is_err());
    assert_eq!(decoder.trailer(), None);
}

#[test]
fn another_kind_of_file_is_named_as_such() {
    for file in [&b"SQLite format 3\0"[..], b"X", b"LTX2", &[0; 200]] {
        assert!(matches!(decode(file), Err(Error::NotLtx)), "{file:?}");
    }
    let (_, mut file) = samples().swap_remove(0);
    file[7] |= 0x80;
    assert!(matches!(decode(&file), Err(Error::Unsupported { .. })));
    let (_, mut file) = samples().swap_remove(0);
    file[105] |= 2;
    assert!(matches!(decode(&file), Err(Error::Unsupported { .. })));
}

/// A well-formed file (checksum and all) with these pages, in this order.
fn forged(header: Header, pages: &[u32]) -> Vec<u8> {
    let size = header.page_size;
    let pages: Vec<_> = pages.iter().map(|n| (*n, page(size, 1, 0))).collect();
    by_hand(header.encode(), &pages, &|n, data| block_of(n, &lz4_flex::block::compress(data)))
}

#[test]
fn pages_that_must_not_be_there_are_an_error_even_under_a_right_checksum() {
    let size = page_size(65536);
    let lock = size.lock_page().0;
    let push = push_header(size, lock + 5, 2, 1);
    let small = push_header(size, 4, 2, 1);
    let snapshot = snapshot_header(size, 4, 2);
    decode(&forged(push, &[1, lock - 1, lock + 1])).unwrap();
    decode(&forged(snapshot, &[1, 2, 3, 4])).unwrap();
    for (why, file) in [
        ("the lock page", forged(push, &[1, lock])),
        ("past the end", forged(small, &[1, 5])),
        ("twice", forged(small, &[2, 2])),
        ("out of order", forged(small, &[3, 2])),
        ("no page", forged(small, &[])),
        ("a page of an empty database", forged(push_header(size, 0, 2, 1), &[1])),
        ("a gap in a snapshot", forged(snapshot, &[1, 2, 4])),
        ("a snapshot without its first", forged(snapshot, &[2, 3, 4])),
        ("a snapshot without its last", forged(snapshot, &[1, 2, 3])),
        ("page 0", forged(small, &[0])),
    ] {
        let error = decode(&file).expect_err(why);
        assert!(matches!(error, Error::Corrupt { .. }), "{why}: {error}");
    }
}

#[test]
fn a_block_that_claims_more_than_a_page_needs_is_refused_before_memory_is_taken() {
    let size = page_size(512);
    let header = push_header(size, 4, 2, 1).encode();
    // The claim is all there is: had it been believed, the file would only be truncated.
    for claim in [0xffff_ffff_u32, 0x7fff_ffff, 1 << 20, 531] {
        let file = [&header[..], &1u32.to_be_bytes(), &[0, 1], &claim.to_be_bytes()].concat();
        let error = decode(&file).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{claim}: {error}");
        let error = decode_page_frame(&file[100..], size, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{claim}: {error}");
    }
    // The same in an LZ4 frame that announces blocks of 4 MiB.
    let sizes = [0x60u8, 0x70];
    let check = (twox_hash::XxHash32::oneshot(0, &sizes) >> 8) as u8;
    for claim in [0x003f_ffff_u32, 0x8030_0000, 0x7fff_ffff] {
        let file = [
            &header[..],
            &[0, 0, 0, 1, 0, 0, 0x04, 0x22, 0x4d, 0x18],
            &sizes,
            &[check],
            &claim.to_le_bytes(),
        ]
        .concat();
        let error = decode(&file).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{claim:#x}: {error}");
    }
}

#[test]
fn a_block_of_another_size_than_a_page_is_an_error() {
    let size = page_size(512);
    let header = push_header(size, 4, 2, 1).encode();
    for length in [0, 1, 511, 513, 60_000] {
        let block = lz4_flex::block::compress(&vec![7; length]);
        let pages = [(1, vec![7; length])];
        let file = by_hand(header, &pages, &move |n, _| block_of(n, &block));
        let error = decode(&file).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{length}: {error}");
        let old = by_hand(header, &pages, &*lz4_frame_of(FrameInfo::new()));
        let error = decode(&old).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "old, {length}: {error}");
    }
}

#[test]
fn lz4_frames_of_older_writers_are_read() {
    for (size, blocks) in [
        (512, BlockSize::Max64KB),
        (4096, BlockSize::Max64KB),
        (4096, BlockSize::Max4MB),
        (65536, BlockSize::Max64KB),
        (65536, BlockSize::Max256KB),
    ] {
        for (mode, checks) in
            [(BlockMode::Independent, false), (BlockMode::Linked, true), (BlockMode::Linked, false)]
        {
            let size = page_size(size);
            let pages: Pages = [(1, page(size, 1, 100)), (2, page(size, 2, usize::MAX))].into();
            let info = FrameInfo::new()
                .block_size(blocks)
                .block_mode(mode)
                .content_checksum(checks)
                .block_checksums(checks);
            let list: Vec<_> = pages.clone().into_iter().collect();
            let file = by_hand(push_header(size, 2, 2, 2).encode(), &list, &*lz4_frame_of(info));
            let (_, read, index) = decode(&file).unwrap();
            assert_eq!(read, pages);
            for (number, expected) in &pages {
                let entry = index.get(PageNo(*number)).unwrap();
                let frame = &file[entry.offset as usize..][..entry.size as usize];
                let mut data = Vec::new();
                decode_page_frame(frame, size, &mut data).unwrap();
                assert_eq!(&data, expected);
            }
        }
    }
}

#[test]
fn an_lz4_frame_of_several_linked_blocks_is_read() {
    // Written with a flush in the middle: the second block refers back to the first.
    let size = page_size(4096);
    let data: Vec<u8> = [page(size, 5, 2048)[..2048].to_vec(), page(size, 5, 2048)[..2048].to_vec()].concat();
    let maker = |number: u32, data: &[u8]| {
        use std::io::Write;
        let info = FrameInfo::new().block_mode(BlockMode::Linked).content_checksum(true);
        let mut lz4 = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        lz4.write_all(&data[..2048]).unwrap();
        lz4.flush().unwrap();
        lz4.write_all(&data[2048..]).unwrap();
        let stored = lz4.finish().unwrap();
        assert!(stored.len() < 2500, "the blocks are linked: {}", stored.len());
        ([&number.to_be_bytes()[..], &[0, 0]].concat(), stored)
    };
    let header = push_header(size, 2, 2, 1).encode();
    let file = by_hand(header, &[(1, data.clone())], &maker);
    assert_eq!(decode(&file).unwrap().1[&1], data);
}

#[test]
fn a_damaged_tail_is_an_error_or_asks_for_no_more_than_the_file() {
    for (name, file) in samples() {
        let TailIndex::Complete(intact) = PageIndex::decode_tail(&file, file.len() as u64).unwrap() else {
            panic!("the whole file is enough")
        };
        assert_eq!(intact, decode(&file).unwrap().2, "{name}");
        let tail_size = file.len() - 16;
        for at in 100..tail_size {
            let mut damaged = file.clone();
            damaged[at] ^= 0xff;
            match PageIndex::decode_tail(&damaged, file.len() as u64) {
                Ok(TailIndex::Complete(index)) => {
                    // The pages themselves are not looked at.
                    assert_eq!(index, intact, "{name}: byte {at}");
                    assert!(
                        at < intact.iter().last().map_or(106, |e| e.offset as usize + e.size as usize + 6)
                    );
                }
                Ok(TailIndex::NeedMore { bytes }) => assert!(bytes <= file.len() as u64, "{name}: byte {at}"),
                Err(_) => {}
            }
        }
        for cut in 0..file.len() {
            if let Ok(TailIndex::Complete(_)) = PageIndex::decode_tail(&file[..cut], cut as u64) {
                panic!("{name}: cut at {cut} its end is none");
            }
        }
        let tail = &file[file.len() - 24..];
        assert!(PageIndex::decode_tail(tail, 23).is_err());
        assert!(PageIndex::decode_tail(tail, 0).is_err());
    }
}

#[test]
fn an_index_is_checked_against_the_header() {
    let size = page_size(512);
    let pages: Pages = [1, 2, 4].map(|n| (n, page(size, n.into(), 4))).into();
    let (_, finished) = encode(push_header(size, 4, 2, 3), &pages, PageEncoding::Lz4);
    finished.index.check(&push_header(size, 4, 2, 3)).unwrap();
    assert!(finished.index.check(&push_header(size, 3, 2, 3)).is_err());
    assert!(finished.index.check(&snapshot_header(size, 4, 2)).is_err());
}

#[test]
fn a_page_frame_alone_is_checked() {
    let size = page_size(512);
    let pages: Pages = [(7, page(size, 1, 9))].into();
    let (file, finished) = encode(push_header(size, 9, 2, 1), &pages, PageEncoding::Lz4);
    let entry = finished.index.get(PageNo(7)).unwrap();
    let frame = &file[entry.offset as usize..][..entry.size as usize];
    let mut data = Vec::new();
    for length in 0..frame.len() {
        assert!(decode_page_frame(&frame[..length], size, &mut data).is_err(), "{length}");
    }
    assert!(decode_page_frame(&[frame, &[0]].concat(), size, &mut data).is_err());
    assert!(decode_page_frame(frame, page_size(1024), &mut data).is_err());
    assert!(decode_page_frame(&[0; 6], size, &mut data).is_err());
    assert_eq!(decode_page_frame(frame, size, &mut data).unwrap(), PageNo(7));
}

#[test]
fn an_error_of_the_reader_is_passed_on() {
    struct Broken<'a>(&'a [u8]);
    impl std::io::Read for Broken<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Err(std::io::Error::other("the body is too large"));
            }
            self.0.read(out)
        }
    }
    let (_, file) = samples().swap_remove(0);
    for length in [0, 50, 100, 130, file.len()] {
        let error = Decoder::new(Broken(&file[..length])).and_then(|mut decoder| {
            let mut data = Vec::new();
            while decoder.next_page(&mut data)?.is_some() {}
            Ok(())
        });
        assert!(matches!(error, Err(Error::Io(_))), "{length}");
    }
}

type Lie = dyn Fn(&mut Vec<[u64; 3]>);

#[test]
fn an_index_that_lies_is_an_error_even_under_a_right_checksum() {
    let size = page_size(512);
    let header = push_header(size, 9, 2, 3);
    let pages: Vec<_> = [2, 3, 7].map(|n| (n, page(size, n.into(), 40))).into();
    let file = |change: &Lie| {
        let block = |n: u32, data: &[u8]| block_of(n, &lz4_flex::block::compress(data));
        by_hand_with_index(header.encode(), &pages, &block, change)
    };
    decode(&file(&|_| ())).unwrap();
    // Each is wrong by itself, without a look at the pages.
    let lies: [(&str, &Lie); 8] = [
        ("moved", &|index| index[1][1] += 1),
        ("moved back", &|index| index[1][1] -= 1),
        ("longer", &|index| index[0][2] += 1),
        ("the last one longer", &|index| index[2][2] += 1),
        ("missing", &|index| index.retain(|entry| entry[0] != 3)),
        ("the first missing", &|index| index.retain(|entry| entry[0] != 2)),
        ("the last missing", &|index| index.retain(|entry| entry[0] != 7)),
        ("out of order", &|index| index[1][0] = 8),
    ];
    for (why, lie) in lies {
        let file = file(lie);
        let error = decode(&file).expect_err(why);
        assert!(matches!(error, Error::Corrupt { .. }), "{why}: {error}");
        let error = PageIndex::decode_tail(&file, file.len() as u64).expect_err(why);
        assert!(matches!(error, Error::Corrupt { .. }), "{why}: {error}");
    }
    // Another page's number shows only next to the pages.
    let other = file(&|index| index[1][0] = 4);
    assert!(matches!(decode(&other), Err(Error::Corrupt { .. })));
}
