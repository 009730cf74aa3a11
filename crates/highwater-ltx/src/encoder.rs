//! Writing an LTX file from its first byte to its last, without going back.
//!
//! Memory: the page index (16 bytes a page) and one page's working space. What is written is a
//! whole file only when [`Encoder::finish`] has returned; making it durable is the caller's work.

use std::io::Write;

use crate::checksum::FileChecksum;
use crate::frame::{HEAD_AND_LENGTH, encode_head};
use crate::index::END_OF_PAGES;
use crate::lz4::{BlockEncoder, literal_prefix};
use crate::order::PageOrder;
use crate::{Error, Header, PageIndex, PageNo, Result, Trailer};

/// How the data of a page is written. Every reader reads both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageEncoding {
    /// As an LZ4 block; as [`PageEncoding::Literal`] where that does not make it smaller.
    Lz4,
    /// As an LZ4 block that only copies. For a body that is compressed as a whole afterwards: zstd
    /// makes far less of it than of compressed pages.
    Literal,
}

/// Writes one file. Wrap a file or socket in [`BufWriter`](std::io::BufWriter): every page is two
/// or three small writes.
pub struct Encoder<W> {
    writer: W,
    header: Header,
    order: PageOrder,
    checksum: FileChecksum,
    index: PageIndex,
    /// A frame up to the literals of a literal block; the first bytes are rewritten for each page.
    literal: Vec<u8>,
    blocks: Option<BlockEncoder>,
}

/// What a finished file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its size in bytes.
    pub bytes: u64,
    /// How many pages it holds.
    pub pages: u32,
    /// Where they are.
    pub index: PageIndex,
    /// The checksum in its trailer.
    pub file_checksum: u64,
}

impl<W: Write> Encoder<W> {
    /// Begins a file: checks `header` and writes it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the header is invalid or asks for database checksums, which
    /// Highwater does not compute; [`Error::Io`].
    pub fn new(mut writer: W, header: Header, encoding: PageEncoding) -> Result<Self> {
        header.validate()?;
        if header.checksums {
            return Err(Error::refused("database checksums are not written, only read"));
        }
        let mut checksum = FileChecksum::new();
        let bytes = header.encode();
        writer.write_all(&bytes)?;
        checksum.update(&bytes);
        let literal = [vec![0; HEAD_AND_LENGTH], literal_prefix(header.page_size)].concat();
        let pages =
            if header.is_snapshot() { header.commit.data_page_count(header.page_size) as usize } else { 0 };
        Ok(Self {
            writer,
            header,
            order: PageOrder::new(&header),
            checksum,
            index: PageIndex::with_capacity(pages.min(MOST_RESERVED)),
            literal,
            blocks: (encoding == PageEncoding::Lz4).then(|| BlockEncoder::new(header.page_size)),
        })
    }

    /// Adds the image of `page`. Pages come in ascending order, in a snapshot without a gap; the
    /// lock page never comes.
    ///
    /// # Errors
    /// [`Error::Refused`] when this page cannot come next or is not of the file's page size (the
    /// file can go on without it); [`Error::Io`] (the file is lost).
    pub fn page(&mut self, page: PageNo, data: &[u8]) -> Result<()> {
        let size = self.header.page_size;
        if data.len() != size.as_usize() {
            let what = format!("page {page} has {} bytes in a file of {size}-byte pages", data.len());
            return Err(Error::refused(what));
        }
        self.order.admit(page).map_err(Error::refused)?;
        let literal = self.literal.len() - HEAD_AND_LENGTH + data.len();
        let block = self.blocks.as_mut().and_then(|blocks| blocks.encode(data, literal));
        let length = block.map_or(literal, <[u8]>::len);
        let head = encode_head(page, small(length));
        if let Some(block) = block {
            self.writer.write_all(&head)?;
            self.writer.write_all(block)?;
        } else {
            if let Some(place) = self.literal.first_chunk_mut() {
                *place = head;
            }
            self.writer.write_all(&self.literal)?;
            self.writer.write_all(data)?;
        }
        self.checksum.update(&head);
        self.checksum.update(data);
        self.index.push(page, small(length + HEAD_AND_LENGTH));
        Ok(())
    }

    /// The header that the file was begun with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes have been written so far.
    pub fn bytes(&self) -> u64 {
        self.index.end()
    }

    /// Ends the file: writes the index and the trailer, and gives the writer back, not flushed.
    ///
    /// # Errors
    /// [`Error::Refused`] when pages are missing; [`Error::Io`].
    pub fn finish(mut self) -> Result<(W, Finished)> {
        self.order.finish().map_err(Error::refused)?;
        let mut bytes = self.index.end();
        let (writer, checksum) = (&mut self.writer, &mut self.checksum);
        let mut put = |piece: &[u8]| -> Result<()> {
            writer.write_all(piece)?;
            checksum.update(piece);
            bytes += piece.len() as u64;
            Ok(())
        };
        put(&END_OF_PAGES)?;
        self.index.encode(&mut put)?;
        self.checksum.update(&0u64.to_be_bytes());
        let file_checksum = self.checksum.value();
        let trailer = Trailer { post_apply_checksum: 0, file_checksum };
        self.writer.write_all(&trailer.encode())?;
        bytes += Trailer::SIZE as u64;
        let pages = small(self.index.len());
        Ok((self.writer, Finished { bytes, pages, index: self.index, file_checksum }))
    }
}

/// The most index entries to make room for before any page has come (16 MiB of them).
const MOST_RESERVED: usize = 1 << 20;

/// A size of a frame (at most a little over 64 KiB) or a number of pages (they have 32 bits and
/// never repeat).
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
