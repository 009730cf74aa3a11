//! What a push says of itself.

use highwater_ltx::{DeviceId, Position, StateHash};
use highwater_wire::MergePolicy;

/// What a client says of its own copy when it syncs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// What it is based on.
    pub(crate) base: Option<Position>,
    /// Whether the server should make sure of that.
    pub(crate) confirm: bool,
    /// Whether the base was found by content and may be older than the copy.
    pub(crate) doubt: bool,
    /// States sent since the base whose answers never came.
    pub(crate) pending: &'a [StateHash],
    /// Who sent them.
    pub(crate) sender: Sender,
    /// Which side wins where only one can, if it is not for the server to say.
    pub(crate) policy: Option<MergePolicy>,
}

/// Who sent what a copy may have sent before.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sender {
    /// The device that it is.
    Itself,
    /// The device that it was.
    Other(DeviceId),
    /// Nobody knows.
    Anybody,
}
