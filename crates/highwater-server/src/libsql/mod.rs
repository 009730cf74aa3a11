//! The protocol of libSQL's offline writes, on the same databases and the same log as the native one.
//!
//! What the released clients send and expect is written down in `docs/PROTOCOL.md`. In short: a client
//! counts the frames of its own write-ahead log within a generation, pushes them in batches that split
//! transactions, and pulls frames by number. Nothing in a request proves what the client has; so
//!
//! - A number means a state only where a push in the log ends. What a client pushes is compared, push by
//!   push, with what the log has there ([`compare`]): equal is known and not stored again, at the head it
//!   is appended, anything else is merged ([`heal`]).
//! - A generation only grows, and (generation, frame) names one state for ever. Frames that do not yet
//!   decide anything (a batch that ends within a transaction) wait in a branch: a private generation,
//!   durable under `DB/sync/`, that continues the one that it was forked from ([`branch`]).
//! - A client whose push was merged has rows that nobody else has at these places. From then on its numbers are those
//!   of a detour: a private generation for itself, whose pulls bring only what it lacks ([`detour`], [`catch_up`]).
//! - When it is not proven what comes before a push, the client is asked to send its whole log.
//!
//! A push of k frames takes k numbers in the log although only the last image of each page is kept. Who
//! pulls it gets k frames: fillers make up for the rest ([`pull`]). All of a push is one transaction
//! there, so nobody stands within it.

mod append;
mod baton;
mod branch;
mod catch_up;
mod compare;
mod detour;
mod frames;
mod freelist;
mod ground;
mod heal;
mod pull;
mod push;
mod standing;

pub(crate) use branch::Branches;
pub(crate) use detour::Detours;
pub(crate) use frames::{Batch, FRAME};
pub(crate) use pull::{Pull, export, newest, pull};
pub(crate) use push::{Outcome, Request, push};

use highwater_ltx::Generation;

/// Where the numbers of private generations begin. Generations of the log stay below.
const PRIVATE: u32 = 1 << 31;
/// How far private numbers are from each other: a client that is told a higher number than its own goes
/// to the next one, which must not be another branch.
const STRIDE: u32 = 16;

/// Frames that a released client sends in one batch, unless it has no more or was told to send fewer.
const CLIENT_BATCH: usize = 128;

/// Whether this is the number of a branch.
fn is_private(generation: Generation) -> bool {
    generation.0 >= PRIVATE
}
