//! Everybody at once: writers in threads and in another process, a process that does nothing but
//! checkpoint and vacuum, somebody who switches the journal mode, and two devices that sync.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use highwater::{Action, At, Database, Error, ErrorKind, Position, RemoteDatabase};

use crate::bank::{audit, audit_on, found, open, transfer};
use crate::common::{self, Dice, World, assert_same};

/// Tells a copy of this test program what to be; followed by the database's path.
const ROLE: &str = "HIGHWATER_TEST_CHECKPOINTS_CHILD";

struct Process(Child);

impl Process {
    fn start(role: &str, db: &Path, seed: u64) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["live::a_child_of_this_test", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{role} {seed} {}", db.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// It ends when its standard input does; so it does when this test is killed.
    fn end(mut self, case: &str) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success(), "{case}: a child failed");
    }
}

/// Not a test of its own: what the other processes run.
#[test]
fn a_child_of_this_test() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (role, seed, db) = (word(), word().parse().unwrap(), Path::new(word()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            stop.store(true, Ordering::Relaxed);
        });
        let mut dice = Dice::new(seed);
        while !stop.load(Ordering::Relaxed) {
            match role {
                "write" => write_a_while(db, &mut dice, 1 + seed % 7),
                _ => checkpoint(db, &mut dice),
            }
        }
    });
}

fn write_a_while(db: &Path, dice: &mut Dice, pause: u64) {
    let mut connection = open(db);
    for _ in 0..dice.below(60) {
        passing(transfer(&mut connection, dice));
        std::thread::sleep(Duration::from_millis(dice.below(pause)));
    }
}

/// Each time with a connection of its own, as if it were the command-line shell.
fn checkpoint(db: &Path, dice: &mut Dice) {
    let connection = open(db);
    connection.busy_timeout(Duration::from_millis(dice.below(100))).unwrap();
    let sql = match dice.below(40) {
        0 => "VACUUM",
        1..6 => "PRAGMA wal_checkpoint(FULL)",
        6..18 => "PRAGMA wal_checkpoint(RESTART)",
        18..34 => "PRAGMA wal_checkpoint(TRUNCATE)",
        _ => "PRAGMA wal_checkpoint(PASSIVE)",
    };
    passing(connection.execute_batch(sql));
    drop(connection);
    std::thread::sleep(Duration::from_millis(dice.below(8)));
}

/// What is locked is tried again later.
fn passing<T>(result: rusqlite::Result<T>) -> Option<T> {
    use rusqlite::ErrorCode as Code;
    match result {
        Ok(value) => Some(value),
        Err(error)
            if matches!(error.sqlite_error_code(), Some(Code::DatabaseBusy | Code::DatabaseLocked)) =>
        {
            None
        }
        Err(error) => panic!("{error}"),
    }
}

struct Stage<'a> {
    db: &'a Path,
    done: AtomicBool,
    /// Held for reading by whoever of this process has the file open for writing.
    in_use: RwLock<()>,
    switched: AtomicU32,
}

impl Stage<'_> {
    fn on(&self) -> bool {
        !self.done.load(Ordering::Relaxed)
    }

    fn writer(&self, seed: u64) {
        let mut dice = Dice::new(seed);
        while self.on() {
            let in_use = self.in_use.read().unwrap();
            write_a_while(self.db, &mut dice, 3);
            drop(in_use);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// To a rollback journal and back, when it gets the lock.
    fn switcher(&self) {
        while self.on() {
            for mode in ["delete", "wal"] {
                let alone = self.in_use.write().unwrap();
                self.switch(mode);
                drop(alone);
                std::thread::sleep(Duration::from_millis(250));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        let _alone = self.in_use.write().unwrap();
        while !self.switch("wal") {}
    }

    fn switch(&self, mode: &str) -> bool {
        for _ in 0..300 {
            let connection = open(self.db);
            connection.busy_timeout(Duration::ZERO).unwrap();
            let sql = format!("PRAGMA journal_mode={mode}");
            let now = passing(connection.query_row(&sql, [], |row| row.get::<_, String>(0)));
            if now.as_deref() == Some(mode) {
                self.switched.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        false
    }

    /// Syncs without end; returns how often it pushed.
    fn pusher(&self, db: &Database) -> u32 {
        let mut pushed = 0;
        while self.on() {
            match db.sync_blocking() {
                Ok(outcome) if outcome.action == Action::Pushed => pushed += 1,
                Ok(outcome) => assert_eq!(outcome.action, Action::UpToDate),
                Err(error) => assert_busy(&error),
            }
        }
        pushed
    }

    /// Pulls without end; what it has is a committed state, and never an older one.
    fn puller(&self, db: &Database) -> u32 {
        let (mut pulled, mut newest) = (0, 0);
        while self.on() {
            match db.sync_blocking() {
                Ok(outcome) => {
                    assert!(matches!(outcome.action, Action::Pulled | Action::UpToDate), "{outcome:?}");
                    assert_eq!(outcome.pushed.frames, 0);
                    pulled += u32::from(outcome.action == Action::Pulled);
                }
                Err(error) => assert_busy(&error),
            }
            let entries = audit(db.path(), pulled % 10 == 0, "the second device");
            assert!(entries >= newest, "the second device went back from {newest} to {entries}");
            newest = entries;
        }
        pulled
    }

    /// Looks at the second device's file through one open connection all the time.
    fn reader(&self, db: &Path) {
        let connection = open(db);
        let mut newest = 0;
        while self.on() {
            let entries = audit_on(&connection, false, "a reader on the second device");
            assert!(entries >= newest, "a reader went back from {newest} to {entries}");
            newest = entries;
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The application may keep the file locked for longer than a sync waits.
fn assert_busy(error: &Error) {
    let local = matches!(error, Error::Busy { .. } | Error::Local(highwater_pages::Error::Busy { .. }));
    assert!(local && error.kind() == ErrorKind::Failure, "{error}");
}

/// Stops everybody when the test fails, so that it ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_server_only_ever_has_committed_states_and_in_the_end_the_last() {
    let seed = common::seed(7);
    let case = format!("HIGHWATER_TEST_SEED={seed}");
    println!("{case}");
    let world = World::in_memory(|config| config.snapshot.max_files = 150);
    let (first, second) = (world.open("first.db"), world.open("second.db"));
    found(&first.connect().unwrap());
    first.sync_blocking().unwrap();
    second.sync_blocking().unwrap();
    let stage = Stage {
        db: first.path(),
        done: AtomicBool::new(false),
        in_use: RwLock::new(()),
        switched: AtomicU32::new(0),
    };
    let checkpointer = Process::start("checkpoint", first.path(), seed);
    let writer = Process::start("write", first.path(), seed + 1);
    let (pushed, pulled) = std::thread::scope(|scope| {
        // Whoever fails ends the others.
        let act = |work: &dyn Fn() -> u32| {
            let _stop = Stop(&stage.done);
            work()
        };
        let stay = |work: &dyn Fn()| {
            let _stop = Stop(&stage.done);
            work();
        };
        let (stage, first, second) = (&stage, &first, &second);
        let pusher = scope.spawn(move || act(&|| stage.pusher(first)));
        let puller = scope.spawn(move || act(&|| stage.puller(second)));
        scope.spawn(move || stay(&|| stage.reader(second.path())));
        scope.spawn(move || stay(&|| stage.writer(seed + 2)));
        scope.spawn(move || stay(&|| stage.switcher()));
        let end = Instant::now() + Duration::from_secs(u64::from(common::rounds(12)));
        while stage.on() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        stage.done.store(true, Ordering::Relaxed);
        (pusher.join().unwrap(), puller.join().unwrap())
    });
    writer.end(&case);
    checkpointer.end(&case);

    // In the end the last.
    first.sync_blocking().unwrap();
    second.sync_blocking().unwrap();
    let entries = audit(first.path(), true, "the first device");
    assert_same(first.path(), second.path());
    assert_same(first.path(), &world.restored("app"));
    let switched = stage.switched.load(Ordering::Relaxed);
    let positions = audit_history(&world, entries, &case);
    println!(
        "{entries} entries, {pushed} pushes, {pulled} pulls, {switched} switches, {positions} positions"
    );
    // Otherwise the test proved nothing.
    assert!(pushed > 30 && pulled > 10 && entries > 300 && switched >= 2, "{case}");
}

/// Every position that the server ever had is a committed state, and newer than the one before.
fn audit_history(world: &World, last: i64, case: &str) -> usize {
    let remote = RemoteDatabase::new(&world.url("app"), None).unwrap();
    let (mut places, mut after) = (Vec::new(), None);
    loop {
        let page = remote.log_blocking(after, 500).unwrap();
        let Some(newest) = page.entries.last() else { break };
        let place = |entry: &highwater::LogEntry| Position::try_from(&entry.position).unwrap().place();
        after = Some(place(newest));
        places.extend(page.entries.iter().map(place));
    }
    let step = places.len().div_ceil(common::rounds(12) as usize * 30);
    let mut newest = 0;
    for place in places.iter().step_by(step).chain(places.last()) {
        let out = world.path("then.db");
        remote.restore_blocking(&out, At::Place(*place), |_| ()).unwrap();
        let entries = audit(&out, true, &format!("{case}: the server at {place}"));
        assert!(entries >= newest, "{case}: the server went back at {place}");
        newest = entries;
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(world.path(&format!("then.db{suffix}")));
        }
    }
    assert_eq!(newest, last, "{case}");
    places.len()
}
