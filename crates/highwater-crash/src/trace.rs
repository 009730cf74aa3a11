//! What a process did to the files of one folder, as `recorder/recorder.c` wrote it down.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The number that the file system has for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Inode(pub u64);

/// One operation that succeeded. Paths are relative to the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A new, empty file has this name.
    Create { inode: Inode, path: PathBuf },
    /// These bytes stand at this offset.
    Write { inode: Inode, offset: u64, data: Vec<u8> },
    /// The file has this many bytes.
    Truncate { inode: Inode, size: u64 },
    /// The content of the file was waited for.
    Sync { inode: Inode },
    /// The names in a folder were waited for.
    SyncFolder { path: PathBuf },
    /// A name was exchanged for another one, whatever had that.
    Rename { from: PathBuf, to: PathBuf },
    /// A file has another name, too.
    Link { from: PathBuf, to: PathBuf },
    /// A name is gone.
    Unlink { path: PathBuf },
    /// A new, empty folder.
    CreateFolder { path: PathBuf },
    /// A folder is gone.
    RemoveFolder { path: PathBuf },
}

/// Operations in their order, each with the byte of the record file at which it ends: by it a moment
/// of another process is found in the order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) operations: Vec<Operation>,
    ends: Vec<u64>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { inode, path } => write!(f, "create {} as {}", path.display(), inode.0),
            Self::Write { inode, offset, data } => {
                write!(f, "write {} bytes at {offset} of {}", data.len(), inode.0)
            }
            Self::Truncate { inode, size } => write!(f, "truncate {} to {size}", inode.0),
            Self::Sync { inode } => write!(f, "sync {}", inode.0),
            Self::SyncFolder { path } => write!(f, "sync the folder {:?}", path.display().to_string()),
            Self::Rename { from, to } => write!(f, "rename {} to {}", from.display(), to.display()),
            Self::Link { from, to } => write!(f, "link {} as {}", from.display(), to.display()),
            Self::Unlink { path } => write!(f, "remove {}", path.display()),
            Self::CreateFolder { path } => write!(f, "create the folder {}", path.display()),
            Self::RemoveFolder { path } => write!(f, "remove the folder {}", path.display()),
        }
    }
}

impl Trace {
    /// Reads what a recorder wrote. A record that is not whole is an error: the recorder aborts its process
    /// sooner than it leaves one.
    ///
    /// # Errors
    /// A file that cannot be read, or is none of the recorder's.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("reading the records in {}", path.display()))?;
        let mut trace = Self::default();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let operation = read_one(&mut rest).context("a damaged record")?;
            trace.operations.push(operation);
            trace.ends.push((bytes.len() - rest.len()) as u64);
        }
        Ok(trace)
    }

    /// How many operations had happened when the record file had so many bytes.
    pub(crate) fn happened(&self, bytes: u64) -> usize {
        self.ends.partition_point(|end| *end <= bytes)
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count).context("the record ends early")?;
    *rest = tail;
    Ok(head)
}

fn number(rest: &mut &[u8]) -> Result<u64> {
    Ok(u64::from_le_bytes(take(rest, 8)?.try_into()?))
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = u32::from_le_bytes(take(rest, 4)?.try_into()?);
    take(rest, usize::try_from(length)?)
}

fn path(bytes: &[u8]) -> Result<PathBuf> {
    Ok(PathBuf::from(std::str::from_utf8(bytes).context("a path that is no UTF-8")?))
}

fn read_one(rest: &mut &[u8]) -> Result<Operation> {
    let kind = take(rest, 1)?.first().copied().unwrap_or_default();
    let inode = Inode(number(rest)?);
    let number = number(rest)?;
    let one = bytes(rest)?;
    let two = bytes(rest)?;
    Ok(match kind {
        1 => Operation::Create { inode, path: path(one)? },
        2 => Operation::Write { inode, offset: number, data: two.to_vec() },
        3 => Operation::Truncate { inode, size: number },
        4 => Operation::Sync { inode },
        5 => Operation::SyncFolder { path: path(one)? },
        6 => Operation::Rename { from: path(one)?, to: path(two)? },
        7 => Operation::Link { from: path(one)?, to: path(two)? },
        8 => Operation::Unlink { path: path(one)? },
        9 => Operation::CreateFolder { path: path(one)? },
        10 => Operation::RemoveFolder { path: path(one)? },
        other => bail!("there is no operation {other}"),
    })
}
