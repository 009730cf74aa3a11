//! The command line as a whole: global options, the list of subcommands, and how a wrong one is
//! answered. What each subcommand takes is defined beside what it does, in [`crate::commands`].

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    admin, clone, conflicts, demo, health, keygen, log, query, restore, serve, status, sync, token, verify,
};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Offline-first SQLite: keeps an ordinary SQLite file in step with a server of your own.
///
/// An application reads and writes a SQLite file on its own disk, with or without a network.
/// `highwater sync` brings that file and the copies on other machines together through a server
/// that `highwater serve` runs. Only the pages that the other side lacks cross the network.
#[derive(Debug, Parser)]
#[command(
    name = "highwater",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = TRY,
    after_long_help = LONG,
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every subcommand takes.
#[derive(Debug, Args)]
#[command(next_display_order = 900)]
pub(crate) struct Global {
    /// Print JSON instead of text, errors included
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Log more to standard error: -v tells each step, -vv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Health(health::Health),
    Sync(sync::Sync),
    Clone(clone::Clone),
    Status(status::Status),
    Log(log::Log),
    Conflicts(conflicts::Conflicts),
    Query(query::Query),
    Restore(restore::Restore),
    Verify(verify::Verify),
    Admin(admin::Admin),
    Keygen(keygen::Keygen),
    Token(token::Token),
}

const TRY: &str = "\
New here? `highwater demo` shows the whole idea on real files in a few seconds.
`highwater COMMAND --help` has the details and examples of each command.";

const LONG: &str = "\
Try it on this machine:
  highwater serve                                              # in one terminal
  highwater sync app.db --remote http://127.0.0.1:8080/app     # in another
  highwater clone http://127.0.0.1:8080/app copy.db

Exit codes:
  0  done
  1  failed; the message says what to do
  2  wrong usage: an option, a URL or a name
  3  conflict: this device and another changed the same, or what cannot be merged; nothing was lost
  4  offline: the server could not be reached; local work goes on

Environment:
  HIGHWATER_AUTH_TOKEN  the token for the server, as with --token
  RUST_LOG              what to log to standard error, for example highwater=debug

JSON:
  With --json each command prints one JSON object, or one a line where it goes on (sync --watch).
  A failure prints {\"error\":{\"code\":…,\"message\":…,\"hint\":…}} and keeps its exit code.";

/// Reads the command line. On `--help`, `--version` and mistakes it answers by itself and gives the
/// exit code.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        let json = std::env::args_os().any(|argument| argument == OsStr::new("--json"));
        if json
            && error.use_stderr()
            && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        {
            return usage(&error).report(&Output::new(true));
        }
        // A closed pipe is no error; there is nobody left to tell.
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
    })
}

/// The first paragraph of clap's message is the mistake; the rest is how to go on.
fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let (first, rest) = text.trim().split_once("\n\n").unwrap_or((text.trim(), ""));
    let message = first.trim_start_matches("error: ").to_owned();
    let failure = Failure::new(Exit::Usage, "usage", message);
    if rest.is_empty() { failure } else { failure.hint(rest.trim()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
