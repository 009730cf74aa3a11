//! `highwater clone`: a new local copy of a database on a server.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use highwater::Builder;

use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::remote::{Access, Patience, possible};

/// Make a new local copy of a database on a server
///
/// Fetches the whole database once. The copy remembers where it came from: from then on `highwater
/// sync DB` fetches and sends only what changed. A file that exists already is never overwritten.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Clone {
    /// The database on the server: http(s)://HOST:PORT/NAME
    #[arg(value_name = "URL")]
    url: String,
    /// The new SQLite file
    #[arg(value_name = "DB")]
    db: PathBuf,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    patience: Patience,
}

const EXAMPLES: &str = "\
Examples:
  highwater clone http://127.0.0.1:8080/app app.db
  highwater clone https://db.example.org/team/app app.db && sqlite3 app.db .tables

To look at an earlier state without keeping it in sync, see `highwater restore`.";

impl Clone {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        possible(&self.db)?;
        let bar = Arc::new(Bar::new(out.is_json()));
        let reports = Arc::clone(&bar);
        let builder =
            Builder::new(&self.db).remote(&self.url).on_progress(move |progress| reports.report(progress));
        let db = self.patience.apply(self.access.apply(builder)).open()?;
        let result = db.clone_blocking();
        bar.clear();
        super::sync::print(&self.db, &db, &result?, out)
    }
}
