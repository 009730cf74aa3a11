//! On what a push stands: a place of the log, of a detour, or a branch; or it is not proven, and the client is
//! asked for its whole log.

use std::sync::Arc;

use highwater_ltx::{FrameNo, Generation, Place};

use super::baton::Baton;
use super::branch::{Branches, Shared};
use super::compare::is_boundary;
use super::detour::Detour;
use super::is_private;
use super::standing::Standing;
use crate::Result;
use crate::log::{Database, Log};

/// Forks that are followed. Nothing makes so many.
const DEEPEST: usize = 10_000;

/// A place at which a client has a state of the history.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) standing: Standing,
    /// The detour that the place is in; `None`: the log.
    pub(super) detour: Option<Arc<Detour>>,
}

impl Node {
    /// The same, for the first push to a database too.
    pub(super) fn at(db: &Database, place: Place) -> Self {
        db.read(|log| Self::of_log(log, place)).unwrap_or_else(|| Self {
            place,
            standing: Standing::nothing(),
            detour: None,
        })
    }

    /// A place of the log where a push ends or a generation begins.
    pub(super) fn of_log(log: &Log, place: Place) -> Self {
        let standing = log.at(place).map_or_else(Standing::nothing, |entry| Standing {
            txid: entry.txid,
            state: entry.position.state,
            pages: entry.page_count,
        });
        Self { place, standing, detour: None }
    }
}

/// What comes before the frames of a push.
#[derive(Debug)]
pub(super) enum Ground {
    /// A place of the log where a push ends or a generation begins.
    Log(Place),
    /// A place of a detour where a step ends.
    Detour(Box<Node>),
    /// Frames of this client that wait for their commit.
    Branch(Shared),
    /// Nothing: this is the whole log of a client, whose generation means nothing here.
    Unknown,
    /// It is not proven what comes before.
    Unproven,
}

/// Finds what a push that begins with frame `first` of `generation` stands on.
pub(super) async fn ground(
    db: &Database,
    (generation, first): (Generation, FrameNo),
    baton: Option<&str>,
) -> Result<Ground> {
    let before = FrameNo(first.0.saturating_sub(1));
    match baton.map(Baton::parse) {
        None | Some(Some(Baton::Again)) => at(db, Place { generation, frame: before }).await,
        Some(Some(Baton::Log(place) | Baton::Branch(place))) if place.frame == before => at(db, place).await,
        Some(_) => Ok(Ground::Unproven),
    }
}

/// What stands at a place.
pub(super) async fn at(db: &Database, mut place: Place) -> Result<Ground> {
    for _ in 0..DEEPEST {
        if !is_private(place.generation) {
            break;
        }
        // Either begins as the generation did that it was forked from.
        if let Some(detour) = Detour::find(db, place.generation).await? {
            if place.frame < detour.fork.frame {
                place.generation = detour.fork.generation;
                continue;
            }
            let found = detour.at(place.frame);
            let node = found.map(|standing| Box::new(Node { place, standing, detour: Some(detour) }));
            return Ok(node.map_or(Ground::Unproven, Ground::Detour));
        }
        let Some(branch) = Branches::find_up_to(db, place).await? else { break };
        let (fork, start, end) = {
            let branch = branch.lock().await;
            (branch.fork, branch.before(), branch.last())
        };
        match fork {
            Some(fork) if place.frame < start => place.generation = fork.generation,
            _ if place.frame <= end => return Ok(Ground::Branch(branch)),
            _ => return Ok(Ground::Unproven),
        }
    }
    let known = db.read(|log| !log.of_generation(place.generation).is_empty());
    Ok(match known {
        Some(_) if db.read(|log| is_boundary(log, place)) == Some(true) => Ground::Log(place),
        // The first push to a database.
        None if place == (Place { generation: db.first_generation(), frame: FrameNo(0) }) => {
            Ground::Log(place)
        }
        None | Some(false) if place.frame == FrameNo(0) => Ground::Unknown,
        _ => Ground::Unproven,
    })
}

/// The node at a place, if a client has a state of the history there.
pub(super) async fn node(db: &Database, place: Place) -> Result<Option<Node>> {
    Ok(match at(db, place).await? {
        Ground::Detour(node) => Some(*node),
        Ground::Log(place) => db.read(|log| Node::of_log(log, place)),
        Ground::Branch(_) | Ground::Unknown | Ground::Unproven => None,
    })
}
