//! The page index of an open database: for every page of the head, in which file it stands, where,
//! and its hash once that is known. 32 bytes a page.

use std::sync::Arc;

use highwater_ltx::{PageCount, PageIndex, PageNo};
use highwater_pages::PageHash;

use super::file::StoredFile;
use super::images::ImageAt;

/// Set in [`Slot::size`] when the hash is known. Frames are far smaller.
const HASHED: u32 = 1 << 31;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u128,
    offset: u64,
    file: u32,
    /// 0: no image (the lock page).
    size: u32,
}

/// The pages of the head.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    slots: Vec<Slot>,
    files: Vec<Arc<StoredFile>>,
    /// Entries in the indexes of the files, which stay in memory with them.
    indexed: usize,
}

impl PageTable {
    /// The files that [`ImageAt::file`] counts.
    pub(crate) fn files(&self) -> &[Arc<StoredFile>] {
        &self.files
    }

    /// Takes in a file on top of the head. `hashes` are those of its pages, in its order, or none.
    pub(crate) fn apply(
        &mut self,
        file: &Arc<StoredFile>,
        index: &PageIndex,
        count: PageCount,
        hashes: &[(PageNo, PageHash)],
    ) {
        self.slots.resize(count.0 as usize, Slot::default());
        self.slots.shrink_to(count.0 as usize + count.0 as usize / 2);
        let number = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        self.files.push(Arc::clone(file));
        self.indexed += index.len();
        let mut hashes = hashes.iter();
        for entry in index {
            let hash = hashes.next().filter(|(page, _)| *page == entry.page).map(|(_, hash)| hash.0);
            if let Some(slot) = self.slot_mut(entry.page) {
                let known = if hash.is_some() { HASHED } else { 0 };
                *slot = Slot {
                    hash: hash.unwrap_or_default(),
                    offset: entry.offset,
                    file: number,
                    size: entry.size | known,
                };
            }
        }
    }

    /// About how much memory it takes with the indexes of its files, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let slots = self.slots.capacity() * size_of::<Slot>();
        (slots + self.indexed * size_of::<highwater_ltx::IndexEntry>()) as u64
    }

    fn slot(&self, page: PageNo) -> Option<&Slot> {
        self.slots.get((page.0 as usize).checked_sub(1)?).filter(|slot| slot.size != 0)
    }

    fn slot_mut(&mut self, page: PageNo) -> Option<&mut Slot> {
        self.slots.get_mut((page.0 as usize).checked_sub(1)?)
    }

    /// Where the page's image stands.
    pub(crate) fn image(&self, page: PageNo) -> Option<ImageAt> {
        let slot = self.slot(page)?;
        Some(ImageAt { page, file: slot.file, size: slot.size & !HASHED, offset: slot.offset })
    }

    /// The page's hash, if it was needed before.
    pub(crate) fn hash(&self, page: PageNo) -> Option<PageHash> {
        self.slot(page).filter(|slot| slot.size & HASHED != 0).map(|slot| PageHash(slot.hash))
    }

    /// Remembers the hash of an image, unless the page has another image by now.
    pub(crate) fn remember(&mut self, image: ImageAt, hash: PageHash) {
        if let Some(slot) = self.slot_mut(image.page)
            && (slot.file, slot.offset) == (image.file, image.offset)
            && slot.size != 0
        {
            slot.hash = hash.0;
            slot.size |= HASHED;
        }
    }
}
