//! Bits that become others on a network without TLS: in every byte of what the protocol says beside its bodies, in
//! requests and in answers, and in bodies without checksums of their own. Nothing damaged is ever acted upon; it is sent
//! again, and the sync ends as if nothing had happened.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod common;
#[allow(dead_code, reason = "each test program uses a part")]
mod proxy;

use std::ops::Range;
use std::time::Duration;

use common::{World, assert_same, fill, rows};
use highwater::{Action, Builder, Database, MergePolicy, RemoteDatabase};
use proxy::{Fault, Part, Proxy};
use rusqlite::Connection;

/// So many worlds share the work: most of the time is spent in pauses before requests are sent again.
const AT_ONCE: usize = 8;

/// A device behind a relay, and another one beside it.
struct Pair {
    world: World,
    proxy: Proxy,
    here: Database,
    there: Database,
    writer: Connection,
}

impl Pair {
    fn new() -> Self {
        let world = World::in_memory(|_| ());
        let proxy = Proxy::start(world.server.as_ref().unwrap().addr());
        let builder = Builder::new(world.path("here.db")).remote(proxy.url("app"));
        let here = builder
            .merge_policy(MergePolicy::FirstPushWins)
            .timeout(Duration::from_secs(20))
            .idle_timeout(Duration::from_secs(2))
            .open()
            .unwrap();
        let there = world.open("there.db");
        let writer = fill(&there, 3);
        there.sync_blocking().unwrap();
        here.sync_blocking().unwrap();
        Self { world, proxy, here, there, writer }
    }

    fn pushes(&self) -> u64 {
        RemoteDatabase::new(&self.world.url("app"), None).unwrap().info_blocking().unwrap().txid
    }

    /// Nobody made another database of a damaged name.
    fn assert_alone(&self) {
        let names: Vec<_> = std::fs::read_dir(self.world.path("store"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.') && !name.starts_with("highwater"))
            .collect();
        assert_eq!(names, ["app"]);
    }
}

fn write(connection: &Connection, round: usize) {
    connection.execute("UPDATE t SET text=?1 WHERE id=1", [format!("round {round}")]).unwrap();
}

/// Does this for every one of the places, in several worlds.
fn share(places: Range<usize>, work: impl Fn(&Pair, usize) + Sync) {
    std::thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let (places, work) = (places.clone(), &work);
            scope.spawn(move || {
                let pair = Pair::new();
                places.skip(first).step_by(AT_ONCE).for_each(|place| work(&pair, place));
                pair.assert_alone();
            });
        }
    });
}

/// One that is like those of a test, to count its bytes. They differ by a few digits.
fn longest(message: impl Fn(&Proxy) -> Vec<u8>) -> usize {
    let pair = Pair::new();
    write(&pair.here.connect().unwrap(), 1_000_000);
    pair.here.sync_blocking().unwrap();
    Part::Head.places(&message(&pair.proxy)).len() + 8
}

#[test]
fn a_push_with_a_flipped_bit_anywhere_in_its_head_is_stored_once_and_as_it_was_sent() {
    let places = longest(|proxy| proxy.requests().pop().unwrap());
    assert!(places > 250, "{places}");
    share(0..places, |pair, place| {
        write(&pair.here.connect().unwrap(), place);
        let before = pair.pushes();
        pair.proxy.plan([Fault::FlipRequest(Part::Head, place)]);
        let outcome = pair.here.sync_blocking().unwrap_or_else(|error| panic!("place {place}: {error}"));
        assert_eq!((outcome.action, pair.pushes()), (Action::Pushed, before + 1), "place {place}");
        if place % 5 == 0 {
            assert_same(pair.here.path(), &pair.world.restored("app"));
        }
    });
}

#[test]
fn a_pull_with_a_flipped_bit_anywhere_in_the_head_of_its_answer_ends_well() {
    let places = longest(|proxy| proxy.answer());
    assert!(places > 150, "{places}");
    share(0..places, |pair, place| {
        write(&pair.writer, place);
        pair.there.sync_blocking().unwrap();
        pair.proxy.plan([Fault::FlipAnswer(Part::Head, place)]);
        let outcome = pair.here.sync_blocking().unwrap_or_else(|error| panic!("place {place}: {error}"));
        assert_eq!(outcome.action, Action::Pulled, "place {place}");
        assert_eq!(rows(pair.here.path()), rows(pair.there.path()), "place {place}");
        assert_eq!(pair.here.sync_blocking().unwrap().action, Action::UpToDate, "place {place}");
    });
}

#[test]
fn a_question_about_a_file_and_its_answer_with_a_flipped_bit_anywhere_are_sent_again() {
    share(0..160, |pair, place| {
        // Without what is noted beside it, the file is asked about by its content.
        let (info, sums) = (pair.world.path("here.db-info"), pair.world.path("here.db-sums"));
        let forget = || [&info, &sums].map(|file| std::fs::remove_file(file).unwrap());
        forget();
        pair.proxy.plan([Fault::FlipRequest(Part::Body, place)]);
        pair.here.sync_blocking().unwrap_or_else(|error| panic!("place {place} of the question: {error}"));
        forget();
        pair.proxy.plan([Fault::FlipAnswer(Part::Body, place)]);
        pair.here.sync_blocking().unwrap_or_else(|error| panic!("place {place} of the answer: {error}"));
        assert_eq!(pair.pushes(), 1, "place {place}");
    });
}

#[test]
fn sides_of_a_version_without_checksums_are_asked_once_more_and_then_believed() {
    let pair = Pair::new();
    for round in 0..3 {
        write(&pair.here.connect().unwrap(), round);
        pair.proxy.plan([Fault::Unsealed; 4]);
        let outcome = pair.here.sync_blocking().unwrap();
        // The second time the server has it.
        assert_eq!((outcome.action, outcome.requests), (Action::UpToDate, 2), "{outcome:?}");
        pair.there.sync_blocking().unwrap();
        write(&pair.writer, round + 100);
        pair.there.sync_blocking().unwrap();
        pair.proxy.plan([Fault::Unsealed; 4]);
        let outcome = pair.here.sync_blocking().unwrap();
        assert_eq!((outcome.action, outcome.requests), (Action::Pulled, 2), "{outcome:?}");
        assert_same(pair.here.path(), pair.there.path());
    }
}
