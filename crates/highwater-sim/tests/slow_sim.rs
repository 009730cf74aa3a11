//! Simulations of many seeds; `cargo run -p highwater-sim -- run` runs as many as one likes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater_sim::faults::Fault;
use highwater_sim::plan::{Options, Plan};
use highwater_sim::report::Report;
use highwater_sim::run::run;

/// How many: `HIGHWATER_TEST_ROUNDS`, or else `default`.
fn rounds(default: u64) -> u64 {
    std::env::var("HIGHWATER_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

#[test]
fn whatever_goes_wrong_nothing_acknowledged_is_lost_and_all_copies_come_together() {
    let (next, end) = (AtomicU64::new(1), 1 + rounds(200));
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let ran = run(Plan::new(seed, &Options::default())).unwrap();
                    if let Some(broken) = &ran.broken {
                        next.store(end, Ordering::Relaxed);
                        panic!(
                            "{}\nseed {seed}: {broken}\ncargo run -p highwater-sim -- replay {seed}",
                            ran.trace.join("\n")
                        );
                    }
                    report.lock().unwrap().add(seed, &ran);
                }
            });
        }
    });
    let report = report.into_inner().unwrap();
    eprintln!("{report}");
    if report.seeds >= 200 {
        let idle: Vec<_> =
            Fault::TABLE.iter().filter(|kind| !report.faults.contains_key(kind.name)).collect();
        assert!(idle.is_empty(), "faults that never happened: {idle:?}");
    }
}
