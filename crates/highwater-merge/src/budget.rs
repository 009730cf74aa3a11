//! How long a merge may take, and how much memory.
//!
//! The deadline is looked at whenever a page is read from a snapshot, by SQLite while a statement runs, and for each
//! row that is read. What counts as memory is what grows with the change: the rows that are held until they are
//! applied, and the pages of the result. Indexes, caches and SQLite's own memory do not grow with it.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_pages::owners::PageSource;
use highwater_wire::SqlValue;
use rusqlite::Connection;

use crate::Pages;
use crate::access::SideRow;
use crate::table::{Step, Stop};

/// After how many of SQLite's steps the deadline is looked at.
const STEPS: i32 = 1000;
/// What a value takes besides its bytes.
const VALUE: u64 = size_of::<SqlValue>() as u64 + 1;
/// What a row takes besides its values.
const ROW: u64 = size_of::<SideRow>() as u64;

/// How much a merge may take; nothing is limited unless it is said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// When it has to be done.
    pub until: Option<Instant>,
    /// How many bytes rows and pages may take.
    pub memory: Option<u64>,
}

/// What a merge needed more of than it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// [`Bounds::until`].
    Time,
    /// [`Bounds::memory`].
    Memory,
}

/// What a merge has left.
#[derive(Debug)]
pub(crate) struct Budget {
    bounds: Bounds,
    used: Cell<u64>,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, used: Cell::new(0) }
    }

    /// Whether the time is over.
    pub(crate) fn is_late(&self) -> bool {
        self.bounds.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Goes on if there is time.
    pub(crate) fn go_on(&self) -> Step<()> {
        if self.is_late() { Err(Stop::Exceeded(Exceeded::Time)) } else { Ok(()) }
    }

    /// Takes so many bytes.
    pub(crate) fn take(&self, bytes: u64) -> Step<()> {
        self.used.set(self.used.get().saturating_add(bytes));
        let over = self.bounds.memory.is_some_and(|most| self.used.get() > most);
        if over { Err(Stop::Exceeded(Exceeded::Memory)) } else { Ok(()) }
    }

    /// Interrupts the connection's statements when the time is over.
    pub(crate) fn watch(&self, side: &mut Connection) -> rusqlite::Result<()> {
        let Some(until) = self.bounds.until else { return Ok(()) };
        side.progress_handler(STEPS, Some(move || Instant::now() >= until))
    }

    /// The pages of a side as long as there is time.
    pub(crate) fn bound(&self, pages: &Pages) -> Pages {
        match self.bounds.until {
            Some(until) => Arc::new(Bounded { pages: Arc::clone(pages), until }),
            None => Arc::clone(pages),
        }
    }
}

/// About how many bytes a row takes.
pub(crate) fn size(row: &SideRow) -> u64 {
    let bytes = |value: &SqlValue| match value {
        SqlValue::Text(bytes) | SqlValue::Blob(bytes) => bytes.len() as u64,
        _ => 0,
    };
    row.values.iter().map(|value| VALUE + bytes(value)).sum::<u64>() + ROW
}

struct Bounded {
    pages: Pages,
    until: Instant,
}

impl PageSource for Bounded {
    fn page_size(&self) -> PageSize {
        self.pages.page_size()
    }

    fn page_count(&self) -> PageCount {
        self.pages.page_count()
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        if Instant::now() >= self.until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the time for the merge is over"));
        }
        self.pages.read(page, into)
    }
}
