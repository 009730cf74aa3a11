//! The LTX file format, version 3: a delta or a snapshot of a SQLite database as one file.
//!
//! An LTX file carries images of whole pages in ascending order, an index of them, and a checksum
//! over everything. It is what Highwater's server stores and what crosses the wire; `litestream
//! restore` reads the same files. The byte tables stand in `docs/FORMATS.md`.
//!
//! | task | use |
//! |---|---|
//! | write a file | [`Header::new_push`] or [`Header::new_snapshot`], then [`Encoder`] |
//! | read a file from first byte to last, verified | [`Decoder`] |
//! | find one page in a stored file without reading it all | [`PageIndex::decode_tail`], [`decode_page_frame`] |
//! | make one file of several | [`compact`] |
//! | name a file | [`file_name`], [`parse_file_name`] |
//!
//! Everything here is a pure function over bytes, [`Read`](std::io::Read) and
//! [`Write`](std::io::Write): nothing knows of SQLite, of HTTP or of a store. Nothing here hashes a
//! database state either; a [`StateHash`] is only carried.
//!
//! ```
//! use highwater_ltx::{
//!     Decoder, DeviceId, Encoder, FrameNo, Generation, Header, PageCount, PageEncoding, PageNo,
//!     PageSize, StateHash, TxId,
//! };
//!
//! # fn main() -> Result<(), highwater_ltx::Error> {
//! let size = PageSize::DEFAULT;
//! let page = vec![7; size.as_usize()];
//! let header = Header::new_push(
//!     size, PageCount(3), TxId(2), 1_700_000_000_000, Generation::FIRST, FrameNo(4), 1,
//!     DeviceId(9 << 64), StateHash(42),
//! );
//! let mut encoder = Encoder::new(Vec::new(), header, PageEncoding::Lz4)?;
//! encoder.page(PageNo(2), &page)?;
//! let (file, finished) = encoder.finish()?;
//! assert_eq!(finished.bytes, file.len() as u64);
//!
//! let mut decoder = Decoder::new(file.as_slice())?;
//! assert_eq!(decoder.header().last_frame(), Some(FrameNo(4)));
//! let mut image = Vec::new();
//! while let Some(number) = decoder.next_page(&mut image)? {
//!     assert_eq!((number, &image), (PageNo(2), &page));
//! }
//! # Ok(())
//! # }
//! ```

mod checksum;
mod compact;
mod decoder;
mod encoder;
mod error;
mod frame;
mod header;
mod index;
mod lz4;
mod lz4_frame;
mod name;
mod order;
mod planted;
mod trailer;
#[allow(clippy::cast_possible_truncation, reason = "each cast there is of a bounded value")]
mod units;
mod varint;

pub use compact::compact;
pub use decoder::Decoder;
pub use encoder::{Encoder, Finished, PageEncoding};
pub use error::{Error, Result};
pub use frame::decode_page_frame;
pub use header::Header;
pub use index::{IndexEntry, PageIndex, TailIndex};
pub use name::{file_name, parse_file_name};
pub use planted::planted;
pub use trailer::Trailer;
pub use units::*;
