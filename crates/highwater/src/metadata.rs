//! The metadata file, `<db>-info`: where the local copy was last known to be equal to the server's
//! database. A cache, never the only place where anything is known: when it is missing or not to
//! be trusted, the content of the database says the same, at the cost of reading it.
//!
//! JSON, written whole through `write_atomic`. Its fields are listed in `docs/FORMATS.md`. Fields
//! of other programs are kept. Version 0 is libSQL's file.

use std::path::Path;

use crc_fast::{CrcAlgorithm, checksum};
use highwater_ltx::{DeviceId, FrameNo, Generation, PageCount, PageSize, Place, Position, StateHash, TxId};
use highwater_pages::{FileMark, Mark, WalMark, durable};
use highwater_wire::Rebased;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// The version that this program writes.
const VERSION: u64 = 1;
/// More states than this are never waiting for an answer.
const MAX_PENDING: usize = 32;

/// The position that the copy was last equal to, and the shape of the database there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BaseInfo {
    pub(crate) position: Position,
    pub(crate) txid: TxId,
    pub(crate) page_size: PageSize,
    pub(crate) page_count: PageCount,
}

/// What the record of a merge has to be told: ids that rows got when they were rebased onto its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RebaseNote {
    /// The number of the merge.
    pub(crate) merge: u64,
    /// The state that the rows were rebased onto: the base, once that is done.
    pub(crate) head: String,
    #[serde(flatten)]
    pub(crate) told: Rebased,
}

/// The content of a metadata file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Metadata {
    pub(crate) remote: Option<String>,
    pub(crate) device: Option<DeviceId>,
    pub(crate) base: Option<BaseInfo>,
    /// What the last capture saw of the files.
    pub(crate) mark: Option<Mark>,
    /// The file change counter of page 1 when the file was equal to the base.
    pub(crate) change_counter: Option<u32>,
    /// States that were sent and whose answer never came.
    pub(crate) pending: Vec<StateHash>,
    /// The device that sent them, when this copy was another one then.
    pub(crate) pending_device: Option<DeviceId>,
    /// Ids that rows get with a commit that is about to happen: told to the server when it has.
    pub(crate) rebasing: Option<RebaseNote>,
    /// Those that wait to be told.
    pub(crate) rebased: Vec<RebaseNote>,
    /// Which file this describes (see [`crate::home`]).
    pub(crate) home: Option<String>,
    /// Fields that this version does not know.
    pub(crate) other: Map<String, Value>,
}

/// What was found in a metadata file's place.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// A file that can be trusted.
    Valid(Box<Metadata>),
    /// No file.
    Missing,
    /// libSQL's own file: its frame numbers count another server's history.
    Legacy(Place),
    /// Something else, and what.
    Damaged(String),
}

impl Metadata {
    /// Reads the file. Bad content is an answer, not an error.
    pub(crate) fn load(path: &Path) -> Result<Loaded> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Loaded::Missing),
            Err(source) => return Err(Error::Io { what: "reading", path: path.to_path_buf(), source }),
        };
        Ok(parse(&bytes).unwrap_or_else(Loaded::Damaged))
    }

    /// Writes the file durably: what must not be forgotten.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        durable::write_atomic(path, self.encode().as_bytes())?;
        Ok(())
    }

    /// Writes the file whole. After a power cut the one before it may be back: its pending states
    /// lead to the same place.
    pub(crate) fn note(&self, path: &Path) -> Result<()> {
        durable::write_whole(path, self.encode().as_bytes())?;
        Ok(())
    }

    /// Notes that `state` is about to be sent. When there are too many, one in the middle makes room: the
    /// state that the server has is among the first, if nothing arrived after it, or among the newest.
    pub(crate) fn add_pending(&mut self, state: StateHash) {
        self.pending.retain(|known| *known != state);
        if self.pending.len() >= MAX_PENDING {
            self.pending.remove(MAX_PENDING / 2);
        }
        self.pending.push(state);
    }

    /// What merges were to be told is another file's, or another server's.
    pub(crate) fn forget_notes(&mut self) {
        self.rebasing = None;
        self.rebased.clear();
    }

    fn encode(&self) -> String {
        let mut fields = self.other.clone();
        let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        set("version", json!(VERSION));
        set("durable_frame_num", json!(self.base.map_or(0, |base| base.position.frame.0)));
        set("generation", json!(self.base.map_or(0, |base| base.position.generation.0)));
        if let Some(base) = self.base {
            set("state", json!(base.position.state.to_string()));
            set("txid", json!(base.txid.0));
            set("page_size", json!(base.page_size.get()));
            set("page_count", json!(base.page_count.0));
        }
        if let Some(remote) = &self.remote {
            set("remote", json!(remote));
        }
        if let Some(device) = self.device {
            set("device", json!(device.to_string()));
        }
        if let Some(home) = &self.home {
            set("home", json!(home));
        }
        if let Some(counter) = self.change_counter {
            set("change_counter", json!(counter));
        }
        if !self.pending.is_empty() {
            set("pending", self.pending.iter().map(|state| json!(state.to_string())).collect());
            if let Some(device) = self.pending_device {
                set("pending_device", json!(device.to_string()));
            }
        }
        // As text: the hash is of the very bytes, whatever becomes of numbers on their way.
        if let Some(note) = self.rebasing.as_ref().and_then(|note| serde_json::to_string(note).ok()) {
            set("rebasing", json!(note));
        }
        if let Some(notes) = serde_json::to_string(&self.rebased).ok().filter(|_| !self.rebased.is_empty()) {
            set("rebased", json!(notes));
        }
        if let Some(wal) = self.mark.and_then(|mark| mark.wal) {
            set("wal", wal_json(&wal));
        }
        if let Some(file) = self.mark.and_then(|mark| mark.file).and_then(|file| file_json(&file)) {
            set("file", file);
        }
        let hash = hash_of(&fields);
        fields.insert("hash".to_owned(), json!(hash));
        canonical_object(&fields)
    }
}

fn parse(bytes: &[u8]) -> Result<Loaded, String> {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes) else {
        return Err(if bytes.is_empty() { "it is empty".to_owned() } else { "it is not JSON".to_owned() });
    };
    let version = fields.get("version").and_then(Value::as_u64).ok_or("it has no version")?;
    match version {
        0 => return parse_legacy(&fields),
        VERSION => {}
        newer => return Err(format!("it was written by a newer program (version {newer})")),
    }
    let hash = fields.remove("hash").and_then(|hash| hash.as_u64()).ok_or("it has no hash")?;
    if hash != u64::from(hash_of(&fields)) {
        return Err("its hash does not match its content".to_owned());
    }
    let mut take = |name: &str| fields.remove(name).unwrap_or(Value::Null);
    take("version");
    let frame = take("durable_frame_num").as_u64().ok_or("it has no durable_frame_num")?;
    let generation = number(&take("generation")).ok_or("it has no generation")?;
    let (state, txid) = (take("state"), take("txid").as_u64());
    let (size, count) = (number(&take("page_size")), number(&take("page_count")));
    let base = match (text(&state), txid, size, count) {
        (Some(state), Some(txid), Some(size), Some(count)) => Some(BaseInfo {
            position: Position {
                generation: Generation(generation),
                frame: FrameNo(frame),
                state: state.parse().map_err(|_| "its state hash is malformed")?,
            },
            txid: TxId(txid),
            page_size: PageSize::new(size).map_err(|error| error.to_string())?,
            page_count: PageCount(count),
        }),
        _ => None,
    };
    let pending = take("pending");
    let metadata = Metadata {
        remote: text(&take("remote")).map(str::to_owned),
        device: text(&take("device")).and_then(|id| id.parse().ok()),
        base,
        pending_device: text(&take("pending_device")).and_then(|id| id.parse().ok()),
        home: text(&take("home")).map(str::to_owned),
        change_counter: number(&take("change_counter")),
        pending: pending
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|state| text(state)?.parse().ok())
            .collect(),
        rebasing: text(&take("rebasing")).and_then(|note| serde_json::from_str(note).ok()),
        rebased: text(&take("rebased"))
            .and_then(|notes| serde_json::from_str(notes).ok())
            .unwrap_or_default(),
        mark: Some(Mark { wal: parse_wal(&take("wal")), file: parse_file(&take("file")) })
            .filter(|mark| mark.wal.is_some() || mark.file.is_some()),
        other: fields,
    };
    Ok(Loaded::Valid(Box::new(metadata)))
}

/// libSQL: CRC-32 of the three numbers as little-endian u32.
fn parse_legacy(fields: &Map<String, Value>) -> Result<Loaded, String> {
    let field = |name: &str| fields.get(name).and_then(number).ok_or("a field of libSQL's file is missing");
    let (hash, frame, generation) = (field("hash")?, field("durable_frame_num")?, field("generation")?);
    let bytes: Vec<u8> =
        [0, frame, generation].iter().flat_map(|number: &u32| number.to_le_bytes()).collect();
    if u64::from(hash) != checksum(CrcAlgorithm::Crc32IsoHdlc, &bytes) {
        return Err("libSQL's hash does not match its content".to_owned());
    }
    Ok(Loaded::Legacy(Place { generation: Generation(generation), frame: FrameNo(u64::from(frame)) }))
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

fn wal_json(mark: &WalMark) -> Value {
    json!({
        "salt1": mark.salt1, "salt2": mark.salt2, "frames": mark.frames,
        "checksum1": mark.checksum.0, "checksum2": mark.checksum.1,
    })
}

fn parse_wal(value: &Value) -> Option<WalMark> {
    let field = |name: &str| value.get(name).and_then(number);
    Some(WalMark {
        salt1: field("salt1")?,
        salt2: field("salt2")?,
        frames: value.get("frames")?.as_u64()?,
        checksum: (field("checksum1")?, field("checksum2")?),
    })
}

fn file_json(mark: &FileMark) -> Option<Value> {
    Some(json!({
        "device": mark.device, "inode": mark.inode, "bytes": mark.bytes,
        "modified_ns": i64::try_from(mark.modified_ns).ok()?, "changed_ns": i64::try_from(mark.changed_ns).ok()?,
    }))
}

fn parse_file(value: &Value) -> Option<FileMark> {
    let field = |name: &str| value.get(name).and_then(Value::as_u64);
    let time = |name: &str| value.get(name).and_then(Value::as_i64).map(i128::from);
    Some(FileMark {
        device: field("device")?,
        inode: field("inode")?,
        bytes: field("bytes")?,
        modified_ns: time("modified_ns")?,
        changed_ns: time("changed_ns")?,
    })
}

/// CRC-32 (IEEE) of the canonical form.
#[allow(clippy::cast_possible_truncation, reason = "a CRC-32 has 32 bits")]
fn hash_of(fields: &Map<String, Value>) -> u32 {
    checksum(CrcAlgorithm::Crc32IsoHdlc, canonical_object(fields).as_bytes()) as u32
}

/// Sorted keys, no spaces, whatever order the map has.
fn canonical_object(fields: &Map<String, Value>) -> String {
    let mut keys: Vec<&String> = fields.keys().collect();
    keys.sort();
    let members = keys.iter().filter_map(|key| {
        let value = fields.get(*key)?;
        Some(format!("{}:{}", Value::from(key.as_str()), canonical_value(value)))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn canonical_value(value: &Value) -> String {
    match value {
        Value::Object(fields) => canonical_object(fields),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical_value).collect::<Vec<_>>().join(","))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use highwater_wire::{Conflict, ConflictKind, Kept, SqlValue};

    use super::*;

    fn full() -> Metadata {
        // Numbers that are not exact in decimal.
        let prices =
            (1..100_i32).map(|price| ("price".to_owned(), SqlValue::Real(f64::from(price) * 0.1 + 1e-17)));
        let conflict = Conflict {
            kind: ConflictKind::Renumbered,
            table: "t".to_owned(),
            key: prices.collect(),
            other_key: Vec::new(),
            columns: Vec::new(),
            base: None,
            local: None,
            head: None,
            kept: Kept::Both,
            sql: None,
            message: "\"quoted\"".to_owned(),
        };
        let told = Rebased { state: "ab".to_owned(), conflicts: vec![conflict] };
        Metadata {
            remote: Some("http://127.0.0.1:8080/guestbook".to_owned()),
            device: Some(DeviceId(7)),
            base: Some(BaseInfo {
                position: Position { generation: Generation(2), frame: FrameNo(9), state: StateHash(5) },
                txid: TxId(3),
                page_size: PageSize::DEFAULT,
                page_count: PageCount(7),
            }),
            mark: Some(Mark {
                wal: Some(WalMark { salt1: 1, salt2: 2, frames: 3, checksum: (4, 5) }),
                file: Some(FileMark { device: 1, inode: 2, bytes: 3, modified_ns: 4, changed_ns: 5 }),
            }),
            pending: vec![StateHash(8)],
            pending_device: Some(DeviceId(9)),
            rebasing: Some(RebaseNote { merge: 3, head: "c".to_owned(), told: told.clone() }),
            rebased: vec![RebaseNote { merge: 2, head: "d".to_owned(), told }],
            home: Some("aa".to_owned()),
            change_counter: Some(17),
            other: serde_json::from_str(r#"{"theirs":{"b":1,"a":[true]}}"#).unwrap(),
        }
    }

    fn load(bytes: &[u8]) -> Loaded {
        parse(bytes).unwrap_or_else(Loaded::Damaged)
    }

    #[test]
    fn what_was_saved_is_read_again_unknown_fields_included() {
        for metadata in [full(), Metadata::default()] {
            assert!(matches!(load(metadata.encode().as_bytes()), Loaded::Valid(read) if *read == metadata));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let intact = full().encode().into_bytes();
        for at in 0..intact.len() {
            for bit in 0..8 {
                let mut bytes = intact.clone();
                bytes[at] ^= 1 << bit;
                assert!(
                    !matches!(load(&bytes), Loaded::Valid(read) if *read != full()),
                    "byte {at} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_damaged() {
        let intact = full().encode().into_bytes();
        for length in 0..intact.len() {
            assert!(matches!(load(&intact[..length]), Loaded::Damaged(_)));
        }
    }

    #[test]
    fn libsqls_own_file_is_recognised() {
        // The shape of what libSQL writes after a push of nine frames.
        let crc = checksum(CrcAlgorithm::Crc32IsoHdlc, &[0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0]);
        let file = format!(r#"{{"hash":{crc},"version":0,"durable_frame_num":9,"generation":1}}"#);
        assert!(matches!(load(file.as_bytes()), Loaded::Legacy(place) if place.to_string() == "1/9"));
        assert!(matches!(load(file.replace(":9", ":8").as_bytes()), Loaded::Damaged(_)));
    }

    #[test]
    fn a_newer_version_is_named() {
        assert!(matches!(load(br#"{"version":7,"hash":1}"#), Loaded::Damaged(why) if why.contains("newer")));
    }

    #[test]
    fn pending_states_make_room_and_the_oldest_and_the_newest_stay() {
        let mut metadata = Metadata::default();
        (0..100).for_each(|state| metadata.add_pending(StateHash(state)));
        metadata.add_pending(StateHash(90));
        assert_eq!(metadata.pending.len(), MAX_PENDING);
        assert_eq!(metadata.pending.first(), Some(&StateHash(0)));
        assert_eq!(metadata.pending.last(), Some(&StateHash(90)));
        assert!(metadata.pending.contains(&StateHash(99)));
    }
}
