//! Pages that were written: in memory, and beyond a budget in one temporary file without a name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

#[derive(Debug)]
enum Slot {
    Memory(Box<[u8]>),
    /// The how-manieth place of the file.
    File(u64),
}

/// See the module. Pages are always whole.
#[derive(Debug)]
pub(crate) struct Overlay {
    page_size: usize,
    slots: BTreeMap<u32, Slot>,
    /// Bytes in memory, and how many there may be.
    used: usize,
    budget: usize,
    file: Option<File>,
    places: u64,
    free: Vec<u64>,
}

impl Overlay {
    pub(crate) fn new(page_size: usize, budget: usize) -> Self {
        Self { page_size, slots: BTreeMap::new(), used: 0, budget, file: None, places: 0, free: Vec::new() }
    }

    pub(crate) fn has(&self, page: u32) -> bool {
        self.slots.contains_key(&page)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Ascending.
    pub(crate) fn pages(&self) -> Vec<u32> {
        self.slots.keys().copied().collect()
    }

    /// Fills `into` with a written page from an offset; `false` when the page was not written.
    pub(crate) fn read(&mut self, page: u32, offset: usize, into: &mut [u8]) -> io::Result<bool> {
        match self.slots.get(&page) {
            None => return Ok(false),
            Some(Slot::Memory(data)) => {
                let part = data.get(offset..offset + into.len()).ok_or_else(beyond)?;
                into.copy_from_slice(part);
            }
            Some(Slot::File(place)) => {
                let at = place * self.page_size as u64 + offset as u64;
                let file = self.file.as_mut().ok_or_else(beyond)?;
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(into)?;
            }
        }
        Ok(true)
    }

    /// Keeps a whole page.
    pub(crate) fn write(&mut self, page: u32, data: &[u8]) -> io::Result<()> {
        match self.slots.get_mut(&page) {
            Some(Slot::Memory(old)) => old.copy_from_slice(data),
            Some(Slot::File(place)) => {
                let place = *place;
                self.put(place, data)?;
            }
            None if self.used + data.len() <= self.budget => {
                self.used += data.len();
                self.slots.insert(page, Slot::Memory(data.into()));
            }
            None => {
                let place = self.free.pop().unwrap_or_else(|| {
                    self.places += 1;
                    self.places - 1
                });
                self.put(place, data)?;
                self.slots.insert(page, Slot::File(place));
            }
        }
        Ok(())
    }

    fn put(&mut self, place: u64, data: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.seek(SeekFrom::Start(place * self.page_size as u64))?;
        file.write_all(data)
    }

    /// Forgets the pages after `last`.
    pub(crate) fn truncate(&mut self, last: u32) {
        let Some(first) = last.checked_add(1) else { return };
        for slot in self.slots.split_off(&first).into_values() {
            match slot {
                Slot::Memory(data) => self.used -= data.len(),
                Slot::File(place) => self.free.push(place),
            }
        }
    }
}

fn beyond() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a part of a page beyond its end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_beyond_the_budget_come_back_from_the_file() {
        let mut overlay = Overlay::new(512, 1024);
        let page = |fill: u32| vec![u8::try_from(fill).unwrap(); 512];
        (1..=9).for_each(|no| overlay.write(no, &page(no)).unwrap());
        (1..=9).for_each(|no| overlay.write(no, &page(no + 100)).unwrap());
        let mut part = [0; 12];
        for no in 1..=9 {
            assert!(overlay.read(no, 500, &mut part).unwrap());
            assert_eq!(part, page(no + 100)[500..]);
        }
        overlay.truncate(4);
        assert_eq!(overlay.pages(), [1, 2, 3, 4]);
        assert!(!overlay.read(5, 0, &mut part).unwrap());
        (5..=8).for_each(|no| overlay.write(no, &page(no)).unwrap());
        assert!(overlay.read(8, 0, &mut part).unwrap());
        assert_eq!((part[0], overlay.places), (8, 7), "places are used again");
    }
}
