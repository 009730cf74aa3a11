//! `highwater-crash`: runs the crash matrix, or one case of it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};
use highwater_crash::matrix::{self, Case, Report};
use highwater_crash::scenario::SCENARIOS;

/// Cuts the power at every file operation of Highwater, and looks at what is left.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs all scenarios, or the one of that name, or those whose names contain the word.
    Run {
        /// Only the scenario of this name, or those with this in their names.
        word: Option<String>,
        /// What is random follows from it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// So many scenarios at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Stop at the first failure.
        #[arg(long)]
        first: bool,
    },
    /// Runs one case again, as a failure names it, with a crash of its recovery.
    Replay {
        /// SCENARIO/OPERATIONS/MODE/MOMENT/SEED
        case: Case,
    },
    /// Prints the file operations of a scenario, with the numbers that cases name.
    List {
        /// Its name.
        scenario: String,
    },
    /// What the recorded processes do.
    #[command(subcommand, hide = true)]
    Act(Act),
}

#[derive(Subcommand)]
enum Act {
    Sync { db: PathBuf, url: String },
    Write { db: PathBuf, rows: String },
    Serve { store: PathBuf, snapshot_after: u32 },
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { word, seed, jobs, first } => {
            Ok(run(word.as_deref().unwrap_or_default(), seed, jobs, first))
        }
        Command::Replay { case } => {
            let report = matrix::replay(&case)?;
            Ok(tell(&report))
        }
        Command::List { scenario } => {
            matrix::list(&scenario)?.iter().for_each(|line| println!("{line}"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Act(Act::Sync { db, url }) => {
            highwater_crash::act_sync(&db, &url).map(|()| ExitCode::SUCCESS)
        }
        Command::Act(Act::Write { db, rows }) => {
            highwater_crash::act_write(&db, &rows).map(|()| ExitCode::SUCCESS)
        }
        Command::Act(Act::Serve { store, snapshot_after }) => {
            highwater_crash::act_serve(&store, snapshot_after).map(|()| ExitCode::SUCCESS)
        }
    }
}

fn run(word: &str, seed: u64, jobs: usize, first: bool) -> ExitCode {
    let exact = SCENARIOS.iter().any(|scenario| scenario.name == word);
    let next = AtomicUsize::new(0);
    let total = Mutex::new((Report::default(), false));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(scenario) = SCENARIOS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if if exact { scenario.name != word } else { !scenario.name.contains(word) } {
                        continue;
                    }
                    let began = Instant::now();
                    let result = matrix::run(scenario, seed, first);
                    if first && !result.as_ref().is_ok_and(|report| report.failures.is_empty()) {
                        next.store(SCENARIOS.len(), Ordering::SeqCst);
                    }
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    match result {
                        Ok(report) => {
                            println!(
                                "{}: {} operations, {} states, {} crashed recoveries, {} failures, {:.1} s",
                                scenario.name,
                                report.operations,
                                report.states,
                                report.recoveries,
                                report.failures.len(),
                                began.elapsed().as_secs_f64(),
                            );
                            total.0.add(report);
                        }
                        Err(error) => {
                            eprintln!("{}: the scenario itself failed: {error:#}", scenario.name);
                            total.1 = true;
                        }
                    }
                }
            });
        }
    });
    let (report, broken) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let code = tell(&report);
    if broken { ExitCode::FAILURE } else { code }
}

fn tell(report: &Report) -> ExitCode {
    for (case, error) in &report.failures {
        eprintln!("{case} fails: {error}\n    again: highwater-crash replay {case}");
    }
    println!(
        "{} operations, {} states of a disk, {} crashed recoveries, {} failures",
        report.operations,
        report.states,
        report.recoveries,
        report.failures.len()
    );
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
