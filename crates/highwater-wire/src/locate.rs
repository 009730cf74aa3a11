//! The body of `POST /DB/v1/locate`: what a client has, so that the server can say where in the
//! history that is.
//!
//! All numbers are big-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `HWLOCA01` |
//! | 8 | 4 | page size in bytes |
//! | 12 | 4 | page count |
//! | 16 | 16 | state hash |
//! | 32 | 1 | what follows: 0 nothing, 1 every page's sum, 2 the pages that differ from the base in the header `Highwater-Base` |
//! | 33 | | 1: 16 bytes for each page (zero for the lock page); 2: for each page, ascending, 4 bytes number and 16 bytes sum |

use highwater_ltx::{InvalidUnit, PageCount, PageNo, PageSize, StateHash};

const MAGIC: &[u8; 8] = b"HWLOCA01";
const HEAD: usize = 33;

/// The hash of one page, as `highwater-pages` computes it.
pub type PageSum = u128;

/// The sums that come with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SumsOf {
    /// None: only an exact match is asked for.
    Nothing,
    /// Page 1 to the last; zero for the lock page.
    All(Vec<PageSum>),
    /// The pages that differ from the base that the request's header names, ascending.
    Changed(Vec<(PageNo, PageSum)>),
}

/// What a client has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocateRequest {
    /// Of the client's copy.
    pub page_size: PageSize,
    /// Of the client's copy.
    pub page_count: PageCount,
    /// Of the client's copy.
    pub state: StateHash,
    /// Its pages.
    pub sums: SumsOf,
}

/// A body that is not a `locate` request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocateBodyError {
    /// It does not begin as one.
    #[error("the body does not begin with the magic HWLOCA01")]
    Magic,
    /// It ends too early or too late for what it says it holds.
    #[error("the body is {found} bytes long where {expected} were announced")]
    Length {
        /// Bytes that the head of the body implies.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Page numbers do not ascend or lie beyond the database's end.
    #[error("page {0} is out of order or beyond the end of the database")]
    Order(PageNo),
    /// An unknown kind of sums.
    #[error("unknown kind of page sums {0}")]
    Kind(u8),
    /// A page size that SQLite does not know.
    #[error(transparent)]
    PageSize(#[from] InvalidUnit),
}

impl LocateRequest {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.page_size.get().to_be_bytes());
        out.extend_from_slice(&self.page_count.0.to_be_bytes());
        out.extend_from_slice(&self.state.to_bytes());
        match &self.sums {
            SumsOf::Nothing => out.push(0),
            SumsOf::All(sums) => {
                out.push(1);
                out.extend(sums.iter().flat_map(|sum| sum.to_be_bytes()));
            }
            SumsOf::Changed(pages) => {
                out.push(2);
                for (page, sum) in pages {
                    out.extend_from_slice(&page.0.to_be_bytes());
                    out.extend_from_slice(&sum.to_be_bytes());
                }
            }
        }
        out
    }

    /// From bytes; checks lengths and order.
    pub fn decode(body: &[u8]) -> Result<Self, LocateBodyError> {
        let (head, rest) = body
            .split_first_chunk::<HEAD>()
            .ok_or(LocateBodyError::Length { expected: HEAD as u64, found: body.len() as u64 })?;
        let [magic @ .., _] = head;
        if !magic.starts_with(MAGIC) {
            return Err(LocateBodyError::Magic);
        }
        let u32_at = |at: usize| {
            let mut bytes = [0; 4];
            bytes.iter_mut().zip(head.iter().skip(at)).for_each(|(to, from)| *to = *from);
            u32::from_be_bytes(bytes)
        };
        let page_count = PageCount(u32_at(12));
        let mut state = [0; 16];
        state.iter_mut().zip(head.iter().skip(16)).for_each(|(to, from)| *to = *from);
        let kind = head.last().copied().unwrap_or(u8::MAX);
        Ok(Self {
            page_size: PageSize::new(u32_at(8))?,
            page_count,
            state: StateHash::from_bytes(state),
            sums: decode_sums(kind, rest, page_count)?,
        })
    }
}

fn decode_sums(kind: u8, rest: &[u8], page_count: PageCount) -> Result<SumsOf, LocateBodyError> {
    let length = |expected: u64| {
        let found = rest.len() as u64;
        if expected == found { Ok(()) } else { Err(LocateBodyError::Length { expected, found }) }
    };
    match kind {
        0 => length(0).map(|()| SumsOf::Nothing),
        1 => {
            length(u64::from(page_count.0) * 16)?;
            let (sums, _) = rest.as_chunks::<16>();
            Ok(SumsOf::All(sums.iter().map(|sum| u128::from_be_bytes(*sum)).collect()))
        }
        2 => {
            let (entries, odd) = rest.as_chunks::<20>();
            length(rest.len() as u64 - odd.len() as u64)?;
            let mut pages = Vec::with_capacity(entries.len());
            let mut last = 0;
            for [a, b, c, d, sum @ ..] in entries {
                let page = u32::from_be_bytes([*a, *b, *c, *d]);
                if page <= last || page > page_count.0 {
                    return Err(LocateBodyError::Order(PageNo(page)));
                }
                last = page;
                pages.push((PageNo(page), u128::from_be_bytes(*sum)));
            }
            Ok(SumsOf::Changed(pages))
        }
        other => Err(LocateBodyError::Kind(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(sums: SumsOf) -> LocateRequest {
        LocateRequest { page_size: PageSize::DEFAULT, page_count: PageCount(3), state: StateHash(7), sums }
    }

    #[test]
    fn every_kind_survives_the_wire() {
        for sums in [
            SumsOf::Nothing,
            SumsOf::All(vec![1, 2, u128::MAX]),
            SumsOf::Changed(vec![(PageNo(1), 9), (PageNo(3), 8)]),
        ] {
            let sent = request(sums);
            assert_eq!(LocateRequest::decode(&sent.encode()), Ok(sent));
        }
    }

    #[test]
    fn a_body_cut_or_padded_anywhere_is_refused() {
        let full = request(SumsOf::All(vec![1, 2, 3])).encode();
        for cut in 0..full.len() {
            assert!(LocateRequest::decode(&full[..cut]).is_err());
        }
        assert!(LocateRequest::decode(&[full.as_slice(), b"x"].concat()).is_err());
        assert!(
            LocateRequest::decode(&request(SumsOf::Changed(vec![(PageNo(3), 1), (PageNo(2), 1)])).encode())
                .is_err()
        );
        assert!(LocateRequest::decode(&request(SumsOf::Changed(vec![(PageNo(4), 1)])).encode()).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LocateRequest::decode(&body);
        }
    }
}
