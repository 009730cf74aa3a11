//! What everybody in a run shares: time, the trace, and what goes wrong.
//!
//! Time is tokio's, which stands still while anybody works and moves on when everybody waits. Nobody wakes up at the same
//! millisecond as another ([`World::sleep`]), so there is always one who acts, and the order does not depend
//! on how fast threads are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use twox_hash::XxHash3_64;

use crate::dice::Dice;
use crate::faults::{Fault, Layer};
use crate::history::{Event, History};
use crate::plan::Plan;

/// When the servers' clock begins: 2030.
const BEGINNING: u64 = 1_893_456_000;

/// What everybody in a run shares.
#[derive(Debug)]
pub struct World {
    /// What the run is to be.
    pub plan: Plan,
    start: Instant,
    /// The thread that everything runs on, but for clients and the servers' blocking work.
    thread: ThreadId,
    now_ms: AtomicU64,
    wakes: Mutex<BTreeSet<u64>>,
    trace: Mutex<Vec<(u64, String)>>,
    counts: Mutex<BTreeMap<Fault, u64>>,
    occasions: Mutex<BTreeMap<String, u64>>,
    history: Mutex<(History, usize)>,
    /// No more faults.
    calm: AtomicBool,
    /// The store does not work.
    pub outage: AtomicBool,
    clock_ms: AtomicI64,
    /// Requests that arrive some time.
    pub late: AtomicU64,
    /// What servers did that they must not.
    wrong: Mutex<Vec<String>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A world at its beginning. To be called on the thread that everything is to run on.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            start: Instant::now(),
            thread: std::thread::current().id(),
            now_ms: AtomicU64::new(0),
            wakes: Mutex::default(),
            trace: Mutex::default(),
            counts: Mutex::default(),
            occasions: Mutex::default(),
            history: Mutex::default(),
            calm: AtomicBool::new(false),
            outage: AtomicBool::new(false),
            clock_ms: AtomicI64::new(0),
            late: AtomicU64::new(0),
            wrong: Mutex::default(),
        }
    }

    /// Milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    /// Whether this is the thread on which waiting lets time pass.
    pub(crate) fn can_wait(&self) -> bool {
        std::thread::current().id() == self.thread
    }

    /// Waits so many milliseconds, or a few more if somebody else wakes up then.
    pub async fn sleep(&self, ms: u64) {
        let wake = {
            let mut wakes = lock(&self.wakes);
            let mut wake = self.now_ms() + ms.max(1);
            while !wakes.insert(wake) {
                wake += 1;
            }
            wake
        };
        tokio::time::sleep_until(self.start + Duration::from_millis(wake)).await;
        self.now_ms.fetch_max(wake, Ordering::SeqCst);
    }

    /// Numbers for the next occasion of this kind.
    pub(crate) fn dice(&self, purpose: &str) -> Dice {
        let mut occasions = lock(&self.occasions);
        let occasion = occasions.entry(purpose.to_owned()).or_default();
        *occasion += 1;
        Dice::of(self.plan.seed, &format!("{purpose} {occasion}"))
    }

    /// Notes what happened.
    pub fn say(&self, what: impl Into<String>) {
        lock(&self.trace).push((self.now_ms(), what.into()));
    }

    /// Whether this fault happens on this occasion.
    pub fn strikes(&self, fault: Fault, dice: &mut Dice) -> bool {
        let permille = self.plan.faults.get(&fault).copied().unwrap_or(0);
        // Always rolled, so that a run without one kind of fault is else as alike as can be.
        let strikes = dice.permille(permille) && !self.calm.load(Ordering::SeqCst);
        if strikes {
            self.count(fault);
        }
        strikes
    }

    /// The fault of this layer that happens on this occasion, if one does.
    pub fn draw(&self, layer: Layer, dice: &mut Dice) -> Option<Fault> {
        let of_layer = Fault::TABLE.iter().filter(|kind| kind.layer == layer);
        let drawn: Vec<_> = of_layer.filter(|kind| self.strikes(kind.fault, dice)).collect();
        drawn.first().map(|kind| kind.fault)
    }

    fn count(&self, fault: Fault) {
        *lock(&self.counts).entry(fault).or_default() += 1;
    }

    /// How often which fault happened.
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        lock(&self.counts).clone()
    }

    /// No more faults from here on.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
        self.outage.store(false, Ordering::SeqCst);
    }

    /// Whether there are no more faults.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// The servers' clock.
    pub fn clock(&self) -> SystemTime {
        let ahead = self.clock_ms.load(Ordering::SeqCst);
        let since = (BEGINNING * 1000 + self.now_ms()).saturating_add_signed(ahead);
        UNIX_EPOCH + Duration::from_millis(since)
    }

    /// Sets the servers' clock forward or back.
    pub fn jump(&self, seconds: i64) {
        self.clock_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// Takes an event into the history.
    ///
    /// # Errors
    /// When it breaks a rule.
    pub fn note(&self, event: &Event) -> anyhow::Result<()> {
        let mut history = lock(&self.history);
        history.1 += 1;
        history.0.add(event).map_err(|violation| anyhow::anyhow!("{violation}"))
    }

    /// Notes that a server did what it must not.
    pub fn wrong(&self, what: String) {
        lock(&self.wrong).push(what);
    }

    /// The first thing that a server did and must not.
    pub fn first_wrong(&self) -> Option<String> {
        lock(&self.wrong).first().cloned()
    }

    /// How many events the history has.
    pub fn events(&self) -> usize {
        lock(&self.history).1
    }

    /// What happened, in order; and what does it in one number.
    pub fn trace(&self) -> (Vec<String>, u64) {
        let mut trace = lock(&self.trace).clone();
        // Within one moment the work of several threads may be noted in any order.
        trace.sort();
        let lines: Vec<String> = trace
            .iter()
            .map(|(ms, what)| format!("{:>9.3} {what}", std::time::Duration::from_millis(*ms).as_secs_f64()))
            .collect();
        let hash = XxHash3_64::oneshot(lines.join("\n").as_bytes());
        (lines, hash)
    }
}
