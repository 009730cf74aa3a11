//! Finding a change in 1 GB when the write-ahead log cannot help, because another process
//! checkpointed and truncated it: every page is read once.

use anyhow::Result;

use crate::baseline;
use crate::data::{self, LONG};
use crate::measure::median;
use crate::report::{Line, Target, Unit};
use crate::stage::Stage;

pub(crate) fn run(stage: &mut Stage) -> Result<Vec<Line>> {
    let (large, mut client, url) = stage.large_in_sync()?;
    let connection = data::connect(&large.path)?;
    let (mut times, mut reads, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..=stage.times(7) {
        data::update(&connection, 1, LONG, &mut stage.random)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        let read = baseline::read(&large.path)?;
        let synced = client.sync(&large.path, &url)?;
        if repetition > 0 {
            times.push(synced.ms);
            reads.push(read);
            requests.push(f64::from(synced.requests));
        }
    }
    Ok(vec![
        Line::of("capture", "sync of 1 GB after a foreign checkpoint", Unit::Milliseconds, &times)
            .against("reading the file", median(&reads))
            .aim(Target::RatioAtMost(2.0)),
        Line::of("capture", "requests", Unit::Requests, &requests).aim(Target::AtMost(1.0)),
    ])
}
