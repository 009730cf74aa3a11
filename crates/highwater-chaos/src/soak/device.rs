//! One device: a file, its writer, its checkpointer, its reader, and its syncs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use highwater_chaos::Random;
use rusqlite::Connection;

use crate::measure::Peaks;

/// What all accounts of a device have together.
const MONEY: i64 = 10_000;
const ACCOUNTS: i64 = 20;

/// Rows are known by who wrote them: nobody changes another's.
const SCHEMA: &str = "
    CREATE TABLE entry(writer INTEGER, n INTEGER, text TEXT NOT NULL, PRIMARY KEY(writer, n));
    CREATE TABLE account(writer INTEGER, id INTEGER, money INTEGER NOT NULL, PRIMARY KEY(writer, id));
    CREATE INDEX entry_text ON entry(text);";

/// What goes on at a device until it is told to stop.
type Work = fn(&Device, &AtomicBool, Random) -> Result<()>;

pub(crate) struct Device {
    number: i64,
    pub(crate) path: PathBuf,
    highwater: PathBuf,
    url: String,
    peaks: Arc<Peaks>,
    /// The last entry that it committed.
    last: AtomicI64,
    syncs: AtomicU64,
    failed: AtomicU64,
    killed: AtomicU64,
}

fn open(path: &Path) -> Result<Connection> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(Duration::from_secs(60))?;
    Ok(conn)
}

/// What an entry says: long ones now and then.
fn text(writer: i64, n: i64) -> String {
    format!("{writer}/{n} ").repeat(if n % 50 == 0 { 2_000 } else { 3 })
}

impl Device {
    /// Makes the file: the first device the database, the others a copy of it.
    pub(crate) fn new(
        number: usize,
        folder: &Path,
        highwater: &Path,
        url: &str,
        peaks: Arc<Peaks>,
    ) -> Result<Self> {
        let folder = folder.join(format!("device-{number}"));
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("app.db");
        let device = Self {
            number: i64::try_from(number)?,
            path,
            highwater: highwater.to_owned(),
            url: url.to_owned(),
            peaks,
            last: AtomicI64::new(0),
            syncs: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            killed: AtomicU64::new(0),
        };
        if number == 0 {
            open(&device.path)?.execute_batch(&format!("PRAGMA journal_mode=WAL; {SCHEMA}"))?;
        }
        device.sync_in_the_end(Duration::from_secs(20))?;
        let mut conn = open(&device.path)?;
        let transaction = conn.transaction()?;
        for id in 1..=ACCOUNTS {
            let row = (device.number, id, MONEY / ACCOUNTS);
            transaction.execute("INSERT INTO account VALUES(?1, ?2, ?3)", row)?;
        }
        transaction.commit()?;
        Ok(device)
    }

    /// Starts everything that goes on at once.
    pub(crate) fn run(self: &Arc<Self>, stop: &Arc<AtomicBool>, seed: u64) -> Vec<JoinHandle<Result<()>>> {
        let works: [Work; 4] = [Self::write, Self::checkpoint, Self::look, Self::sync_on];
        let start = |(at, work): (u64, Work)| {
            let (device, stop) = (Arc::clone(self), Arc::clone(stop));
            std::thread::spawn(move || work(&device, &stop, Random::new(seed ^ at)))
        };
        (1_u64..).zip(works).map(start).collect()
    }

    fn write(&self, stop: &AtomicBool, mut random: Random) -> Result<()> {
        let mut conn = open(&self.path)?;
        while !stop.load(Ordering::SeqCst) {
            let mut last = self.last.load(Ordering::SeqCst);
            let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for _ in 0..=random.below(4) {
                last += 1;
                transaction.execute(
                    "INSERT INTO entry VALUES(?1, ?2, ?3)",
                    (self.number, last, text(self.number, last)),
                )?;
            }
            let amount = i64::try_from(random.below(50))?;
            for (sign, account) in [(-1, random.below(20)), (1, random.below(20))] {
                let row = (sign * amount, self.number, i64::try_from(account)? + 1);
                transaction
                    .execute("UPDATE account SET money = money + ?1 WHERE writer = ?2 AND id = ?3", row)?;
            }
            transaction.commit()?;
            self.last.store(last, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5 + random.below(60)));
        }
        Ok(())
    }

    /// Another program that checkpoints whenever it likes.
    fn checkpoint(&self, stop: &AtomicBool, mut random: Random) -> Result<()> {
        while !stop.load(Ordering::SeqCst) {
            let conn = open(&self.path)?;
            conn.busy_timeout(Duration::from_millis(200))?;
            let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"].get(usize::try_from(random.below(4))?);
            let sql = format!("PRAGMA wal_checkpoint({})", mode.unwrap_or(&"PASSIVE"));
            // That it is busy is an answer.
            conn.query_row(&sql, [], |_| Ok(())).or_else(busy_is_fine)?;
            self.peaks.log(&self.path);
            drop(conn);
            std::thread::sleep(Duration::from_millis(50 + random.below(400)));
        }
        Ok(())
    }

    /// Every transaction is seen whole or not at all: sums hold, and lists have no holes.
    fn look(&self, stop: &AtomicBool, mut random: Random) -> Result<()> {
        let mut conn = open(&self.path)?;
        while !stop.load(Ordering::SeqCst) {
            whole(&mut conn).with_context(|| format!("device {}", self.number))?;
            std::thread::sleep(Duration::from_millis(20 + random.below(200)));
        }
        Ok(())
    }

    fn command(&self, timeout: &str) -> Command {
        let mut command = Command::new(&self.highwater);
        command.arg("sync").arg(&self.path);
        command.args([
            OsStr::new("--remote"),
            OsStr::new(&self.url),
            OsStr::new("--timeout"),
            OsStr::new(timeout),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn sync_on(&self, stop: &AtomicBool, mut random: Random) -> Result<()> {
        while !stop.load(Ordering::SeqCst) {
            let mut child = self.command("4s").spawn()?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            // A network that says nothing at all is given up after a minute.
            let deadline = Instant::now() + Duration::from_secs(150);
            let kill = random.below(6) == 0;
            let killed = Instant::now() + Duration::from_millis(random.below(200));
            let mut signalled = false;
            while child.try_wait()?.is_none() {
                self.peaks.client(child.id());
                if kill && !signalled && Instant::now() > killed {
                    child.kill()?;
                    signalled = true;
                }
                ensure!(
                    Instant::now() < deadline,
                    "a sync of device {} takes more than two minutes",
                    self.number
                );
                std::thread::sleep(Duration::from_millis(5));
            }
            let output = child.wait_with_output()?;
            if signalled {
                self.killed.fetch_add(1, Ordering::Relaxed);
            } else if !output.status.success() {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.may_fail(&output)?;
            }
            std::thread::sleep(Duration::from_millis(random.below(300)));
        }
        Ok(())
    }

    /// A bad network is a reason to fail; a panic is none, nor is an answer that makes no sense to a person.
    fn may_fail(&self, output: &Output) -> Result<()> {
        let said = String::from_utf8_lossy(&output.stderr);
        let fine = matches!(output.status.code(), Some(1 | 4))
            && said.contains("error: ")
            && !said.contains("panicked");
        ensure!(fine, "a sync of device {} ended with {}: {said}", self.number, output.status);
        ensure!(
            !["conflict", "does not come from", "SQLite failed"].iter().any(|word| said.contains(word)),
            "a sync of device {} was refused: {said}",
            self.number
        );
        Ok(())
    }

    /// On a network that works, within this time.
    pub(crate) fn sync_in_the_end(&self, within: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let output = self
                .command("10s")
                .output()
                .with_context(|| format!("running {}", self.highwater.display()))?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(began.elapsed() < within, "device {} does not get through: {said}", self.number);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Everything that the other one committed.
    pub(crate) fn has_all_of(&self, other: &Self) -> Result<()> {
        whole(&mut open(&self.path)?)?;
        self.has_rows(other.number, other.last.load(Ordering::SeqCst))
    }

    /// The entries 1 to `last` of a writer, and no others.
    pub(crate) fn has_rows(&self, writer: i64, last: i64) -> Result<()> {
        let conn = open(&self.path)?;
        let mut found = conn.prepare("SELECT n, text FROM entry WHERE writer = ?1 ORDER BY n")?;
        let mut rows = found.query([writer])?;
        let mut expected = 0;
        while let Some(row) = rows.next()? {
            expected += 1;
            let (n, said): (i64, String) = (row.get(0)?, row.get(1)?);
            ensure!(
                n == expected && said == text(writer, n),
                "device {}: entry {n} of writer {writer} where {expected} should be",
                self.number
            );
        }
        ensure!(
            expected == last,
            "device {} has {expected} entries of writer {writer}, who wrote {last}",
            self.number
        );
        Ok(())
    }
}

fn busy_is_fine(error: rusqlite::Error) -> Result<()> {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Ok(()),
        _ => bail!(error),
    }
}

/// In one snapshot: every writer's money is all there, and every writer's entries have no holes.
fn whole(conn: &mut Connection) -> Result<()> {
    let snapshot = conn.transaction()?;
    let sums = "SELECT count(*) FROM (SELECT 1 FROM account GROUP BY writer HAVING sum(money) <> ?1 OR count(*) <> ?2)";
    let wrong: i64 = snapshot.query_row(sums, (MONEY, ACCOUNTS), |row| row.get(0))?;
    ensure!(wrong == 0, "half a transfer is visible");
    let holes =
        "SELECT count(*) FROM (SELECT 1 FROM entry GROUP BY writer HAVING min(n) <> 1 OR max(n) <> count(*))";
    let wrong: i64 = snapshot.query_row(holes, [], |row| row.get(0))?;
    ensure!(wrong == 0, "a writer's entries have a hole");
    Ok(())
}

/// Two files hold the same rows.
pub(crate) fn same(one: &Path, other: &Path) -> Result<()> {
    let conn = open(one)?;
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(check == "ok", "{}: {check}", one.display());
    conn.execute("ATTACH ?1 AS other", [other.to_str().context("a path that is text")?])?;
    for table in ["entry", "account"] {
        for (left, right) in [("main", "other"), ("other", "main")] {
            let sql = format!(
                "SELECT count(*) FROM (SELECT * FROM {left}.{table} EXCEPT SELECT * FROM {right}.{table})"
            );
            let differ: i64 = conn.query_row(&sql, [], |row| row.get(0))?;
            ensure!(
                differ == 0,
                "{differ} rows of {table} differ between {} and {}",
                one.display(),
                other.display()
            );
        }
    }
    Ok(())
}

/// What they did, for people.
pub(crate) fn summary(devices: &[Arc<Device>]) -> String {
    let sum =
        |of: fn(&Device) -> &AtomicU64| devices.iter().map(|d| of(d).load(Ordering::Relaxed)).sum::<u64>();
    let rows: i64 = devices.iter().map(|device| device.last.load(Ordering::SeqCst)).sum();
    let (syncs, failed, killed) = (sum(|d| &d.syncs), sum(|d| &d.failed), sum(|d| &d.killed));
    format!("{rows} entries written; {syncs} syncs, {failed} failed, {killed} killed")
}
