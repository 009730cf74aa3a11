//! Reading an LTX file from its first byte to its last, believing nothing.
//!
//! Memory is bounded by the page size and by the pages that really came (16 bytes each for the
//! index), never by a number that the input states. A page that [`Decoder::next_page`] gave is not
//! yet proven: the file's checksum stands at its end, so act on pages only after `None`, or prove
//! them otherwise (by the hash of the state).

use std::io::{self, BufReader, Read};

use crate::checksum::{CHECKSUM_FLAG, FileChecksum};
use crate::frame::{HEAD, Head, block_length, undecodable};
use crate::order::PageOrder;
use crate::{Error, Header, PageIndex, PageNo, Result, Trailer, lz4, lz4_frame, planted};

/// Small, for a compaction opens many files at once; larger reads pass it by.
const BUFFER: usize = 16 << 10;

/// Reads one file. It buffers its reads; a reader that is slow for small reads needs no wrapping.
pub struct Decoder<R> {
    input: Input<R>,
    header: Header,
    order: PageOrder,
    index: PageIndex,
    scratch: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Pages,
    Verified(Trailer),
    Failed,
}

impl<R: Read> Decoder<R> {
    /// Reads the header and checks it.
    ///
    /// # Errors
    /// Those of [`Header::decode`], and [`Error::Io`].
    pub fn new(reader: R) -> Result<Self> {
        let mut input = Input::new(reader);
        let mut bytes = [0; Header::SIZE];
        let filled = input.fill_up(&mut bytes)?;
        let header = Header::decode(bytes.get(..filled).unwrap_or(&bytes))?;
        Ok(Self {
            input,
            header,
            order: PageOrder::new(&header),
            index: PageIndex::default(),
            scratch: Vec::new(),
            state: State::Pages,
        })
    }

    /// What the file says about itself. Proven, like the pages, only at the end.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next page: its number, and its data in `page`, which is resized to fit.
    ///
    /// `None` comes after the last page, when the index, the trailer and the checksum of the whole
    /// file have been read and are right and nothing follows them; and again if asked again.
    ///
    /// # Errors
    /// Any but [`Error::Refused`]; then `page` holds nothing of use, and every later call is an
    /// error too.
    pub fn next_page(&mut self, page: &mut Vec<u8>) -> Result<Option<PageNo>> {
        match self.state {
            State::Verified(_) => return Ok(None),
            State::Failed => {
                return Err(Error::corrupt(self.input.at, "reading it failed before"));
            }
            State::Pages => self.state = State::Failed,
        }
        let at = self.input.at;
        let mut head = [0; HEAD];
        self.input.fill(&mut head, "pages")?;
        let head = Head::decode(head);
        if head.ends_the_pages() {
            self.order.finish().map_err(|what| Error::corrupt(at, what))?;
            self.state = State::Verified(self.read_end()?);
            return Ok(None);
        }
        self.order.admit(head.page).map_err(|what| Error::corrupt(at, what))?;
        page.resize(self.header.page_size.as_usize(), 0);
        if head.has_block()? {
            self.read_block(head.page, page)?;
        } else {
            self.read_frame(page)?;
        }
        self.input.checksum.update(page);
        // A frame is a few bytes longer than a page at most.
        let size = u32::try_from(self.input.at - at).unwrap_or(u32::MAX);
        self.index.push(head.page, size);
        self.state = State::Pages;
        Ok(Some(head.page))
    }

    fn read_block(&mut self, number: PageNo, page: &mut [u8]) -> Result<()> {
        let at = self.input.at;
        let mut length = [0; 4];
        self.input.fill(&mut length, "pages")?;
        let length =
            block_length(length, self.header.page_size, number).map_err(|what| Error::corrupt(at, what))?;
        self.scratch.resize(length, 0);
        self.input.fill_raw(&mut self.scratch, "pages")?;
        if lz4::decode(&self.scratch, page) { Ok(()) } else { Err(undecodable(at + 4, number)) }
    }

    fn read_frame(&mut self, page: &mut [u8]) -> Result<()> {
        let begin = self.input.at;
        let bound = lz4::bound(self.header.page_size);
        let input = &mut self.input;
        lz4_frame::decode(page, &mut self.scratch, bound, |bytes| input.fill_raw(bytes, "pages")).map_err(
            |error| match error {
                Error::Corrupt { what, .. } => Error::Corrupt { at: begin, what },
                other => other,
            },
        )?;
        Ok(())
    }

    /// Reads everything behind the pages.
    fn read_end(&mut self) -> Result<Trailer> {
        let (input, scratch) = (&mut self.input, &mut self.scratch);
        self.index.encode(|expected| {
            let at = input.at;
            scratch.resize(expected.len(), 0);
            input.fill(scratch, "page index")?;
            if scratch == expected {
                Ok(())
            } else {
                Err(Error::corrupt(at, "the page index does not say where the pages are"))
            }
        })?;
        let mut bytes = [0; Trailer::SIZE];
        input.fill_raw(&mut bytes, "trailer")?;
        let trailer = Trailer::decode(bytes);
        input.checksum.update(&trailer.post_apply_checksum.to_be_bytes());
        let computed = input.checksum.value();
        if computed != trailer.file_checksum && !planted("body-checksum-ignored") {
            return Err(Error::Checksum { stored: trailer.file_checksum, computed });
        }
        let flagged = trailer.post_apply_checksum & CHECKSUM_FLAG != 0;
        if if self.header.checksums { !flagged } else { trailer.post_apply_checksum != 0 } {
            let what = "its trailer disagrees with its header about database checksums";
            return Err(Error::corrupt(input.at - Trailer::SIZE as u64, what));
        }
        if input.fill_up(&mut [0])? != 0 {
            return Err(Error::corrupt(input.at - 1, "bytes follow its end"));
        }
        Ok(trailer)
    }

    /// The trailer, once [`Decoder::next_page`] has returned `None`.
    pub fn trailer(&self) -> Option<Trailer> {
        match self.state {
            State::Verified(trailer) => Some(trailer),
            State::Pages | State::Failed => None,
        }
    }

    /// Where the pages are that came so far; all pages of the file once `next_page` gave `None`.
    pub fn index(&self) -> &PageIndex {
        &self.index
    }

    /// How many bytes of the file have been read.
    pub fn bytes(&self) -> u64 {
        self.input.at
    }

    /// The reader and the index. Up to 16 KiB that were read ahead are lost, unless the file was
    /// read to its end: then the reader is at its end, too.
    pub fn into_parts(self) -> (R, PageIndex) {
        (self.input.reader.into_inner(), self.index)
    }

    /// The reader, as [`Decoder::into_parts`] gives it.
    pub fn into_inner(self) -> R {
        self.into_parts().0
    }
}

/// The reader, where it stands, and the checksum of what came.
struct Input<R> {
    reader: BufReader<R>,
    checksum: FileChecksum,
    at: u64,
}

impl<R: Read> Input<R> {
    fn new(reader: R) -> Self {
        let reader = BufReader::with_capacity(BUFFER, reader);
        Self { reader, checksum: FileChecksum::new(), at: 0 }
    }

    /// Reads bytes that count into the file's checksum.
    fn fill(&mut self, bytes: &mut [u8], part: &'static str) -> Result<()> {
        self.fill_raw(bytes, part)?;
        self.checksum.update(bytes);
        Ok(())
    }

    /// Reads bytes that do not.
    fn fill_raw(&mut self, bytes: &mut [u8], part: &'static str) -> Result<()> {
        match self.reader.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::Truncated { at: self.at, part })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads as much of `bytes` as there is; returns how much.
    fn fill_up(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.checksum.update(bytes.get(..filled).unwrap_or_default());
        self.at += filled as u64;
        Ok(filled)
    }
}
