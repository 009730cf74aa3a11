//! What can go wrong. To add a fault: a line in [`Fault::TABLE`], and its effect at the one place that its layer has
//! for it.
//!
//! | layer | where it takes effect |
//! |---|---|
//! | [`Layer::Network`] | `network.rs`, for each request |
//! | [`Layer::Store`] | `store.rs`, for each operation on the store |
//! | [`Layer::World`] | `nemesis.rs`, now and then |
//! | [`Layer::Memory`] | `network.rs`, for each request |

use std::fmt;
use std::str::FromStr;

/// Where a fault is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// For each request.
    Network,
    /// For each operation on the store.
    Store,
    /// Now and then, for a while.
    World,
    /// For each request, before it leaves and before its answer does.
    Memory,
}

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A request is lost before the server.
    RequestLost,
    /// The answer is lost, what was asked for is done.
    AnswerLost,
    /// The client gives up; the request arrives later.
    RequestLate,
    /// A request arrives twice, the second time later.
    RequestTwice,
    /// A request takes long.
    Slow,
    /// A request's body breaks off.
    RequestCut,
    /// An answer's body breaks off.
    AnswerCut,
    /// One bit of a request's body is another.
    RequestFlipped,
    /// One bit of an answer's body is another.
    AnswerFlipped,
    /// One bit of a request's method, path or headers is another.
    RequestHeadFlipped,
    /// One bit of an answer's status or headers is another.
    AnswerHeadFlipped,
    /// Something in between answers 429, 500, 502, 503 or 504, and the server sees nothing.
    Refused,
    /// Something in between answers 502 or 504 after the server did what was asked for.
    RefusedAfter,
    /// Something in between answers 409 in the server's own words.
    FalseConflict,
    /// The store fails, and nothing was done.
    StoreFails,
    /// The store fails, but did what was asked for.
    StoreFailsAfter,
    /// A conditional creation succeeds and says that the object exists.
    StoreExistsAfter,
    /// The store takes long.
    StoreSlow,
    /// A device has no network for a while.
    Partition,
    /// A server dies with what it was writing, and another one starts.
    Crash,
    /// A server stops as it should, and another one starts.
    Restart,
    /// The store does not work for a while.
    Outage,
    /// The servers' clock jumps, forward or backward. Tokens end with it.
    ClockJump,
    /// A page of a request is damaged before the checksums are made: its client's memory is bad.
    RequestForged,
    /// The same of an answer: a server's memory.
    AnswerForged,
}

/// A line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Which.
    pub fault: Fault,
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// Where it is drawn.
    pub layer: Layer,
    /// How often, of a thousand occasions, in a run in which it is on.
    pub permille: u64,
}

impl Fault {
    /// Every kind there is.
    pub const TABLE: &'static [Kind] = &[
        kind(Self::RequestLost, "request-lost", Layer::Network, 30),
        kind(Self::AnswerLost, "answer-lost", Layer::Network, 60),
        kind(Self::RequestLate, "request-late", Layer::Network, 25),
        kind(Self::RequestTwice, "request-twice", Layer::Network, 25),
        kind(Self::Slow, "slow", Layer::Network, 50),
        kind(Self::RequestCut, "request-cut", Layer::Network, 25),
        kind(Self::AnswerCut, "answer-cut", Layer::Network, 40),
        kind(Self::RequestFlipped, "request-flipped", Layer::Network, 20),
        kind(Self::AnswerFlipped, "answer-flipped", Layer::Network, 20),
        kind(Self::RequestHeadFlipped, "request-head-flipped", Layer::Network, 20),
        kind(Self::AnswerHeadFlipped, "answer-head-flipped", Layer::Network, 20),
        kind(Self::Refused, "refused", Layer::Network, 40),
        kind(Self::RefusedAfter, "refused-after", Layer::Network, 25),
        kind(Self::FalseConflict, "false-conflict", Layer::Network, 10),
        kind(Self::StoreFails, "store-fails", Layer::Store, 15),
        kind(Self::StoreFailsAfter, "store-fails-after", Layer::Store, 15),
        kind(Self::StoreExistsAfter, "store-exists-after", Layer::Store, 30),
        kind(Self::StoreSlow, "store-slow", Layer::Store, 20),
        kind(Self::Partition, "partition", Layer::World, 350),
        kind(Self::Crash, "crash", Layer::World, 250),
        kind(Self::Restart, "restart", Layer::World, 100),
        kind(Self::Outage, "outage", Layer::World, 150),
        kind(Self::ClockJump, "clock-jump", Layer::World, 150),
        kind(Self::RequestForged, "request-forged", Layer::Memory, 25),
        kind(Self::AnswerForged, "answer-forged", Layer::Memory, 25),
    ];

    /// Its line.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|kind| kind.fault == self).map_or("unlisted", |kind| kind.name)
    }
}

const fn kind(fault: Fault, name: &'static str, layer: Layer, permille: u64) -> Kind {
    Kind { fault, name, layer, permille }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::TABLE.iter().find(|kind| kind.name == name).map(|kind| kind.fault);
        let names: Vec<_> = Self::TABLE.iter().map(|kind| kind.name).collect();
        found.ok_or_else(|| format!("there is no fault {name:?}; there are {}", names.join(", ")))
    }
}
