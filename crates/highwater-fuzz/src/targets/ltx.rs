//! LTX files: what crosses the wire, and what lies in the store.

use highwater_ltx::{
    Decoder, Header, PageEncoding, PageIndex, PageSize, compact, decode_page_frame, parse_file_name,
};

use crate::{both, sample, seen};

/// Reads a file in every way that there is.
#[must_use]
pub fn file(data: &[u8]) -> u64 {
    let mut page = Vec::new();
    let read = Decoder::new(data).and_then(|mut decoder| {
        while decoder.next_page(&mut page)?.is_some() {
            assert_eq!(page.len(), decoder.header().page_size.as_usize());
        }
        Ok(decoder.trailer())
    });
    let header = Header::decode(data).map(|header| header.validate());
    let index = PageIndex::decode_tail(data, data.len() as u64).map(|_| ());
    for size in [512, 4096, 65_536] {
        let _ = decode_page_frame(data, PageSize::new(size).unwrap(), &mut page);
    }
    let _ = parse_file_name(&String::from_utf8_lossy(data));
    let together = Decoder::new(data).and_then(|older| {
        let header = *older.header();
        compact(vec![older], Vec::new(), header, PageEncoding::Lz4).map(|_| ())
    });
    both(both(seen(read.map(|_| ())), seen(header)), both(seen(index), seen(together)))
}

/// Pushes and snapshots.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let (base, head) = (sample::base(), sample::head());
    vec![
        sample::push(&[], base, PageEncoding::Lz4),
        sample::push(base, head, PageEncoding::Lz4),
        sample::push(base, head, PageEncoding::Literal),
        sample::push(head, head, PageEncoding::Lz4),
        b"0000000000000001-000000000000000f.ltx".to_vec(),
    ]
}
