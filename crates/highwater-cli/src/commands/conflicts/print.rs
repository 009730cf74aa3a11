//! Merges and conflicts as a person reads them.

use std::collections::BTreeMap;

use highwater::{Conflict, ConflictKind, Kept, LIBSQL_NODE, MergeRecord, RefusedPush, RowJson, SqlValue};

use crate::failure::quoted;
use crate::output::{count, time};

/// A value is shown with up to so many characters; the statement that puts it back has all of it.
const WIDEST: usize = 32;

pub(super) fn heading() -> String {
    format!("{:>11}  {:<20}  {:<16}  {:>9}  {}", "TRANSACTION", "TIME", "DEVICE", "CONFLICTS", "WHERE")
}

/// One merge in one line.
pub(super) fn line(merge: &MergeRecord) -> String {
    let mut tables: BTreeMap<&str, u64> = BTreeMap::new();
    for conflict in &merge.conflicts {
        *tables.entry(&conflict.table).or_default() += 1;
    }
    let places: Vec<_> = tables.iter().map(|(table, number)| format!("{table} ({number})")).collect();
    format!(
        "{:>11}  {:<20}  {:<16}  {:>9}  {}{}",
        merge.txid,
        time(merge.time_ms),
        device(merge),
        merge.conflicts.len(),
        if places.is_empty() { "-".to_owned() } else { places.join(", ") },
        if merge.resolved { "  resolved" } else { "" },
    )
}

/// A refused push in one line.
pub(super) fn refused_line(push: &RefusedPush) -> String {
    let object = push.object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
    format!(
        "{:>17}  {}  libSQL {}  refused: {object}{}{}",
        push.id,
        time(push.time_ms),
        push.client,
        push.reason,
        if push.resolved { "  resolved" } else { "" },
    )
}

/// A refused push with everything that is known of it.
pub(super) fn refused(target: &str, push: &RefusedPush) -> String {
    let object = push.object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
    let mut parts = vec![format!(
        "Push {} of the libSQL client {}, {}, was refused{}\n{} after frame {} of its generation {}\nWhy: {object}{}",
        push.id,
        push.client,
        time(push.time_ms),
        if push.resolved { " (resolved)" } else { "" },
        count(push.frames, "frame"),
        push.after,
        push.generation,
        push.reason,
    )];
    parts.extend(push.conflicts.iter().enumerate().map(|(at, conflict)| one(at + 1, conflict)));
    if !push.resolved {
        let kept = match push.pages {
            0 => "The client has all of it, and nothing was lost".to_owned(),
            pages => format!(
                "The client has all of it, and the server keeps {}: nothing was lost",
                count(pages.into(), "page")
            ),
        };
        parts.push(format!(
            "{kept}. The client tries again with each sync; when the reason is gone, it gets through, and this is resolved.\n\
             If it never comes back: highwater conflicts resolve {} {}",
            quoted(std::path::Path::new(target)),
            push.id
        ));
    }
    parts.join("\n\n")
}

/// The first half of the device's id, as `highwater log` shows it.
fn device(merge: &MergeRecord) -> &str {
    let half = merge.device.get(..16).unwrap_or(&merge.device);
    if half == format!("{LIBSQL_NODE:016x}") { "libSQL" } else { half }
}

/// One merge with everything in it.
pub(super) fn record(target: &str, merge: &MergeRecord) -> String {
    let counts = merge.counts;
    let mut parts = vec![format!(
        "Merge {} of device {}, {}, policy {}{}\nRows of the device: {} inserted, {} updated, {} deleted, {} that the server had already",
        merge.txid,
        device(merge),
        time(merge.time_ms),
        merge.policy,
        if merge.resolved { " (resolved)" } else { "" },
        counts.inserted,
        counts.updated,
        counts.deleted,
        counts.same,
    )];
    if merge.conflicts.is_empty() {
        parts.push("Everything was kept.".to_owned());
        return parts.join("\n");
    }
    parts.extend(merge.conflicts.iter().enumerate().map(|(at, conflict)| one(at + 1, conflict)));
    if !merge.resolved {
        parts.push(format!(
            "{}. When they are seen to: highwater conflicts resolve {} {}",
            count(merge.conflicts.len() as u64, "conflict"),
            quoted(std::path::Path::new(target)),
            merge.txid
        ));
    }
    parts.join("\n\n")
}

fn one(number: usize, conflict: &Conflict) -> String {
    let key = names(&conflict.key);
    let mut lines = vec![format!("{number}. {} {key} [{}]", conflict.table, conflict.kind)];
    lines.push(format!("   {}", conflict.message));
    lines.extend(table(conflict));
    if conflict.kind == ConflictKind::Renumbered {
        lines.push(format!("   kept: both; the pushed row is {} now", names(&conflict.other_key)));
        return lines.join("\n");
    }
    let kept = match conflict.kept {
        Kept::Local => "what the device pushed",
        Kept::Head => "what the server had",
        Kept::Both => "both",
    };
    lines.push(format!("   kept: {kept}"));
    if let Some(sql) = conflict.put_back() {
        lines.push(format!("   for the other: {}", sql.replace('\n', "\n     ")));
    }
    lines.join("\n")
}

fn names(key: &RowJson) -> String {
    let terms: Vec<_> = key.iter().map(|(name, value)| format!("{name} = {}", short(value))).collect();
    terms.join(", ")
}

/// What each side had, column by column: those that differ.
fn table(conflict: &Conflict) -> Vec<String> {
    if conflict.kind == ConflictKind::Schema {
        return Vec::new();
    }
    let sides = [&conflict.base, &conflict.local, &conflict.head];
    let mut columns: Vec<&str> = Vec::new();
    for (column, _) in sides.iter().flat_map(|side| side.iter().flatten()) {
        if !columns.contains(&column.as_str()) {
            columns.push(column);
        }
    }
    let cell = |side: &Option<RowJson>, column: &str| match side {
        None => "-".to_owned(),
        Some(row) => row.iter().find(|(name, _)| name == column).map_or("-".to_owned(), |(_, v)| short(v)),
    };
    let rows: Vec<[String; 4]> = columns
        .into_iter()
        .map(|column| {
            [column.to_owned(), cell(sides[0], column), cell(sides[1], column), cell(sides[2], column)]
        })
        .filter(|[_, base, local, head]| conflict.columns.is_empty() || base != local || base != head)
        .collect();
    let head = ["column", "before", "pushed", "server"].map(str::to_owned);
    let mut widths = head.clone().map(|name| name.len());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    std::iter::once(&head)
        .chain(&rows)
        .map(|row| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            format!("   {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
        })
        .collect()
}

fn short(value: &SqlValue) -> String {
    let text = value.to_string().replace(['\n', '\r', '\t'], " ");
    if text.chars().count() <= WIDEST {
        return text;
    }
    text.chars().take(WIDEST - 1).chain(['…']).collect()
}
