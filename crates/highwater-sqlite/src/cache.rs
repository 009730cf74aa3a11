//! Pages of the source that were read, as many as fit.
//!
//! SQLite has a cache of its own for whole pages; this one serves what goes around it: the header that is
//! read at every transaction's start, parts of pages, long values, and the comparison at the end. The oldest go first.

use std::collections::{HashMap, VecDeque};

#[derive(Debug)]
pub(crate) struct Cache {
    pages: HashMap<u32, Box<[u8]>>,
    order: VecDeque<u32>,
    most: usize,
}

impl Cache {
    /// A cache of as many bytes, and of at least a few pages.
    pub(crate) fn new(bytes: usize, page_size: usize) -> Self {
        Self { pages: HashMap::new(), order: VecDeque::new(), most: (bytes / page_size.max(1)).max(8) }
    }

    pub(crate) fn get(&self, page: u32) -> Option<&[u8]> {
        self.pages.get(&page).map(|data| &**data)
    }

    pub(crate) fn put(&mut self, page: u32, data: Box<[u8]>) {
        if self.pages.insert(page, data).is_none() {
            self.order.push_back(page);
        }
        while self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.pages.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pages_make_room() {
        let mut cache = Cache::new(10 * 512, 512);
        for page in 1..=20 {
            cache.put(page, vec![u8::try_from(page).unwrap(); 512].into());
        }
        assert!(cache.get(10).is_none());
        assert_eq!(cache.get(11).unwrap()[0], 11);
        assert_eq!(cache.pages.len(), 10);
    }
}
