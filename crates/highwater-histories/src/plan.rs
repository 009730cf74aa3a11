//! What happens in one history: decided by its seed alone, so that it can be repeated and cut down.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use highwater_wire::MergePolicy;

use crate::dice::Dice;
use crate::schema::Feature;

/// How large histories are.
#[derive(Debug, Clone)]
pub struct Size {
    /// How many devices.
    pub devices: RangeInclusive<usize>,
    /// How many steps, at most.
    pub steps: usize,
    /// Of a hundred syncs, so many are killed or meet a server that is.
    pub kills: usize,
    /// Whether some of the devices are libSQL's.
    pub libsql: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self { devices: 2..=5, steps: 30, kills: 0, libsql: false }
    }
}

/// What becomes of one request of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It never arrives.
    Lost,
    /// It arrives; of the answer only so many bytes, in thousandths of it.
    AnswerCut(usize),
    /// It arrives twice; the second answer arrives.
    Twice,
    /// It arrives some steps later, when nobody waits for it any more.
    Late,
}

/// When the application commits while a request is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the server has it.
    BeforeServer,
    /// After the server answered, before the device hears of it.
    AfterServer,
}

/// Who dies during a sync, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// The client's process, at the n-th named step that it passes.
    Step(u32),
    /// The client's process, when a request is there.
    Moment(Moment),
    /// The client's process, after so many microseconds.
    After(u64),
    /// The server's process, at the n-th named step that it passes; it is started again after the sync.
    Server(u32),
    /// The server is stopped and started again before the sync.
    Restart,
}

/// What the application commits during a sync.
#[derive(Debug, Clone)]
pub struct Commit {
    /// During which request of the sync, counted from 0. No two are during one.
    pub request: usize,
    /// When during that.
    pub moment: Moment,
    /// A seed for each statement.
    pub seeds: Vec<u64>,
}

/// What else happens during a sync.
#[derive(Debug, Clone, Default)]
pub struct Trouble {
    /// Who dies. Then there is no other trouble.
    pub kill: Option<Kill>,
    /// Which request of the sync the fault, or the death, is about, counted from 0.
    pub request: usize,
    /// What becomes of it.
    pub fault: Option<Fault>,
    /// What the application commits meanwhile, in the order of the requests.
    pub commits: Vec<Commit>,
}

/// What a device finds beside a database that was restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// The metadata of the time of the backup.
    Old,
    /// The metadata of now.
    New,
    /// Nothing.
    Nothing,
}

/// One step. Seeds stand for choices that depend on what is in the database by then.
#[derive(Debug, Clone)]
pub enum Action {
    /// One transaction; a seed for each statement.
    Write(Vec<u64>),
    /// A change of the schema.
    Schema(u64),
    /// VACUUM.
    Vacuum,
    /// The application closes its connection and opens another one.
    Reopen,
    /// A sync.
    Sync(Trouble),
    /// A copy of the file is put aside, if the device is in sync.
    Backup,
    /// The copy comes back.
    Restore(Beside),
    /// Late requests arrive now.
    Deliver,
}

/// A step and who takes it.
#[derive(Debug, Clone)]
pub struct Step {
    /// The device, counted from 0.
    pub device: usize,
    /// What it does.
    pub action: Action,
}

/// A whole history.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it all comes from.
    pub seed: u64,
    /// How many devices.
    pub devices: usize,
    /// Bytes.
    pub page_size: u32,
    /// Who wins.
    pub policy: MergePolicy,
    /// Which server of the lab: they differ in how often they begin a new generation.
    pub server: usize,
    /// What is in the schema.
    pub features: Vec<Feature>,
    /// Whether ids of deleted rows are used again, so that an id does not tell rows apart.
    pub reuse_ids: bool,
    /// Devices that are libSQL's: neither backups nor VACUUM there, and no commits during a sync.
    pub libsql: BTreeSet<usize>,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The history of a seed.
    #[must_use]
    pub fn new(seed: u64, size: &Size) -> Self {
        let mut dice = Dice::new(seed);
        let devices = dice.between(*size.devices.start(), *size.devices.end());
        let page_size = [512, 1024, 1024, 4096].get(dice.below(4)).copied().unwrap_or(4096);
        let policy = if dice.chance(70) { MergePolicy::LastPushWins } else { MergePolicy::FirstPushWins };
        let server = dice.below(crate::lab::SERVERS);
        let features = Feature::some(&mut dice);
        let reuse_ids = dice.chance(15);
        let schema = if dice.chance(50) { 6 } else { 0 };
        let vacuum = if dice.chance(25) { 2 } else { 0 };
        let restore = if dice.chance(25) { 4 } else { 0 };
        let late = if dice.chance(25) { 4 } else { 0 };
        let count = dice.between(size.steps / 3, size.steps);
        let mut plan = Self {
            seed,
            devices,
            page_size,
            policy,
            server,
            features,
            reuse_ids,
            libsql: BTreeSet::new(),
            steps: Vec::new(),
        };
        plan.steps.push(Step { device: 0, action: Action::Write((0..8).map(|_| dice.roll()).collect()) });
        plan.steps
            .extend((0..devices).map(|device| Step { device, action: Action::Sync(Trouble::default()) }));
        for _ in 0..count {
            let device = dice.below(devices);
            let action = match dice.weighted(&[45, 40, schema, vacuum, 2, restore, restore, late]) {
                0 => Action::Write(statements(&mut dice)),
                // Where ids tell nothing, what the server took in can only be told of undisturbed syncs.
                1 if reuse_ids => Action::Sync(Trouble::default()),
                1 => Action::Sync(trouble(&mut dice, late > 0)),
                2 => Action::Schema(dice.roll()),
                3 => Action::Vacuum,
                4 => Action::Reopen,
                5 => Action::Backup,
                6 => Action::Restore(
                    [Beside::Old, Beside::New, Beside::Nothing]
                        .get(dice.below(3))
                        .copied()
                        .unwrap_or(Beside::Old),
                ),
                _ => Action::Deliver,
            };
            plan.steps.push(Step { device, action });
        }
        // Dice of their own: what is added here leaves the rest of a seed's history as it was.
        plan.with_second_commits(&mut Dice::new(seed.rotate_left(32)));
        let mut dice = Dice::new(!seed);
        if size.libsql {
            plan.with_libsql(&mut dice);
        }
        if size.kills > 0 {
            plan.with_kills(size.kills, &mut dice);
        }
        plan
    }

    /// An application that does not wait for a sync commits again, during a later request: then what it commits is rebased.
    fn with_second_commits(&mut self, dice: &mut Dice) {
        for step in &mut self.steps {
            let Action::Sync(Trouble { commits, .. }) = &mut step.action else { continue };
            if let Some(first) = commits.first().map(|commit| commit.request)
                && dice.chance(50)
            {
                let moment = moment(dice);
                commits.push(Commit { request: first + dice.between(1, 2), moment, seeds: statements(dice) });
            }
        }
    }

    /// Some devices become libSQL's; the first one never, since it makes the schema.
    fn with_libsql(&mut self, dice: &mut Dice) {
        self.libsql.extend((1..self.devices).filter(|_| dice.chance(50)));
        if self.libsql.is_empty() && self.devices > 1 {
            self.libsql.insert(1);
        }
        self.page_size = 4096;
        // Their requests name no policy.
        self.policy = crate::lab::policy(self.server);
        let libsql = &self.libsql;
        self.steps.retain(|step| {
            let native = !libsql.contains(&step.device);
            native || !matches!(step.action, Action::Vacuum | Action::Backup | Action::Restore(_))
        });
        for step in &mut self.steps {
            if let Action::Sync(trouble) = &mut step.action
                && self.libsql.contains(&step.device)
            {
                trouble.commits.clear();
                if trouble.fault == Some(Fault::Late) {
                    trouble.fault = Some(Fault::Lost);
                }
            }
        }
    }

    fn with_kills(&mut self, share: usize, dice: &mut Dice) {
        let first = self.devices + 1;
        for step in self.steps.iter_mut().skip(first) {
            let Action::Sync(trouble) = &mut step.action else { continue };
            if !dice.chance(share) || self.reuse_ids {
                continue;
            }
            let moment = moment(dice);
            let steps = u32::try_from(dice.between(1, 16)).unwrap_or(1);
            let kill = match dice.weighted(&[40, 20, 15, 20, 5]) {
                0 if self.libsql.contains(&step.device) => Kill::After(u64::from(steps) * 400),
                0 => Kill::Step(steps),
                1 => Kill::Moment(moment),
                2 => Kill::After(u64::try_from(dice.between(500, 15_000)).unwrap_or(500)),
                3 => Kill::Server(steps),
                _ => Kill::Restart,
            };
            *trouble =
                Trouble { kill: Some(kill), request: trouble.request, fault: None, commits: Vec::new() };
        }
    }

    /// The history with only what is selected.
    #[must_use]
    pub fn cut_to(mut self, selection: &Selection) -> Self {
        let Some(units) = &selection.0 else { return self };
        let steps = std::mem::take(&mut self.steps);
        for (at, mut step) in steps.into_iter().enumerate() {
            let mut part = 0;
            let mut keep = |seeds: &mut Vec<u64>| {
                seeds.retain(|_| {
                    part += 1;
                    units.contains(&(at, part))
                });
                !seeds.is_empty()
            };
            let kept = match &mut step.action {
                Action::Write(seeds) => keep(seeds),
                Action::Sync(trouble) => {
                    if !units.contains(&(at, TROUBLE)) {
                        (trouble.fault, trouble.kill) = (None, None);
                    }
                    trouble.commits.retain_mut(|commit| keep(&mut commit.seeds));
                    units.contains(&(at, 0))
                }
                _ => units.contains(&(at, 0)),
            };
            if kept {
                self.steps.push(step);
            }
        }
        self
    }

    /// Everything that can be left out of it.
    #[must_use]
    pub fn units(&self) -> BTreeSet<Unit> {
        let mut units = BTreeSet::new();
        for (at, step) in self.steps.iter().enumerate() {
            let parts = match &step.action {
                Action::Write(seeds) => seeds.len(),
                Action::Sync(trouble) => {
                    if trouble.fault.is_some() || trouble.kill.is_some() {
                        units.insert((at, TROUBLE));
                    }
                    trouble.commits.iter().map(|commit| commit.seeds.len()).sum()
                }
                _ => 0,
            };
            if !matches!(step.action, Action::Write(_)) {
                units.insert((at, 0));
            }
            units.extend((1..=parts).map(|part| (at, part)));
        }
        units
    }
}

fn statements(dice: &mut Dice) -> Vec<u64> {
    let count = if dice.chance(60) { dice.between(1, 4) } else { dice.between(1, 20) };
    (0..count).map(|_| dice.roll()).collect()
}

fn trouble(dice: &mut Dice, late: bool) -> Trouble {
    let fault = dice.chance(25).then(|| match dice.weighted(&[20, 40, 20, 10, if late { 30 } else { 0 }]) {
        0 => Fault::Lost,
        1 => Fault::AnswerCut(0),
        2 => Fault::AnswerCut(dice.below(1000)),
        3 => Fault::Twice,
        _ => Fault::Late,
    });
    let commit = dice.chance(15).then(|| (moment(dice), statements(dice)));
    let request = dice.weighted(&[75, 20, 5]);
    let commits = commit.map(|(moment, seeds)| Commit { request, moment, seeds });
    Trouble { kill: None, request, fault, commits: commits.into_iter().collect() }
}

fn moment(dice: &mut Dice) -> Moment {
    if dice.chance(50) { Moment::BeforeServer } else { Moment::AfterServer }
}

/// A step's number, and which part of it: 0 the step itself, 1… its statements.
pub type Unit = (usize, usize);

/// The part of a sync that is its fault.
const TROUBLE: usize = 99;

/// What of a history is carried out: `0.1,0.2,3.0`. All of it when there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection(pub Option<BTreeSet<Unit>>);

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(units) = &self.0 else { return f.write_str("all") };
        let texts: Vec<String> = units.iter().map(|(step, part)| format!("{step}.{part}")).collect();
        f.write_str(&texts.join(","))
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(None));
        }
        let unit = |text: &str| {
            let (step, part) = text.split_once('.')?;
            Some((step.parse().ok()?, part.parse().ok()?))
        };
        let units: Option<BTreeSet<Unit>> = text.split(',').map(unit).collect();
        units.map(|units| Self(Some(units))).ok_or_else(|| format!("{text:?} is not like 0.1,0.2,3.0"))
    }
}
