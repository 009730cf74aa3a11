//! What many runs came to.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::run::Ran;

/// What many runs came to.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// How many runs.
    pub seeds: u64,
    /// The first and the last seed.
    pub from_to: Option<(u64, u64)>,
    /// Hours that passed in all of them together.
    pub simulated_hours: f64,
    /// Seconds that really passed.
    pub seconds: f64,
    /// Events that the history checker judged.
    pub events: u64,
    /// How often which fault happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// What was broken, by seed.
    pub failures: BTreeMap<u64, String>,
}

impl Report {
    /// Counts a run.
    pub fn add(&mut self, seed: u64, ran: &Ran) {
        self.seeds += 1;
        let (from, to) = self.from_to.unwrap_or((seed, seed));
        self.from_to = Some((from.min(seed), to.max(seed)));
        self.simulated_hours += std::time::Duration::from_millis(ran.ms).as_secs_f64() / 3600.0;
        self.events += ran.events as u64;
        for (fault, count) in &ran.faults {
            *self.faults.entry(fault.name()).or_default() += count;
        }
        if let Some(broken) = &ran.broken {
            self.failures.insert(seed, broken.clone());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.from_to.unwrap_or_default();
        writeln!(
            f,
            "{} seeds ({from} to {to}), {:.0} simulated hours in {:.0} s, {} events judged, {} failures",
            self.seeds,
            self.simulated_hours,
            self.seconds,
            self.events,
            self.failures.len()
        )?;
        let faults: Vec<_> = self.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(f, "faults: {}", faults.join(", "))
    }
}
