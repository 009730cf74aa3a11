//! From the body of a push to a [`Delta`]: received, decompressed, decoded, checked.
//!
//! A small body is read into memory. A large one is decoded and encoded again page by page while it
//! arrives, into a file of the store that already has its final header: where it will stand is
//! known before, because the client's header says what the state will be and how many pages come.
//! Nothing of a body that turns out to be wrong stays behind.

mod body;
mod check;
mod read;

pub(crate) use body::{Encoding, Incoming, discard, read_whole};
pub(crate) use check::page_fault;
pub(crate) use read::{PushError, receive};
