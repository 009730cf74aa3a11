//! The end of a history: everybody syncs until nothing moves, and then everything must hold.

use anyhow::Result;
use highwater::At;
use rusqlite::Connection;

use crate::contents::Contents;
use crate::device::{connect, image};
use crate::history::{Broken, History, broken};
use crate::plan::Trouble;
use crate::schema::Feature;

/// Everybody is in sync after so many rounds.
const ROUNDS: usize = 4;

impl History<'_> {
    /// Brings everybody together, lets everybody write once more, and compares. Returns the state's hash.
    pub(crate) fn come_to_rest(&mut self) -> Result<String, Broken> {
        self.settle()?;
        self.deliver()?;
        self.settle()?;
        self.trace.push("all is quiet".to_owned());
        // Connections that kept their schema read and write the right tables.
        for number in 0..self.plan.devices {
            let device = self.device(number)?;
            let fresh = Contents::read(&device.connect()?)?;
            if *device.contents()? != fresh {
                return broken(
                    "schema",
                    format!("device {number}: its open connection sees other rows than a new one"),
                );
            }
            device.write(&[u64::try_from(number)? + 1, u64::try_from(number)? + 7])?;
        }
        self.settle()?;
        self.compare_files()?;
        let (path, _) = self.restored(At::Head)?;
        let connection = connect(&path, self.plan.page_size)?;
        sound(&connection, &self.plan.features)?;
        self.pay_debts()?;
        let state =
            highwater::RemoteDatabase::new(&self.relay.url(&self.spot.name), None)?.info_blocking()?;
        Ok(state.head.state.clone())
    }

    fn settle(&mut self) -> Result<(), Broken> {
        for _ in 0..ROUNDS {
            let mut moved = false;
            for number in 0..self.plan.devices {
                moved |= self.sync(number, &Trouble::default())?;
                if self.plan.libsql.contains(&number) {
                    // The first pushed, or this one finds nothing more.
                    moved |= self.sync(number, &Trouble::default())?;
                }
            }
            if !moved {
                return Ok(());
            }
        }
        broken("restless", format!("after {ROUNDS} rounds of syncs there is still something to move"))
    }

    /// Every file has the very pages that the server has.
    fn compare_files(&mut self) -> Result<(), Broken> {
        let head = canonical_image(&connect(&self.restored(At::Head)?.0, self.plan.page_size)?)?;
        for number in 0..self.plan.devices {
            let theirs = canonical_image(self.device(number)?.connection()?)?;
            if theirs != head {
                let size = usize::try_from(self.plan.page_size)?;
                let differ =
                    theirs.chunks(size).zip(head.chunks(size)).enumerate().filter(|(_, (l, r))| l != r);
                let differ: Vec<usize> = differ.map(|(at, _)| at + 1).collect();
                return broken(
                    "pages",
                    format!("device {number}: its pages {differ:?} are not the server's"),
                );
            }
        }
        Ok(())
    }

    /// What is not in the result is in a record.
    fn pay_debts(&mut self) -> Result<(), Broken> {
        if self.debts.is_empty() {
            return Ok(());
        }
        let words = self.records()?;
        let debts = std::mem::take(&mut self.debts);
        match debts.iter().find(|debt| debt.any_of.is_disjoint(&words)) {
            Some(debt) => broken("unrecorded", format!("{}: {:?} is in no record", debt.why, debt.any_of)),
            None => Ok(()),
        }
    }
}

/// The canonical bytes of a database.
fn canonical_image(connection: &Connection) -> Result<Vec<u8>> {
    let mut bytes = image(connection)?;
    highwater_pages::canonicalise_first_page(&mut bytes);
    Ok(bytes)
}

/// What SQLite can check itself.
fn sound(connection: &Connection, features: &[Feature]) -> Result<(), Broken> {
    let ask = |sql: &str| -> Result<String> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let first = rows.next()?.map(|row| row.get_ref(0).map(|value| format!("{value:?}")));
        Ok(first.transpose()?.unwrap_or_default())
    };
    let check = ask("SELECT group_concat(integrity_check, '; ') FROM pragma_integrity_check")?;
    if check != ask("SELECT 'ok'")? {
        return broken("integrity", check);
    }
    let check = ask("SELECT \"table\" || ' ' || rowid || ' -> ' || parent FROM pragma_foreign_key_check")?;
    if !check.is_empty() {
        return broken("foreign keys", check);
    }
    for feature in features {
        match feature {
            Feature::Notes => {
                connection.execute_batch("INSERT INTO notes(notes) VALUES ('integrity-check')")?
            }
            Feature::Docs => {
                connection
                    .execute_batch("INSERT INTO docs_fts(docs_fts, rank) VALUES ('integrity-check', 1)")?;
            }
            Feature::Boxes if ask("SELECT rtreecheck('boxes')")? != ask("SELECT 'ok'")? => {
                return broken("r-tree", ask("SELECT rtreecheck('boxes')")?);
            }
            Feature::Gens => {
                let wrong = ask(
                    "SELECT id FROM gens WHERE g_s IS NOT upper(a) OR g_v IS NOT coalesce(a, '-') || coalesce(b, '-')",
                )?;
                if !wrong.is_empty() {
                    return broken("generated", format!("row {wrong} has another value than is computed"));
                }
            }
            Feature::Logs => {
                let wrong = ask(
                    "SELECT seq FROM sqlite_sequence WHERE name = 'logs' AND seq < (SELECT max(id) FROM logs)",
                )?;
                if !wrong.is_empty() {
                    return broken(
                        "sequence",
                        format!("the next id is below {wrong} although a larger one is used"),
                    );
                }
            }
            _ => {}
        }
    }
    Ok(())
}
