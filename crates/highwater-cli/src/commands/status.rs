//! `highwater status`: what is known about a local copy without asking the server.

use std::path::PathBuf;

use clap::Args;
use highwater::Database;
use serde::Serialize;

use crate::failure::{Failure, quoted};
use crate::output::{Bytes, Output, count, remark};
use crate::remote::existing;

/// Show where a local copy stands, without asking the server
///
/// Tells which server the file is synced with, the position of the last sync, and how many pages
/// changed since and wait to be sent. Works offline.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// The SQLite file
    #[arg(value_name = "DB")]
    db: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  highwater status app.db
  highwater status app.db --json | jq .unpushed_pages

To compare the copy with the server and check its integrity, see `highwater verify`.";

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report {
    db: PathBuf,
    remote: Option<String>,
    device: Option<String>,
    position: Option<String>,
    txid: Option<u64>,
    page_size: Option<u32>,
    page_count: u32,
    bytes: u64,
    unpushed_pages: Option<u64>,
    wal_bytes: u64,
    warning: Option<String>,
}

impl Status {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        let path = existing(&self.db)?;
        let report = Report { db: path.clone(), ..Report::from(Database::open(&path)?.status()?) };
        if out.is_json() {
            return out.value(&report);
        }
        if let Some(warning) = &report.warning {
            remark(format_args!("warning: {warning}"));
        }
        out.line(report.text())
    }
}

impl From<highwater::Status> for Report {
    fn from(status: highwater::Status) -> Self {
        let bytes = status.page_size.map_or(0, |size| status.page_count.bytes(size));
        Self {
            db: status.db,
            remote: status.remote,
            device: status.device.map(|id| id.to_string()),
            position: status.base.map(|base| base.to_string()),
            txid: status.txid.map(|txid| txid.0),
            page_size: status.page_size.map(|size| size.get()),
            page_count: status.page_count.0,
            bytes,
            unpushed_pages: status.unpushed_pages,
            wal_bytes: status.wal_bytes,
            warning: status.warning,
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let file = quoted(&self.db);
        let mut rows = vec![("database", self.db.display().to_string())];
        let none = |text: &str| format!("none yet ({text})");
        rows.push((
            "remote",
            self.remote.clone().unwrap_or_else(|| none(&format!("highwater sync {file} --remote URL"))),
        ));
        if let Some(device) = &self.device {
            rows.push(("device", device.clone()));
        }
        rows.push(("last sync", self.base()));
        rows.push((
            "size",
            match self.page_size {
                Some(size) => format!(
                    "{} of {size} bytes ({})",
                    count(self.page_count.into(), "page"),
                    Bytes(self.bytes)
                ),
                None => "empty".to_owned(),
            },
        ));
        rows.push(("write-ahead log", Bytes(self.wal_bytes).to_string()));
        rows.push((
            "to be pushed",
            match self.unpushed_pages {
                None => "everything, unless the server has it already".to_owned(),
                Some(0) => "nothing".to_owned(),
                Some(pages) => format!("{} (highwater sync {file})", count(pages, "changed page")),
            },
        ));
        let lines: Vec<_> = rows.iter().map(|(name, value)| format!("{name:<17}{value}")).collect();
        lines.join("\n")
    }

    fn base(&self) -> String {
        let Some(position) = &self.position else {
            let lost = self.remote.is_some() || self.warning.is_some();
            return if lost { "its record was lost; the next one finds it again" } else { "never" }
                .to_owned();
        };
        match (position.rsplit_once('/'), self.txid) {
            (Some((place, state)), Some(txid)) => {
                format!("position {place}, transaction {txid}, state {state}")
            }
            (Some((place, state)), None) => format!("position {place}, state {state}"),
            (None, _) => format!("position {position}"),
        }
    }
}
