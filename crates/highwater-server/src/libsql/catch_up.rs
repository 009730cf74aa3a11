//! Pulls in a detour: the steps that follow, and at its end one transaction that brings the client to the head.
//!
//! That transaction has each page once in which the client's state differs from the head, in the head's version. It
//! is a step of the detour, durable before a frame of it is sent: a client that asks again, or pushes back what it
//! has of it, is understood. The client is then at a position of the log, and stays in its detour.

use std::sync::Arc;

use highwater_ltx::{FrameNo, PageNo, TxId};

use super::detour::Step;
use super::frames::PAGE_SIZE;
use super::ground::Node;
use super::heal::add;
use super::pull::{Pages, Part, Pull, body, first_of};
use super::standing::{self, Standing};
use crate::log::{Database, Refusal};

/// Answers a pull after a place of a detour.
pub(super) async fn pull(db: &Arc<Database>, node: Node) -> Result<Pull, Refusal> {
    let Some(detour) = &node.detour else { return Ok(Pull::Unproven(node.place)) };
    let mut steps = detour.after(node.place.frame).to_vec();
    if steps.iter().any(|step| step.after.txid == TxId(0)) {
        // What a client wrote there is not known.
        return Ok(Pull::Unproven(node.place));
    }
    if steps.is_empty() {
        let Some(step) = catch_up(db, &node).await? else { return Ok(Pull::End(node.place.generation)) };
        steps.push(step);
    }
    let frames = first_of(&mut steps, |step| step.last.0 + 1 - step.first.0);
    let mut parts = Vec::with_capacity(steps.len());
    for step in steps {
        let opened = standing::open(db, &step.after).await?.ok_or_else(|| standing::lost(db))?;
        let fillers = (step.last.0 + 1 - step.first.0).saturating_sub(step.pages.len() as u64);
        let images = Pages::Of(opened.source, Arc::new(step.pages));
        parts.push(Part { images, pages: step.after.pages, fillers });
    }
    Ok(Pull::Frames(frames, body(db, parts, Part::chunk)))
}

/// The step that brings a client at the end of its detour to the head; `None` when it is there.
async fn catch_up(db: &Arc<Database>, node: &Node) -> Result<Option<Step>, Refusal> {
    let _turn = db.detours.turn.lock().await;
    let head = db.read(|log| {
        let head = log.head();
        Standing { txid: head.txid, state: head.position.state, pages: head.page_count }
    });
    let head = head.ok_or(Refusal::UnknownDatabase)?;
    if head.state == node.standing.state {
        return Ok(None);
    }
    let pages = differing(db, &node.standing, &head).await?;
    let first = FrameNo(node.place.frame.0 + 1);
    let last = FrameNo(node.place.frame.0 + pages.len() as u64);
    let step = Step { first, last, after: head, pages, salts: None };
    let detour = add(db, node, step, None).await?;
    // Another server may have been faster, with another step.
    Ok(detour.after(node.place.frame).first().cloned())
}

/// The pages in which a state differs from the head, ascending; never none.
async fn differing(db: &Arc<Database>, from: &Standing, head: &Standing) -> Result<Vec<PageNo>, Refusal> {
    if from.txid == TxId(0) {
        return Ok(head.pages.data_pages(PAGE_SIZE).collect());
    }
    let opened = standing::open(db, from).await?.ok_or_else(|| standing::lost(db))?;
    let mut pages = db.pages_between(opened.base, head.txid).await?;
    pages.extend(&opened.own);
    pages.extend((from.pages.0.saturating_add(1)..=head.pages.0).map(PageNo));
    pages.retain(|page| head.pages.contains(*page) && *page != PAGE_SIZE.lock_page());
    let both: Vec<PageNo> = pages.iter().copied().filter(|page| from.pages.contains(*page)).collect();
    let ours = standing::hashes(&opened.source, both.clone()).await?;
    let there = standing::open(db, head).await?.ok_or_else(|| standing::lost(db))?;
    let theirs = standing::hashes(&there.source, both.clone()).await?;
    for (page, _) in both.iter().zip(ours.iter().zip(&theirs)).filter(|(_, (ours, theirs))| ours == theirs) {
        pages.remove(page);
    }
    if pages.is_empty() {
        pages.insert(PageNo(1));
    }
    Ok(pages.into_iter().collect())
}
