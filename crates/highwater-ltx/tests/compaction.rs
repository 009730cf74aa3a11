//! Compaction does in one file what its inputs do one after the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod common;

use common::*;
use highwater_ltx::*;
use proptest::prelude::*;

/// A database that changed several times: after each push its pages and what was written.
struct History {
    size: PageSize,
    states: Vec<Pages>,
    deltas: Vec<Pages>,
}

impl History {
    /// Each step: the new number of pages, and pages that change.
    fn new(size: PageSize, steps: &[(u32, Vec<(u32, u64)>)]) -> Self {
        let mut history = Self { size, states: vec![], deltas: vec![] };
        let mut state = Pages::new();
        for (commit, changes) in steps {
            let grown = state.len() as u32 + 1..=*commit;
            state.retain(|number, _| number <= commit);
            let mut delta = Pages::new();
            for (number, seed) in grown.map(|n| (n, u64::from(n))).chain(changes.iter().copied()) {
                if number <= *commit {
                    delta.insert(number, page(size, seed, 30));
                }
            }
            delta.entry(1).or_insert_with(|| page(size, history.deltas.len() as u64, 9));
            state.extend(delta.clone());
            history.states.push(state.clone());
            history.deltas.push(delta);
        }
        history
    }

    fn commit(&self, at: usize) -> u32 {
        self.states[at].len() as u32
    }

    /// The file of push `at`, as the transaction after it.
    fn file(&self, at: usize) -> Vec<u8> {
        let header = push_header(self.size, self.commit(at), at as u64 + 1, self.deltas[at].len() as u64);
        encode(header, &self.deltas[at], PageEncoding::Literal).0
    }

    fn compact(&self, from: usize, to: usize) -> (Header, Pages) {
        let files: Vec<_> = (from..=to).map(|at| self.file(at)).collect();
        let inputs = files.iter().map(|file| Decoder::new(file.as_slice()).unwrap()).collect();
        let header = Header {
            min_txid: TxId(from as u64 + 1),
            ..push_header(self.size, self.commit(to), to as u64 + 1, 0)
        };
        let (file, finished) = compact(inputs, Vec::new(), header, PageEncoding::Lz4).unwrap();
        assert_eq!(finished.bytes, file.len() as u64);
        let (read, pages, index) = decode(&file).unwrap();
        assert_eq!(index, finished.index);
        assert_eq!(read, header);
        (read, pages)
    }
}

/// What a file does to a database.
fn apply(base: &Pages, delta: &Pages, commit: u32) -> Pages {
    let mut state = base.clone();
    state.extend(delta.clone());
    state.retain(|number, _| *number <= commit);
    state
}

fn histories() -> impl Strategy<Value = Vec<(u32, Vec<(u32, u64)>)>> {
    let changes = prop::collection::vec((1u32..25, any::<u64>()), 0..6);
    prop::collection::vec((1u32..25, changes), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_compaction_does_what_its_files_do(steps in histories(), from in 0usize..8, bits in 9u32..12) {
        let history = History::new(page_size(1 << bits), &steps);
        let last = steps.len() - 1;
        let from = from.min(last);
        let (_, delta) = history.compact(from, last);
        let base = if from == 0 { Pages::new() } else { history.states[from - 1].clone() };
        prop_assert_eq!(apply(&base, &delta, history.commit(last)), history.states[last].clone());
        // It carries nothing that no input carries.
        for number in delta.keys() {
            prop_assert!(history.deltas[from..].iter().any(|input| input.contains_key(number)));
        }
        if from == 0 {
            prop_assert_eq!(&delta, &history.states[last]);
        }
    }
}

#[test]
fn a_snapshot_and_later_files_make_the_next_snapshot() {
    let size = page_size(512);
    let history = History::new(size, &[(9, vec![]), (12, vec![(3, 5)]), (4, vec![]), (11, vec![(2, 8)])]);
    let snapshot = encode(snapshot_header(size, 12, 2), &history.states[1], PageEncoding::Lz4).0;
    let files = [snapshot, history.file(2), history.file(3)];
    let inputs = files.iter().map(|file| Decoder::new(file.as_slice()).unwrap()).collect();
    let header = snapshot_header(size, 11, 4);
    let (file, _) = compact(inputs, Vec::new(), header, PageEncoding::Lz4).unwrap();
    assert_eq!(decode(&file).unwrap().1, history.states[3]);
}

#[test]
fn a_page_that_was_cut_off_never_comes_back() {
    // 6 pages, cut to 3, grown to 6 again by a file that forgets page 5.
    let size = page_size(512);
    let state = |n: u32| -> Pages { (1..=n).map(|n| (n, page(size, n.into(), 8))).collect() };
    let mut grown: Pages = [(1, page(size, 70, 8)), (4, page(size, 71, 8)), (6, page(size, 72, 8))].into();
    let files = |grown: &Pages| {
        [
            encode(push_header(size, 6, 5, 6), &state(6), PageEncoding::Lz4).0,
            encode(push_header(size, 3, 6, 1), &state(1), PageEncoding::Lz4).0,
            encode(push_header(size, 6, 7, 3), grown, PageEncoding::Lz4).0,
        ]
    };
    let all = |files: &[Vec<u8>]| {
        let inputs = files.iter().map(|file| Decoder::new(file.as_slice()).unwrap()).collect();
        let header = Header { min_txid: TxId(5), ..push_header(size, 6, 7, 0) };
        compact(inputs, Vec::new(), header, PageEncoding::Lz4).map(|(file, _)| decode(&file).unwrap().1)
    };
    assert!(matches!(all(&files(&grown)), Err(Error::Refused { .. })));
    let six = grown.remove(&6).unwrap();
    grown.insert(5, six.clone());
    assert!(matches!(all(&files(&grown)), Err(Error::Refused { .. })), "the last page is missing");
    grown.insert(6, six);
    let pages = all(&files(&grown)).unwrap();
    assert_eq!(pages, apply(&state(3), &grown, 6));
}

#[test]
fn files_that_do_not_follow_each_other_are_refused() {
    let size = page_size(512);
    let history = History::new(size, &[(3, vec![]), (3, vec![(2, 9)]), (4, vec![])]);
    let files: Vec<_> = (0..3).map(|at| history.file(at)).collect();
    let header = Header { min_txid: TxId(1), ..push_header(size, 4, 3, 0) };
    let run = |files: &[&[u8]], header: Header| {
        let inputs = files.iter().map(|file| Decoder::new(*file).unwrap()).collect();
        compact(inputs, Vec::new(), header, PageEncoding::Lz4).map(|_| ())
    };
    let [a, b, c] = [&files[0][..], &files[1], &files[2]];
    run(&[a, b, c], header).unwrap();
    let other =
        encode(push_header(page_size(1024), 1, 2, 1), &[(1, vec![0; 1024])].into(), PageEncoding::Lz4).0;
    for (why, files, header) in [
        ("a file is missing", vec![a, c], header),
        ("out of order", vec![a, c, b], header),
        ("newest first", vec![c, b, a], header),
        ("none at all", vec![], header),
        ("another page size", vec![a, &other, c], header),
        ("another range", vec![b, c], header),
        ("another size", vec![a, b, c], Header { commit: PageCount(3), ..header }),
        ("another page size in the header", vec![a, b, c], Header { page_size: page_size(4096), ..header }),
    ] {
        assert!(matches!(run(&files, header), Err(Error::Refused { .. })), "{why}");
    }
}

#[test]
fn damage_in_any_input_fails_the_whole() {
    let size = page_size(512);
    let history = History::new(size, &[(8, vec![]), (3, vec![]), (3, vec![(2, 9)])]);
    let header = Header { min_txid: TxId(1), ..push_header(size, 3, 3, 0) };
    for at in 0..3 {
        let mut files: Vec<_> = (0..3).map(|at| history.file(at)).collect();
        // Even in a page that the result does not need.
        let last = files[at].len() - 1;
        files[at][last] ^= 1;
        let inputs = files.iter().map(|file| Decoder::new(file.as_slice()).unwrap()).collect();
        let error = compact(inputs, Vec::new(), header, PageEncoding::Lz4).unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }), "{at}: {error}");
    }
}
