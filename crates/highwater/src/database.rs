//! A local database that is kept together with a server's.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use futures::channel::oneshot;
use highwater_pages::{Replica, Suspects};
use highwater_wire::DatabaseInfo;
use rusqlite::Connection;

use crate::builder::{Builder, Options};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::metadata::{Loaded, Metadata};
use crate::outcome::SyncOutcome;
use crate::remote_database::RemoteDatabase;
use crate::status::Status;
use crate::sync::{self, Mode};
use crate::transport::{Http, Timeouts, Transport};

/// A local SQLite file and the server's database that it is synced with.
///
/// The file is an ordinary one: write to it through [`Database::connect`], or with any SQLite
/// library in any process, online or not. Clones share one set of connections to the server.
#[derive(Debug, Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) files: Files,
    transport: OnceLock<Http>,
}

impl Inner {
    /// The connections to the server, made when they are first needed.
    fn transport(&self) -> Result<&dyn Transport> {
        if let Some(transport) = &self.options.transport {
            return Ok(transport.as_ref());
        }
        if let Some(transport) = self.transport.get() {
            return Ok(transport);
        }
        let timeouts = Timeouts { connect: self.options.connect_timeout, idle: self.options.idle_timeout };
        let made = Http::new(timeouts).map_err(|error| Error::Offline {
            remote: self.options.remote.as_ref().map_or_else(|| "its URL".to_owned(), ToString::to_string),
            reason: error.reason,
        })?;
        Ok(self.transport.get_or_init(|| made))
    }

    pub(crate) fn run(&self, mode: Mode) -> Result<SyncOutcome> {
        sync::run(&self.options, &self.files, self.transport()?, mode)
    }
}

impl Database {
    /// Opens the database at `path` with default options; the remote is the one remembered.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Builder::new(path).open()
    }

    pub(crate) fn new(path: &Path, options: Options) -> Result<Self> {
        let files = Files::resolve(path)?;
        Ok(Self { inner: Arc::new(Inner { options, files, transport: OnceLock::new() }) })
    }

    /// The database file, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.files.db
    }

    /// The URL that this database is synced with: the one it was opened with, or the remembered one.
    #[must_use]
    pub fn remote(&self) -> Option<String> {
        if let Some(remote) = &self.inner.options.remote {
            return Some(remote.to_string());
        }
        match Metadata::load(&self.inner.files.info) {
            Ok(Loaded::Valid(metadata)) => metadata.remote,
            _ => None,
        }
    }

    /// Opens a plain connection to the file, creating it if need be: in WAL mode, with the
    /// configured busy timeout, and with SQLite's own defaults for everything else. Nothing about
    /// it is special; connections of other libraries do as well.
    ///
    /// # Errors
    /// [`Error::Sqlite`] when SQLite cannot open the file or switch it to WAL mode.
    pub fn connect(&self) -> Result<Connection> {
        let failed = |source| Error::Sqlite { db: self.path().to_path_buf(), source };
        let options = &self.inner.options;
        let connection = Connection::open(self.path()).map_err(failed)?;
        connection.busy_timeout(options.busy_timeout).map_err(failed)?;
        if let Some(size) = options.page_size {
            connection.pragma_update(None, "page_size", size.get()).map_err(failed)?;
        }
        if options.wal {
            connection
                .query_row("PRAGMA journal_mode=WAL", [], |row| row.get::<_, String>(0))
                .map_err(failed)?;
        }
        Ok(connection)
    }

    /// Brings the local file and the server's database together: pushes what changed here, pulls
    /// what changed there, and when both changed, has the server merge them. Blocks the thread; may be called from anywhere.
    ///
    /// Killed at any moment, it has done no harm, and the next one carries on.
    ///
    /// # Errors
    /// [`Error::Offline`] when the server cannot be reached, [`Error::Conflict`] when both sides
    /// changed the same and the policy is not to merge that, [`Error::CannotMerge`], and others; none of them loses
    /// anything on either side.
    pub fn sync_blocking(&self) -> Result<SyncOutcome> {
        self.blocking(Mode::Sync)
    }

    /// As [`Database::sync_blocking`], for asynchronous programs on any runtime. Dropping the future
    /// does not stop the work; it goes on to its end on a thread of its own.
    ///
    /// # Errors
    /// As [`Database::sync_blocking`].
    pub async fn sync(&self) -> Result<SyncOutcome> {
        self.spawned(Mode::Sync).await
    }

    /// Only sends local changes. When the server has changes that this copy lacks, and there is
    /// something to send, the two are merged, and this copy becomes the result.
    ///
    /// # Errors
    /// As [`Database::sync_blocking`].
    pub fn push_blocking(&self) -> Result<SyncOutcome> {
        self.blocking(Mode::Push)
    }

    /// As [`Database::push_blocking`], asynchronously.
    ///
    /// # Errors
    /// As [`Database::sync_blocking`].
    pub async fn push(&self) -> Result<SyncOutcome> {
        self.spawned(Mode::Push).await
    }

    /// Only fetches the server's changes; local ones stay local. When there are both, that is
    /// [`Error::Conflict`]: [`Database::sync_blocking`] merges them.
    ///
    /// # Errors
    /// As [`Database::sync_blocking`].
    pub fn pull_blocking(&self) -> Result<SyncOutcome> {
        self.blocking(Mode::Pull)
    }

    /// As [`Database::pull_blocking`], asynchronously.
    ///
    /// # Errors
    /// As [`Database::sync_blocking`].
    pub async fn pull(&self) -> Result<SyncOutcome> {
        self.spawned(Mode::Pull).await
    }

    /// Makes the local file from the server's database.
    ///
    /// # Errors
    /// [`Error::Exists`] when the file exists and holds anything, [`Error::UnknownDatabase`] when
    /// the server has no database of that name; else as [`Database::sync_blocking`].
    pub fn clone_blocking(&self) -> Result<SyncOutcome> {
        self.blocking(Mode::Clone)
    }

    /// As [`Database::clone_blocking`], asynchronously.
    ///
    /// # Errors
    /// As [`Database::clone_blocking`].
    pub async fn clone_remote(&self) -> Result<SyncOutcome> {
        self.spawned(Mode::Clone).await
    }

    /// The server's database as the server describes it, over the remembered URL.
    ///
    /// # Errors
    /// [`Error::NoRemote`], [`Error::UnknownDatabase`], [`Error::Offline`] and others.
    pub fn info_blocking(&self) -> Result<DatabaseInfo> {
        self.on_server()?.info_blocking()
    }

    /// The other end, for its history and for restoring.
    ///
    /// # Errors
    /// [`Error::NoRemote`] when no URL is known.
    pub fn on_server(&self) -> Result<RemoteDatabase> {
        let url = self.remote().ok_or_else(|| Error::NoRemote { db: self.path().to_path_buf() })?;
        RemoteDatabase::new(&url, self.inner.options.token.clone())
    }

    /// What is known of this copy without asking the server. Reads every page only when the
    /// write-ahead log cannot say what changed.
    ///
    /// # Errors
    /// [`Error::Local`] when the file cannot be read.
    pub fn status(&self) -> Result<Status> {
        let files = &self.inner.files;
        let loaded = Metadata::load(&files.info)?;
        let (meta, warning) = match loaded {
            Loaded::Valid(meta) => (*meta, None),
            Loaded::Missing => (Metadata::default(), None),
            Loaded::Legacy(place) => (
                Metadata::default(),
                Some(format!("libSQL's metadata file, at {place}; the next sync takes it over")),
            ),
            Loaded::Damaged(reason) => (
                Metadata::default(),
                Some(format!("the metadata file cannot be used: {reason}; the next sync makes it anew")),
            ),
        };
        let mut status = Status {
            db: files.db.clone(),
            exists: files.db.exists(),
            remote: self.inner.options.remote.as_ref().map(ToString::to_string).or(meta.remote.clone()),
            device: meta.device,
            base: meta.base.map(|base| base.position),
            txid: meta.base.map(|base| base.txid),
            page_size: None,
            page_count: highwater_ltx::PageCount(0),
            unpushed_pages: None,
            wal_bytes: std::fs::metadata(&files.wal).map_or(0, |meta| meta.len()),
            warning,
        };
        if status.exists {
            self.look_at_pages(&meta, &mut status)?;
        }
        Ok(status)
    }

    fn look_at_pages(&self, meta: &Metadata, status: &mut Status) -> Result<()> {
        let files = &self.inner.files;
        let mut replica = Replica::open(&files.db, self.inner.options.busy_timeout)?;
        let snapshot = replica.snapshot(meta.mark.as_ref())?;
        status.page_count = snapshot.page_count();
        status.page_size = Some(snapshot.page_size());
        let Some(base) = meta.base.filter(|base| base.page_size == snapshot.page_size()) else {
            return Ok(());
        };
        let suspects = snapshot.suspects(meta.mark.as_ref())?;
        if matches!(suspects, Suspects::Nothing) && base.page_count == status.page_count {
            status.unpushed_pages = Some(0);
            return Ok(());
        }
        let sums = match highwater_pages::PageSums::load(&files.sums, base.position, base.page_size)? {
            highwater_pages::LoadedSums::Valid(sums) => Some(sums),
            _ => None,
        };
        let delta = snapshot.diff(sums.as_ref(), &suspects, &mut |_, _| ())?;
        if sums.is_some() {
            status.unpushed_pages = Some(delta.changed.len() as u64);
        } else if delta.state == base.position.state {
            status.unpushed_pages = Some(0);
        } else if status.warning.is_none() {
            status.warning = Some(
                "the page sums cannot be used, so it is not known what changed; the next sync makes them anew".to_owned(),
            );
        }
        Ok(())
    }

    fn blocking(&self, mode: Mode) -> Result<SyncOutcome> {
        let inner = Arc::clone(&self.inner);
        on_thread_blocking(move || inner.run(mode))?
    }

    fn spawned(&self, mode: Mode) -> impl Future<Output = Result<SyncOutcome>> + use<> {
        let inner = Arc::clone(&self.inner);
        on_thread_async(move || inner.run(mode))
    }
}

/// Begins blocking work on a thread of its own at once; the future is its result.
pub(crate) fn on_thread_async<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> {
    let (sender, receiver) = oneshot::channel();
    let started = on_thread(move || drop(sender.send(work())));
    async move {
        started?;
        receiver.await.unwrap_or(Err(Error::Stopped))
    }
}

/// Runs blocking work on a thread of its own: so that it may be called inside any runtime, and goes
/// on when nobody waits for it any more.
fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let span = tracing::Span::current();
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let thread = std::thread::Builder::new().name("highwater-sync".to_owned());
    let work = move || tracing::dispatcher::with_default(&dispatch, || span.in_scope(work));
    thread.spawn(work).map_err(|error| {
        tracing::warn!(%error, "no thread could be started for a sync");
        Error::Stopped
    })
}

/// As [`on_thread`], and waits for the result.
pub(crate) fn on_thread_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    on_thread(work)?.join().map_err(|_| Error::Stopped)
}
