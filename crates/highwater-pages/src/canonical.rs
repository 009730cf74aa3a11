//! The canonical form of pages.
//!
//! SQLite rewrites three fields of page 1 on its own: the change counter (bytes 24..28), the
//! version-valid-for number (92..96) and the library's version number (96..100). In the canonical
//! form they are zero, and the journal-mode bytes (18 and 19) say write-ahead log (2). Every hash,
//! comparison and page that leaves the machine is canonical; SQLite opens such a file as it is.
//! All other pages are canonical as they stand.

use std::borrow::Cow;

use highwater_ltx::{PageNo, planted};

/// Where page 1 says how the file is journaled (write and read version).
pub const JOURNAL_MODE_BYTES: std::ops::Range<usize> = 18..20;

/// The fields of page 1 that SQLite changes without a change of content.
const VOLATILE: [std::ops::Range<usize>; 2] = [24..28, 92..100];

/// The value of both journal-mode bytes for a database in WAL mode.
pub const WAL_MODE: u8 = 2;

/// Brings page 1 into its canonical form in place. Shorter slices are left alone.
pub fn canonicalise_first_page(data: &mut [u8]) {
    for range in VOLATILE.into_iter().filter(|_| !planted("first-page-as-it-is")) {
        if let Some(field) = data.get_mut(range) {
            field.fill(0);
        }
    }
    if let Some(mode) = data.get_mut(JOURNAL_MODE_BYTES) {
        mode.fill(WAL_MODE);
    }
}

/// The canonical form of any page; copies only page 1.
#[must_use]
pub fn canonical(page: PageNo, data: &[u8]) -> Cow<'_, [u8]> {
    if page.0 == 1 {
        let mut copy = data.to_vec();
        canonicalise_first_page(&mut copy);
        Cow::Owned(copy)
    } else {
        Cow::Borrowed(data)
    }
}

/// Whether the page is in its canonical form: what a server demands of every page it is sent.
#[must_use]
pub fn is_canonical(page: PageNo, data: &[u8]) -> bool {
    page.0 != 1 || *canonical(page, data) == *data
}
