//! That a seed is a run, and that a run notices what it is there for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

use std::collections::BTreeSet;

use highwater_sim::faults::Fault;
use highwater_sim::plan::{Options, Plan};
use highwater_sim::run::run;

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..=4 {
        let ran = || run(Plan::new(seed, &Options::default())).unwrap();
        let (one, other) = (ran(), ran());
        let differs = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!(one.hash, other.hash, "seed {seed}: {differs:?}");
        assert_eq!(one.broken, None, "seed {seed}: {}", one.trace.join("\n"));
    }
}

#[test]
fn other_seeds_give_other_runs() {
    let ran = |seed| run(Plan::new(seed, &Options { steps: Some(2), ..Options::default() })).unwrap().hash;
    assert_ne!(ran(1), ran(2));
}

/// Runs of a few seeds in which only this goes wrong.
fn only(faults: &[Fault]) {
    let mut happened = BTreeSet::new();
    for seed in 1..=24 {
        let options = Options { only: faults.iter().copied().collect(), ..Options::default() };
        let ran = run(Plan::new(seed, &options)).unwrap();
        assert_eq!(ran.broken, None, "seed {seed}, only {faults:?}: {}", ran.trace.join("\n"));
        happened.extend(ran.faults.into_keys());
    }
    assert!(happened.iter().eq(faults), "{happened:?} happened of {faults:?}");
}

#[test]
fn a_store_that_fails_while_a_merge_reads_is_not_taken_for_a_change_that_cannot_be_merged() {
    only(&[Fault::StoreFails]);
}

#[test]
fn a_request_that_was_damaged_on_its_way_makes_nobody_a_stranger() {
    only(&[Fault::RequestFlipped]);
}

#[test]
fn an_answer_that_was_damaged_on_its_way_is_not_applied() {
    only(&[Fault::AnswerFlipped]);
}

#[test]
fn a_page_that_was_damaged_before_its_checksum_was_made_is_neither_stored_nor_applied() {
    only(&[Fault::RequestForged]);
    only(&[Fault::AnswerForged]);
}

#[test]
fn a_write_that_the_store_denies_and_has_is_acknowledged_once() {
    only(&[Fault::StoreExistsAfter]);
    only(&[Fault::StoreFailsAfter]);
}

#[test]
fn a_refusal_says_nothing_of_an_earlier_attempt_whose_answer_was_lost() {
    only(&[Fault::AnswerLost, Fault::RequestFlipped]);
}
