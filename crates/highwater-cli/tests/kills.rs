//! Client and server processes killed (SIGKILL): at every named step, the first and the last time it
//! is passed, and at random moments. Afterwards one plain sync ends in equal databases, and nothing
//! is stored twice.
//!
//! The steps are not listed here: a dry run writes down which ones a scenario passes, and a step of
//! the sources that no scenario passes fails the test.
//!
//! `HIGHWATER_TEST_ROUNDS=500` kills at random so many clients (and an eighth of that many servers),
//! `HIGHWATER_TEST_SEED` chooses the moments.
#![cfg(unix)]
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

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common_kill::app::{App, Rows};
use common_kill::process::{self, SIGKILL, Served, dies, first_and_last, named_in_sources, points, succeeds};
use common_kill::proof::{self, database, entries, equal};
use common_kill::random::{Random, rounds, seed};
use highwater::At;

/// What a client does when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Push,
    /// More than 32 MiB: the body is made while it is sent.
    PushStreamed,
    Pull,
    /// More than 16 MiB: the answer goes through a temporary file.
    PullSpilled,
    BootstrapFile,
    /// The empty database is open in the application.
    BootstrapBlank,
    /// The empty database has another page size than the server's.
    BootstrapResized,
    FirstPush,
    /// More than 4 MiB: the server is asked beforehand whether it knows the file.
    FirstPushLarge,
    /// The sync after one whose answer was lost, with local work in between.
    RecoverPush,
    /// The sync after one that was killed when it had written the server's pages.
    RecoverPull,
    /// The sync after one that was killed right before it wrote the server's pages; there are newer ones.
    PullAgain,
}

/// One file and its database on the server.
struct Case {
    folder: tempfile::TempDir,
    url: String,
    app: App,
    /// What must be there in the end, if nothing is written after the kill.
    model: Rows,
}

impl Case {
    fn db(&self) -> PathBuf {
        self.folder.path().join("local").join("app.db")
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }
}

/// Brings about the moment before the sync that is killed.
fn prepare(scenario: Scenario, url: String) -> Case {
    let folder = tempfile::tempdir().unwrap();
    for name in ["local", "other", "scratch"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let db = folder.path().join("local").join("app.db");
    let other = folder.path().join("other").join("other.db");
    let sync = |app: &App| database(&app.path, &url).sync_blocking().unwrap();
    let mut app;
    let mut model = None;
    match scenario {
        Scenario::Push | Scenario::PushStreamed | Scenario::RecoverPush => {
            app = App::create(&db, 4096);
            app.fill(60);
            sync(&app);
            app.work();
            match scenario {
                Scenario::PushStreamed => app.blobs(4 * 33),
                Scenario::RecoverPush => {
                    dies(process::sync(&db, &url), "sync.answered");
                    app.work();
                }
                _ => {}
            }
        }
        Scenario::FirstPush | Scenario::FirstPushLarge => {
            app = App::create(&db, 4096);
            app.fill(60);
            if scenario == Scenario::FirstPushLarge {
                app.blobs(4 * 5);
            }
        }
        Scenario::Pull | Scenario::PullSpilled | Scenario::RecoverPull | Scenario::PullAgain => {
            let mut there = App::create(&other, 4096);
            there.fill(1000);
            sync(&there);
            database(&db, &url).sync_blocking().unwrap();
            app = App::open(&db, there.rows.clone());
            there.work();
            there.rewrite_some();
            if scenario == Scenario::PullSpilled {
                there.blobs(4 * 17);
            }
            sync(&there);
            if scenario == Scenario::RecoverPull {
                dies(process::sync(&db, &url), "record.sums_saved");
            }
            if scenario == Scenario::PullAgain {
                dies(process::sync(&db, &url), "pull.sums_ahead");
                there.work();
                sync(&there);
            }
            model = Some(there.rows);
        }
        Scenario::BootstrapFile | Scenario::BootstrapBlank | Scenario::BootstrapResized => {
            let mut there = App::create(&other, 512);
            there.fill(60);
            // More than 2,048 pages.
            there.blobs(5);
            sync(&there);
            app = match scenario {
                Scenario::BootstrapBlank => App::blank(&db, 512),
                Scenario::BootstrapResized => App::blank(&db, 4096),
                _ => App::absent(&db),
            };
            if scenario == Scenario::BootstrapResized {
                app.close();
            }
            model = Some(there.rows);
        }
    }
    let model = model.unwrap_or_else(|| app.rows.clone());
    Case { folder, url, app, model }
}

/// The steps that a scenario passes, each with the first and the last time.
fn steps_of(scenario: Scenario, url: String) -> (Vec<String>, BTreeSet<String>) {
    let mut case = prepare(scenario, url);
    let log = case.scratch().join("points");
    let pushes = entries(&case.url).len();
    let mut command = process::sync(&case.db(), &case.url);
    command.env("HIGHWATER_KILL_LOG", &log);
    succeeds(command, "the dry run");
    case.app.close();
    let expected = pushes + usize::from(is_push(scenario));
    equal(&case.db(), &case.url, &case.model, expected, &case.scratch());
    let points = points(&log);
    (first_and_last(&points), points.into_keys().collect())
}

fn is_push(scenario: Scenario) -> bool {
    use Scenario::{FirstPush, FirstPushLarge, Push, PushStreamed, RecoverPush};
    matches!(scenario, Push | PushStreamed | FirstPush | FirstPushLarge | RecoverPush)
}

/// What happens between the kill and the next sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    /// The application writes on.
    Work,
    /// The application ends (its log is checkpointed and removed), starts again, changes every row and
    /// ends again.
    Rewrite,
}

/// Kills a client at a step, and lets one plain sync make it good.
fn kill_at(scenario: Scenario, at: &str, between: Between, url: String) {
    let mut case = prepare(scenario, url);
    let what = format!("{scenario:?} killed at {at}, then {between:?}");
    let before = entries(&case.url).len();
    if between == Between::Rewrite {
        case.app.close();
    }
    dies(process::sync(&case.db(), &case.url), at);
    let now = entries(&case.url).len();
    assert!(now == before || (now == before + 1 && is_push(scenario)), "{what}: {before} and {now} pushes");
    // What a pull has not brought yet conflicts with local work: that is another test's subject.
    let may_write = is_push(scenario) || case.app.looks() == case.model;
    if between != Between::Nothing && may_write {
        case.app.rows = case.model.clone();
        match between {
            Between::Work => case.app.work(),
            _ => {
                case.app.rewrite();
                case.app.close();
            }
        }
        case.model = case.app.rows.clone();
    }
    let pushes = if is_push(scenario) {
        let arrived = now > before;
        now + usize::from(!arrived || between != Between::Nothing)
    } else {
        now + usize::from(between != Between::Nothing && may_write)
    };
    let output = process::sync(&case.db(), &case.url).output().unwrap();
    if !is_push(scenario) && between == Between::Rewrite {
        // No page is left as the pull wrote it, so nothing proves that it was written: the server's changes could be
        // new. Then they are merged: rows may come twice, and none is lost.
        let found = Rows::read(&case.db());
        found.assert_has(&case.model, &what);
        if found != case.model {
            assert!(output.status.success(), "{what}: {}", process::told(&output));
            equal(&case.db(), &case.url, &found, now + 1, &case.scratch());
            return;
        }
    }
    assert!(output.status.success(), "{what}: {}", process::told(&output));
    let heavy = matches!(scenario, Scenario::PushStreamed | Scenario::PullSpilled);
    let proven = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        equal(&case.db(), &case.url, &case.model, pushes, &case.scratch());
        if !heavy {
            proof::nothing_twice(&case.url, &case.scratch());
        }
    }));
    if let Err(panic) = proven {
        eprintln!("{what}: not equal");
        std::panic::resume_unwind(panic);
    }
}

/// Every step of the scenarios, with what may happen in between. Returns the names of the steps.
fn kill_everywhere(
    scenarios: &[Scenario],
    betweens: fn(Scenario, usize, &str) -> Vec<Between>,
) -> BTreeSet<String> {
    let store = tempfile::tempdir().unwrap();
    let served = Served::start(store.path());
    let number = AtomicU64::new(0);
    let url = || served.url(&format!("app-{}", number.fetch_add(1, Ordering::SeqCst)));
    let mut passed = BTreeSet::new();
    let mut failures = Vec::new();
    let mut cases = 0;
    for scenario in scenarios {
        let began = Instant::now();
        let (steps, names) = steps_of(*scenario, url());
        for (number, at) in steps.iter().enumerate() {
            for between in betweens(*scenario, number, at) {
                let url = url();
                let run = || kill_at(*scenario, at, between, url);
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                    failures.push(format!("{scenario:?} at {at}, then {between:?}"));
                }
                cases += 1;
            }
        }
        eprintln!("{scenario:?}: {} steps in {:?}: {}", steps.len(), began.elapsed(), steps.join(" "));
        passed.extend(names);
    }
    assert!(failures.is_empty(), "{} of {cases} failed:\n{}", failures.len(), failures.join("\n"));
    passed
}

/// What happens after the kill at the step of this number. With `HIGHWATER_TEST_ROUNDS` everything;
/// else it takes turns, and the large transfers are killed where the small ones cannot be.
fn betweens(scenario: Scenario, step: usize, at: &str) -> Vec<Between> {
    use Scenario::{FirstPush, Pull, PullAgain, PullSpilled, Push, PushStreamed, RecoverPull};
    let mut all = vec![Between::Nothing, Between::Work, Between::Rewrite];
    if matches!(scenario, Pull | PullAgain | PullSpilled | RecoverPull) {
        // Local work after a pull has a test of its own.
        all.truncate(1);
    }
    if rounds().is_some() {
        return all;
    }
    let special = ["push.", "pull.", "commit.", "sync.answered", "record.sums_saved"];
    match scenario {
        PushStreamed | PullSpilled if !special.iter().any(|name| at.starts_with(name)) => Vec::new(),
        Push | FirstPush => vec![all[0], all[1 + step % 2]],
        _ => vec![all[step % all.len()]],
    }
}

/// Local work after every kill of a pull (as far as the pull was written by then).
fn work_after_pulls(scenario: Scenario, step: usize, at: &str) -> Vec<Between> {
    let both = [Between::Work, Between::Rewrite];
    match scenario {
        Scenario::PullSpilled if at != "pull.committed:1" => Vec::new(),
        _ if rounds().is_some() => both.to_vec(),
        _ => vec![both[step % 2]],
    }
}

fn without_kill_points() -> bool {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: a release build has no kill points");
    }
    !cfg!(debug_assertions)
}

#[test]
fn a_client_killed_at_any_step_carries_on() {
    if without_kill_points() {
        return;
    }
    use Scenario::{
        BootstrapBlank, BootstrapFile, BootstrapResized, FirstPush, FirstPushLarge, Pull, PullAgain,
        PullSpilled, Push, PushStreamed, RecoverPull, RecoverPush,
    };
    // Two threads, for two processors.
    let groups: [&[Scenario]; 2] = [
        &[Push, Pull, FirstPush, RecoverPush, RecoverPull, PullAgain, FirstPushLarge],
        &[BootstrapFile, BootstrapBlank, BootstrapResized, PushStreamed, PullSpilled],
    ];
    let passed: BTreeSet<String> = std::thread::scope(|scope| {
        let running = groups.map(|group| scope.spawn(|| kill_everywhere(group, betweens)));
        running.into_iter().flat_map(|group| group.join().unwrap()).collect()
    });
    let named = named_in_sources(&["highwater", "highwater-pages", "highwater-cli"]);
    // Those of a rebase are in `rebase_kill.rs`.
    let here = named.iter().filter(|name| !name.starts_with("rebase."));
    let missed: Vec<_> = here.filter(|name| !passed.contains(*name)).collect();
    assert!(missed.is_empty(), "no scenario passes these steps: {missed:?}");
}

#[test]
fn work_after_a_killed_pull_that_was_written_is_no_conflict() {
    if without_kill_points() {
        return;
    }
    kill_everywhere(
        &[Scenario::Pull, Scenario::RecoverPull, Scenario::PullAgain, Scenario::PullSpilled],
        work_after_pulls,
    );
}

/// Starts a killed server again, as an operator's service manager does.
struct Keeper {
    served: Arc<Mutex<Served>>,
    /// How often it was killed.
    deaths: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Keeper {
    fn of(served: Served) -> Self {
        let (served, deaths) = (Arc::new(Mutex::new(served)), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, count, end) = (Arc::clone(&served), Arc::clone(&deaths), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                let mut served = kept.lock().unwrap();
                if let Some(status) = served.ended() {
                    assert_eq!(status.signal(), Some(SIGKILL), "the server ended by itself: {status}");
                    count.fetch_add(1, Ordering::SeqCst);
                    served.again(&[]);
                }
                drop(served);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { served, deaths, stop, thread: Some(thread) }
    }

    fn url(&self, name: &str) -> String {
        self.served.lock().unwrap().url(name)
    }

    /// Ends the keeping, stops the server gracefully and has the store read to its last byte.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        let mut served = self.served.lock().unwrap();
        served.stop();
        let mut verify = process::highwater(["verify"]);
        verify.arg(&served.store);
        succeeds(verify, "verify of the store");
        self.deaths.load(Ordering::SeqCst)
    }
}

impl Drop for Keeper {
    /// Leaves no server behind when a test fails.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.served.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

/// A file whose pushes are counted, and every answer to them remembered.
struct Pusher {
    app: App,
    url: String,
    folder: tempfile::TempDir,
    /// Transaction and state of every acknowledged sync.
    acknowledged: Vec<(u64, String)>,
    /// Syncs that moved something.
    pushes: usize,
}

impl Pusher {
    fn new(url: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["local", "scratch"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let app = App::create(&folder.path().join("local").join("app.db"), 4096);
        Self { app, url, folder, acknowledged: Vec::new(), pushes: 0 }
    }

    /// Syncs what the application changed, however often the server dies meanwhile.
    fn sync(&mut self) {
        let db = database(&self.app.path, &self.url);
        let began = Instant::now();
        let outcome = loop {
            match db.sync_blocking() {
                Ok(outcome) => break outcome,
                Err(error) => {
                    let offline = error.kind() == highwater::ErrorKind::Offline;
                    assert!(offline && began.elapsed() < Duration::from_secs(20), "{error}");
                }
            }
        };
        self.pushes += 1;
        let position = outcome.position.unwrap();
        self.acknowledged.push((outcome.txid.unwrap().0, position.state.to_string()));
    }

    /// Everything that was acknowledged is there, each push once.
    fn prove(&mut self) {
        let log = entries(&self.url);
        for (txid, state) in &self.acknowledged {
            let entry = log.iter().find(|entry| entry.txid == *txid);
            let found =
                entry.unwrap_or_else(|| panic!("transaction {txid} was acknowledged and is gone: {log:#?}"));
            assert_eq!(found.position.state, *state, "transaction {txid}");
        }
        let scratch = self.folder.path().join("scratch");
        equal(&self.app.path, &self.url, &self.app.rows, self.pushes, &scratch);
    }
}

/// What a server is made to do: a small push, a large one that is staged, pushes that outweigh the
/// database so that a snapshot is written, a push after that, and a copy of everything.
fn server_work(keeper: &Keeper) -> [Pusher; 3] {
    let mut small = Pusher::new(keeper.url("small"));
    small.app.fill(20);
    small.sync();
    small.app.work();
    small.sync();
    let mut large = Pusher::new(keeper.url("large"));
    large.app.fill(20);
    large.sync();
    large.app.blobs(4 * 9);
    large.sync();
    let mut heavy = Pusher::new(keeper.url("heavy"));
    for _ in 0..3 {
        heavy.app.blobs(5);
        heavy.sync();
    }
    let snapshots = keeper.served.lock().unwrap().store.join("heavy").join("ltx").join("9");
    let deadline = Instant::now() + Duration::from_secs(10);
    // A server that was killed over the snapshot tries again after the next push.
    let mut extra = 0;
    while std::fs::read_dir(&snapshots).map_or(0, Iterator::count) == 0 {
        assert!(Instant::now() < deadline, "no snapshot is written");
        std::thread::sleep(Duration::from_millis(10));
        if keeper.deaths.load(Ordering::SeqCst) > extra {
            extra += 1;
            heavy.app.work();
            heavy.sync();
        }
    }
    // The snapshot may just have got its name: the next push tells whether it is known.
    for _ in 0..2 {
        heavy.app.work();
        heavy.sync();
        std::thread::sleep(Duration::from_millis(20));
    }
    [small, large, heavy]
}

fn server_proof(mut pushers: [Pusher; 3]) {
    pushers.iter_mut().for_each(Pusher::prove);
    let [small, _, heavy] = pushers;
    proof::nothing_twice(&small.url, &small.folder.path().join("scratch"));
    let last = entries(&heavy.url).last().unwrap().position.generation;
    assert!(last > 1, "a new generation begins after the snapshot");
}

#[test]
fn a_server_killed_at_any_step_keeps_what_it_acknowledged() {
    if without_kill_points() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("points");
    let mut served = Served::start(&folder.path().join("dry"));
    served.kill();
    served.again(&[("HIGHWATER_KILL_LOG", log.to_str().unwrap())]);
    let keeper = Keeper::of(served);
    let pushers = server_work(&keeper);
    let points = points(&log);
    server_proof(pushers);
    assert_eq!(keeper.end(), 0);
    let named = named_in_sources(&["highwater-server"]);
    // Other tests pass these and kill there: `admin_kill.rs`, `libsql_heal.rs`, `libsql_rare.rs` and `merge_kill.rs` of the
    // server, and `rebase_kill.rs`.
    let elsewhere = [
        "server-admin-",
        "server-collect-",
        "server-libsql-",
        "server-merge-",
        "server-rebased-",
        "server-refused-",
    ];
    let here = named.iter().filter(|name| !elsewhere.iter().any(|begin| name.starts_with(begin)));
    let missed: Vec<_> = here.filter(|name| !points.contains_key(*name)).collect();
    assert!(missed.is_empty(), "nothing passes these steps: {missed:?}");
    let steps: Vec<String> =
        first_and_last(&points).into_iter().filter(|at| at.starts_with("server-")).collect();
    eprintln!("server: {} steps: {}", steps.len(), steps.join(" "));
    for at in &steps {
        let mut served = Served::start(&folder.path().join(at));
        served.kill();
        served.again(&[("HIGHWATER_KILL_AT", at)]);
        let keeper = Keeper::of(served);
        let work =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server_proof(server_work(&keeper))));
        assert!(work.is_ok(), "the server was killed at {at}");
        assert_eq!(keeper.end(), 1, "{at} must kill the server");
    }
}

#[test]
fn a_client_killed_at_random_while_the_application_writes_loses_nothing() {
    let (rounds, seed) = (rounds().unwrap_or(60), seed(1));
    eprintln!("{rounds} rounds, HIGHWATER_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let store = tempfile::tempdir().unwrap();
    let mut served = Served::start(store.path());
    let folder = tempfile::tempdir().unwrap();
    for name in ["local", "scratch"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("local").join("app.db");
    let url = served.url("app");
    let mut app = App::create(&path, 4096);
    app.insert(1);
    database(&path, &url).sync_blocking().unwrap();
    let app = Arc::new(Mutex::new(app));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (app, stop) = (Arc::clone(&app), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut number = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                let mut app = app.lock().unwrap();
                app.insert(1);
                number += 1;
                // Now and then it ends and starts again, and its log goes.
                if number.is_multiple_of(97) {
                    app.close();
                }
                drop(app);
                std::thread::sleep(Duration::from_micros(500 + number % 7 * 400));
            }
        })
    };
    let mut killed = 0;
    let mut syncs = 1;
    for round in 0..rounds {
        let mut child = process::sync(&path, &url).spawn().unwrap();
        // Up to 30 ms, and most of them while the sync is under way.
        let most = [4_000, 12_000, 30_000][random.below(3) as usize];
        std::thread::sleep(Duration::from_micros(random.below(most)));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        killed += u64::from(output.status.signal() == Some(SIGKILL));
        if random.below(3) == 0 {
            succeeds(process::sync(&path, &url), &format!("round {round}"));
        }
        syncs += 2;
        if round % 20 == 19 || round + 1 == rounds {
            // The writer pauses.
            let mut app = app.lock().unwrap();
            succeeds(process::sync(&path, &url), &format!("round {round}"));
            syncs += 1;
            if random.below(2) == 0 {
                app.close();
            }
            let log = entries(&url);
            assert!(log.len() <= syncs, "{} pushes of {syncs} syncs", log.len());
            equal(&path, &url, &app.rows, log.len(), &folder.path().join("scratch"));
        }
    }
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    // The server only ever had what the application had committed: the rows 1 to n, for a growing n.
    let log = entries(&url);
    let mut before = 0;
    for entry in log.iter().step_by((log.len() / 40).max(1)) {
        let place = format!("{}/{}", entry.position.generation, entry.position.frame).parse().unwrap();
        let (rows, state, _) = proof::restored(&url, At::Place(place), &folder.path().join("scratch"));
        assert_eq!(state, entry.position.state);
        assert!(rows.is_run() && rows.len() > before, "{} rows after {before}: {entry:?}", rows.len());
        before = rows.len();
    }
    eprintln!(
        "{killed} of {rounds} clients were killed; {} rows in {} pushes",
        app.lock().unwrap().rows.len(),
        log.len()
    );
    assert!(killed * 4 > rounds, "too few of the clients were killed to show anything");
    served.stop();
    let mut verify = process::highwater(["verify"]);
    verify.arg(&served.store);
    succeeds(verify, "verify of the store");
}

#[test]
fn a_server_killed_at_random_keeps_what_it_acknowledged() {
    let rounds = rounds().map_or(15, |rounds| (rounds / 8).max(1));
    let seed = seed(2);
    eprintln!("{rounds} rounds, HIGHWATER_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let store = tempfile::tempdir().unwrap();
    let keeper = Keeper::of(Served::start(store.path()));
    let mut small = Pusher::new(keeper.url("small"));
    let mut heavy = Pusher::new(keeper.url("heavy"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (keeper, done) = (&keeper, &done);
        scope.spawn(move || {
            while keeper.deaths.load(Ordering::SeqCst) < rounds {
                std::thread::sleep(Duration::from_micros(5_000 + random.below(250_000)));
                let deaths = keeper.deaths.load(Ordering::SeqCst);
                keeper.served.lock().unwrap().murder();
                while keeper.deaths.load(Ordering::SeqCst) == deaths {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            small.app.work();
            small.sync();
            heavy.app.blobs(6);
            heavy.sync();
        }
    });
    small.prove();
    heavy.prove();
    eprintln!("{} and {} pushes", small.pushes, heavy.pushes);
    assert!(keeper.end() >= rounds);
}
