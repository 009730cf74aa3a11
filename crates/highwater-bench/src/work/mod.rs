//! The workloads, by the names that the design gives them.

mod capture;
mod commits;
mod large;
mod merge;
mod nothing;
mod small;
mod transaction;
mod updates;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::report::{self, Line};
use crate::stage::Stage;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    /// 1,000 one-row commits, one sync; then a second device's first copy
    W1,
    /// 1,000 one-row updates at random places of a 100 MB database, one sync; then a second device's pull
    W2,
    /// 100,000 rows in one transaction, one sync
    W3,
    /// First push and first copy of 1 GB
    W4,
    /// A sync of 1 GB with nothing to do
    W5,
    /// W1 with 50 ms for each request
    W6,
    /// Two devices write: merging 100 updates with 100 others in 1 GB and in 10 MB
    W7,
    /// One-row commits a second while the file is watched
    W8,
    /// A sync of 1 GB after another process checkpointed it
    Capture,
}

impl Workload {
    fn run(self, stage: &mut Stage) -> Result<Vec<Line>> {
        match self {
            Self::W1 => small::near(stage),
            Self::W2 => updates::run(stage),
            Self::W3 => transaction::run(stage),
            Self::W4 => large::run(stage),
            Self::W5 => nothing::run(stage),
            Self::W6 => small::far(stage),
            Self::W7 => merge::run(stage),
            Self::W8 => commits::run(stage),
            Self::Capture => capture::run(stage),
        }
    }
}

/// Measures and reports.
pub(crate) fn run(chosen: &[Workload], quick: bool, json: bool, dir: Option<&Path>) -> Result<()> {
    let beside = std::env::current_exe().context("finding this program")?;
    let beside = beside.parent().context("it stands in no folder")?;
    let mut stage =
        Stage::new(dir.unwrap_or(beside), quick).context("preparing the folder and the server")?;
    let mut all = Vec::new();
    for workload in Workload::value_variants() {
        if chosen.is_empty() || chosen.contains(workload) {
            note(&format!("measuring {workload:?} …"))?;
            all.extend(workload.run(&mut stage).with_context(|| format!("measuring {workload:?}"))?);
        }
    }
    drop(stage);
    let text = if json {
        report::json(&machine(), &all)?
    } else {
        let kind = if quick { "Quick run, a tenth of the data: not to be quoted.\n" } else { "" };
        format!("{}\n{kind}\n{}", machine(), report::table(&all))
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

fn note(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr().lock(), "{text}")?)
}

/// What this ran on.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = read("/proc/sys/kernel/osrelease");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "highwater-bench {} · {} {} · {} · {cores} cores · SQLite {} · server and client on this machine, store with fsync",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        kernel.trim(),
        processor.map_or("unknown processor", |(_, name)| name),
        rusqlite::version()
    )
}
