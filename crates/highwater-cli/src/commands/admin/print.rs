//! What `highwater admin` shows.

use highwater::{AdminDatabase, AdminDetail, AdminState, AdminStats};

use crate::failure::Failure;
use crate::output::{Bytes, Output, count, grouped, remark, time};

/// Databases as they come, in columns of fixed width; in JSON one a line.
pub(super) struct Table<'a> {
    out: &'a Output,
    printed: usize,
}

impl<'a> Table<'a> {
    pub(super) fn new(out: &'a Output) -> Self {
        Self { out, printed: 0 }
    }

    pub(super) fn print(&mut self, database: &AdminDatabase) -> Result<(), Failure> {
        self.printed += 1;
        if self.out.is_json() {
            return self.out.value(database);
        }
        if self.printed == 1 {
            self.out.line(format_args!(
                "{:<24} {:<8} {:<12} {:>10} {:>10}  {:<20}  OPEN",
                "NAME", "STATE", "POSITION", "SIZE", "STORED", "CHANGED"
            ))?;
        }
        self.out.line(format_args!(
            "{:<24} {:<8} {:<12} {:>10} {:>10}  {:<20}  {}",
            database.name,
            database.state.as_str(),
            place(database),
            Bytes(database.bytes),
            Bytes(database.stored_bytes),
            optional_time(database.updated_ms),
            if database.open { "yes" } else { "no" },
        ))?;
        if let Some(problem) = &database.problem {
            self.out.line(format_args!("    PROBLEM: {problem}"))?;
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Result<(), Failure> {
        if self.printed == 0 && !self.out.is_json() {
            remark("This server has no databases yet.");
        }
        Ok(())
    }
}

/// The head as `G/F`.
pub(super) fn place(database: &AdminDatabase) -> String {
    database.head.as_ref().map_or("-".to_owned(), |head| format!("{}/{}", head.generation, head.frame))
}

pub(super) fn optional_time(ms: Option<i64>) -> String {
    ms.map_or("-".to_owned(), time)
}

/// One database, and what was done to it.
pub(super) fn detail(detail: &AdminDetail, out: &Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.value(detail);
    }
    let database = &detail.database;
    let line = |what: &str, value: String| out.line(format_args!("{what:<10} {value}"));
    line("Database", database.name.clone())?;
    line("State", database.state.as_str().to_owned())?;
    line("Position", format!("{} (transaction {})", place(database), database.txid))?;
    let pages = count(database.page_count.into(), "page");
    line("Size", format!("{} ({pages} of {})", Bytes(database.bytes), Bytes(database.page_size.into())))?;
    let files =
        format!("{} and {}", count(detail.pushes, "transaction"), count(detail.snapshots, "snapshot"));
    line("Stored", format!("{} ({files})", Bytes(database.stored_bytes)))?;
    line("Created", optional_time(database.created_ms))?;
    line("Changed", optional_time(database.updated_ms))?;
    if let Some(problem) = &database.problem {
        line("PROBLEM", problem.clone())?;
    }
    if database.state == AdminState::Deleted {
        line("Removed", format!("after {}", optional_time(database.removed_after_ms)))?;
    }
    detail.events.iter().try_for_each(|event| {
        out.line(format_args!("{:<10} {}, by {}", event.event.as_str(), time(event.time_ms), event.by))
    })
}

/// The server as a whole.
pub(super) fn stats(stats: &AdminStats, out: &Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.value(stats);
    }
    let line = |what: &str, value: String| out.line(format_args!("{what:<12} {value}"));
    let up = humantime::format_duration(std::time::Duration::from_secs(stats.uptime_s));
    line("Version", stats.version.clone())?;
    line("Up for", up.to_string())?;
    line("Databases", format!("{}, {} deleted", grouped(stats.databases), grouped(stats.deleted)))?;
    line("Stored", format!("{} in {}", Bytes(stats.stored_bytes), count(stats.stored_files, "file")))?;
    line("In memory", count(stats.open, "database"))?;
    line("Connections", grouped(stats.connections))?;
    line("Requests", format!("{} being answered", grouped(stats.in_flight)))
}
