//! `highwater log`: what a server has accepted for a database.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use clap::Args;
use highwater::{FrameNo, Generation, LIBSQL_NODE, LogEntry, Place, RemoteDatabase};

use crate::failure::Failure;
use crate::output::{Bytes, Output, remark, time};
use crate::remote::Access;

/// Entries asked for at once.
const BATCH: u32 = 1000;

/// Show what the server has accepted for a database, oldest first
///
/// One line for each push: its position (GENERATION/FRAME), when the server accepted it, from which
/// device, how many pages it changed, and how large the database was after it. Every position can be
/// restored with `highwater restore --at`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Log {
    /// The database on the server, or a local copy that is synced with it
    #[arg(value_name = "URL|DB")]
    target: String,
    /// Only what came after this position
    #[arg(long, value_name = "G/F")]
    after: Option<Place>,
    /// Only the newest N
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  highwater log app.db
  highwater log http://127.0.0.1:8080/app --limit 20
  highwater log app.db --json | jq -r '.device' | sort | uniq -c

With --json each entry is one line.";

impl Log {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        let remote = self.access.remote(&self.target)?;
        let page_size = if out.is_json() { 0 } else { remote.info_blocking()?.page_size };
        let mut printer = Printer { out, page_size, printed: 0 };
        match self.limit {
            None => each_page(&remote, self.after, |entries| {
                entries.iter().try_for_each(|entry| printer.print(entry))
            })?,
            Some(limit) => {
                let mut newest = VecDeque::new();
                each_page(&remote, self.after, |entries| {
                    newest.extend(entries);
                    newest.drain(..newest.len().saturating_sub(limit.get()));
                    Ok(())
                })?;
                newest.iter().try_for_each(|entry| printer.print(entry))?;
            }
        }
        if printer.printed == 0 && !out.is_json() {
            remark("Nothing there.");
        }
        Ok(())
    }
}

/// Calls `take` with the entries after a position, a batch at a time.
fn each_page(
    remote: &RemoteDatabase,
    after: Option<Place>,
    mut take: impl FnMut(Vec<LogEntry>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = after;
    loop {
        let page = remote.log_blocking(after, BATCH)?;
        let last = page.entries.last().map(|entry| Place {
            generation: Generation(entry.position.generation),
            frame: FrameNo(entry.position.frame),
        });
        take(page.entries)?;
        // A page without entries cannot say where to go on, whatever it claims.
        if !page.more || last.is_none() {
            return Ok(());
        }
        after = last;
    }
}

/// Prints entries as they come, in columns of fixed width.
struct Printer<'a> {
    out: &'a Output,
    /// To tell sizes in bytes; JSON tells pages.
    page_size: u32,
    printed: usize,
}

impl Printer<'_> {
    fn print(&mut self, entry: &LogEntry) -> Result<(), Failure> {
        self.printed += 1;
        if self.out.is_json() {
            return self.out.value(entry);
        }
        if self.printed == 1 {
            self.out.line(format_args!(
                "{:<12} {:>11}  {:<20}  {:<16} {:>8} {:>10} {:>8}",
                "POSITION", "TRANSACTION", "TIME", "DEVICE", "PAGES", "SIZE", "STORED"
            ))?;
        }
        self.out.line(format_args!(
            "{:<12} {:>11}  {:<20}  {:<16} {:>8} {:>10} {:>8}",
            format!("{}/{}", entry.position.generation, entry.position.frame),
            entry.txid,
            time(entry.time_ms),
            if entry.device == format!("{LIBSQL_NODE:016x}") { "libSQL" } else { &entry.device },
            entry.pages,
            Bytes(u64::from(entry.page_count) * u64::from(self.page_size)),
            Bytes(entry.bytes),
        ))
    }
}
