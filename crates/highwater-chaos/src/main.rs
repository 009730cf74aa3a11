//! `highwater-chaos`: a TCP proxy that does what bad networks do.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use highwater_chaos::{Faults, Proxy};

#[derive(Debug, Parser)]
#[command(about = "A TCP proxy that does what bad networks do")]
struct Arguments {
    /// Where clients connect to
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The server, as HOST:PORT
    #[arg(long)]
    to: String,
    /// Everything comes so much later, each way
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// And up to so much later still
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    jitter: Duration,
    /// Bytes a second, each way
    #[arg(long)]
    bandwidth: Option<u64>,
    /// Chance that a connection is reset, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    reset: f64,
    /// Chance that one direction ends early
    #[arg(long, default_value_t = 0.0)]
    half_close: f64,
    /// Chance that a bit is flipped
    #[arg(long, default_value_t = 0.0)]
    corrupt: f64,
    /// Chance that one direction is swallowed
    #[arg(long, default_value_t = 0.0)]
    blackhole: f64,
    /// No bit is flipped before this byte of a connection
    #[arg(long, default_value_t = 0)]
    corrupt_after: u64,
    /// Something happens to a connection within its first so many bytes
    #[arg(long, default_value_t = 20_000)]
    within: u64,
    /// Chooses what happens to which connection
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let given = Arguments::parse();
    let mut found = given.to.to_socket_addrs().with_context(|| format!("{} is no HOST:PORT", given.to))?;
    let to = found.next().with_context(|| format!("{} has no address", given.to))?;
    let faults = Faults {
        delay: given.delay,
        jitter: given.jitter,
        bandwidth: given.bandwidth,
        reset: given.reset,
        half_close: given.half_close,
        corrupt: given.corrupt,
        blackhole: given.blackhole,
        corrupt_after: given.corrupt_after,
        within: given.within,
    };
    let proxy = Proxy::start(given.listen, to, faults, given.seed).with_context(|| {
        format!("cannot listen on {}; choose another address with --listen", given.listen)
    })?;
    println!("listening on {}, forwarding to {to}; Ctrl-C ends it", proxy.addr());
    loop {
        std::thread::sleep(Duration::from_secs(10));
        println!("{}", proxy.counts().summary());
    }
}
