//! The process as the system sees it. Read when it is asked for; what this system does not tell is
//! left out.

use std::fmt;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

pub(super) const NAMES: [&str; 3] = [UPTIME, RESIDENT, FILES];
const UPTIME: &str = "highwater_uptime_seconds";
const RESIDENT: &str = "process_resident_memory_bytes";
const FILES: &str = "process_open_fds";

#[derive(Debug)]
pub(super) struct Process {
    pub(super) began: Instant,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: Option<u64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(UPTIME, "Time since the server was started", Some(self.began.elapsed().as_secs()))?;
        gauge(RESIDENT, "Memory of the process", resident())?;
        gauge(FILES, "Files and sockets that the process has open", open_files())
    }
}

/// In bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

fn open_files() -> Option<u64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}
