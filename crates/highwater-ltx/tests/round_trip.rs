//! What is written is what is read, for every page size and encoding; and only valid files are
//! written.
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
use proptest::prelude::*;

fn encodings() -> impl Strategy<Value = PageEncoding> {
    prop_oneof![Just(PageEncoding::Lz4), Just(PageEncoding::Literal)]
}

/// Page size, seeds and noise of the pages of a delta, and its database's size.
fn deltas() -> impl Strategy<Value = (PageSize, Pages, u32)> {
    (9u32..=16, 0u32..40).prop_flat_map(|(bits, spare)| {
        let size = page_size(1 << bits);
        let pages = prop::collection::btree_map(1u32..60, (any::<u64>(), 0usize..70_000), 1..12);
        (Just(size), pages, Just(spare)).prop_map(|(size, pages, spare)| {
            let last = *pages.last_key_value().unwrap().0;
            let pages = pages.into_iter().map(|(n, (seed, noise))| (n, page(size, seed, noise)));
            (size, pages.collect(), last + spare)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_delta_reads_back_as_it_was_written((size, pages, commit) in deltas(), encoding in encodings()) {
        let header = push_header(size, commit, 2, pages.len() as u64);
        let (file, finished) = encode(header, &pages, encoding);
        prop_assert_eq!(finished.bytes, file.len() as u64);
        prop_assert_eq!(finished.pages as usize, pages.len());
        let (read, read_pages, index) = decode(&file).unwrap();
        prop_assert_eq!(read, header);
        prop_assert_eq!(&read_pages, &pages);
        prop_assert_eq!(&index, &finished.index);
    }

    #[test]
    fn every_page_can_be_read_alone_by_the_index((size, pages, commit) in deltas(), encoding in encodings()) {
        let header = push_header(size, commit, 2, 1);
        let (file, finished) = encode(header, &pages, encoding);
        let mut data = Vec::new();
        for (number, expected) in &pages {
            let entry = finished.index.get(PageNo(*number)).unwrap();
            let frame = &file[entry.offset as usize..][..entry.size as usize];
            prop_assert_eq!(decode_page_frame(frame, size, &mut data).unwrap(), PageNo(*number));
            prop_assert_eq!(&data, expected);
        }
        prop_assert!(finished.index.get(PageNo(0)).is_none());
        prop_assert_eq!(finished.index.len(), pages.len());
    }

    #[test]
    fn the_end_of_a_file_gives_the_index((size, pages, commit) in deltas(), tail in 0usize..5000) {
        let header = push_header(size, commit, 2, 1);
        let (file, finished) = encode(header, &pages, PageEncoding::Lz4);
        let whole = file.len() as u64;
        let tail = &file[file.len().saturating_sub(tail)..];
        let index = match PageIndex::decode_tail(tail, whole).unwrap() {
            TailIndex::Complete(index) => index,
            TailIndex::NeedMore { bytes } => {
                prop_assert!(bytes > tail.len() as u64);
                // At most one more question: how long it is, then the index.
                let tail = &file[file.len() - bytes.max(PageIndex::MIN_TAIL as u64) as usize..];
                match PageIndex::decode_tail(tail, whole).unwrap() {
                    TailIndex::Complete(index) => index,
                    TailIndex::NeedMore { bytes } => {
                        let tail = &file[file.len() - bytes as usize..];
                        let TailIndex::Complete(index) = PageIndex::decode_tail(tail, whole).unwrap()
                            else { panic!("the second answer was enough") };
                        index
                    }
                }
            }
        };
        prop_assert_eq!(&index, &finished.index);
        index.check(&header).unwrap();
    }

    #[test]
    fn a_header_reads_back_as_it_was_written(
        bits in 9u32..=16, commit: u32, txid in 2u64.., timestamp_ms: i64, generation in 1u32..,
        first in 1u64..1 << 40, frames in 1u64..1 << 30, device: u128, state: u128,
    ) {
        let header = Header::new_push(
            page_size(1 << bits), PageCount(commit), TxId(txid), timestamp_ms,
            Generation(generation), FrameNo(first), frames, DeviceId(device), StateHash(state),
        );
        header.validate().unwrap();
        prop_assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        prop_assert_eq!(header.generation(), Some(Generation(generation)));
        prop_assert_eq!(header.first_frame(), Some(FrameNo(first)));
        prop_assert_eq!(header.last_frame(), Some(FrameNo(first + frames - 1)));
        prop_assert_eq!(header.node_id, DeviceId(device).node_id());
    }
}

#[test]
fn a_snapshot_says_where_it_was_taken() {
    let at = Place { generation: Generation(5), frame: FrameNo(0) };
    let size = PageSize::DEFAULT;
    for frame in [0, 1, 12_345] {
        let at = Place { frame: FrameNo(frame), ..at };
        let header = Header::new_snapshot(size, PageCount(1), TxId(9), TIME, at, StateHash(1));
        header.validate().unwrap();
        assert!(header.is_snapshot());
        assert_eq!(header.place(), Some(at));
        assert_eq!(header.first_frame(), None);
        assert_eq!(header.wal_offset, FrameNo(frame + 1).wal_offset(size));
    }
}

#[test]
fn a_file_of_another_program_has_no_place() {
    let mut header = push_header(PageSize::DEFAULT, 1, 2, 1);
    header.state = None;
    let header = Header::decode(&header.encode()).unwrap();
    assert_eq!((header.place(), header.first_frame(), header.generation()), (None, None, None));
    header.validate().unwrap();
}

#[test]
fn the_lock_page_is_never_in_a_file() {
    for bits in 9..=16 {
        let size = page_size(1 << bits);
        let lock = size.lock_page();
        let data = page(size, 1, 50);
        let header = push_header(size, lock.0 + 1, 2, 2);
        let mut encoder = Encoder::new(Vec::new(), header, PageEncoding::Lz4).unwrap();
        encoder.page(PageNo(lock.0 - 1), &data).unwrap();
        assert!(matches!(encoder.page(lock, &data), Err(Error::Refused { .. })), "{size}");
        // A refused page leaves the file as it was.
        encoder.page(PageNo(lock.0 + 1), &data).unwrap();
        let (file, _) = encoder.finish().unwrap();
        let numbers: Vec<u32> = decode(&file).unwrap().1.into_keys().collect();
        assert_eq!(numbers, [lock.0 - 1, lock.0 + 1], "{size}");
    }
}

#[test]
fn a_snapshot_goes_on_after_the_lock_page() {
    // The largest pages make the smallest such snapshot: 16385 pages, nearly all of them empty.
    let size = page_size(65536);
    let lock = size.lock_page().0;
    let data = vec![0; size.as_usize()];
    let mut encoder =
        Encoder::new(Vec::new(), snapshot_header(size, lock + 1, 4), PageEncoding::Lz4).unwrap();
    for number in 1..lock {
        encoder.page(PageNo(number), &data).unwrap();
    }
    encoder.page(PageNo(lock + 1), &data).unwrap();
    let (file, finished) = encoder.finish().unwrap();
    assert_eq!(finished.pages, lock);
    let mut decoder = Decoder::new(file.as_slice()).unwrap();
    let (mut count, mut image) = (0, Vec::new());
    while decoder.next_page(&mut image).unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, lock);
    // And without the page behind it, it is not whole.
    let mut encoder =
        Encoder::new(Vec::new(), snapshot_header(size, lock + 1, 4), PageEncoding::Lz4).unwrap();
    for number in 1..lock {
        encoder.page(PageNo(number), &data).unwrap();
    }
    assert!(matches!(encoder.finish(), Err(Error::Refused { .. })));
}

#[test]
fn a_file_that_would_be_invalid_is_not_written() {
    let size = page_size(512);
    let data = page(size, 1, 10);
    let refused = |header: Header, pages: &[u32]| {
        let mut encoder = match Encoder::new(Vec::new(), header, PageEncoding::Lz4) {
            Ok(encoder) => encoder,
            Err(error) => return matches!(error, Error::Refused { .. }),
        };
        for number in pages {
            if let Err(error) = encoder.page(PageNo(*number), &data) {
                return matches!(error, Error::Refused { .. });
            }
        }
        matches!(encoder.finish(), Err(Error::Refused { .. }))
    };
    let push = push_header(size, 4, 2, 1);
    let snapshot = snapshot_header(size, 4, 2);
    assert!(!refused(push, &[2, 4]), "the same without a fault is written");
    assert!(!refused(snapshot, &[1, 2, 3, 4]), "the same without a fault is written");
    assert!(!refused(Header { commit: PageCount(0), ..push }, &[]), "an empty database");
    assert!(refused(push, &[]));
    assert!(refused(push, &[0]));
    assert!(refused(push, &[5]));
    assert!(refused(push, &[2, 2]));
    assert!(refused(push, &[3, 2]));
    assert!(refused(snapshot, &[1, 2, 3]));
    assert!(refused(snapshot, &[2, 3, 4]));
    assert!(refused(snapshot, &[1, 3, 4]));
    assert!(refused(Header { min_txid: TxId(0), ..push }, &[2]));
    assert!(refused(Header { max_txid: TxId(1), ..push }, &[2]));
    assert!(refused(Header { checksums: true, ..push }, &[2]));
    assert!(refused(Header { pre_apply_checksum: 1 << 63, ..push }, &[2]));
    assert!(refused(Header { wal_offset: 0, ..push }, &[2]));
    assert!(refused(Header { wal_offset: 1 << 63, ..push }, &[2]));
    assert!(refused(Header { wal_size: 1 << 63, ..push }, &[2]));
    let mut encoder = Encoder::new(Vec::new(), push, PageEncoding::Lz4).unwrap();
    assert!(encoder.page(PageNo(2), &data[1..]).is_err());
    assert!(encoder.page(PageNo(2), &[data.clone(), data].concat()).is_err());
}

#[test]
fn random_pages_cost_no_more_than_literal_ones() {
    let size = PageSize::DEFAULT;
    let pages: Pages = (1..=8).map(|n| (n, page(size, n.into(), usize::MAX))).collect();
    let header = push_header(size, 8, 2, 8);
    let (lz4, _) = encode(header, &pages, PageEncoding::Lz4);
    let (literal, _) = encode(header, &pages, PageEncoding::Literal);
    assert_eq!(lz4, literal);
    assert!(literal.len() < 8 * (4096 + 10 + 18 + 10) + 140);
    let pages: Pages = (1..=8).map(|n| (n, page(size, n.into(), 100))).collect();
    let (lz4, _) = encode(header, &pages, PageEncoding::Lz4);
    assert!(lz4.len() < 8 * 200 + 140, "{}", lz4.len());
}
