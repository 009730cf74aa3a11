//! The command `highwater` as a person or a script meets it: real processes, real sockets, whole
//! outputs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod admin;
mod config;
mod conflicts;
mod demo;
mod errors;
mod example;
mod help;
mod history;
mod logs;
mod query;
mod serve;
mod support;
mod sync;
mod tokens;
mod verify;
mod watch;
