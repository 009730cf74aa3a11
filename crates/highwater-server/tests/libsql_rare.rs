//! Rare and hostile things that libSQL's protocol has to withstand: each test names what holds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation
)]

#[path = "common/child.rs"]
mod child;
mod common;
#[path = "libsql/client.rs"]
mod device;

use std::time::{Duration, Instant};

use common::{DEVICE_A, Image, Rig};
use device::{Device, FRAME, Failed, Frame, PAGE, commit_of, page_of};
use highwater_ltx::{PageSize, Position};
use highwater_server::{Config, LibsqlConfig, Limits, SnapshotPolicy, StoreUrl, verify_store};
use serde_json::json;

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)";

async fn device(rig: &Rig, db: &str) -> Device {
    Device::open(rig.url(db)).await
}

async fn with_notes(rig: &Rig, db: &str) -> Device {
    let mut device = device(rig, db).await;
    device.run(NOTES);
    device.sync().await.unwrap();
    device
}

async fn head(rig: &Rig, db: &str) -> Position {
    let info = rig.json(&format!("{db}/v1")).await;
    let head = &info["head"];
    let text = |name: &str| head[name].as_str().map_or_else(|| head[name].to_string(), str::to_owned);
    format!("{}/{}/{}", text("generation"), text("frame"), text("state")).parse().unwrap()
}

fn large(device: &Device, batches: usize) {
    device.run(&format!(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < {})
         INSERT INTO notes (text) SELECT hex(randomblob(1000)) FROM n",
        batches * 256
    ));
}

/// A frame with its commit size changed.
fn sized(mut frame: Frame, commit: u32) -> Frame {
    frame[4..8].copy_from_slice(&commit.to_be_bytes());
    frame
}

fn image_of(device: &Device) -> Image {
    let pages = device.image().chunks(PAGE).map(<[u8]>::to_vec).collect();
    Image { size: PageSize::new(4096).unwrap(), pages }
}

/// One frame cannot cost the server time and memory in proportion to a number in it.
#[tokio::test]
async fn a_frame_that_announces_a_giant_database_is_refused_at_once() {
    let rig = Rig::memory();
    let a = with_notes(&rig, "app").await;
    a.run("INSERT INTO notes (text) VALUES ('x')");
    let frame = a.frames().last().unwrap().clone();
    let before = rss();
    let began = Instant::now();
    // With 4294967295 here the process would be killed for its memory.
    let (status, answer) = a.post((1, a.durable + 1), &[sized(frame, 2_000_000)], None).await;
    let (took, grew) = (began.elapsed(), peak().saturating_sub(before));
    eprintln!("{status} {answer} after {took:?}, memory grew by {grew} MiB at most");
    assert!(grew < 100 && took < Duration::from_millis(300), "{grew} MiB, {took:?}");
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn rss() -> u64 {
    status("VmRSS:")
}

fn peak() -> u64 {
    status("VmHWM:")
}

/// A page of zeros that the client really wrote (the end of a zeroblob) must reach those who had something
/// else at that page before the database shrank.
#[tokio::test]
async fn a_page_of_zeros_that_was_written_is_served() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    large(&a, 2);
    a.sync().await.unwrap();
    let b_before = a.image();
    let b_at = a.durable;
    a.run("DELETE FROM notes; VACUUM");
    a.sync().await.unwrap();
    let small = a.image().len() / PAGE;
    let start = a.durable + 1;
    a.run("BEGIN; INSERT INTO notes (id, text) VALUES (1, zeroblob(40000))");
    large(&a, 2);
    a.run("DELETE FROM notes WHERE id > 1; COMMIT");
    let all = a.frames()[a.durable as usize - a.offset as usize..].to_vec();
    let free = free_leaves(&a.image());
    // SQLite leaves out what is free at the commit, where it can.
    let unwritten = free.iter().filter(|page| !all.iter().any(|frame| page_of(frame) == **page)).count();
    eprintln!("{} free pages, {unwritten} of them without a frame", free.len());
    let size = commit_of(all.last().unwrap());
    let mut sent: Vec<Frame> = all.into_iter().filter(|frame| !free.contains(&page_of(frame))).collect();
    let last = sent.len() - 1;
    sent[last] = sized(sent[last].clone(), size);
    let (_, answer) = a.post((1, start), &sent, None).await;
    assert_eq!(answer["max_frame_no"], start + sent.len() as u64 - 1, "{answer}");
    let zeros: Vec<u32> = sent
        .iter()
        .filter(|frame| frame[24..].iter().all(|byte| *byte == 0))
        .map(page_of)
        .filter(|page| *page as usize > small)
        .collect();
    assert!(!zeros.is_empty());
    // Who had the large database reads, in SQLite, what it has of that page: its log is searched for the
    // newest frame of the page, whatever commits between said of the size.
    let mut had: Vec<Vec<u8>> = b_before.chunks(PAGE).map(<[u8]>::to_vec).collect();
    let mut at = b_at + 1;
    let mut served = Vec::new();
    while let Ok(frames) = a.get(1, at).await {
        at += frames.len() as u64;
        served.extend(frames);
    }
    for frame in &served {
        let page = page_of(frame) as usize;
        had.resize(had.len().max(page), vec![0; PAGE]);
        had[page - 1] = frame[24..].to_vec();
    }
    let wrong: Vec<_> =
        zeros.iter().filter(|page| had[**page as usize - 1].iter().any(|b| *b != 0)).collect();
    assert!(wrong.is_empty(), "pages {wrong:?} were written as zeros and are something else at who pulls");
}

/// The same, read by SQLite: who has the large database in its file has the frames since in its log.
#[tokio::test]
async fn a_zeroblob_is_read_back_by_sqlite() {
    zeroblob(true).await;
}

/// As above, with a frame for every page.
#[tokio::test]
async fn a_zeroblob_with_all_frames_is_read_back_by_sqlite() {
    zeroblob(false).await;
}

async fn zeroblob(unwritten: bool) {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    large(&a, 2);
    a.sync().await.unwrap();
    let (large_image, large_at) = (a.image(), a.durable);
    a.run("DELETE FROM notes; VACUUM");
    a.sync().await.unwrap();
    let start = a.durable + 1;
    a.run("BEGIN; INSERT INTO notes (id, text) VALUES (1, zeroblob(40000))");
    large(&a, 2);
    a.run("DELETE FROM notes WHERE id > 1; COMMIT");
    let all = a.frames()[a.durable as usize..].to_vec();
    let (free, size) = (free_leaves(&a.image()), commit_of(all.last().unwrap()));
    let mut sent: Vec<Frame> =
        all.into_iter().filter(|frame| !unwritten || !free.contains(&page_of(frame))).collect();
    let last = sent.len() - 1;
    sent[last] = sized(sent[last].clone(), size);
    let (_, answer) = a.post((1, start), &sent, None).await;
    assert_eq!(answer["max_frame_no"], start + sent.len() as u64 - 1, "{answer}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pulled.db");
    std::fs::write(&path, large_image).unwrap();
    let mut frames = Vec::new();
    while let Ok(more) = a.get(1, large_at + frames.len() as u64 + 1).await {
        frames.extend(more);
    }
    std::fs::write(path.with_extension("db-wal"), wal(&frames)).unwrap();
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    let check: String = sqlite.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    let zero: bool = sqlite
        .query_row("SELECT text = zeroblob(40000) FROM notes WHERE id = 1", [], |row| row.get(0))
        .unwrap();
    assert!(zero && check == "ok", "the blob of zeros is right: {zero}; integrity_check: {check}");
}

/// A write-ahead log of these frames.
fn wal(frames: &[Frame]) -> Vec<u8> {
    fn sum(bytes: &[u8], (mut a, mut b): (u32, u32)) -> (u32, u32) {
        for pair in bytes.chunks_exact(8) {
            let word = |at: usize| u32::from_be_bytes(pair[at..at + 4].try_into().unwrap());
            a = a.wrapping_add(word(0)).wrapping_add(b);
            b = b.wrapping_add(word(4)).wrapping_add(a);
        }
        (a, b)
    }
    let mut log = Vec::new();
    for word in [0x377f_0683_u32, 3_007_000, 4096, 0, 7, 9] {
        log.extend_from_slice(&word.to_be_bytes());
    }
    let mut sums = sum(&log, (0, 0));
    log.extend_from_slice(&[sums.0.to_be_bytes(), sums.1.to_be_bytes()].concat());
    for frame in frames {
        sums = sum(&frame[..8], sums);
        sums = sum(&frame[24..], sums);
        log.extend_from_slice(&frame[..8]);
        for word in [7, 9, sums.0, sums.1] {
            log.extend_from_slice(&word.to_be_bytes());
        }
        log.extend_from_slice(&frame[24..]);
    }
    log
}

fn free_leaves(image: &[u8]) -> Vec<u32> {
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
    let (mut leaves, mut trunk) = (Vec::new(), number(32) as usize);
    while trunk > 0 {
        let at = (trunk - 1) * PAGE;
        leaves.extend((0..number(at + 4) as usize).map(|leaf| number(at + 8 + leaf * 4)));
        trunk = number(at) as usize;
    }
    leaves
}

/// The first push of a later generation, equal to what a client of another history did first, proves nothing
/// about the rest of the database.
#[tokio::test]
async fn the_first_push_of_a_later_generation_does_not_prove_a_client() {
    let config = Config {
        store: StoreUrl::Memory,
        snapshot: SnapshotPolicy { max_files: 3, outweigh: false },
        libsql: LibsqlConfig { quiet_period: Duration::ZERO, ..LibsqlConfig::default() },
        ..Config::default()
    };
    let rig = Rig::start(config, None);
    let mut a = device(&rig, "app").await;
    a.run("CREATE TABLE flag (v); INSERT INTO flag VALUES (2); CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT);
           INSERT INTO notes VALUES (1, 'bbbb')");
    a.sync().await.unwrap();
    // What the client of a later, lost part of the history has in its file.
    let lost = a.image();
    a.run("UPDATE notes SET text = 'aaaa'");
    a.sync().await.unwrap();
    let mut value = 10;
    while head(&rig, "app").await.generation.0 == 1 {
        value += 1;
        let base = head(&rig, "app").await;
        let before = rig.snapshot("app/v1/snapshot").await;
        let d = device(&rig, "app").await;
        d.run(&format!("UPDATE flag SET v = {value}"));
        rig.sync("app", DEVICE_A, Some(base), image_of(&d).body(Some(&before))).await.position();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The store was restored from a backup; this client was at a generation that is no more.
    let mut c = device(&rig, "app").await;
    c.sqlite = None;
    std::fs::write(&c.path, &lost).unwrap();
    (c.generation, c.durable, c.offset) = (7, 0, 0);
    let sqlite = rusqlite::Connection::open(&c.path).unwrap();
    sqlite.pragma_update(None, "journal_mode", "wal").unwrap();
    sqlite.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    c.sqlite = Some(sqlite);
    c.run(&format!("UPDATE flag SET v = {value}"));
    c.run("INSERT INTO notes VALUES (2, 'of c')");
    let before = head(&rig, "app").await;
    let result = c.sync().await;
    let other = device(&rig, "app").await;
    let rows = other.text("SELECT group_concat(text) FROM notes");
    eprintln!("{result:?}, now {}; notes at the others: {rows}", head(&rig, "app").await.place());
    assert!(rows.starts_with("aaaa"), "a row that was committed at the server turned into {rows}");
    assert_eq!((result, head(&rig, "app").await), (Err(Failed::Conflict), before));
}

/// A database that is made anew under its name must not take the frames of clients of the old one.
#[tokio::test]
async fn numbers_of_a_database_that_was_replaced_mean_nothing_in_the_new_one() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "old").await;
    let mut b = with_notes(&rig, "new").await;
    for text in ["one", "two"] {
        a.run(&format!("INSERT INTO notes (text) VALUES ('{text} of a')"));
        b.run(&format!("INSERT INTO notes (text) VALUES ('{text} of b')"));
    }
    a.sync().await.unwrap();
    b.sync().await.unwrap();
    assert_eq!(a.durable, b.durable);
    // The server's store was lost and others made the database again.
    a.url = rig.url("new");
    a.run("INSERT INTO notes (text) VALUES ('three of a')");
    let result = a.sync().await;
    let c = device(&rig, "new").await;
    let rows = c.text("SELECT group_concat(text) FROM notes");
    eprintln!("{result:?}: {rows}");
    assert!(rows.starts_with("one of b,two of b"), "what b committed is now: {rows}");
}

/// The `libsql` crate has a setting for the size of a batch. A client that is asked for its whole log must
/// be recognised with any.
#[tokio::test]
async fn a_whole_log_is_recognised_in_batches_of_any_size() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    for text in 0..40 {
        a.run(&format!("INSERT INTO notes (text) VALUES ('{text}')"));
    }
    a.sync().await.unwrap();
    a.run("INSERT INTO notes (text) VALUES ('new')");
    let frames = a.frames();
    let mut failed = Vec::new();
    for size in [1, 2, 10, 64, 127, 128, 129, 1000] {
        let (mut at, mut baton) = (0, Some("again".to_owned()));
        while at < frames.len() {
            let batch = &frames[at..frames.len().min(at + size)];
            let (_, answer) = a.post((1, at as u64 + 1), batch, baton.as_deref()).await;
            at += batch.len();
            if (&answer["status"], &answer["max_frame_no"]) != (&json!("ok"), &json!(at)) {
                failed.push((size, at, answer["status"].clone()));
                break;
            }
            baton = Some(answer["baton"].as_str().unwrap().to_owned());
        }
    }
    assert!(failed.is_empty(), "of {} frames, with batches of, at: {failed:?}", frames.len());
}

/// Two servers of one store behind a balancer.
#[tokio::test]
async fn the_batches_of_a_sync_may_go_to_two_servers() {
    let one = Rig::local(SnapshotPolicy::default(), Limits::default());
    let two = Rig::start(one.config.clone(), None);
    let mut a = with_notes(&one, "app").await;
    large(&a, 4);
    let (frames, start) = (a.frames()[a.durable as usize..].to_vec(), a.durable + 1);
    let (mut at, mut baton, mut turn) = (0, None::<String>, 0);
    while at < frames.len() {
        let batch = &frames[at..frames.len().min(at + 128)];
        a.url = [&one, &two][turn % 2].url("app");
        turn += 1;
        let (_, answer) = a.post((1, start + at as u64), batch, baton.as_deref()).await;
        at += batch.len();
        assert_eq!(answer["max_frame_no"], start + at as u64 - 1, "batch {turn}: {answer}");
        baton = Some(answer["baton"].as_str().unwrap().to_owned());
    }
    assert_eq!(two.snapshot("app/v1/snapshot").await.pages.concat(), a.image());
}

/// A client asks for no 500 again.
#[tokio::test]
async fn a_pull_is_never_answered_500() {
    let rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let a = with_notes(&rig, "app").await;
    let file = rig.store_path().join("app/ltx/0/0000000000000001-0000000000000001.ltx");
    std::fs::write(&file, b"gone").unwrap();
    let mut rig = rig;
    rig.restart();
    for path in ["app/sync/1/1/129", "app/export/1", "app/info"] {
        let status = rig.get(path).await.status().as_u16();
        assert_ne!(status, 500, "{path} after a restart");
    }
    drop(a);
}

/// Of an older part of the history only a snapshot is left.
#[tokio::test]
async fn a_store_that_begins_with_a_snapshot_can_be_opened() {
    let mut rig = Rig::local(SnapshotPolicy { max_files: 3, outweigh: false }, Limits::default());
    let mut a = with_notes(&rig, "app").await;
    for text in 0..8 {
        a.run(&format!("INSERT INTO notes (text) VALUES ('{text}')"));
        a.sync().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let snapshots = rig.store_path().join("app/ltx/9");
    let mut names: Vec<_> = std::fs::read_dir(&snapshots)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let newest = names.last().unwrap()[17..33].to_owned();
    for file in std::fs::read_dir(rig.store_path().join("app/ltx/0")).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_str().unwrap()[..16] <= *newest {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    rig.restart();
    let info = rig.json("app/info").await;
    let generation = info["current_generation"].as_u64().unwrap();
    let export = rig.get(&format!("app/export/{generation}")).await;
    let status = export.status().as_u16();
    assert_eq!(status, 200, "export of the generation that `info` names: {}", export.text().await.unwrap());
}

/// The same batch twice at the same moment, at each step.
#[tokio::test]
async fn the_same_batch_twice_at_once() {
    let rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut a = with_notes(&rig, "app").await;
    for round in 0..5 {
        large(&a, 2);
        a.run("INSERT INTO notes (text) VALUES ('x')");
        let (frames, start) = (a.frames()[a.durable as usize..].to_vec(), a.durable + 1);
        let (mut at, mut baton) = (0, None::<String>);
        while at < frames.len() {
            let batch = &frames[at..frames.len().min(at + 128)];
            let place = (1, start + at as u64);
            let (one, two, three) = tokio::join!(
                a.post(place, batch, baton.as_deref()),
                a.post(place, batch, baton.as_deref()),
                a.post(place, batch, baton.as_deref())
            );
            at += batch.len();
            for (status, answer) in [&one, &two, &three] {
                assert_eq!(status.as_u16(), 200, "{answer}");
                assert_eq!(answer["max_frame_no"], start + at as u64 - 1, "{round} {answer}");
            }
            baton = Some(two.1["baton"].as_str().unwrap().to_owned());
        }
        a.durable = a.last();
        assert_eq!(head(&rig, "app").await.frame.0, a.last());
        assert_eq!(rig.snapshot("app/v1/snapshot").await.pages.concat(), a.image());
    }
}

/// A native push rolls the generation while a libSQL client has frames that wait.
#[tokio::test]
async fn frames_that_wait_while_the_generation_changes_are_merged() {
    let config = Config {
        store: StoreUrl::Memory,
        snapshot: SnapshotPolicy { max_files: 3, outweigh: false },
        libsql: LibsqlConfig { quiet_period: Duration::ZERO, ..LibsqlConfig::default() },
        ..Config::default()
    };
    let rig = Rig::start(config, None);
    let mut a = with_notes(&rig, "app").await;
    let start = a.durable + 1;
    large(&a, 2);
    let frames = a.frames()[a.durable as usize..].to_vec();
    let (_, answer) = a.post((1, start), &frames[..128], None).await;
    let baton = answer["baton"].as_str().unwrap().to_owned();
    while head(&rig, "app").await.generation.0 == 1 {
        let base = head(&rig, "app").await;
        let before = rig.snapshot("app/v1/snapshot").await;
        let d = device(&rig, "app").await;
        d.run("INSERT INTO notes (text) VALUES ('native')");
        rig.sync("app", DEVICE_A, Some(base), image_of(&d).body(Some(&before))).await.position();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, answer) = a.post((1, start + 128), &frames[128..], Some(&baton)).await;
    assert_eq!((&answer["status"], &answer["max_frame_no"]), (&json!("ok"), &json!(a.last())));
    (a.generation, a.durable) = (answer["generation"].as_u64().unwrap() as u32, a.last());
    a.sync().await.unwrap();
    a.check();
    assert_ne!(a.text("SELECT count(*) FROM notes WHERE text = 'native'"), "0");
    assert_eq!(a.text("SELECT count(*) FROM notes WHERE text <> 'native'"), "512");
    // A client at the beginning of the new generation, and one at the end of the old one, go on.
    let mut b = device(&rig, "app").await;
    b.run("INSERT INTO notes (text) VALUES ('of b')");
    b.sync().await.unwrap();
    device(&rig, "app").await.check();
}

/// Frames more than pages, pages more than frames, shrinking: what the store says stays readable elsewhere.
#[tokio::test]
async fn litestream_restores_what_libsql_clients_pushed() {
    let Some(binary) = std::env::var_os("HIGHWATER_LITESTREAM") else { return };
    let mut rig = Rig::local(
        SnapshotPolicy { max_files: 5, outweigh: true },
        Limits { small_body: 300_000, ..Limits::default() },
    );
    let mut a = with_notes(&rig, "app").await;
    let mut images = Vec::new();
    for round in 0..9 {
        match round % 3 {
            0 => {
                for _ in 0..50 {
                    a.run("INSERT INTO notes (text) VALUES (hex(randomblob(50)))");
                }
            }
            1 => {
                a.run("BEGIN");
                large(&a, 2);
                a.run("DELETE FROM notes WHERE id > 40; COMMIT");
            }
            _ => a.run("DELETE FROM notes WHERE id % 2 = 1; VACUUM; PRAGMA user_version = 5"),
        }
        a.sync().await.unwrap();
        images.push((rig.json("app/v1").await["txid"].clone(), a.image()));
    }
    // And one with more pages than frames.
    a.run("BEGIN");
    large(&a, 2);
    a.run("DELETE FROM notes WHERE id > 3; COMMIT");
    let all = a.frames()[a.durable as usize..].to_vec();
    let (free, size) = (free_leaves(&a.image()), commit_of(all.last().unwrap()));
    let mut sent: Vec<Frame> = all.into_iter().filter(|frame| !free.contains(&page_of(frame))).collect();
    let last = sent.len() - 1;
    sent[last] = sized(sent[last].clone(), size);
    let (_, answer) = a.post((1, a.durable + 1), &sent, None).await;
    assert_eq!(answer["max_frame_no"], a.durable + sent.len() as u64, "{answer}");
    rig.restart();
    let a = device(&rig, "app").await;
    a.check();
    let report =
        verify_store(&highwater_server::Store::open(&rig.config.store).unwrap(), |_| ()).await.unwrap();
    assert!(report.is_ok(), "{report:?}");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("restored.db");
    let output = std::process::Command::new(&binary)
        .args(["restore", "-integrity-check", "full", "-o"])
        .arg(&out)
        .arg(format!("file://{}", rig.store_path().join("app").display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Pages that no frame had are free ones: a client has zeros there, the server its filling.
    let served = rig.snapshot("app/v1/snapshot").await;
    assert!(Image::of_file(&out) == served, "litestream restores what the server has");
    assert_eq!(FRAME, PAGE + 24);
}

/// Another program put the client's log into its file: the frames that follow have the numbers of others.
#[tokio::test]
async fn frames_after_a_foreign_checkpoint_do_not_spoil_the_head() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    for _ in 0..20 {
        a.run("INSERT INTO notes (text) VALUES (hex(randomblob(1000)))");
    }
    a.sync().await.unwrap();
    let frames = a.frames().len();
    a.run("PRAGMA wal_checkpoint(TRUNCATE)");
    a.run("UPDATE notes SET text = 'mine' WHERE id = 1");
    while a.frames().len() <= frames + 1 {
        a.run("UPDATE notes SET text = hex(randomblob(1000)) WHERE id = 20");
    }
    let result = a.sync().await;
    let b = device(&rig, "app").await;
    b.check();
    let text = b.text("SELECT substr(text, 1, 4) FROM notes WHERE id = 1");
    assert!(
        result.is_err() || text == "mine",
        "{result:?}, and the row that was committed first is {text} at the others"
    );
}

/// A transaction that changed nothing is no reason for a conflict of a native client.
#[tokio::test]
async fn a_push_that_changes_nothing_leaves_native_clients_at_the_head() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    a.run("INSERT INTO notes (text) VALUES ('one')");
    a.sync().await.unwrap();
    let base = head(&rig, "app").await;
    let image = rig.snapshot("app/v1/snapshot").await;
    a.run("BEGIN; UPDATE notes SET text = 'two'; UPDATE notes SET text = 'one'; COMMIT");
    a.sync().await.unwrap();
    let now = head(&rig, "app").await;
    assert_eq!(now.state, base.state, "nothing changed");
    assert!(now.frame > base.frame);
    let after = image.with(&[(2, 9)]);
    let pushed = rig.sync("app", DEVICE_A, Some(base), after.body(Some(&image))).await;
    assert!(pushed.status.is_success(), "{pushed:?}");
}

/// A client that ends within a push (its files come from a backup) cannot be told from one that wrote something
/// else there: it gets an error from one of its next two syncs, never the rows of others over its own.
async fn within_a_push(size: usize, restarted: bool) -> (bool, u16) {
    let mut rig = Rig::local(SnapshotPolicy::default(), Limits::default());
    let mut a = device(&rig, "app").await;
    a.run(NOTES);
    while a.frames().len() < size {
        a.run("INSERT INTO notes (text) VALUES ('x')");
    }
    let backup = a.frames()[..size].to_vec();
    assert!(commit_of(&backup[size - 1]) > 0);
    a.run("INSERT INTO notes (text) VALUES ('y')");
    a.run("INSERT INTO notes (text) VALUES ('z')");
    let (_, answer) = a.post((1, 1), &a.frames(), None).await;
    assert_eq!(answer["status"], "ok");
    a.durable = a.last();
    if restarted {
        rig.restart();
        a.url = rig.url("app");
    }
    let (_, answer) = a.post((1, 1), &backup, None).await;
    let generation = answer["generation"].as_u64().unwrap() as u32;
    let pulled = a.get(generation, answer["max_frame_no"].as_u64().unwrap() + 1).await;
    (answer["status"] == "ok", pulled.map_or_else(|(status, _)| status, |_| 200))
}

#[tokio::test]
async fn a_client_within_a_push_is_told() {
    for restarted in [false, true] {
        assert!(!within_a_push(60, restarted).await.0);
        assert_eq!(within_a_push(128, restarted).await, (true, 410));
    }
}

#[test]
fn serve_for_a_test() {
    child::serve_if_child();
}

const ENV: &[(&str, &str)] = &[("HIGHWATER_TEST_SMALL_BODY", "900000"), ("HIGHWATER_TEST_MAX_FILES", "3")];

/// Pushes what is new; false when the server went away.
async fn push_through(device: &mut Device, url: &str) -> bool {
    let (frames, generation, mut durable, mut baton) =
        (device.frames(), device.generation, device.durable, String::new());
    let mut again = false;
    while (durable as usize) < frames.len() {
        let batch = &frames[durable as usize..frames.len().min(durable as usize + 128)];
        let end = durable + batch.len() as u64;
        let to = format!("{url}/app/sync/{generation}/{}/{}{baton}", durable + 1, end + 1);
        let Ok(response) = device.http.post(to).body(batch.concat()).send().await else { return false };
        let status = response.status();
        let Ok(body) = response.bytes().await else { return false };
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.as_u16(), &answer["status"]), (200, &json!("ok")), "{answer}");
        durable = answer["max_frame_no"].as_u64().unwrap();
        baton = format!("/{}", answer["baton"].as_str().unwrap());
        if durable < end {
            assert!(!again, "asked twice: {answer}");
            (again, baton) = (true, String::new());
        }
    }
    device.durable = durable;
    true
}

async fn fresh(folder: &std::path::Path) -> Device {
    let server = child::ChildServer::start("serve_for_a_test", folder, ENV).unwrap();
    Device::open(format!("{}/app", server.url)).await
}

fn write(device: &Device, round: usize) {
    match round % 4 {
        0 => device.run(&format!(
            "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT); CREATE TABLE IF NOT EXISTS t{round} (a)"
        )),
        1 => large(device, 2),
        2 => device.run("DELETE FROM notes WHERE id % 3 = 1; INSERT INTO notes (text) VALUES ('x')"),
        _ => (0..60).for_each(|_| device.run("INSERT INTO notes (text) VALUES (hex(randomblob(400)))")),
    }
}

async fn ends_well(device: &mut Device, folder: &std::path::Path) {
    let server = child::ChildServer::start("serve_for_a_test", folder, ENV).unwrap();
    assert!(push_through(device, &server.url).await);
    let b = Device::open(format!("{}/app", server.url)).await;
    b.check();
    assert_eq!(b.image(), device.image());
    assert_eq!(b.durable, device.last());
    server.kill();
    let store = highwater_server::Store::open(&StoreUrl::Local(folder.to_owned())).unwrap();
    let report = verify_store(&store, |_| {}).await.unwrap();
    assert!(report.is_ok(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_a_push_of_frames_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("passed");
    let mut points = std::collections::BTreeMap::<String, u32>::new();
    let mut kills = vec![("HIGHWATER_KILL_LOG", log.to_str().unwrap().to_owned())];
    let mut number = 0;
    while let Some(kill) = kills.pop() {
        number += 1;
        let store = folder.path().join(number.to_string());
        let mut device = fresh(&store).await;
        let env: Vec<_> = ENV.iter().copied().chain([(kill.0, kill.1.as_str())]).collect();
        if let Some(server) = child::ChildServer::start("serve_for_a_test", &store, &env) {
            for round in 0..8 {
                write(&device, round);
                if !push_through(&mut device, &server.url).await {
                    break;
                }
            }
        }
        ends_well(&mut device, &store).await;
        if points.is_empty() {
            for name in std::fs::read_to_string(&log).unwrap().lines() {
                *points.entry(name.to_owned()).or_default() += 1;
            }
            for name in ["server-libsql-before-stage", "server-libsql-staged", "server-libsql-before-append"]
            {
                assert!(points.contains_key(name), "nothing passes {name}");
            }
            for (name, times) in &points {
                for at in std::collections::BTreeSet::from([1, times.div_ceil(2), *times]) {
                    kills.push(("HIGHWATER_KILL_AT", format!("{name}:{at}")));
                }
            }
            eprintln!("{points:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_frames_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut device = fresh(folder.path()).await;
    let mut random = common::Random(5);
    for round in 0..25 {
        let server = child::ChildServer::start("serve_for_a_test", folder.path(), ENV).unwrap();
        let url = server.url.clone();
        let wait = Duration::from_micros(u64::from(random.next() % 60_000));
        let killer = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            server.kill();
        });
        let mut step = round;
        while push_through(&mut device, &url).await {
            write(&device, step % 4);
            step += 1;
        }
        killer.await.unwrap();
    }
    ends_well(&mut device, folder.path()).await;
}

/// The released client, asked for its whole log in the middle of a sync, begins again with the generation of
/// its last batch (that of the branch) and without a baton.
#[tokio::test]
async fn a_client_that_knows_only_a_branch_can_send_its_whole_log() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    large(&a, 4);
    let frames = a.frames();
    let start = a.durable + 1;
    let (_, answer) = a.post((1, start), &frames[a.durable as usize..][..128], None).await;
    let branch = answer["generation"].as_u64().unwrap() as u32;
    // Whatever led to `max_frame_no` 0 (here: a baton that is none), this is what comes then.
    let place = (branch, start + 128);
    let (_, answer) = a.post(place, &frames[a.durable as usize + 128..][..128], Some("junk")).await;
    assert_eq!(answer["max_frame_no"], 0);
    let (_, answer) = a.post((branch, 1), &frames[..128], None).await;
    assert_eq!((&answer["status"], &answer["max_frame_no"]), (&json!("ok"), &json!(128)), "{answer}");
    a.durable = 0;
}

/// The same with two servers: the client, as it is, is stuck until it is started again.
#[tokio::test]
async fn a_released_client_gets_through_two_servers() {
    let one = Rig::local(SnapshotPolicy::default(), Limits::default());
    let two = Rig::start(one.config.clone(), None);
    let mut a = with_notes(&one, "app").await;
    large(&a, 4);
    let frames = a.frames();
    let (mut generation, mut durable, mut turn) = (1, a.durable, 0);
    // Five syncs, of two attempts each.
    'attempts: for attempt in 0..10 {
        let (of_sync, mut baton) = (generation, None::<String>);
        while (durable as usize) < frames.len() {
            // Later the balancer keeps to one server.
            a.url = if attempt < 1 { [&one, &two][turn % 2].url("app") } else { two.url("app") };
            turn += 1;
            let batch = &frames[durable as usize..frames.len().min(durable as usize + 128)];
            let (status, answer) = a.post((of_sync, durable + 1), batch, baton.as_deref()).await;
            assert_eq!((status.as_u16(), &answer["status"]), (200, &json!("ok")), "{answer}");
            let max = answer["max_frame_no"].as_u64().unwrap();
            eprintln!("attempt {attempt}: {of_sync}/{} -> {answer}", durable + 1);
            let low = max < durable + batch.len() as u64;
            durable = max;
            if low {
                continue 'attempts;
            }
            generation = answer["generation"].as_u64().unwrap() as u32;
            baton = Some(answer["baton"].as_str().unwrap().to_owned());
        }
        break;
    }
    assert_eq!((generation, durable), (1, a.last()), "five syncs did not get through");
}

/// A write-ahead log takes a page once within a transaction: SQLite writes the second image over the first.
/// The released clients (seen with PyPI `libsql` 0.1.11) then have fewer frames than they count, and do not
/// push what they write next.
#[tokio::test]
async fn a_page_comes_once_in_a_transaction_that_is_served() {
    let rig = Rig::memory();
    let mut a = with_notes(&rig, "app").await;
    let start = a.durable + 1;
    for text in ["one", "two", "three"] {
        a.run(&format!("INSERT INTO notes (text) VALUES ('{text}')"));
    }
    a.sync().await.unwrap();
    let served = a.get(1, start).await.unwrap();
    let mut pages = std::collections::BTreeSet::new();
    for frame in &served {
        let heads: Vec<_> = served.iter().map(|frame| (page_of(frame), commit_of(frame))).collect();
        assert!(pages.insert(page_of(frame)), "page {} comes again: {heads:?}", page_of(frame));
        if commit_of(frame) > 0 {
            pages.clear();
        }
    }
}
