//! Histories in which clients and servers are killed, at named steps, too: only a debug build has those.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

use std::time::Duration;

use highwater_histories::child::Programs;
use highwater_histories::history::run;
use highwater_histories::lab::Lab;
use highwater_histories::plan::{Plan, Size};
use highwater_histories::shrink::shrink;

fn histories(seeds: std::ops::Range<u64>) -> String {
    let own = Some(env!("CARGO_BIN_EXE_highwater-histories").into());
    let size = Size { kills: 40, ..Size::default() };
    let mut trace = String::new();
    let mut lab = Lab::new(Programs { own, libsql: None }).unwrap();
    for seed in seeds {
        let plan = Plan::new(seed, &size);
        match run(&mut lab, &plan) {
            Ok(quiet) => trace += &quiet.trace.join("\n"),
            Err(failure) => {
                let (only, failure) = shrink(&mut lab, &plan, &failure, Duration::from_secs(30));
                panic!(
                    "seed {seed} ({}): {}\n{}\ncargo run -p highwater-histories -- replay {seed} --kills 40 --only {only}",
                    failure.kind,
                    failure.message,
                    failure.trace.join("\n")
                );
            }
        }
    }
    trace
}

#[test]
fn killed_clients_and_servers_leave_every_row_once_or_in_a_record() {
    let rounds = std::env::var("HIGHWATER_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let first = 5000;
    let traces = std::thread::scope(|scope| {
        let half = rounds.unwrap_or(60_u64) / 2;
        let other = scope.spawn(move || histories(first..first + half));
        let these = histories(first + half..first + 2 * half);
        these + &other.join().unwrap()
    });
    // A test in which nobody dies shows nothing.
    let (clients, servers) =
        (traces.matches("its process was killed").count(), traces.matches("the server died").count());
    eprintln!("{clients} clients and {servers} servers were killed");
    assert!(rounds.is_some() || clients > 50 && servers > 7, "{clients} clients and {servers} servers died");
}
