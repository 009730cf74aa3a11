//! Detours: private generations of clients that wrote while others did.
//!
//! A detour is a prefix of another generation, up to its fork, and then steps: whole transactions of one client, and
//! transactions that brought it to the head. It says, for each frame number at which a step ends, which state of
//! the history the client has there. What the steps contain stands elsewhere: in the log, and in what was merged.
//!
//! A step is one object, created once and never changed, under a name that only one step can have: the number of its
//! first frame. It is written after what it tells is durable. A step that got lost before it was written is
//! found again by its content; so nothing is pushed twice when the server is killed in between.
//!
//! The object `DB/sync/<generation>/<first frame>.json`:
//!
//! | field | what |
//! |---|---|
//! | `version` | 1 |
//! | `fork` | of the first step: `generation` and `frame` that the detour was forked at, and the state there |
//! | `last` | the number of its last frame |
//! | `txid`, `state`, `page_count` | the state after it: its hash, its size, and the transaction of the log that has all of it |
//! | `pages` | the pages in it, as runs of consecutive ones: `[first, how many]` |
//! | `salts` | of the client's log, when it is the client's own |

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use highwater_ltx::{FrameNo, Generation, PageCount, PageNo, Place, StateHash, TxId};
use highwater_pages::kill_point;
use highwater_wire::DbName;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::frames::Salts;
use super::standing::Standing;
use crate::log::Database;
use crate::store::{Created, Store};
use crate::{Error, Result, paths};

const VERSION: u32 = 1;
/// How many detours of a database are kept in memory; others are read again when they are asked for.
const KEPT: usize = 256;

/// A private generation.
#[derive(Debug, Clone)]
pub(super) struct Detour {
    pub(super) number: Generation,
    /// The place of another generation up to which it is the same.
    pub(super) fork: Place,
    /// The state there.
    pub(super) began: Standing,
    steps: Vec<Step>,
}

/// Frames of a detour after which its client has a state of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) first: FrameNo,
    pub(super) last: FrameNo,
    pub(super) after: Standing,
    /// Ascending. Each is one frame; what there are more frames are fillers.
    pub(super) pages: Vec<PageNo>,
    /// `None`: it brought the client to the head.
    pub(super) salts: Option<Salts>,
}

impl Detour {
    /// One that has no steps yet; nothing of it is stored.
    pub(super) fn new(number: Generation, fork: Place, began: Standing) -> Self {
        Self { number, fork, began, steps: Vec::new() }
    }

    /// Where it ends.
    pub(super) fn tip(&self) -> Place {
        let frame = self.steps.last().map_or(self.fork.frame, |step| step.last);
        Place { generation: self.number, frame }
    }

    /// The state at a frame, if a step ends there or the detour begins there.
    pub(super) fn at(&self, frame: FrameNo) -> Option<Standing> {
        if frame == self.fork.frame {
            return Some(self.began);
        }
        let at = self.steps.binary_search_by_key(&frame, |step| step.last).ok()?;
        self.steps.get(at).map(|step| step.after)
    }

    /// The steps after that frame.
    pub(super) fn after(&self, frame: FrameNo) -> &[Step] {
        self.steps.get(self.steps.partition_point(|step| step.last <= frame)..).unwrap_or_default()
    }

    /// The step that ends with that frame.
    pub(super) fn before(&self, frame: FrameNo) -> Option<&Step> {
        self.steps.iter().find(|step| step.last == frame)
    }

    /// Whether a log with these salts was pushed into it.
    pub(super) fn knows(&self, salts: Salts) -> bool {
        self.steps.iter().any(|step| step.salts == Some(salts))
    }

    /// A detour as the store has it; `None` when there is none of that number.
    pub(super) async fn find(db: &Database, number: Generation) -> Result<Option<Arc<Self>>> {
        let (store, name) = (&db.context.store, &db.name);
        if let Some(kept) = db.detours.with(|kept| kept.get(&number).cloned()) {
            // Another server may have added to it.
            let next = paths::detour_step(name, number, FrameNo(kept.tip().frame.0 + 1));
            if store.size(&next).await?.is_none() {
                return Ok(Some(kept));
            }
        }
        Ok(open(store, name, number).await?.map(|detour| db.detours.keep(detour)))
    }

    /// Adds a step at its end, durably. [`Created::Lost`]: another one stands there.
    pub(super) async fn add(&mut self, db: &Database, step: Step) -> Result<Created> {
        let path = paths::detour_step(&db.name, self.number, step.first);
        let fork = self.steps.is_empty().then_some((self.fork, self.began));
        let object = serde_json::to_vec(&StepJson::of(&step, fork))
            .map_err(|error| Error::Run(std::io::Error::other(error)))?;
        kill_point("server-libsql-before-step");
        let created = db.context.store.create(&path, Bytes::from(object)).await?;
        if created == Created::Ours {
            kill_point("server-libsql-step");
            self.steps.push(step);
            db.detours.keep(self.clone());
        } else {
            db.detours.with(|kept| kept.remove(&self.number));
        }
        Ok(created)
    }
}

/// The detours of a database that are in memory.
#[derive(Debug, Default)]
pub(crate) struct Detours {
    kept: Mutex<HashMap<Generation, Arc<Detour>>>,
    /// Held by whoever adds a step.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Detours {
    fn keep(&self, detour: Detour) -> Arc<Detour> {
        let detour = Arc::new(detour);
        self.with(|kept| {
            if kept.len() >= KEPT {
                kept.clear();
            }
            kept.insert(detour.number, Arc::clone(&detour));
        });
        detour
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Generation, Arc<Detour>>) -> T) -> T {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn open(store: &Store, db: &DbName, number: Generation) -> Result<Option<Detour>> {
    let mut paths: Vec<(Path, u64)> = store
        .list(&paths::branch(db, number))
        .await?
        .into_iter()
        .filter(|object| paths::detour_first(&object.location).is_some())
        .map(|object| (object.location, object.size))
        .collect();
    // Names sort as their first frames do.
    paths.sort_unstable();
    if let Some((last, _)) = paths.last() {
        store.settle(last).await?;
    }
    let mut detour: Option<Detour> = None;
    for (path, size) in paths {
        let bytes = store.read_one(&path, 0..size).await?;
        let damaged = |what: String| Error::damaged(&path, what);
        let json: StepJson = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(format!("it is no step of a detour: {error}")))?;
        let first = paths::detour_first(&path).unwrap_or_default();
        let (step, fork) = json.read(first).ok_or_else(|| damaged("a field of it is not readable".into()))?;
        let detour = match (&mut detour, fork) {
            (Some(detour), None) => detour,
            (none @ None, Some((fork, began))) => none.insert(Detour::new(number, fork, began)),
            _ => return Err(damaged("the steps before it are missing".into())),
        };
        if first.0 != detour.tip().frame.0 + 1 || step.last < first {
            return Err(damaged("it does not follow the step before it".into()));
        }
        detour.steps.push(step);
    }
    Ok(detour)
}

#[derive(Serialize, Deserialize)]
struct StepJson {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fork: Option<ForkJson>,
    last: u64,
    #[serde(flatten)]
    after: StandingJson,
    pages: Vec<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salts: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ForkJson {
    generation: u32,
    frame: u64,
    #[serde(flatten)]
    at: StandingJson,
}

#[derive(Serialize, Deserialize)]
struct StandingJson {
    txid: u64,
    state: String,
    page_count: u32,
}

impl StandingJson {
    fn of(standing: &Standing) -> Self {
        let Standing { txid, state, pages } = standing;
        Self { txid: txid.0, state: state.to_string(), page_count: pages.0 }
    }

    fn read(&self) -> Option<Standing> {
        let state: StateHash = self.state.parse().ok()?;
        Some(Standing { txid: TxId(self.txid), state, pages: PageCount(self.page_count) })
    }
}

impl StepJson {
    fn of(step: &Step, fork: Option<(Place, Standing)>) -> Self {
        let fork = fork.map(|(place, at)| ForkJson {
            generation: place.generation.0,
            frame: place.frame.0,
            at: StandingJson::of(&at),
        });
        Self {
            version: VERSION,
            fork,
            last: step.last.0,
            after: StandingJson::of(&step.after),
            pages: runs(&step.pages),
            salts: step.salts.map(|salts| format!("{:016x}", u64::from_be_bytes(salts))),
        }
    }

    fn read(&self, first: FrameNo) -> Option<(Step, Option<(Place, Standing)>)> {
        let fork = match &self.fork {
            None => None,
            Some(fork) => {
                let (generation, frame) = (Generation(fork.generation), FrameNo(fork.frame));
                Some((Place { generation, frame }, fork.at.read()?))
            }
        };
        let salts = match &self.salts {
            None => None,
            Some(digits) => Some(u64::from_str_radix(digits, 16).ok()?.to_be_bytes()),
        };
        let pages =
            self.pages.iter().flat_map(|(from, count)| (*from..from.saturating_add(*count)).map(PageNo));
        let (pages, after) = (pages.collect(), self.after.read()?);
        (self.version == VERSION)
            .then_some((Step { first, last: FrameNo(self.last), after, pages, salts }, fork))
    }
}

/// Ascending pages as runs of consecutive ones.
fn runs(pages: &[PageNo]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((from, count)) if from.saturating_add(*count) == page.0 => *count += 1,
            _ => runs.push((page.0, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_as_it_was_written() {
        let standing =
            |txid| Standing { txid: TxId(txid), state: StateHash(u128::MAX - 7), pages: PageCount(9) };
        let step = Step {
            first: FrameNo(13),
            last: FrameNo(20),
            after: standing(4),
            pages: [1, 2, 3, 7, 9].map(PageNo).to_vec(),
            salts: Some([0, 1, 2, 3, 4, 5, 6, 255]),
        };
        let fork = Some((Place { generation: Generation(3), frame: FrameNo(12) }, standing(2)));
        for (step, fork) in [(step.clone(), fork), (Step { salts: None, ..step }, None)] {
            let text = serde_json::to_string(&StepJson::of(&step, fork)).unwrap();
            assert!(text.contains("[[1,3],[7,1],[9,1]]"), "{text}");
            let json: StepJson = serde_json::from_str(&text).unwrap();
            assert_eq!(json.read(FrameNo(13)), Some((step, fork)));
        }
    }
}
