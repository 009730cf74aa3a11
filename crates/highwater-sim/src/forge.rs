//! A page that is damaged before the checksums of its file are made: by the memory of whoever made the file, say. Nothing
//! but the hash of the state can tell.

use anyhow::{Context, Result};
use bytes::Bytes;
use highwater_ltx::{Decoder, Encoder, PageEncoding};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use crate::dice::Dice;

/// The body with one bit of one page changed, and all checksums right. `None`: it carries no pages.
pub(crate) fn forge(headers: &mut HeaderMap, body: &Bytes, dice: &mut Dice) -> Option<Bytes> {
    let forged = pages(headers, body, dice).ok()?;
    if headers.contains_key(CONTENT_LENGTH) {
        headers.insert(CONTENT_LENGTH, forged.len().into());
    }
    Some(forged)
}

fn pages(headers: &HeaderMap, body: &Bytes, dice: &mut Dice) -> Result<Bytes> {
    let packed = headers.contains_key(CONTENT_ENCODING);
    let plain = if packed { zstd::decode_all(body.as_ref())? } else { body.to_vec() };
    let mut decoder = Decoder::new(plain.as_slice())?;
    let mut file = Encoder::new(Vec::new(), *decoder.header(), PageEncoding::Lz4)?;
    let (mut pages, mut page) = (Vec::new(), Vec::new());
    while let Some(number) = decoder.next_page(&mut page)? {
        pages.push((number, page.clone()));
    }
    let chosen = dice.index(pages.len());
    let (_, damaged) = pages.get_mut(chosen).context("a page")?;
    // Not among the first bytes: a first page that is none is found out in other ways.
    let at = (100 + dice.index(damaged.len().saturating_sub(100))).min(damaged.len().saturating_sub(1));
    let bit = dice.below(8);
    damaged.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
    for (number, page) in &pages {
        file.page(*number, page)?;
    }
    let (file, _) = file.finish()?;
    Ok(Bytes::from(if packed { zstd::encode_all(file.as_slice(), 1)? } else { file }))
}
