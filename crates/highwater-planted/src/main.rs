//! `highwater-planted`: builds the layers of tests with bugs in the product, and looks who finds them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use highwater_planted::bugs::{BUGS, Bug};
use highwater_planted::layer::{Check, Layer};
use highwater_planted::programs::Programs;
use highwater_planted::report::{Found, Report, Verdict};
use highwater_planted::run::{Ended, Ran, run};

/// Plants bugs in the product, one at a time, and looks which layer of tests finds each
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these bugs; all, if none is named
    bugs: Vec<String>,
    /// Say which there are, and who must find them
    #[arg(long)]
    list: bool,
    /// Ask every layer about every bug, not only the one that must find it: takes long
    #[arg(long)]
    all_layers: bool,
    /// So many commands at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The report as JSON
    #[arg(long)]
    json: bool,
    /// Where the programs are put
    #[arg(long, default_value = "target/planted-bugs")]
    folder: PathBuf,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let named = |bug: &Bug| arguments.bugs.iter().any(|name| name == bug.name);
    let chosen: Vec<&Bug> = BUGS.iter().filter(|bug| arguments.bugs.is_empty() || named(bug)).collect();
    let known = |name: &&String| BUGS.iter().any(|bug| bug.name == **name);
    if let Some(unknown) = arguments.bugs.iter().find(|name| !known(name)) {
        anyhow::bail!("there is no bug {unknown:?}; `--list` says which there are");
    }
    if arguments.list {
        chosen.iter().for_each(|bug| println!("{}: {}; {}", bug.name, bug.breaks, bug.caught_by));
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    let mut report = Hunt::new(&arguments, &chosen)?.report(&chosen, arguments.jobs)?;
    report.seconds = began.elapsed().as_secs_f64();
    println!("{}", if arguments.json { serde_json::to_string_pretty(&report)? } else { report.to_string() });
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is run.
struct Hunt {
    programs: Programs,
    folder: PathBuf,
    all_layers: bool,
    json: bool,
}

impl Hunt {
    fn new(arguments: &Arguments, bugs: &[&Bug]) -> Result<Self> {
        let mut layers: BTreeSet<Layer> = bugs.iter().map(|bug| bug.caught_by.layer).collect();
        if arguments.all_layers {
            layers.extend(Layer::PROGRAMS.map(|check| check.layer));
        }
        let folder = arguments.folder.clone();
        let programs = Programs::build(&layers, &folder)?;
        // Programs are started from folders of their own choice.
        let folder = folder.canonicalize().context("the folder of the programs")?;
        Ok(Self { programs, folder, all_layers: arguments.all_layers, json: arguments.json })
    }

    /// The commands that are tried on a bug.
    fn checks(&self, bug: &Bug) -> Vec<Check> {
        let mut checks = vec![bug.caught_by];
        if self.all_layers {
            checks.extend(Layer::PROGRAMS.iter().filter(|check| check.layer != bug.caught_by.layer));
        }
        checks
    }

    fn report(&self, bugs: &[&Bug], jobs: usize) -> Result<Report> {
        let all: BTreeSet<Check> = bugs.iter().flat_map(|bug| self.checks(bug)).collect();
        let mut work: Vec<(Option<&'static str>, Check)> =
            all.into_iter().map(|check| (None, check)).collect();
        let controls = work.len();
        work.extend(
            bugs.iter().flat_map(|bug| self.checks(bug).into_iter().map(|check| (Some(bug.name), check))),
        );
        let ran = self.work(&work, jobs)?;
        let mut report = Report::default();
        for ((bug, check), ran) in work.iter().zip(&ran) {
            ensure!(!matches!(ran.ended, Ended::NotUnderstood(_)), "{check} was not understood: {ran:?}");
            match bug {
                None if ran.ended != Ended::Passed => report.broken.push(verdict(*check, ran)),
                _ => {}
            }
        }
        let mut tried = work.iter().zip(&ran).skip(controls);
        for bug in bugs {
            let own = tried.by_ref().take(self.checks(bug).len());
            let verdicts = own.map(|((_, check), ran)| verdict(*check, ran)).collect();
            report.bugs.push(Found { bug: bug.name, breaks: bug.breaks, verdicts });
        }
        Ok(report)
    }

    fn work(&self, work: &[(Option<&'static str>, Check)], jobs: usize) -> Result<Vec<Ran>> {
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<Option<Ran>>> = Mutex::new(vec![None; work.len()]);
        std::thread::scope(|scope| -> Result<()> {
            let worker = || -> Result<()> {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some((bug, check)) = work.get(at) else { return Ok(()) };
                    let words = self.folder.join(format!("said-{at}"));
                    let program = self.programs.of(check.layer)?;
                    let program = program.canonicalize().context("a program")?;
                    let ran = run(&program, *check, *bug, &words)?;
                    if !self.json {
                        eprintln!(
                            "{}, {check}: {:?}, {:.1} s",
                            bug.unwrap_or("no bug"),
                            ran.ended,
                            ran.took.as_secs_f64()
                        );
                    }
                    if let Some(place) = done.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
                        *place = Some(ran);
                    }
                }
            };
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
        })?;
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.into_iter().collect::<Option<_>>().context("a command was not run")
    }
}

fn verdict(check: Check, ran: &Ran) -> Verdict {
    let (caught, said) = match &ran.ended {
        Ended::Failed(said) => (true, said.clone()),
        Ended::Passed => (false, "it finds nothing wrong".to_owned()),
        Ended::StillRunning => (false, "it did not come to an end".to_owned()),
        Ended::NotUnderstood(said) => (false, said.clone()),
    };
    Verdict { by: check.to_string(), caught, seconds: ran.took.as_secs_f64(), said }
}
