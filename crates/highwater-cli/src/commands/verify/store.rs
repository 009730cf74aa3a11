//! A store: every file of every database, read by the server's own checker.

use std::path::Path;

use highwater_server::{DatabaseReport, Store, StoreReport, StoreUrl, verify_store};

use super::verdict;
use crate::failure::Failure;
use crate::output::{Bytes, Output, count, time};
use crate::progress;

pub(super) fn verify(target: &str, out: &Output) -> Result<(), Failure> {
    let url: StoreUrl = target.parse().map_err(Failure::usage)?;
    // Opening a store makes its folder; looking must not.
    if let StoreUrl::Local(folder) = &url
        && !Path::new(folder).is_dir()
    {
        return Err(Failure::failed("no_such_store", format!("there is no folder {}", folder.display())));
    }
    let store = Store::open(&url)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("io", format!("the check could not be started: {error}")))?;
    let bar = progress::Spinner::new(out.is_json());
    let result = runtime.block_on(verify_store(&store, |at| {
        bar.say(|| format!("{}: {} checked, {}", at.database, count(at.files, "file"), Bytes(at.bytes)));
    }));
    bar.clear();
    let report = result?;
    let faults = report.databases.iter().map(|database| database.faults.len()).sum();
    print(target, &report, out)?;
    verdict(target, faults, out)
}

fn print(target: &str, report: &StoreReport, out: &Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.value(&serde_json::json!({
            "target": target,
            "kind": "store",
            "ok": report.is_ok(),
            "databases": report.databases,
        }));
    }
    if report.databases.is_empty() {
        return out.line(format_args!("{target} holds no database."));
    }
    report.databases.iter().try_for_each(|database| print_database(database, out))
}

fn print_database(database: &DatabaseReport, out: &Output) -> Result<(), Failure> {
    let place =
        database.head.as_deref().and_then(|head| head.rsplit_once('/')).map_or("?", |(place, _)| place);
    let deleted = database.deleted_ms.map_or_else(String::new, |at| {
        format!("; deleted {}, `highwater admin undelete` brings it back", time(at))
    });
    let mark = if database.faults.is_empty() { "ok" } else { "PROBLEM" };
    let snapshots = if database.snapshots == 0 {
        String::new()
    } else {
        format!(" and {}", count(database.snapshots, "snapshot"))
    };
    out.line(format_args!(
        "{mark:<8} {:<20} {}{snapshots}, {}; head at {place}{deleted}",
        database.name,
        count(database.pushes, "transaction"),
        Bytes(database.bytes),
    ))?;
    database
        .faults
        .iter()
        .try_for_each(|fault| out.line(format_args!("         {}: {}", fault.object, fault.what)))
}
