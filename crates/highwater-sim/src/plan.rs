//! What a run is to be, from its seed.

use std::collections::{BTreeMap, BTreeSet};

use crate::dice::Dice;
use crate::faults::{Fault, Layer};
use crate::workloads::{self, Workload};

/// What was added after reports had named seeds is only in every so many-th, so that the others stay what they were.
const LATE: u64 = 5;

/// What a caller may choose; everything else comes from the seed.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How many devices. None: 2 to 4.
    pub devices: Option<u64>,
    /// How many steps each device takes. None: 8 to 24.
    pub steps: Option<u64>,
    /// Faults that do not happen.
    pub without: BTreeSet<Fault>,
    /// The only faults that happen, and these in every run, often. Empty: the seed decides.
    pub only: BTreeSet<Fault>,
    /// The workloads, by name. Empty: some.
    pub workloads: Vec<String>,
}

impl Options {
    /// The same as arguments on the command line.
    #[must_use]
    pub fn arguments(&self) -> String {
        let mut text = String::new();
        for (name, value) in [("devices", self.devices), ("steps", self.steps)] {
            text.extend(value.map(|value| format!(" --{name} {value}")));
        }
        text.extend(self.without.iter().map(|fault| format!(" --without {fault}")));
        text.extend(self.only.iter().map(|fault| format!(" --only {fault}")));
        text.extend(self.workloads.iter().map(|name| format!(" --workload {name}")));
        text
    }
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all its randomness comes from.
    pub seed: u64,
    /// How many devices write.
    pub devices: u64,
    /// How many steps each takes.
    pub steps: u64,
    /// How many servers stand before the one store.
    pub servers: usize,
    /// The page size of the database.
    pub page_size: u32,
    /// Pushes from one snapshot to the next.
    pub max_files: u32,
    /// Bodies above this size are staged in the store.
    pub small_body: usize,
    /// Whether the first push wins where only one can.
    pub first_push_wins: bool,
    /// How long a token is valid, in seconds.
    pub token_s: u64,
    /// What the devices write.
    pub workloads: Vec<&'static dyn Workload>,
    /// How often which fault happens, of a thousand occasions.
    pub faults: BTreeMap<Fault, u64>,
}

impl Plan {
    /// The run of a seed.
    #[must_use]
    pub fn new(seed: u64, options: &Options) -> Self {
        let mut dice = Dice::of(seed, "plan");
        let mut pick = |from: &[u32]| dice.pick(from).copied().unwrap_or(4096);
        let page_size = pick(&[512, 1024, 4096, 4096, 8192]);
        let max_files = pick(&[2, 5, 20, 1000]);
        let small_body = pick(&[4 << 10, 64 << 10, 8 << 20]) as usize;
        let servers = if dice.permille(300) { 2 } else { 1 };
        let devices = dice.between(2, 4);
        let steps = dice.between(8, 24);
        let first_push_wins = dice.permille(300);
        let token_s = dice.between(60, 1200);
        let late = |workload: &&'static dyn Workload| workloads::LATE.contains(&workload.name());
        let may = |workload: &&'static dyn Workload| seed.is_multiple_of(LATE) || !late(workload);
        let workloads = workloads::ALL.iter().copied().filter(|_| dice.permille(500)).filter(may).collect();
        let named =
            |workload: &&'static dyn Workload| options.workloads.iter().any(|name| name == workload.name());
        let mut workloads: Vec<_> = if options.workloads.is_empty() {
            workloads
        } else {
            workloads::ALL.iter().copied().filter(named).collect()
        };
        if workloads.is_empty() {
            workloads = workloads::ALL.to_vec();
        }
        Self {
            seed,
            devices: options.devices.unwrap_or(devices).max(1),
            steps: options.steps.unwrap_or(steps),
            servers,
            page_size,
            max_files,
            small_body,
            first_push_wins,
            token_s,
            workloads,
            faults: faults(seed, options),
        }
    }
}

/// Not every fault in every run: some are only found where others do not get in the way.
fn faults(seed: u64, options: &Options) -> BTreeMap<Fault, u64> {
    let mut dice = Dice::of(seed, "faults");
    let mut chosen = BTreeMap::new();
    let none_at_all = dice.permille(40);
    for kind in Fault::TABLE {
        let chosen_here = options.only.contains(&kind.fault);
        let may = seed.is_multiple_of(LATE) || kind.layer != Layer::Memory;
        let on = dice.permille(600) && may && !none_at_all && options.only.is_empty() || chosen_here;
        // Sometimes there is much of it.
        let much = if (dice.permille(100) || chosen_here) && kind.layer != Layer::World { 4 } else { 1 };
        if on && !options.without.contains(&kind.fault) {
            chosen.insert(kind.fault, kind.permille * much);
        }
    }
    chosen
}
