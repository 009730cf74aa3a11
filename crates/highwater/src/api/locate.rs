//! Which state of the history a local file is.

use bytes::Bytes;
use highwater_ltx::{Position, TxId};
use highwater_wire::{ErrorCode, LocateAnswer, LocateRequest};
use http::Method;
use http::header::CONTENT_TYPE;

use super::{Api, Refused, set};
use crate::error::Result;
use crate::transport::Body;

/// What `locate` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Located {
    /// In the history, with or without changes on top.
    At {
        position: Position,
        txid: TxId,
        exact: bool,
        known_pages: u32,
        /// First half of the id of the device that pushed the position, if the server says it.
        device: Option<u64>,
    },
    /// No state of this database.
    Nowhere,
    /// There is no such database.
    NoDatabase,
}

impl Api<'_> {
    /// `POST /DB/v1/locate`. Ok(None): the state is none of the history's; `unknown_database` stays
    /// an error of its own.
    pub(crate) fn locate(&self, what: &LocateRequest, base: Option<Position>) -> Result<Located> {
        let mut headers = self.headers();
        if let Some(base) = base {
            set(&mut headers, highwater_wire::BASE, &base.to_string());
        }
        set(&mut headers, CONTENT_TYPE.as_str(), highwater_wire::SUMS_CONTENT);
        let body = Bytes::from(what.encode());
        let url = self.remote.request(Some("locate"));
        match self.send(&Method::POST, &url, &headers, &mut || Body::Whole(body.clone())) {
            Ok(answer) => {
                let answer: LocateAnswer = self.json(answer)?;
                let position =
                    Position::try_from(&answer.position).map_err(|error| self.bad(error.to_string()))?;
                Ok(Located::At {
                    device: u64::from_str_radix(&answer.device, 16).ok(),
                    position,
                    txid: TxId(answer.txid),
                    exact: answer.exact,
                    known_pages: answer.known_pages,
                })
            }
            Err(Refused::Told(_, body)) if body.code == ErrorCode::UnknownState => Ok(Located::Nowhere),
            Err(Refused::Told(_, body)) if body.code == ErrorCode::UnknownDatabase => Ok(Located::NoDatabase),
            Err(refused) => Err(self.explain(refused)),
        }
    }
}
