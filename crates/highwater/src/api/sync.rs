//! The push that is a pull, too.

use highwater_ltx::{Position, TxId};
use highwater_wire::Outcome;
use http::Method;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};

use super::{Api, Claim, PreparedBody, Refused, Sender, set};
use crate::transport::Response;

/// The answer to a sync request.
pub(crate) struct SyncAnswer {
    pub(crate) outcome: Outcome,
    pub(crate) head: Position,
    pub(crate) txid: TxId,
    /// The merge that the client's change went into.
    pub(crate) merge: Option<TxId>,
    /// How many things that merge could not keep as they were.
    pub(crate) conflicts: u64,
    pub(crate) body: Response,
}

impl Api<'_> {
    /// `POST /DB/v1/sync`. `body` is asked for the body of each attempt and may go on producing it.
    pub(crate) fn sync<'b>(
        &self,
        claim: Claim<'_>,
        encoded: bool,
        body: &mut dyn FnMut() -> PreparedBody<'b>,
    ) -> Result<SyncAnswer, Refused> {
        let mut headers = self.headers();
        if let Some(base) = claim.base {
            set(&mut headers, highwater_wire::BASE, &base.to_string());
        }
        if claim.doubt {
            set(&mut headers, highwater_wire::DOUBT, "1");
        }
        if claim.confirm {
            set(&mut headers, highwater_wire::CONFIRM, "1");
        }
        if !claim.pending.is_empty() {
            let hashes: Vec<String> = claim.pending.iter().map(ToString::to_string).collect();
            set(&mut headers, highwater_wire::PENDING, &hashes.join(","));
        }
        match claim.sender {
            Sender::Itself => {}
            Sender::Other(device) => {
                set(&mut headers, highwater_wire::PENDING_DEVICE, &device.to_string());
            }
            Sender::Anybody => set(&mut headers, highwater_wire::PENDING_DEVICE, "*"),
        }
        if let Some(policy) = claim.policy {
            set(&mut headers, highwater_wire::POLICY, policy.as_str());
        }
        set(&mut headers, ACCEPT_ENCODING.as_str(), highwater_wire::ZSTD);
        set(&mut headers, CONTENT_TYPE.as_str(), highwater_wire::LTX_CONTENT);
        if encoded {
            set(&mut headers, CONTENT_ENCODING.as_str(), highwater_wire::ZSTD);
        }
        let answer =
            self.send_producing(&Method::POST, &self.remote.request(Some("sync")), &headers, body)?;
        let field = |name: &'static str| {
            let value = answer.headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or_else(|| self.strange(&format!("the header {name} is missing")))
        };
        let parse = |error: highwater_ltx::InvalidUnit| self.bad(error.to_string());
        let outcome = field(highwater_wire::OUTCOME)?.parse().map_err(parse)?;
        let head = field(highwater_wire::HEAD)?.parse().map_err(parse)?;
        let txid = field(highwater_wire::TXID)?.parse().map(TxId);
        let txid = txid.map_err(|_| self.bad("the transaction id is not a number".to_owned()))?;
        let number = |name| answer.headers.get(name)?.to_str().ok()?.parse().ok();
        let merge = number(highwater_wire::MERGE).map(TxId);
        let conflicts = number(highwater_wire::CONFLICTS).unwrap_or(0);
        Ok(SyncAnswer { outcome, head, txid, merge, conflicts, body: answer })
    }
}
