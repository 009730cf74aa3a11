//! Where a copy is, from its content alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    clippy::cast_possible_truncation
)]
mod common;

use common::{DEVICE_A, Image, Random, Rig};
use highwater_ltx::{PageNo, Position};
use highwater_server::{Limits, SnapshotPolicy};
use highwater_wire::{BASE, CONFIRM, DEVICE, ErrorBody, ErrorCode, LocateAnswer, LocateRequest, SumsOf};

async fn locate(
    rig: &Rig,
    image: &Image,
    sums: SumsOf,
    base: Option<Position>,
) -> Result<LocateAnswer, ErrorBody> {
    let request =
        LocateRequest { page_size: image.size, page_count: image.count(), state: image.state(), sums };
    let mut post = rig.client.post(rig.url("db/v1/locate"));
    if let Some(base) = base {
        post = post.header(BASE, base.to_string());
    }
    let response = post.body(request.encode()).send().await.unwrap();
    let ok = response.status().is_success();
    let bytes = response.bytes().await.unwrap();
    if ok {
        Ok(serde_json::from_slice(&bytes).unwrap())
    } else {
        Err(serde_json::from_slice(&bytes).unwrap())
    }
}

fn all(image: &Image) -> SumsOf {
    SumsOf::All(image.sums())
}

/// What differs from the image at the base that the client remembers.
fn changed(image: &Image, base: &Image) -> SumsOf {
    let (sums, before) = (image.sums(), base.sums());
    let numbered = sums.iter().enumerate().filter(|(at, sum)| before.get(*at) != Some(*sum));
    SumsOf::Changed(numbered.map(|(at, sum)| (PageNo(at as u32 + 1), *sum)).collect())
}

/// A history in which every push changes page 1 and a few others, to contents never seen before.
async fn history(rig: &Rig, pushes: u32) -> Vec<(Position, Image)> {
    let mut image = Image::new(512, 40, 0);
    let mut history =
        vec![(rig.sync("db", DEVICE_A, None, image.body(None)).await.position(), image.clone())];
    let mut random = Random(u64::from(pushes));
    for _ in 1..pushes {
        let mut next = image.clone();
        for page in [1, 2 + random.next() % 38, 2 + random.next() % 38, 41 + random.next() % 2] {
            if page > next.count().0 + 1 {
                continue;
            }
            next.set(page, 0);
            random.fill(&mut next.pages[page as usize - 1][200..]);
        }
        let base = history.last().unwrap().0;
        let pushed = rig.sync("db", DEVICE_A, Some(base), next.body(Some(&image))).await.position();
        history.push((pushed, next.clone()));
        image = next;
    }
    history
}

#[tokio::test]
async fn a_copy_without_changes_is_found_exactly_by_its_state() {
    let mut rig = Rig::local(SnapshotPolicy { max_files: 4, outweigh: false }, Limits::default());
    let history = history(&rig, 15).await;
    rig.restart();
    for (position, image) in &history {
        let found = locate(&rig, image, SumsOf::Nothing, None).await.unwrap();
        assert!(found.exact);
        assert_eq!(Position::try_from(&found.position).unwrap(), *position);
    }
    let stranger = Image::new(512, 40, 99);
    let error = locate(&rig, &stranger, SumsOf::Nothing, None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownState);
}

#[tokio::test]
async fn a_copy_with_changes_on_top_is_found_at_its_base_and_never_later() {
    let mut rig = Rig::local(SnapshotPolicy { max_files: 6, outweigh: false }, Limits::default());
    let history = history(&rig, 20).await;
    rig.restart();
    let mut random = Random(5);
    for (number, (position, image)) in history.iter().enumerate() {
        for _ in 0..4 {
            let mut copy = image.clone();
            for _ in 0..1 + random.next() % 3 {
                let page = 1 + random.next() % 38;
                random.fill(&mut copy.pages[page as usize - 1][300..]);
            }
            match random.next() % 3 {
                0 => (copy.count().0 + 1..copy.count().0 + 4).for_each(|page| copy.set(page, 77)),
                1 => copy = copy.shrunk(copy.count().0 - 2),
                _ => {}
            }
            let known = copy.sums().iter().zip(image.sums()).filter(|(a, b)| **a == *b).count() as u32;
            for (sums, base) in [
                (all(&copy), None),
                // Whatever later position the client remembers.
                (changed(&copy, &history[19].1), Some(history[19].0)),
                (changed(&copy, &history[(number + 3).min(19)].1), Some(history[(number + 3).min(19)].0)),
            ] {
                let found = locate(&rig, &copy, sums, base).await.unwrap();
                let found_at = Position::try_from(&found.position).unwrap();
                assert!(!found.exact);
                let at = history.iter().position(|(position, _)| *position == found_at).unwrap();
                // The changes may have hidden every page that tells it from an earlier one.
                assert!(at <= number, "found {found_at}, but it is at {position}");
                if at == number {
                    assert_eq!(found.known_pages, known);
                } else {
                    let differing = image.delta(Some(&history[at].1));
                    let touched = copy.delta(Some(image));
                    let shown = |page: &&u32| !touched.contains(page) && **page <= copy.count().0;
                    assert_eq!(differing.iter().filter(shown).count(), 0, "{at} for {number}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_base_that_the_client_names_is_kept_when_its_pages_allow_it() {
    let rig = Rig::memory();
    let history = history(&rig, 8).await;
    let (position, image) = &history[5];
    let copy = image.with(&[(3, 200), (50, 200)]);
    let found = locate(&rig, &copy, changed(&copy, image), Some(*position)).await.unwrap();
    assert_eq!(Position::try_from(&found.position).unwrap(), *position);
}

#[tokio::test]
async fn strangers_and_unknown_bases_are_told_apart() {
    let rig = Rig::memory();
    let history = history(&rig, 5).await;
    let stranger = Image::new(512, 40, 99);
    assert_eq!(
        locate(&rig, &stranger, all(&stranger), None).await.unwrap_err().code,
        ErrorCode::UnknownState
    );
    let other_size = Image::new(1024, 40, 0);
    assert_eq!(
        locate(&rig, &other_size, all(&other_size), None).await.unwrap_err().code,
        ErrorCode::UnknownState
    );
    let foreign = Position { state: stranger.state(), ..history[2].0 };
    let copy = history[2].1.with(&[(3, 200)]);
    let error = locate(&rig, &copy, changed(&copy, &history[2].1), Some(foreign)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownBase);
    let response = rig.client.post(rig.url("db/v1/locate")).body("not a request").send().await.unwrap();
    assert_eq!(response.status(), 422);
    let response = rig.client.post(rig.url("other/v1/locate")).body(
        LocateRequest {
            page_size: copy.size,
            page_count: copy.count(),
            state: copy.state(),
            sums: SumsOf::Nothing,
        }
        .encode(),
    );
    assert_eq!(response.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_client_that_asks_is_told_that_its_copy_is_an_earlier_state_and_nothing_is_pushed_back_in_time() {
    let rig = Rig::memory();
    let history = history(&rig, 6).await;
    let (head, newest) = history.last().unwrap();
    let confirm = |image: &Image| {
        let request = rig.client.post(rig.url("db/v1/sync")).header(DEVICE, DEVICE_A.to_string());
        let request = request.header(BASE, head.to_string()).header(CONFIRM, "1");
        request.body(image.body(Some(newest))).send()
    };
    // A restored backup, as it is and with changes.
    for copy in [history[2].1.clone(), history[2].1.with(&[(7, 201)])] {
        let refused = common::synced(confirm(&copy).await.unwrap()).await;
        assert_eq!((refused.status.as_u16(), refused.error().code), (410, ErrorCode::EarlierState));
    }
    assert_eq!(rig.snapshot("db/v1/snapshot").await, *newest);
    let changed = newest.with(&[(7, 202), (8, 202)]);
    assert_eq!(common::synced(confirm(&changed).await.unwrap()).await.outcome, "pushed");
}
