//! Administration of a server: which databases there are, creating, deleting and undeleting them.

use bytes::Bytes;
use highwater_wire::{AdminCreate, AdminDatabase, AdminDetail, AdminPage, AdminStats, DbName, ErrorCode};
use http::Method;

use crate::api::{Api, Refused};
use crate::error::{Error, Result};
use crate::remote_database::RemoteDatabase;
use crate::transport::Body;

/// A server, for its administrator. The token has to allow `admin`.
#[derive(Clone)]
pub struct Admin {
    url: String,
    token: Option<String>,
}

impl std::fmt::Debug for Admin {
    /// Without the token: logs are read by many.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Admin {
    /// For the server at `url`: `http(s)://host[:port][/prefix]`. Does not touch the network.
    ///
    /// # Errors
    /// [`Error::InvalidRemote`], [`Error::InvalidToken`].
    pub fn new(url: &str, token: Option<String>) -> Result<Self> {
        let admin = Self { url: url.trim_end_matches('/').to_owned(), token };
        admin.remote("admin")?;
        Ok(admin)
    }

    /// Databases of every state whose names come after `after`, by name.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Unauthenticated`], [`Error::Offline`] and others.
    pub fn databases_blocking(&self, after: Option<&str>, limit: u32) -> Result<AdminPage> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        self.ask("admin", Method::GET, format!("databases?limit={limit}{after}"), None)
    }

    /// One database, and what was done to it.
    ///
    /// # Errors
    /// As [`Admin::databases_blocking`], and [`Error::UnknownDatabase`].
    pub fn database_blocking(&self, name: &DbName) -> Result<AdminDetail> {
        self.ask(name.as_str(), Method::GET, format!("databases/{name}"), None)
    }

    /// Reserves a name: whoever may write to it may make its first push.
    ///
    /// # Errors
    /// As [`Admin::databases_blocking`]; [`Error::Server`] when there is one of that name.
    pub fn create_blocking(&self, name: &DbName) -> Result<AdminDatabase> {
        // A plain string: this cannot fail.
        let body = serde_json::to_vec(&AdminCreate { name: name.to_string() }).unwrap_or_default();
        self.ask(name.as_str(), Method::POST, "databases".to_owned(), Some(body))
    }

    /// Deletes a database. It can be undeleted for a while.
    ///
    /// # Errors
    /// As [`Admin::database_blocking`].
    pub fn delete_blocking(&self, name: &DbName) -> Result<AdminDatabase> {
        self.ask(name.as_str(), Method::DELETE, format!("databases/{name}"), None)
    }

    /// Brings a deleted database back.
    ///
    /// # Errors
    /// As [`Admin::database_blocking`]; [`Error::Server`] when its files are being removed.
    pub fn undelete_blocking(&self, name: &DbName) -> Result<AdminDatabase> {
        self.ask(name.as_str(), Method::POST, format!("databases/{name}/undelete"), None)
    }

    /// About the server as a whole.
    ///
    /// # Errors
    /// As [`Admin::databases_blocking`].
    pub fn stats_blocking(&self) -> Result<AdminStats> {
        self.ask("admin", Method::GET, "stats".to_owned(), None)
    }

    /// What errors are about: a database's URL.
    fn remote(&self, name: &str) -> Result<RemoteDatabase> {
        RemoteDatabase::new(&format!("{}/{name}", self.url), self.token.clone())
    }

    fn ask<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        about: &str,
        method: Method,
        rest: String,
        body: Option<Vec<u8>>,
    ) -> Result<T> {
        let url = format!("{}/admin/v1/{rest}", self.url);
        self.remote(about)?.blocking(move |inner| inner.with_api(|api| api.admin(&method, &url, body)))
    }
}

impl Api<'_> {
    fn admin<T: serde::de::DeserializeOwned>(
        &self,
        method: &Method,
        url: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T> {
        let body = body.map(Bytes::from);
        let mut attempt = || body.clone().map_or(Body::Empty, Body::Whole);
        match self.send(method, url, &self.headers(), &mut attempt) {
            Ok(answer) => self.json(answer),
            // To an administrator the server's own words say more.
            Err(Refused::Told(_, body)) if body.code == ErrorCode::Deleted => Err(Error::Server {
                remote: self.remote.to_string(),
                code: body.code,
                message: body.message,
                request_id: body.request_id,
            }),
            Err(refused) => Err(self.explain(refused)),
        }
    }
}
