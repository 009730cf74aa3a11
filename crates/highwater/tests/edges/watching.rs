//! Syncing in the background.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use highwater::{Action, Database, ErrorKind, Watch, WatchOptions};

use crate::common::{World, assert_same, fill, insert};
use crate::support::{Fake, builder, within};

type Events = Arc<Mutex<Vec<Result<Action, ErrorKind>>>>;

fn watch(database: &Database, interval: u64) -> (Watch, Events) {
    let events = Events::default();
    let options =
        WatchOptions { interval: Duration::from_millis(interval), after_commit: Duration::from_millis(50) };
    let seen = Arc::clone(&events);
    let watch = database.watch(options, move |event| {
        seen.lock().unwrap().push(event.map(|outcome| outcome.action).map_err(|error| error.kind()));
    });
    (watch, events)
}

fn count(events: &Events, wanted: Result<Action, ErrorKind>) -> usize {
    events.lock().unwrap().iter().filter(|event| **event == wanted).count()
}

#[test]
fn a_commit_is_pushed_soon_after_and_a_burst_at_once() {
    let world = World::new();
    let database = world.open("app.db");
    let connection = fill(&database, 1);
    let (watch, events) = watch(&database, 60_000);
    within(Duration::from_secs(5), "the first sync", || count(&events, Ok(Action::Pushed)) == 1);
    for round in 0..5 {
        // From a connection of this process, and from another program's point of view.
        let other = rusqlite::Connection::open(database.path()).unwrap();
        insert(if round % 2 == 0 { &connection } else { &other }, 1);
        drop(other);
        let took = within(Duration::from_secs(5), "a push after a commit", || {
            count(&events, Ok(Action::Pushed)) == round + 2
        });
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let before = database.info_blocking().unwrap().txid;
    for _ in 0..300 {
        insert(&connection, 1);
    }
    within(Duration::from_secs(5), "the burst", || database.status().unwrap().unpushed_pages == Some(0));
    let pushes = database.info_blocking().unwrap().txid - before;
    assert!((1..60).contains(&pushes), "{pushes} pushes for 300 commits");
    watch.stop();
    assert_same(database.path(), &world.restored("app"));
}

#[test]
fn changes_of_others_arrive_at_the_interval() {
    let world = World::new();
    let (a, b) = (world.open("a.db"), world.open("b.db"));
    let on_a = fill(&a, 1);
    a.sync_blocking().unwrap();
    // The copy does not exist yet: the watch makes it.
    let (watch, events) = watch(&b, 200);
    within(Duration::from_secs(5), "the first copy", || count(&events, Ok(Action::Bootstrapped)) == 1);
    for round in 1..=3 {
        insert(&on_a, 5);
        a.sync_blocking().unwrap();
        within(Duration::from_secs(5), "a pull", || count(&events, Ok(Action::Pulled)) == round);
        assert_same(a.path(), b.path());
    }
    // A pull of our own is no commit of the application's: nothing is pushed for it.
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(count(&events, Ok(Action::Pushed)), 0);
    assert_eq!(a.info_blocking().unwrap().txid, 4);
    watch.stop();
}

#[test]
fn offline_and_back_again() {
    let mut world = World::new();
    let database =
        builder(&world.path("app.db"), &world.url("app")).timeout(Duration::from_millis(100)).open().unwrap();
    let connection = fill(&database, 1);
    let (watch, events) = watch(&database, 200);
    within(Duration::from_secs(5), "the first push", || count(&events, Ok(Action::Pushed)) == 1);
    world.stop_server();
    insert(&connection, 7);
    within(Duration::from_secs(5), "being offline", || count(&events, Err(ErrorKind::Offline)) >= 2);
    let tried = count(&events, Err(ErrorKind::Offline));
    for _ in 0..20 {
        insert(&connection, 1);
    }
    assert!(
        count(&events, Err(ErrorKind::Offline)) <= tried + 2,
        "commits do not make it ask a dead network more often"
    );
    world.start_server();
    let took = within(Duration::from_secs(10), "being back", || count(&events, Ok(Action::Pushed)) == 2);
    println!("back after {took:?}");
    watch.stop();
    assert_same(database.path(), &world.restored("app"));
}

#[test]
fn a_conflict_is_told_once_and_again_when_something_was_committed() {
    let world = World::new();
    let b = world.builder("b.db").merge_policy(highwater::MergePolicy::Fail).open().unwrap();
    let a = world.open("a.db");
    let on_a = fill(&a, 1);
    a.sync_blocking().unwrap();
    b.sync_blocking().unwrap();
    let on_b = b.connect().unwrap();
    on_a.execute("UPDATE t SET text='of a'", []).unwrap();
    a.sync_blocking().unwrap();
    on_b.execute("UPDATE t SET text='of b'", []).unwrap();
    let (watch, events) = watch(&b, 100);
    within(Duration::from_secs(5), "the conflict", || count(&events, Err(ErrorKind::Conflict)) == 1);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(events.lock().unwrap().len(), 1, "it is not told at every interval");
    insert(&on_b, 1);
    within(Duration::from_secs(5), "the conflict again", || count(&events, Err(ErrorKind::Conflict)) == 2);
    watch.stop();
    assert_eq!(count(&events, Ok(Action::Pushed)), 0);
    assert_same(a.path(), &world.restored("app"));
}

#[test]
fn stopping_does_not_wait_for_the_interval() {
    let world = World::new();
    let database = world.open("app.db");
    let _connection = fill(&database, 1);
    let (watch, events) = watch(&database, 3_600_000);
    within(Duration::from_secs(5), "the first push", || count(&events, Ok(Action::Pushed)) == 1);
    let began = Instant::now();
    watch.stop();
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    // While the server cannot be reached, too; and by dropping it.
    let dead = builder(&world.path("dead.db"), "http://127.0.0.1:1/app")
        .timeout(Duration::from_millis(100))
        .open()
        .unwrap();
    let (watch, events) = self::watch(&dead, 1000);
    within(Duration::from_secs(5), "being offline", || !events.lock().unwrap().is_empty());
    let began = Instant::now();
    drop(watch);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[test]
fn stopping_during_a_sync_ends_with_it_within_its_timeouts() {
    let world = World::new();
    let silent = Fake::start(|_, _| std::thread::sleep(Duration::from_secs(60)));
    let database = builder(&world.path("app.db"), &silent.url("app"))
        .timeout(Duration::from_millis(500))
        .idle_timeout(Duration::from_millis(500))
        .open()
        .unwrap();
    let _connection = fill(&database, 1);
    let (watch, _) = watch(&database, 100);
    within(Duration::from_secs(5), "a request", || {
        silent.requests.load(std::sync::atomic::Ordering::SeqCst) > 0
    });
    let began = Instant::now();
    watch.stop();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
