//! What happens before the power is cut, and while it is: the one place to add a case.

/// A computer that can crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// The sync server with its store.
    Server,
    /// A device with its database.
    Device(usize),
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The device's application adds so many rows, each in a transaction of its own.
    Write(usize, usize),
    /// It adds so many rows, and does not wait for the disk (`synchronous=NORMAL`): until a sync has told the server, a
    /// power cut may take them. Only under way, before a sync.
    Relaxed(usize, usize),
    /// It adds a row like every other of this kind, with an id that SQLite gives: another device may add the very same.
    /// Only where its other rows have all been synced.
    Ring(usize),
    /// It changes each of its own rows, in one transaction.
    Rewrite(usize),
    /// It writes the log back into the file and empties it.
    Checkpoint(usize),
    /// It opens a new database and creates nothing in it.
    Blank(usize),
    /// The device's metadata disappears.
    LoseMetadata(usize),
    /// Somebody copies its database, as it is in the file.
    Backup(usize),
    /// Somebody writes the copy over the file.
    Restore(usize),
    /// The device syncs.
    Sync(usize),
}

/// A case.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// As it is written in a command.
    pub name: &'static str,
    /// Which machine's power is cut.
    pub machine: Machine,
    /// After so many pushes the server writes a snapshot.
    pub snapshot_after: u32,
    /// What has happened and is safe.
    pub before: &'static [Step],
    /// What is under way. For a device: its own syncs, and what it writes before them.
    pub during: &'static [Step],
    /// What the applications do between the crash and the next sync.
    pub after: &'static [Step],
}

use Step::{Backup, Blank, Checkpoint, LoseMetadata, Relaxed, Restore, Rewrite, Ring, Sync, Write};

const DEVICE: Scenario = Scenario {
    name: "",
    machine: Machine::Device(1),
    snapshot_after: 1000,
    before: &[],
    during: &[Sync(1)],
    after: &[],
};
const SERVER: Scenario = Scenario {
    name: "",
    machine: Machine::Server,
    snapshot_after: 1000,
    before: &[],
    during: &[],
    after: &[],
};

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "first-push", before: &[Write(1, 20)], ..DEVICE },
    Scenario { name: "push", before: &[Write(1, 20), Sync(1), Write(1, 5)], ..DEVICE },
    Scenario {
        name: "push-after-checkpoint",
        before: &[Write(1, 20), Sync(1), Rewrite(1), Checkpoint(1), Write(1, 2)],
        ..DEVICE
    },
    Scenario {
        name: "pull",
        before: &[Write(0, 20), Sync(0), Sync(1), Write(0, 5), Rewrite(0), Sync(0)],
        ..DEVICE
    },
    Scenario {
        name: "merge",
        before: &[Write(0, 20), Sync(0), Sync(1), Write(1, 4), Write(0, 5), Rewrite(0), Sync(0)],
        ..DEVICE
    },
    Scenario {
        name: "push-then-write",
        before: &[Write(1, 20), Sync(1), Write(1, 5)],
        after: &[Write(1, 2), Rewrite(1)],
        ..DEVICE
    },
    Scenario {
        name: "pull-then-write",
        before: &[Write(0, 20), Sync(0), Sync(1), Write(0, 5), Sync(0)],
        after: &[Write(1, 2)],
        ..DEVICE
    },
    Scenario {
        name: "merge-then-write",
        before: &[Write(0, 20), Sync(0), Sync(1), Write(1, 4), Write(0, 5), Sync(0)],
        after: &[Write(1, 2), Rewrite(1)],
        ..DEVICE
    },
    Scenario {
        name: "merge-then-rewritten-and-closed",
        before: &[Write(0, 20), Sync(0), Sync(1), Write(1, 4), Write(0, 5), Sync(0)],
        after: &[Write(1, 2), Rewrite(1), Checkpoint(1), Write(1, 1), Checkpoint(1)],
        ..DEVICE
    },
    Scenario { name: "first-copy", before: &[Write(0, 40), Sync(0)], ..DEVICE },
    Scenario { name: "first-copy-into-open-file", before: &[Write(0, 40), Sync(0), Blank(1)], ..DEVICE },
    Scenario {
        name: "metadata-lost",
        before: &[Write(1, 20), Sync(1), Write(1, 5), LoseMetadata(1)],
        ..DEVICE
    },
    Scenario {
        name: "metadata-lost-and-behind",
        before: &[Write(0, 20), Sync(0), Sync(1), Write(0, 5), Sync(0), LoseMetadata(1)],
        ..DEVICE
    },
    Scenario {
        name: "relaxed-push",
        before: &[Write(1, 20), Sync(1), Sync(0)],
        during: &[Relaxed(1, 5), Sync(1)],
        after: &[Write(1, 8), Rewrite(1)],
        ..DEVICE
    },
    Scenario {
        name: "equal-writes",
        before: &[Write(0, 10), Sync(0), Sync(1), Ring(0), Ring(1), Sync(0)],
        ..DEVICE
    },
    Scenario {
        name: "backup-written-over",
        before: &[
            Write(0, 60),
            Sync(0),
            Sync(1),
            Backup(1),
            Write(0, 5),
            Rewrite(0),
            Sync(0),
            Sync(1),
            Restore(1),
            Write(1, 30),
        ],
        ..DEVICE
    },
    Scenario {
        name: "server-appends",
        during: &[Write(0, 10), Sync(0), Sync(1), Write(0, 3), Sync(0), Sync(1)],
        ..SERVER
    },
    Scenario {
        name: "server-merges",
        before: &[Write(0, 10), Sync(0), Sync(1)],
        during: &[Write(0, 3), Sync(0), Write(1, 3), Sync(1), Rewrite(1), Write(0, 1), Sync(0), Sync(1)],
        ..SERVER
    },
    Scenario {
        name: "server-snapshots",
        snapshot_after: 2,
        before: &[Write(0, 10), Sync(0)],
        during: &[Write(0, 2), Sync(0), Rewrite(0), Sync(0), Write(0, 1), Sync(0), Sync(1)],
        ..SERVER
    },
];
