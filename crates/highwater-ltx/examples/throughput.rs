//! How fast pages become a file and a file becomes pages, against copying the same memory.
//!
//! `cargo run --release -p highwater-ltx --example throughput`
#![allow(clippy::print_stdout, reason = "it is a program for a terminal")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use highwater_ltx::{
    Decoder, DeviceId, Encoder, FrameNo, Generation, Header, PageCount, PageEncoding, PageNo, PageSize,
    StateHash, TxId,
};

const PAGES: u32 = 32_768;

/// Half of each page is text that repeats, half is noise.
fn database(size: PageSize) -> Vec<Vec<u8>> {
    let mut state = 1u64;
    let mut page = || {
        let mut bytes = b"a guest wrote this in the book, ".repeat(size.as_usize() / 32);
        for eight in bytes.chunks_exact_mut(8).skip(size.as_usize() / 16) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            eight.copy_from_slice(&(state ^ state >> 29).to_be_bytes());
        }
        bytes
    };
    (0..PAGES).map(|_| page()).collect()
}

fn report(what: &str, bytes: u64, time: Duration, file: usize) {
    let rate = bytes as f64 / time.as_secs_f64() / 1e9;
    println!("{what:<16} {rate:>6.2} GB/s of pages, file {:>5.1} %", file as f64 * 100.0 / bytes as f64);
}

fn main() -> Result<(), Box<dyn Error>> {
    let size = PageSize::DEFAULT;
    let pages = database(size);
    let bytes = PageCount(PAGES).bytes(size);
    let mut copy = Vec::with_capacity(pages.len() * size.as_usize() + (1 << 20));
    for _ in 0..2 {
        copy.clear();
        let begin = Instant::now();
        pages.iter().for_each(|page| copy.extend_from_slice(page));
        report("copy", bytes, begin.elapsed(), copy.len());
    }
    let mut file = copy;
    for encoding in [PageEncoding::Literal, PageEncoding::Lz4] {
        let header = Header::new_push(
            size,
            PageCount(PAGES),
            TxId(2),
            0,
            Generation::FIRST,
            FrameNo(1),
            u64::from(PAGES),
            DeviceId(1),
            StateHash(1),
        );
        file.clear();
        let begin = Instant::now();
        let mut encoder = Encoder::new(file, header, encoding)?;
        for (number, page) in (1..).zip(&pages) {
            encoder.page(PageNo(number), page)?;
        }
        file = encoder.finish()?.0;
        report(&format!("encode {encoding:?}"), bytes, begin.elapsed(), file.len());

        let begin = Instant::now();
        let mut decoder = Decoder::new(file.as_slice())?;
        let mut image = Vec::new();
        while decoder.next_page(&mut image)?.is_some() {
            black_box(&image);
        }
        report(&format!("decode {encoding:?}"), bytes, begin.elapsed(), file.len());
    }
    Ok(())
}
