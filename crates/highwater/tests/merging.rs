//! Two devices wrote, both are right: every rule of docs/MERGING.md with real clients, a real server and plain SQL;
//! what other systems get wrong; and that everything arrives once, whatever the network and the application do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

mod common;
#[allow(dead_code, reason = "each test program uses a part")]
mod proxy;

#[path = "merging/contention.rs"]
mod contention;
#[path = "merging/once.rs"]
mod once;
#[path = "merging/peers.rs"]
mod peers;
#[path = "merging/rebase.rs"]
mod rebase;
#[path = "merging/rules.rs"]
mod rules;

use common::{World, assert_same};
use highwater::{Action, Conflict, ConflictKind, Database, SyncOutcome};
use rusqlite::Connection;

/// Two devices with the same database, each with an application that keeps its connection open.
pub struct Pair {
    pub world: World,
    pub phone: Database,
    pub tablet: Database,
    pub on_phone: Connection,
    pub on_tablet: Connection,
}

impl Pair {
    /// Both start from what this SQL makes.
    pub fn new(setup: &str) -> Self {
        let world = World::new();
        let (phone, tablet) = (world.open("phone.db"), world.open("tablet.db"));
        let on_phone = phone.connect().unwrap();
        on_phone.execute_batch(setup).unwrap();
        phone.sync_blocking().unwrap();
        tablet.sync_blocking().unwrap();
        let on_tablet = tablet.connect().unwrap();
        Self { world, phone, tablet, on_phone, on_tablet }
    }

    /// Both write offline; the phone syncs first, then the tablet, which is merged, then the phone again.
    pub fn merge(&self, phone: &str, tablet: &str) -> SyncOutcome {
        self.on_phone.execute_batch(phone).unwrap();
        self.on_tablet.execute_batch(tablet).unwrap();
        self.phone.sync_blocking().unwrap();
        let merged = self.tablet.sync_blocking().unwrap();
        assert_eq!((merged.action, merged.merged), (Action::Merged, true), "{merged:?}");
        assert_eq!(merged.conflict_count, merged.conflicts.len() as u64, "{merged:?}");
        self.settle();
        merged
    }

    /// Everybody syncs; all have the same, and nothing is left to do.
    pub fn settle(&self) {
        self.phone.sync_blocking().unwrap();
        self.tablet.sync_blocking().unwrap();
        self.phone.sync_blocking().unwrap();
        for db in [&self.phone, &self.tablet] {
            let idle = db.sync_blocking().unwrap();
            assert_eq!((idle.action, idle.requests), (Action::UpToDate, 1), "{idle:?}");
        }
        assert_same(self.phone.path(), self.tablet.path());
        assert_same(self.phone.path(), &self.world.restored("app"));
    }

    /// A query's rows, the same on both devices and on the connections that stayed open.
    pub fn all(&self, sql: &str) -> Vec<String> {
        let found = query(&self.on_phone, sql);
        assert_eq!(found, query(&self.on_tablet, sql), "{sql}");
        found
    }
}

/// A query's rows, their values separated by bars.
pub fn query(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        let value = |at| match row.get_ref(at).unwrap() {
            rusqlite::types::ValueRef::Null => "NULL".to_owned(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            rusqlite::types::ValueRef::Real(number) => number.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Blob(bytes) => format!("{bytes:02x?}"),
        };
        // Of the statement as it runs: another device may have changed the table.
        let columns = row.as_ref().column_count();
        Ok((0..columns).map(value).collect::<Vec<_>>().join("|"))
    };
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

/// Kinds and tables.
pub fn kinds(outcome: &SyncOutcome) -> Vec<(ConflictKind, &str)> {
    outcome.conflicts.iter().map(|conflict| (conflict.kind, conflict.table.as_str())).collect()
}

/// The only conflict.
pub fn only(outcome: &SyncOutcome) -> &Conflict {
    assert_eq!(outcome.conflicts.len(), 1, "{outcome:#?}");
    &outcome.conflicts[0]
}

/// A column of a row of a conflict, as SQL.
pub fn value(row: Option<&highwater::RowJson>, column: &str) -> String {
    row.unwrap().iter().find(|(name, _)| name == column).map(|(_, value)| value.to_string()).unwrap()
}
