//! A database on a server, without a local copy: its history, and restoring any point of it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use highwater_ltx::{PageCount, PageSize, Place, Position, TxId};
use highwater_pages::{NewDatabase, StateSum};
use highwater_wire::{DatabaseInfo, LogPage, Remote};

use crate::api::Api;
use crate::builder::Options;
use crate::database::on_thread_blocking;
use crate::error::{Error, Result};
use crate::outcome::{Progress, Stage};
use crate::receive::{ReceiveError, each_page};
use crate::transport::{Http, Timeouts, Transport};

/// A point in a database's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest.
    Head,
    /// After a certain frame.
    Place(Place),
    /// As the server had it at a certain time, by its own clock.
    Time(SystemTime),
}

/// What a restore brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The point that was restored.
    pub position: Position,
    /// Its number in the log.
    pub txid: TxId,
    /// Size of the database there.
    pub page_count: PageCount,
    /// Size of its pages.
    pub page_size: PageSize,
    /// Bytes received.
    pub bytes: u64,
}

/// A database on a server.
#[derive(Debug, Clone)]
pub struct RemoteDatabase {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    remote: Remote,
    token: Option<String>,
    transport: OnceLock<Http>,
}

impl std::fmt::Debug for Inner {
    /// Without the token: logs are read by many.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteDatabase").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn with_api<T>(&self, work: impl FnOnce(&Api<'_>) -> Result<T>) -> Result<T> {
        let defaults = Options::default();
        let transport: &dyn Transport = match self.transport.get() {
            Some(transport) => transport,
            None => {
                let timeouts = Timeouts { connect: defaults.connect_timeout, idle: defaults.idle_timeout };
                let made = Http::new(timeouts).map_err(|error| Error::Offline {
                    remote: self.remote.to_string(),
                    reason: error.reason,
                })?;
                self.transport.get_or_init(|| made)
            }
        };
        work(&Api {
            transport,
            remote: &self.remote,
            token: self.token.as_deref(),
            device: None,
            deadline: Instant::now() + Duration::from_secs(10),
            requests: Cell::new(0),
            delivered: Cell::new(false),
            bare: Cell::new(false),
            denied: Cell::new(false),
            repeated: Cell::new(false),
        })
    }
}

impl RemoteDatabase {
    /// For the database at `url`. Does not touch the network.
    ///
    /// # Errors
    /// [`Error::InvalidRemote`], [`Error::InvalidToken`].
    pub fn new(url: &str, token: Option<String>) -> Result<Self> {
        crate::builder::check_token(token.as_deref())?;
        let inner = Inner { remote: url.parse()?, token, transport: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the server says of it.
    ///
    /// # Errors
    /// [`Error::UnknownDatabase`], [`Error::Offline`] and others.
    pub fn info_blocking(&self) -> Result<DatabaseInfo> {
        self.blocking(|inner| {
            inner.with_api(|api| {
                api.info()?.ok_or_else(|| Error::UnknownDatabase { remote: inner.remote.to_string() })
            })
        })
    }

    /// Accepted pushes after a place in the history (None: from its beginning), oldest first.
    ///
    /// # Errors
    /// [`Error::UnknownDatabase`], [`Error::UnknownPosition`], [`Error::Offline`] and others.
    pub fn log_blocking(&self, after: Option<Place>, limit: u32) -> Result<LogPage> {
        self.blocking(move |inner| inner.with_api(|api| api.log(after, limit)))
    }

    /// Writes the database as it was at `at` into a new file `out`. An existing file is an error.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::UnknownDatabase`], [`Error::UnknownPosition`],
    /// [`Error::Offline`] and others; nothing is left behind.
    pub fn restore_blocking(
        &self,
        out: &Path,
        at: At,
        progress: impl Fn(Progress) + Send + 'static,
    ) -> Result<Restored> {
        let out = out.to_path_buf();
        self.blocking(move |inner| inner.with_api(|api| restore(api, &out, at, &progress)))
    }

    pub(crate) fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        on_thread_blocking(move || work(&inner))?
    }
}

fn restore(api: &Api<'_>, out: &Path, at: At, progress: &dyn Fn(Progress)) -> Result<Restored> {
    // A log of an earlier file of that name would be played into the restored one.
    let in_the_way = ["", "-wal", "-journal"].map(|suffix| highwater_pages::beside(out, suffix));
    if let Some(path) = in_the_way.into_iter().find(|path| path.exists()) {
        return Err(Error::Exists { path });
    }
    let query = match at {
        At::Head => None,
        At::Place(place) => Some(format!("at={place}")),
        At::Time(time) => Some(format!("time={}", humantime::format_rfc3339_millis(time))),
    };
    let unknown = || Error::UnknownDatabase { remote: api.remote.to_string() };
    let mut answer = api.snapshot(query.as_deref())?.ok_or_else(unknown)?;
    let (position, txid) = api.position_of(&answer)?;
    let mut file = None;
    let mut sum = StateSum::EMPTY;
    let received = each_page(api.plain_body(&mut answer), |header, page, data, hash| {
        let target = match &mut file {
            Some(target) => target,
            empty => empty.insert(NewDatabase::create(out, header.page_size)?),
        };
        target.write(page, data)?;
        sum.add(hash);
        if page.0 % 1024 == 0 {
            let size = header.page_size;
            let done = PageCount(page.0).bytes(size);
            progress(Progress { stage: Stage::Receiving, done, total: Some(header.commit.bytes(size)) });
        }
        Ok(())
    });
    let header = received.map_err(|error| match error {
        ReceiveError::Cut(source) => api.cut(&source),
        ReceiveError::Bad(what) => api.bad(what),
        ReceiveError::Local(error) => error,
    })?;
    if sum.state(header.commit, header.page_size) != position.state {
        return Err(api.bad(format!("its snapshot does not have the state {}", position.state)));
    }
    let file = file.ok_or_else(|| api.bad("its snapshot has no pages".to_owned()))?;
    publish(file, header.commit, out)?;
    Ok(Restored {
        position,
        txid,
        page_count: header.commit,
        page_size: header.page_size,
        bytes: answer.body.received(),
    })
}

fn publish(file: NewDatabase, count: PageCount, out: &Path) -> Result<()> {
    match file.publish(count) {
        Err(highwater_pages::Error::Io { source, .. })
            if source.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            Err(Error::Exists { path: PathBuf::from(out) })
        }
        other => Ok(other.map(drop)?),
    }
}
