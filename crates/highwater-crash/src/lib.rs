//! The crash matrix: what becomes of the data when the power is cut at any moment.
//!
//! A client or a server runs in a process of its own, under a recorder that writes down each operation on its
//! files: Highwater's own, those of SQLite inside of it, and those of the object store. From the records follows
//! what a disk may hold after a power cut behind any one of them: nothing of what was not waited for, a random part
//! of it, or the last write torn. Each such disk is made, everybody syncs, and all copies must then hold exactly
//! what was committed. Recoveries are recorded and crash, too.
//!
//! | module | what it is for |
//! |---|---|
//! | [`scenario`] | what happens: the place to add a case |
//! | `disk` | what a crash leaves, and what is assumed of disks: the place to add a kind of crash |
//! | `trace`, `recorder/recorder.c` | the operations of a process |
//! | `folder`, `gate`, `world` | the machines, and the network between them |
//! | `record` | a run under the recorder, with what all others had meanwhile |
//! | [`matrix`] | all crashes, and the proof |
//!
//! Linux only: elsewhere nothing can be loaded before the C library in this way. Memory that is mapped is not seen;
//! SQLite maps only its `-shm` file, which is made anew after a crash.

mod disk;
mod folder;
mod gate;
pub mod matrix;
mod record;
pub mod scenario;
mod trace;
mod world;

use std::path::Path;

use anyhow::{Context, Result};

/// What a recorded process does: one sync.
///
/// # Errors
/// Those of the sync.
pub fn act_sync(db: &Path, url: &str) -> Result<()> {
    world::sync(db, url).map(drop)
}

/// What a recorded process does: it writes rows, without waiting for the disk.
///
/// # Errors
/// SQLite's.
pub fn act_write(db: &Path, rows: &str) -> Result<()> {
    world::write(db, &serde_json::from_str(rows)?, "NORMAL")
}

/// What a recorded process does: it serves a store until it is killed, and prints its address.
///
/// # Errors
/// Those of the server.
#[allow(clippy::print_stdout, reason = "the address is what it is asked for")]
pub fn act_serve(store: &Path, snapshot_after: u32) -> Result<()> {
    let config = world::config(store, snapshot_after);
    let server = highwater_server::Embedded::start(config, ([127, 0, 0, 1], 0).into()).context("a server")?;
    println!("{}", server.addr());
    loop {
        std::thread::park();
    }
}
