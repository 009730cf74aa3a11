//! Runs targets on stable, for a time: `highwater-fuzz run`, `highwater-fuzz replay TARGET FILE`.
//!
//! Every target runs in a process of its own. A panic (also one that something caught), an input that
//! takes more than five seconds, more than 1 GiB of memory or a signal ends it, and the input is kept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test"
)]

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use highwater_fuzz::{Mutator, TARGETS, Target, target};

const HANG: Duration = Duration::from_secs(5);
const MEMORY: u64 = 1 << 30;

#[derive(Debug, Parser)]
#[command(about = "Everything that reads bytes from outside, given bytes that nobody would send")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Changes samples at random, for a time
    Run {
        /// The targets; all unless said
        targets: Vec<String>,
        /// For each target
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// So many targets at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Chooses the changes; by the clock unless said
        #[arg(long)]
        seed: Option<u64>,
        /// Where inputs are kept that made a target fail
        #[arg(long, default_value = "target/fuzz-failures")]
        failures: PathBuf,
        /// Inputs to begin with, in one folder for each target
        #[arg(long, default_value = "fuzz/corpus")]
        corpus: PathBuf,
        #[arg(long, hide = true)]
        within: Option<PathBuf>,
    },
    /// Gives one input to a target
    Replay {
        /// Its name
        target: String,
        /// The input
        file: PathBuf,
    },
    /// Writes the samples of all targets as files, for `cargo fuzz`
    Samples {
        /// One folder for each target goes there
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Action::Run { targets, seconds, seed, corpus, within: Some(current), .. } => {
            let target = target(&targets[0]).expect("a target");
            one(target, Duration::from_secs(seconds), seed.unwrap_or(1), &corpus, &current)
        }
        Action::Run { targets, seconds, jobs, seed, failures, corpus, within: None } => {
            let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs());
            let seed = seed.unwrap_or_else(clock);
            let run = Run { seconds, seed, failures, corpus };
            run.all(&targets, jobs)
        }
        Action::Replay { target: name, file } => {
            let Some(target) = target(&name) else {
                eprintln!("there is no target {name}");
                return ExitCode::from(2);
            };
            let data = std::fs::read(&file).expect("the input can be read");
            let began = Instant::now();
            let current = std::env::temp_dir().join(format!("highwater-fuzz-{}", std::process::id()));
            let watch = watch(&current);
            watch.begin(&data);
            println!("{name}: {:016x} in {:?}", (target.run)(&data), began.elapsed());
            let _ = std::fs::remove_file(current);
            watch.verdict()
        }
        Action::Samples { folder } => {
            for target in TARGETS {
                let folder = folder.join(target.name);
                std::fs::create_dir_all(&folder).expect("the folder can be made");
                for (number, sample) in (target.samples)().iter().enumerate() {
                    std::fs::write(folder.join(format!("sample-{number}")), sample)
                        .expect("it can be written");
                }
            }
            ExitCode::SUCCESS
        }
    }
}

struct Run {
    seconds: u64,
    seed: u64,
    failures: PathBuf,
    corpus: PathBuf,
}

impl Run {
    fn all(&self, names: &[String], jobs: usize) -> ExitCode {
        let chosen = |target: &&Target| names.is_empty() || names.iter().any(|name| name == target.name);
        let queue: Mutex<VecDeque<&Target>> = Mutex::new(TARGETS.iter().filter(chosen).collect());
        let failed = AtomicBool::new(false);
        println!("seed {}, {} s for each target", self.seed, self.seconds);
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap().pop_front();
                        let Some(target) = next else { return };
                        if !self.process(target) {
                            failed.store(true, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        if failed.load(Ordering::SeqCst) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    /// Runs a target in a process of its own; what kills that is kept.
    fn process(&self, target: &Target) -> bool {
        let shared = Path::new("/dev/shm");
        let folder = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let current = folder.join(format!("highwater-fuzz-{}-{}", std::process::id(), target.name));
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args([
            "run",
            target.name,
            "--seconds",
            &self.seconds.to_string(),
            "--seed",
            &self.seed.to_string(),
        ]);
        command.arg("--corpus").arg(&self.corpus).arg("--within").arg(&current);
        let status = command.status().expect("this program starts again");
        let kept = std::fs::read(&current).unwrap_or_default();
        let _ = std::fs::remove_file(&current);
        if status.success() {
            return true;
        }
        let _ = std::fs::create_dir_all(&self.failures);
        let name = format!("{}-{}-{}", target.name, self.seed, kept.len());
        let path = self.failures.join(name);
        std::fs::write(&path, &kept).expect("the input can be kept");
        println!(
            "{}: FAILED ({status}); replay it: highwater-fuzz replay {} {}",
            target.name,
            target.name,
            path.display()
        );
        false
    }
}

/// Looks on while inputs are read.
struct Watch {
    current: PathBuf,
}

static BEGUN: AtomicU64 = AtomicU64::new(0);
static PANICKED: AtomicBool = AtomicBool::new(false);

impl Watch {
    fn begin(&self, data: &[u8]) {
        std::fs::write(&self.current, data).expect("the input can be noted");
        BEGUN.fetch_add(1, Ordering::SeqCst);
    }

    fn verdict(&self) -> ExitCode {
        if PANICKED.load(Ordering::SeqCst) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn watch(current: &Path) -> Watch {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::SeqCst);
        usual(info);
    }));
    std::thread::spawn(|| {
        let (mut input, mut since) = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = BEGUN.load(Ordering::SeqCst);
            if now != input {
                (input, since) = (now, Instant::now());
            }
            if since.elapsed() > HANG {
                println!("an input takes more than {HANG:?}");
                std::process::exit(3);
            }
            if memory().is_some_and(|bytes| bytes > MEMORY) {
                println!("an input takes more than {} MiB", MEMORY >> 20);
                std::process::exit(4);
            }
        }
    });
    Watch { current: current.to_owned() }
}

/// What this process has in memory; `None` where nobody tells.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}

/// One target, until the time is over or it fails.
fn one(target: &Target, time: Duration, seed: u64, corpus: &Path, current: &Path) -> ExitCode {
    let watch = watch(current);
    let mut inputs = (target.samples)();
    for entry in std::fs::read_dir(corpus.join(target.name)).into_iter().flatten().flatten() {
        inputs.extend(std::fs::read(entry.path()));
    }
    let began = Instant::now();
    let mut known = HashSet::new();
    let mut mutator = Mutator::new(seed);
    let mut count = 0;
    let first = inputs.len();
    while began.elapsed() < time || count < first {
        let input = if count < first { inputs[count].clone() } else { mutator.change(&inputs) };
        watch.begin(&input);
        let seen = std::panic::catch_unwind(|| (target.run)(&input)).unwrap_or(0);
        if PANICKED.load(Ordering::SeqCst) {
            return ExitCode::FAILURE;
        }
        count += 1;
        if known.insert(seen) && count > first && inputs.len() < 5000 {
            inputs.push(input);
        }
    }
    let kinds = known.len();
    println!("{}: {count} inputs in {:.0?}, {kinds} kinds of answers", target.name, began.elapsed());
    watch.verdict()
}
