//! `highwater-soak`: real processes on a bad network, for as long as it is told.
//!
//! Some devices, each with a SQLite file, write to one database. Beside every writer a checkpointer of its
//! own truncates the log, and a reader looks whether half a transaction is visible. `highwater sync`
//! runs again and again, through a proxy that breaks connections; some syncs and servers are killed, other
//! servers end in good order. In the end the network is quiet, and all files, the store as `litestream restore` sees it,
//! and what the devices remember of their own writes must be the same, row by row.
//!
//! Ceilings: memory and file descriptors of servers and syncs, and the size of every write-ahead log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test, although it is a program"
)]

mod device;
mod libsql;
mod measure;
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use highwater_chaos::{Faults, Proxy, Random};

use device::Device;
use measure::Peaks;
use server::Served;

#[derive(Debug, Parser)]
#[command(about = "Real processes on a bad network, for as long as it is told")]
struct Arguments {
    /// For how long things are bad
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The command `highwater`
    #[arg(long, env = "HIGHWATER_BIN", default_value = "target/debug/highwater")]
    highwater: PathBuf,
    /// How many devices write
    #[arg(long, default_value_t = 3)]
    devices: usize,
    /// Chooses what happens when; threads and disks have their say, too
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The real litestream restores the store in the end
    #[arg(long, env = "HIGHWATER_LITESTREAM")]
    litestream: Option<PathBuf>,
    /// A program of interop/clients: a libSQL client writes, too
    #[arg(long)]
    libsql: Option<PathBuf>,
    /// Files stay here; else in a temporary folder, which is kept when something is wrong
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What must not be exceeded.
const MEMORY: u64 = 512 << 20;
const DESCRIPTORS: u64 = 300;
const LOG: u64 = 64 << 20;
/// How long every device has in the end.
const HEALING: Duration = Duration::from_secs(60);

/// How bad the network is, in turns. `flips`: bits may be others when they arrive; libSQL's protocol has nothing against that.
fn weather(random: &mut Random, flips: bool) -> Faults {
    let ms = Duration::from_millis;
    let mut faults = Faults { within: 8_000, ..Faults::default() };
    match random.below(8) {
        0 => {}
        1 => (faults.delay, faults.jitter) = (ms(20), ms(60)),
        2 => (faults.reset, faults.half_close) = (0.2, 0.1),
        3 => (faults.bandwidth, faults.reset) = (Some(200_000), 0.05),
        4 => (faults.blackhole, faults.jitter) = (0.1, ms(20)),
        5 => (faults.reset, faults.delay) = (0.5, ms(5)),
        6 if flips => faults.corrupt = 0.5,
        // Where a request or an answer says what it is.
        7 if flips => (faults.corrupt, faults.within) = (0.5, 800),
        _ => {}
    }
    faults
}

fn main() -> Result<()> {
    let given = Arguments::parse();
    let kept = match &given.folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            folder.clone()
        }
        None => tempfile::Builder::new().prefix("highwater-soak-").tempdir()?.keep(),
    };
    println!("seed {}, files in {}", given.seed, kept.display());
    soak(&given, &kept).with_context(|| format!("see the files in {}", kept.display()))?;
    if given.folder.is_none() {
        std::fs::remove_dir_all(&kept)?;
    }
    Ok(())
}

fn soak(given: &Arguments, folder: &Path) -> Result<()> {
    let mut random = Random::new(given.seed);
    let store = folder.join("store");
    let mut served = Served::start(&given.highwater, &store, folder)?;
    let proxy = Proxy::start(([127, 0, 0, 1], 0).into(), served.addr(), Faults::default(), random.next())?;
    let url = format!("http://{}/soak", proxy.addr());
    let peaks = Arc::new(Peaks::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut devices = Vec::new();
    for number in 0..given.devices {
        let device = Device::new(number, folder, &given.highwater, &url, Arc::clone(&peaks))?;
        devices.push(Arc::new(device));
    }
    let mut threads = Vec::new();
    for device in &devices {
        threads.extend(device.run(&stop, random.next()));
    }
    let libsql = match &given.libsql {
        Some(program) => Some(libsql::Client::start(program, folder, &url)?),
        None => None,
    };
    let libsql = libsql.map(|client| client.run(Arc::clone(&stop)));
    let until = Instant::now() + Duration::from_secs_f64(given.minutes * 60.0);
    let (mut kills, mut restarts) = (0, 0);
    while Instant::now() < until && !threads.iter().any(std::thread::JoinHandle::is_finished) {
        proxy.set(weather(&mut random, given.libsql.is_none()));
        std::thread::sleep(Duration::from_millis(500 + random.below(3_000)));
        peaks.server(served.id());
        match random.below(4) {
            0 => {
                served.kill()?;
                kills += 1;
                served.again()?;
            }
            1 => {
                served.stop()?;
                restarts += 1;
                served.again()?;
            }
            _ => {}
        }
    }
    stop.store(true, Ordering::SeqCst);
    proxy.set(Faults::default());
    for thread in threads {
        thread.join().map_err(|panic| anyhow::anyhow!("a device failed: {}", said(&*panic)))??;
    }
    let libsql =
        libsql.map(|thread| thread.join().map_err(|panic| anyhow::anyhow!(said(&*panic)))).transpose()?;
    let libsql = libsql.transpose()?;
    heal(&devices, &libsql)?;
    println!("{}", proxy.counts().summary());
    println!("{kills} servers killed, {restarts} restarted; {}", device::summary(&devices));
    served.stop()?;
    finish(given, folder, &devices)?;
    peaks.check(MEMORY, DESCRIPTORS, LOG)
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

/// On a quiet network everybody gets through, and has what everybody wrote.
fn heal(devices: &[Arc<Device>], libsql: &Option<libsql::Client>) -> Result<()> {
    let began = Instant::now();
    // The second round brings what the first one collected.
    for _ in 0..2 {
        for device in devices {
            device.sync_in_the_end(HEALING)?;
        }
    }
    println!("all devices were through after {:.1?}", began.elapsed());
    for device in devices {
        for writer in devices {
            device.has_all_of(writer)?;
        }
        if let Some(client) = libsql {
            device.has_rows(libsql::WRITER, client.acknowledged())?;
        }
        device::same(&devices[0].path, &device.path)?;
    }
    Ok(())
}

/// The store is whole, and litestream makes the same database of it.
fn finish(given: &Arguments, folder: &Path, devices: &[Arc<Device>]) -> Result<()> {
    let store = folder.join("store");
    let verified = Command::new(&given.highwater).arg("verify").arg(&store).output()?;
    ensure!(verified.status.success(), "the store is damaged: {}", String::from_utf8_lossy(&verified.stdout));
    let Some(litestream) = &given.litestream else {
        println!("without litestream: name its path in HIGHWATER_LITESTREAM");
        return Ok(());
    };
    let out = folder.join("restored.db");
    let replica = format!("file://{}", std::path::absolute(store.join("soak"))?.display());
    let restored = Command::new(litestream).arg("restore").arg("-o").arg(&out).arg(replica).output()?;
    ensure!(restored.status.success(), "litestream: {}", String::from_utf8_lossy(&restored.stderr));
    device::same(&devices[0].path, &out)?;
    println!("litestream restored the same rows");
    Ok(())
}
