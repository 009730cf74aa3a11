//! Every crash of every scenario: the machine's disk as the crash leaves it, then everybody syncs, then all copies
//! hold what was committed. Recoveries crash, too.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use highwater_histories::Dice;

use crate::disk::{Mode, Tree, after_crash, after_kill_and_crash};
use crate::record::{Recording, record};
use crate::scenario::{Machine, SCENARIOS, Scenario, Step};
use crate::world::{Moment, World};

/// Every so many states, the recovery crashes as well.
const RECOVERY_EVERY: usize = 4;

/// One crash: after so many operations, in which mode, with which of the moments that can be, from which seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub(crate) scenario: &'static str,
    pub(crate) count: usize,
    pub(crate) mode: Mode,
    pub(crate) moment: usize,
    pub(crate) seed: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}/{}", self.scenario, self.count, self.mode.name(), self.moment, self.seed)
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [scenario, count, mode, moment, seed] = parts.as_slice() else {
            bail!("a case is SCENARIO/OPERATIONS/MODE/MOMENT/SEED, not {text:?}");
        };
        let mode = Mode::ALL.into_iter().find(|known| known.name() == *mode);
        Ok(Self {
            scenario: find(scenario)?.name,
            count: count.parse().context("how many operations")?,
            mode: mode.context("the mode is kept, dropped, part or torn")?,
            moment: moment.parse().context("the number of the moment")?,
            seed: seed.parse().context("the seed")?,
        })
    }
}

/// The scenario of this name.
fn find(name: &str) -> Result<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name).with_context(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("there is no scenario {name:?}; there are {}", names.join(", "))
    })
}

/// What came out.
#[derive(Debug, Default)]
pub struct Report {
    /// File operations of the recorded runs.
    pub operations: usize,
    /// States of a disk that were tried.
    pub states: usize,
    /// Recoveries that crashed in their turn.
    pub recoveries: usize,
    /// What went wrong, and the case in which it did.
    pub failures: Vec<(Case, String)>,
}

impl Report {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.states += other.states;
        self.recoveries += other.recoveries;
        self.failures.extend(other.failures);
    }
}

/// One case again, with a crash of its recovery.
///
/// # Errors
/// When the scenario itself does not work.
pub fn replay(case: &Case) -> Result<Report> {
    run_some(find(case.scenario)?, case.seed, Some(case), false)
}

/// All crashes of a scenario, or those up to the first failure.
///
/// # Errors
/// When the scenario itself does not work.
pub fn run(scenario: &'static Scenario, seed: u64, first: bool) -> Result<Report> {
    run_some(scenario, seed, None, first)
}

/// The operations of a scenario, a line each: what lies before it, and each file's number and name.
///
/// # Errors
/// When there is no such scenario, or it does not work.
pub fn list(name: &str) -> Result<Vec<String>> {
    let (_, recording) = play(find(name)?)?;
    let files = recording.before.iter().filter_map(|(path, content)| {
        content.as_ref().map(|content| format!("     {} is {}", path.display(), content.inode.0))
    });
    let operations = recording.trace.operations.iter().enumerate();
    Ok(files.chain(operations.map(|(number, operation)| format!("{:4} {operation}", number + 1))).collect())
}

/// Prepares and records a scenario.
fn play(scenario: &Scenario) -> Result<(World, Recording)> {
    let mut world = World::new(scenario.snapshot_after)?;
    if !scenario.before.is_empty() {
        let server = world.serve()?;
        scenario.before.iter().try_for_each(|step| world.step(*step)).context("preparing")?;
        server.stop()?;
    }
    let recording = record(&mut world, scenario.machine, scenario.during)?;
    Ok((world, recording))
}

fn run_some(scenario: &'static Scenario, seed: u64, only: Option<&Case>, first: bool) -> Result<Report> {
    let (mut world, recording) = play(scenario)?;
    let mut report = Report { operations: recording.trace.operations.len(), ..Report::default() };
    for count in 0..=recording.trace.operations.len() {
        for mode in Mode::ALL {
            for (moment, others) in recording.moments(count).enumerate() {
                let case = Case { scenario: scenario.name, count, mode, moment, seed };
                if only.is_some_and(|only| *only != case) {
                    continue;
                }
                let Some(tree) = recording.after(&case) else { continue };
                if first && !report.failures.is_empty() {
                    return Ok(report);
                }
                report.states += 1;
                // What a killed process leaves is the next one's to make safe: always looked at.
                let deep =
                    only.is_some() || mode == Mode::Kept || report.states.is_multiple_of(RECOVERY_EVERY);
                if let Err(error) =
                    try_state(&mut world, &recording, others, tree, (scenario.after, deep.then_some(&case)))
                {
                    report.failures.push((case, format!("{error:#}")));
                }
                report.recoveries += usize::from(deep);
            }
        }
    }
    Ok(report)
}

impl Case {
    /// The same case always rolls the same.
    fn dice(&self) -> Dice {
        let mode = Mode::ALL.iter().position(|mode| *mode == self.mode).unwrap_or_default();
        let place = (self.count * Mode::ALL.len() + mode) * 16 + self.moment;
        Dice::new(self.seed.wrapping_mul(1 << 20).wrapping_add(u64::try_from(place).unwrap_or_default()))
    }
}

impl Recording {
    fn after(&self, case: &Case) -> Option<Tree> {
        after_crash(&self.before, &self.trace.operations, case.count, case.mode, &mut case.dice())
    }
}

/// Puts the disks in place and proves the recovery; `deep`: a recovery that crashes, too.
fn try_state(
    world: &mut World,
    recording: &Recording,
    others: &Moment,
    tree: Tree,
    (after, deep): (&[Step], Option<&Case>),
) -> Result<()> {
    let machine = recording.machine();
    let mut moment = others.clone();
    moment.trees.insert(machine, tree);
    world.go_to(&moment)?;
    after.iter().try_for_each(|step| world.step(*step)).context("the application, after the crash")?;
    world.prove()?;
    let Some(case) = deep else { return Ok(()) };
    world.go_to(&moment)?;
    let during: &[Step] = match machine {
        Machine::Server => &[Step::Sync(0), Step::Sync(1), Step::Sync(0)],
        Machine::Device(0) => &[Step::Sync(0)],
        Machine::Device(_) => &[Step::Sync(1)],
    };
    let again = record(world, machine, during).context("the recovery")?;
    let mut dice = case.dice();
    for mode in [Mode::Dropped, Mode::Part] {
        let count = dice.between(0, again.trace.operations.len());
        let Some(others) = again.moments(count).last() else { continue };
        let tree = after_crash(&again.before, &again.trace.operations, count, mode, &mut dice);
        let mut moment = others.clone();
        moment.trees.insert(machine, tree.context("a state of the disk")?);
        world.go_to(&moment)?;
        world.prove().with_context(|| {
            format!("the recovery crashed after {count} of its operations ({})", mode.name())
        })?;
    }
    if case.mode != Mode::Kept {
        return Ok(());
    }
    // Killed, started again, and then the power is cut: when all is done, and somewhere on the way.
    let operations = &again.trace.operations;
    let first = recording.trace.operations.get(..case.count).unwrap_or_default();
    let mut cuts = vec![(operations.len(), Mode::Dropped)];
    if others.relaxed.is_none() {
        cuts.push((dice.between(0, operations.len()), Mode::Part));
    }
    for (count, mode) in cuts {
        let (Some(others), Some(second)) = (again.moments(count).last(), operations.get(..count)) else {
            continue;
        };
        let how = (mode, &mut dice);
        let tree = after_kill_and_crash(&recording.before, first, &again.before, second, how);
        let mut moment = others.clone();
        moment.trees.insert(machine, tree);
        world.go_to(&moment)?;
        world.prove().with_context(|| {
            format!("killed, and a power cut after {count} operations of the next process ({})", mode.name())
        })?;
    }
    Ok(())
}
