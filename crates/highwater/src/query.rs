//! SQL on the server: a database as it was at any position, without a copy of it.

use bytes::Bytes;
use highwater_wire::{QueryAnswer, QueryRequest};
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method};

use crate::api::Api;
use crate::error::{Error, Result};
use crate::remote_database::{At, RemoteDatabase};
use crate::transport::Body;

impl Api<'_> {
    /// `POST /DB/v1/query`.
    fn query(&self, request: &QueryRequest) -> Result<QueryAnswer> {
        let mut headers = self.headers();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(highwater_wire::ZSTD));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = serde_json::to_vec(request).map_err(|error| self.bad(error.to_string()))?;
        let body = Bytes::from(body);
        let url = self.remote.request(Some("query"));
        match self.send(&Method::POST, &url, &headers, &mut || Body::Whole(body.clone())) {
            Ok(answer) => self.json(answer),
            Err(refused) => Err(self.explain(refused)),
        }
    }
}

impl RemoteDatabase {
    /// Asks the server to run one statement that only reads, on the database as it was at `at`. Nothing is
    /// copied for it. Rows may be missing from a large answer: see [`QueryAnswer::cut`].
    ///
    /// # Errors
    /// [`Error::Server`] with the code `bad_request` when the server does not accept the statement (the
    /// message is SQLite's), with `too_large` when it takes too long or too much; [`Error::UnknownDatabase`],
    /// [`Error::UnknownPosition`], [`Error::Offline`] and others.
    pub fn query_blocking(&self, sql: &str, at: At) -> Result<QueryAnswer, Error> {
        let at = match at {
            At::Head => None,
            At::Place(place) => Some(place.to_string()),
            At::Time(time) => Some(humantime::format_rfc3339_millis(time).to_string()),
        };
        let request = QueryRequest { sql: sql.to_owned(), at };
        self.blocking(move |inner| inner.with_api(|api| api.query(&request)))
    }
}
