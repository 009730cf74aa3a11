//! A snapshot as a connection, and what was changed through it.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use highwater_ltx::{PageCount, PageNo};
use highwater_pages::owners::PageSource;
use rusqlite::{Connection, OpenFlags};

use crate::image::Image;
use crate::mounts::{Mount, Shared};
use crate::{Error, Result, vfs};

/// Bytes of read pages in memory, besides SQLite's own cache (2 MB).
const CACHE: usize = 4 << 20;

/// Bytes of written pages in memory; the others are in a temporary file.
const MEMORY: usize = 32 << 20;

/// What may be done with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// SQLite refuses to write.
    ReadOnly,
    /// What is written stays in an overlay.
    Overlay,
}

/// A snapshot, open as a database. Nothing of it is copied to open it.
///
/// One connection for each snapshot; several may be open at once, on any threads. This SQLite enforces foreign
/// keys unless told otherwise (`PRAGMA foreign_keys`).
pub struct SnapshotDb {
    // The connection goes first, then the image that it wrote to.
    connection: Connection,
    image: Shared,
}

impl fmt::Debug for SnapshotDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotDb").field("pages_read", &self.pages_read()).finish_non_exhaustive()
    }
}

/// How a snapshot is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) access: Access,
    /// Bytes of written pages in memory.
    pub(crate) memory: usize,
    pub(crate) quota: vfs::Quota,
    /// From then on reading fails.
    pub(crate) until: Option<Instant>,
}

/// How a database differs from the snapshot that it was opened from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The size of the database now.
    pub page_count: PageCount,
    /// The pages that differ, ascending, canonical, never the lock page. Every page that the snapshot did not
    /// have is here.
    pub pages: Vec<(PageNo, Vec<u8>)>,
}

impl SnapshotDb {
    /// Opens a snapshot for statements that the program itself writes. For those of others see [`crate::query`].
    pub fn open(pages: Arc<dyn PageSource>, access: Access) -> Result<Self> {
        Self::open_within(pages, access, MEMORY)
    }

    /// As [`SnapshotDb::open`], with as many bytes of written pages in memory.
    pub fn open_within(pages: Arc<dyn PageSource>, access: Access, memory: usize) -> Result<Self> {
        let page_size = pages.page_size().get();
        let settings = Settings { access, memory, quota: vfs::Quota::None, until: None };
        let db = Self::bare(pages, &settings)?;
        // A database that is empty yet gets the size of pages that the source names.
        let settings = format!(
            "PRAGMA page_size={page_size}; PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; PRAGMA mmap_size=0;"
        );
        db.connection.execute_batch(&settings).map_err(|error| db.explain("open the snapshot", error))?;
        Ok(db)
    }

    /// Opens without running a statement.
    pub(crate) fn bare(pages: Arc<dyn PageSource>, settings: &Settings) -> Result<Self> {
        let vfs = vfs::registered(settings.quota).map_err(Error::Register)?;
        let writable = settings.access == Access::Overlay;
        let image = Image::new(pages, writable, CACHE, settings.memory).until(settings.until);
        let image = Arc::new(Mutex::new(image));
        let mode =
            if writable { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let mount = Mount::new(Arc::clone(&image));
        let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags_and_vfs(mount.name(), flags, vfs);
        let connection = opened.map_err(|source| {
            let cause = image.lock().unwrap_or_else(PoisonError::into_inner).take_failure();
            cause.map_or(Error::Sqlite { doing: "open the snapshot", source }, Error::Source)
        })?;
        Ok(Self { connection, image })
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection, for what needs it alone, such as a transaction.
    #[must_use]
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// How often a page was read from the source. A page is read once, unless so many others were read since
    /// that it was forgotten.
    #[must_use]
    pub fn pages_read(&self) -> u64 {
        self.image().reads()
    }

    /// How many pages were written and are kept, in memory or in a temporary file.
    #[must_use]
    pub fn pages_written(&self) -> usize {
        self.image().written()
    }

    /// Why the source failed when SQLite says no more than "disk I/O error"; told once.
    #[must_use]
    pub fn source_error(&self) -> Option<Arc<io::Error>> {
        self.image().take_failure()
    }

    /// An error of the connection, or the source's if that is the cause.
    #[must_use]
    pub fn explain(&self, doing: &'static str, source: rusqlite::Error) -> Error {
        match self.source_error() {
            Some(error) => Error::Source(error),
            None => Error::Sqlite { doing, source },
        }
    }

    /// Ends the connection, and tells what its committed transactions changed.
    pub fn into_changes(self) -> Result<Changes> {
        let Self { connection, image } = self;
        if !connection.is_autocommit() {
            return Err(Error::OpenTransaction);
        }
        connection.close().map_err(|(_, source)| Error::Sqlite { doing: "close the snapshot", source })?;
        image.lock().unwrap_or_else(PoisonError::into_inner).changes()
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
