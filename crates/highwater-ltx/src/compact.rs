//! One file out of several that follow each other: the newest image of every page.
//!
//! All inputs are read side by side, page by page, so memory is one page and 16 KiB for each input
//! and the indexes, whatever the sizes of the files.
//!
//! A page that an input cut off (its database was smaller) counts as gone, even when a later input
//! grows the database over that place again: then that later input has to bring the page.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io::{Read, Write};

use crate::{Decoder, Encoder, Error, Finished, Header, PageCount, PageEncoding, PageNo, Result};

/// Writes what `inputs` (oldest first) do together as one file with `header`, and verifies every
/// input to its end.
///
/// `header` says for itself what the whole is; its transactions, page size and page count must be
/// those of the inputs. If the first input is a snapshot, so is the result.
///
/// # Errors
/// [`Error::Refused`] when the inputs do not follow each other or do not fit the header; the errors
/// of [`Decoder::next_page`] for a damaged input; [`Error::Io`]. What was written is useless then.
pub fn compact<R: Read, W: Write>(
    inputs: Vec<Decoder<R>>,
    out: W,
    header: Header,
    encoding: PageEncoding,
) -> Result<(W, Finished)> {
    check(&inputs, &header)?;
    let mut encoder = Encoder::new(out, header, encoding)?;
    let mut inputs = live_inputs(inputs);
    // The least page first; among equal pages the newest input first.
    let mut queue = BinaryHeap::with_capacity(inputs.len());
    for (at, input) in inputs.iter_mut().enumerate() {
        queue.extend(input.advance()?.map(|page| Reverse((page, Reverse(at)))));
    }
    let least = inputs.first().map_or(header.commit, |input| input.live);
    let mut growth = Growth::new(&header, least);
    let mut written = None;
    while let Some(Reverse((page, Reverse(at)))) = queue.pop() {
        let Some(input) = inputs.get_mut(at) else { continue };
        if written != Some(page) && input.live.contains(page) {
            growth.next(page)?;
            encoder.page(page, &input.image)?;
            written = Some(page);
        }
        queue.extend(input.advance()?.map(|page| Reverse((page, Reverse(at)))));
    }
    growth.finish()?;
    encoder.finish()
}

/// Whether `inputs` follow each other and are what `header` says.
fn check<R: Read>(inputs: &[Decoder<R>], header: &Header) -> Result<()> {
    let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else {
        return Err(Error::refused("a compaction needs at least one file"));
    };
    let (first, last) = (first.header(), last.header());
    if (header.min_txid, header.max_txid) != (first.min_txid, last.max_txid) {
        return Err(Error::refused(format!(
            "the files cover the transactions {} to {}, the header says {} to {}",
            first.min_txid, last.max_txid, header.min_txid, header.max_txid
        )));
    }
    if header.commit != last.commit {
        return Err(Error::refused(format!(
            "the files end with {} pages, the header says {}",
            last.commit, header.commit
        )));
    }
    let headers = || inputs.iter().map(Decoder::header);
    if let Some(other) = headers().find(|input| input.page_size != header.page_size) {
        return Err(Error::refused(format!(
            "a file has pages of {} bytes, the header says {}",
            other.page_size, header.page_size
        )));
    }
    for (before, after) in headers().zip(headers().skip(1)) {
        if before.max_txid.0.checked_add(1) != Some(after.min_txid.0) {
            return Err(Error::refused(format!(
                "the file after transaction {} begins with {}",
                before.max_txid, after.min_txid
            )));
        }
    }
    Ok(())
}

struct Input<R> {
    decoder: Decoder<R>,
    image: Vec<u8>,
    /// The smallest size of the database from this file on: what lies beyond was cut off.
    live: PageCount,
}

impl<R: Read> Input<R> {
    fn advance(&mut self) -> Result<Option<PageNo>> {
        self.decoder.next_page(&mut self.image)
    }
}

fn live_inputs<R: Read>(decoders: Vec<Decoder<R>>) -> Vec<Input<R>> {
    let mut live = PageCount(u32::MAX);
    let mut inputs: Vec<_> = decoders
        .into_iter()
        .rev()
        .map(|decoder| {
            live = live.min(decoder.header().commit);
            Input { decoder, image: Vec::new(), live }
        })
        .collect();
    inputs.reverse();
    inputs
}

/// Sees to it that every page is there that the database grew by, over what an input left of it.
struct Growth {
    lock_page: u64,
    commit: u64,
    /// The next page that must come; pages before it were never cut off.
    due: u64,
}

impl Growth {
    fn new(header: &Header, least: PageCount) -> Self {
        let lock_page = u64::from(header.page_size.lock_page().0);
        let mut growth = Self { lock_page, commit: u64::from(header.commit.0), due: u64::from(least.0) };
        growth.step();
        growth
    }

    fn step(&mut self) {
        self.due += if self.due + 1 == self.lock_page { 2 } else { 1 };
    }

    fn next(&mut self, page: PageNo) -> Result<()> {
        match u64::from(page.0).cmp(&self.due) {
            Ordering::Less => {}
            Ordering::Equal => self.step(),
            Ordering::Greater => return Err(self.missing()),
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        if self.due <= self.commit { Err(self.missing()) } else { Ok(()) }
    }

    fn missing(&self) -> Error {
        let page = self.due;
        Error::refused(format!("no file holds page {page}, though the database grew over it"))
    }
}
