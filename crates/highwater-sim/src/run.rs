//! One run: the world, everybody in it, and what must hold when it is calm again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};
use highwater_server::verify_store;
use tokio::runtime::Builder;

use crate::device::{Device, state_of};
use crate::faults::Fault;
use crate::nemesis;
use crate::plan::Plan;
use crate::servers::Servers;
use crate::world::World;

/// When there are no more faults, every copy has everything after so many syncs of each device.
const ROUNDS: usize = 3;
/// And in so many milliseconds of the world's time.
const CALM_MS: u64 = 15 * 60 * 1000;

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// What is wrong, in words. None: nothing.
    pub broken: Option<String>,
    /// What happened.
    pub trace: Vec<String>,
    /// The trace in one number.
    pub hash: u64,
    /// How long it was in the world's time, in milliseconds.
    pub ms: u64,
    /// How often which fault happened.
    pub faults: BTreeMap<Fault, u64>,
    /// Events that the history checker saw.
    pub events: usize,
}

/// Runs it.
///
/// # Errors
/// When there is no folder or no runtime: nothing that is the run's.
pub fn run(plan: Plan) -> Result<Ran> {
    let memory = Path::new("/dev/shm");
    let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).context("a folder")?;
    // One thread for what blocks: of two pieces of work that begin in one moment, real time must not say which ends first.
    let runtime =
        Builder::new_current_thread().enable_time().start_paused(true).max_blocking_threads(1).build()?;
    let (world, result) = runtime.block_on(async {
        let world = Arc::new(World::new(plan));
        let result = all(&world, folder.path()).await;
        let result = result.and_then(|()| world.first_wrong().map_or(Ok(()), |wrong| bail!(wrong)));
        (world, result)
    });
    // Who waits for ever for a dead server is not waited for.
    runtime.shutdown_background();
    let (trace, hash) = world.trace();
    Ok(Ran {
        broken: result.err().map(|error| format!("{error:#}")),
        trace,
        hash,
        ms: world.now_ms(),
        faults: world.counts(),
        events: world.events(),
    })
}

async fn all(world: &Arc<World>, folder: &Path) -> Result<()> {
    world.say(describe(&world.plan));
    let servers = Arc::new(Servers::start(world, folder)?);
    let mut devices = Vec::new();
    for number in 1..=world.plan.devices {
        devices.push(Device::new(world, &servers, folder, number)?);
    }
    devices.first_mut().context("a device")?.create()?;
    let cut_off: Vec<_> = devices.iter().map(Device::cut_off).collect();
    let living = async {
        let lives = devices.iter_mut().map(Device::live);
        futures::future::try_join_all(lives).await?;
        while world.late.load(Ordering::SeqCst) > 0 {
            world.sleep(1000).await;
        }
        world.calm_down();
        Ok(())
    };
    futures::future::try_join(living, nemesis::trouble(world, &servers, &cut_off)).await?;
    world.say("calm");
    heal(world, &mut devices).await?;
    compare(world, &servers, &mut devices, folder).await
}

fn describe(plan: &Plan) -> String {
    let workloads: Vec<_> = plan.workloads.iter().map(|workload| workload.name()).collect();
    let faults: Vec<_> = plan.faults.keys().map(ToString::to_string).collect();
    format!(
        "{} devices, {} steps, {} servers, pages of {}, snapshots after {}, staged above {}, workloads {}; faults: {}",
        plan.devices,
        plan.steps,
        plan.servers,
        plan.page_size,
        plan.max_files,
        plan.small_body,
        workloads.join(" "),
        faults.join(" ")
    )
}

/// Every device gets through, and soon they all are the same.
async fn heal(world: &Arc<World>, devices: &mut [Device]) -> Result<()> {
    let began = world.now_ms();
    for round in 1..=ROUNDS {
        let mut states = Vec::new();
        for device in &mut *devices {
            // A token may have ended.
            let mut outcome = device.sync().await?;
            if outcome.is_none() {
                outcome = device.sync().await?;
            }
            let outcome = outcome.with_context(|| format!("device {} gets no token", device.number))?;
            states.push(state_of(&outcome));
        }
        ensure!(
            world.now_ms() - began <= CALM_MS,
            "it takes longer than {} s to come together",
            CALM_MS / 1000
        );
        if states.iter().all(|state| Some(state) == states.first()) {
            world.say(format!(
                "together after {round} rounds: {}",
                states.first().copied().flatten().map(|state| state.to_string()).unwrap_or_default()
            ));
            return Ok(());
        }
    }
    bail!("the copies differ after {ROUNDS} syncs of each device without any fault")
}

/// All copies, one made anew, and the store.
async fn compare(
    world: &Arc<World>,
    servers: &Arc<Servers>,
    devices: &mut Vec<Device>,
    folder: &Path,
) -> Result<()> {
    let number = world.plan.devices + 1;
    let mut fresh = Device::new(world, servers, folder, number)?;
    fresh.sync().await?.context("a new device gets no copy")?;
    devices.push(fresh);
    let first = devices.first().context("a device")?.pages()?;
    for device in &*devices {
        device.look()?;
        ensure!(device.pages()? == first, "the pages of device {} are not those of device 1", device.number);
    }
    let report = verify_store(&servers.store(), |_| ()).await?;
    let faults: Vec<_> = report.databases.iter().flat_map(|database| &database.faults).collect();
    ensure!(faults.is_empty(), "the store is damaged: {faults:?}");
    Ok(())
}
