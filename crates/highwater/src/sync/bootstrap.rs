//! The first copy: a local database made from the server's.
//!
//! A file that does not exist is written beside its place and published whole, without SQLite. A
//! blank database that an application may have open already is filled in one transaction.

use std::path::PathBuf;

use highwater_ltx::PageSize;
use highwater_pages::{
    LocalState, NewDatabase, NewPages, PageSums, Replica, StateSum, Suspects, beside, kill_point,
};

use super::{Mode, Round, Run};
use crate::error::{Error, Result};
use crate::metadata::BaseInfo;
use crate::outcome::{Action, Moved, Stage};
use crate::receive::{ReceiveError, Received, each_page};
use crate::transport::Response;

/// How often a first copy is tried when its connection breaks.
const ATTEMPTS: u32 = 3;

impl Run<'_> {
    /// The database file does not exist.
    pub(crate) fn bootstrap_file(&mut self, mode: Mode) -> Result<Round> {
        if mode == Mode::Push {
            return Ok(Round::Done(Action::NothingYet));
        }
        if self.leftover_log().is_some() {
            return self.make_blank(mode);
        }
        for attempt in 1.. {
            let Some(answer) = self.api.snapshot(None)? else { return self.nothing_there(mode) };
            match self.write_new_file(answer) {
                Err(Error::Offline { reason, .. })
                    if attempt < ATTEMPTS && self.api.transport.now() < self.api.deadline =>
                {
                    tracing::debug!(%reason, attempt, "the first copy is tried again");
                }
                Err(Error::Local(highwater_pages::Error::Io { source, .. }))
                    if source.kind() == std::io::ErrorKind::AlreadyExists =>
                {
                    if !self.files.db.exists() {
                        return Err(Error::Exists { path: self.files.db.clone() });
                    }
                    // The application made its file meanwhile.
                    return Ok(Round::Again);
                }
                other => return other.map(|()| Round::Done(Action::Bootstrapped)),
            }
        }
        Ok(Round::Again)
    }

    /// A log without its database: a file that got that name would be given what the log holds.
    fn leftover_log(&self) -> Option<PathBuf> {
        ["-wal", "-journal"].into_iter().map(|suffix| beside(&self.files.db, suffix)).find(|log| log.exists())
    }

    /// Has SQLite make an empty database file, which removes a log that was left behind; the next
    /// round fills the file.
    fn make_blank(&self, mode: Mode) -> Result<Round> {
        if self.api.info()?.is_none() {
            return self.nothing_there(mode);
        }
        let failed = |source| Error::Sqlite { db: self.files.db.clone(), source };
        let connection = rusqlite::Connection::open(&self.files.db).map_err(failed)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(failed)?;
        Ok(Round::Again)
    }

    fn nothing_there(&self, mode: Mode) -> Result<Round> {
        if mode == Mode::Clone {
            return Err(Error::UnknownDatabase { remote: self.api.remote.to_string() });
        }
        tracing::info!(db = %self.files.db.display(), remote = %self.api.remote,
            "there is nothing to sync yet, here or on the server");
        Ok(Round::Done(Action::NothingYet))
    }

    fn write_new_file(&mut self, mut answer: Response) -> Result<()> {
        let (head, txid) = self.api.position_of(&answer)?;
        let mut file = None;
        let mut pages = Vec::new();
        let mut sum = StateSum::EMPTY;
        let files = self.files;
        let options = self.options;
        kill_point("bootstrap.begin");
        let received = each_page(self.api.plain_body(&mut answer), |header, page, data, hash| {
            let target = match &mut file {
                Some(target) => target,
                empty => empty.insert(NewDatabase::create(&files.db, header.page_size)?),
            };
            target.write(page, data)?;
            pages.push((page, hash));
            sum.add(hash);
            if page.0 % 1024 == 0 {
                kill_point("bootstrap.page");
                options.report(crate::Progress {
                    stage: Stage::Receiving,
                    done: u64::from(page.0) * u64::from(header.page_size.get()),
                    total: Some(header.commit.bytes(header.page_size)),
                });
            }
            Ok(())
        });
        let header = received.map_err(|error| self.receive_error(error))?;
        let state = sum.state(header.commit, header.page_size);
        if state != head.state || !header.is_snapshot() {
            return Err(self.api.bad(format!("its snapshot has the state {state} and not {}", head.state)));
        }
        let Some(file) = file else { return Err(self.api.bad("its snapshot has no pages".to_owned())) };
        kill_point("bootstrap.received");
        let mark = file.publish(header.commit)?;
        self.pulled = moved(pages.len() as u64, answer.body.received());
        let mut sums = PageSums::new(head, header.page_size, header.commit);
        sums.apply(&pages, header.commit, head);
        let base = BaseInfo { position: head, txid, page_size: header.page_size, page_count: header.commit };
        tracing::debug!(
            generation = head.generation.0,
            durable_frame_num = head.frame.0,
            pages = header.commit.0,
            bytes = self.pulled.bytes,
            "made the first copy"
        );
        self.record(base, mark, Some(&mut sums))
    }

    /// The database exists and holds nothing; connections may have it open.
    pub(crate) fn bootstrap_blank(&mut self, replica: &mut Replica, mode: Mode) -> Result<Round> {
        if mode == Mode::Push {
            return Ok(Round::Done(Action::NothingYet));
        }
        let Some(mut answer) = self.api.snapshot(None)? else { return self.nothing_there(mode) };
        let (head, txid) = self.api.position_of(&answer)?;
        let mut progress = |done, total| self.report(Stage::Receiving, done, total);
        let received = Received::read(self.api.plain_body(&mut answer), self.files.folder(), &mut progress);
        let mut received = received.map_err(|error| self.receive_error(error))?;
        let bytes = answer.body.received();
        let header = received.header;
        let mut sum = StateSum::EMPTY;
        received.pages.iter().for_each(|(_, hash)| sum.add(*hash));
        if sum.state(header.commit, header.page_size) != head.state || !header.is_snapshot() {
            return Err(self.api.bad(format!("its snapshot does not have the state {}", head.state)));
        }
        if !self.fill_blank(replica, &mut received, header.page_size)? {
            return Ok(Round::Again);
        }
        self.pulled = moved(received.pages.len() as u64, bytes);
        let mut sums = PageSums::new(head, header.page_size, header.commit);
        sums.apply(&received.pages, header.commit, head);
        let base = BaseInfo { position: head, txid, page_size: header.page_size, page_count: header.commit };
        self.record(base, None, Some(&mut sums))?;
        Ok(Round::Done(Action::Bootstrapped))
    }

    /// Commits the whole database into the blank one. False: it is not blank any more.
    fn fill_blank(&self, replica: &mut Replica, received: &mut Received, size: PageSize) -> Result<bool> {
        if !replica.is_blank()? {
            return Ok(false);
        }
        replica.prepare_blank(size)?;
        let (data_version, blank) = {
            let snapshot = replica.snapshot(None)?;
            (snapshot.data_version(), snapshot.diff(None, &Suspects::ALL, &mut |_, _| ())?)
        };
        if !replica.is_blank()? {
            return Ok(false);
        }
        let local = LocalState { data_version, state: blank.state, base: None, since: None };
        self.commit(replica, local, received)
    }

    /// Commits received pages on top of the local state. False: the local state moved on meanwhile.
    pub(crate) fn commit(
        &self,
        replica: &mut Replica,
        local: LocalState<'_>,
        received: &mut Received,
    ) -> Result<bool> {
        let pages: Vec<_> = received.pages.iter().map(|(page, _)| *page).collect();
        let (page_size, page_count) = (received.header.page_size, received.header.commit);
        let mut new = NewPages {
            page_size,
            page_count,
            pages: &pages,
            read: &mut |page, into| received.page(page, into),
            progress: &mut |done, total| self.report(Stage::Applying, done, Some(total)),
        };
        let committed = match &self.hold {
            None => replica.commit(local, &mut new),
            Some(hold) => match hold.lock() {
                Some(lock) => replica.commit_locked(lock, local, &mut new),
                None => return Ok(false),
            },
        };
        match committed {
            Ok(()) => Ok(true),
            Err(highwater_pages::Error::ChangedSince { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn receive_error(&self, error: ReceiveError) -> Error {
        match error {
            ReceiveError::Cut(source) => self.api.cut(&source),
            ReceiveError::Bad(what) => self.api.bad(what),
            ReceiveError::Local(error) => error,
        }
    }
}

impl From<highwater_pages::Error> for ReceiveError {
    fn from(error: highwater_pages::Error) -> Self {
        Self::Local(error.into())
    }
}

fn moved(pages: u64, bytes: u64) -> Moved {
    Moved { frames: pages, pages, bytes }
}
