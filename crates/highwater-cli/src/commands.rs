//! The subcommands, one file each.

pub(crate) mod admin;
pub(crate) mod clone;
pub(crate) mod conflicts;
pub(crate) mod demo;
pub(crate) mod health;
pub(crate) mod keygen;
pub(crate) mod log;
pub(crate) mod query;
pub(crate) mod restore;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod token;
pub(crate) mod verify;

use crate::cli::{Command, Global};
use crate::failure::Failure;
use crate::logging;
use crate::output::Output;

/// Runs what the command line asked for.
pub(crate) fn run(command: Command, global: &Global, out: &Output) -> Result<(), Failure> {
    // A server's settings say how it logs, and are read first.
    if !matches!(command, Command::Serve(_)) {
        logging::start(global);
    }
    match command {
        Command::Demo(demo) => demo.run(out),
        Command::Serve(serve) => serve.run(global, out),
        Command::Health(health) => health.run(out),
        Command::Sync(sync) => sync.run(out),
        Command::Clone(clone) => clone.run(out),
        Command::Status(status) => status.run(out),
        Command::Log(log) => log.run(out),
        Command::Conflicts(conflicts) => conflicts.run(out),
        Command::Query(query) => query.run(out),
        Command::Restore(restore) => restore.run(out),
        Command::Admin(admin) => admin.run(out),
        Command::Verify(verify) => verify.run(out),
        Command::Keygen(keygen) => keygen.run(out),
        Command::Token(token) => token.run(out),
    }
}
