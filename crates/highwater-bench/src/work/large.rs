//! W4: the first push and the first copy of 1 GB, each by a client process of its own, and what the
//! processes need for it.

use anyhow::Result;

use crate::baseline;
use crate::client::Client;
use crate::measure::median;
use crate::report::{Line, Target, Unit};
use crate::server::Server;
use crate::stage::{Stage, size_of};

/// What memory each process may take, in bytes: now, and in the end.
const MEMORY: f64 = 128.0 * 1024.0 * 1024.0;

#[derive(Debug, Default)]
struct Half {
    times: Vec<f64>,
    requests: Vec<f64>,
    bytes: Vec<f64>,
    client_memory: Vec<f64>,
    server_memory: Vec<f64>,
    client_cpu: Vec<f64>,
    server_cpu: Vec<f64>,
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn run(stage: &mut Stage) -> Result<Vec<Line>> {
    let (mut push, mut copy) = (Half::default(), Half::default());
    let (mut copies, mut stored, mut beside, mut bytes) = (Vec::new(), 0, 0, 0);
    for _ in 0..stage.times(5) {
        let large = stage.large()?;
        bytes = large.bytes;
        // A server of its own, which has no other database in memory.
        let store = stage.path("large-store");
        let mut server = Server::start(&store)?;
        copies.push(baseline::copy(&large.path, &stage.path("copy"))?);
        one(&mut server, &mut push, &large.path)?;
        copies.push(baseline::copy(&large.path, &stage.path("copy"))?);
        let second = stage.path("second.db");
        one(&mut server, &mut copy, &second)?;
        drop(server);
        stored = size_of(&store)?;
        beside = 0;
        for suffix in ["-info", "-sums", "-lock", "-wal", "-shm"] {
            let path = stage.path(&format!("second.db{suffix}"));
            beside += path.metadata().map_or(0, |file| file.len());
            let _ = std::fs::remove_file(path);
        }
        std::fs::remove_file(second)?;
        std::fs::remove_dir_all(store)?;
    }
    let floor = median(&copies);
    let size = bytes as f64;
    let mut lines = half("first push of 1 GB", &push, floor, size);
    lines.extend(half("first copy of 1 GB", &copy, floor, size));
    lines.push(Line::new("W4", "server's disk", Unit::Bytes, stored as f64).against("database", size));
    lines.push(
        Line::new("W4", "client's disk, the database and all beside it", Unit::Bytes, size + beside as f64)
            .against("database", size)
            .aim(Target::RatioAtMost(1.01)),
    );
    Ok(lines)
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn one(server: &mut Server, half: &mut Half, path: &std::path::Path) -> Result<()> {
    let before = server.usage()?;
    let mut client = Client::start()?;
    let synced = client.sync(path, &format!("http://{}/large", server.address))?;
    let (here, there) = (client.usage()?, server.usage()?);
    half.times.push(synced.ms);
    half.requests.push(f64::from(synced.requests));
    half.bytes.push((synced.up + synced.down) as f64);
    half.client_memory.push(here.peak as f64);
    half.server_memory.push(there.peak as f64);
    half.client_cpu.push(here.cpu_ms as f64);
    half.server_cpu.push((there.cpu_ms - before.cpu_ms) as f64);
    Ok(())
}

fn half(what: &str, half: &Half, floor: f64, size: f64) -> Vec<Line> {
    let line = |part: &str, unit, values: &[f64]| Line::of("W4", format!("{what}{part}"), unit, values);
    let peak = |values: &[f64]| crate::measure::range(values).1;
    let memory = |part: &str, values: &[f64]| {
        Line::new("W4", format!("{what}, most memory of the {part}"), Unit::Bytes, peak(values))
            .must(Target::AtMost(MEMORY))
    };
    vec![
        line("", Unit::Milliseconds, &half.times).against("cp + fsync", floor).must(Target::RatioAtMost(3.0)),
        line(", the aim", Unit::Milliseconds, &half.times).aim(Target::AtMost(2000.0)),
        line(", requests", Unit::Requests, &half.requests),
        line(", body", Unit::Bytes, &half.bytes).against("database", size),
        memory("client", &half.client_memory),
        memory("server", &half.server_memory),
        line(", processor time of the client", Unit::Milliseconds, &half.client_cpu)
            .against("cp + fsync", floor),
        line(", processor time of the server", Unit::Milliseconds, &half.server_cpu)
            .against("cp + fsync", floor),
    ]
}
