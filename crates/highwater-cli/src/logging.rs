//! Logging to standard error: `RUST_LOG` if it is set, else what `-v` says. A person reads text, a
//! program JSON: one object a line, its fields beside `timestamp`, `level`, `target` and `message`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::cli::Global;

/// How a server logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Starts the logging of a command: it tells only about what is odd, unless it is asked.
pub(crate) fn start(global: &Global) {
    let default = match global.verbose {
        0 => "warn",
        verbose => more(verbose),
    };
    let asked_for = global.verbose > 0 || std::env::var_os("RUST_LOG").is_some();
    begin(default, global.json, asked_for);
}

/// Starts the logging of a server: it tells about requests without being asked.
pub(crate) fn start_server(global: &Global, format: Option<LogFormat>) {
    let default = match global.verbose {
        0 => "warn,highwater=info,highwater_server=info",
        verbose => more(verbose),
    };
    let json = format.map_or(global.json, |format| format == LogFormat::Json);
    begin(default, json, true);
}

/// What one `-v`, or several, tell.
const fn more(verbose: u8) -> &'static str {
    match verbose {
        0 | 1 => "info,highwater=debug,highwater_pages=debug,highwater_server=debug",
        _ => "debug,highwater=trace,highwater_pages=trace,highwater_server=trace",
    }
}

/// `detailed`: with times and places, as a log that is kept needs them.
fn begin(default: &str, json: bool, detailed: bool) {
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
    if json {
        builder.json().flatten_event(true).with_span_list(false).init();
    } else if detailed {
        builder.init();
    } else {
        // A person who did not ask for a log reads warnings only, and knows what time it is.
        builder.without_time().with_target(false).init();
    }
}
