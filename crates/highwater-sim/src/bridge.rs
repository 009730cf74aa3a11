//! How a client, whose calls block a thread, lives in a world of tasks: in lock-step. While the client computes, the
//! world stands still; when it sends a request or pauses, the world goes on and answers it in its own time.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use highwater::SyncOutcome;
use highwater::simulation::{Answered, Asked, Unanswered};

use crate::dice::Dice;
use crate::servers::{Answer, unanswered};
use crate::world::{World, lock};

/// A client computes for no longer than this, in real time.
const HUNG: Duration = Duration::from_secs(60);

/// What a client wants of the world.
#[derive(Debug)]
pub enum Call {
    /// A request, and where the answer goes.
    Exchange(Box<Asked>, SyncSender<Answer>),
    /// A pause, and whom to tell that it is over.
    Pause(Duration, SyncSender<()>),
    /// The sync is over.
    Done(Box<highwater::Result<SyncOutcome>>),
}

/// The client's side.
#[derive(Debug)]
pub struct Bridge {
    world: Arc<World>,
    began: Instant,
    calls: Mutex<Sender<Call>>,
    chances: Mutex<Dice>,
}

/// The world's side.
#[derive(Debug)]
pub struct Calls(Receiver<Call>);

/// Both sides, for a device.
#[must_use]
pub fn bridge(world: &Arc<World>, device: u64) -> (Arc<Bridge>, Calls) {
    let (calls, receiver) = channel();
    let chances = Mutex::new(Dice::of(world.plan.seed, &format!("chances of device {device}")));
    let bridge =
        Bridge { world: Arc::clone(world), began: Instant::now(), calls: Mutex::new(calls), chances };
    (Arc::new(bridge), Calls(receiver))
}

impl Bridge {
    /// Tells that a sync is over.
    pub fn done(&self, result: highwater::Result<SyncOutcome>) {
        self.call(Call::Done(Box::new(result)));
    }

    fn call(&self, call: Call) {
        // A world that has ended asks for nothing.
        let _ = lock(&self.calls).send(call);
    }
}

impl Calls {
    /// Lets the client compute until it wants something.
    ///
    /// # Errors
    /// When it does not come to anything.
    pub fn next(&self) -> Result<Call> {
        match self.0.recv_timeout(HUNG) {
            Ok(call) => Ok(call),
            Err(RecvTimeoutError::Timeout) => bail!("the client hangs: it computed for {} s", HUNG.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("the client is gone"),
        }
    }
}

impl highwater::simulation::World for Bridge {
    fn exchange(&self, asked: Asked) -> std::result::Result<Answered, Unanswered> {
        let (sender, answer) = sync_channel(1);
        self.call(Call::Exchange(Box::new(asked), sender));
        answer.recv().unwrap_or_else(|_| Err(unanswered("the world has ended", true)))
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.world.now_ms())
    }

    fn pause(&self, time: Duration) {
        let (sender, over) = sync_channel(1);
        self.call(Call::Pause(time, sender));
        // A world that has ended lets nobody wait.
        let _ = over.recv();
    }

    fn chance(&self) -> u8 {
        lock(&self.chances).roll().to_le_bytes()[0]
    }
}
