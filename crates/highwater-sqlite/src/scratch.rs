//! SQLite's temporary files: what does not fit into its memory of sorters, of temporary tables, and of `VACUUM`.
//!
//! They have no name in the file system. Those of queries from outside share one quota.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::vfs::Storage;

/// Bytes that all temporary files of queries from outside may take together.
static LEFT: AtomicU64 = AtomicU64::new(512 << 20);

/// One temporary file.
#[derive(Debug)]
pub(crate) struct Scratch {
    file: File,
    size: u64,
    /// How much of the quota it has taken; `None` for those without one.
    taken: Option<u64>,
}

impl Scratch {
    /// An empty one.
    pub(crate) fn new(limited: bool) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, size: 0, taken: limited.then_some(0) })
    }

    fn take(&mut self, size: u64) -> io::Result<()> {
        let Some(taken) = &mut self.taken else { return Ok(()) };
        let Some(more) = size.checked_sub(*taken).filter(|more| *more > 0) else { return Ok(()) };
        let enough = LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more));
        if enough.is_err() {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the quota of temporary files is used up",
            ));
        }
        *taken = size;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        LEFT.fetch_add(self.taken.unwrap_or(0), Ordering::Relaxed);
    }
}

impl Storage for Scratch {
    fn writable(&self) -> bool {
        true
    }

    fn size(&mut self) -> u64 {
        self.size
    }

    fn read(&mut self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let there = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX).min(into.len());
        let Some(part) = into.get_mut(..there).filter(|part| !part.is_empty()) else { return Ok(0) };
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(part)?;
        Ok(there)
    }

    fn write(&mut self, data: &[u8], at: u64) -> io::Result<()> {
        let end = at + data.len() as u64;
        self.take(end)?;
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(data)?;
        self.size = self.size.max(end);
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.take(size)?;
        self.file.set_len(size)?;
        self.size = size;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_is_kept_and_given_back() {
        let before = LEFT.load(Ordering::Relaxed);
        let mut scratch = Scratch::new(true).unwrap();
        scratch.truncate(before - 10).unwrap();
        let full = scratch.write(&[0; 20], before - 5).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let mut free = Scratch::new(false).unwrap();
        free.write(b"abc", 5).unwrap();
        let mut read = [1; 10];
        assert_eq!(free.read(&mut read, 0).unwrap(), 8);
        assert_eq!(read, [0, 0, 0, 0, 0, b'a', b'b', b'c', 1, 1]);
        drop(scratch);
        assert_eq!(LEFT.load(Ordering::Relaxed), before);
    }
}
