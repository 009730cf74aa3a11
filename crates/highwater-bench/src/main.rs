//! What Highwater costs: the workloads of the design, each as a ratio or a count in one run against a
//! baseline that was measured in the same run.
//!
//! One process conducts. It starts itself again in two roles: `server` (the real server, on a real
//! socket, its store on disk with fsync) and `client` (the library), so that each has memory of its
//! own to be measured. The conductor itself plays the application that writes to the database.
//!
//! It measures; it proves nothing. Whether the databases are equal is the tests' question.

mod baseline;
mod client;
mod data;
mod measure;
mod process;
mod proxy;
mod report;
mod server;
mod stage;
mod work;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measure what Highwater costs
///
/// Every number stands beside a baseline of the same run: plain SQLite doing the same writes, a copy
/// of the file with fsync, reading the file once, a bare round trip. Take the ratios, not the
/// milliseconds. The files go to a temporary folder, removed at the end; a whole run needs 8 GB
/// of disk and a few minutes.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
struct Arguments {
    /// Which workloads: w1, w2, w3, w4, w5, w6, w7, w8, capture. All of them when none is named
    workloads: Vec<work::Workload>,
    /// A tenth of the data and fewer repetitions: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Where to put the databases and the store. It should be a real disk. Default: beside this program
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p highwater-bench
  cargo run --release -p highwater-bench -- w1 w5 --quick
  cargo run --release -p highwater-bench -- w4 --dir /mnt/disk --json";

/// What the program is when it was started by itself.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Server { store: PathBuf },
    #[command(hide = true)]
    Client,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let logs = tracing_subscriber::EnvFilter::try_from_default_env();
    if let Ok(filter) = logs {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    match &arguments.role {
        Some(Role::Server { store }) => server::run(store),
        Some(Role::Client) => client::run(),
        None => work::run(&arguments.workloads, arguments.quick, arguments.json, arguments.dir.as_deref()),
    }
}
