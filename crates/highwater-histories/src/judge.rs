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
        let plain = synced.result.as_ref().ok().filter(|_| !faulty && synced.during.is_none());
        let (head, txid) = match plain {
            Some(outcome) => (Arc::clone(&after), outcome.txid),
            None => self.read_head()?,
        };
        // A commit after the answer was applied is for the next sync.
        let (last, later) = match &synced.during {
            Some((found, written)) if *found == synced.before => (written, None),
            Some((found, written)) => (&synced.before, Some((found, written))),
            None => (&synced.before, None),
        };
        let base = Arc::clone(&self.device(number)?.base);
        let mut stages = self.stages(txid)?;
        stages.push(Arc::clone(&head));
        let accepted = self.relay.accepted(&self.spot.name);
        let new = accepted.iter().filter(|(number, _)| Some(*number) > self.txid.map(|txid| txid.0));
        let mut pushes: BTreeMap<u64, bool> = new.copied().collect();
        if let (true, Some(known), Some(txid)) = (blind, self.txid, txid) {
            // Nobody else was there.
            for txid in known.0 + 1..=txid.0 {
                pushes.entry(txid).or_insert(false);
            }
        }
        // What the server took in: the rows before the commit during the sync, or after it. A request that was sent
        // after it may still carry what was read before it.
        let late = pushes.values().filter(|later| **later).count();
        let first = pushes.len() - late;
        let locals = |with: usize| -> Vec<&Arc<Contents>> {
            (0..pushes.len()).map(|at| if at >= first + with { last } else { &synced.before }).collect()
        };
        let mut taken = locals(0);
        let refused = self.refused.get(&number).cloned().unwrap_or_default();
        let debts = if taken.is_empty() {
            // Nothing came from here, and so nothing must have changed there.
            self.check(&base, &base, &self.head, &head, &refused)
        } else {
            let mut debts = self.check_all(&base, &taken, &stages, &refused);
            // What was not sent would seem to be lost.
            for without in (1..=late).filter(|_| *last != synced.before) {
                let other = locals(without);
                let found = self.check_all(&base, &other, &stages, &refused);
                let better =
                    |found: &Vec<Debt>| debts.as_ref().map_or(true, |debts| found.len() < debts.len());
                if found.as_ref().is_ok_and(better) {
                    (debts, taken) = (found, other);
                }
            }
            debts
        };
        let local = Arc::clone(taken.last().unwrap_or(&&base));
        let debts =
            debts.map_err(|error| Broken { kind: "merge", message: format!("device {number}: {error}") })?;
        if *local != *base && *base != *self.head {
            self.merges += 1;
        }
        (self.head, self.txid) = (Arc::clone(&head), txid);
        self.remember(stages);
        // What was rebased is judged with the next sync, which sends it.
        let rebased = synced.during.is_some() && synced.result.as_ref().is_ok_and(|heard| heard.rebased);
        let caught_up = after == head
            || rebased
            || later.is_some_and(|(found, written)| *found == head && *written == after);
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
