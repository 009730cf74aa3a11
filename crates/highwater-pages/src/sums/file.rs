//! Loading and storing a `<db>-sums` file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use highwater_ltx::{PageCount, PageSize, Position};

use super::format::{BLOCK_ENTRIES, CRC_SIZE, HASH_SIZE, HEADER_SIZE, Header, Segment, crc, table_size};
use super::{Loaded, NONE, PageSums};
use crate::durable::replace_cache;
use crate::error::{Error, Result};
use crate::kill_point;

/// Segments may take this many bytes before the table is written anew, however small it is.
const SEGMENTS_KEPT: u64 = 64 * 1024;

/// The part of the file that these sums are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OnDisk {
    /// The position that the part is of.
    position: Position,
    /// The length of the whole file, in bytes.
    file_length: u64,
    /// Where the part ends, in bytes.
    end: u64,
    /// The checksum of its last segment, table block or header.
    crc: u32,
    /// The size of the table, in bytes.
    table: u64,
}

/// Which of the positions in a file.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    At(Position),
    /// So many before the newest.
    Newest(usize),
}

/// Why reading ended early: the file's fault, or the system's.
enum Bad {
    Content(&'static str),
    System(io::Error),
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Content("it is too short")
        } else {
            Self::System(error)
        }
    }
}

impl PageSums {
    /// Reads the sums for exactly the position `at`. Errors are the system's alone (no permission,
    /// a failing disk); whatever the file's bytes are, the answer is a [`Loaded`].
    pub fn load(path: &Path, at: Position, page_size: PageSize) -> Result<Loaded> {
        Self::load_at(path, Wanted::At(at), page_size)
    }

    /// As [`PageSums::load`], for the newest position in the file, whichever that is.
    pub fn newest(path: &Path, page_size: PageSize) -> Result<Loaded> {
        Self::load_at(path, Wanted::Newest(0), page_size)
    }

    /// The sums that stand before the newest ones and claim the same place, oldest first: they were written ahead of a
    /// commit together. With one, it is of the state on which the newest were to be committed. With two, the first is of
    /// that state, and the second of the file after the commit: the newest with local changes rebased on top.
    pub fn on_the_way(path: &Path, page_size: PageSize) -> Result<Vec<Self>> {
        let Loaded::Valid(newest) = Self::newest(path, page_size)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for before in 1..=2 {
            match Self::load_at(path, Wanted::Newest(before), page_size)? {
                Loaded::Valid(sums)
                    if sums.position.place() == newest.position.place()
                        && sums.position.state != newest.position.state =>
                {
                    found.insert(0, sums);
                }
                _ => break,
            }
        }
        Ok(found)
    }

    /// Whether the file that these were loaded from also has sums of a newer position. None: they are from no file.
    #[must_use]
    pub fn is_outdated(&self) -> Option<bool> {
        self.on_disk.map(|on_disk| on_disk.end < on_disk.file_length)
    }

    fn load_at(path: &Path, at: Wanted, page_size: PageSize) -> Result<Loaded> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Missing),
            Err(error) => return Err(Error::io(path, "opening", error)),
        };
        match read(file, at, page_size) {
            Ok(loaded) => Ok(loaded),
            Err(Bad::Content(reason)) => Ok(Loaded::Corrupt { reason }),
            Err(Bad::System(error)) => Err(Error::io(path, "reading", error)),
        }
    }

    /// Writes the whole file anew.
    pub fn save(&mut self, path: &Path) -> Result<()> {
        self.on_disk = None;
        self.unsaved.clear();
        let header = Header { position: self.position, page_size: self.page_size, count: self.page_count() };
        let (bytes, mut sum) = header.encode();
        let hashes = &self.hashes;
        replace_cache(path, |file| {
            file.write_all(&bytes)?;
            let mut block = Vec::with_capacity(BLOCK_ENTRIES * HASH_SIZE);
            for entries in hashes.chunks(BLOCK_ENTRIES) {
                block.clear();
                entries.iter().for_each(|hash| block.extend(hash.to_be_bytes()));
                sum = crc(sum, &block);
                file.write_all(&block)?;
                file.write_all(&sum.to_be_bytes())?;
            }
            Ok(())
        })?;
        let table = table_size(header.count);
        let end = HEADER_SIZE as u64 + table;
        self.on_disk = Some(OnDisk { position: self.position, file_length: end, end, crc: sum, table });
        kill_point("sums-saved");
        Ok(())
    }

    /// Brings the file up to date with what [`PageSums::apply`] changed since it was loaded, saved
    /// or appended to: by one segment behind the rest, which costs as much as the change. Where
    /// that is not possible (the file is not as these sums know it) or not worth it (the segments
    /// outweigh a quarter of the table), writes it anew.
    pub fn append(&mut self, path: &Path) -> Result<()> {
        self.append_within(path, SEGMENTS_KEPT)
    }

    /// As [`PageSums::append`], for a position that is only about to be reached: the segment is
    /// appended whatever it weighs, because the sums of the position before it are still needed.
    pub fn append_ahead(&mut self, path: &Path) -> Result<()> {
        self.append_within(path, u64::MAX)
    }

    fn append_within(&mut self, path: &Path, most: u64) -> Result<()> {
        let Some(on_disk) = self.on_disk else { return self.save(path) };
        if self.unsaved.is_empty() && on_disk.position == self.position {
            return Ok(());
        }
        if on_disk.end < on_disk.file_length && self.is_behind(path)? {
            return Ok(());
        }
        let segment = Segment {
            position: self.position,
            count: self.page_count(),
            entries: self.unsaved.iter().map(|page| (*page, self.get(*page).map_or(NONE, |h| h.0))).collect(),
        };
        let segments = on_disk.end - HEADER_SIZE as u64 - on_disk.table + segment.size() as u64;
        if segments > most.max(on_disk.table / 4) {
            return self.save(path);
        }
        let (bytes, sum) = segment.encode(on_disk.crc);
        // Should this fail half-way, the file is no longer as these sums know it.
        self.on_disk = None;
        if !write_segment(path, &on_disk, &bytes).map_err(|error| Error::io(path, "writing", error))? {
            return self.save(path);
        }
        let end = on_disk.end + bytes.len() as u64;
        self.on_disk = Some(OnDisk { position: self.position, file_length: end, end, crc: sum, ..on_disk });
        self.unsaved.clear();
        kill_point("sums-appended");
        Ok(())
    }
}

impl PageSums {
    /// Whether what follows in the file brings it to these very sums: they were appended ahead, by
    /// somebody who could not go on. Then that stays as it is.
    fn is_behind(&mut self, path: &Path) -> Result<bool> {
        let Loaded::Valid(newest) = Self::newest(path, self.page_size)? else { return Ok(false) };
        let same = newest.position == self.position && newest.hashes == self.hashes;
        if same {
            self.on_disk = newest.on_disk;
            self.unsaved.clear();
        }
        Ok(same)
    }
}

/// Puts a segment behind the known part of the file; `false` if the file is not as it is known.
fn write_segment(path: &Path, on_disk: &OnDisk, bytes: &[u8]) -> io::Result<bool> {
    let mut file = match OpenOptions::new().append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != on_disk.file_length {
        return Ok(false);
    }
    if on_disk.end < on_disk.file_length {
        file.set_len(on_disk.end)?;
        kill_point("sums-cut");
    }
    file.write_all(bytes)?;
    Ok(true)
}

fn read(file: File, at: Wanted, page_size: PageSize) -> Result<Loaded, Bad> {
    let file_length = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut bytes = [0; HEADER_SIZE];
    reader.read_exact(&mut bytes)?;
    let (header, sum) = Header::decode(&bytes).map_err(Bad::Content)?;
    if header.page_size != page_size {
        return Err(Bad::Content("it is of another page size"));
    }
    let table = table_size(header.count);
    let behind_table = HEADER_SIZE as u64 + table;
    if file_length < behind_table {
        return Err(Bad::Content("it is too short"));
    }
    let (hashes, sum) = read_table(&mut reader, header.count, sum)?;
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;

    let (segments, ends, torn) = segments(&rest, behind_table, sum);
    let positions = std::iter::once(header.position).chain(segments.iter().map(|s| s.position));
    let last = segments.len();
    let wanted = |number: usize, position: Position| match at {
        Wanted::At(at) => position == at,
        Wanted::Newest(before) => number + before == last,
    };
    let Some((applied, at)) = positions.clone().enumerate().filter(|(n, p)| wanted(*n, *p)).last() else {
        return match positions.last() {
            Some(found) if !torn => Ok(Loaded::Stale { found }),
            _ => Err(Bad::Content("its end is torn before the position that was asked for")),
        };
    };
    let mut sums = PageSums { position: at, page_size, hashes, unsaved: Default::default(), on_disk: None };
    for segment in segments.iter().take(applied) {
        apply(&mut sums.hashes, segment)?;
    }
    if sums.state() != at.state {
        return Err(Bad::Content("its page hashes do not add up to the state's hash"));
    }
    let (end, crc) = applied.checked_sub(1).and_then(|n| ends.get(n)).copied().unwrap_or((behind_table, sum));
    sums.on_disk =
        Some(OnDisk { position: at, file_length: behind_table + rest.len() as u64, end, crc, table });
    Ok(Loaded::Valid(sums))
}

fn read_table(reader: &mut impl Read, count: PageCount, mut sum: u32) -> Result<(Vec<u128>, u32), Bad> {
    let mut hashes: Vec<u128> = Vec::with_capacity(count.0 as usize);
    let mut block = vec![0; BLOCK_ENTRIES * HASH_SIZE];
    while hashes.len() < count.0 as usize {
        block.resize((count.0 as usize - hashes.len()).min(BLOCK_ENTRIES) * HASH_SIZE, 0);
        reader.read_exact(&mut block)?;
        let mut stored = [0; CRC_SIZE];
        reader.read_exact(&mut stored)?;
        sum = crc(sum, &block);
        if u32::from_be_bytes(stored) != sum {
            return Err(Bad::Content("the checksum of its table is wrong"));
        }
        let (entries, _) = block.as_chunks::<HASH_SIZE>();
        hashes.extend(entries.iter().map(|entry| u128::from_be_bytes(*entry)));
    }
    Ok((hashes, sum))
}

/// The whole segments from the front, where in the file each ends with which checksum, and whether
/// something else follows them.
fn segments(mut rest: &[u8], start: u64, mut sum: u32) -> (Vec<Segment>, Vec<(u64, u32)>, bool) {
    let (mut found, mut ends, mut end) = (Vec::new(), Vec::new(), start);
    while let Some((segment, crc, behind)) = Segment::decode(rest, sum) {
        end += segment.size() as u64;
        ends.push((end, crc));
        found.push(segment);
        (sum, rest) = (crc, behind);
    }
    (found, ends, !rest.is_empty())
}

fn apply(hashes: &mut Vec<u128>, segment: &Segment) -> Result<(), Bad> {
    let wrong = Bad::Content("a segment of it has pages in a wrong order or beyond the end");
    let grows_by = (segment.count.0 as usize).saturating_sub(hashes.len());
    // Every new page has an entry: a segment cannot claim more memory than it takes itself.
    if grows_by > segment.entries.len() || !segment.entries.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(wrong);
    }
    hashes.resize(segment.count.0 as usize, NONE);
    for (page, hash) in &segment.entries {
        match page.0.checked_sub(1).and_then(|index| hashes.get_mut(index as usize)) {
            Some(slot) => *slot = *hash,
            None => return Err(wrong),
        }
    }
    Ok(())
}
