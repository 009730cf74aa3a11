//! Named points at which a test may kill the process, to prove that a crash there loses nothing.
//!
//! A debug build reads two variables of its environment, once:
//! - `HIGHWATER_KILL_AT=NAME` or `NAME:N`: the process kills itself (SIGKILL, nothing is cleaned
//!   up or flushed) when it passes the point `NAME` for the `N`-th time, the first unless said; `*` is any point;
//! - `HIGHWATER_KILL_LOG=FILE`: the name of every point that is passed is appended to `FILE`, one
//!   a line, so that a test can learn which points there are and how often they are passed.
//!
//! A release build does nothing here.

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A step that a crash may follow. Names are the words of the step, joined by `-`.
#[inline]
pub fn kill_point(name: &str) {
    if cfg!(debug_assertions) {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        if let Some(plan) = PLAN.get_or_init(Plan::from_environment) {
            plan.pass(name);
        }
    }
}

#[derive(Debug, Default)]
struct Plan {
    target: Option<(String, u32)>,
    log: Option<PathBuf>,
    passed: AtomicU32,
}

impl Plan {
    fn from_environment() -> Option<Self> {
        let target = std::env::var("HIGHWATER_KILL_AT").ok().map(|text| parse_target(&text));
        let log = std::env::var_os("HIGHWATER_KILL_LOG").map(PathBuf::from);
        (target.is_some() || log.is_some()).then(|| Self { target, log, passed: AtomicU32::new(0) })
    }

    fn pass(&self, name: &str) {
        if let Some(log) = &self.log
            && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(log)
        {
            // The log serves tests only: a test that misses a line fails by itself.
            let _ = file.write_all(format!("{name}\n").as_bytes());
        }
        if let Some((target, at)) = &self.target
            && (target == name || target == "*")
            && self.passed.fetch_add(1, Ordering::SeqCst) + 1 == *at
        {
            die();
        }
    }
}

fn parse_target(text: &str) -> (String, u32) {
    match text.rsplit_once(':') {
        Some((name, at)) if at.parse::<u32>().is_ok_and(|n| n > 0) => {
            (name.to_owned(), at.parse().unwrap_or(1))
        }
        _ => (text.to_owned(), 1),
    }
}

fn die() -> ! {
    // Should the signal fail, aborting is the next best end without clean-up.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_names_a_point_and_the_time_it_is_passed() {
        assert_eq!(parse_target("log-appended"), ("log-appended".to_owned(), 1));
        assert_eq!(parse_target("log-appended:3"), ("log-appended".to_owned(), 3));
        assert_eq!(parse_target("log:appended"), ("log:appended".to_owned(), 1));
        assert_eq!(parse_target("log:0"), ("log:0".to_owned(), 1));
    }
}
