//! Databases, names, disks, servers and neighbours that are not the everyday ones.
//!
//! Every error is also read as a stranger reads it: it names the file or the URL and says what to do next.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    missing_docs
)]

mod common;
#[path = "edges/disks.rs"]
mod disks;
#[path = "edges/neighbours.rs"]
mod neighbours;
#[path = "edges/paths.rs"]
mod paths;
#[path = "edges/servers.rs"]
mod servers;
#[path = "edges/shapes.rs"]
mod shapes;
#[path = "edges/support.rs"]
mod support;
#[path = "edges/watching.rs"]
mod watching;
