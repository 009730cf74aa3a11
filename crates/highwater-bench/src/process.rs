//! The other two processes: starting them, asking them, and what the system says of a process.
//!
//! Questions and answers are JSON, one a line, over standard input and output. A role ends when its
//! input does.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the system says of a process.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// The most memory that was resident since the last reset, in bytes. 0: the system does not say.
    pub(crate) peak: u64,
    /// Processor time since the process began, in milliseconds, to the nearest 10.
    pub(crate) cpu_ms: u64,
}

impl Usage {
    /// Of this process.
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib =
            peak.and_then(|peak| peak.split_whitespace().next()).and_then(|peak| peak.parse::<u64>().ok());
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // Behind the name in parentheses: utime and stime are the 12th and 13th field.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        Self { peak: kib.unwrap_or(0) * 1024, cpu_ms: ticks * 10 }
    }

    /// Forgets the peak of this process, where the system can.
    #[allow(clippy::disallowed_methods, reason = "this is no file, but an order to the system")]
    pub(crate) fn reset_peak() {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}

/// A running role.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this program in a role.
    pub(crate) fn start(arguments: &[&std::ffi::OsStr]) -> Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting this program again")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("its output is not there")?;
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// Reads one line.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("a process that was started for a role ended early");
        }
        serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))
    }

    /// Writes one line and reads one.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, question: &impl Serialize) -> Result<T> {
        let input = self.input.as_mut().context("its input is closed")?;
        writeln!(input, "{}", serde_json::to_string(question)?)?;
        let answer: Result<T, String> = self.hear()?;
        answer.map_err(anyhow::Error::msg)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Answers questions until there are no more.
pub(crate) fn answer<Q: DeserializeOwned, A: Serialize>(
    mut answer: impl FnMut(Q) -> Result<A>,
) -> Result<()> {
    for line in std::io::stdin().lines() {
        let question = serde_json::from_str(&line?)?;
        let answer = answer(question).map_err(|error| format!("{error:#}"));
        say(&answer)?;
    }
    Ok(())
}

/// Writes one line.
pub(crate) fn say(what: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    Ok(out.flush()?)
}
