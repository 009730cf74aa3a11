//! Everything that reads bytes from outside, given bytes that nobody would send.
//!
//! A [`Target`] is one entry point: it takes any bytes and must neither panic nor hang nor take much
//! memory. The same functions are called by `cargo fuzz` (the folder `fuzz/`, coverage-guided, nightly)
//! and by the program `highwater-fuzz`, which runs on stable for a given time: it changes sample inputs
//! at random, and keeps those that made the target say something new.
//!
//! A new target is a function in `targets/` and a line in [`TARGETS`].
//!
//! This is a test, although it is a program: what panics here is a finding.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod mutate;
pub mod sample;
mod targets;

use std::hash::{DefaultHasher, Hash, Hasher};

pub use mutate::Mutator;
pub use targets::{files, http, ltx, merge, rows, words};

/// One entry point.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, as in `fuzz/fuzz_targets/NAME.rs`.
    pub name: &'static str,
    /// Reads the bytes, and gives a number for what it made of them.
    pub run: fn(&[u8]) -> u64,
    /// Inputs to begin with.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "ltx", run: ltx::file, samples: ltx::samples },
    Target { name: "info", run: files::info, samples: files::infos },
    Target { name: "sums", run: files::sums, samples: files::all_sums },
    Target { name: "wal", run: files::wal, samples: files::wals },
    Target { name: "rows", run: rows::damaged, samples: sample::images },
    Target { name: "http", run: http::request, samples: http::samples },
    Target { name: "merge", run: merge::garbage, samples: sample::images },
    Target { name: "names", run: words::names, samples: words::all_names },
    Target { name: "tokens", run: words::tokens, samples: words::all_tokens },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// A number for what was seen: the same for answers that differ in numbers only.
pub(crate) fn seen(what: impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    let text = format!("{what:?}");
    text.chars().filter(|c| !c.is_ascii_digit()).take(400).for_each(|c| c.hash(&mut hasher));
    hasher.finish()
}

/// Two things seen, one after the other.
pub(crate) fn both(one: u64, other: u64) -> u64 {
    (one.rotate_left(7) ^ other).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
