//! Which pages a file may hold, and in which order.
//!
//! Ascending, never the lock page, never past the end of the database; a snapshot holds every page
//! without a gap; a database that has pages has at least one in each file. Encoder, decoder and
//! page index all ask here.

use std::borrow::Cow;

use crate::{Header, PageCount, PageNo};

/// The pages of one file, as they come.
#[derive(Debug, Clone)]
pub(crate) struct PageOrder {
    lock_page: u32,
    commit: PageCount,
    snapshot: bool,
    /// The last page that was admitted; 0 before the first.
    previous: u32,
}

impl PageOrder {
    pub(crate) fn new(header: &Header) -> Self {
        Self {
            lock_page: header.page_size.lock_page().0,
            commit: header.commit,
            snapshot: header.is_snapshot(),
            previous: 0,
        }
    }

    /// Takes `page` as the next one, or says as a clause why it cannot be.
    pub(crate) fn admit(&mut self, page: PageNo) -> Result<(), Cow<'static, str>> {
        let PageNo(number) = page;
        if number == self.lock_page {
            return Err(format!("page {number} is the lock page, which carries no data").into());
        }
        if !self.commit.contains(page) {
            let last = self.commit;
            return Err(format!("page {number} is not in a database of {last} pages").into());
        }
        if number <= self.previous {
            let previous = self.previous;
            return Err(format!("page {number} comes after page {previous}").into());
        }
        if self.snapshot && number != self.after(self.previous) {
            let missing = self.after(self.previous);
            return Err(format!("the snapshot lacks page {missing}").into());
        }
        self.previous = number;
        Ok(())
    }

    /// Whether the pages so far may be all of them.
    pub(crate) fn finish(&self) -> Result<(), Cow<'static, str>> {
        if self.commit.0 > 0 && self.previous == 0 {
            return Err("there is no page in it".into());
        }
        let next = self.after(self.previous);
        if self.snapshot && self.commit.contains(PageNo(next)) {
            return Err(format!("the snapshot lacks page {next}").into());
        }
        Ok(())
    }

    /// The next page that carries data; 0 after the last possible page.
    fn after(&self, page: u32) -> u32 {
        let next = page.wrapping_add(1);
        if next == self.lock_page { next.wrapping_add(1) } else { next }
    }
}
