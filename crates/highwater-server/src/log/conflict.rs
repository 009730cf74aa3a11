//! What both sides of a conflict changed, so that a person can see where they met.

use std::collections::BTreeSet;

use highwater_ltx::{PageNo, TxId};
use highwater_wire::ConflictDetail;

use super::Database;
use super::decide::{Refusal, SyncRequest};
use crate::{Error, paths};

/// The most pages that are named.
const MOST_NAMED: usize = 1000;

/// Compares the client's delta with what the log has after its base.
pub(super) async fn detail(
    db: &Database,
    base: TxId,
    request: &SyncRequest,
) -> Result<ConflictDetail, Refusal> {
    let lost = || Error::damaged(&paths::pushes(&db.name), "a file of its history is not retained");
    let base_position =
        db.read(|log| log.entry(base).map(|entry| entry.position)).flatten().ok_or_else(lost)?;
    let (head, remote) = db.images_since(Some(base)).await?.ok_or_else(lost)?;
    let remote_pages: BTreeSet<PageNo> = remote.list.iter().map(|image| image.page).collect();
    let local = request.delta.as_ref().map(|delta| delta.pages.as_slice()).unwrap_or_default();
    let local_pages: BTreeSet<PageNo> = local.iter().map(|(page, _)| *page).collect();
    let devices: BTreeSet<String> = db
        .read(|log| log.after(base).iter().map(|entry| format!("{:016x}", entry.node_id)).collect())
        .unwrap_or_default();
    let count = |pages: &BTreeSet<PageNo>| u32::try_from(pages.len()).unwrap_or(u32::MAX);
    Ok(ConflictDetail {
        base: base_position.into(),
        head: head.position.into(),
        local_pages: count(&local_pages),
        remote_pages: count(&remote_pages),
        both_pages: local_pages.intersection(&remote_pages).take(MOST_NAMED).map(|page| page.0).collect(),
        local_tables: Vec::new(),
        remote_tables: Vec::new(),
        both_tables: Vec::new(),
        devices: devices.into_iter().collect(),
    })
}
