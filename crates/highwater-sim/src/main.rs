//! Runs simulations, and those that failed again.

#![allow(clippy::print_stdout, reason = "a program that tells what it found")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::{Args, Parser, Subcommand};
use highwater_sim::faults::Fault;
use highwater_sim::plan::{Options, Plan};
use highwater_sim::report::Report;
use highwater_sim::run::run;

/// Several devices, servers and a store with faults, under one seed
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
        /// How many; not together with --minutes
        #[arg(long, default_value_t = 200)]
        count: u64,
        /// For so long instead of so many
        #[arg(long)]
        minutes: Option<u64>,
        /// How many at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Go on after a failure
        #[arg(long)]
        keep_going: bool,
        /// Run every one twice: the traces must be equal
        #[arg(long)]
        twice: bool,
        /// The summary as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        shape: Shape,
    },
    /// Runs one again, and says what happens
    Replay {
        /// Its seed
        seed: u64,
        #[command(flatten)]
        shape: Shape,
    },
}

#[derive(Debug, Clone, Args)]
struct Shape {
    /// How many devices
    #[arg(long)]
    devices: Option<u64>,
    /// How many steps each takes
    #[arg(long)]
    steps: Option<u64>,
    /// A fault that does not happen; may be given more than once
    #[arg(long)]
    without: Vec<Fault>,
    /// The only fault that happens, and often; may be given more than once
    #[arg(long)]
    only: Vec<Fault>,
    /// The workload; may be given more than once
    #[arg(long)]
    workload: Vec<String>,
}

impl Shape {
    fn options(&self) -> Options {
        Options {
            devices: self.devices,
            steps: self.steps,
            without: self.without.iter().copied().collect(),
            only: self.only.iter().copied().collect(),
            workloads: self.workload.clone(),
        }
    }
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Replay { seed, shape } => replay(seed, &shape.options()),
        Command::Run { seed, count, minutes, jobs, keep_going, twice, json, shape } => {
            let until = minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
            let end = if until.is_some() { u64::MAX } else { seed.saturating_add(count) };
            let options = shape.options();
            let many = Many { next: seed.into(), end, until, keep_going, twice, options, ..Many::default() };
            let report = many.run(jobs)?;
            println!("{}", if json { serde_json::to_string_pretty(&report)? } else { report.to_string() });
            Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn replay(seed: u64, options: &Options) -> Result<ExitCode> {
    let ran = run(Plan::new(seed, options))?;
    println!("{}\ntrace {:016x}", ran.trace.join("\n"), ran.hash);
    match ran.broken {
        None => {
            println!("all is well");
            Ok(ExitCode::SUCCESS)
        }
        Some(broken) => {
            println!("broken: {broken}");
            Ok(ExitCode::FAILURE)
        }
    }
}

#[derive(Default)]
struct Many {
    next: AtomicU64,
    end: u64,
    until: Option<Instant>,
    keep_going: bool,
    twice: bool,
    options: Options,
    stop: AtomicBool,
    report: Mutex<Report>,
}

impl Many {
    fn run(self, jobs: usize) -> Result<Report> {
        let began = Instant::now();
        std::thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(|| self.work())).collect();
            for worker in workers {
                worker.join().map_err(|_| anyhow!("a worker panicked"))??;
            }
            Ok(())
        })?;
        let mut report = self.report.into_inner().map_err(|_| anyhow!("a worker panicked"))?;
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }

    fn work(&self) -> Result<()> {
        while !self.stop.load(Ordering::SeqCst) && self.until.is_none_or(|until| Instant::now() < until) {
            let seed = self.next.fetch_add(1, Ordering::SeqCst);
            if seed >= self.end {
                break;
            }
            let mut ran = run(Plan::new(seed, &self.options))?;
            if self.twice && ran.broken.is_none() {
                let again = run(Plan::new(seed, &self.options))?;
                if again.hash != ran.hash {
                    let differs = ran.trace.iter().zip(&again.trace).find(|(one, other)| one != other);
                    ran.broken = Some(format!("two runs differ: {differs:?}"));
                }
            }
            if let Some(broken) = &ran.broken {
                println!("seed {seed} fails: {broken}");
                println!("  cargo run -p highwater-sim -- replay {seed}{}\n", self.options.arguments());
                self.stop.store(!self.keep_going, Ordering::SeqCst);
            }
            self.report.lock().map_err(|_| anyhow!("another worker panicked"))?.add(seed, &ran);
        }
        Ok(())
    }
}
