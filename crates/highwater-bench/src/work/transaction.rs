//! W3: 100,000 rows in one transaction, one sync.

use std::time::Instant;

use anyhow::Result;

use crate::baseline::{self, ms};
use crate::client::Client;
use crate::data::{self, SHORT};
use crate::measure::median;
use crate::report::{Line, Target, Unit};
use crate::stage::Stage;

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn run(stage: &mut Stage) -> Result<Vec<Line>> {
    let rows = stage.amount(100_000);
    let mut client = Client::start()?;
    let (mut commits, mut copies, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut requests, mut up, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..=stage.times(9) {
        let name = stage.fresh();
        let (path, url) = (stage.path(&format!("{name}.db")), stage.url(&name));
        let connection = data::connect(&path)?;
        client.sync(&path, &url)?;
        let began = Instant::now();
        data::insert_at_once(&connection, rows, SHORT, &mut stage.random)?;
        let wrote = ms(began);
        let push = client.sync(&path, &url)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        if repetition > 0 {
            commits.push(wrote);
            times.push(push.ms);
            requests.push(f64::from(push.requests));
            up.push(push.up as f64);
            bytes.push(path.metadata()?.len() as f64);
            copies.push(baseline::copy(&path, &stage.path("copy"))?);
        }
        stage.forget(&name);
    }
    Ok(vec![
        Line::of("W3", "sync after 100,000 rows in one transaction", Unit::Milliseconds, &times)
            .against("the transaction", median(&commits))
            .aim(Target::AtMost(50.0)),
        Line::of("W3", "the same, against a durable copy", Unit::Milliseconds, &times)
            .against("cp + fsync", median(&copies)),
        Line::of("W3", "requests", Unit::Requests, &requests).aim(Target::AtMost(4.0)),
        Line::of("W3", "body up", Unit::Bytes, &up).against("database", median(&bytes)),
    ])
}
