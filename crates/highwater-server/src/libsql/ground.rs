//! On what a push stands: a place of the log, or a branch; or it is not proven, and the client is asked
//! for its whole log.

use highwater_ltx::{FrameNo, Generation, Place};

use super::baton::Baton;
use super::branch::{Branches, Shared};
use super::compare::is_boundary;
use super::is_private;
use crate::Result;
use crate::log::Database;

/// What comes before the frames of a push.
#[derive(Debug)]
pub(super) enum Ground {
    /// A place of the log where a push ends or a generation begins.
    Log(Place),
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
    let (place, branch) = match baton.map(Baton::parse) {
        None | Some(Some(Baton::Again)) => (Place { generation, frame: before }, is_private(generation)),
        Some(Some(Baton::Log(place))) if place.frame == before => (place, false),
        Some(Some(Baton::Branch(place))) if place.frame == before => (place, true),
        Some(_) => return Ok(Ground::Unproven),
    };
    let (mut place, mut found) = (place, None);
    if branch {
        found = Branches::find_up_to(db, place).await?;
    }
    if let Some(branch) = found {
        let (fork, start, end) = {
            let branch = branch.lock().await;
            (branch.fork, branch.before(), branch.last())
        };
        match fork {
            // A branch begins as the log did up to its fork.
            Some(fork) if before < start => place.generation = fork.generation,
            _ if before <= end => return Ok(Ground::Branch(branch)),
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
        None | Some(false) if before == FrameNo(0) => Ground::Unknown,
        _ => Ground::Unproven,
    })
}
