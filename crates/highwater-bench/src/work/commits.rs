//! W8: one-row commits a second by an application whose file is watched, against the same loop
//! without Highwater. The watch syncs every second and 100 ms after a commit; the server writes to the
//! same disk and runs on the same processors.

use anyhow::Result;

use crate::client::Client;
use crate::data;
use crate::measure::median;
use crate::report::{Line, Target, Unit};
use crate::stage::Stage;

/// Short, so that what else the machine does falls on both halves of a pair alike.
const ROUND_MS: u64 = 1000;

pub(crate) fn run(stage: &mut Stage) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (synchronous, least) in [("FULL", 0.97), ("NORMAL", 0.95)] {
        let mut client = Client::start()?;
        let name = stage.fresh();
        let (attached, plain) = (stage.path(&format!("{name}.db")), stage.path(&format!("{name}-plain.db")));
        let url = stage.url(&name);
        data::connect(&attached)?;
        data::connect(&plain)?;
        let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..stage.times(21) {
            let mut half = |watched: bool| {
                let (db, url) = if watched { (&attached, Some(url.as_str())) } else { (&plain, None) };
                client.commits(db, url, synchronous, ROUND_MS)
            };
            let first_is_watched = round % 2 == 0;
            let (first, second) = (half(first_is_watched)?, half(!first_is_watched)?);
            let (here, there) = if first_is_watched { (first, second) } else { (second, first) };
            with.push(here);
            without.push(there);
            ratios.push(here / there);
        }
        let plain = median(&without);
        let what = format!("commits while watched, synchronous={synchronous}");
        lines.push(Line::of("W8", what, Unit::CommitsPerSecond, &with).against("plain", plain));
        // Rounds are compared in pairs, for the machine's speed changes with what else runs on it.
        let what = format!("the same, by pairs of rounds, synchronous={synchronous}");
        let paired = Line::new("W8", what, Unit::CommitsPerSecond, median(&ratios) * plain);
        lines.push(paired.against("plain", plain).must(Target::RatioAtLeast(least)));
        stage.forget(&name);
    }
    Ok(lines)
}
