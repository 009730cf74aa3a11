//! W2: a database of 100 MB, 1,000 updates of one row at random places, one sync; then a second device
//! pulls.

use std::time::Instant;

use anyhow::Result;

use crate::baseline::{self, ms};
use crate::client::Client;
use crate::data::{self, SHORT};
use crate::measure::median;
use crate::report::{Line, Target, Unit};
use crate::stage::Stage;

const UPDATES: u64 = 1000;

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn run(stage: &mut Stage) -> Result<Vec<Line>> {
    let name = stage.fresh();
    let (path, second) = (stage.path("updates.db"), stage.path("updates-second.db"));
    let bytes = data::make(&path, stage.amount(100_000_000), SHORT, &mut stage.random)?;
    let url = stage.url(&name);
    let (mut client, mut other) = (Client::start()?, Client::start()?);
    let connection = data::connect(&path)?;
    client.sync(&path, &url)?;
    other.sync(&second, &url)?;
    let (mut commits, mut copies, mut pushes, mut pulls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..=stage.times(9) {
        let began = Instant::now();
        data::update(&connection, UPDATES, SHORT, &mut stage.random)?;
        let wrote = ms(began);
        let push = client.sync(&path, &url)?;
        let pull = other.sync(&second, &url)?;
        if repetition > 0 {
            commits.push(wrote);
            pushes.push(push);
            pulls.push(pull);
            copies.push(baseline::copy(&path, &stage.path("copy"))?);
        }
    }
    let of = |all: &[crate::client::Synced], pick: fn(&crate::client::Synced) -> f64| -> Vec<f64> {
        all.iter().map(pick).collect()
    };
    let line = |what: &str, unit, values: Vec<f64>| Line::of("W2", what, unit, &values);
    let pages = median(&of(&pushes, |push| push.pages as f64)) * 4096.0;
    stage.forget(&name);
    Ok(vec![
        line("sync after 1,000 random updates of 100 MB", Unit::Milliseconds, of(&pushes, |push| push.ms))
            .against("the updates", median(&commits))
            .aim(Target::AtMost(20.0)),
        line("the same, against the whole file", Unit::Milliseconds, of(&pushes, |push| push.ms))
            .against("cp + fsync", median(&copies)),
        line("requests", Unit::Requests, of(&pushes, |push| f64::from(push.requests)))
            .aim(Target::AtMost(1.0)),
        line("body up", Unit::Bytes, of(&pushes, |push| push.up as f64))
            .against("pages", pages)
            .aim(Target::AtMost(3_000_000.0)),
        line("the same, against the database", Unit::Bytes, of(&pushes, |push| push.up as f64))
            .against("database", bytes as f64),
        line("second device pulls", Unit::Milliseconds, of(&pulls, |pull| pull.ms)).aim(Target::AtMost(20.0)),
        line("second device, requests", Unit::Requests, of(&pulls, |pull| f64::from(pull.requests)))
            .aim(Target::AtMost(1.0)),
        line("second device, body down", Unit::Bytes, of(&pulls, |pull| pull.down as f64))
            .against("pages", pages),
    ])
}
