//! The database file as SQLite sees it: the pages of a source, and above them those that were written.
//!
//! Any offset and length may be read and written. Everything is kept in pages of the source's size, also when
//! SQLite changes the size of its own pages. What lies beyond a truncation reads as zeros when the file grows again.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use highwater_ltx::{PageCount, PageNo};
use highwater_pages::owners::PageSource;
use highwater_pages::{JOURNAL_MODE_BYTES, canonicalise_first_page};

use crate::cache::Cache;
use crate::error::copy;
use crate::overlay::Overlay;
use crate::vfs::Storage;
use crate::{Changes, Error, Result};

/// The journal-mode bytes of a database with a rollback journal.
const ROLLBACK_MODE: u8 = 1;

/// See the module.
pub(crate) struct Image {
    source: Arc<dyn PageSource>,
    writable: bool,
    page_size: usize,
    /// In bytes.
    size: u64,
    /// The last page that, if it was not written, is the source's.
    kept: u32,
    clean: Cache,
    overlay: Overlay,
    reads: u64,
    until: Option<Instant>,
    failed: Option<Arc<io::Error>>,
}

impl Image {
    /// Shows a source. `cache` and `memory`: bytes of read and of written pages in memory.
    pub(crate) fn new(source: Arc<dyn PageSource>, writable: bool, cache: usize, memory: usize) -> Self {
        let page_size = source.page_size().as_usize();
        let count = source.page_count();
        Self {
            writable,
            page_size,
            size: count.bytes(source.page_size()),
            kept: count.0,
            clean: Cache::new(cache, page_size),
            overlay: Overlay::new(page_size, memory),
            reads: 0,
            until: None,
            failed: None,
            source,
        }
    }

    /// Reads nothing more from the source after that time: the error is [`io::ErrorKind::TimedOut`].
    pub(crate) fn until(self, until: Option<Instant>) -> Self {
        Self { until, ..self }
    }

    /// How often a page was read from the source.
    pub(crate) fn reads(&self) -> u64 {
        self.reads
    }

    /// How many pages were written.
    pub(crate) fn written(&self) -> usize {
        self.overlay.len()
    }

    /// The first failure since the last call.
    pub(crate) fn take_failure(&mut self) -> Option<Arc<io::Error>> {
        self.failed.take()
    }

    /// What differs from the source.
    pub(crate) fn changes(&mut self) -> Result<Changes> {
        self.check_page_size()?;
        let lock = self.source.page_size().lock_page();
        let count = PageCount(self.page_at(self.size));
        // Pages in the gap after a truncation are zeros, written or not.
        let unwritten = (self.kept + 1..=count.0).filter(|page| !self.overlay.has(*page));
        let mut numbers: Vec<u32> = unwritten.chain(self.overlay.pages()).collect();
        numbers.sort_unstable();
        let mut pages = Vec::new();
        let mut before = vec![0; self.page_size];
        for number in numbers {
            let page = PageNo(number);
            if page == lock {
                continue;
            }
            let mut data = vec![0; self.page_size];
            self.load(number, 0, &mut data).map_err(|error| Error::Source(Arc::new(error)))?;
            let known = self.source.page_count().contains(page);
            if known {
                self.load_clean(number, 0, &mut before).map_err(|error| Error::Source(Arc::new(error)))?;
            }
            if number == 1 {
                canonicalise_first_page(&mut data);
                canonicalise_first_page(&mut before);
            }
            if !known || data != before {
                pages.push((page, data));
            }
        }
        Ok(Changes { page_count: count, pages })
    }

    fn check_page_size(&mut self) -> Result<()> {
        let from = self.source.page_size().get();
        if self.size == 0 {
            return Ok(());
        }
        let mut field = [0; 2];
        self.load(1, 16, &mut field).map_err(|error| Error::Source(Arc::new(error)))?;
        let to = match u16::from_be_bytes(field) {
            1 => 65536,
            other => u32::from(other),
        };
        if to == from { Ok(()) } else { Err(Error::PageSizeChanged { from, to }) }
    }

    /// The number of the page that ends at or before an offset.
    fn page_at(&self, offset: u64) -> u32 {
        u32::try_from(offset / self.page_size as u64).unwrap_or(u32::MAX)
    }

    /// Fills `into` from an offset of a page, as it is now.
    fn load(&mut self, page: u32, offset: usize, into: &mut [u8]) -> io::Result<()> {
        if self.overlay.read(page, offset, into)? {
            return Ok(());
        }
        if page > self.kept {
            into.fill(0);
            return Ok(());
        }
        self.load_clean(page, offset, into)
    }

    /// The same, as it is in the source.
    fn load_clean(&mut self, page: u32, offset: usize, into: &mut [u8]) -> io::Result<()> {
        if PageNo(page) == self.source.page_size().lock_page() {
            into.fill(0);
            return Ok(());
        }
        if self.clean.get(page).is_none() {
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the time for reading is over"));
            }
            let mut data = Vec::with_capacity(self.page_size);
            self.reads += 1;
            self.source.read(PageNo(page), &mut data)?;
            if data.len() != self.page_size {
                let what = format!("page {page} has {} bytes instead of {}", data.len(), self.page_size);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            if page == 1
                && let Some(mode) = data.get_mut(JOURNAL_MODE_BYTES)
            {
                mode.fill(ROLLBACK_MODE);
            }
            self.clean.put(page, data.into());
        }
        let part = self.clean.get(page).and_then(|data| data.get(offset..offset + into.len()));
        into.copy_from_slice(part.ok_or_else(|| io::Error::other("a part of a page beyond its end"))?);
        Ok(())
    }

    fn read_parts(&mut self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let there = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX).min(into.len());
        let (mut rest, mut at) = (into.get_mut(..there).unwrap_or_default(), at);
        while !rest.is_empty() {
            let (page, offset) = self.place(at)?;
            let (part, more) = rest.split_at_mut((self.page_size - offset).min(rest.len()));
            self.load(page, offset, part)?;
            at += part.len() as u64;
            rest = more;
        }
        Ok(there)
    }

    fn write_parts(&mut self, data: &[u8], at: u64) -> io::Result<()> {
        let (mut rest, mut at) = (data, at);
        let mut whole = Vec::new();
        while !rest.is_empty() {
            let (page, offset) = self.place(at)?;
            let (part, more) = rest.split_at((self.page_size - offset).min(rest.len()));
            if part.len() == self.page_size {
                self.overlay.write(page, part)?;
            } else {
                whole.resize(self.page_size, 0);
                self.load(page, 0, &mut whole)?;
                let place = whole.get_mut(offset..offset + part.len());
                place
                    .ok_or_else(|| io::Error::other("a part of a page beyond its end"))?
                    .copy_from_slice(part);
                self.overlay.write(page, &whole)?;
            }
            at += part.len() as u64;
            self.size = self.size.max(at);
            rest = more;
        }
        Ok(())
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        if size < self.size {
            let whole = self.page_at(size);
            let part = usize::try_from(size % self.page_size as u64).unwrap_or(0);
            let last = if part == 0 { whole } else { whole + 1 };
            if part > 0 {
                let mut data = vec![0; self.page_size];
                self.load(last, 0, &mut data)?;
                data.iter_mut().skip(part).for_each(|byte| *byte = 0);
                self.overlay.write(last, &data)?;
            }
            self.overlay.truncate(last);
            self.kept = self.kept.min(last);
        }
        self.size = size;
        Ok(())
    }

    /// The page of an offset, and the offset in it.
    fn place(&self, at: u64) -> io::Result<(u32, usize)> {
        let size = self.page_size as u64;
        let page = u32::try_from(at / size + 1);
        let offset = usize::try_from(at % size);
        page.ok().zip(offset.ok()).ok_or_else(|| io::Error::other("an offset beyond the largest database"))
    }

    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if self.until.is_none_or(|_| error.kind() != io::ErrorKind::TimedOut) {
                tracing::warn!(%error, "a page of a snapshot could not be read or written");
            }
            if self.failed.is_none() {
                self.failed = Some(Arc::new(copy(error)));
            }
        })
    }
}

impl Storage for Arc<Mutex<Image>> {
    fn writable(&self) -> bool {
        self.lock().unwrap_or_else(PoisonError::into_inner).writable
    }

    fn size(&mut self) -> u64 {
        self.lock().unwrap_or_else(PoisonError::into_inner).size
    }

    fn read(&mut self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut image = self.lock().unwrap_or_else(PoisonError::into_inner);
        let result = image.read_parts(into, at);
        image.noted(result)
    }

    fn write(&mut self, data: &[u8], at: u64) -> io::Result<()> {
        let mut image = self.lock().unwrap_or_else(PoisonError::into_inner);
        if !image.writable {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the snapshot is read-only"));
        }
        let result = image.write_parts(data, at);
        image.noted(result)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let mut image = self.lock().unwrap_or_else(PoisonError::into_inner);
        if !image.writable {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the snapshot is read-only"));
        }
        let result = image.cut(size);
        image.noted(result)
    }
}
