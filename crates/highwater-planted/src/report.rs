//! Who caught which bug.

use std::fmt;

use serde::Serialize;

/// What a layer made of a bug.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The command.
    pub by: String,
    /// Whether it failed, as it must.
    pub caught: bool,
    /// After so many seconds.
    pub seconds: f64,
    /// What it said, or why it does not count.
    pub said: String,
}

/// A bug, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Its name.
    pub bug: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// The layers that were asked.
    pub verdicts: Vec<Verdict>,
}

impl Found {
    /// Whether any layer has caught it.
    #[must_use]
    pub fn caught(&self) -> bool {
        self.verdicts.iter().any(|verdict| verdict.caught)
    }
}

/// All bugs.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Commands that failed without any bug: nothing can be proven by them.
    pub broken: Vec<Verdict>,
    /// The bugs, in the order of the list.
    pub bugs: Vec<Found>,
    /// How long everything took.
    pub seconds: f64,
}

impl Report {
    /// Whether every bug was caught by commands that pass without one.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.broken.is_empty() && self.bugs.iter().all(Found::caught)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for broken in &self.broken {
            writeln!(f, "fails without any bug: {}: {}", broken.by, broken.said)?;
        }
        let width = self.bugs.iter().map(|found| found.bug.len()).max().unwrap_or(0);
        for found in &self.bugs {
            for verdict in &found.verdicts {
                let how = if verdict.caught { "caught by" } else { "NOT caught by" };
                writeln!(
                    f,
                    "{:width$}  {how} {} after {:.1} s: {}",
                    found.bug, verdict.by, verdict.seconds, verdict.said
                )?;
            }
        }
        let survived: Vec<&str> =
            self.bugs.iter().filter(|found| !found.caught()).map(|found| found.bug).collect();
        write!(
            f,
            "{} bugs, {} caught, in {:.0} s",
            self.bugs.len(),
            self.bugs.len() - survived.len(),
            self.seconds
        )?;
        if survived.is_empty() { Ok(()) } else { write!(f, "; alive: {}", survived.join(", ")) }
    }
}
