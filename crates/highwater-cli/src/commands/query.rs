//! `highwater query`: SQL on a database as it was at any point of its history, on the server.

use std::fmt::Write as _;
use std::str::FromStr;

use clap::Args;
use highwater::{At, Error, ErrorCode, Place, QueryAnswer, QueryCut, SqlValue};

use crate::failure::Failure;
use crate::output::{Output, count, remark, time};
use crate::remote::Access;

/// A longer value is cut off in a table, in characters.
const WIDEST: usize = 60;

/// Ask a database on the server with SQL, now or as it was at any point of its history
///
/// The server runs one statement that only reads, on the pages of that position; nothing is restored or
/// copied for it, and nothing can be changed by it. Long answers are cut, which is said; with --json
/// the whole answer is one JSON object.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Query {
    /// The database on the server, or a local copy that is synced with it
    #[arg(value_name = "URL|DB")]
    target: String,
    /// One statement, for example "SELECT * FROM notes"
    #[arg(value_name = "SQL")]
    sql: String,
    /// A position as `highwater log` lists them, or a time; the newest state without it
    #[arg(long, value_name = "G/F|RFC3339")]
    at: Option<Moment>,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  highwater query app.db \"SELECT * FROM notes LIMIT 5\"
  highwater query http://127.0.0.1:8080/app --at 1/9 \"SELECT count(*) FROM notes\"
  highwater query app.db --at 2026-01-31T12:00:00Z \"SELECT text FROM notes WHERE id = 7\"
  highwater query app.db --json \"SELECT name FROM sqlite_schema\" | jq -r '.rows[][0]'

Times are the server's, in UTC. A value in a table is cut off at 60 characters; --json has it whole.";

/// A position or a time.
#[derive(Debug, Clone, Copy)]
struct Moment(At);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(place) = text.parse::<Place>() {
            return Ok(Self(At::Place(place)));
        }
        let time = humantime::parse_rfc3339_weak(text);
        time.map(|time| Self(At::Time(time))).map_err(|_| {
            "neither a position like 1/9 (highwater log lists them) nor a time like 2026-01-31T12:00:00Z"
                .to_owned()
        })
    }
}

impl Query {
    pub(crate) fn run(self, out: &Output) -> Result<(), Failure> {
        let remote = self.access.remote(&self.target)?;
        let at = self.at.map_or(At::Head, |moment| moment.0);
        let answer = remote.query_blocking(&self.sql, at).map_err(refused)?;
        if out.is_json() {
            return out.value(&answer);
        }
        print(&answer, out)?;
        let (rows, head) = (answer.rows.len() as u64, &answer.position);
        remark(format_args!(
            "{} at {}/{} ({}).",
            count(rows, "row"),
            head.generation,
            head.frame,
            time(answer.time_ms)
        ));
        match answer.cut {
            None => {}
            Some(QueryCut::Bytes) => {
                remark(
                    "There is more, but the answer is full: ask for fewer columns, or less of long values.",
                );
            }
            Some(_) => remark("There are more rows: go on with LIMIT and OFFSET, or a narrower WHERE."),
        }
        Ok(())
    }
}

/// A refusal of the statement itself is about the statement, not about the server.
fn refused(error: Error) -> Failure {
    match error {
        Error::Server { code: ErrorCode::BadRequest, message, .. } => {
            let hint = if message.contains("only reads") {
                "to change the database, write to a local copy and sync it: highwater clone URL FILE"
            } else {
                "tables and columns are in: SELECT sql FROM sqlite_schema"
            };
            Failure::failed("query", format!("the server cannot run this query: {message}")).hint(hint)
        }
        Error::Server { code: ErrorCode::TooLarge, message, .. } => {
            Failure::failed("query_too_large", message)
                .hint("to ask without limits, get a copy: highwater restore URL -o FILE")
        }
        other => other.into(),
    }
}

/// A table: names, then a row a line.
fn print(answer: &QueryAnswer, out: &Output) -> Result<(), Failure> {
    let cells: Vec<Vec<String>> = answer.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let names: Vec<String> = answer.columns.iter().map(|name| shown(name)).collect();
    let widths: Vec<usize> = (0..names.len())
        .map(|at| {
            let column = cells.iter().filter_map(|row| row.get(at)).chain(names.get(at));
            column.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let numbers = |at: usize| {
        let mut column = answer.rows.iter().filter_map(|row| row.get(at)).peekable();
        column.peek().is_some()
            && column.all(|value| matches!(value, SqlValue::Integer(_) | SqlValue::Real(_) | SqlValue::Null))
    };
    let right: Vec<bool> = (0..names.len()).map(numbers).collect();
    let line = |cells: &[String]| {
        let mut line = String::new();
        for ((cell, width), right) in cells.iter().zip(&widths).zip(&right) {
            let gap = if line.is_empty() { "" } else { "  " };
            // Writing to a string does not fail.
            let _ = if *right {
                write!(line, "{gap}{cell:>width$}")
            } else {
                write!(line, "{gap}{cell:<width$}")
            };
        }
        line.truncate(line.trim_end().len());
        line
    };
    out.line(line(&names))?;
    out.line(line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>()))?;
    cells.iter().try_for_each(|row| out.line(line(row)))
}

fn cell(value: &SqlValue) -> String {
    match value {
        SqlValue::Text(text) => shown(&String::from_utf8_lossy(text)),
        other => shown(&other.to_string()),
    }
}

/// On one line, without what a terminal would obey, and not too long.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == WIDEST {
            shown.push('…');
            break;
        }
        match c {
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_not_done() {
        assert_eq!(shown("two\nlines\u{1b}[2J"), r"two\nlines\u{1b}[2J");
        assert_eq!(shown(&"x".repeat(61)).chars().count(), 61);
        assert_eq!(cell(&SqlValue::Blob(vec![1, 255])), "x'01ff'");
        assert_eq!(cell(&SqlValue::Null), "NULL");
        assert_eq!(cell(&SqlValue::text("it's")), "it's");
    }

    #[test]
    fn a_moment_is_a_position_or_a_time() {
        assert!(matches!("1/9".parse::<Moment>().unwrap().0, At::Place(_)));
        assert!(matches!("2026-01-31 12:00:00".parse::<Moment>().unwrap().0, At::Time(_)));
        assert!("yesterday".parse::<Moment>().is_err());
    }
}
