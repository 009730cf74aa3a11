//! A file that an operator may change at any time, followed without restarting anything.
//!
//! At most once a second whoever asks looks at the file's size, times and inode; when they
//! moved it is read again. A file that cannot be read, or not be understood, changes nothing but the log: what was
//! last understood stays in force. File times are coarse, so a file that was changed within
//! the last two seconds is read again next time whatever they say.

use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often the file is looked at, at most.
const EVERY: Duration = Duration::from_secs(1);
/// How old a change must be before the file's times are proof that there was no other.
const SETTLED: Duration = Duration::from_secs(2);
/// The largest file that is read, in bytes.
const LARGEST: u64 = 4 << 20;

type Parse<T> = Box<dyn Fn(&str) -> Result<T, String> + Send + Sync>;

/// Why a file could not be read at first.
#[derive(Debug, thiserror::Error)]
pub enum WatchedError {
    /// The system refused.
    #[error("reading {path} failed; check the name and who may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path} cannot be used: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
}

impl WatchedError {
    /// Whether there simply is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A value that is read from a file, again when the file changes.
pub struct Watched<T> {
    path: PathBuf,
    parse: Parse<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    /// Of the file as it was last looked at; None: look again in any case.
    stamp: Option<Stamp>,
    /// Of the content that the value was read from; None: there never was any.
    digest: Option<u64>,
    looked: Instant,
    /// What was last complained about.
    complaint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
    file: u64,
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<T> Watched<T> {
    /// Reads the file. With `missing`, that is the value until there is such a file.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn open<E: std::fmt::Display>(
        path: &Path,
        missing: Option<T>,
        parse: impl Fn(&str) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, WatchedError> {
        let parse: Parse<T> = Box::new(move |text| parse(text).map_err(|error| error.to_string()));
        let (value, stamp, digest) = match (read(path, &parse), missing) {
            (Ok(read), _) => (read.value, read.stamp, Some(read.digest)),
            (Err(error), Some(value)) if error.is_missing() => (value, None, None),
            (Err(error), _) => return Err(error),
        };
        let state = State { value: Arc::new(value), stamp, digest, looked: Instant::now(), complaint: None };
        Ok(Self { path: path.to_owned(), parse, state: Mutex::new(state) })
    }

    /// The value as of a second ago at most.
    pub fn get(&self) -> Arc<T> {
        self.at(Instant::now())
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, now: Instant) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.looked) >= EVERY {
            state.looked = now;
            self.look(&mut state);
        }
        Arc::clone(&state.value)
    }

    fn look(&self, state: &mut State<T>) {
        let stamp = std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if stamp.is_some() && stamp == state.stamp {
            return;
        }
        match read(&self.path, &self.parse) {
            Ok(read) => {
                state.stamp = read.stamp;
                if state.digest.replace(read.digest) != Some(read.digest) {
                    tracing::info!(file = %self.path.display(), "read again: it has changed");
                    state.value = Arc::new(read.value);
                }
                state.complaint = None;
            }
            // It may come into being later.
            Err(error) if error.is_missing() && state.digest.is_none() => {}
            Err(error) => {
                state.stamp = None;
                let text = chain(&error);
                if state.complaint.as_ref() != Some(&text) {
                    tracing::error!(file = %self.path.display(), error = text, "the file cannot be used; what it said before stays in force");
                    state.complaint = Some(text);
                }
            }
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let file = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let file = 0;
        Self { size: metadata.len(), modified: metadata.modified().ok(), file }
    }

    /// Whether a later change would show in it.
    fn is_settled(&self) -> bool {
        let age = self.modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        age.is_some_and(|age| age > SETTLED)
    }
}

struct Read<T> {
    value: T,
    stamp: Option<Stamp>,
    digest: u64,
}

fn read<T>(path: &Path, parse: &Parse<T>) -> Result<Read<T>, WatchedError> {
    let failed = |source| WatchedError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Of the open file, and before it is read: a change while reading is seen next time.
    let stamp = Stamp::of(&file.metadata().map_err(failed)?);
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(failed)?;
    let wrong = |what| WatchedError::Content { path: path.to_owned(), what };
    if text.len() as u64 > LARGEST {
        return Err(wrong(format!("it is larger than {LARGEST} bytes")));
    }
    let value = parse(&text).map_err(wrong)?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Ok(Read { value, stamp: stamp.is_settled().then_some(stamp), digest: hasher.finish() })
}

fn chain(error: &WatchedError) -> String {
    match error {
        WatchedError::Read { source, .. } => format!("{error}: {source}"),
        WatchedError::Content { .. } => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "files for one test")]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u32, std::num::ParseIntError> {
        text.trim().parse()
    }

    /// The value as of so many seconds from now.
    fn later(watched: &Watched<u32>, seconds: u64) -> u32 {
        *watched.at(Instant::now() + Duration::from_secs(seconds))
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "1").unwrap();
        let watched = Watched::open(&path, None, number).unwrap();
        assert_eq!(*watched.get(), 1);
        // Of the same size, within one tick of the file system's clock.
        std::fs::write(&path, "2").unwrap();
        assert_eq!(later(&watched, 2), 2);
        std::fs::write(&path, "broken").unwrap();
        assert_eq!(later(&watched, 4), 2);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(later(&watched, 6), 2);
        std::fs::write(&path, "3").unwrap();
        assert_eq!(later(&watched, 8), 3);
    }

    #[test]
    fn a_file_is_looked_at_once_a_second_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "1").unwrap();
        let watched = Watched::open(&path, None, number).unwrap();
        let now = Instant::now() + Duration::from_secs(10);
        assert_eq!(*watched.at(now), 1);
        std::fs::write(&path, "2").unwrap();
        assert_eq!(*watched.at(now + Duration::from_millis(900)), 1);
        assert_eq!(*watched.at(now + Duration::from_millis(1000)), 2);
    }

    #[test]
    fn a_file_may_come_into_being_later_if_that_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(Watched::open(&path, None, number).unwrap_err().is_missing());
        let watched = Watched::open(&path, Some(0), number).unwrap();
        assert_eq!(later(&watched, 2), 0);
        std::fs::write(&path, "1").unwrap();
        assert_eq!(later(&watched, 4), 1);
    }

    #[test]
    fn a_file_that_is_broken_at_first_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "broken").unwrap();
        let error = Watched::open(&path, Some(0), number).unwrap_err();
        assert!(error.to_string().contains("cannot be used"), "{error}");
    }
}
