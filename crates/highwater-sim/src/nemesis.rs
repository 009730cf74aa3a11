//! What goes wrong now and then, for a while: partitions, crashes, outages, clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use crate::dice::Dice;
use crate::faults::{Fault, Layer};
use crate::servers::Servers;
use crate::world::World;

/// Makes trouble until the world is calm, and then puts right what it did.
///
/// # Errors
/// When a server cannot be started again.
pub async fn trouble(world: &Arc<World>, servers: &Arc<Servers>, cut_off: &[Arc<AtomicBool>]) -> Result<()> {
    let mut dice = Dice::of(world.plan.seed, "nemesis");
    while !world.is_calm() {
        world.sleep(dice.between(10_000, 240_000)).await;
        let Some(fault) = world.draw(Layer::World, &mut dice) else { continue };
        let lasts = dice.between(2_000, 90_000);
        world.say(format!("{fault} begins"));
        match fault {
            Fault::Partition => {
                let devices: Vec<_> = cut_off.iter().filter(|_| dice.permille(600)).collect();
                devices.iter().for_each(|device| device.store(true, Ordering::SeqCst));
                world.sleep(lasts).await;
                devices.iter().for_each(|device| device.store(false, Ordering::SeqCst));
            }
            Fault::Crash => {
                let index = dice.index(servers.count());
                servers.kill(index);
                world.sleep(lasts).await;
                servers.run(index)?;
            }
            Fault::Restart => {
                let index = dice.index(servers.count());
                servers.stop(index).await;
                world.sleep(lasts / 10).await;
                servers.run(index)?;
            }
            Fault::Outage => {
                world.outage.store(true, Ordering::SeqCst);
                world.sleep(lasts).await;
                world.outage.store(false, Ordering::SeqCst);
            }
            Fault::ClockJump => {
                let hours = dice.between(0, 96).cast_signed() - 48;
                world.jump(hours * 3600 + dice.between(0, 3600).cast_signed());
            }
            _ => {}
        }
        world.say(format!("{fault} ends"));
    }
    Ok(())
}
