//! Lets a machine do its work under the recorder, and keeps what all others had at each moment of it.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::disk::Tree;
use crate::folder::Folder;
use crate::scenario::{Machine, Step};
use crate::trace::Trace;
use crate::world::{Moment, Rows, World};

/// The library that `build.rs` built.
const RECORDER: &str = env!("HIGHWATER_CRASH_RECORDER");

/// What the others were like when the machine had done between so many and so many operations, both included.
#[derive(Debug)]
struct Station {
    from: u64,
    to: u64,
    others: Moment,
}

/// A recorded run.
#[derive(Debug)]
pub(crate) struct Recording {
    machine: Machine,
    /// The machine's folder at its beginning.
    pub(crate) before: Tree,
    pub(crate) trace: Trace,
    stations: Vec<Station>,
}

impl Recording {
    /// The moments that can be when the machine crashes after so many operations: of the others all, of the machine
    /// nothing.
    pub(crate) fn moments(&self, count: usize) -> impl Iterator<Item = &Moment> {
        let trace = &self.trace;
        self.stations
            .iter()
            .filter(move |station| {
                trace.happened(station.from) <= count && count <= trace.happened(station.to)
            })
            .map(|station| &station.others)
    }

    /// The machine that was recorded.
    pub(crate) fn machine(&self) -> Machine {
        self.machine
    }
}

fn command(folder: &Path, records: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program")?);
    command
        .env("LD_PRELOAD", RECORDER)
        .env("HIGHWATER_RECORD_FOLDER", folder)
        .env("HIGHWATER_RECORD_TO", records)
        .stdin(Stdio::null());
    Ok(command)
}

fn length(records: &Path) -> u64 {
    fs::metadata(records).map_or(0, |about| about.len())
}

/// Records a machine from where the world is now.
///
/// # Errors
/// When what is recorded does not go well even without a crash.
pub(crate) fn record(world: &mut World, machine: Machine, during: &[Step]) -> Result<Recording> {
    let records = world.records();
    // The file of the run before.
    let _ = fs::remove_file(&records);
    let before = world.moment()?;
    let own = before.trees.get(&machine).context("the machine's folder")?.clone();
    let stations = match machine {
        Machine::Server => record_server(world, during, &records)?,
        Machine::Device(device) => {
            let own = |step: &Step| matches!(step, Step::Sync(of) | Step::Relaxed(of, _) if *of == device);
            ensure!(during.iter().all(own), "only a device's own syncs are recorded, and what it writes");
            record_device(world, device, during, &before, &records)?
        }
    };
    world.folder(machine)?.keep()?;
    let without = stations.into_iter().map(|mut station| {
        station.others.trees.remove(&machine);
        station
    });
    Ok(Recording { machine, before: own, trace: Trace::read(&records)?, stations: without.collect() })
}

fn record_device(
    world: &mut World,
    device: usize,
    during: &[Step],
    before: &Moment,
    records: &Path,
) -> Result<Vec<Station>> {
    let server = world.serve()?;
    let mut acts = Vec::new();
    let mut relaxed = Rows::new();
    for step in during {
        let Step::Relaxed(_, count) = step else {
            acts.push(vec!["sync".into(), world.db(device)?.into(), world.url().into()]);
            continue;
        };
        let rows = world.new_rows(device, *count)?;
        acts.push(vec!["write".into(), world.db(device)?.into(), serde_json::to_string(&rows)?.into()]);
        relaxed.extend(rows);
    }
    // When the first answer has arrived the server has them, and they must not be lost any more.
    let mut all = before.rows.clone();
    all.extend(relaxed.clone());
    let mut first = Station { from: 0, to: u64::MAX, others: before.clone() };
    first.others.relaxed = (!relaxed.is_empty()).then_some((device, relaxed));
    let stations = Arc::new(Mutex::new(vec![first]));
    let (kept, file) = (Arc::clone(&stations), records.to_path_buf());
    let mut asked_at = 0;
    let store = world.folder(Machine::Server)?.path().to_path_buf();
    world.gate.watch(Some(Box::new(move |answered| {
        if !answered {
            asked_at = length(&file);
            return;
        }
        let mut stations = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = stations.last_mut() else { return };
        let mut others = last.others.clone();
        // A store that cannot be read now would be missed in the proof.
        if let Ok(tree) = Folder::at(&store).read() {
            last.to = length(&file);
            others.trees.insert(Machine::Server, tree);
            (others.rows, others.relaxed) = (all.clone(), None);
            stations.push(Station { from: asked_at, to: u64::MAX, others });
        }
    })));
    for act in acts {
        let mut child = command(world.folder(Machine::Device(device))?.path(), records)?;
        let output =
            child.arg("act").args::<_, OsString>(act).output().context("starting what is recorded")?;
        ensure!(
            output.status.success(),
            "what is recorded failed, without any crash: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    world.gate.watch(None);
    server.stop()?;
    let mut stations = stations.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *stations))
}

fn record_server(world: &mut World, during: &[Step], records: &Path) -> Result<Vec<Station>> {
    let folder = world.folder(Machine::Server)?.path().to_path_buf();
    let mut child = command(&folder, records)?;
    child.args(["act", "serve"]).arg(&folder).arg(world.snapshot_after().to_string());
    let mut server = Running(child.stdout(Stdio::piped()).spawn().context("starting the recorded server")?);
    let mut line = String::new();
    let out = server.0.stdout.take().context("the server's output")?;
    BufReader::new(out).read_line(&mut line).context("the server's address")?;
    world.gate.lead_to(line.trim().parse().context("the server's address")?);
    let mut stations = Vec::new();
    let mut from = 0;
    for step in during {
        let others = matches!(step, Step::Sync(_)).then(|| world.moment()).transpose()?;
        world.step(*step)?;
        // The application's writes are no moments of the server.
        if let Some(others) = others {
            let to = length(records);
            stations.push(Station { from, to, others });
            from = to;
        }
    }
    // What it does beside the pushes comes to its end.
    std::thread::sleep(std::time::Duration::from_millis(300));
    stations.push(Station { from, to: u64::MAX, others: world.moment()? });
    drop(server);
    Ok(stations)
}

/// A process that ends with its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
