//! When the server does not take a push: finding out why, and whether it can be mended.

use highwater_ltx::{PageCount, PageNo, PageSize, Position, TxId, planted};
use highwater_pages::{LoadedSums, PageSums, wal};
use highwater_wire::{ErrorBody, ErrorCode, LocateRequest, SumsOf};

use super::base::Ground;
use super::{Round, Run};
use crate::api::{Located, Refused};
use crate::error::{Error, Result};
use crate::metadata::BaseInfo;
use crate::outcome::Action;

impl Run<'_> {
    /// The caches may be to blame: once, everything is found out anew by content.
    pub(super) fn heal_or(&mut self, error: impl FnOnce(&Self) -> Error) -> Result<Round> {
        if self.healing {
            return Err(error(self));
        }
        tracing::debug!("client and server disagree; the base is found out anew by content");
        self.healing = true;
        self.meta.base = None;
        self.meta.mark = None;
        Ok(Round::Again)
    }

    /// The caches of the base may be to blame, not what the base is: once, its page sums are asked for, and every page is
    /// looked at. (What content says of the base can be wrong, and a base that is too new deletes what others wrote.)
    pub(super) fn look_anew_or(&mut self, error: impl FnOnce(&Self) -> Error) -> Result<Round> {
        if self.healing || self.meta.base.is_none() {
            return self.heal_or(error);
        }
        tracing::debug!("client and server disagree; the base's page sums are asked for anew");
        self.healing = true;
        self.meta.mark = None;
        Ok(Round::Again)
    }

    /// The server did not take it.
    pub(super) fn refused(
        &mut self,
        ground: &Ground,
        status: http::StatusCode,
        body: ErrorBody,
    ) -> Result<Round> {
        let repeated = self.api.repeated.get() && !planted("a-no-is-for-every-attempt");
        if status.is_client_error() && !repeated {
            // A definite no: this state is not stored, and no answer to this request is outstanding. (An attempt
            // before this one, whose answer was lost, may have been told yes.)
            self.awaits_nothing(ground.delta.state);
        }
        match body.code {
            ErrorCode::Conflict | ErrorCode::CannotMerge => {
                if let Some(round) = self.resolve_pending(ground.delta.page_size)? {
                    return Ok(round);
                }
                if self.newer_base_of_sums(ground)? {
                    return Ok(Round::Again);
                }
                self.meta.save(&self.files.info)?;
                Err(self.conflict(body))
            }
            ErrorCode::EarlierState if !self.earlier_state => {
                self.earlier_state = true;
                Ok(Round::Again)
            }
            ErrorCode::UnknownBase if ground.base.is_some() && !self.healing => self.forked(ground),
            // It may have been damaged on its way: that says nothing of what is noted here.
            ErrorCode::CorruptBody if !std::mem::replace(&mut self.damaged_once, true) => Ok(Round::Again),
            ErrorCode::CorruptBody if !planted("damaged-request-forgets-the-base") => {
                self.look_anew_or(|run| run.api.explain(Refused::Told(status, Box::new(body))))
            }
            ErrorCode::UnknownBase | ErrorCode::CorruptBody | ErrorCode::EarlierState => {
                self.heal_or(|run| run.api.explain(Refused::Told(status, Box::new(body))))
            }
            ErrorCode::UnknownDatabase => match ground.base {
                Some(base) => Err(self.gone(base)),
                None => Ok(Round::Done(Action::NothingYet)),
            },
            ErrorCode::WrongPageSize => {
                let server =
                    self.api.info()?.and_then(|info| highwater_ltx::PageSize::new(info.page_size).ok());
                Err(match server {
                    Some(server) => self.page_size_error(ground.delta.page_size, server),
                    None => self.api.explain(Refused::Told(status, Box::new(body))),
                })
            }
            _ => Err(self.api.explain(Refused::Told(status, Box::new(body)))),
        }
    }

    /// The server does not have the base, or this very device has pushed since and the file shows nothing of it: an
    /// older metadata file, or an older copy of the database that was written to. What content says then is right, and
    /// from there on it is a device of its own, whose change is merged with what the first one pushed.
    fn forked(&mut self, ground: &Ground) -> Result<Round> {
        if self.newer_base_of_sums(ground)? {
            return Ok(Round::Again);
        }
        tracing::info!(db = %self.files.db.display(), "this copy is older than what it pushed; it goes on as a device of its own");
        self.meta.pending.clear();
        self.meta.pending_device = None;
        self.pending_device = None;
        self.meta.device = Some(self.api.transport.device()?);
        self.api.device = self.meta.device;
        self.healing = true;
        self.meta.base = None;
        self.meta.mark = None;
        Ok(Round::Again)
    }

    /// States were sent whose answers never came: if the server has one of them, that is the base
    /// now, and what changed since is on top of it. A state that the server does not have stays
    /// noted, because its request may still be under way.
    pub(super) fn resolve_pending(&mut self, page_size: PageSize) -> Result<Option<Round>> {
        // Without a base, the lost answer was the one to the first push.
        let known = self.meta.base.map_or(TxId(0), |base| base.txid);
        let page_count = self.meta.base.map_or(PageCount(0), |base| base.page_count);
        let mut newest: Option<(highwater_ltx::Position, TxId)> = None;
        let mut awaited = Vec::new();
        for state in self.meta.pending.clone() {
            let request = LocateRequest { page_size, page_count, state, sums: SumsOf::Nothing };
            match self.api.locate(&request, None)? {
                // Another device may have come to the same state by itself.
                Located::At { position, txid, device, .. }
                    if txid > newest.map_or(known, |(_, newest)| newest)
                        && device.is_none_or(|device| Some(device) == self.pending_device) =>
                {
                    newest = Some((position, txid));
                }
                Located::At { .. } | Located::NoDatabase => {}
                // It never arrived, or was merged: then it is no position of the history.
                Located::Nowhere => awaited.push(state),
            }
        }
        let Some((position, txid)) = newest else { return Ok(None) };
        tracing::debug!(
            generation = position.generation.0,
            durable_frame_num = position.frame.0,
            "an earlier push had arrived, only its answer was lost"
        );
        let (base, mut sums) = self.fetch_base(position, txid, page_size)?;
        let mark = self.meta.mark;
        // What was written ahead of a rebase still has to say whether that came.
        let is_ahead = PageSums::on_the_way(&self.files.sums, page_size)?.len() == 2;
        self.record_awaiting(base, mark, (!is_ahead).then_some(&mut sums), awaited)?;
        Ok(Some(Round::Again))
    }

    /// Before anything is sent: the server would take what was pulled since an older base for this device's own, and
    /// merge it a second time. True: the base is another one now.
    pub(super) fn sums_are_of_a_newer_base(&mut self, ground: &Ground) -> Result<bool> {
        if ground.delta.is_empty() || std::mem::replace(&mut self.sums_checked, true) {
            return Ok(false);
        }
        let Some(base) = ground.base else { return Ok(false) };
        let outdated = match ground.sums.as_ref().and_then(PageSums::is_outdated) {
            Some(outdated) => outdated,
            None => match PageSums::newest(&self.files.sums, base.page_size)? {
                LoadedSums::Valid(newest) => newest.position() != base.position,
                _ => false,
            },
        };
        Ok(outdated && self.newer_base_of_sums(ground)?)
    }

    /// Whether the file ever was in the state of these sums, as far as its log tells. A pull that was killed before it
    /// was noted is one of its commits, even if each of its pages was written to since; and a log that goes back to the
    /// base and has no such commit proves that the pull never came to its end.
    fn log_knows(&self, sums: &PageSums, ground: &Ground) -> Result<Option<bool>> {
        if sums.position().state == ground.delta.state {
            return Ok(Some(true));
        }
        let Some(before) = &ground.sums else { return Ok(None) };
        let moved = sums.iter().filter(|(page, hash)| before.get(*page) != Some(*hash));
        let moved = moved.map(|(page, _)| page).collect();
        let since = self.meta.mark.and_then(|mark| mark.wal);
        let known = wal::passed_through(&self.files.wal, since.as_ref(), sums, &moved)?;
        tracing::debug!(?known, state = %sums.position().state, "asked the log whether the file was in this state");
        Ok(known)
    }

    /// A metadata file that is an older copy of itself makes what was pushed since look like another
    /// device's. The page sums know better, and what proves that they are this file's is that some
    /// of what changed since the older base is as they say, or that no row of theirs is missing.
    /// True: the base is theirs now.
    ///
    /// The log is asked first: where it goes back far enough it knows. What follows is for a log that was emptied.
    ///
    /// They can also have been written ahead of a commit that never came. If that was of a merge, they hold the state
    /// before the commit too, and only what differs between the two can say which of them the file is.
    ///
    /// Beside a file that replaced another one they are the other one's. And what was taken once and led to another base
    /// all the same would do so again, for as long as the sync lasts.
    pub(super) fn newer_base_of_sums(&mut self, ground: &Ground) -> Result<bool> {
        let known = ground.base.map_or(TxId(0), |base| base.txid).max(self.taken_from_sums);
        if self.earlier_state || self.replaced {
            return Ok(false);
        }
        let Some((base, mut sums)) = self.base_of_sums(ground.delta.page_size, known)? else {
            return Ok(false);
        };
        let mut ahead = PageSums::on_the_way(&self.files.sums, ground.delta.page_size)?.into_iter();
        let (sent, rebased) = (ahead.next(), ahead.next());
        // With something rebased on top the file was never quite as the head is.
        let there = rebased.as_ref().unwrap_or(&sums);
        match self.log_knows(there, ground)? {
            Some(false) => return Ok(false),
            Some(true) => return self.take_sums(base, &mut sums),
            None => {}
        }
        let changed = &ground.delta.changed;
        let as_they_say = changed.iter().any(|(page, hash)| {
            let as_sent = sent.as_ref().is_some_and(|sent| sent.get(*page) == Some(*hash));
            // The first page says next to nothing but the database's size, which others can have, too.
            page.0 > 1 && there.get(*page) == Some(*hash) && !as_sent
        });
        // A page that is still as before, but not as they say, proves the opposite: they were written ahead of a
        // commit that never came.
        let here = |page: PageNo| match changed.binary_search_by_key(&page, |(page, _)| *page) {
            Ok(at) => changed.get(at).map(|(_, hash)| *hash),
            Err(_) => ground.sums.as_ref().and_then(|base| base.get(page)),
        };
        let as_before = ground.sums.iter().chain(&sent).any(|before| {
            let mut moved = there.iter().filter(|(page, hash)| before.get(*page) != Some(*hash));
            moved.any(|(page, _)| before.get(page).is_some() && before.get(page) == here(page))
        });
        if as_before || !as_they_say && !self.has_rows_of(base.position, ground)? {
            return Ok(false);
        }
        self.take_sums(base, &mut sums)
    }

    /// Without a mark, the server will make sure that the file is no earlier state.
    fn take_sums(&mut self, base: BaseInfo, sums: &mut PageSums) -> Result<bool> {
        self.taken_from_sums = base.txid;
        self.record(base, None, Some(sums))?;
        Ok(true)
    }

    /// Whether the file has every row of `newer`, and some that came after its own base: what a copy
    /// that never got there could not have.
    fn has_rows_of(&self, newer: Position, ground: &Ground) -> Result<bool> {
        let Some(base) = ground.base else { return self.keeps_all_rows(newer) };
        Ok(self.keeps_all_rows(newer)? && self.keeps_newer_rows(newer, base.position)?)
    }
}
