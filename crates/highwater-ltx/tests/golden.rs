//! The exact bytes of files: what one version wrote, every later one reads, and writes the same.
//!
//! `HIGHWATER_BLESS=1 cargo test -p highwater-ltx --test golden` writes the files anew. A change to
//! them is a change of the format.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::*;
use highwater_ltx::*;

fn check(name: &str, header: Header, pages: &Pages, encoding: PageEncoding) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let (file, _) = encode(header, pages, encoding);
    if std::env::var_os("HIGHWATER_BLESS").is_some() {
        #[allow(clippy::disallowed_methods, reason = "a person is watching, nothing depends on it")]
        fs::write(&path, &file).unwrap();
    }
    let golden = fs::read(&path).unwrap();
    let (read, read_pages, _) = decode(&golden).unwrap();
    assert_eq!((read, &read_pages), (header, pages), "{name}");
    if encoding == PageEncoding::Literal {
        assert_eq!(file, golden, "{name}: the bytes of the format changed");
    }
}

fn two_pages() -> Pages {
    let size = page_size(512);
    [(2, page(size, 7, 30)), (5, page(size, 9, 512))].into()
}

#[test]
fn a_push_keeps_its_bytes() {
    let header = push_header(page_size(512), 6, 4, 2);
    check("push-literal.ltx", header, &two_pages(), PageEncoding::Literal);
    check("push-lz4.ltx", header, &two_pages(), PageEncoding::Lz4);
}

#[test]
fn a_snapshot_keeps_its_bytes() {
    let size = page_size(1024);
    let pages: Pages = [1, 2].map(|n| (n, page(size, n.into(), 20))).into();
    check("snapshot-literal.ltx", snapshot_header(size, 2, 31), &pages, PageEncoding::Literal);
}

#[test]
fn the_fields_stand_where_the_format_says() {
    let bytes = push_header(page_size(512), 6, 4, 2).encode();
    let field = |at: usize, length: usize| {
        bytes[at..at + length].iter().fold(0u128, |value, byte| value << 8 | u128::from(*byte))
    };
    assert_eq!(&bytes[..4], b"LTX1");
    assert_eq!(field(4, 4), 2, "flags: no database checksums");
    assert_eq!(field(8, 4), 512, "page size");
    assert_eq!(field(12, 4), 6, "pages");
    assert_eq!(field(16, 8), 4, "first transaction");
    assert_eq!(field(24, 8), 4, "last transaction");
    assert_eq!(field(32, 8), TIME as u128, "time");
    assert_eq!(field(40, 8), 0, "checksum before");
    assert_eq!(field(48, 8), 32 + 39 * (24 + 512), "the first frame is number 40");
    assert_eq!(field(56, 8), 2 * (24 + 512), "two frames");
    assert_eq!(field(64, 4), 3, "generation");
    assert_eq!(field(68, 4), 0, "second salt");
    assert_eq!(field(72, 8), 0x0102_0304_0506_0708, "device");
    assert_eq!(field(80, 16), 0xaaaa_bbbb_cccc_dddd_eeee_ffff_0000_0004, "state");
    assert_eq!(&bytes[96..], b"HW01");
}

#[test]
fn a_file_built_by_hand_is_the_same_file() {
    let header = push_header(page_size(512), 6, 4, 2);
    let pages: Vec<_> = two_pages().into_iter().collect();
    let literal = |number: u32, data: &[u8]| block_of(number, &[&[0xf0, 255, 242][..], data].concat());
    let by_hand = by_hand(header.encode(), &pages, &literal);
    assert_eq!(by_hand, encode(header, &two_pages(), PageEncoding::Literal).0);
}
