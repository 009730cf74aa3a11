//! The whole crash matrix, as `.ci/run` has it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::process::Command;

#[test]
fn what_was_committed_outlives_a_power_cut_behind_any_file_operation() {
    let output = Command::new(env!("CARGO_BIN_EXE_highwater-crash")).arg("run").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    eprintln!("{told}");
    assert!(output.status.success(), "the crash matrix failed");
    // A recorder that sees nothing would find nothing.
    assert!(told.contains("push: ") && !told.contains(": 0 operations"), "nothing was recorded");
}
