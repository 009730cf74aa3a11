//! Histories of random devices; `cargo run -p highwater-histories -- run` runs as many as one likes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater_histories::child::Programs;
use highwater_histories::history::run;
use highwater_histories::lab::Lab;
use highwater_histories::plan::{Plan, Size};
use highwater_histories::shrink::shrink;

/// How many: `HIGHWATER_TEST_ROUNDS`, or else `default`.
fn rounds(default: u64) -> u64 {
    std::env::var("HIGHWATER_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

fn all_are_well(seeds: std::ops::Range<u64>, size: &Size, arguments: &str) {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut lab = Lab::new(Programs::default()).unwrap();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let plan = Plan::new(seed, size);
                    if let Err(failure) = run(&mut lab, &plan) {
                        next.store(seeds.end, Ordering::Relaxed);
                        let (only, failure) = shrink(&mut lab, &plan, &failure, Duration::from_secs(30));
                        panic!(
                            "seed {seed} ({}): {}\n{}\ncargo run -p highwater-histories -- replay {seed} {arguments} --only {only}",
                            failure.kind,
                            failure.message,
                            failure.trace.join("\n")
                        );
                    }
                }
            });
        }
    });
}

#[test]
fn a_device_alone_with_a_bad_network_and_old_copies_loses_nothing() {
    let size = Size { devices: 1..=1, ..Size::default() };
    all_are_well(1..1 + rounds(60), &size, "--devices 1-1 --steps 30");
}

#[test]
fn devices_that_all_write_end_with_the_same_pages_and_every_row_once_or_in_a_record() {
    let size = Size::default();
    all_are_well(1..1 + rounds(200), &size, "--devices 2-5 --steps 30");
}

#[test]
fn the_same_seed_ends_in_the_same_state() {
    let mut lab = Lab::new(Programs::default()).unwrap();
    for seed in 1..=5 {
        let plan = Plan::new(seed, &Size::default());
        let state =
            |lab: &mut Lab| run(lab, &plan).map(|quiet| quiet.state).map_err(|failure| failure.message);
        assert_eq!(state(&mut lab), state(&mut lab), "seed {seed}");
    }
}
