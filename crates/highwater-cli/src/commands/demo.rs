//! `highwater demo`: the main job on real files, told as a story.
//!
//! A real server on a real socket, two copies of one database in a temporary folder, and plain SQLite
//! connections. Everything that is claimed is checked on the way; a claim that does not hold ends the
//! demo with an error. The acts are in [`acts`], what they share is in [`stage`].

mod acts;
mod stage;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::failure::{Failure, quoted};
use crate::output::{Bytes, Output, grouped, took};
use stage::{Stage, Wire};

/// Show the whole idea on real files in a few seconds
///
/// Starts a server, makes two copies of a database in a temporary folder, and tells what happens:
/// offline writes, syncs, two devices that both wrote, a damaged metadata file that heals, a server that restarts, and what
/// crossed the network. Nothing outside that folder is touched.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {
    /// Keep the files in this new folder, to look at them afterwards
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  highwater demo
  highwater demo --keep /tmp/highwater-demo
  RUST_LOG=highwater=debug highwater demo      # with the log of every sync";

impl Demo {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        let started = Instant::now();
        let temporary = tempfile::tempdir().map_err(|error| io("making a temporary folder", &error))?;
        let folder = match &self.keep {
            Some(folder) => {
                make_new(folder)?;
                folder.clone()
            }
            None => temporary.path().to_owned(),
        };
        let mut stage = Stage::set(&folder, out)?;
        acts::all(&mut stage)?;
        let size = stage.laptop_size()?;
        let wire = stage.end()?;
        if out.is_json() {
            return out.value(&serde_json::json!({
                "folder": self.keep,
                "database_bytes": size,
                "syncs": wire,
                "elapsed_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            }));
        }
        out.line(table(&wire, size))?;
        out.line(format_args!(
            "\nEverything above was checked as it happened, in {}.",
            took(started.elapsed())
        ))?;
        out.line(self.next())
    }

    fn next(&self) -> String {
        let files = self.keep.as_ref().map_or(String::new(), |folder| {
            let store = folder.join("server");
            format!(
                "\nThe files are in {}. Look around:\n  highwater status {}\n  highwater verify {}\n  \
                 highwater serve --store {}\n",
                folder.display(),
                quoted(&folder.join("laptop.db")),
                quoted(&store),
                quoted(&store),
            )
        });
        format!(
            "{files}\nWhere to go from here:\n  \
             highwater serve                                            # your own server\n  \
             highwater sync app.db --remote http://127.0.0.1:8080/app   # your own database\n  \
             README.md, ARCHITECTURE.md, and docs/                      # how it works"
        )
    }
}

/// The folder must not hold anything that the demo would mix with.
fn make_new(folder: &std::path::Path) -> Result<(), Failure> {
    let occupied = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => false,
    };
    if occupied {
        return Err(Failure::usage(format!("{} is not empty, so it was not touched", folder.display()))
            .hint("name a folder that is empty or does not exist"));
    }
    std::fs::create_dir_all(folder).map_err(|error| io(&format!("making {}", folder.display()), &error))
}

fn io(doing: &str, error: &std::io::Error) -> Failure {
    Failure::failed("io", format!("{doing} failed: {error}"))
}

/// What crossed the wire, beside the size of the database.
fn table(wire: &[Wire], size: u64) -> String {
    let mut lines = vec![
        "\nWhat crossed the wire (bytes are those of pages, compressed as they were sent)".to_owned(),
        format!("  {:<46} {:>8} {:>7} {:>9} {:>9}", "", "requests", "frames", "up", "down"),
    ];
    lines.extend(wire.iter().map(|w| {
        format!(
            "  {:<46} {:>8} {:>7} {:>9} {:>9}",
            w.what,
            w.requests,
            grouped(w.frames),
            Bytes(w.sent_bytes),
            Bytes(w.received_bytes)
        )
    }));
    lines.push(format!(
        "  {:<46} {:>8} {:>7} {:>9} {:>9}",
        "for comparison: the whole database",
        "",
        "",
        Bytes(size),
        ""
    ));
    lines.join("\n")
}
