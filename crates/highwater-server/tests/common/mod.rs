//! A small client over real sockets, and databases as plain vectors of pages to compare with.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;

use highwater_ltx::{
    Decoder, DeviceId, Encoder, FrameNo, Generation, Header, PageCount, PageEncoding, PageNo, PageSize,
    Position, StateHash, TxId,
};
use highwater_pages::{StateSum, canonicalise_first_page, page_hash};
use highwater_server::{Config, Embedded, Limits, SnapshotPolicy, StoreUrl};
use highwater_wire::{BASE, DEVICE, ErrorBody, HEAD, OUTCOME, TXID};
use reqwest::{Client, Response, StatusCode};

pub const DEVICE_A: DeviceId = DeviceId(0xa << 64);
pub const DEVICE_B: DeviceId = DeviceId(0xb << 64);

/// A database as a plain vector of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub size: PageSize,
    pub pages: Vec<Vec<u8>>,
}

impl Image {
    pub fn new(size: u32, count: u32, seed: u8) -> Self {
        let size = PageSize::new(size).unwrap();
        let mut image = Self { size, pages: Vec::new() };
        for page in 1..=count {
            image.pages.push(Vec::new());
            image.set(page, seed);
        }
        image
    }

    /// A database file without a write-ahead log.
    pub fn of_file(path: &std::path::Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let stated = u16::from_be_bytes([bytes[16], bytes[17]]);
        let size = PageSize::new(if stated == 1 { 65536 } else { stated.into() }).unwrap();
        let mut pages: Vec<Vec<u8>> = bytes.chunks(size.as_usize()).map(<[u8]>::to_vec).collect();
        canonicalise_first_page(&mut pages[0]);
        Self { size, pages }
    }

    /// Gives a page another content, growing the database if need be.
    pub fn set(&mut self, page: u32, seed: u8) {
        while self.pages.len() < page as usize {
            self.pages.push(vec![0; self.size.as_usize()]);
        }
        let mut data: Vec<u8> =
            (0..self.size.as_usize()).map(|i| (i as u32 * 7 / 5 * page) as u8 ^ seed).collect();
        if page == 1 {
            data[..16].copy_from_slice(b"SQLite format 3\0");
            let stated = if self.size.get() == 65536 { 1 } else { self.size.get() as u16 };
            data[16..18].copy_from_slice(&stated.to_be_bytes());
            canonicalise_first_page(&mut data);
        }
        self.pages[page as usize - 1] = data;
    }

    pub fn with(&self, changes: &[(u32, u8)]) -> Self {
        let mut other = self.clone();
        changes.iter().for_each(|(page, seed)| other.set(*page, *seed));
        other
    }

    pub fn shrunk(&self, count: u32) -> Self {
        let mut other = self.clone();
        other.pages.truncate(count as usize);
        other
    }

    pub fn count(&self) -> PageCount {
        PageCount(self.pages.len() as u32)
    }

    pub fn sums(&self) -> Vec<u128> {
        let hash = |(at, page): (usize, &Vec<u8>)| page_hash(PageNo(at as u32 + 1), page).0;
        self.pages.iter().enumerate().map(hash).collect()
    }

    pub fn state(&self) -> StateHash {
        let mut sum = StateSum::EMPTY;
        self.sums().into_iter().for_each(|hash| sum.add(highwater_pages::PageHash(hash)));
        sum.state(self.count(), self.size)
    }

    /// The pages that differ from `base`, and those that it lacks.
    pub fn delta(&self, base: Option<&Self>) -> Vec<u32> {
        let before = |page: u32| base.and_then(|base| base.pages.get(page as usize - 1));
        (1..=self.count().0).filter(|page| before(*page) != Some(&self.pages[*page as usize - 1])).collect()
    }

    /// The delta as a body.
    pub fn body(&self, base: Option<&Self>) -> Vec<u8> {
        self.body_of(base.is_none(), &self.delta(base), self.state())
    }

    pub fn body_of(&self, first: bool, pages: &[u32], state: StateHash) -> Vec<u8> {
        let txid = if first { TxId(1) } else { TxId(2) };
        let header = Header::new_push(
            self.size,
            self.count(),
            txid,
            0,
            Generation::FIRST,
            FrameNo(1),
            pages.len() as u64,
            DeviceId(0),
            state,
        );
        let mut encoder = Encoder::new(Vec::new(), header, PageEncoding::Literal).unwrap();
        for page in pages {
            encoder.page(PageNo(*page), &self.pages[*page as usize - 1]).unwrap();
        }
        encoder.finish().unwrap().0
    }

    /// The image after the pages of an answer; checks that it is what the answer says.
    pub fn apply(&self, answer: &[u8]) -> Self {
        let mut decoder = Decoder::new(answer).unwrap();
        let header = *decoder.header();
        let (mut pages, mut page) = (BTreeMap::new(), Vec::new());
        while let Some(number) = decoder.next_page(&mut page).unwrap() {
            pages.insert(number.0, page.clone());
        }
        let mut after = Self { size: header.page_size, pages: self.pages.clone() };
        after.pages.resize(header.commit.0 as usize, Vec::new());
        for (number, page) in pages {
            after.pages[number as usize - 1] = page;
        }
        assert_eq!(Some(after.state()), header.state, "the answer does not lead to the state that it claims");
        after
    }

    pub fn empty() -> Self {
        Self { size: PageSize::DEFAULT, pages: Vec::new() }
    }
}

/// What a sync was answered.
pub struct Synced {
    pub status: StatusCode,
    pub outcome: String,
    pub head: Option<Position>,
    pub txid: u64,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Synced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, outcome, head, txid, body } = self;
        let body = String::from_utf8_lossy(&body[..body.len().min(300)]);
        write!(f, "{status} {outcome:?} {head:?} {txid} {body:?}")
    }
}

impl Synced {
    pub fn error(&self) -> ErrorBody {
        assert!(!self.status.is_success(), "{} is no error", self.outcome);
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn position(&self) -> Position {
        assert!(self.status.is_success(), "{}", String::from_utf8_lossy(&self.body));
        self.head.unwrap()
    }
}

/// A server and a client of it.
pub struct Rig {
    pub server: Option<Embedded>,
    pub config: Config,
    pub client: Client,
    pub folder: Option<tempfile::TempDir>,
}

impl Rig {
    pub fn memory() -> Self {
        Self::start(Config { store: StoreUrl::Memory, ..Config::default() }, None)
    }

    pub fn local(snapshot: SnapshotPolicy, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = StoreUrl::Local(folder.path().to_owned());
        Self::start(Config { store, snapshot, limits, ..Config::default() }, Some(folder))
    }

    pub fn start(config: Config, folder: Option<tempfile::TempDir>) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let server = Embedded::start(config.clone(), ([127, 0, 0, 1], 0).into()).unwrap();
        Self { server: Some(server), config, client: Client::new(), folder }
    }

    /// Stops the server and starts another on the same store.
    pub fn restart(&mut self) {
        self.server.take().unwrap().stop().unwrap();
        self.server = Some(Embedded::start(self.config.clone(), ([127, 0, 0, 1], 0).into()).unwrap());
        self.client = Client::new();
    }

    pub fn url(&self, rest: &str) -> String {
        format!("{}/{rest}", self.server.as_ref().unwrap().url())
    }

    pub fn store_path(&self) -> &std::path::Path {
        self.folder.as_ref().unwrap().path()
    }

    pub async fn sync(&self, db: &str, device: DeviceId, base: Option<Position>, body: Vec<u8>) -> Synced {
        sync(&self.client, &self.url(&format!("{db}/v1/sync")), device, base, body).await
    }

    pub async fn get(&self, rest: &str) -> Response {
        self.client.get(self.url(rest)).send().await.unwrap()
    }

    pub async fn json(&self, rest: &str) -> serde_json::Value {
        serde_json::from_slice(&self.get(rest).await.bytes().await.unwrap()).unwrap()
    }

    pub async fn snapshot(&self, rest: &str) -> Image {
        let response = self.get(rest).await;
        assert_eq!(response.status(), 200);
        let head: Position = response.headers()[HEAD].to_str().unwrap().parse().unwrap();
        let image = Image::empty().apply(&response.bytes().await.unwrap());
        assert_eq!(image.state(), head.state);
        image
    }
}

pub async fn sync(
    client: &Client,
    url: &str,
    device: DeviceId,
    base: Option<Position>,
    body: Vec<u8>,
) -> Synced {
    let mut request = client.post(url).header(DEVICE, device.to_string()).body(body);
    if let Some(base) = base {
        request = request.header(BASE, base.to_string());
    }
    synced(request.send().await.unwrap()).await
}

pub async fn synced(response: Response) -> Synced {
    let text = |name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    assert!(!text("x-request-id").is_empty(), "every answer has a request id");
    Synced {
        status: response.status(),
        outcome: text(OUTCOME),
        head: text(HEAD).parse().ok(),
        txid: text(TXID).parse().unwrap_or(0),
        body: response.bytes().await.unwrap().to_vec(),
    }
}

/// Numbers that look random and are the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.next() as u8);
    }
}
