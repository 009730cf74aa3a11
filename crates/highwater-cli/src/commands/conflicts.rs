//! `highwater conflicts`: what merges could not keep, how to put it back, and marking it as seen.

mod print;

use clap::{Args, Subcommand};
use highwater::{MergeRecord, RemoteDatabase, TxId};

use crate::failure::Failure;
use crate::output::{Output, count, remark};
use crate::remote::Access;

/// Merges asked for at once.
const BATCH: u32 = 100;

/// Show what merges could not keep, and how to put it back
///
/// When two devices changed a database, the server merges both changes. Where only one of two values can
/// stay, the other one is recorded with the merge, and so is every id that changed. To make the other value the
/// one that counts, write it with ordinary SQL and sync; `show` prints the statement.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Conflicts {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
Examples:
  highwater conflicts list app.db
  highwater conflicts list http://127.0.0.1:8080/app --all
  highwater conflicts show app.db 12
  highwater conflicts resolve app.db 12
  highwater conflicts list app.db --json | jq -r '.conflicts[].message'

With --json each merge is one line, with everything that is recorded.";

#[derive(Debug, Subcommand)]
enum Action {
    /// List merges that could not keep everything and that nobody has resolved, newest first
    #[command(
        after_help = "Examples:\n  highwater conflicts list app.db\n  highwater conflicts list app.db --all"
    )]
    List {
        /// The database on the server, or a local copy of it
        #[arg(value_name = "URL|DB")]
        target: String,
        /// All merges: also resolved ones, and those that kept everything
        #[arg(long)]
        all: bool,
        /// Only the newest N
        #[arg(short = 'n', long, value_name = "N")]
        limit: Option<std::num::NonZeroUsize>,
        #[command(flatten)]
        access: Access,
    },
    /// Show one merge: every conflict, what each side had, what was kept
    #[command(after_help = "Examples:\n  highwater conflicts show app.db 12")]
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Mark what a merge could not keep as seen; no row is changed
    #[command(after_help = "Examples:\n  highwater conflicts resolve app.db 12")]
    Resolve {
        #[command(flatten)]
        which: Which,
    },
}

/// One merge.
#[derive(Debug, Args)]
struct Which {
    /// The database on the server, or a local copy of it
    #[arg(value_name = "URL|DB")]
    target: String,
    /// The merge's number in the log, as `list` shows it
    #[arg(value_name = "TRANSACTION")]
    txid: u64,
    #[command(flatten)]
    access: Access,
}

impl Conflicts {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        match self.action {
            Action::List { target, all, limit, access } => list(
                &access.remote(&target)?,
                all,
                limit.map_or(usize::MAX, std::num::NonZeroUsize::get),
                out,
            ),
            Action::Show { which: Which { target, txid, access } } => {
                let record = access.remote(&target)?.merge_record_blocking(TxId(txid))?;
                if out.is_json() { out.value(&record) } else { out.line(print::record(&target, &record)) }
            }
            Action::Resolve { which: Which { target, txid, access } } => {
                let record = access.remote(&target)?.resolve_conflicts_blocking(TxId(txid))?;
                if out.is_json() {
                    return out.value(&record);
                }
                let conflicts = count(record.conflicts.len() as u64, "conflict");
                out.line(format_args!("Merge {txid}: {conflicts} marked as seen."))
            }
        }
    }
}

/// Prints merges as they come.
fn list(remote: &RemoteDatabase, all: bool, limit: usize, out: &Output) -> Result<(), Failure> {
    let (mut printed, mut before) = (0, None);
    loop {
        let page = remote.conflicts_blocking(before, BATCH, all)?;
        let more = page.more && !page.merges.is_empty();
        for merge in &page.merges {
            if printed == limit {
                return Ok(());
            }
            print_line(merge, printed == 0, out)?;
            printed += 1;
        }
        before = page.merges.last().map(|oldest| TxId(oldest.txid));
        if !more {
            break;
        }
    }
    if printed == 0 && !out.is_json() {
        remark(if all { "No merges." } else { "No unresolved conflicts." });
    }
    Ok(())
}

fn print_line(merge: &MergeRecord, first: bool, out: &Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.value(merge);
    }
    if first {
        out.line(print::heading())?;
    }
    out.line(print::line(merge))
}
