//! What is only asked for: the database, its log, a snapshot, page sums.

use std::io::Read;

use highwater_ltx::{PageCount, Place, Position, TxId};
use highwater_pages::PageHash;
use highwater_wire::{DatabaseInfo, ErrorCode, LogPage};

use super::{Api, Refused};
use crate::error::Result;
use crate::transport::Response;

impl Api<'_> {
    /// `GET /DB/v1`. None: the server has no database of that name.
    pub(crate) fn info(&self) -> Result<Option<DatabaseInfo>> {
        match self.get(&self.remote.request(None)) {
            Ok(answer) => self.json(answer).map(Some),
            Err(Refused::Told(_, body)) if body.code == ErrorCode::UnknownDatabase => Ok(None),
            Err(refused) => Err(self.explain(refused)),
        }
    }

    /// `GET /DB/v1/log`.
    pub(crate) fn log(&self, after: Option<Place>, limit: u32) -> Result<LogPage> {
        let after = after.map(|place| format!("&after={place}")).unwrap_or_default();
        let url = format!("{}?limit={limit}{after}", self.remote.request(Some("log")));
        let answer = self.get(&url).map_err(|refused| self.explain(refused))?;
        self.json(answer)
    }

    /// `GET /DB/v1/snapshot`, with a query such as `at=1/9`. None: no such database.
    pub(crate) fn snapshot(&self, query: Option<&str>) -> Result<Option<Response>> {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        match self.get(&format!("{}{query}", self.remote.request(Some("snapshot")))) {
            Ok(answer) => Ok(Some(answer)),
            Err(Refused::Told(_, body)) if body.code == ErrorCode::UnknownDatabase => Ok(None),
            Err(refused) => Err(self.explain(refused)),
        }
    }

    /// `GET /DB/v1/sums`: the size of the database at a position, and one hash for each page. None:
    /// the server does not know the position.
    pub(crate) fn sums(&self, at: Place) -> Result<Option<(PageCount, Vec<PageHash>)>> {
        let mut answer = match self.get(&format!("{}?at={at}", self.remote.request(Some("sums")))) {
            Ok(answer) => answer,
            Err(Refused::Told(_, body))
                if matches!(body.code, ErrorCode::UnknownPosition | ErrorCode::UnknownDatabase) =>
            {
                return Ok(None);
            }
            Err(refused) => return Err(self.explain(refused)),
        };
        let count = answer.headers.get(highwater_wire::PAGE_COUNT).and_then(|value| value.to_str().ok());
        let count: u32 = count
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| self.strange("its page sums come without a page count"))?;
        let mut bytes = Vec::new();
        let limit = u64::from(count) * 16;
        let body = self.plain_body(&mut answer).take(limit + 1);
        std::io::BufReader::new(body).read_to_end(&mut bytes).map_err(|error| self.cut(&error))?;
        if bytes.len() as u64 != limit {
            return Err(self.bad(format!("page sums of {} bytes for {count} pages", bytes.len())));
        }
        let (sums, _) = bytes.as_chunks::<16>();
        let hashes = sums.iter().map(|sum| PageHash(u128::from_be_bytes(*sum))).collect();
        Ok(Some((PageCount(count), hashes)))
    }

    /// Which position an answer's body leads to.
    pub(crate) fn position_of(&self, answer: &Response) -> Result<(Position, TxId)> {
        let field = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let head = field(highwater_wire::HEAD).and_then(|head| head.parse().ok());
        let txid = field(highwater_wire::TXID).and_then(|txid| txid.parse().ok()).map(TxId);
        head.zip(txid).ok_or_else(|| self.strange("it does not say which position its snapshot is of"))
    }
}
