//! Logging to standard error: `RUST_LOG` if it is set, else what `-v` says.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::cli::Global;

/// Starts logging. A server tells about requests without being asked; a command only about what is odd.
pub(crate) fn start(global: &Global, server: bool) {
    let default = match global.verbose {
        0 if server => "warn,highwater=info,highwater_server=info",
        0 => "warn",
        1 => "info,highwater=debug,highwater_pages=debug,highwater_server=debug",
        _ => "debug,highwater=trace,highwater_pages=trace,highwater_server=trace",
    };
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives).unwrap_or_else(|error| {
            crate::output::remark(format_args!(
                "RUST_LOG cannot be read ({error}); logging `{default}` instead"
            ));
            EnvFilter::new(default)
        }),
        _ => EnvFilter::new(default),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let asked_for = server || global.verbose > 0 || std::env::var_os("RUST_LOG").is_some();
    if global.json {
        builder.json().init();
    } else if asked_for {
        builder.init();
    } else {
        // A person who did not ask for a log reads warnings only, and knows what time it is.
        builder.without_time().with_target(false).init();
    }
}
