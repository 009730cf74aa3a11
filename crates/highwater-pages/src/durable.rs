//! Files that survive a crash: the one module of this workspace that renames and that calls fsync.
//!
//! The order that makes a replacement safe: write a temporary file in the same folder, fsync it,
//! rename it over the old one, fsync the folder. A crash at any point leaves the old file or the
//! new one, and at worst a temporary file, which [`remove_stale_temps`] takes away later.
//!
//! Temporary files of `NAME` are called `.NAME.tmp-PID-N`, so that nobody takes one for data and
//! a later process can tell whose they were.
//!
//! None of this is for the main file of a database that SQLite has open in this process: closing
//! any descriptor of it would drop the locks that SQLite holds. Its `-wal` may be synced by path.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater_ltx::planted;

use crate::error::{Error, Result};
use crate::kill_point;

/// A temporary file that nobody has written to for this long is stale, whoever made it: process
/// ids repeat, in containers above all.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// What became of a file that was to get a name of its own.
#[must_use = "a name that was taken means that nothing was published"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It has its name.
    Done,
    /// Another file has that name and was left alone; the temporary file is still there.
    NameTaken,
}

trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(path, doing, source))
    }
}

/// Replaces `path` by a file of these bytes, or creates it. When this returns, a power cut cannot
/// undo it; when it fails or the process dies, the old file is still whole.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, Wait::ForTheName, |file| file.write_all(bytes))
}

/// Replaces `path` like [`write_atomic`], but does not wait for its name: after a power cut the old
/// file may be back. Either is whole.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, Wait::ForTheContent, |file| file.write_all(bytes))
}

/// Replaces `path` like [`write_atomic`], but without waiting for the disk: after a power cut the
/// file may be empty or hold anything. Only for caches that prove their own content.
pub fn replace_cache(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    replace(path, Wait::No, write)
}

/// What to wait for until it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    ForTheContent,
    ForTheName,
}

fn replace(
    path: &Path,
    wait: Wait,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let (file, temp) = create_temp(path)?;
    let guard = RemoveOnDrop(Some(&temp));
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    write(&mut writer).and_then(|()| writer.flush()).doing("writing", path)?;
    kill_point("durable-temp-written");
    if wait != Wait::No && !planted("metadata-not-flushed") {
        writer.get_ref().sync_all().doing("flushing to disk", path)?;
        kill_point("durable-temp-synced");
    }
    drop(writer);
    rename(&temp, path).doing("replacing", path)?;
    guard.keep();
    kill_point("durable-renamed");
    if wait == Wait::ForTheName { sync_dir(folder_of(path)) } else { Ok(()) }
}

/// Gives a finished temporary file its name, and never overwrites. Both lie in one file system.
/// The content is flushed first: when the name exists it names the whole file, even after a power
/// cut.
pub fn publish_new(temp: &Path, path: &Path) -> Result<Published> {
    if !planted("copy-not-flushed") {
        sync_path(temp)?;
    }
    kill_point("durable-temp-synced");
    let taken = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    match std::fs::hard_link(temp, path) {
        Ok(()) => {
            kill_point("durable-linked");
            sync_dir(folder_of(path))?;
            // The second name is only litter now; were it to stay, nothing would be wrong.
            std::fs::remove_file(temp).doing("removing the temporary name", temp)?;
        }
        Err(error) if taken(&error) => return Ok(Published::NameTaken),
        // Some file systems know no hard links, and each says so in its own words.
        Err(_) => match rename_exclusive(temp, path) {
            Err(error) if taken(&error) => return Ok(Published::NameTaken),
            other => other.doing("naming", path)?,
        },
    }
    kill_point("durable-published");
    sync_dir(folder_of(path))?;
    Ok(Published::Done)
}

/// Waits until the content of an open file is on disk. `path` is for the error's message.
pub fn sync_file(file: &File, path: &Path) -> Result<()> {
    file.sync_data().doing("flushing to disk", path)
}

/// Waits until the content of a file is on disk, whoever wrote it: fsync is of the file, not of
/// the descriptor. Not for a database's main file, see the module.
pub fn sync_path(path: &Path) -> Result<()> {
    let file = File::open(path).doing("opening", path)?;
    sync_file(&file, path)
}

/// Waits until the names in a folder are on disk.
pub fn sync_dir(path: &Path) -> Result<()> {
    if planted("folder-not-flushed") {
        return Ok(());
    }
    let folder = File::open(path).doing("opening the folder", path)?;
    folder.sync_all().doing("flushing to disk the folder", path)
}

/// A name for a temporary file next to `path`. No other call in this process gets the same.
#[must_use]
pub fn temp_path(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = temp_prefix(path);
    name.push(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

/// Removes the temporary files of `path` that processes left behind which are no more, and says
/// how many those were. Files of living processes stay, unless untouched for an hour.
pub fn remove_stale_temps(path: &Path) -> Result<usize> {
    let folder = folder_of(path);
    let prefix = temp_prefix(path);
    let mut removed = 0;
    for entry in std::fs::read_dir(folder).doing("listing the folder", folder)? {
        let entry = entry.doing("listing the folder", folder)?;
        let name = entry.file_name();
        let Some(rest) = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes()) else { continue };
        let Some(pid) = parse_pid(rest) else { continue };
        let untouched = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if (!is_alive(pid) || untouched.is_some_and(|age| age > STALE_AFTER))
            && std::fs::remove_file(entry.path()).is_ok()
        {
            removed += 1;
        }
    }
    Ok(removed)
}

fn create_temp(path: &Path) -> Result<(File, PathBuf)> {
    loop {
        let temp = temp_path(path);
        match OpenOptions::new().write(true).create_new(true).open(&temp) {
            // Left by a process that had our id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return Ok((result.doing("creating", path)?, temp)),
        }
    }
}

/// Removes a temporary file when the step that it was made for fails.
struct RemoveOnDrop<'a>(Option<&'a Path>);

impl RemoveOnDrop<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            // An error is on its way already; what stays behind is found by the next clean-up.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn temp_prefix(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or(OsStr::new("unnamed")));
    name.push(".tmp-");
    name
}

/// The process id in `PID-N`.
fn parse_pid(rest: &[u8]) -> Option<i32> {
    let (pid, number) = std::str::from_utf8(rest).ok()?.split_once('-')?;
    number.parse::<u64>().ok()?;
    pid.parse().ok().filter(|pid| *pid > 0)
}

fn is_alive(pid: i32) -> bool {
    // Not allowed to signal it means that it is there.
    rustix::process::Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[allow(clippy::disallowed_methods, reason = "this is the module that the ban points to")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_exclusive(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_exclusive(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
