//! What a client pushes, compared with what the log has at the same numbers.
//!
//! The unit is one push in the log: the log keeps only the last image of each page of it, so only its
//! end is a state. A client sends again what it pushed (killed before it noted the answer) with the
//! frames that its log really has, or what it pulled (killed before it noted that) with the frames that
//! the server made of a push. Both leave the same pages behind, and that is what is compared.

use std::sync::Arc;

use highwater_ltx::{FrameNo, Generation, PageCount, Place};

use super::frames::{FrameHead, settle};
use crate::Result;
use crate::log::{Database, Entry, Images, Log};

/// How frames stand to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// The log has the first `known` of them, up to `at`; what follows is new there.
    Known { at: Place, known: usize },
    /// The log has the first of them up to `at`, and the rest ends within the push that follows.
    Within { at: Place },
    /// Something else stands in the log after `at`.
    Differs { at: Place },
}

/// Compares frames that follow `fork` with the log.
pub(super) async fn compare(db: &Database, fork: Place, heads: &[FrameHead]) -> Result<Compared> {
    let (mut at, mut known) = (fork, 0);
    loop {
        let rest = heads.get(known..).unwrap_or_default();
        let next = db.read(|log| Some((next_push(log, at)?, pages_at(log, at)))).flatten();
        let Some((entry, before)) = next.filter(|_| !rest.is_empty()) else {
            return Ok(Compared::Known { at, known });
        };
        let span = usize::try_from(entry.position.frame.0 - at.frame.0).unwrap_or(usize::MAX);
        let Some(same) = rest.get(..span) else { return Ok(Compared::Within { at }) };
        if same.last().is_none_or(|last| last.commit.0 == 0) || !is_push(db, &entry, same, before).await? {
            return Ok(Compared::Differs { at });
        }
        (at, known) = (entry.position.place(), known + span);
    }
}

/// The push of the same generation that follows a place.
pub(super) fn next_push(log: &Log, at: Place) -> Option<Entry> {
    log.of_generation(at.generation).iter().find(|entry| entry.position.frame > at.frame).cloned()
}

/// Whether these frames leave behind what the push has.
async fn is_push(db: &Database, entry: &Entry, heads: &[FrameHead], before: PageCount) -> Result<bool> {
    if heads.last().is_none_or(|last| last.commit != entry.page_count) {
        return Ok(false);
    }
    let settled = settle(heads, before);
    let Some(images) = push_images(db, entry).await? else { return Ok(false) };
    if images.list.len() != settled.pages.len() {
        return Ok(false);
    }
    let stored = Arc::new(images).hashes(&db.context.store).await?;
    Ok(stored
        .iter()
        .map(|(image, hash)| (image.page, *hash))
        .eq(settled.pages.iter().map(|p| (p.page, p.hash))))
}

/// The pages that one push brought.
pub(super) async fn push_images(db: &Database, entry: &Entry) -> Result<Option<Images>> {
    let Some((file, page_size)) = entry.file.clone().zip(db.read(|log| log.page_size)) else {
        return Ok(None);
    };
    let size = (page_size, entry.page_count);
    Images::newest(&db.context.store, &db.name, size, vec![file]).await.map(Some)
}

/// The size of the database at a place of the log; of nothing at its beginning.
pub(super) fn pages_at(log: &Log, at: Place) -> PageCount {
    log.at(at).map_or(PageCount(0), |entry| entry.page_count)
}

/// Whether a push after this place is one after the head. So is one at the beginning of the generation after
/// the head's: see [`begins_next`].
pub(super) fn is_head(log: &Log, at: Place) -> bool {
    log.head().position.place() == at || begins_next(log) == Some(at)
}

/// Where clients begin when the beginning of the newest generation is not kept (the store was made of a
/// snapshot): with the head, in a generation that begins when one of them pushes.
pub(super) fn begins_next(log: &Log) -> Option<Place> {
    let newest = log.head().position.generation;
    let kept = begins(log, newest);
    (!kept).then(|| Place { generation: newest.next(), frame: FrameNo(0) })
}

/// Whether the generation's first push is kept.
fn begins(log: &Log, generation: Generation) -> bool {
    log.of_generation(generation)
        .first()
        .is_some_and(|first| first.file.is_some() && first.position.frame.0 == u64::from(first.frames))
}

/// Whether a push ends at the place, or the generation begins there, and what follows it is kept.
pub(super) fn is_boundary(log: &Log, at: Place) -> bool {
    let entries = log.of_generation(at.generation);
    if at.frame == FrameNo(0) {
        return begins(log, at.generation) || begins_next(log) == Some(at);
    }
    entries.binary_search_by_key(&at.frame, |entry| entry.position.frame).is_ok()
}
