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
    /// The merge's number in the log, or the id of a refused push, as `list` shows it
    #[arg(value_name = "TRANSACTION")]
    name: Name,
    #[command(flatten)]
    access: Access,
}

/// What a record is called.
#[derive(Debug, Clone)]
enum Name {
    /// A merge, by its number in the log.
    Merge(TxId),
    /// A refused push of a libSQL client.
    Refused(String),
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_id = |id: &str| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if text.strip_prefix('r').is_some_and(is_id) {
            return Ok(Self::Refused(text.to_owned()));
        }
        let number = text.parse().map_err(|_| "neither a number nor an id as `conflicts list` shows them")?;
        Ok(Self::Merge(TxId(number)))
    }
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
            Action::Show { which: Which { target, name, access } } => {
                let remote = access.remote(&target)?;
                match name {
                    Name::Merge(txid) => {
                        let record = remote.merge_record_blocking(txid)?;
                        if out.is_json() {
                            out.value(&record)
                        } else {
                            out.line(print::record(&target, &record))
                        }
                    }
                    Name::Refused(id) => {
                        let push = remote.refused_push_blocking(&id)?;
                        if out.is_json() {
                            out.value(&push)
                        } else {
                            out.line(print::refused(&target, &push))
                        }
                    }
                }
            }
            Action::Resolve { which: Which { target, name, access } } => {
                let remote = access.remote(&target)?;
                match name {
                    Name::Merge(txid) => {
                        let record = remote.resolve_conflicts_blocking(txid)?;
                        if out.is_json() {
                            return out.value(&record);
                        }
                        let conflicts = count(record.conflicts.len() as u64, "conflict");
                        out.line(format_args!("Merge {}: {conflicts} marked as seen.", txid.0))
                    }
                    Name::Refused(id) => {
                        let push = remote.resolve_refused_blocking(&id)?;
                        if out.is_json() {
                            return out.value(&push);
                        }
                        out.line(format_args!("Refused push {id}: marked as seen."))
                    }
                }
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
        for push in &page.refused {
            if printed == limit {
                return Ok(());
            }
            if out.is_json() {
                out.value(push)?;
            } else {
                if printed == 0 {
                    out.line(print::heading())?;
                }
                out.line(print::refused_line(push))?;
            }
            printed += 1;
        }
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
