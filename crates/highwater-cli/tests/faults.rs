//! Client and server processes whose disk fails: every call of every kind, one after the other, in a
//! process that is SQLite and Highwater together. Afterwards, on a disk that works, one plain sync
//! ends in equal databases; and what was answered well while the disk failed is there.
//!
//! The calls are not listed here: a scenario is repeated with the next call failing until it comes to
//! its end without a fault. `HIGHWATER_TEST_ROUNDS` (any number) leaves none out; else the many
//! reads and the later ones of many writes take turns.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    missing_docs
)]

mod common_kill;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common_kill::app::{App, Rows};
use common_kill::process::{self, PANICKED, Served, succeeds};
use common_kill::proof::{self, database, entries, equal};
use common_kill::random::{rounds, seed};
use highwater::Builder;
use highwater_faults::{Call, Fault, Kind, Plan, When, faults};

/// What fails, one call at a time.
const FAULTS: [(Kind, &[Call]); 13] = [
    (Kind::Eio, &[Call::Write]),
    (Kind::Enospc, &[Call::Write]),
    (Kind::Short, &[Call::Write]),
    (Kind::Torn, &[Call::Write]),
    (Kind::Eio, &[Call::Sync]),
    (Kind::Lost, &[Call::Sync]),
    (Kind::Eio, &[Call::Truncate]),
    (Kind::Eio, &[Call::Rename]),
    (Kind::Eio, &[Call::Link]),
    (Kind::Eio, &[Call::Unlink]),
    (Kind::Enospc, &[Call::Mkdir]),
    (Kind::Eio, &[Call::Open]),
    (Kind::Eio, &[Call::Read]),
];

/// What fails from one call on: a disk that is full, and one that is gone.
const FOR_GOOD: [(Kind, &[Call]); 2] = [
    (Kind::Enospc, &[Call::Write, Call::Truncate, Call::Link, Call::Mkdir]),
    (Kind::Eio, &[Call::Write, Call::Sync, Call::Truncate, Call::Rename, Call::Link]),
];

/// What a client does when its disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    FirstPush,
    Push,
    Pull,
    /// More than 16 MiB: the answer goes through a temporary file.
    PullSpilled,
    /// Both sides changed: pushed, merged, and pulled.
    Merge,
    BootstrapFile,
    /// The empty database is open in the application.
    BootstrapBlank,
}

/// One file and its database on the server.
struct Case {
    folder: tempfile::TempDir,
    url: String,
    app: App,
    /// What must be there in the end.
    model: Rows,
    /// Pushes in the log before the sync, and how many the sync adds.
    pushes: (usize, usize),
}

impl Case {
    fn db(&self) -> PathBuf {
        self.folder.path().join("local").join("app.db")
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }
}

/// Brings about the moment before the sync whose disk fails.
fn prepare(scenario: Scenario, url: String) -> Case {
    let folder = tempfile::tempdir().unwrap();
    for name in ["local", "other", "scratch"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let db = folder.path().join("local").join("app.db");
    let other = folder.path().join("other").join("other.db");
    let sync = |path: &Path| database(path, &url).sync_blocking().unwrap();
    let mut app;
    let mut model = None;
    let mut adds = 0;
    match scenario {
        Scenario::FirstPush | Scenario::Push => {
            app = App::create(&db, 4096);
            app.fill(60);
            if scenario == Scenario::Push {
                sync(&db);
                app.work();
            }
            adds = 1;
        }
        Scenario::Pull | Scenario::PullSpilled | Scenario::Merge => {
            let mut there = App::create(&other, 4096);
            there.fill(200);
            sync(&other);
            sync(&db);
            app = App::open(&db, there.rows.clone());
            match scenario {
                Scenario::PullSpilled => there.blobs(4 * 17),
                _ => there.blobs_of(1, 16 << 10),
            }
            if scenario != Scenario::Merge {
                there.work();
            }
            sync(&other);
            model = Some(there.rows.clone());
            if scenario == Scenario::Merge {
                app.work();
                model = Some(app.rows.with_blobs_of(&there.rows));
                adds = 1;
            }
        }
        Scenario::BootstrapFile | Scenario::BootstrapBlank => {
            let mut there = App::create(&other, 4096);
            there.fill(60);
            there.blobs_of(2, 16 << 10);
            sync(&other);
            app = match scenario {
                Scenario::BootstrapBlank => App::blank(&db, 4096),
                _ => App::absent(&db),
            };
            model = Some(there.rows);
        }
    }
    let model = model.unwrap_or_else(|| app.rows.clone());
    let before = entries(&url).len();
    Case { folder, url, app, model, pushes: (before, adds) }
}

/// One sync with this plan, and what must hold then and after a sync on a disk that works. `None` when
/// nothing failed.
fn sync_on(scenario: Scenario, (kind, calls): (Kind, &[Call]), when: When, url: String) -> Option<Fault> {
    let mut case = prepare(scenario, url);
    let what = format!("{scenario:?}, {kind:?} of {calls:?} {when:?}");
    let report = case.scratch().join("report");
    let mut plan = Plan::new(case.folder.path().join("local"), kind, when).calls(calls).report(&report);
    if scenario == Scenario::PullSpilled {
        // Its log is like any other, only longer.
        plan = plan.not(&["-wal"]);
    }
    let mut command = process::sync(&case.db(), &case.url);
    assert!(plan.apply(&mut command));
    let output = command.output().unwrap();
    let fired = faults(&report);
    let told = process::told(&output);
    let what = format!("{what}: {fired:?}\n{told}");
    // Neither a panic nor a signal, and whoever fails says why.
    assert!(output.status.signal().is_none() && output.status.code() != Some(PANICKED), "{what}");
    assert!(output.status.success() || told.contains("error: "), "{what}");
    let (before, adds) = case.pushes;
    let now = entries(&case.url).len();
    if let Some(first) = fired.first() {
        // SQLite itself does not look at what becomes of the folder of a new log.
        if first.call == "sync" && !first.path.is_dir() {
            let pushed = now > before && scenario != Scenario::Merge;
            unflushed(first, output.status.success(), pushed, &what);
        }
    }
    if output.status.success() {
        // Done is done: nothing is left for the next sync.
        assert_eq!(now, before + adds, "{what}");
    } else {
        assert!(now == before || now == before + adds, "{before} and {now} pushes: {what}");
        let found = case.app.looks();
        assert!(found == case.app.rows || found == case.model, "half of it is visible: {what}");
        succeeds(process::sync(&case.db(), &case.url), &what);
    }
    let proven = catch_unwind(AssertUnwindSafe(|| {
        equal(&case.db(), &case.url, &case.model, before + adds, &case.scratch());
    }));
    assert!(proven.is_ok(), "not equal: {what}");
    fired.into_iter().next()
}

/// After a flush that failed nothing that relies on it is acknowledged.
fn unflushed(first: &Fault, succeeded: bool, pushed: bool, what: &str) {
    let name = first.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.contains("-sums") {
        return;
    }
    assert!(!succeeded, "a flush failed, and the sync says that it is done: {what}");
    if name.ends_with("-wal") {
        assert!(!pushed, "the server has what this disk may have lost: {what}");
    }
}

/// The call that fails after the `n`-th did: the next one, or with growing steps where there are many.
fn next(n: u64, calls: &[Call], heavy: bool) -> u64 {
    let step = match calls[0] {
        _ if rounds().is_some() => 1,
        _ if heavy => n,
        Call::Open | Call::Read => n,
        _ => n / 2,
    };
    n + step.max(1)
}

/// Every call of a scenario fails once, and from every call on all of them.
fn fail_everywhere(scenario: Scenario, served: &Served, number: &AtomicU64) -> Vec<String> {
    let heavy = scenario == Scenario::PullSpilled;
    let mut failures = Vec::new();
    let mut hit = BTreeMap::new();
    let once = FAULTS.iter().map(|fault| (*fault, true));
    for ((kind, calls), only) in once.chain(FOR_GOOD.iter().map(|fault| (*fault, false))) {
        // What is slow is done for a few only.
        if heavy && rounds().is_none() && !matches!(kind, Kind::Torn | Kind::Lost) {
            continue;
        }
        let mut n = 1;
        loop {
            let when = if only { When::Only(n) } else { When::From(n) };
            let url = served.url(&format!("app-{}", number.fetch_add(1, Ordering::SeqCst)));
            match catch_unwind(|| sync_on(scenario, (kind, calls), when, url)) {
                Ok(Some(fault)) => *hit.entry(format!("{} {kind:?}", fault.call)).or_insert(0) += 1,
                Ok(None) => break,
                Err(_) => failures.push(format!("{scenario:?}, {kind:?} of {calls:?} {when:?}")),
            }
            n = next(n, calls, heavy || !only);
            assert!(n < 100_000 && failures.len() < 40, "it never ends: {failures:#?}");
        }
    }
    eprintln!("{scenario:?}: {hit:?}");
    failures
}

fn clients(groups: [&[Scenario]; 2]) {
    let store = tempfile::tempdir().unwrap();
    let served = Served::start(store.path());
    let number = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    // Two threads, for two processors.
    std::thread::scope(|scope| {
        for group in groups {
            let (served, number, failures) = (&served, &number, &failures);
            scope.spawn(move || {
                for scenario in group {
                    let began = Instant::now();
                    let found = fail_everywhere(*scenario, served, number);
                    eprintln!("{scenario:?} took {:?}", began.elapsed());
                    failures.lock().unwrap().extend(found);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_client_whose_disk_fails_at_any_call_says_so_and_carries_on() {
    use Scenario::{BootstrapBlank, BootstrapFile, FirstPush, Merge, Pull, PullSpilled, Push};
    clients([&[Push, Pull, BootstrapBlank, FirstPush], &[Merge, BootstrapFile, PullSpilled]]);
}

/// What was acknowledged by a server whose disk fails.
struct Pusher {
    app: App,
    url: String,
    folder: tempfile::TempDir,
    acknowledged: Vec<(u64, String)>,
    tried: usize,
}

impl Pusher {
    fn new(url: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["local", "scratch"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let app = App::create(&folder.path().join("local").join("app.db"), 4096);
        Self { app, url, folder, acknowledged: Vec::new(), tried: 0 }
    }

    /// A sync that may fail, as long as it says so.
    fn sync(&mut self, patience: Duration) -> bool {
        let db = Builder::new(&self.app.path).remote(&self.url).timeout(patience).open().unwrap();
        self.tried += 1;
        let Ok(outcome) = db.sync_blocking() else { return false };
        self.acknowledged.push((outcome.txid.unwrap().0, outcome.position.unwrap().state.to_string()));
        true
    }

    /// On a disk that works: everything that was acknowledged is there, and one sync brings the rest.
    fn prove(&mut self) {
        let log = entries(&self.url);
        for (txid, state) in &self.acknowledged {
            let found = log.iter().find(|entry| entry.txid == *txid);
            assert_eq!(
                found.map(|entry| &entry.position.state),
                Some(state),
                "{txid} was acknowledged: {log:#?}"
            );
        }
        assert!(self.sync(Duration::from_secs(10)), "on a disk that works");
        let log = entries(&self.url);
        assert!(log.len() <= self.tried, "{} pushes of {} syncs", log.len(), self.tried);
        equal(&self.app.path, &self.url, &self.app.rows, log.len(), &self.folder.path().join("scratch"));
        proof::nothing_twice(&self.url, &self.folder.path().join("scratch"));
    }
}

/// A server works on a disk that fails, is killed, and comes back on one that works. `None` when nothing
/// failed.
fn serve_on((kind, calls): (Kind, &[Call]), when: When, large: bool) -> Option<Fault> {
    let folder = tempfile::tempdir().unwrap();
    let (store, report) = (folder.path().join("store"), folder.path().join("report"));
    let plan = Plan::new(&store, kind, when).calls(calls).report(&report);
    let mut served = Served::start(&store);
    served.kill();
    let starts = served.try_again(|command| assert!(plan.apply(command)));
    let mut pusher = Pusher::new(served.url("app"));
    let patience = Duration::from_millis(if matches!(when, When::From(_)) { 150 } else { 2_000 });
    for round in 0..3 {
        match round {
            0 => pusher.app.fill(60),
            1 if large => pusher.app.blobs(4 * 9),
            _ => pusher.app.work(),
        }
        let done = starts && pusher.sync(patience);
        if starts && !done && matches!(when, When::Only(_)) {
            // That it is full is told at once. A disk that failed once does not keep the server from going on.
            assert!(
                matches!(kind, Kind::Enospc | Kind::Torn) && pusher.sync(patience),
                "{kind:?} of {calls:?} {when:?}: {:?}",
                faults(&report)
            );
        }
    }
    served.kill();
    let fired = faults(&report);
    served.again(&[]);
    let proven = catch_unwind(AssertUnwindSafe(|| pusher.prove()));
    assert!(proven.is_ok(), "{kind:?} of {calls:?} {when:?}: {fired:?}");
    served.stop();
    let mut verify = process::highwater(["verify"]);
    verify.arg(&served.store);
    succeeds(verify, "verify of the store");
    fired.into_iter().next()
}

fn servers(large: bool) {
    let mut failures = Vec::new();
    let mut hit = BTreeMap::new();
    let once = FAULTS.iter().map(|fault| (*fault, true));
    for ((kind, calls), only) in once.chain(FOR_GOOD.iter().map(|fault| (*fault, false))) {
        if large && rounds().is_none() && !matches!(kind, Kind::Torn | Kind::Lost) {
            continue;
        }
        let mut n = 1;
        loop {
            let when = if only { When::Only(n) } else { When::From(n) };
            match catch_unwind(|| serve_on((kind, calls), when, large)) {
                Ok(Some(fault)) => *hit.entry(format!("{} {kind:?}", fault.call)).or_insert(0) += 1,
                Ok(None) => break,
                Err(_) => failures.push(format!("{kind:?} of {calls:?} {when:?}")),
            }
            n = next(n, calls, large || !only);
            assert!(n < 100_000 && failures.len() < 20, "it never ends: {failures:#?}");
        }
    }
    eprintln!("large: {large}: {hit:?}");
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_server_whose_disk_fails_at_any_call_has_what_it_acknowledged() {
    servers(false);
}

#[test]
fn a_server_whose_disk_fails_under_a_large_push_has_what_it_acknowledged() {
    servers(true);
}

#[test]
fn a_server_whose_disk_fails_again_and_again_has_what_it_acknowledged() {
    for seed in seed(1)..seed(1) + rounds().unwrap_or(4) {
        for (kind, calls) in [
            (Kind::Lost, [Call::Sync, Call::Write]),
            (Kind::Torn, [Call::Write, Call::Truncate]),
            (Kind::Eio, [Call::Read, Call::Rename]),
        ] {
            serve_on((kind, &calls), When::Chance(60_000, seed), false);
        }
    }
}
