//! What merges could not keep: asking the server for its records, and marking them as seen.

use highwater_ltx::TxId;
use highwater_wire::{ConflictPage, MergeRecord, RefusedPush};
use http::Method;
use serde::de::DeserializeOwned;

use crate::api::{Api, Refused};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::remote_database::RemoteDatabase;
use crate::transport::Body;

/// Records asked for at once.
const BATCH: u32 = 100;

impl Api<'_> {
    /// `GET /DB/v1/conflicts`: merges with numbers smaller than `before`, newest first.
    pub(crate) fn conflicts(&self, before: Option<TxId>, limit: u32, all: bool) -> Result<ConflictPage> {
        let before = before.map(|txid| format!("&after={}", txid.0)).unwrap_or_default();
        let all = if all { "&all=1" } else { "" };
        let url = format!("{}?limit={limit}{before}{all}", self.remote.request(Some("conflicts")));
        let answer = self.get(&url).map_err(|refused| self.explain(refused))?;
        self.json(answer)
    }

    /// `GET /DB/v1/conflicts/NAME`: a merge by its number, a refused push by its id.
    pub(crate) fn record<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let url = format!("{}/{name}", self.remote.request(Some("conflicts")));
        let answer = self.get(&url).map_err(|refused| self.explain_record(refused))?;
        self.json(answer)
    }

    /// `POST /DB/v1/conflicts/NAME/resolve`.
    fn resolve<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let url = format!("{}/{name}/resolve", self.remote.request(Some("conflicts")));
        let answer = self.send(&Method::POST, &url, &self.headers(), &mut || Body::Empty);
        self.json(answer.map_err(|refused| self.explain_record(refused))?)
    }

    fn explain_record(&self, refused: Refused) -> Error {
        match refused {
            Refused::Told(status, body) if status == http::StatusCode::NOT_FOUND => {
                match self.explain(Refused::Told(status, body)) {
                    error @ (Error::UnknownDatabase { .. } | Error::NotHighwater { .. }) => error,
                    Error::Server { message, .. } | Error::UnknownPosition { message, .. } => {
                        Error::UnknownMerge { remote: self.remote.to_string(), message }
                    }
                    error => error,
                }
            }
            refused => self.explain(refused),
        }
    }
}

impl RemoteDatabase {
    /// Merges that could not keep everything and that nobody has resolved, newest first; with `all`, every
    /// merge. Only those with numbers smaller than `before`, if that is given.
    ///
    /// # Errors
    /// [`Error::UnknownDatabase`], [`Error::Offline`] and others.
    pub fn conflicts_blocking(&self, before: Option<TxId>, limit: u32, all: bool) -> Result<ConflictPage> {
        self.blocking(move |inner| inner.with_api(|api| api.conflicts(before, limit, all)))
    }

    /// The record of one merge.
    ///
    /// # Errors
    /// [`Error::UnknownMerge`] when that transaction was no merge, [`Error::UnknownDatabase`],
    /// [`Error::Offline`] and others.
    pub fn merge_record_blocking(&self, txid: TxId) -> Result<MergeRecord> {
        self.blocking(move |inner| inner.with_api(|api| api.record(&txid.0.to_string())))
    }

    /// Marks what a merge could not keep as seen. It changes no row: whoever wants the other value writes it.
    ///
    /// # Errors
    /// As [`RemoteDatabase::merge_record_blocking`].
    pub fn resolve_conflicts_blocking(&self, txid: TxId) -> Result<MergeRecord> {
        self.blocking(move |inner| inner.with_api(|api| api.resolve(&txid.0.to_string())))
    }

    /// Why a libSQL client's push was refused, by the id that [`ConflictPage::refused`] has.
    ///
    /// # Errors
    /// [`Error::UnknownMerge`] when there is no such record, [`Error::UnknownDatabase`], [`Error::Offline`] and others.
    pub fn refused_push_blocking(&self, id: &str) -> Result<RefusedPush> {
        let id = id.to_owned();
        self.blocking(move |inner| inner.with_api(|api| api.record(&id)))
    }

    /// Marks a refused push as seen. The server does not keep its pages any longer; the client does.
    ///
    /// # Errors
    /// As [`RemoteDatabase::refused_push_blocking`].
    pub fn resolve_refused_blocking(&self, id: &str) -> Result<RefusedPush> {
        let id = id.to_owned();
        self.blocking(move |inner| inner.with_api(|api| api.resolve(&id)))
    }

    fn every_conflict(&self) -> Result<Vec<MergeRecord>> {
        let (mut merges, mut before) = (Vec::new(), None);
        loop {
            let page = self.conflicts_blocking(before, BATCH, false)?;
            before = page.merges.last().map(|oldest| TxId(oldest.txid));
            let more = page.more && before.is_some();
            merges.extend(page.merges);
            if !more {
                return Ok(merges);
            }
        }
    }
}

impl Database {
    /// Merges of any device of this database that could not keep everything and that nobody has resolved yet, newest
    /// first. Asks the server.
    ///
    /// # Errors
    /// [`Error::NoRemote`], [`Error::UnknownDatabase`], [`Error::Offline`] and others.
    pub fn conflicts_blocking(&self) -> Result<Vec<MergeRecord>> {
        self.on_server()?.every_conflict()
    }

    /// As [`Database::conflicts_blocking`], for asynchronous programs on any runtime.
    ///
    /// # Errors
    /// As [`Database::conflicts_blocking`].
    pub async fn conflicts(&self) -> Result<Vec<MergeRecord>> {
        let server = self.on_server()?;
        crate::database::on_thread_async(move || server.every_conflict()).await
    }

    /// Marks what the merge with this number could not keep as seen. It changes no row: whoever wants the
    /// other value writes it, and syncs.
    ///
    /// # Errors
    /// [`Error::UnknownMerge`] when that transaction was no merge, and as [`Database::conflicts_blocking`].
    pub fn resolve_conflicts_blocking(&self, txid: TxId) -> Result<MergeRecord> {
        self.on_server()?.resolve_conflicts_blocking(txid)
    }

    /// As [`Database::resolve_conflicts_blocking`], for asynchronous programs on any runtime.
    ///
    /// # Errors
    /// As [`Database::resolve_conflicts_blocking`].
    pub async fn resolve_conflicts(&self, txid: TxId) -> Result<MergeRecord> {
        let server = self.on_server()?;
        crate::database::on_thread_async(move || server.resolve_conflicts_blocking(txid)).await
    }
}
