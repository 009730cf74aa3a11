//! The shim fails what the plan says, and nothing else.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use highwater_faults::{Call, Kind, Plan, When, faults};

/// `dd` writes a file in blocks of a kilobyte and flushes it.
fn dd(plan: &Plan, out: &Path, options: &str) -> Output {
    let mut command = Command::new("dd");
    command.args(["if=/dev/zero", "bs=1024", "count=8"]).arg(format!("of={}", out.display()));
    command.args(options.split_whitespace()).env("LC_ALL", "C");
    assert!(plan.apply(&mut command), "there is no shim");
    command.output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_nth_write_fails_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (out, report) = (folder.path().join("out"), folder.path().join("report"));
    let plan = Plan::new(folder.path(), Kind::Enospc, When::Only(3)).calls(&[Call::Write]).report(&report);
    let output = dd(&plan, &out, "");
    assert!(!output.status.success() && told(&output).contains("No space left"), "{}", told(&output));
    let found = faults(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].call.as_str(), found[0].number, found[0].path.as_path()), ("write", 3, &*out));
    assert_eq!(std::fs::metadata(&out).unwrap().len(), 2048);
}

#[test]
fn other_folders_and_other_names_are_left_alone() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plan = Plan::new(folder.path(), Kind::Eio, When::From(1)).files(&["-wal"]).not(&["-wal-old"]);
    assert!(dd(&plan, &other.path().join("x-wal"), "").status.success());
    assert!(dd(&plan, &folder.path().join("x"), "conv=fsync").status.success());
    assert!(dd(&plan, &folder.path().join("x-wal-old"), "conv=fsync").status.success());
    assert!(!dd(&plan, &folder.path().join("x-wal"), "").status.success());
}

#[test]
fn a_short_write_is_carried_on_by_its_caller() {
    let folder = tempfile::tempdir().unwrap();
    let (out, report) = (folder.path().join("out"), folder.path().join("report"));
    let plan = Plan::new(folder.path(), Kind::Short, When::Only(2)).calls(&[Call::Write]).report(&report);
    assert!(dd(&plan, &out, "").status.success());
    assert_eq!((std::fs::metadata(&out).unwrap().len(), faults(&report).len()), (8192, 1));
}

#[test]
fn a_lost_flush_takes_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let old = vec![7_u8; 3000];
    std::fs::File::create(&out).unwrap().write_all(&old).unwrap();
    let plan = Plan::new(folder.path(), Kind::Lost, When::Only(1)).calls(&[Call::Sync]);
    let output = dd(&plan, &out, "conv=fsync,notrunc");
    assert!(!output.status.success(), "{}", told(&output));
    assert_eq!(std::fs::read(&out).unwrap(), old);
    // What was flushed before stays.
    let plan = Plan::new(folder.path(), Kind::Lost, When::Only(2)).calls(&[Call::Sync]);
    assert!(dd(&plan, &out, "conv=fsync,notrunc").status.success());
    assert_eq!(std::fs::read(&out).unwrap(), [0; 8192]);
}

#[test]
fn chance_is_the_same_for_the_same_seed() {
    let folder = tempfile::tempdir().unwrap();
    let hit = |seed: u64| -> Vec<u64> {
        let (out, report) = (folder.path().join("out"), folder.path().join("report"));
        let _ = std::fs::remove_file(&report);
        let when = When::Chance(300_000, seed);
        let plan = Plan::new(folder.path(), Kind::Short, when).calls(&[Call::Write]).report(&report);
        assert!(dd(&plan, &out, "").status.success());
        faults(&report).iter().map(|fault| fault.number).collect()
    };
    assert_eq!(hit(1), hit(1));
    assert!((2..8).any(|seed| hit(seed) != hit(1)));
}
