//! W7: two devices write, 100 updates at random places each; the one that syncs second is merged. In a database of
//! 1 GB and in one of 10 MB: the cost has to follow the change.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::client::{Client, Synced};
use crate::data::{self, LONG};
use crate::measure::median;
use crate::report::{Line, Target, Unit};
use crate::stage::Stage;

const UPDATES: u64 = 100;

/// What merging in a database of one size cost.
struct Cost {
    merges: Vec<Synced>,
    /// Reads of the store in each.
    reads: Vec<f64>,
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn run(stage: &mut Stage) -> Result<Vec<Line>> {
    let small = merges(stage, "small", 10_000_000)?;
    let large = merges(stage, "large", stage.amount(1_000_000_000))?;
    let ms = |cost: &Cost| -> Vec<f64> { cost.merges.iter().map(|merge| merge.ms).collect() };
    let up = |cost: &Cost| -> Vec<f64> { cost.merges.iter().map(|merge| merge.up as f64).collect() };
    let down = |cost: &Cost| -> Vec<f64> { cost.merges.iter().map(|merge| merge.down as f64).collect() };
    let line = |what: &str, unit, values: &[f64]| Line::of("W7", what, unit, values);
    Ok(vec![
        line("merging 100 updates with 100 others, 10 MB", Unit::Milliseconds, &ms(&small)),
        line("the same, 1 GB", Unit::Milliseconds, &ms(&large))
            .against("10 MB", median(&ms(&small)))
            .must(Target::RatioAtMost(3.0)),
        line("reads of the store for it, 1 GB", Unit::Reads, &large.reads)
            .against("10 MB", median(&small.reads)),
        line("body up, 1 GB", Unit::Bytes, &up(&large)).against("10 MB", median(&up(&small))),
        line("body down, 1 GB", Unit::Bytes, &down(&large)).against("10 MB", median(&down(&small))),
    ])
}

fn merges(stage: &mut Stage, file: &str, bytes: u64) -> Result<Cost> {
    let name = stage.fresh();
    let url = stage.url(&name);
    let (path, second) =
        (stage.path(&format!("merge-{file}.db")), stage.path(&format!("merge-{file}-second.db")));
    data::make(&path, bytes, LONG, &mut stage.random)?;
    let (mut client, mut other) = (Client::start()?, Client::start()?);
    client.sync(&path, &url)?;
    other.sync(&second, &url)?;
    let (one, two) = (data::connect(&path)?, data::connect(&second)?);
    let (mut merges, mut reads) = (Vec::new(), Vec::new());
    for repetition in 0..=stage.times(9) {
        data::update(&one, UPDATES, LONG, &mut stage.random)?;
        data::update(&two, UPDATES, LONG, &mut stage.random)?;
        client.sync(&path, &url)?;
        let before = store_reads(stage.server.address)?;
        let merge = other.sync(&second, &url)?;
        let after = store_reads(stage.server.address)?;
        client.sync(&path, &url)?;
        if repetition > 0 {
            merges.push(merge);
            reads.push(after - before);
        }
    }
    drop((one, two));
    stage.forget(&name);
    for path in [path, second] {
        remove(&path);
    }
    Ok(Cost { merges, reads })
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-info", "-sums", "-lock"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::remove_file(name);
    }
}

/// How often the server read from its store so far.
fn store_reads(server: SocketAddr) -> Result<f64> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line =
        text.lines().find(|line| line.starts_with("highwater_store_seconds_count{operation=\"read\"}"));
    let value =
        line.and_then(|line| line.rsplit(' ').next()).context("the server does not tell its reads")?;
    Ok(value.trim().parse()?)
}
