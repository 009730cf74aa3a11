//! What the local file is based on: which position of the server's history it was equal to, and
//! what differs since.
//!
//! Three kinds of evidence, from cheap to dear:
//!
//! 1. The write-ahead log continues from the last capture: the metadata's base stands, and only
//!    pages that the log names can differ.
//! 2. The log does not continue (the application closed the file, or checkpointed it): every page
//!    is compared with the page sums. If some differ, the file may have been written to, or
//!    replaced by an older copy of itself: the server is asked which of its positions fits.
//! 3. There is no metadata that can be trusted: the page sums name the last position as well, if
//!    they are intact; else content alone decides.
//!
//! Nothing found here is ever written over without the server agreeing on the hash of the result.

use highwater_ltx::{PageNo, PageSize, Position, TxId};
use highwater_pages::{Delta, LoadedSums, PageHash, PageSums, Snapshot, Suspects};
use highwater_wire::{LocateRequest, SumsOf};

use super::Run;
use crate::api::Located;
use crate::error::{Error, Result};
use crate::metadata::BaseInfo;
use crate::outcome::Stage;

/// The first push of a file that was never synced is simply tried, if it has up to this many bytes.
/// Else the server is asked beforehand whether it has the state already.
const TRY_FIRST_BYTES: u64 = 4 << 20;

/// More rounds of the log than this are not believed to be those of the same one.
const MOST_ROUNDS: u32 = 1 << 16;

/// What the local file is based on.
#[derive(Debug)]
pub(crate) struct Ground {
    /// None: the server is not known to have any of it.
    pub(crate) base: Option<BaseInfo>,
    /// The base's page sums. None: not needed so far, because nothing differs.
    pub(crate) sums: Option<PageSums>,
    /// What differs from the base.
    pub(crate) delta: Delta,
    /// Whether the file could be an older copy of itself: the server is asked to make sure.
    pub(crate) unsure: bool,
    /// Whether the base was found by what the file has in common with it, and may be older than the true one.
    pub(crate) doubt: bool,
}

impl Ground {
    fn sure(base: Option<BaseInfo>, sums: Option<PageSums>, delta: Delta) -> Self {
        Self { base, sums, delta, unsure: false, doubt: false }
    }

    fn unsure(base: BaseInfo, sums: PageSums, delta: Delta) -> Self {
        Self { unsure: true, ..Self::sure(Some(base), Some(sums), delta) }
    }
}

impl Run<'_> {
    /// Finds the base of the image.
    pub(crate) fn ground(&mut self, snapshot: &Snapshot<'_>) -> Result<Ground> {
        let Some(base) = self.meta.base else { return self.ground_by_content(snapshot, None) };
        let suspects = snapshot.suspects(self.meta.mark.as_ref())?;
        let continuous = !matches!(suspects, Suspects::All(_));
        if !continuous && !self.at_home {
            // A copy that was written to elsewhere, or another file's metadata.
            return self.ground_by_content(snapshot, None);
        }
        if snapshot.page_size() != base.page_size {
            return Err(self.page_size_error(snapshot.page_size(), base.page_size));
        }
        if matches!(suspects, Suspects::Nothing) && snapshot.page_count() == base.page_count {
            let delta = Delta::nothing(base.page_size, base.page_count, base.position.state);
            return Ok(Ground::sure(Some(base), None, delta));
        }
        if let Suspects::All(reason) = &suspects {
            tracing::debug!(%reason, "every page is looked at");
        }
        // What is being looked at anew is not taken from the cache.
        let cached = if self.healing { None } else { self.load_sums(base)? };
        let Some(sums) = cached else {
            return self.ground_without_sums(snapshot, base, continuous);
        };
        let delta = self.diff(snapshot, Some(&sums), &suspects)?;
        self.ground_on(snapshot, base, sums, delta, continuous)
    }

    /// The base's page sums from the cache beside the database.
    pub(crate) fn load_sums(&self, base: BaseInfo) -> Result<Option<PageSums>> {
        let sums = self.files.sums.display();
        let reason = match PageSums::load(&self.files.sums, base.position, base.page_size)? {
            LoadedSums::Valid(sums) if sums.page_count() == base.page_count => return Ok(Some(sums)),
            LoadedSums::Valid(_) => "it is of another size".to_owned(),
            LoadedSums::Missing => {
                tracing::debug!(%sums, "no page sums found; they are made anew");
                return Ok(None);
            }
            LoadedSums::Stale { found } => format!("it is of position {found}"),
            LoadedSums::Corrupt { reason } => reason.to_string(),
        };
        tracing::warn!(%sums, %reason, "the page sums cannot be used and are made anew; nothing is lost");
        Ok(None)
    }

    /// The base is known, its page sums are not.
    fn ground_without_sums(
        &mut self,
        snapshot: &Snapshot<'_>,
        base: BaseInfo,
        continuous: bool,
    ) -> Result<Ground> {
        let all = self.diff(snapshot, None, &Suspects::ALL)?;
        if all.state == base.position.state {
            let sums = sums_of(&all, base.position);
            let delta = Delta::nothing(all.page_size, all.page_count, all.state);
            return Ok(Ground::sure(Some(base), Some(sums), delta));
        }
        let Some((count, hashes)) = self.api.sums(base.position.place())? else {
            return self.ground_by_content(snapshot, Some(all));
        };
        if count != base.page_count {
            return self.ground_by_content(snapshot, Some(all));
        }
        let sums = self.checked_sums(base, &hashes)?;
        let delta = all.against(&sums);
        self.ground_on(snapshot, base, sums, delta, continuous)
    }

    /// The base and what differs from it are known. If the log cannot say that
    /// the difference came after the base, and the change counter not that it came before, the server makes sure when the delta is sent; and
    /// when an older position of its history fits, and rows are missing, it is asked which.
    fn ground_on(
        &mut self,
        snapshot: &Snapshot<'_>,
        base: BaseInfo,
        sums: PageSums,
        delta: Delta,
        continuous: bool,
    ) -> Result<Ground> {
        if continuous || delta.is_empty() || self.log_was_recycled(snapshot)? {
            return Ok(Ground::sure(Some(base), Some(sums), delta));
        }
        self.refuse_stranger(&delta, base.position)?;
        // It counts up only: with a smaller one the file is an older copy, whatever was written since.
        let older = self.meta.change_counter.is_some_and(|known| snapshot.change_counter() < known);
        let counted_on = self.meta.change_counter.is_some_and(|known| snapshot.change_counter() > known);
        if !older && !self.earlier_state {
            return Ok(Ground::unsure(base, sums, delta));
        }
        self.earlier_state = true;
        let request = LocateRequest {
            page_size: delta.page_size,
            page_count: delta.page_count,
            state: delta.state,
            sums: SumsOf::Changed(delta.changed.iter().map(|(page, hash)| (*page, hash.0)).collect()),
        };
        match self.api.locate(&request, Some(base.position))? {
            // Certainly older, and it does not show how much: the oldest that fits is safe.
            Located::At { position, .. } if position.state == base.position.state => {
                let all = self.diff(snapshot, None, &Suspects::ALL)?;
                self.ground_by_content(snapshot, Some(all))
            }
            // Pages are as they once were, and so are they when a value is set back.
            Located::At { position, .. } if !older && self.only_set_back(base.position, position)? => {
                Ok(Ground::sure(Some(base), Some(sums), delta))
            }
            // So are they when the file shrinks to what it was.
            Located::At { position, .. }
                if counted_on && self.keeps_newer_rows(base.position, position)? =>
            {
                Ok(Ground::sure(Some(base), Some(sums), delta))
            }
            // VACUUM lays pages anew, and an empty one is as it was at another place. (The counter may stand still: in a log it
            // is written anew only if somebody else wrote in between.)
            Located::At { position, .. }
                if !older
                    && (self.undoes_nothing(base.position, position)?
                        || self.shows_what_came(base.position, position)?) =>
            {
                Ok(Ground::sure(Some(base), Some(sums), delta))
            }
            Located::At { position, txid, exact, .. } => {
                tracing::info!(db = %self.files.db.display(), was = %base.position.place(), now = %position.place(),
                    exact, "the file is an earlier state of itself; it goes on from there");
                let all = self.diff(snapshot, None, &Suspects::ALL)?;
                self.settle(all, position, txid)
            }
            // The sync request itself will say what is wrong.
            Located::NoDatabase => Ok(Ground::sure(Some(base), Some(sums), delta)),
            Located::Nowhere => {
                let all = self.diff(snapshot, None, &Suspects::ALL)?;
                self.ground_by_content(snapshot, Some(all))
            }
        }
    }

    /// Whether the log, though it does not continue from the last capture, is the same one some rounds
    /// later: every round's first salt is one more than the last one's.
    fn log_was_recycled(&self, snapshot: &Snapshot<'_>) -> Result<bool> {
        let (then, now) = (self.meta.mark.and_then(|mark| mark.wal), snapshot.next_mark()?.wal);
        Ok(then.zip(now).is_some_and(|(then, now)| now.salt1.wrapping_sub(then.salt1) <= MOST_ROUNDS))
    }

    /// Content alone decides.
    fn ground_by_content(&mut self, snapshot: &Snapshot<'_>, all: Option<Delta>) -> Result<Ground> {
        let all = match all {
            Some(all) => all,
            None => self.diff(snapshot, None, &Suspects::ALL)?,
        };
        let bytes = all.page_count.bytes(all.page_size);
        if self.fresh && bytes <= TRY_FIRST_BYTES && !self.healing {
            // If the server knows better it refuses, and the next round comes back healing.
            return Ok(Ground::sure(None, None, all));
        }
        let mut request = LocateRequest {
            page_size: all.page_size,
            page_count: all.page_count,
            state: all.state,
            sums: SumsOf::Nothing,
        };
        match self.api.locate(&request, None)? {
            Located::NoDatabase => return Ok(Ground::sure(None, None, all)),
            Located::At { position, txid, .. } => return self.settle(all, position, txid),
            Located::Nowhere => {}
        }
        if !(self.replaced || self.earlier_state || self.healing)
            && let Some((base, sums)) = self.base_of_sums(all.page_size, TxId(0))?
        {
            if self.at_home {
                // A sync that found the base anew, and failed then, has left nothing else that says so.
                self.remembered.get_or_insert(base);
            }
            let delta = all.against(&sums);
            // Sums that were left behind prove nothing about a file that has nothing of them.
            if self.descends_from(&delta, base.position)? {
                return Ok(Ground::unsure(base, sums, delta));
            }
        }
        if let Some(info) = self.api.info()?
            && info.page_size != all.page_size.get()
        {
            let server = PageSize::new(info.page_size).map_err(|error| self.api.bad(error.to_string()))?;
            return Err(self.page_size_error(all.page_size, server));
        }
        request.sums = SumsOf::All(all.hashes_by_page());
        match self.api.locate(&request, None)? {
            Located::At { position, txid, exact: true, .. } => self.settle(all, position, txid),
            Located::At { position, txid, exact: false, known_pages, .. } => {
                match self.choose_descent(&all, position, txid, known_pages)? {
                    Some((position, txid)) => self.settle(all, position, txid),
                    None => Err(self.stranger()),
                }
            }
            Located::NoDatabase => Ok(Ground::sure(None, None, all)),
            Located::Nowhere => {
                let found = match self.small_head_by_rows()? {
                    None => self.descent_by_rows()?,
                    found => found,
                };
                let (position, txid) = found.ok_or_else(|| self.stranger())?;
                self.settle(all, position, txid)
            }
        }
    }

    /// The newest position of the page sums, if it is one of the server's and newer than `known`:
    /// they were written at the last sync too.
    pub(crate) fn base_of_sums(
        &self,
        page_size: PageSize,
        known: TxId,
    ) -> Result<Option<(BaseInfo, PageSums)>> {
        let LoadedSums::Valid(mut sums) = PageSums::newest(&self.files.sums, page_size)? else {
            return Ok(None);
        };
        let (page_count, state) = (sums.page_count(), sums.position().state);
        let request = LocateRequest { page_size, page_count, state, sums: SumsOf::Nothing };
        let Located::At { position, txid, .. } = self.api.locate(&request, None)? else { return Ok(None) };
        if txid <= known {
            return Ok(None);
        }
        tracing::debug!(position = %position.place(), "the page sums say where the last sync left the file");
        sums.apply(&[], page_count, position);
        Ok(Some((BaseInfo { position, txid, page_size, page_count }, sums)))
    }

    /// Takes `position` as the base of the image whose every page is in `all`.
    pub(crate) fn settle(&mut self, all: Delta, position: Position, txid: TxId) -> Result<Ground> {
        if all.state == position.state {
            let base = BaseInfo { position, txid, page_size: all.page_size, page_count: all.page_count };
            let sums = sums_of(&all, position);
            let delta = Delta::nothing(all.page_size, all.page_count, all.state);
            return Ok(Ground::sure(Some(base), Some(sums), delta));
        }
        let (base, sums) = self.fetch_base(position, txid, all.page_size)?;
        let delta = all.against(&sums);
        Ok(Ground { doubt: true, ..Ground::sure(Some(base), Some(sums), delta) })
    }

    /// Asks the server for the page sums at one of its positions.
    pub(crate) fn fetch_base(
        &self,
        position: Position,
        txid: TxId,
        page_size: PageSize,
    ) -> Result<(BaseInfo, PageSums)> {
        let (page_count, hashes) = self.api.sums(position.place())?.ok_or_else(|| {
            self.api.bad(format!("it named position {} and does not know it", position.place()))
        })?;
        let base = BaseInfo { position, txid, page_size, page_count };
        let sums = self.checked_sums(base, &hashes)?;
        Ok((base, sums))
    }

    fn checked_sums(&self, base: BaseInfo, hashes: &[PageHash]) -> Result<PageSums> {
        let numbered: Vec<_> = (1..).map(PageNo).zip(hashes.iter().copied()).collect();
        let mut sums = PageSums::new(base.position, base.page_size, base.page_count);
        sums.apply(&numbered, base.page_count, base.position);
        if sums.state() == base.position.state {
            Ok(sums)
        } else {
            Err(self
                .api
                .bad(format!("its page sums at {} do not add up to its state", base.position.place())))
        }
    }

    fn diff(&self, snapshot: &Snapshot<'_>, base: Option<&PageSums>, suspects: &Suspects) -> Result<Delta> {
        let mut progress = |done, total| self.report(Stage::Scanning, done, Some(total));
        Ok(snapshot.diff(base, suspects, &mut progress)?)
    }

    pub(crate) fn page_size_error(&self, local: PageSize, server: PageSize) -> Error {
        Error::PageSize { db: self.files.db.clone(), local, remote: self.api.remote.to_string(), server }
    }
}

/// The page sums of an image all of whose pages are in `all`.
pub(crate) fn sums_of(all: &Delta, position: Position) -> PageSums {
    let mut sums = PageSums::new(position, all.page_size, all.page_count);
    sums.apply(&all.changed, all.page_count, position);
    sums
}
