//! Whether a sync came to what the rules say, told from the rows before and after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use highwater::{At, FrameNo, Generation, Place, RemoteDatabase, TxId};
use highwater_wire::MergePolicy;

use crate::contents::Contents;
use crate::device::Synced;
use crate::history::{Broken, History, broken};
use crate::oracle::{Debt, Merge};

/// Rows that the server took in, and what must be in records for it, or why that cannot be.
type Taken<'c> = (&'c Arc<Contents>, Result<Vec<Debt>, String>);

impl History<'_> {
    /// What a native device's sync came to. `blind`: the server died, and what it took in was not seen.
    pub(crate) fn judge(
        &mut self,
        number: usize,
        synced: &Synced,
        faulty: bool,
        blind: bool,
    ) -> Result<(), Broken> {
        self.doubtful |= self.relay.doubted(&self.spot.name);
        let after = self.device(number)?.contents()?;
        let plain = synced.result.as_ref().ok().filter(|_| !faulty && synced.during.is_empty());
        let (head, txid) = match plain {
            Some(outcome) => (Arc::clone(&after), outcome.txid),
            None => self.read_head()?,
        };
        // What the device may have sent: its rows before the sync, and after each commit.
        let mut sent = vec![&synced.before];
        // A commit after the answer was applied is for the next sync.
        let mut later: Option<(&Arc<Contents>, &Arc<Contents>)> = None;
        for (found, written) in &synced.during {
            match later {
                None if Some(&found) == sent.last() => sent.push(written),
                None => later = Some((found, written)),
                Some((applied, _)) => later = Some((applied, written)),
            }
        }
        let last = sent.last().copied().unwrap_or(&synced.before);
        let base = Arc::clone(&self.device(number)?.base);
        let mut stages = self.stages(txid)?;
        stages.push(Arc::clone(&head));
        let accepted = self.relay.accepted(&self.spot.name);
        let new = accepted.iter().filter(|(number, _)| Some(*number) > self.txid.map(|txid| txid.0));
        let mut pushes: BTreeMap<u64, usize> = new.copied().collect();
        if let (true, Some(known), Some(txid)) = (blind, self.txid, txid) {
            // Nobody else was there.
            for txid in known.0 + 1..=txid.0 {
                pushes.entry(txid).or_insert(0);
            }
        }
        let refused = self.refused.get(&number).cloned().unwrap_or_default();
        let pushes: Vec<usize> = pushes.into_values().collect();
        let (taken, debts) = if pushes.is_empty() {
            // Nothing came from here, and so nothing must have changed there.
            (&base, self.check(&base, &base, &self.head, &head, &refused))
        } else {
            self.taken_in(&base, (&sent, &pushes), &stages, &refused)
        };
        let local = Arc::clone(taken);
        let wrong = |error: String| Broken { kind: "merge", message: format!("device {number}: {error}") };
        let mut debts = debts.map_err(wrong)?;
        if *local != *base && *base != *self.head {
            self.merges += 1;
        }
        (self.head, self.txid) = (Arc::clone(&head), txid);
        self.remember(stages);
        // Its rows when the sync had done its work.
        let applied = later.map_or(&after, |(applied, _)| applied);
        let rebased = !synced.during.is_empty() && synced.result.as_ref().is_ok_and(|heard| heard.rebased);
        if sent.len() > 1 && applied != last {
            // A merge on the device: of what it had sent, what was committed since, and the head. Nothing, if all was sent.
            let onto_head = self.check(&local, last, &head, applied, &refused);
            debts.extend(onto_head.map_err(|error| wrong(format!("rebased: {error}")))?);
        }
        let caught_up = (*applied == head || rebased) && later.is_none_or(|(_, written)| *written == after);
        self.note_refused(number, &debts);
        if caught_up {
            self.refused.remove(&number);
        }
        self.debts.extend(debts);
        if synced.result.is_ok() && !caught_up && !(head == local && after == *last) {
            return broken(
                "behind",
                format!(
                    "device {number}: its sync succeeded, and it does not have the server's rows: {}",
                    after.difference(&head)
                ),
            );
        }
        if synced.result.is_err() && !caught_up && after != *last {
            return broken(
                "half",
                format!(
                    "device {number}: its sync failed, and its rows are not what they were: {}",
                    last.difference(&after)
                ),
            );
        }
        self.device(number)?.base = if caught_up { head } else { local };
        Ok(())
    }

    /// Which of the rows that a device had the server took in last, and what must be in records. `sent`: its rows before the
    /// sync and after each commit; `pushes`: after how many commits each was sent. It may still carry what was read before
    /// those, and what was not sent would seem to be lost: of all that may have been sent, what is lost the least.
    fn taken_in<'c>(
        &self,
        base: &'c Arc<Contents>,
        (sent, pushes): (&[&'c Arc<Contents>], &[usize]),
        stages: &[Arc<Contents>],
        refused: &BTreeSet<String>,
    ) -> Taken<'c> {
        let mut ways: Vec<Vec<usize>> = vec![Vec::new()];
        for after in pushes {
            let longer = ways.iter().flat_map(|way| {
                let from = way.last().copied().unwrap_or(0);
                (from..sent.len().min(after + 1)).rev().map(move |state| [way.as_slice(), &[state]].concat())
            });
            ways = longer.collect();
        }
        let mut best: Option<Taken<'_>> = None;
        for way in ways {
            let locals: Vec<&Arc<Contents>> = way.iter().filter_map(|at| sent.get(*at).copied()).collect();
            let found = self.check_all(base, &locals, stages, refused);
            let is_better = match (&best, &found) {
                (None, _) | (Some((_, Err(_))), Ok(_)) => true,
                (Some((_, Ok(debts))), Ok(found)) => found.len() < debts.len(),
                (Some(_), Err(_)) => false,
            };
            if is_better {
                best = Some((locals.last().copied().unwrap_or(base), found));
            }
        }
        best.unwrap_or_else(|| (base, Err("the pushes are not in the order of the commits".to_owned())))
    }

    /// Rows that were not applied stay on the device until it catches up.
    pub(crate) fn note_refused(&mut self, number: usize, debts: &[Debt]) {
        let refused = self.refused.entry(number).or_default();
        refused.extend(debts.iter().filter_map(|debt| debt.refused.clone()));
    }

    /// For libSQL's devices, which may stop at any of them.
    fn remember(&mut self, stages: Vec<Arc<Contents>>) {
        if !self.plan.libsql.is_empty() {
            self.past.extend(stages);
        }
    }

    /// What a libSQL device's sync came to: it tells nothing itself, and pushes or pulls, not both.
    pub(crate) fn judge_libsql(&mut self, number: usize, synced: &Synced) -> Result<bool, Broken> {
        let device = self.device(number)?;
        let (after, base, mut states) =
            (device.contents()?, Arc::clone(&device.base), std::mem::take(&mut device.states));
        states.insert(0, Arc::clone(&base));
        if states.last() != Some(&synced.before) {
            states.push(Arc::clone(&synced.before));
        }
        let (head, txid) = self.read_head()?;
        let took = txid != self.txid;
        let mut taken = 0;
        let refused = self.refused.get(&number).cloned().unwrap_or_default();
        if took {
            let mut stages = self.stages(txid)?;
            stages.push(Arc::clone(&head));
            let (debts, last) = self
                .explain(&self.head, (&states, 0), &stages, &refused)
                .map_err(|error| Broken { kind: "merge", message: format!("device {number}: {error}") })?;
            taken = last;
            if *base != *self.head {
                self.merges += 1;
            }
            self.note_refused(number, &debts);
            self.debts.extend(debts);
            (self.head, self.txid) = (Arc::clone(&head), txid);
            self.remember(stages);
        }
        let local = states.get(taken).cloned().unwrap_or(base);
        let pulled = after != synced.before;
        if pulled && synced.before != local {
            let lost = local.difference(&synced.before);
            return broken("lost", format!("device {number} pulled over what it had not pushed: {lost}"));
        }
        if pulled && after != head && !self.past.contains(&after) {
            let differs = after.difference(&head);
            return broken("half", format!("device {number} has rows that the server never had: {differs}"));
        }
        if pulled {
            self.refused.remove(&number);
        }
        let device = self.device(number)?;
        if after == head || pulled {
            device.base = after;
        } else {
            device.base = local;
            device.states = states.split_off(taken + 1);
        }
        Ok(took || pulled)
    }

    /// Which of a device's states the server merged, one for each stage: the latest that the rules allow.
    fn explain(
        &self,
        head: &Contents,
        (states, from): (&[Arc<Contents>], usize),
        stages: &[Arc<Contents>],
        refused: &BTreeSet<String>,
    ) -> Result<(Vec<Debt>, usize), String> {
        let (Some((result, rest)), Some(base)) = (stages.split_first(), states.get(from)) else {
            return Ok((Vec::new(), from));
        };
        let mut wrong = None;
        for (at, local) in states.iter().enumerate().skip(from).rev() {
            let explained = self.check(base, local, head, result, refused).and_then(|mut debts| {
                let mut refused = refused.clone();
                refused.extend(debts.iter().filter_map(|debt| debt.refused.clone()));
                let (more, last) = self.explain(result, (states, at), rest, &refused)?;
                debts.extend(more);
                Ok((debts, last))
            });
            match explained {
                Ok(found) => return Ok(found),
                Err(error) => drop(wrong.get_or_insert(error)),
            }
        }
        Err(wrong.unwrap_or_default())
    }

    /// Several merges, one after the other.
    fn check_all(
        &self,
        base: &Arc<Contents>,
        locals: &[&Arc<Contents>],
        stages: &[Arc<Contents>],
        refused: &BTreeSet<String>,
    ) -> Result<Vec<Debt>, String> {
        let (mut base, mut head, mut debts) = (base, &self.head, Vec::new());
        let mut refused = refused.clone();
        if locals.len() != stages.len() {
            return Err(format!("one sync is {} pushes", stages.len()));
        }
        for (local, result) in locals.iter().zip(stages) {
            let found = self.check(base, local, head, result, &refused)?;
            refused.extend(found.iter().filter_map(|debt| debt.refused.clone()));
            debts.extend(found);
            (base, head) = (local, result);
        }
        Ok(debts)
    }

    pub(crate) fn check(
        &self,
        base: &Contents,
        local: &Contents,
        head: &Contents,
        result: &Contents,
        refused: &BTreeSet<String>,
    ) -> Result<Vec<Debt>, String> {
        if self.plan.reuse_ids {
            return Ok(Vec::new());
        }
        let last_wins = self.plan.policy == MergePolicy::LastPushWins;
        let merge = Merge { base, local, head, result, last_wins, vacuumed: self.vacuumed, refused };
        if self.doubtful { merge.nothing_lost() } else { merge.check() }
    }

    /// The server's rows at the positions after the last known head and before `until`.
    fn stages(&mut self, until: Option<TxId>) -> Result<Vec<Arc<Contents>>> {
        let (Some(from), Some(until)) = (self.txid, until) else { return Ok(Vec::new()) };
        if until.0 <= from.0 + 1 {
            return Ok(Vec::new());
        }
        let log = RemoteDatabase::new(&self.relay.url(&self.spot.name), None)?.log_blocking(None, 1000)?;
        let between = log.entries.iter().filter(|entry| entry.txid > from.0 && entry.txid < until.0);
        between
            .map(|entry| {
                let (generation, frame) = (entry.position.generation, entry.position.frame);
                let place = Place { generation: Generation(generation), frame: FrameNo(frame) };
                Ok(self.read_at(At::Place(place))?.0)
            })
            .collect()
    }
}
