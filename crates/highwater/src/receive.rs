//! From the body of an answer to pages that may be applied.
//!
//! A body is received and verified whole before any of it is applied: small ones in memory, large
//! ones in a temporary file beside the database. Only the hashes of the pages are looked at on the
//! way; whether they lead to the head is the caller's question.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use highwater_ltx::{Decoder, Header, PageNo};
use highwater_pages::{PageHash, kill_point, page_hash};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::error::{Error, Result};
use crate::transport::BodyReader;

/// Deltas with up to this many bytes of pages are kept in memory.
const IN_MEMORY_BYTES: u64 = 16 << 20;

/// Pages that have been received and verified.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) header: Header,
    /// Ascending.
    pub(crate) pages: Vec<(PageNo, PageHash)>,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Memory(Vec<u8>),
    Spilled(File),
}

/// Why a body could not be used.
pub(crate) enum ReceiveError {
    /// The connection broke: try again.
    Cut(io::Error),
    /// The body is not what it should be.
    Bad(String),
    /// The temporary file could not be written.
    Local(Error),
}

impl Received {
    /// Receives a whole delta. `progress` is told bytes of pages done and in all.
    pub(crate) fn read(
        body: impl Read,
        folder: &Path,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Self, ReceiveError> {
        let mut store = Store::Memory(Vec::new());
        let mut pages = Vec::new();
        let header = each_page(body, |_, page, data, hash| {
            pages.push((page, hash));
            progress(pages.len() as u64 * data.len() as u64, None);
            store.push(data, folder)
        })?;
        Ok(Self { header, pages, store })
    }

    /// Reads the content of one of the pages.
    pub(crate) fn page(&mut self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        let size = self.header.page_size.as_usize();
        let at = self.pages.binary_search_by_key(&page, |(page, _)| *page);
        let offset = at.map_err(|_| io::Error::from(io::ErrorKind::NotFound))? * size;
        into.resize(size, 0);
        match &mut self.store {
            Store::Memory(bytes) => {
                let page = bytes.get(offset..offset + size).ok_or(io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(page);
                Ok(())
            }
            Store::Spilled(file) => {
                file.seek(SeekFrom::Start(offset as u64))?;
                file.read_exact(into)
            }
        }
    }
}

impl Store {
    fn push(&mut self, data: &[u8], folder: &Path) -> Result<(), ReceiveError> {
        let failed = |source| {
            let path = folder.to_path_buf();
            ReceiveError::Local(Error::Io { what: "writing a temporary file in", path, source })
        };
        if let Self::Memory(bytes) = self {
            if (bytes.len() + data.len()) as u64 <= IN_MEMORY_BYTES {
                bytes.extend_from_slice(data);
                return Ok(());
            }
            // It has no name, so nothing is left behind whatever happens.
            let mut file = tempfile::tempfile_in(folder).map_err(failed)?;
            file.write_all(bytes).map_err(failed)?;
            *self = Self::Spilled(file);
            kill_point("pull.spilled");
        }
        match self {
            Self::Spilled(file) => file.write_all(data).map_err(failed),
            Self::Memory(_) => Ok(()),
        }
    }
}

/// Decodes a body and gives every page to `take`; the whole body is verified before it returns.
pub(crate) fn each_page(
    body: impl Read,
    mut take: impl FnMut(&Header, PageNo, &[u8], PageHash) -> Result<(), ReceiveError>,
) -> Result<Header, ReceiveError> {
    let mut decoder = Decoder::new(io::BufReader::with_capacity(1 << 18, body)).map_err(classify)?;
    let header = *decoder.header();
    let mut data = Vec::with_capacity(header.page_size.as_usize());
    while let Some(page) = decoder.next_page(&mut data).map_err(classify)? {
        let hash = page_hash(page, &data);
        take(&header, page, &data, hash)?;
    }
    Ok(header)
}

/// The body of an answer as it was before compression.
pub(crate) fn plain_body<'r>(headers: &HeaderMap, body: &'r mut BodyReader) -> Box<dyn Read + 'r> {
    let zstd = headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding == highwater_wire::ZSTD);
    if !zstd {
        return Box::new(body);
    }
    let decoder = zstd::stream::read::Decoder::new(body).and_then(|mut decoder| {
        decoder.window_log_max(highwater_wire::ZSTD_WINDOW_LOG_MAX)?;
        Ok(decoder)
    });
    match decoder {
        Ok(decoder) => Box::new(decoder),
        Err(error) => Box::new(FailingReader(Some(error))),
    }
}

/// A reader whose first use reports why there is nothing to read.
struct FailingReader(Option<std::io::Error>);

impl Read for FailingReader {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| std::io::ErrorKind::Other.into()))
    }
}

fn classify(error: highwater_ltx::Error) -> ReceiveError {
    match error {
        // What the decompressor finds wrong has no better kind than these two.
        highwater_ltx::Error::Io(source)
            if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other) =>
        {
            ReceiveError::Bad(source.to_string())
        }
        highwater_ltx::Error::Io(source) => ReceiveError::Cut(source),
        highwater_ltx::Error::Truncated { .. } => ReceiveError::Cut(io::ErrorKind::UnexpectedEof.into()),
        other => ReceiveError::Bad(other.to_string()),
    }
}
