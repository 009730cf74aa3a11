//! Running commands of the layers, with a bug and without.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::layer::Check;

/// A command that takes longer has found nothing.
pub const LIMIT: Duration = Duration::from_secs(300);
/// How often it is looked whether a command has ended.
const LOOK: Duration = Duration::from_millis(50);
/// The most of a command's words that are kept, in characters.
const SAID: usize = 300;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It found nothing wrong.
    Passed,
    /// It found something; its first words about it.
    Failed(String),
    /// It did not come to an end in time.
    StillRunning,
    /// It did not understand what it was asked.
    NotUnderstood(String),
}

/// A command that was run.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What became of it.
    pub ended: Ended,
    /// How long it took.
    pub took: Duration,
}

/// Runs a check with a bug, or without any.
///
/// # Errors
/// When it cannot be started.
pub fn run(program: &Path, check: Check, bug: Option<&str>, words: &Path) -> Result<Ran> {
    let began = Instant::now();
    let file = File::create(words).with_context(|| format!("making {}", words.display()))?;
    let mut command = Command::new(program);
    command
        .args(check.layer.arguments())
        .args(check.arguments.split_whitespace())
        .env_remove("HIGHWATER_PLANTED_BUG")
        .envs(bug.map(|bug| ("HIGHWATER_PLANTED_BUG", bug)))
        // With everything that it starts.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("a second handle")?)
        .stderr(file);
    let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    let code = wait(child, began)?;
    let mut said = Vec::new();
    File::open(words).and_then(|mut file| file.read_to_end(&mut said)).context("reading what it said")?;
    let said = complaint(&String::from_utf8_lossy(&said));
    let ended = match code {
        None => Ended::StillRunning,
        Some(Some(0)) => Ended::Passed,
        Some(Some(2)) => Ended::NotUnderstood(said),
        Some(_) => Ended::Failed(said),
    };
    Ok(Ran { ended, took: began.elapsed() })
}

/// The code with which it ended, if it ended in time and with one.
fn wait(mut child: Child, began: Instant) -> Result<Option<Option<i32>>> {
    loop {
        if let Some(status) = child.try_wait().context("waiting for a command")? {
            return Ok(Some(status.code()));
        }
        if began.elapsed() > LIMIT {
            // It may have ended by itself just now.
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// The first line of a command's words that says what is wrong.
fn complaint(words: &str) -> String {
    let wrong = |line: &&str| {
        let words = ["fails", "failed", "panicked", "rror"];
        !line.ends_with("ok") && words.iter().any(|word| line.contains(word))
    };
    // A panic's message stands on the line after.
    let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let at = lines.iter().position(wrong).unwrap_or(0);
    let panicked = lines.get(at).is_some_and(|line| line.contains("panicked"));
    let told = lines.iter().skip(at).take(if panicked { 2 } else { 1 });
    let told = told.copied().collect::<Vec<_>>().join(" ");
    told.chars().take(SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_found_among_other_words() {
        assert_eq!(complaint("12 seeds\n\nseed 4 fails: lost\n  again: x\n"), "seed 4 fails: lost");
        assert_eq!(
            complaint("running 2 tests\nthread panicked at x.rs:\nno row\n"),
            "thread panicked at x.rs: no row"
        );
        assert_eq!(complaint("test an_error_is_told ... ok\ntest b ... FAILED\nb failed"), "b failed");
        assert_eq!(complaint(""), "");
    }
}
