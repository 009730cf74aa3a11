//! How much processes take, at most.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};

/// The largest values that were seen.
#[derive(Debug, Default)]
pub(crate) struct Peaks {
    server: Peak,
    client: Peak,
    log: AtomicU64,
}

#[derive(Debug, Default)]
struct Peak {
    memory: AtomicU64,
    descriptors: AtomicU64,
}

impl Peak {
    fn look(&self, id: u32) {
        // A process that has ended, or a system without /proc, says nothing.
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        self.memory.fetch_max(kib.unwrap_or(0) << 10, Ordering::Relaxed);
        let open = std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count);
        self.descriptors.fetch_max(open as u64, Ordering::Relaxed);
    }
}

impl Peaks {
    pub(crate) fn server(&self, id: u32) {
        self.server.look(id);
    }

    pub(crate) fn client(&self, id: u32) {
        self.client.look(id);
    }

    /// The write-ahead log of a database.
    pub(crate) fn log(&self, db: &Path) {
        let mut path = db.as_os_str().to_owned();
        path.push("-wal");
        let size = std::fs::metadata(path).map_or(0, |found| found.len());
        self.log.fetch_max(size, Ordering::Relaxed);
    }

    /// Says what was seen, and whether it is too much.
    pub(crate) fn check(&self, memory: u64, descriptors: u64, log: u64) -> Result<()> {
        for (name, peak) in [("server", &self.server), ("sync", &self.client)] {
            let seen = (peak.memory.load(Ordering::Relaxed), peak.descriptors.load(Ordering::Relaxed));
            println!("{name}: at most {} MiB and {} file descriptors", seen.0 >> 20, seen.1);
            ensure!(seen.0 <= memory, "a {name} takes {} MiB, more than {}", seen.0 >> 20, memory >> 20);
            ensure!(seen.1 <= descriptors, "a {name} has {} files open, more than {descriptors}", seen.1);
        }
        let seen = self.log.load(Ordering::Relaxed);
        println!("write-ahead logs: at most {} KiB", seen >> 10);
        ensure!(seen <= log, "a write-ahead log has {} MiB, more than {}", seen >> 20, log >> 20);
        Ok(())
    }
}
