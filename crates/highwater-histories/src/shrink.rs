//! Cuts a failing history down to what it needs to fail.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::history::{Failure, run};
use crate::lab::Lab;
use crate::plan::{Plan, Selection, Unit};

/// The smallest selection found in `time` that fails in the same way, and how it does.
pub fn shrink(lab: &mut Lab, plan: &Plan, failure: &Failure, time: Duration) -> (Selection, Failure) {
    let until = Instant::now() + time;
    let mut units: Vec<Unit> = plan.units().into_iter().collect();
    let mut smallest = failure.clone();
    let mut size = units.len().div_ceil(2);
    while size > 0 && Instant::now() < until {
        let mut at = 0;
        let before = units.len();
        while at < units.len() && Instant::now() < until {
            let rest: Vec<Unit> = units
                .iter()
                .enumerate()
                .filter(|(n, _)| *n < at || *n >= at + size)
                .map(|(_, unit)| *unit)
                .collect();
            let selection = Selection(Some(rest.iter().copied().collect::<BTreeSet<_>>()));
            match run(lab, &plan.clone().cut_to(&selection)) {
                Err(found) if found.kind == failure.kind => {
                    units = rest;
                    smallest = *found;
                }
                _ => at += size,
            }
        }
        if size > 1 || units.len() == before {
            size /= 2;
        }
    }
    (Selection(Some(units.into_iter().collect())), smallest)
}
