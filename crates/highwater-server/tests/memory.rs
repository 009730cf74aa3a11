//! The server's memory stays bounded whatever the size of a body.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    clippy::cast_possible_truncation
)]

#[path = "common/child.rs"]
mod child;
mod common;

use std::time::Instant;

use child::ChildServer;
use common::{DEVICE_A, DEVICE_B, Image, sync};
use highwater_ltx::{
    Decoder, DeviceId, Encoder, FrameNo, Generation, Header, PageCount, PageEncoding, PageSize, TxId,
};
use highwater_pages::{StateSum, page_hash};
use reqwest::Client;

/// Most memory of the server at any moment, in bytes.
const BOUND: u64 = 128 << 20;

#[test]
fn serve_for_a_test() {
    child::serve_if_child();
}

/// Pages that do not compress.
fn page(number: u32, out: &mut Vec<u8>) {
    if number == 1 {
        *out = Image::new(4096, 1, 1).pages.remove(0);
        return;
    }
    out.resize(4096, 0);
    let mut x = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for place in out.chunks_exact_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        place.copy_from_slice(&x.to_le_bytes());
    }
}

fn body(count: u32) -> Vec<u8> {
    let (mut sum, mut data) = (StateSum::EMPTY, Vec::new());
    let (size, count) = (PageSize::DEFAULT, PageCount(count));
    for number in count.data_pages(size) {
        page(number.0, &mut data);
        sum.add(page_hash(number, &data));
    }
    let state = sum.state(count, size);
    let header = Header::new_push(
        size,
        count,
        TxId(1),
        0,
        Generation(1),
        FrameNo(1),
        count.data_page_count(size).into(),
        DeviceId(0),
        state,
    );
    let out = Vec::with_capacity(count.0 as usize * 4200);
    let mut encoder = Encoder::new(out, header, PageEncoding::Literal).unwrap();
    for number in count.data_pages(size) {
        page(number.0, &mut data);
        encoder.page(number, &data).unwrap();
    }
    encoder.finish().unwrap().0
}

/// `HIGHWATER_TEST_MEGABYTES` makes it another size.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_first_push_and_copy_keep_the_server_small() {
    let megabytes: u32 = std::env::var("HIGHWATER_TEST_MEGABYTES").map_or(200, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let server = ChildServer::start("serve_for_a_test", folder.path(), &[]).unwrap();
    let client = Client::new();
    let url = format!("{}/db/v1", server.url);
    let body = body(megabytes * 256);
    let began = Instant::now();
    let pushed = sync(&client, &format!("{url}/sync"), DEVICE_A, None, body).await;
    let push = began.elapsed();
    assert_eq!(pushed.outcome, "pushed");
    let (peak, _) = server.memory();
    let ticks = server.ticks();
    println!("{megabytes} MB pushed in {push:?}, {ticks} ticks, peak memory {} MiB", peak >> 20);
    assert!(peak < BOUND, "the server took {} MiB for a push", peak >> 20);

    let began = Instant::now();
    let mut response = client.get(format!("{url}/snapshot")).send().await.unwrap();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<bytes::Bytes>(64);
    let reading = std::thread::spawn(move || {
        let mut decoder = Decoder::new(Chunks { receiver, current: bytes::Bytes::new() }).unwrap();
        let (mut count, mut data) = (0, Vec::new());
        while decoder.next_page(&mut data).unwrap().is_some() {
            count += 1;
        }
        count
    });
    while let Some(chunk) = response.chunk().await.unwrap() {
        sender.send(chunk).unwrap();
    }
    drop(sender);
    assert_eq!(reading.join().unwrap(), PageCount(megabytes * 256).data_page_count(PageSize::DEFAULT));
    let (peak, now) = server.memory();
    println!("copied in {:?}, peak memory {} MiB, now {} MiB", began.elapsed(), peak >> 20, now >> 20);
    assert!(peak < BOUND, "the server took {} MiB for a copy", peak >> 20);
    let sums = client.get(format!("{url}/sums")).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(sums.len(), megabytes as usize * 256 * 16);
    let nothing = sync(&client, &format!("{url}/sync"), DEVICE_B, pushed.head, Vec::new()).await;
    assert_eq!(nothing.outcome, "up-to-date");
}

struct Chunks {
    receiver: std::sync::mpsc::Receiver<bytes::Bytes>,
    current: bytes::Bytes,
}

impl std::io::Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.recv() {
                Ok(chunk) => self.current = chunk,
                Err(_) => return Ok(0),
            }
        }
        let taken = self.current.len().min(out.len());
        out[..taken].copy_from_slice(&self.current.split_to(taken));
        Ok(taken)
    }
}
