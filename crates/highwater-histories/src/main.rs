//! Runs random histories, and those that failed again.

#![allow(clippy::print_stdout, reason = "a program that tells what it found")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use highwater_histories::child::{self, Programs};
use highwater_histories::history::{Failure, run};
use highwater_histories::lab::Lab;
use highwater_histories::plan::{Plan, Selection, Size};
use highwater_histories::shrink::shrink;
use highwater_wire::MergePolicy;

/// Random histories of several devices, and what must hold when all is quiet
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs many, one for each seed
    Run {
        /// The first seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// How many at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Go on after a failure, and count them
        #[arg(long)]
        keep_going: bool,
        /// Run every twentieth a second time: it must end in the same state
        #[arg(long)]
        twice: bool,
        /// Leave failures as long as they are
        #[arg(long)]
        no_shrink: bool,
        #[command(flatten)]
        shape: Shape,
    },
    /// Runs one again, and says what happens
    Replay {
        /// Its seed
        seed: u64,
        /// The part of it that was printed
        #[arg(long, default_value = "all")]
        only: Selection,
        #[command(flatten)]
        shape: Shape,
    },
    /// One sync, in a process that may be killed
    #[command(name = child::SYNC, hide = true)]
    ChildSync {
        path: PathBuf,
        url: String,
        #[arg(value_parser = hexadecimal)]
        device: u128,
        policy: MergePolicy,
    },
    /// A server, in a process that may be killed
    #[command(name = child::SERVE, hide = true)]
    ChildServe { store: PathBuf, max_files: u32, policy: MergePolicy },
}

fn hexadecimal(text: &str) -> Result<u128, std::num::ParseIntError> {
    u128::from_str_radix(text, 16)
}

#[derive(Debug, Clone, Args)]
struct Shape {
    /// How many devices, from-to
    #[arg(long, default_value = "2-5", value_parser = range)]
    devices: (usize, usize),
    /// How many steps at most
    #[arg(long, default_value_t = 30)]
    steps: usize,
    /// Of a hundred syncs, so many are killed or meet a server that is
    #[arg(long, default_value_t = 0)]
    kills: usize,
    /// Some devices are libSQL's: the program `libsql-client` that `interop/run` builds
    #[arg(long, value_name = "PROGRAM")]
    libsql: Option<PathBuf>,
}

impl Shape {
    fn size(&self) -> Size {
        let (kills, libsql) = (self.kills, self.libsql.is_some());
        Size { devices: self.devices.0..=self.devices.1, steps: self.steps, kills, libsql }
    }

    fn programs(&self) -> Result<Programs> {
        let own = if self.kills > 0 { Some(std::env::current_exe()?) } else { None };
        Ok(Programs { own, libsql: self.libsql.clone() })
    }

    fn arguments(&self) -> String {
        let mut text = format!("--devices {}-{} --steps {}", self.devices.0, self.devices.1, self.steps);
        if self.kills > 0 {
            text += &format!(" --kills {}", self.kills);
        }
        if let Some(program) = &self.libsql {
            text += &format!(" --libsql {}", program.display());
        }
        text
    }
}

fn range(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('-').unwrap_or((text, text));
    match (parts.0.parse(), parts.1.parse()) {
        (Ok(from), Ok(to)) if from >= 1 && from <= to => Ok((from, to)),
        _ => Err("give two numbers, as in 2-5".to_owned()),
    }
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { seed, count, jobs, keep_going, twice, no_shrink, shape } => {
            let many = Many { seed, count, keep_going, twice, no_shrink, shape };
            many.run(jobs)
        }
        Command::Replay { seed, only, shape } => replay(seed, &only, &shape),
        Command::ChildSync { path, url, device, policy } => {
            println!("{}", child::sync(&path, &url, device, policy)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::ChildServe { store, max_files, policy } => {
            child::serve(&store, max_files, policy)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn replay(seed: u64, only: &Selection, shape: &Shape) -> Result<ExitCode> {
    let mut lab = Lab::new(shape.programs()?)?;
    let plan = Plan::new(seed, &shape.size()).cut_to(only);
    match run(&mut lab, &plan) {
        Ok(quiet) => {
            println!(
                "{}\nall is well: {} merges, state {}",
                quiet.trace.join("\n"),
                quiet.merges,
                quiet.state
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            println!("{}\n\n{}: {}", failure.trace.join("\n"), failure.kind, failure.message);
            Ok(ExitCode::FAILURE)
        }
    }
}

struct Many {
    seed: u64,
    count: u64,
    keep_going: bool,
    twice: bool,
    no_shrink: bool,
    shape: Shape,
}

#[derive(Default)]
struct Tally {
    next: AtomicU64,
    done: AtomicUsize,
    merges: AtomicUsize,
    conflicts: AtomicUsize,
    failures: AtomicUsize,
    stop: AtomicBool,
    report: Mutex<()>,
}

impl Many {
    fn run(&self, jobs: usize) -> Result<ExitCode> {
        let tally = Tally::default();
        let began = Instant::now();
        std::thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(|| self.work(&tally))).collect();
            for worker in workers {
                worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
            }
            Ok(())
        })?;
        let seconds = began.elapsed().as_secs_f64();
        let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        let (done, failures) = (count(&tally.done), count(&tally.failures));
        println!(
            "{done} histories, {} merges, {} conflicts in records, {failures} failures, in {seconds:.1} s",
            count(&tally.merges),
            count(&tally.conflicts)
        );
        Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn work(&self, tally: &Tally) -> Result<()> {
        let mut lab = Lab::new(self.shape.programs()?)?;
        while !tally.stop.load(Ordering::Relaxed) {
            let offset = tally.next.fetch_add(1, Ordering::Relaxed);
            if offset >= self.count {
                break;
            }
            let plan = Plan::new(self.seed + offset, &self.shape.size());
            match run(&mut lab, &plan) {
                Ok(quiet) => {
                    tally.merges.fetch_add(quiet.merges, Ordering::Relaxed);
                    tally.conflicts.fetch_add(quiet.conflicts, Ordering::Relaxed);
                    if self.twice && offset.is_multiple_of(20) {
                        self.again(&mut lab, &plan, &quiet.state, tally);
                    }
                }
                Err(failure) => self.failed(&mut lab, &plan, *failure, tally)?,
            }
            tally.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn again(&self, lab: &mut Lab, plan: &Plan, state: &str, tally: &Tally) {
        let second = run(lab, plan).map_or_else(|failure| failure.kind.to_owned(), |quiet| quiet.state);
        if second != state {
            tally.failures.fetch_add(1, Ordering::Relaxed);
            tally.stop.store(!self.keep_going, Ordering::Relaxed);
            println!("seed {}: ends in {state}, and the second time in {second}", plan.seed);
        }
    }

    fn failed(&self, lab: &mut Lab, plan: &Plan, failure: Failure, tally: &Tally) -> Result<()> {
        tally.failures.fetch_add(1, Ordering::Relaxed);
        tally.stop.store(!self.keep_going, Ordering::Relaxed);
        let (only, failure) = if self.no_shrink {
            (Selection(None), failure)
        } else {
            shrink(lab, plan, &failure, Duration::from_secs(20))
        };
        let _one_at_a_time = tally.report.lock().ok().context("another worker panicked")?;
        println!("seed {} fails ({}): {}", plan.seed, failure.kind, failure.message);
        println!(
            "  cargo run -p highwater-histories -- replay {} {} --only {only}\n",
            plan.seed,
            self.shape.arguments()
        );
        Ok(())
    }
}
