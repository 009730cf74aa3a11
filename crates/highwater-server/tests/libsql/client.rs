//! What a libSQL client does, on a real SQLite file: it counts the frames of its write-ahead log, pushes
//! them in batches of 128, and pulls frames by number. Pulled pages are put into the file at once, where a
//! real client would add them to its log; the numbers are the same.

#![allow(dead_code)]

use std::path::PathBuf;

use highwater_pages::canonicalise_first_page;
use reqwest::{Client, StatusCode};
use rusqlite::Connection;
use serde_json::Value;

pub const PAGE: usize = 4096;
pub const FRAME: usize = 24 + PAGE;

/// A page number, the size after a commit (or 0), and the page.
pub type Frame = Vec<u8>;

pub struct Device {
    pub http: Client,
    /// The database's URL.
    pub url: String,
    pub path: PathBuf,
    _folder: tempfile::TempDir,
    pub sqlite: Option<Connection>,
    pub generation: u32,
    /// What the `-info` file says.
    pub durable: u64,
    /// The frames that are in the database file and no longer in its log.
    pub offset: u64,
    /// Those frames: a real client's log still has them.
    pub pulled: Vec<Frame>,
    /// A real client's log keeps its salts until it is checkpointed.
    pub salts: std::cell::Cell<Option<[u8; 8]>>,
    /// What stands in the frames of its own since it pulled last.
    since: std::cell::Cell<Option<[u8; 8]>>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    Conflict,
    Status(u16),
}

impl Device {
    /// A new copy, from the server's image and frames.
    pub async fn open(url: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("local.db");
        let http = Client::new();
        let info: Value = json(http.get(format!("{url}/info")).send().await.unwrap()).await;
        let generation = info["current_generation"].as_u64().unwrap() as u32;
        let image = http.get(format!("{url}/export/{generation}")).send().await.unwrap();
        assert_eq!(image.status(), 200);
        std::fs::write(&path, image.bytes().await.unwrap()).unwrap();
        let mut device = Self {
            http,
            url,
            path,
            _folder: folder,
            sqlite: None,
            generation,
            durable: 0,
            offset: 0,
            pulled: Vec::new(),
            salts: std::cell::Cell::default(),
            since: std::cell::Cell::default(),
        };
        device.pull().await.unwrap();
        device.connect();
        device
    }

    /// A client with a copy of its files.
    pub fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("local.db");
        for suffix in ["db", "db-wal"] {
            let from = self.path.with_extension(suffix);
            if from.exists() {
                std::fs::copy(from, path.with_extension(suffix)).unwrap();
            }
        }
        let mut copy = Self {
            http: self.http.clone(),
            url: self.url.clone(),
            path,
            _folder: folder,
            sqlite: None,
            pulled: self.pulled.clone(),
            salts: self.salts.clone(),
            since: self.since.clone(),
            ..*self
        };
        copy.connect();
        copy
    }

    fn connect(&mut self) {
        self.since.take();
        let sqlite = Connection::open(&self.path).unwrap();
        sqlite.pragma_update(None, "journal_mode", "wal").unwrap();
        sqlite.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        self.sqlite = Some(sqlite);
    }

    pub fn run(&self, sql: &str) {
        self.sqlite.as_ref().unwrap().execute_batch(sql).unwrap();
    }

    pub fn text(&self, sql: &str) -> String {
        let value: rusqlite::types::Value =
            self.sqlite.as_ref().unwrap().query_row(sql, [], |row| row.get(0)).unwrap();
        match value {
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Integer(number) => number.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// The committed frames of its log.
    pub fn frames(&self) -> Vec<Frame> {
        let wal = std::fs::read(self.path.with_extension("db-wal")).unwrap_or_default();
        wal.get(32..).unwrap_or_default().chunks_exact(FRAME).map(<[u8]>::to_vec).collect()
    }

    /// Its whole log, as far as a real client has it: with what it pulled.
    pub fn log(&self) -> Vec<Frame> {
        let (own, mut log) = (self.frames(), self.pulled.clone());
        log.extend(own.iter().cloned());
        if let Some(first) = own.first() {
            let raw: [u8; 8] = first[8..16].try_into().unwrap();
            if self.since.get().is_some_and(|since| since != raw) || self.salts.get().is_none() {
                self.salts.set(Some(raw));
            }
            self.since.set(Some(raw));
            let salts = self.salts.get().unwrap();
            log.iter_mut().for_each(|frame| frame[8..16].copy_from_slice(&salts));
        }
        log
    }

    /// The number of its last frame.
    pub fn last(&self) -> u64 {
        self.offset + self.frames().len() as u64
    }

    /// Sends frames; the answer as it came.
    pub async fn post(
        &self,
        (generation, start): (u32, u64),
        frames: &[Frame],
        baton: Option<&str>,
    ) -> (StatusCode, Value) {
        let end = start + frames.len() as u64;
        let baton = baton.map(|baton| format!("/{baton}")).unwrap_or_default();
        let url = format!("{}/sync/{generation}/{start}/{end}{baton}", self.url);
        let response = self.http.post(url).body(frames.concat()).send().await.unwrap();
        (response.status(), json(response).await)
    }

    /// Asks for frames; 400 is the end and gives the newest generation.
    pub async fn get(&self, generation: u32, start: u64) -> Result<Vec<Frame>, (u16, Value)> {
        let url = format!("{}/sync/{generation}/{start}/{}", self.url, start + 128);
        let response = self.http.get(url).send().await.unwrap();
        if response.status() != 200 {
            return Err((response.status().as_u16(), json(response).await));
        }
        let body = response.bytes().await.unwrap();
        assert!(!body.is_empty() && body.len().is_multiple_of(FRAME));
        let frames: Vec<Frame> = body.chunks(FRAME).map(<[u8]>::to_vec).collect();
        assert!(commit_of(frames.last().unwrap()) > 0, "no uncommitted tail is ever served");
        for transaction in frames.split_inclusive(|frame| commit_of(frame) > 0) {
            let mut pages: Vec<_> = transaction.iter().map(page_of).collect();
            pages.sort_unstable();
            pages.dedup();
            // SQLite would write over the earlier frame, and the copy would count more frames than it has.
            assert_eq!(pages.len(), transaction.len(), "no page comes twice in a transaction");
        }
        Ok(frames)
    }

    /// Pushes what the server lacks, or pulls what this copy lacks.
    pub async fn sync(&mut self) -> Result<(), Failed> {
        if self.last() > self.durable { self.push(usize::MAX).await } else { self.repull().await }
    }

    /// Pushes; dies after so many batches. What it learnt is noted after the last batch only.
    pub async fn push(&mut self, dies_after: usize) -> Result<(), Failed> {
        let (frames, generation) = (self.log(), self.generation);
        let (mut adopted, mut durable, mut again) = (generation, self.durable, false);
        let mut baton: Option<String> = None;
        for _ in 0..dies_after {
            let Some(rest) = frames.get(durable as usize..).filter(|rest| !rest.is_empty()) else {
                (self.generation, self.durable) = (adopted, durable);
                return Ok(());
            };
            let batch = &rest[..rest.len().min(128)];
            let (status, answer) = self.post((generation, durable + 1), batch, baton.as_deref()).await;
            if status != 200 {
                return Err(Failed::Status(status.as_u16()));
            }
            baton = Some(answer["baton"].as_str().unwrap().to_owned());
            assert!(
                baton.as_ref().unwrap().bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            );
            if answer["status"] == "conflict" {
                return Err(Failed::Conflict);
            }
            assert_eq!(answer["status"], "ok");
            let max = answer["max_frame_no"].as_u64().unwrap();
            if max == durable + batch.len() as u64 {
                adopted = answer["generation"].as_u64().unwrap() as u32;
                durable = max;
            } else {
                assert!(!again && max < durable + batch.len() as u64, "{answer}");
                (again, durable) = (true, max);
            }
        }
        Ok(())
    }

    async fn repull(&mut self) -> Result<(), Failed> {
        // What it wrote itself is in the file from here on.
        self.pulled.extend(self.frames());
        self.sqlite = None;
        let result = self.pull().await;
        self.connect();
        result
    }

    /// Pulls until the end, into a file that nobody has open.
    async fn pull(&mut self) -> Result<(), Failed> {
        let mut image = std::fs::read(&self.path).unwrap();
        loop {
            match self.get(self.generation, self.durable + 1).await {
                Ok(frames) => {
                    frames.iter().for_each(|frame| apply(&mut image, frame));
                    self.pulled.extend_from_slice(&frames);
                    self.durable += frames.len() as u64;
                }
                Err((400, answer)) => {
                    let newest = answer["generation"].as_u64().unwrap() as u32;
                    if newest <= self.generation {
                        break;
                    }
                    (self.generation, self.durable) = (self.generation + 1, 0);
                    self.pulled.clear();
                }
                Err((status, _)) => return Err(Failed::Status(status)),
            }
        }
        self.offset = self.durable;
        std::fs::write(&self.path, image).unwrap();
        let _ = std::fs::remove_file(self.path.with_extension("db-wal"));
        let _ = std::fs::remove_file(self.path.with_extension("db-shm"));
        Ok(())
    }

    /// All pages, canonical.
    pub fn image(&self) -> Vec<u8> {
        let mut image = std::fs::read(&self.path).unwrap();
        self.frames().iter().for_each(|frame| apply(&mut image, frame));
        canonicalise_first_page(&mut image[..PAGE]);
        image
    }

    pub fn check(&self) {
        assert_eq!(self.text("PRAGMA integrity_check"), "ok");
    }
}

pub fn page_of(frame: &Frame) -> u32 {
    u32::from_be_bytes(frame[..4].try_into().unwrap())
}

pub fn commit_of(frame: &Frame) -> u32 {
    u32::from_be_bytes(frame[4..8].try_into().unwrap())
}

fn apply(image: &mut Vec<u8>, frame: &Frame) {
    let end = page_of(frame) as usize * PAGE;
    image.resize(image.len().max(end), 0);
    image[end - PAGE..end].copy_from_slice(&frame[24..]);
    if commit_of(frame) > 0 {
        image.resize(commit_of(frame) as usize * PAGE, 0);
    }
}

async fn json(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}
