//! What every page of a push must be, whatever database it is for.

use highwater_ltx::{Header, PageNo, PageSize};
use highwater_pages::is_canonical;

/// What the first page of every SQLite database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Says what is wrong with a page, as a clause.
pub(crate) fn page_fault(page: PageNo, data: &[u8], size: PageSize) -> Option<String> {
    if page.0 != 1 {
        return None;
    }
    if !data.starts_with(MAGIC) {
        return Some("page 1 is not the first page of a SQLite database".to_owned());
    }
    let stated = data.get(16..18).and_then(|bytes| bytes.first_chunk::<2>()).map(|b| u16::from_be_bytes(*b));
    // 65536 does not fit into the field and is written as 1.
    let stated = stated.map_or(0, |stated| if stated == 1 { 65536 } else { u32::from(stated) });
    if stated != size.get() {
        return Some(format!("page 1 says that pages have {stated} bytes, but they have {size}"));
    }
    (!is_canonical(page, data)).then(|| "page 1 is not in its canonical form".to_owned())
}

/// Says what is wrong with the header of a push, as a clause.
pub(super) fn header_fault(header: &Header) -> Option<&'static str> {
    if header.state.is_none() {
        return Some("its header does not say which state it makes (bytes 80 to 100)");
    }
    if header.checksums {
        return Some("its header announces database checksums, which have no place here");
    }
    if header.commit.0 == 0 {
        return Some("it makes a database of no pages");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_pages::canonicalise_first_page;

    fn first_page(size: u32) -> Vec<u8> {
        let mut page = vec![0; size as usize];
        page[..16].copy_from_slice(MAGIC);
        let stated = u16::try_from(size).unwrap_or(1);
        page[16..18].copy_from_slice(&stated.to_be_bytes());
        canonicalise_first_page(&mut page);
        page
    }

    #[test]
    fn a_first_page_is_accepted_only_as_it_must_be() {
        for size in [512, 4096, 65536] {
            let page = first_page(size);
            let size = PageSize::new(size).unwrap();
            assert_eq!(page_fault(PageNo(1), &page, size), None);
            for at in [0, 16, 18, 24, 95] {
                let mut other = page.clone();
                other[at] ^= 0x55;
                assert!(page_fault(PageNo(1), &other, size).is_some(), "byte {at}");
                assert_eq!(page_fault(PageNo(2), &other, size), None);
            }
        }
    }
}
