//! `highwater restore`: a database as it was at some point of its history, as a plain file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use highwater::{At, Place, Restored};

use crate::failure::Failure;
use crate::output::{Bytes, Output, count};
use crate::progress::Bar;
use crate::remote::{Access, possible};

/// Write a database as it was at any point of its history to a new file
///
/// The result is a plain SQLite file that is not synced with anything. Without --at or --time it is
/// the newest state. A file that exists already is never overwritten.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Restore {
    /// The database on the server, or a local copy that is synced with it
    #[arg(value_name = "URL|DB")]
    target: String,
    /// The new file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The position, as `highwater log` lists them
    #[arg(long, value_name = "G/F", conflicts_with = "time")]
    at: Option<Place>,
    /// The newest state at that time, for example 2026-01-31T12:00:00Z
    #[arg(long, value_name = "RFC3339", value_parser = humantime::parse_rfc3339_weak)]
    time: Option<SystemTime>,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  highwater restore http://127.0.0.1:8080/app -o copy.db
  highwater restore app.db -o before.db --at 1/9
  highwater restore app.db -o yesterday.db --time 2026-01-31T12:00:00Z

Times are the server's, in UTC.";

impl Restore {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        possible(&self.output)?;
        let at = match (self.at, self.time) {
            (Some(place), _) => At::Place(place),
            (None, Some(time)) => At::Time(time),
            (None, None) => At::Head,
        };
        let remote = self.access.remote(&self.target)?;
        let bar = Arc::new(Bar::new(out.is_json()));
        let reports = Arc::clone(&bar);
        let result = remote.restore_blocking(&self.output, at, move |progress| reports.report(progress));
        bar.clear();
        let restored: Restored = result?;
        if out.is_json() {
            return out.value(&serde_json::json!({
                "file": self.output,
                "position": restored.position.to_string(),
                "txid": restored.txid.0,
                "page_size": restored.page_size.get(),
                "page_count": restored.page_count.0,
                "bytes": restored.bytes,
            }));
        }
        out.line(format_args!(
            "Restored {} at position {} (transaction {}): {}, {} received.",
            self.output.display(),
            restored.position.place(),
            restored.txid.0,
            count(restored.page_count.0.into(), "page"),
            Bytes(restored.bytes),
        ))
    }
}
