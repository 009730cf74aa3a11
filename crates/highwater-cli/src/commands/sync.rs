//! `highwater sync`: brings a local copy and the server's database together, once or for good.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use highwater::{Action, Builder, Database, MergePolicy, Moved, SyncOutcome, WatchOptions};
use serde::Serialize;

use crate::failure::{Exit, Failure, quoted};
use crate::output::{Bytes, Output, count, remark, took};
use crate::progress::Bar;
use crate::remote::{Access, Patience, possible};
use crate::signals::Stop;

/// Bring a local database and the server's together
///
/// Sends what changed here since the last sync and fetches what changed on the server, in one
/// request. The URL is needed once: it is remembered in a small file beside the database. A name
/// that the server does not know yet is created from the local file; a local file that does not exist
/// yet is made from the server's database.
///
/// When both sides changed, the server merges them row by row and column by column, and the local file
/// becomes the result. What could not be kept is recorded: see `highwater conflicts`.
///
/// The application may go on reading and writing the file while it is synced.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sync {
    /// The SQLite file
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// The database on the server: http(s)://HOST:PORT/NAME
    #[arg(long, value_name = "URL")]
    remote: Option<String>,
    /// Allow a URL other than the remembered one
    #[arg(long, requires = "remote")]
    switch_remote: bool,
    /// Forget what the last sync knew of the server, and push anew what it lost
    #[arg(long)]
    forget: bool,
    /// Which side wins where both changed the same: last-push-wins, first-push-wins, or fail (do not merge)
    #[arg(long, value_name = "POLICY")]
    policy: Option<MergePolicy>,
    /// Go on: sync at every interval and soon after each local commit, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// With --watch: how often to ask the server
    #[arg(long, value_name = "TIME", default_value = "5s", requires = "watch", value_parser = humantime::parse_duration)]
    interval: Duration,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    patience: Patience,
}

const EXAMPLES: &str = "\
Examples:
  highwater sync app.db --remote https://db.example.org/app    # the first time
  highwater sync app.db                                        # from then on
  highwater sync app.db --watch                                # beside a running application
  highwater sync app.db --policy fail                          # conflicts are for me to decide
  highwater sync app.db --json

Exit codes: 0 synced, 1 failed, 2 wrong usage, 3 conflict, 4 offline.";

/// Conflicts that are told in one line each; `highwater conflicts` tells all of them.
const SHOWN: usize = 5;

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    db: &'a Path,
    remote: Option<String>,
    #[serde(flatten)]
    outcome: &'a SyncOutcome,
}

impl Sync {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        possible(&self.db)?;
        let bar = Arc::new(Bar::new(out.is_json() || self.watch));
        let reports = Arc::clone(&bar);
        let mut builder = Builder::new(&self.db)
            .switch_remote(self.switch_remote)
            .forget(self.forget)
            .on_progress(move |progress| reports.report(progress));
        if let Some(url) = &self.remote {
            builder = builder.remote(url);
        }
        if let Some(policy) = self.policy {
            builder = builder.merge_policy(policy);
        }
        let db = self.patience.apply(self.access.apply(builder)).open()?;
        if self.watch {
            return watch(&self.db, &db, self.interval, out);
        }
        let result = db.sync_blocking();
        bar.clear();
        print(&self.db, &db, &result?, out)
    }
}

/// Tells what a sync did; `file` is what the person called the database.
pub(crate) fn print(file: &Path, db: &Database, outcome: &SyncOutcome, out: &Output) -> Result<(), Failure> {
    if out.is_json() {
        out.value(&Report { db: db.path(), remote: db.remote(), outcome })
    } else {
        out.line(sentence(file, db, outcome))
    }
}

/// What a sync did, in one sentence.
fn sentence(file: &Path, db: &Database, outcome: &SyncOutcome) -> String {
    let file = file.display();
    let remote = db.remote().unwrap_or_else(|| "the server".to_owned());
    let at = outcome.position.map(|p| format!(" at position {}", p.place())).unwrap_or_default();
    let sent = moved(outcome.pushed);
    let received = moved(outcome.pulled);
    let time = took(outcome.elapsed);
    let told = match outcome.action {
        Action::UpToDate => format!("Up to date: {file} and {remote} are both{at}."),
        Action::Pushed => format!("Pushed {sent} to {remote} in {time}; both are{at}."),
        Action::Pulled => format!("Pulled {received} from {remote} in {time}; both are{at}."),
        Action::Bootstrapped => format!("Copied {remote} to {file}: {received} in {time}; both are{at}."),
        Action::NothingYet => format!("Nothing to sync yet: neither {file} nor {remote} has any content."),
        Action::Merged => {
            format!("Merged with {remote} in {time}: sent {sent}, received {received}; both are{at}.")
        }
        _ => {
            format!("Synced {file} with {remote} in {time}: sent {sent}, received {received}; both are{at}.")
        }
    };
    told + &conflicts(file.to_string(), outcome)
}

/// What a merge could not keep, line by line, and where to see more.
fn conflicts(file: String, outcome: &SyncOutcome) -> String {
    if outcome.conflict_count == 0 {
        return String::new();
    }
    let mut lines = vec![String::new()];
    let shown = outcome.conflicts.iter().take(SHOWN);
    lines.extend(shown.map(|conflict| format!("  {}: {}", conflict.table, conflict.message)));
    let txid = outcome.txid.map(|txid| txid.0.to_string()).unwrap_or_default();
    lines.push(format!(
        "{} recorded: highwater conflicts show {} {txid}",
        count(outcome.conflict_count, "conflict"),
        quoted(Path::new(&file)),
    ));
    lines.join("\n")
}

fn moved(moved: Moved) -> String {
    format!("{} ({})", count(moved.frames, "frame"), Bytes(moved.bytes))
}

/// Syncs until it is told to stop, or until going on makes no sense: a conflict, a wrong call or a
/// token that is refused stays until a person does something about it. Everything else (a network that is gone, a busy
/// file) is told once and tried again.
fn watch(file: &Path, db: &Database, interval: Duration, out: &Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("io", format!("watching could not be started: {error}")))?;
    runtime.block_on(async {
        let mut stop = std::pin::pin!(Stop::listen().requested());
        let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let options = WatchOptions { interval, ..WatchOptions::default() };
        // A closed channel means that this command is ending anyway.
        let watch = db.watch(options, move |event| drop(events.send(event)));
        if !out.is_json() {
            remark(format_args!(
                "Watching {}: every {} and after local commits; Ctrl-C to stop.",
                file.display(),
                humantime::format_duration(interval)
            ));
        }
        let mut trouble = None;
        let ended = loop {
            let event = tokio::select! {
                () = &mut stop => break Ok(()),
                event = seen.recv() => event,
            };
            let Some(event) = event else {
                break Err(Failure::from(highwater::Error::Stopped));
            };
            if let Err(failure) = told(file, db, event, &mut trouble, out) {
                break Err(failure);
            }
        };
        // Lets a sync that is under way come to its end.
        watch.stop();
        ended
    })
}

/// Prints one event of a watch, unless it says the same as the last one.
fn told(
    file: &Path,
    db: &Database,
    event: Result<SyncOutcome, highwater::Error>,
    trouble: &mut Option<String>,
    out: &Output,
) -> Result<(), Failure> {
    match event {
        Ok(outcome) => {
            let recovered = trouble.take().is_some();
            if outcome.changed() || recovered { print(file, db, &outcome, out) } else { Ok(()) }
        }
        Err(error) => {
            let refused = matches!(
                error,
                highwater::Error::Unauthenticated { .. } | highwater::Error::Forbidden { .. }
            );
            let failure = Failure::from(error);
            if refused || matches!(failure.exit(), Exit::Conflict | Exit::Usage) {
                return Err(failure);
            }
            if trouble.as_deref() != Some(failure.message()) {
                *trouble = Some(failure.message().to_owned());
                failure.report(out);
            }
            Ok(())
        }
    }
}
