//! A new database file in the making: written beside its final place, and published whole.
//!
//! No SQLite is involved, because nobody can have the file open before it has its name. Its times
//! are set a little into the past before it is published, so that any later write shows.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use highwater_ltx::{PageCount, PageNo, PageSize};

use crate::durable::{self, Published};
use crate::error::{Error, Result};
use crate::kill::kill_point;
use crate::mark::Mark;

/// How far into the past the file is dated.
const BACKDATE: Duration = Duration::from_secs(10);

/// A database file that does not have its name yet. Dropped before [`NewDatabase::publish`], it
/// leaves nothing behind.
#[derive(Debug)]
pub struct NewDatabase {
    /// Closed before the file gets its name: closing it later could drop SQLite's locks.
    file: Option<File>,
    temp: PathBuf,
    path: PathBuf,
    page_size: PageSize,
}

impl NewDatabase {
    /// Begins the file that will be `path`.
    pub fn create(path: &Path, page_size: PageSize) -> Result<Self> {
        let temp = durable::temp_path(path);
        let file = File::create_new(&temp).map_err(|source| Error::io(path, "creating", source))?;
        Ok(Self { file: Some(file), temp, path: path.to_path_buf(), page_size })
    }

    /// Writes one canonical page at its place.
    pub fn write(&mut self, page: PageNo, data: &[u8]) -> Result<()> {
        let offset = u64::from(page.0.saturating_sub(1)) * u64::from(self.page_size.get());
        let Some(file) = &mut self.file else { return Ok(()) };
        write_at(file, data, offset).map_err(|source| Error::io(&self.path, "writing", source))
    }

    /// Gives the file its size, makes it durable and moves it to its place, where nothing may be.
    /// Returns the mark from which the next capture reads on, if nobody else has written yet.
    pub fn publish(mut self, page_count: PageCount) -> Result<Option<Mark>> {
        let dated = SystemTime::now() - BACKDATE;
        let kept =
            self.close(page_count, dated).map_err(|source| Error::io(&self.path, "writing", source))?;
        kill_point("bootstrap.before_publish");
        match durable::publish_new(&self.temp, &self.path)? {
            Published::Done => kill_point("bootstrap.after_publish"),
            Published::NameTaken => {
                return Err(Error::io(&self.path, "creating", std::io::ErrorKind::AlreadyExists.into()));
            }
        }
        // A file system with coarser times than it was given may round up.
        if kept > dated { Ok(None) } else { Mark::of_new_file(&self.path, kept) }
    }

    /// Gives the file its size and date, and returns the date that it really got.
    fn close(&mut self, page_count: PageCount, dated: SystemTime) -> std::io::Result<SystemTime> {
        let Some(file) = self.file.take() else { return Ok(dated) };
        file.set_len(page_count.bytes(self.page_size))?;
        file.set_modified(dated)?;
        file.metadata()?.modified()
    }
}

impl Drop for NewDatabase {
    fn drop(&mut self) {
        // After publishing, the temporary name is gone already.
        let _ = std::fs::remove_file(&self.temp);
    }
}

#[cfg(unix)]
fn write_at(file: &mut File, data: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

#[cfg(not(unix))]
fn write_at(file: &mut File, data: &[u8], offset: u64) -> std::io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(data)
}
