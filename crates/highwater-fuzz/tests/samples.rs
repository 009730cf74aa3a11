//! Every target takes its samples, what was once found, and a few changes of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::path::Path;

use highwater_fuzz::{Mutator, TARGETS};

#[test]
fn what_was_found_once_is_not_found_again() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in TARGETS {
        let mut inputs = (target.samples)();
        for entry in std::fs::read_dir(corpus.join(target.name)).into_iter().flatten() {
            inputs.push(std::fs::read(entry.unwrap().path()).unwrap());
        }
        assert!(!inputs.is_empty());
        for input in &inputs {
            (target.run)(input);
        }
        let mut mutator = Mutator::new(1);
        for _ in 0..20 {
            (target.run)(&mutator.change(&inputs));
        }
    }
}

#[test]
fn samples_differ_from_what_is_refused_at_once() {
    for target in TARGETS {
        let nothing = (target.run)(b"\0");
        assert!((target.samples)().iter().any(|sample| (target.run)(sample) != nothing), "{}", target.name);
    }
}
