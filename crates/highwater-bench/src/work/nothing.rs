//! W5: a sync with nothing to do: of 1 GB, of a small database, and a bare round trip, in turns.

use anyhow::Result;

use crate::baseline;
use crate::data::{self, SHORT};
use crate::measure::median;
use crate::report::{Line, Target, Unit};
use crate::stage::Stage;

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn run(stage: &mut Stage) -> Result<Vec<Line>> {
    let (large, mut client, url) = stage.large_in_sync()?;
    // An application that has the file open, with a log that is not empty, is the usual case.
    let connection = data::connect(&large.path)?;
    data::update(&connection, 10, data::LONG, &mut stage.random)?;
    client.sync(&large.path, &url)?;
    let small_name = stage.fresh();
    let (small, small_url) = (stage.path(&format!("{small_name}.db")), stage.url(&small_name));
    let other = data::connect(&small)?;
    data::insert(&other, 10, SHORT, &mut stage.random)?;
    client.sync(&small, &small_url)?;
    let (mut times, mut small_times, mut trips, mut requests) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..stage.times(60) {
        let synced = client.sync(&large.path, &url)?;
        times.push(synced.ms);
        requests.push(f64::from(synced.requests));
        small_times.push(client.sync(&small, &small_url)?.ms);
        // The first two are for the connection.
        trips.extend(baseline::round_trip(stage.server.address, 7)?.into_iter().skip(2));
    }
    let trip = median(&trips);
    // Through the proxy, in another process, whose connection stands already.
    let mut counted = crate::client::Client::start()?;
    let far = small_url.replace(&stage.server.address.to_string(), &stage.counting.address.to_string());
    let second = stage.path(&format!("{small_name}-second.db"));
    counted.sync(&second, &far)?;
    counted.sync(&second, &far)?;
    stage.counting.crossed();
    counted.sync(&second, &far)?;
    let crossed = stage.counting.crossed();
    // The copy itself was pushed and scanned before: only a process that did neither counts.
    let mut fresh = crate::client::Client::start()?;
    let cold = fresh.sync(&large.path, &url)?;
    let memory = fresh.usage()?.peak;
    let excess: Vec<f64> = times.iter().map(|time| time - trip).collect();
    Ok(vec![
        Line::of("W5", "sync of 1 GB with nothing to do", Unit::Milliseconds, &times)
            .against("round trip", trip),
        Line::of("W5", "the same without the round trip", Unit::Milliseconds, &excess)
            .must(Target::AtMost(1.0)),
        Line::of("W5", "the same, against a small database", Unit::Milliseconds, &times)
            .against("small", median(&small_times))
            .must(Target::RatioAtMost(1.5)),
        Line::of("W5", "requests", Unit::Requests, &requests).must(Target::AtMost(1.0)),
        Line::new("W5", "on the wire up, headers included", Unit::Bytes, crossed.up as f64)
            .must(Target::AtMost(999.0)),
        Line::new("W5", "on the wire down, headers included", Unit::Bytes, crossed.down as f64)
            .must(Target::AtMost(999.0)),
        Line::new("W5", "first sync of a new process", Unit::Milliseconds, cold.ms),
        Line::new("W5", "most memory of that client", Unit::Bytes, memory as f64),
    ])
}
