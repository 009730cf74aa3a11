//! Page sums are right for the position that is asked for, or they are not given at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater_ltx::{FrameNo, Generation, PageCount, PageNo, PageSize, Position, StateHash};
use highwater_pages::{LoadedSums as Loaded, PageHash, PageSums, StateSum, page_hash};
use proptest::prelude::*;

const SIZE: PageSize = PageSize::DEFAULT;

/// A database of hashes alone, kept the simple way.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model(BTreeMap<u32, u128>);

impl Model {
    fn count(&self) -> PageCount {
        PageCount(self.0.len() as u32)
    }

    fn state(&self) -> StateHash {
        let mut sum = StateSum::EMPTY;
        self.0.values().for_each(|hash| sum.add(PageHash(*hash)));
        sum.state(self.count(), SIZE)
    }

    fn at(&self, frame: u64) -> Position {
        Position { generation: Generation(3), frame: FrameNo(frame), state: self.state() }
    }

    /// Changes `pages` of what will be `count` pages; new pages always change.
    fn change(&mut self, pages: &[u32], count: u32, salt: u64) -> Vec<(PageNo, PageHash)> {
        let new = self.0.len() as u32 + 1..=count;
        self.0.retain(|page, _| *page <= count);
        let hash = |page: u32| page_hash(PageNo(page), &[&salt.to_be_bytes()[..], &[1; 8]].concat());
        let mut changes = BTreeMap::new();
        for page in pages.iter().copied().filter(|page| *page <= count).chain(new) {
            changes.insert(PageNo(page), hash(page));
            self.0.insert(page, hash(page).0);
        }
        changes.into_iter().collect()
    }

    fn assert_is(&self, sums: &PageSums) {
        assert_eq!(sums.page_count(), self.count());
        assert_eq!(sums.state(), self.state());
        let found: BTreeMap<u32, u128> = sums.iter().map(|(page, hash)| (page.0, hash.0)).collect();
        assert_eq!(found, self.0);
        assert_eq!(sums.get(PageNo(self.count().0 + 1)), None);
        assert_eq!(sums.get(PageNo(0)), None);
    }
}

fn load(path: &Path, at: Position) -> Loaded {
    PageSums::load(path, at, SIZE).unwrap()
}

fn valid(loaded: Loaded) -> PageSums {
    match loaded {
        Loaded::Valid(sums) => sums,
        other => panic!("{other:?}"),
    }
}

/// A file with a table of `count` pages and a segment for each further step, and what it held when.
fn history(folder: &Path, count: u32, steps: &[(&[u32], u32)]) -> (PathBuf, Vec<(Position, Model)>) {
    let path = folder.join("app.db-sums");
    let mut model = Model::default();
    let changes = model.change(&[], count, 1);
    let mut sums = PageSums::new(model.at(0), SIZE, PageCount(0));
    sums.apply(&changes, PageCount(count), model.at(1));
    sums.save(&path).unwrap();
    let mut states = vec![(model.at(1), model.clone())];
    for (n, (pages, count)) in steps.iter().enumerate() {
        let frame = n as u64 + 2;
        let changes = model.change(pages, *count, frame);
        sums.apply(&changes, PageCount(*count), model.at(frame));
        sums.append(&path).unwrap();
        states.push((model.at(frame), model.clone()));
    }
    (path, states)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_history_reads_back(
        steps in prop::collection::vec(
            (prop::collection::vec(1u32..700, 0..40), 1u32..700, 0u8..6),
            1..40,
        ),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db-sums");
        let mut model = Model::default();
        let mut sums = PageSums::new(model.at(0), SIZE, PageCount(0));
        for (frame, (pages, count, action)) in (1u64..).zip(&steps) {
            let changes = model.change(pages, *count, frame);
            sums.apply(&changes, PageCount(*count), model.at(frame));
            match action {
                0 => sums.save(&path).unwrap(),
                // Several changes may share a segment.
                1 => continue,
                2 => {
                    sums.append(&path).unwrap();
                    sums = valid(load(&path, model.at(frame)));
                }
                _ => sums.append(&path).unwrap(),
            }
            model.assert_is(&sums);
            model.assert_is(&valid(load(&path, model.at(frame))));
        }
    }
}

#[test]
fn appending_costs_as_much_as_the_change() {
    let folder = tempfile::tempdir().unwrap();
    let (path, states) = history(folder.path(), 50_000, &[]);
    let table = std::fs::metadata(&path).unwrap().len();
    let (at, mut model) = states[0].clone();
    let mut sums = valid(load(&path, at));
    let changes = model.change(&[7, 40_000], 50_000, 9);
    sums.apply(&changes, PageCount(50_000), model.at(2));
    sums.append(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len() - table, 40 + 2 * 20 + 4);
    sums.append(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len() - table, 84, "nothing new: nothing written");
}

#[test]
fn segments_are_folded_into_the_table_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (path, states) = history(folder.path(), 1000, &[]);
    let (at, mut model) = states[0].clone();
    let mut sums = valid(load(&path, at));
    let pages: Vec<u32> = (1..=500).collect();
    let mut longest = 0;
    for frame in 2..40 {
        let changes = model.change(&pages, 1000, frame);
        sums.apply(&changes, PageCount(1000), model.at(frame));
        sums.append(&path).unwrap();
        longest = longest.max(std::fs::metadata(&path).unwrap().len());
        model.assert_is(&valid(load(&path, model.at(frame))));
    }
    assert!((60_000..90_000).contains(&longest), "{longest}");
}

#[test]
fn every_earlier_position_reads_back_until_the_next_append_cuts_what_is_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let steps: [(&[u32], u32); 4] = [(&[1, 2], 300), (&[5], 200), (&[9], 310), (&[], 310)];
    let (path, states) = history(folder.path(), 300, &steps);
    for (at, model) in &states {
        model.assert_is(&valid(load(&path, *at)));
    }
    let (at, mut model) = states[1].clone();
    let mut sums = valid(load(&path, at));
    let changes = model.change(&[3], 300, 77);
    sums.apply(&changes, PageCount(300), model.at(77));
    sums.append(&path).unwrap();
    model.assert_is(&valid(load(&path, model.at(77))));
    states[0].1.assert_is(&valid(load(&path, states[0].0)));
    assert!(matches!(load(&path, states[2].0), Loaded::Stale { found } if found == model.at(77)));
}

#[test]
fn another_position_is_stale_and_no_file_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, states) = history(folder.path(), 10, &[(&[1], 10)]);
    let last = states[1].0;
    for other in [
        Position { frame: FrameNo(9), ..last },
        Position { generation: Generation(4), ..last },
        Position { state: StateHash(1), ..last },
    ] {
        assert!(matches!(load(&path, other), Loaded::Stale { found } if found == last));
    }
    assert!(matches!(load(&folder.path().join("none"), last), Loaded::Missing));
    let size = PageSize::new(512).unwrap();
    assert!(matches!(PageSums::load(&path, last, size).unwrap(), Loaded::Corrupt { .. }));
    assert!(PageSums::load(folder.path(), last, SIZE).is_err(), "a folder is the system's error");
}

/// The file as it is in `bytes` gives right sums for `states`, or none; says how many it gave.
fn never_wrong(path: &Path, bytes: &[u8], states: &[(Position, Model)]) -> usize {
    std::fs::write(path, bytes).unwrap();
    let mut given = 0;
    for (at, model) in states {
        if let Loaded::Valid(sums) = load(path, *at) {
            model.assert_is(&sums);
            assert_eq!(sums.position(), *at);
            given += 1;
        }
    }
    given
}

#[test]
fn a_flipped_byte_never_gives_wrong_sums() {
    let folder = tempfile::tempdir().unwrap();
    let (path, states) = history(folder.path(), 20, &[(&[1, 2], 22), (&[4], 19)]);
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(never_wrong(&path, &whole, &states), 3);
    for at in 0..whole.len() {
        for bits in [0x01, 0x80, 0xff] {
            let mut flipped = whole.clone();
            flipped[at] ^= bits;
            let given = never_wrong(&path, &flipped, &states);
            // What stands before the flipped part is still good.
            let table = 48 + 20 * 16 + 4;
            let first_segment = table + 40 + 4 * 20 + 4;
            assert_eq!(given, usize::from(at >= table) + usize::from(at >= first_segment), "byte {at}");
        }
    }
}

#[test]
fn a_truncated_file_never_gives_wrong_sums_and_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let (path, states) = history(folder.path(), 20, &[(&[1, 2], 22), (&[4], 19)]);
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        let given = never_wrong(&path, &whole[..length], &states);
        assert!(given < 3);
        let Some((at, mut model)) = given.checked_sub(1).map(|n| states[n].clone()) else { continue };
        let mut sums = valid(load(&path, at));
        let changes = model.change(&[6], 30, 99);
        sums.apply(&changes, PageCount(30), model.at(99));
        sums.append(&path).unwrap();
        model.assert_is(&valid(load(&path, model.at(99))));
    }
}

#[test]
fn garbage_and_another_databases_sums_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (path, states) = history(folder.path(), 20, &[(&[1, 2], 22)]);
    let whole = std::fs::read(&path).unwrap();
    let other = tempfile::tempdir().unwrap();
    let (strange, strange_states) = history(other.path(), 21, &[(&[3], 22)]);
    let strange = std::fs::read(strange).unwrap();
    assert_eq!(never_wrong(&path, &strange, &states), 0);
    assert!(matches!(load(&path, states[1].0), Loaded::Stale { found } if found == strange_states[1].0));
    // A segment of another file does not attach.
    let table = 48 + 20 * 16 + 4;
    let mixed = [&whole[..table], &strange[48 + 21 * 16 + 4..]].concat();
    assert_eq!(never_wrong(&path, &mixed, &[states.clone(), strange_states].concat()), 1);
    for length in [0, 1, 47, 48, 49, 5000] {
        for fill in [0x00, 0xff, b'H'] {
            assert_eq!(never_wrong(&path, &vec![fill; length], &states), 0);
            assert!(matches!(load(&path, states[0].0), Loaded::Corrupt { .. }));
        }
    }
    let newer = [&b"HWSUMS02"[..], &whole[8..]].concat();
    assert_eq!(never_wrong(&path, &newer, &states), 0);
}

#[test]
fn sums_that_do_not_add_up_to_their_state_are_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db-sums");
    let mut model = Model::default();
    let changes = model.change(&[], 5, 1);
    let mut sums = PageSums::new(model.at(0), SIZE, PageCount(5));
    sums.apply(&changes[..4], PageCount(5), model.at(1));
    assert_eq!(sums.get(PageNo(5)), None);
    sums.save(&path).unwrap();
    assert!(matches!(load(&path, model.at(1)), Loaded::Corrupt { .. }));
}

#[test]
fn a_file_that_somebody_else_wrote_is_replaced_not_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let (path, states) = history(folder.path(), 20, &[(&[1], 20)]);
    let (at, mut model) = states[1].clone();
    let mut sums = valid(load(&path, at));
    let mut longer = std::fs::read(&path).unwrap();
    longer.extend(b"something");
    std::fs::write(&path, longer).unwrap();
    let changes = model.change(&[6], 20, 99);
    sums.apply(&changes, PageCount(20), model.at(99));
    sums.append(&path).unwrap();
    model.assert_is(&valid(load(&path, model.at(99))));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 48 + 20 * 16 + 4);
    std::fs::remove_file(&path).unwrap();
    let changes = model.change(&[7], 20, 100);
    sums.apply(&changes, PageCount(20), model.at(100));
    sums.append(&path).unwrap();
    model.assert_is(&valid(load(&path, model.at(100))));
}

#[test]
fn the_lock_page_has_no_hash() {
    let size = PageSize::new(65536).unwrap();
    let at = Position { generation: Generation(1), frame: FrameNo(1), state: StateHash(0) };
    let mut sums = PageSums::new(at, size, PageCount(0));
    let lock = size.lock_page();
    let changes: Vec<_> = (1..=lock.0 + 1).map(|page| (PageNo(page), PageHash(u128::from(page)))).collect();
    sums.apply(&changes, PageCount(lock.0 + 1), at);
    assert_eq!(sums.get(lock), None);
    assert_eq!(sums.get(PageNo(lock.0 + 1)), Some(PageHash(u128::from(lock.0 + 1))));
}
