//! The command `highwater`: one file for each subcommand in [`commands`], and around them what all of
//! them share: arguments ([`cli`]), what is printed ([`output`], [`progress`]), how a failure is told
//! ([`failure`]), logging and signals.
//!
//! Invariants: results go to standard output and everything else to standard error; with `--json`
//! standard output carries JSON only; a reader that closes the pipe early is not an error; the exit
//! code says what kind of failure it was (see [`failure::Exit`]).

mod cli;
mod commands;
mod failure;
mod logging;
mod output;
mod progress;
mod remote;
mod settings;
mod signals;
mod system;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let out = output::Output::new(cli.global.json);
    match commands::run(cli.command, &cli.global, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&out),
    }
}
