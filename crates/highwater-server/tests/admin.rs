//! Creating, deleting, undeleting and removing databases, over real sockets and real stores.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod common;

use std::time::{Duration, Instant};

use common::{DEVICE_A, DEVICE_B, Image, Rig};
use highwater_ltx::{FrameNo, Generation, Position, StateHash};
use highwater_server::{
    Config, DeletionPolicy, Embedded, Limits, SnapshotPolicy, StoreUrl, list_databases, verify_store,
};
use highwater_wire::{
    AdminDatabase, AdminDetail, AdminEventKind as Kind, AdminPage, AdminState, AdminStats, ErrorCode,
};
use reqwest::{Method, Response};

const AT_ONCE: DeletionPolicy = DeletionPolicy { keep: Duration::ZERO, check: Duration::from_millis(20) };

fn rig(deletion: DeletionPolicy) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreUrl::Local(folder.path().to_owned());
    let mut rig = Rig::memory();
    rig.config = Config { store, deletion, ..Config::default() };
    rig.folder = Some(folder);
    rig.restart();
    rig
}

async fn admin(rig: &Rig, method: Method, rest: &str) -> Response {
    rig.client.request(method, rig.url(&format!("admin/v1/{rest}"))).send().await.unwrap()
}

async fn json<T: serde::de::DeserializeOwned>(response: Response) -> T {
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

async fn delete(rig: &Rig, name: &str) -> AdminDatabase {
    json(admin(rig, Method::DELETE, &format!("databases/{name}")).await).await
}

async fn undelete(rig: &Rig, name: &str) -> AdminDatabase {
    json(admin(rig, Method::POST, &format!("databases/{name}/undelete")).await).await
}

async fn detail(rig: &Rig, name: &str) -> AdminDetail {
    json(admin(rig, Method::GET, &format!("databases/{name}")).await).await
}

async fn create(rig: &Rig, name: &str) -> Response {
    let request = rig.client.post(rig.url("admin/v1/databases"));
    request.body(format!("{{\"name\":\"{name}\"}}")).send().await.unwrap()
}

async fn code(response: Response) -> (u16, ErrorCode) {
    let status = response.status().as_u16();
    let body: highwater_wire::ErrorBody = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    (status, body.code)
}

const GONE: (u16, ErrorCode) = (410, ErrorCode::Deleted);

/// Waits until the files of a deleted database are removed.
async fn removed(rig: &Rig, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while admin(rig, Method::GET, &format!("databases/{name}")).await.status() != 404 {
        assert!(Instant::now() < deadline, "{name} is not removed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_deleted_database_is_gone_for_everybody_and_comes_back_as_it_was() {
    let mut rig = rig(DeletionPolicy::default());
    let image = Image::new(4096, 5, 1);
    let base = rig.sync("team/app", DEVICE_A, None, image.body(None)).await.position();
    rig.sync("team/app2", DEVICE_A, None, image.body(None)).await.position();
    let deleted = delete(&rig, "team/app").await;
    assert_eq!(deleted.state, AdminState::Deleted);
    assert!(deleted.deleted_ms.is_some() && deleted.removed_after_ms > deleted.deleted_ms && !deleted.open);
    for restarted in [false, true] {
        for verb in ["", "/log", "/snapshot", "/sums"] {
            assert_eq!(code(rig.get(&format!("team/app/v1{verb}")).await).await, GONE, "{verb} {restarted}");
        }
        let next = image.with(&[(2, 9)]);
        let push = rig.sync("team/app", DEVICE_A, Some(base), next.body(Some(&image))).await;
        assert_eq!((push.status.as_u16(), push.error().code), GONE);
        let first = rig.sync("team/app", DEVICE_B, None, image.body(None)).await;
        assert_eq!((first.status.as_u16(), first.error().code), GONE);
        for path in ["team/app/info", "team/app/export/1", "team/app/sync/1/1/129"] {
            assert_eq!(rig.get(path).await.status(), 410, "{path}");
        }
        assert_eq!(rig.get("team/app2/v1").await.status(), 200, "its neighbour is untouched");
        rig.restart();
    }
    assert_eq!(
        delete(&rig, "team/app").await.deleted_ms,
        deleted.deleted_ms,
        "deleting again changes nothing"
    );
    assert_eq!(undelete(&rig, "team/app").await.state, AdminState::Live);
    assert_eq!(undelete(&rig, "team/app").await.state, AdminState::Live);
    assert_eq!(rig.snapshot("team/app/v1/snapshot").await, image);
    let next = image.with(&[(2, 9)]);
    rig.sync("team/app", DEVICE_A, Some(base), next.body(Some(&image))).await.position();
    let events: Vec<Kind> = detail(&rig, "team/app").await.events.iter().map(|event| event.event).collect();
    assert_eq!(events, [Kind::Deleted, Kind::Undeleted]);
}

#[tokio::test]
async fn a_push_under_way_does_not_bring_a_deleted_database_back() {
    let rig = rig(DeletionPolicy::default());
    let image = Image::new(4096, 5, 1);
    let base = rig.sync("app", DEVICE_A, None, image.body(None)).await.position();
    let next = image.with(&[(2, 9)]);
    let body = next.body(Some(&image));
    let (half, rest) = body.split_at(body.len() / 2);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(2);
    let stream = futures::stream::unfold(receiver, async |mut pieces| Some((pieces.recv().await?, pieces)));
    sender.send(Ok(half.to_vec())).await.unwrap();
    let push = rig
        .client
        .post(rig.url("app/v1/sync"))
        .header(highwater_wire::DEVICE, DEVICE_A.to_string())
        .header(highwater_wire::BASE, base.to_string())
        .body(reqwest::Body::wrap_stream(stream))
        .send();
    let deleting = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        delete(&rig, "app").await;
        sender.send(Ok(rest.to_vec())).await.unwrap();
        drop(sender);
    };
    let (push, ()) = tokio::join!(push, deleting);
    assert_eq!(code(push.unwrap()).await, GONE);
    let found = detail(&rig, "app").await;
    assert_eq!((found.database.state, found.database.txid), (AdminState::Deleted, 1));
}

#[tokio::test]
async fn a_second_server_on_the_store_notices_everything() {
    let rig = rig(AT_ONCE);
    let other = Embedded::start(
        Config { deletion: DeletionPolicy::default(), ..rig.config.clone() },
        ([127, 0, 0, 1], 0).into(),
    )
    .unwrap();
    let there = |rest: &str| format!("{}/{rest}", other.url());
    let image = Image::new(4096, 5, 1);
    let base = rig.sync("app", DEVICE_A, None, image.body(None)).await.position();
    assert_eq!(rig.client.get(there("app/v1")).send().await.unwrap().status(), 200);
    delete(&rig, "app").await;
    removed(&rig, "app").await;
    // The other server still has the old one open, and has not been asked meanwhile.
    let second = Image::new(4096, 3, 7);
    let fresh = rig.sync("app", DEVICE_B, None, second.body(None)).await.position();
    assert_eq!((fresh.generation, fresh.frame), (Generation(base.generation.0 + 16), FrameNo(3)));
    let next = image.with(&[(2, 9)]);
    let url = there("app/v1/sync");
    let stale = common::sync(&rig.client, &url, DEVICE_A, Some(base), next.body(Some(&image))).await;
    assert_eq!(stale.status, 503, "{stale:?}");
    let stale = common::sync(&rig.client, &url, DEVICE_A, Some(base), next.body(Some(&image))).await;
    assert_eq!(stale.error().code, ErrorCode::UnknownBase);
    let pulled = common::sync(&rig.client, &url, DEVICE_A, None, Vec::new()).await;
    assert_eq!(Image::empty().apply(&pulled.body), second);
    // Deleted there, noticed here.
    let gone = rig.client.delete(there("admin/v1/databases/app")).send().await.unwrap();
    assert_eq!(gone.status(), 200);
    let push = rig.sync("app", DEVICE_B, Some(fresh), second.with(&[(1, 2)]).body(Some(&second))).await;
    assert!(matches!(push.status.as_u16(), 410 | 503), "{push:?}");
    other.stop().unwrap();
}

#[tokio::test]
async fn a_removed_database_leaves_no_file_and_its_positions_are_never_used_again() {
    let mut rig = rig(DeletionPolicy::default());
    let image = Image::new(4096, 5, 1);
    let old = rig.sync("app", DEVICE_A, None, image.body(None)).await.position();
    rig.sync("app/part", DEVICE_A, None, image.body(None)).await.position();
    delete(&rig, "app").await;
    assert_eq!(code(create(&rig, "app").await).await, GONE, "the name is not free yet");
    rig.config.deletion = AT_ONCE;
    rig.restart();
    removed(&rig, "app").await;
    let files = |folder: &str| std::fs::read_dir(rig.store_path().join(folder)).map_or(0, Iterator::count);
    assert_eq!((files("app/ltx/0"), files("app/ltx/9"), files("app/part/ltx/0")), (0, 0, 1));
    assert_eq!(files("app/admin"), 3, "what happened is kept");
    assert_eq!(rig.get("app/v1").await.status(), 404);
    rig.restart();
    // Another content: the old copy's position is unknown, whatever its numbers say.
    let second = Image::new(4096, 5, 7);
    let fresh = rig.sync("app", DEVICE_B, None, second.body(None)).await.position();
    assert_eq!(fresh.generation.0, old.generation.0 + 16);
    let pull = rig.sync("app", DEVICE_A, Some(old), Vec::new()).await;
    assert_eq!(pull.error().code, ErrorCode::UnknownBase);
    let numbers = Position { state: StateHash(5), ..old };
    assert_eq!(
        rig.sync("app", DEVICE_A, Some(numbers), Vec::new()).await.error().code,
        ErrorCode::UnknownBase
    );
    // The same content is the same state, with the new numbers.
    let third = rig.sync("app", DEVICE_B, Some(fresh), image.body(Some(&second))).await.position();
    let pull = rig.sync("app", DEVICE_A, Some(old), Vec::new()).await;
    assert_eq!((pull.outcome.as_str(), pull.position()), ("up-to-date", third));
    // And again: the distance counts from the newest.
    delete(&rig, "app").await;
    removed(&rig, "app").await;
    let again = rig.sync("app", DEVICE_B, None, second.body(None)).await.position();
    assert_eq!(again.generation.0, third.generation.0 + 16);
    let report = verify_store(rig.server.as_ref().unwrap().store(), |_| {}).await.unwrap();
    assert!(report.is_ok() && report.databases.len() == 2, "{report:?}");
}

#[tokio::test]
async fn a_created_database_is_empty_until_its_first_push() {
    let rig = rig(DeletionPolicy::default());
    let created = create(&rig, "team/new").await;
    assert_eq!(created.status(), 201);
    let created: AdminDatabase = json(created).await;
    assert_eq!((created.state, created.bytes, created.head), (AdminState::Empty, 0, None));
    assert_eq!(code(create(&rig, "team/new").await).await, (409, ErrorCode::AlreadyExists));
    assert_eq!(rig.get("team/new/v1").await.status(), 404, "there is nothing to pull yet");
    let position = rig.sync("team/new", DEVICE_A, None, Image::new(512, 2, 1).body(None)).await.position();
    assert_eq!(position.generation, Generation::FIRST);
    assert_eq!(detail(&rig, "team/new").await.database.state, AdminState::Live);
    assert_eq!(code(create(&rig, "team/new").await).await, (409, ErrorCode::AlreadyExists));
    for name in ["", "Team", "../x", "a/ltx", "admin"] {
        assert_eq!(code(create(&rig, name).await).await.0, 400, "{name:?}");
    }
    // A reserved name that is deleted comes back reserved.
    create(&rig, "other").await;
    assert_eq!(delete(&rig, "other").await.state, AdminState::Deleted);
    let push = rig.sync("other", DEVICE_A, None, Image::new(512, 2, 1).body(None)).await;
    assert_eq!(push.error().code, ErrorCode::Deleted);
    assert_eq!(undelete(&rig, "other").await.state, AdminState::Empty);
}

#[tokio::test]
async fn the_list_is_paged_and_tells_how_each_database_stands() {
    let rig = rig(DeletionPolicy::default());
    let image = Image::new(4096, 5, 1);
    for name in ["a", "a-b", "a/b", "b"] {
        rig.sync(name, DEVICE_A, None, image.body(None)).await.position();
    }
    create(&rig, "c").await;
    delete(&rig, "a-b").await;
    let page: AdminPage = json(admin(&rig, Method::GET, "databases?limit=3").await).await;
    let names = |page: &AdminPage| page.databases.iter().map(|db| db.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&page), page.more), (vec!["a".into(), "a-b".into(), "a/b".into()], true));
    let page: AdminPage = json(admin(&rig, Method::GET, "databases?limit=3&after=a%2Fb").await).await;
    assert_eq!((names(&page), page.more), (vec!["b".into(), "c".into()], false));
    let all: AdminPage = json(admin(&rig, Method::GET, "databases").await).await;
    let states: Vec<AdminState> = all.databases.iter().map(|db| db.state).collect();
    use AdminState::{Deleted, Empty, Live};
    assert_eq!(states, [Live, Deleted, Live, Live, Empty]);
    let b = &all.databases[3];
    assert_eq!((b.txid, b.page_size, b.page_count, b.bytes, b.open), (1, 4096, 5, 20480, true));
    assert_eq!(b.head.as_ref().unwrap().frame, 5);
    assert!(b.stored_bytes > 0 && b.created_ms == b.updated_ms && b.created_ms > Some(0));
    assert_eq!((detail(&rig, "b").await.pushes, detail(&rig, "b").await.snapshots), (1, 0));
    let stats: AdminStats = json(admin(&rig, Method::GET, "stats").await).await;
    assert_eq!((stats.databases, stats.deleted, stats.stored_files, stats.open), (4, 1, 4, 3));
    assert!(stats.connections >= 1 && stats.in_flight == 1, "{stats:?}");
    for rest in ["databases?limit=0", "databases?limit=9999", "databases?at=1/1", "databases?after=A"] {
        assert_eq!(admin(&rig, Method::GET, rest).await.status(), 400, "{rest}");
    }
}

#[tokio::test]
async fn what_does_not_exist_or_makes_no_sense_is_said_so() {
    let rig = rig(DeletionPolicy::default());
    let unknown = (404, ErrorCode::UnknownDatabase);
    assert_eq!(code(admin(&rig, Method::DELETE, "databases/app").await).await, unknown);
    assert_eq!(code(admin(&rig, Method::POST, "databases/app/undelete").await).await, unknown);
    assert_eq!(code(admin(&rig, Method::GET, "databases/app").await).await, unknown);
    assert_eq!(code(admin(&rig, Method::GET, "databases/../x").await).await.0, 404);
    assert_eq!(code(admin(&rig, Method::DELETE, "databases/%61").await).await.0, 400);
    assert_eq!(code(admin(&rig, Method::GET, "nothing").await).await, (404, ErrorCode::NotFound));
    assert_eq!(code(admin(&rig, Method::PUT, "databases/app").await).await.0, 405);
    assert_eq!(code(admin(&rig, Method::DELETE, "stats").await).await.0, 405);
    let huge = rig.client.post(rig.url("admin/v1/databases")).body("x".repeat(10_000)).send().await.unwrap();
    assert_eq!(huge.status(), 413);
}

#[tokio::test]
async fn a_damaged_database_can_still_be_listed_and_deleted() {
    let rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let image = Image::new(4096, 5, 1);
    let base = rig.sync("app", DEVICE_A, None, image.body(None)).await.position();
    rig.sync("app", DEVICE_A, Some(base), image.with(&[(2, 9)]).body(Some(&image))).await.position();
    let newest = rig.store_path().join("app/ltx/0/0000000000000002-0000000000000002.ltx");
    #[allow(clippy::disallowed_methods)]
    std::fs::write(newest, b"torn").unwrap();
    let found = detail(&rig, "app").await.database;
    assert!(found.problem.unwrap().contains("ltx/0/0000000000000002"));
    assert_eq!(delete(&rig, "app").await.state, AdminState::Deleted);
    let store = rig.server.as_ref().unwrap().store();
    assert_eq!(list_databases(store).await.unwrap(), []);
    // The new database stays clear of the generation that the torn file may have begun.
    let event = detail(&rig, "app").await.events[0].clone();
    assert_eq!((event.generation, event.txid), (2, 2));
}
