//! W1: 1,000 one-row commits, one sync, and a second device's first copy. W6: the same with 50 ms for
//! each request.
//!
//! The application keeps its connection open, as applications do. Its commits pass SQLite's automatic
//! checkpoint, so that the log is restarted between the two syncs.

use std::time::Instant;

use anyhow::Result;

use crate::baseline::{self, ms};
use crate::client::{Client, Synced};
use crate::data::{self, SHORT};
use crate::report::{Line, Target, Unit};
use crate::stage::Stage;

const COMMITS: u64 = 1000;

struct Repetition {
    push: Synced,
    first_copy: Synced,
    /// Milliseconds of the commits themselves, without Highwater.
    commits: f64,
    /// Milliseconds to copy the finished database and make the copy durable.
    copy: f64,
    /// The database's size in bytes.
    bytes: u64,
    /// The address that was synced with, for counters.
    name: String,
}

fn repeat(stage: &mut Stage, client: &mut Client, address: std::net::SocketAddr) -> Result<Repetition> {
    let name = stage.fresh();
    let url = format!("http://{address}/{name}");
    let path = stage.path(&format!("{name}.db"));
    let connection = data::connect(&path)?;
    client.sync(&path, &url)?;
    stage.counting.crossed();
    let began = Instant::now();
    data::insert(&connection, COMMITS, SHORT, &mut stage.random)?;
    let commits = ms(began);
    let push = client.sync(&path, &url)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let copy = baseline::copy(&path, &stage.path("copy"))?;
    let bytes = path.metadata()?.len();
    let first_copy = if address == stage.server.address {
        client.sync(&stage.path(&format!("{name}-second.db")), &url)?
    } else {
        Synced::default()
    };
    Ok(Repetition { push, first_copy, commits, copy, bytes, name })
}

fn column(all: &[Repetition], pick: impl Fn(&Repetition) -> f64) -> Vec<f64> {
    all.iter().map(pick).collect()
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn near(stage: &mut Stage) -> Result<Vec<Line>> {
    let mut client = Client::start()?;
    let server = stage.server.address;
    repeat(stage, &mut client, server)?;
    let all: Vec<Repetition> =
        (0..stage.times(15)).map(|_| repeat(stage, &mut client, server)).collect::<Result<_>>()?;
    let counting = stage.counting.address;
    let counted = repeat(stage, &mut client, counting)?;
    let crossed = stage.counting.crossed();
    let mut cold = Vec::new();
    for last in all.iter().rev().take(stage.times(5)) {
        // A process that begins with this sync: it has a connection to make, and TLS to prepare.
        let path = stage.path(&format!("{}.db", last.name));
        data::insert(&data::connect(&path)?, 1, SHORT, &mut stage.random)?;
        cold.push(Client::start()?.sync(&path, &stage.url(&last.name))?.ms);
    }
    let median = |pick: fn(&Repetition) -> f64| crate::measure::median(&column(&all, pick));
    let line =
        |what: &str, unit, pick: fn(&Repetition) -> f64| Line::of("W1", what, unit, &column(&all, pick));
    Ok(vec![
        line("sync after 1,000 one-row commits", Unit::Milliseconds, |r| r.push.ms)
            .against("the commits", median(|r| r.commits))
            .must(Target::AtMost(10.0)),
        line("the same, against one of the commits", Unit::Milliseconds, |r| r.push.ms)
            .against("one commit", median(|r| r.commits) / COMMITS as f64),
        line("the same, against a durable copy", Unit::Milliseconds, |r| r.push.ms)
            .against("cp + fsync", median(|r| r.copy)),
        line("requests", Unit::Requests, |r| f64::from(r.push.requests)).must(Target::AtMost(1.0)),
        line("body up", Unit::Bytes, |r| r.push.up as f64)
            .against("database", median(|r| r.bytes as f64))
            .must(Target::AtMost(90_000.0)),
        Line::new("W1", "on the wire up, headers included", Unit::Bytes, crossed.up as f64)
            .against("body", counted.push.up as f64)
            .must(Target::AtMost(90_000.0)),
        line("second device, first copy", Unit::Milliseconds, |r| r.first_copy.ms)
            .against("cp + fsync", median(|r| r.copy))
            .aim(Target::AtMost(15.0)),
        line("second device, requests", Unit::Requests, |r| f64::from(r.first_copy.requests))
            .aim(Target::AtMost(1.0)),
        Line::of("W1", "one row, first sync of a new process", Unit::Milliseconds, &cold),
    ])
}

pub(crate) fn far(stage: &mut Stage) -> Result<Vec<Line>> {
    let mut client = Client::start()?;
    let slow = stage.slow.address;
    let all: Vec<Repetition> =
        (0..stage.times(9)).map(|_| repeat(stage, &mut client, slow)).collect::<Result<_>>()?;
    let times = column(&all, |r| r.push.ms);
    let requests = column(&all, |r| f64::from(r.push.requests));
    Ok(vec![
        Line::of("W6", "W1 with 50 ms for each request", Unit::Milliseconds, &times)
            .against("one request", 50.0)
            .must(Target::AtMost(65.0)),
        Line::of("W6", "requests", Unit::Requests, &requests).must(Target::AtMost(1.0)),
    ])
}
