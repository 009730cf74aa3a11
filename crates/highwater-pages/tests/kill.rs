//! A process dies exactly where it is told to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]
#![cfg(debug_assertions)]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use highwater_pages::kill_point;

/// As it stands, and what the other tests run in a process that is told to die.
#[test]
fn points_are_passed_when_nobody_is_to_be_killed() {
    kill_point("first");
    kill_point("second");
    kill_point("second");
}

fn run(at: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "points_are_passed_when_nobody_is_to_be_killed"])
        .env("HIGHWATER_KILL_AT", at)
        .env("HIGHWATER_KILL_LOG", &log)
        .output()
        .unwrap()
        .status;
    (status.signal(), std::fs::read_to_string(log).unwrap())
}

#[test]
fn a_named_point_kills_at_the_hit_that_was_asked_for() {
    assert_eq!(run("first"), (Some(9), "first\n".to_owned()));
    assert_eq!(run("second"), (Some(9), "first\nsecond\n".to_owned()));
    assert_eq!(run("second:2"), (Some(9), "first\nsecond\nsecond\n".to_owned()));
}

#[test]
fn a_point_that_is_not_passed_kills_nobody() {
    assert_eq!(run("second:3"), (None, "first\nsecond\nsecond\n".to_owned()));
    assert_eq!(run("third"), (None, "first\nsecond\nsecond\n".to_owned()));
}
