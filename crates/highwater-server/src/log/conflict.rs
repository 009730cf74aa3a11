//! What both sides of a conflict changed, so that a person can see where they met.

use std::collections::BTreeSet;

use highwater_ltx::PageNo;
use highwater_merge::{Pages, Sides};
use highwater_pages::owners;
use highwater_wire::ConflictDetail;

use super::decide::Refusal;
use super::merge::Change;
use super::{Database, blocking};
use crate::{Error, paths};

/// The most pages that are named.
const MOST_NAMED: usize = 1000;

/// Compares what a device changed with what the log has after its base.
pub(super) async fn detail(db: &Database, change: &Change, sides: &Sides) -> Result<ConflictDetail, Refusal> {
    let found = db.read(|log| {
        let devices: BTreeSet<String> =
            log.after(change.base).iter().map(|entry| format!("{:016x}", entry.node_id)).collect();
        Some((log.base(change.base)?.position, log.head().position, devices))
    });
    let lost = || Error::damaged(&paths::pushes(&db.name), "a file of its history is not retained");
    let (base, head, devices) = found.flatten().ok_or_else(lost)?;
    let local_pages: BTreeSet<PageNo> = sides.local_changed.iter().copied().collect();
    let remote_pages: BTreeSet<PageNo> = sides.head_changed.iter().copied().collect();
    // Before the change or after it: a freed page has an owner only before, a new one only after.
    let mut local_tables = tables(&sides.base, &local_pages).await;
    local_tables.append(&mut tables(&sides.local, &local_pages).await);
    let mut remote_tables = tables(&sides.base, &remote_pages).await;
    remote_tables.append(&mut tables(&sides.head, &remote_pages).await);
    let count = |pages: &BTreeSet<PageNo>| u32::try_from(pages.len()).unwrap_or(u32::MAX);
    Ok(ConflictDetail {
        base: base.into(),
        head: head.into(),
        local_pages: count(&local_pages),
        remote_pages: count(&remote_pages),
        both_pages: local_pages.intersection(&remote_pages).take(MOST_NAMED).map(|page| page.0).collect(),
        both_tables: local_tables.intersection(&remote_tables).cloned().collect(),
        local_tables: local_tables.into_iter().collect(),
        remote_tables: remote_tables.into_iter().collect(),
        devices: devices.into_iter().collect(),
    })
}

/// The tables that own `pages`. What cannot be read owns nothing: without tables the answer is still right.
async fn tables(source: &Pages, pages: &BTreeSet<PageNo>) -> BTreeSet<String> {
    let (source, pages) = (source.clone(), pages.clone());
    let found = blocking(move || {
        let within = pages.into_iter().filter(|page| source.page_count().contains(*page)).collect();
        let found = owners::owners(&*source, &within).map_err(Error::Run)?;
        let schema = found.schema.then(|| "sqlite_schema".to_owned());
        Ok(found.tables.into_keys().chain(schema).collect())
    });
    found.await.unwrap_or_else(|error: Error| {
        tracing::debug!(error = %crate::error::chain(&error), "could not name the tables of a conflict");
        BTreeSet::new()
    })
}
