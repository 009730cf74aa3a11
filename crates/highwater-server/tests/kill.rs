//! The server killed at every named step: it starts again with everything that it acknowledged, and
//! the client carries on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    clippy::cast_possible_truncation
)]
#[path = "common/child.rs"]
mod child;
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use child::ChildServer;
use common::{DEVICE_A, Image, Random};
use highwater_ltx::Position;
use highwater_server::{Store, StoreUrl, verify_store};
use highwater_wire::{BASE, DEVICE};
use reqwest::Client;

/// Small enough that some pushes are streamed, some not; a snapshot every third push.
const ENV: &[(&str, &str)] = &[("HIGHWATER_TEST_SMALL_BODY", "9000"), ("HIGHWATER_TEST_MAX_FILES", "3")];

/// One test at a time: the port of a killed server may become another server's.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[test]
fn serve_for_a_test() {
    child::serve_if_child();
}

/// A client: what it has, and where it knows to be.
struct Device {
    client: Client,
    image: Image,
    /// The image at the base.
    synced: Option<(Position, Image)>,
    random: Random,
    /// Whether its last sync was not answered.
    unanswered: bool,
}

impl Device {
    fn new() -> Self {
        let (client, image) = (Client::new(), Image::new(512, 10, 1));
        Self { client, image, synced: None, random: Random(3), unanswered: false }
    }

    /// Changes a few pages, or many.
    fn write(&mut self) {
        let many = self.random.next().is_multiple_of(2);
        for _ in 0..if many { 40 } else { 3 } {
            let page = 1 + self.random.next() % (self.image.count().0 + 1);
            self.image.set(page, 0);
            let random = &mut self.random;
            random.fill(&mut self.image.pages[page as usize - 1][300..]);
        }
    }

    /// Whether the server answered.
    async fn sync(&mut self, url: &str) -> bool {
        let (base, before) = self.synced.as_ref().map(|(base, image)| (*base, image)).unzip();
        let mut request = self.client.post(format!("{url}/db/v1/sync")).header(DEVICE, DEVICE_A.to_string());
        if let Some(base) = base {
            request = request.header(BASE, base.to_string());
        }
        let changed = before.is_none_or(|before| *before != self.image);
        let body = if changed { self.image.body(before) } else { Vec::new() };
        let Ok(response) = request.body(body).send().await else {
            self.unanswered = true;
            return false;
        };
        let synced = common::synced(response).await;
        let expected: &[&str] = if self.unanswered {
            &["pushed", "up-to-date"]
        } else if changed {
            &["pushed"]
        } else {
            &["up-to-date"]
        };
        assert!(expected.contains(&synced.outcome.as_str()), "{synced:?}");
        assert!(synced.body.is_empty());
        let position = synced.position();
        assert_eq!(position.state, self.image.state());
        self.synced = Some((position, self.image.clone()));
        self.unanswered = false;
        true
    }
}

/// Ten pushes with a server that may die; then whatever is left with one that does not.
async fn scenario(store: &Path, kill: &[(&str, &str)]) {
    let mut device = Device::new();
    let env: Vec<_> = ENV.iter().chain(kill).copied().collect();
    if let Some(server) = ChildServer::start("serve_for_a_test", store, &env) {
        for _ in 0..10 {
            device.write();
            if !device.sync(&server.url).await {
                break;
            }
            // Time for the snapshots.
            tokio::time::sleep(std::time::Duration::from_millis(15)).await;
        }
    }
    let server = ChildServer::start("serve_for_a_test", store, ENV).unwrap();
    assert!(device.sync(&server.url).await);
    for _ in 0..3 {
        device.write();
        assert!(device.sync(&server.url).await);
    }
    let response = device.client.get(format!("{}/db/v1/snapshot", server.url)).send().await.unwrap();
    assert_eq!(Image::empty().apply(&response.bytes().await.unwrap()), device.image);
    server.kill();
    let store = Store::open(&StoreUrl::Local(store.to_owned())).unwrap();
    let report = verify_store(&store, |_| {}).await.unwrap();
    assert!(report.is_ok(), "{report:#?}");
    assert_eq!(report.databases[0].head, device.synced.map(|(position, _)| position.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_it_keeps_what_it_acknowledged_and_the_client_carries_on() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("passed");
    scenario(&folder.path().join("whole"), &[("HIGHWATER_KILL_LOG", log.to_str().unwrap())]).await;
    let mut points: BTreeMap<String, u32> = BTreeMap::new();
    for name in std::fs::read_to_string(&log).unwrap().lines() {
        *points.entry(name.to_owned()).or_default() += 1;
    }
    assert!(points.len() >= 12, "{points:?}");
    for (number, (name, times)) in points.iter().enumerate() {
        for at in BTreeSet::from([1, 2.min(*times), times.div_ceil(2), *times]) {
            let store = folder.path().join(format!("{number}-{at}"));
            scenario(&store, &[("HIGHWATER_KILL_AT", &format!("{name}:{at}"))]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_again_and_again_it_loses_nothing() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let mut device = Device::new();
    let mut random = Random(11);
    for _ in 0..25 {
        let server = ChildServer::start("serve_for_a_test", folder.path(), ENV).unwrap();
        let url = server.url.clone();
        let wait = std::time::Duration::from_micros(u64::from(random.next() % 60_000));
        let killer = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            server.kill();
        });
        while device.sync(&url).await {
            device.write();
        }
        killer.await.unwrap();
    }
    let server = ChildServer::start("serve_for_a_test", folder.path(), ENV).unwrap();
    assert!(device.sync(&server.url).await);
}
