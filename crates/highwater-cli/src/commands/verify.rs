//! `highwater verify`: reads a local copy, or a whole store, and tells whether everything in it is as
//! it should be. Nothing is changed and nothing is repaired.

mod copy;
mod store;

use clap::Args;
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::remote::{Access, is_url};

/// Check a local copy, or a server's store
///
/// A local copy: SQLite's own integrity check, every page against the stored page sums, the record of
/// the last sync, and the server's head. Changes that wait to be pushed are told, they are no fault.
///
/// A store (a folder, or file:///FOLDER): every file of every database is read and checked, from the
/// first push to the last: checksums, unbroken numbering, and that each state follows from the one
/// before. It may be in use by a server meanwhile.
///
/// Nothing is changed either way. The exit code is 1 when something is wrong.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// The SQLite file, or the folder of a store
    #[arg(value_name = "DB|STORE")]
    target: String,
    /// Do not ask the server
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  highwater verify app.db
  highwater verify app.db --offline
  highwater verify ./highwater-data
  highwater verify file:///var/lib/highwater --json";

impl Verify {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        if self.target.starts_with("file://") || std::path::Path::new(&self.target).is_dir() {
            return store::verify(&self.target, out);
        }
        if is_url(&self.target) {
            return Err(Failure::usage(format!(
                "{} is neither a database file nor a store's folder",
                self.target
            ))
            .hint(
                "verify a local copy of it (`highwater clone URL DB`, then `highwater verify DB`), \
                     or the store's folder on the server's machine",
            ));
        }
        copy::verify(&self.target, self.offline, &self.access, out)
    }
}

/// What was looked at, and what was found.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    /// `ok`, `note` (worth knowing, not wrong) or `problem`.
    result: Verdict,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Note,
    Problem,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, result: Verdict::Ok, text: text.into() }
    }

    fn note(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, result: Verdict::Note, text: text.into() }
    }

    fn problem(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, result: Verdict::Problem, text: text.into() }
    }

    /// As a line of the report.
    fn line(&self) -> String {
        let mark = match self.result {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Problem => "PROBLEM",
        };
        format!("{mark:<8} {:<13} {}", self.name, self.text)
    }
}

/// Turns problems into the exit code; in JSON the report itself has told them.
fn verdict(target: &str, problems: usize, out: &Output) -> Result<(), Failure> {
    if problems == 0 {
        return Ok(());
    }
    let what = if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") };
    let failure = Failure::new(Exit::Failure, "verification", format!("{what} found in {target}"));
    Err(if out.is_json() { failure.told() } else { failure })
}
