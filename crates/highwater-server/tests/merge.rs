//! Two devices that changed real databases: the server merges, once, whatever gets lost on the way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    clippy::cast_possible_truncation
)]
mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{DEVICE_A, DEVICE_B, Image, Rig, Synced, synced};
use highwater_ltx::{DeviceId, Position, StateHash};
use highwater_server::{Config, Limits, MergeConfig, SnapshotPolicy, StoreUrl};
use highwater_wire::{
    BASE, CONFLICTS, ConflictKind, ConflictPage, DEVICE, ErrorCode, MERGE, MergePolicy, MergeRecord, PENDING,
    PENDING_DEVICE, POLICY,
};
use rusqlite::Connection;
use tempfile::TempDir;

const TABLES: &str = "
    CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT, stars INT);
    CREATE TABLE log(line TEXT);
    INSERT INTO notes VALUES (1, 'one', 0), (2, 'two', 0);
    INSERT INTO log VALUES ('begun');";

/// A database file that states are made with.
struct Files {
    folder: TempDir,
    count: u32,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), count: 0 }
    }

    /// The database after these statements, on top of a copy of an image.
    fn after(&mut self, from: &Image, sql: &str) -> Image {
        self.count += 1;
        let path = self.folder.path().join(format!("{}.db", self.count));
        if !from.pages.is_empty() {
            write(&path, from);
        }
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
        connection.close().unwrap();
        Image::of_file(&path)
    }

    /// What a query says on an image.
    fn ask(&mut self, image: &Image, sql: &str) -> Vec<String> {
        self.count += 1;
        let path = self.folder.path().join(format!("{}.db", self.count));
        write(&path, image);
        let connection = Connection::open(&path).unwrap();
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }
}

/// Writes an image as a file that plain SQLite opens and that has no write-ahead log.
fn write(path: &PathBuf, image: &Image) {
    let mut bytes = image.pages.concat();
    bytes[18..20].fill(1);
    std::fs::write(path, bytes).unwrap();
}

/// A sync request with everything that it can say.
async fn push(
    rig: &Rig,
    device: DeviceId,
    base: (Position, &Image),
    local: &Image,
    (pending, policy): (&[StateHash], Option<MergePolicy>),
) -> (Synced, BTreeMap<String, String>) {
    let body = if local == base.1 { Vec::new() } else { local.body(Some(base.1)) };
    let mut request = rig.client.post(rig.url("db/v1/sync")).header(DEVICE, device.to_string()).body(body);
    request = request.header(BASE, base.0.to_string());
    if !pending.is_empty() {
        let pending: Vec<String> = pending.iter().map(ToString::to_string).collect();
        request = request.header(PENDING, pending.join(","));
    }
    if let Some(policy) = policy {
        request = request.header(POLICY, policy.as_str());
    }
    let response = request.send().await.unwrap();
    let headers = [MERGE, CONFLICTS];
    let headers = headers.iter().filter_map(|name| {
        let value = response.headers().get(*name)?.to_str().unwrap();
        Some(((*name).to_owned(), value.to_owned()))
    });
    let headers = headers.collect();
    (synced(response).await, headers)
}

/// A server where both devices had the same base, and A wrote already.
async fn diverged(rig: &Rig, files: &mut Files, theirs: &str) -> (Position, Image) {
    let base = files.after(&Image::empty(), TABLES);
    let position = rig.sync("db", DEVICE_A, None, base.body(None)).await.position();
    let theirs = files.after(&base, theirs);
    rig.sync("db", DEVICE_A, Some(position), theirs.body(Some(&base))).await.position();
    (position, base)
}

const THEIRS: &str = "UPDATE notes SET text = 'theirs' WHERE id = 1; INSERT INTO log VALUES ('theirs')";
const OURS: &str = "UPDATE notes SET stars = 5 WHERE id = 1; INSERT INTO log VALUES ('ours')";
const ALL: &str =
    "SELECT id || ' ' || text || ' ' || stars FROM notes UNION ALL SELECT line FROM log ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn both_changes_are_in_the_head_and_the_answer_leads_there() {
    for small_body in [8 << 20, 0] {
        let limits = Limits { small_body, ..Limits::default() };
        let (rig, mut files) = (Rig::local(SnapshotPolicy::default(), limits), Files::new());
        let (position, base) = diverged(&rig, &mut files, THEIRS).await;
        let ours = files.after(&base, OURS);
        let (answer, headers) = push(&rig, DEVICE_B, (position, &base), &ours, (&[], None)).await;
        assert_eq!(
            (answer.outcome.as_str(), headers[MERGE].as_str(), headers[CONFLICTS].as_str()),
            ("merged", "3", "0")
        );
        let merged = ours.apply(&answer.body);
        assert_eq!(merged.state(), answer.position().state);
        assert_eq!(rig.snapshot("db/v1/snapshot").await, merged);
        assert_eq!(files.ask(&merged, ALL), ["1 theirs 5", "2 two 0", "begun", "ours", "theirs"]);
        assert_eq!(rig.json("db/v1/log").await["entries"].as_array().unwrap().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_answer_was_lost_is_merged_once() {
    let (mut rig, mut files) = (Rig::local(SnapshotPolicy::default(), Limits::default()), Files::new());
    let (position, base) = diverged(&rig, &mut files, THEIRS).await;
    let ours = files.after(&base, OURS);
    let (first, _) = push(&rig, DEVICE_B, (position, &base), &ours, (&[], None)).await;
    for again in 0..3 {
        let pending = [ours.state()];
        let (answer, headers) = push(&rig, DEVICE_B, (position, &base), &ours, (&pending, None)).await;
        assert_eq!((answer.txid, headers[MERGE].as_str(), &answer.body), (3, "3", &first.body), "{again}");
        rig.restart();
    }
    // Somebody else goes on meanwhile.
    let head = rig.snapshot("db/v1/snapshot").await;
    let on = files.after(&head, "INSERT INTO log VALUES ('on')");
    rig.sync("db", DEVICE_A, Some(first.position()), on.body(Some(&head))).await.position();
    let (answer, _) = push(&rig, DEVICE_B, (position, &base), &ours, (&[ours.state()], None)).await;
    assert_eq!((answer.outcome.as_str(), answer.txid), ("merged", 4));
    assert_eq!(ours.apply(&answer.body), on);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_since_a_lost_answer_is_all_that_is_merged_next() {
    let (rig, mut files) = (Rig::memory(), Files::new());
    // The ids collide, and the table without a key cannot tell its rows apart.
    let theirs = "INSERT INTO notes VALUES (3, 'theirs', 0); INSERT INTO log VALUES ('same')";
    let (position, base) = diverged(&rig, &mut files, theirs).await;
    let first =
        files.after(&base, "INSERT INTO notes VALUES (3, 'ours', 0); INSERT INTO log VALUES ('same')");
    push(&rig, DEVICE_B, (position, &base), &first, (&[], None)).await.0.position();
    let second =
        files.after(&first, "UPDATE notes SET stars = 9 WHERE id = 3; INSERT INTO log VALUES ('more')");
    let (answer, _) = push(&rig, DEVICE_B, (position, &base), &second, (&[first.state()], None)).await;
    assert_eq!(answer.outcome, "merged");
    let merged = second.apply(&answer.body);
    let expected = ["1 one 0", "2 two 0", "3 theirs 0", "4 ours 9", "begun", "more", "same", "same"];
    assert_eq!(files.ask(&merged, ALL), expected);
    // And once more, with both answers lost, and the whole taken back.
    let pending = [first.state(), second.state()];
    let (answer, _) = push(&rig, DEVICE_B, (position, &base), &base, (&pending, None)).await;
    let merged = base.apply(&answer.body);
    assert_eq!(files.ask(&merged, ALL), ["1 one 0", "2 two 0", "3 theirs 0", "begun", "same"]);
    // That answer gets lost too; and what was taken back is written again.
    let pending = [first.state(), second.state(), base.state()];
    let (answer, _) = push(&rig, DEVICE_B, (position, &base), &base, (&pending, None)).await;
    assert_eq!((answer.txid, base.apply(&answer.body)), (5, merged));
    let (answer, _) = push(&rig, DEVICE_B, (position, &base), &first, (&pending, None)).await;
    let merged = first.apply(&answer.body);
    let rows = files.ask(&merged, ALL);
    assert_eq!(rows.iter().filter(|row| row.ends_with("ours 0")).count(), 1, "{rows:?}");
    assert_eq!(rows.iter().filter(|row| *row == "same").count(), 2, "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_made_by_one_server_is_known_to_the_other() {
    let (rig, mut files) = (Rig::local(SnapshotPolicy::default(), Limits::default()), Files::new());
    let (position, base) = diverged(&rig, &mut files, THEIRS).await;
    let other = Rig::start(rig.config.clone(), None);
    // It has the database open before the merge.
    assert_eq!(other.sync("db", DEVICE_A, Some(position), Vec::new()).await.txid, 2);
    let ours = files.after(&base, OURS);
    let (first, _) = push(&rig, DEVICE_B, (position, &base), &ours, (&[], None)).await;
    let (second, _) = push(&other, DEVICE_B, (position, &base), &ours, (&[ours.state()], None)).await;
    assert_eq!((second.outcome.as_str(), second.txid, &second.body), ("merged", 3, &first.body));
    let more = files.after(&ours, "INSERT INTO log VALUES ('more')");
    let (answer, _) = push(&other, DEVICE_B, (position, &base), &more, (&[ours.state()], None)).await;
    let merged = more.apply(&answer.body);
    assert_eq!(files.ask(&merged, ALL), ["1 theirs 5", "2 two 0", "begun", "more", "ours", "theirs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_that_write_the_same_make_two_rows() {
    let (rig, mut files) = (Rig::memory(), Files::new());
    let base = files.after(&Image::empty(), TABLES);
    let position = rig.sync("db", DEVICE_A, None, base.body(None)).await.position();
    let both = files.after(&base, "INSERT INTO log VALUES ('milk'); INSERT INTO notes VALUES (3, 'milk', 0)");
    for (device, notes) in [(DEVICE_A, 1), (DEVICE_B, 2), (DeviceId(0xc << 64), 3), (DEVICE_B, 3)] {
        push(&rig, device, (position, &base), &both, (&[], None)).await.0.position();
        let head = rig.snapshot("db/v1/snapshot").await;
        let rows = files.ask(&head, ALL);
        let count = |row: &str| rows.iter().filter(|found| found.contains(row)).count();
        assert_eq!((count("milk 0"), count("milk")), (notes, 2 * notes), "{rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_became_another_device_is_known_by_the_one_that_it_was() {
    for sender in [DEVICE_B.to_string(), "*".to_owned()] {
        let (rig, mut files) = (Rig::memory(), Files::new());
        let (position, base) = diverged(&rig, &mut files, THEIRS).await;
        let ours = files.after(&base, OURS);
        push(&rig, DEVICE_B, (position, &base), &ours, (&[], None)).await.0.position();
        let request = rig.client.post(rig.url("db/v1/sync")).header(DEVICE, DeviceId(0xd << 64).to_string());
        let request = request.header(BASE, position.to_string()).header(PENDING, ours.state().to_string());
        let request = request.header(PENDING_DEVICE, &sender).body(ours.body(Some(&base)));
        let answer = synced(request.send().await.unwrap()).await;
        assert_eq!((answer.outcome.as_str(), answer.txid), ("merged", 3), "{sender}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_state_of_another_device_is_nobodys_base() {
    let (rig, mut files) = (Rig::memory(), Files::new());
    let (position, base) = diverged(&rig, &mut files, THEIRS).await;
    let ours = files.after(&base, OURS);
    push(&rig, DEVICE_B, (position, &base), &ours, (&[], None)).await.0.position();
    let third = files.after(&base, "INSERT INTO log VALUES ('third')");
    let device = DeviceId(0xc << 64);
    let (answer, _) = push(&rig, device, (position, &base), &third, (&[ours.state()], None)).await;
    let merged = third.apply(&answer.body);
    assert_eq!(files.ask(&merged, ALL), ["1 theirs 5", "2 two 0", "begun", "ours", "theirs", "third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_listed_until_somebody_has_seen_them() {
    let (mut rig, mut files) = (Rig::local(SnapshotPolicy::default(), Limits::default()), Files::new());
    let (position, base) = diverged(&rig, &mut files, THEIRS).await;
    let ours = files.after(&base, "UPDATE notes SET text = 'ours' WHERE id = 1");
    let (answer, headers) = push(&rig, DEVICE_B, (position, &base), &ours, (&[], None)).await;
    assert_eq!((answer.outcome.as_str(), headers[CONFLICTS].as_str()), ("merged", "1"));
    assert_eq!(files.ask(&ours.apply(&answer.body), ALL), ["1 ours 0", "2 two 0", "begun", "theirs"]);
    let list = async |rig: &Rig, query: &str| -> ConflictPage {
        serde_json::from_value(rig.json(&format!("db/v1/conflicts{query}")).await).unwrap()
    };
    for _ in 0..2 {
        let page = list(&rig, "").await;
        assert!(!page.more);
        let [merge] = page.merges.as_slice() else { panic!("{page:?}") };
        let [conflict] = merge.conflicts.as_slice() else { panic!("{merge:?}") };
        assert_eq!((conflict.kind, conflict.table.as_str()), (ConflictKind::Update, "notes"));
        assert_eq!(
            (merge.txid, merge.device.as_str(), merge.resolved),
            (3, DEVICE_B.to_string().as_str(), false)
        );
        assert_eq!(merge.local_state, ours.state().to_string());
        rig.restart();
    }
    let resolved = rig.client.post(rig.url("db/v1/conflicts/3/resolve")).send().await.unwrap();
    let resolved: MergeRecord = serde_json::from_slice(&resolved.bytes().await.unwrap()).unwrap();
    assert!(resolved.resolved);
    for _ in 0..2 {
        assert_eq!(list(&rig, "").await.merges, []);
        assert_eq!(list(&rig, "?all=1").await.merges.as_slice(), std::slice::from_ref(&resolved));
        rig.restart();
    }
    assert_eq!(list(&rig, "?all=1&after=3").await.merges, []);
    assert_eq!(rig.get("db/v1/conflicts/2").await.status(), 404);
    assert_eq!(rig.get("db/v1/conflicts/x").await.status(), 400);
    assert_eq!(rig.get("db/v1/conflicts/3/resolve").await.status(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_policy_to_fail_nothing_is_stored_and_the_rows_are_named() {
    for (small_body, configured) in [(8 << 20, false), (8 << 20, true), (0, false)] {
        let folder = tempfile::tempdir().unwrap();
        let databases =
            if configured { BTreeMap::from([("db".to_owned(), MergePolicy::Fail)]) } else { BTreeMap::new() };
        let config = Config {
            store: StoreUrl::Local(folder.path().to_owned()),
            limits: Limits { small_body, ..Limits::default() },
            merge: MergeConfig { policy: MergePolicy::FirstPushWins, databases },
            ..Config::default()
        };
        let (rig, mut files) = (Rig::start(config, Some(folder)), Files::new());
        let (position, base) = diverged(&rig, &mut files, THEIRS).await;
        let ours = files.after(&base, "UPDATE notes SET text = 'ours' WHERE id = 1");
        let before = objects(rig.store_path());
        let asked = (!configured).then_some(MergePolicy::Fail);
        let (answer, _) = push(&rig, DEVICE_B, (position, &base), &ours, (&[], asked)).await;
        let error = answer.error();
        assert_eq!((answer.status.as_u16(), error.code), (409, ErrorCode::Conflict));
        assert_eq!(error.conflicts.len(), 1);
        let detail = error.conflict.unwrap();
        assert_eq!((detail.both_tables, detail.devices.len()), (vec!["notes".to_owned()], 1));
        assert_eq!(objects(rig.store_path()), before);
        // What does not meet goes in under any policy.
        let apart = files.after(&base, OURS);
        let (answer, _) = push(&rig, DEVICE_B, (position, &base), &apart, (&[], asked)).await;
        assert_eq!(answer.outcome, "merged");
        // The request's word counts more than the configuration.
        let (answer, _) =
            push(&rig, DeviceId(9 << 64), (position, &base), &ours, (&[], Some(MergePolicy::LastPushWins)))
                .await;
        assert_eq!(files.ask(&ours.apply(&answer.body), "SELECT text FROM notes WHERE id = 1"), ["ours"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_database_is_not_merged_and_nothing_is_stored() {
    let rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let base = Image::new(4096, 4, 1);
    let position = rig.sync("db", DEVICE_A, None, base.body(None)).await.position();
    let theirs = base.with(&[(2, 5)]);
    rig.sync("db", DEVICE_A, Some(position), theirs.body(Some(&base))).await.position();
    let before = objects(rig.store_path());
    let ours = base.with(&[(3, 6)]);
    let (answer, _) = push(&rig, DEVICE_B, (position, &base), &ours, (&[], None)).await;
    let error = answer.error();
    assert_eq!((answer.status.as_u16(), error.code), (409, ErrorCode::CannotMerge));
    assert!(error.cannot_merge.is_some());
    assert_eq!(objects(rig.store_path()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_the_state_is_refused() {
    let (rig, mut files) = (Rig::memory(), Files::new());
    let (position, base) = diverged(&rig, &mut files, THEIRS).await;
    let ours = files.after(&base, OURS);
    let body = ours.body_of(false, &ours.delta(Some(&base)), StateHash(1));
    let answer = rig.sync("db", DEVICE_B, Some(position), body).await;
    assert_eq!(answer.error().code, ErrorCode::CorruptBody);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_devices_that_push_at_once_are_all_merged() {
    let (rig, mut files) = (Rig::memory(), Files::new());
    let base = files.after(&Image::empty(), TABLES);
    let position = rig.sync("db", DEVICE_A, None, base.body(None)).await.position();
    let locals: Vec<Image> = (0..50)
        .map(|i| files.after(&base, &format!("INSERT INTO notes(text, stars) VALUES ('by {i}', {i}); UPDATE notes SET stars = {i} WHERE id = 1")))
        .collect();
    let pushes =
        locals.iter().enumerate().map(|(i, local)| {
            let (rig, base) = (&rig, &base);
            async move {
                push(rig, DeviceId((i as u128 + 100) << 64), (position, base), local, (&[], None)).await.0
            }
        });
    let answers = futures::future::join_all(pushes).await;
    for (local, answer) in locals.iter().zip(&answers) {
        assert!(matches!(answer.outcome.as_str(), "merged" | "pushed"), "{answer:?}");
        if answer.outcome == "merged" {
            assert_eq!(local.apply(&answer.body).state(), answer.position().state);
        }
    }
    let head = rig.snapshot("db/v1/snapshot").await;
    assert_eq!(files.ask(&head, "SELECT count(DISTINCT text) || ' ' || count(*) FROM notes"), ["52 52"]);
}

/// The names of all files.
fn objects(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(objects(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_takes_too_long_or_too_much_is_refused_and_the_device_keeps_everything() {
    let short = Limits { merge_timeout: std::time::Duration::ZERO, ..Limits::default() };
    let small = Limits { merge_memory: 100_000, ..Limits::default() };
    for (limits, option) in [(short, "timeouts.merge"), (small, "limits.merge_memory")] {
        let (mut rig, mut files) = (Rig::local(SnapshotPolicy::default(), limits), Files::new());
        let (position, base) = diverged(&rig, &mut files, THEIRS).await;
        let many = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                    INSERT INTO log SELECT hex(randomblob(100)) FROM n";
        let ours = files.after(&base, many);
        let before = rig.snapshot("db/v1/snapshot").await;
        let (answer, _) = push(&rig, DEVICE_B, (position, &base), &ours, (&[], None)).await;
        let error = answer.error();
        assert_eq!((answer.status.as_u16(), error.code), (409, ErrorCode::CannotMerge), "{answer:?}");
        assert!(format!("{error:?}").contains(option), "{error:?}");
        assert!(rig.snapshot("db/v1/snapshot").await == before, "nothing was stored");
        // The operator raises it.
        rig.config.limits = Limits::default();
        rig.restart();
        let (answer, _) = push(&rig, DEVICE_B, (position, &base), &ours, (&[], None)).await;
        assert_eq!(answer.outcome, "merged");
        let merged = ours.apply(&answer.body);
        assert_eq!(files.ask(&merged, "SELECT count(*) || '' FROM log"), ["1002"]);
    }
}
