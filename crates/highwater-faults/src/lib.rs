//! Disks that fail, for unmodified processes.
//!
//! A small library in C (`shim/faults.c`) is preloaded into a process and stands between it and the
//! system calls with which files are opened, read, written, flushed and named. A [`Plan`] says which
//! of these calls fail, and how: SQLite and everything else in the process see the same broken disk.
//!
//! ```no_run
//! use std::process::Command;
//! use highwater_faults::{Call, Kind, Plan, When};
//!
//! let plan = Plan::new("/data", Kind::Eio, When::Only(3)).calls(&[Call::Sync]);
//! let mut command = Command::new("highwater");
//! assert!(plan.apply(&mut command), "only on Linux");
//! ```
//!
//! By hand, the same is `LD_PRELOAD=…/libfaults.so HIGHWATER_FAULT_PLAN='root=/data;kind=eio;calls=sync;when=3'`.
//!
//! What it cannot do: writes through a mapping are not seen (SQLite's `-shm`), and names that were not
//! flushed are not taken back.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The system calls that can fail, in groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `open` and its kin, folders too.
    Open,
    /// `read`, `pread`, `readv`.
    Read,
    /// `write`, `pwrite`, `writev`, `pwritev`.
    Write,
    /// `fsync` and `fdatasync`, of folders too.
    Sync,
    /// `ftruncate` and `fallocate`.
    Truncate,
    /// `rename` and its kin.
    Rename,
    /// `link`.
    Link,
    /// `unlink` and `rmdir`.
    Unlink,
    /// `mkdir`.
    Mkdir,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Truncate,
        Self::Rename,
        Self::Link,
        Self::Unlink,
        Self::Mkdir,
    ];

    /// Its name in a plan and in a report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Truncate => "truncate",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Unlink => "unlink",
            Self::Mkdir => "mkdir",
        }
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With `EIO`, and it does nothing.
    Eio,
    /// With `ENOSPC`, and it does nothing.
    Enospc,
    /// A write takes half of its bytes and says so. That is no error: the caller has to go on.
    Short,
    /// A write takes half of its bytes, and the next matching call fails with `ENOSPC`.
    Torn,
    /// A flush fails with `EIO`, and what was written since the last one is gone, as when the kernel
    /// drops pages that it could not write. A second flush succeeds, and brings nothing back.
    Lost,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Eio => "eio",
            Self::Enospc => "enospc",
            Self::Short => "short",
            Self::Torn => "torn",
            Self::Lost => "lost",
        }
    }
}

/// Which of the matching calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Only this one, counted from 1.
    Only(u64),
    /// This one and all that follow.
    From(u64),
    /// Each with so many chances in a million, chosen by the seed.
    Chance(u64, u64),
}

/// What fails in a process.
#[derive(Debug, Clone)]
pub struct Plan {
    root: PathBuf,
    kind: Kind,
    when: When,
    calls: Vec<Call>,
    files: Vec<String>,
    not: Vec<String>,
    report: Option<PathBuf>,
}

impl Plan {
    /// Calls on files below `root`, an absolute path.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, kind: Kind, when: When) -> Self {
        let (calls, files, not) = (Vec::new(), Vec::new(), Vec::new());
        Self { root: root.into(), kind, when, calls, files, not, report: None }
    }

    /// Only these calls; all of them unless said.
    #[must_use]
    pub fn calls(mut self, calls: &[Call]) -> Self {
        self.calls.extend_from_slice(calls);
        self
    }

    /// Only files whose path below the root contains one of these.
    #[must_use]
    pub fn files(mut self, parts: &[&str]) -> Self {
        self.files.extend(parts.iter().map(|&part| part.to_owned()));
        self
    }

    /// No files whose path below the root contains one of these.
    #[must_use]
    pub fn not(mut self, parts: &[&str]) -> Self {
        self.not.extend(parts.iter().map(|&part| part.to_owned()));
        self
    }

    /// A file to which a line goes for every fault; [`faults`] reads it.
    #[must_use]
    pub fn report(mut self, path: impl Into<PathBuf>) -> Self {
        self.report = Some(path.into());
        self
    }

    /// Gives the plan to a process that has not been started yet. `false` when there is no shim on
    /// this system.
    #[must_use = "without a shim nothing fails"]
    pub fn apply(&self, command: &mut Command) -> bool {
        let Some(shim) = shim() else { return false };
        command.env("LD_PRELOAD", shim).env("HIGHWATER_FAULT_PLAN", self.text());
        match &self.report {
            Some(path) => command.env("HIGHWATER_FAULT_REPORT", path),
            None => command.env_remove("HIGHWATER_FAULT_REPORT"),
        };
        true
    }

    /// The plan as the shim reads it.
    #[must_use]
    pub fn text(&self) -> OsString {
        let mut rest = format!(";kind={}", self.kind.name());
        let names: Vec<_> = self.calls.iter().map(|call| call.name()).collect();
        for (name, values, between) in [
            ("calls", names.join(","), ","),
            ("files", self.files.join("|"), "|"),
            ("not", self.not.join("|"), "|"),
        ] {
            debug_assert!(!values.contains(';') && !values.ends_with(between));
            if !values.is_empty() {
                // Writing to a string cannot fail.
                let _ = write!(rest, ";{name}={values}");
            }
        }
        let _ = match self.when {
            When::Only(n) => write!(rest, ";when={n}"),
            When::From(n) => write!(rest, ";when={n}+"),
            When::Chance(n, seed) => write!(rest, ";when={n}/{seed}"),
        };
        let mut text = OsString::from("root=");
        text.push(&self.root);
        text.push(rest);
        text
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The name of the call's group.
    pub call: String,
    /// Which of the matching calls it was.
    pub number: u64,
    /// The file.
    pub path: PathBuf,
}

/// Reads a report. No file means that nothing failed.
#[must_use]
pub fn faults(report: &Path) -> Vec<Fault> {
    let text = std::fs::read(report).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let fault = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let (call, number, path) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Fault { call: call.to_owned(), number: number.parse().ok()?, path: path.into() })
    };
    text.lines().filter_map(fault).collect()
}

/// The library that is preloaded; `None` where there is none.
#[must_use]
pub fn shim() -> Option<&'static Path> {
    option_env!("HIGHWATER_FAULT_SHIM").map(Path::new).filter(|path| path.exists())
}
