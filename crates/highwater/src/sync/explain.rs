//! Refusals that a person has to decide about, with the commands that do it.

use std::path::Path;

use highwater_wire::{CannotMerge, Conflict, ConflictDetail, ErrorBody, HeadJson};

use super::Run;
use crate::api::Refused;
use crate::error::Error;
use crate::metadata::BaseInfo;

/// Tables that a message names before it says how many more there are.
const NAMED: usize = 5;

impl Run<'_> {
    /// Another device pushed, this one changed something too, and the server did not merge it.
    pub(crate) fn conflict(&self, mut body: ErrorBody) -> Error {
        let db = self.files.db.clone();
        if let Some(CannotMerge { object, reason }) = body.cannot_merge {
            return Error::CannotMerge { db, object, reason, advice: self.advice() };
        }
        let Some(detail) = body.conflict.take() else {
            return self.api.explain(Refused::Told(http::StatusCode::CONFLICT, Box::new(body)));
        };
        let conflicts = body.conflicts;
        if conflicts.is_empty() {
            let (summary, advice) = (summary(&detail), self.advice());
            return Error::Conflict { db, summary, advice, detail: Box::new(detail), conflicts };
        }
        let advice = format!(
            "To have them merged, and what cannot be kept recorded: `highwater sync {} --policy last-push-wins` (or `first-push-wins`; `Builder::merge_policy` in a program)",
            quoted(&db)
        );
        let summary = meetings(&conflicts);
        Error::Conflict { db, summary, advice, detail: Box::new(detail), conflicts }
    }

    /// The server has news, and this copy has changes that were not to be sent.
    pub(crate) fn conflict_of_pull(&self, base: BaseInfo, head: HeadJson, changed: usize) -> Error {
        let detail = ConflictDetail {
            base: base.position.into(),
            head,
            local_pages: u32::try_from(changed).unwrap_or(u32::MAX),
            remote_pages: 0,
            both_pages: Vec::new(),
            local_tables: Vec::new(),
            remote_tables: Vec::new(),
            both_tables: Vec::new(),
            devices: Vec::new(),
        };
        let summary = format!(
            "this device changed {} since {}, the server is at {}/{}, and a pull does not touch local changes",
            pages(detail.local_pages),
            base.position.place(),
            detail.head.generation,
            detail.head.frame,
        );
        let db = self.files.db.clone();
        let advice = format!(
            "To merge both, and send the result: `highwater sync {}` (`Database::sync`)",
            quoted(&db)
        );
        Error::Conflict { db, summary, advice, detail: Box::new(detail), conflicts: Vec::new() }
    }

    /// The file's content is none of the server's.
    pub(crate) fn stranger(&self) -> Error {
        let remote = self.api.remote.as_str();
        let db = self.files.db.display();
        Error::Stranger {
            db: self.files.db.clone(),
            remote: remote.to_owned(),
            advice: format!(
                "To keep both, sync this file to a name of its own: `highwater sync {db} --remote {remote}-2`. To take the server's database, copy it to another file: `highwater clone {remote} {}`",
                other_name(&self.files.db)
            ),
        }
    }

    fn advice(&self) -> String {
        format!(
            "Local work goes on, and neither side is overwritten. To go on from the server's version: `highwater clone {} {}`, copy what only this file has into the copy, and use the copy from then on",
            self.api.remote,
            other_name(&self.files.db)
        )
    }
}

/// A path as it would be typed into a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains(|c: char| c.is_whitespace() || c == '\'') {
        format!("'{}'", text.replace('\'', r"'\''"))
    } else {
        text
    }
}

/// Which rows both changed, as far as they have names.
fn meetings(conflicts: &[Conflict]) -> String {
    let row = |conflict: &Conflict| {
        let key: Vec<String> = conflict.key.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let columns = if conflict.columns.is_empty() {
            String::new()
        } else {
            format!(" in {}", conflict.columns.join(", "))
        };
        match key.is_empty() {
            true => format!("{}{columns} ({})", conflict.table, conflict.kind),
            false => format!("{} {}{columns} ({})", conflict.table, key.join(", "), conflict.kind),
        }
    };
    let named: Vec<String> = conflicts.iter().take(NAMED).map(row).collect();
    let more = match conflicts.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("the two meet in {}{more}, and the policy is not to merge that", named.join("; "))
}

/// A name for a second copy beside the first: `app.db` becomes `app-server.db`.
fn other_name(db: &Path) -> String {
    let stem = db.file_stem().unwrap_or_default().to_string_lossy();
    let extension = db.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    db.with_file_name(format!("{stem}-server{}", extension.unwrap_or_default())).display().to_string()
}

fn summary(detail: &ConflictDetail) -> String {
    let place = |head: &HeadJson| format!("{}/{}", head.generation, head.frame);
    let both = if detail.both_tables.is_empty() {
        "no table was changed by both".to_owned()
    } else {
        format!("both changed {}", list(&detail.both_tables))
    };
    format!(
        "this device changed {} ({} since {}), the server's copy changed {} ({}, now at {}); {both}",
        list(&detail.local_tables),
        pages(detail.local_pages),
        place(&detail.base),
        list(&detail.remote_tables),
        pages(detail.remote_pages),
        place(&detail.head),
    )
}

fn pages(count: u32) -> String {
    if count == 1 { "1 page".to_owned() } else { format!("{count} pages") }
}

fn list(tables: &[String]) -> String {
    match tables {
        [] => "no table that could be named".to_owned(),
        [only] => format!("table {only}"),
        _ if tables.len() <= NAMED => format!("tables {}", tables.join(", ")),
        _ => {
            let named = tables.get(..NAMED).unwrap_or_default().join(", ");
            format!("tables {named} and {} more", tables.len() - NAMED)
        }
    }
}
