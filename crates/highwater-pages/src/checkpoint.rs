//! Keeping the log of a copy that only receives from growing without end.
//!
//! An application's own commits checkpoint the log as they go. A copy that is only pulled into has
//! nobody who would: Highwater's connections never checkpoint by themselves, because SQLite before
//! 3.51.3 can corrupt a database when one connection writes and another checkpoints at the same
//! time, and the application's SQLite may be that old. So this checkpoint runs while another
//! connection of ours holds the write lock: nobody can write meanwhile, whatever their version.

use crate::error::Result;
use crate::replica::{JournalMode, Replica};
use crate::wal::{self, WalMark};

/// The log is left alone until it has as many frames as SQLite's own automatic checkpoint waits for.
const FRAMES: u64 = 1000;

impl Replica {
    /// Moves the log's pages into the file if the log has grown large since it was last restarted, and
    /// nobody is in the way. Blocks writers for as long as it takes, and nobody else. `since` is a
    /// mark from which the log is read on. Returns whether it ran.
    pub fn checkpoint_if_large(&self, since: Option<&WalMark>) -> Result<bool> {
        if self.journal_mode()? != JournalMode::Wal {
            return Ok(false);
        }
        let frames = wal::mark_locked(&self.wal_path(), since)?.map_or(0, |mark| mark.frames);
        if frames <= FRAMES {
            return Ok(false);
        }
        let guard = self.reopen()?;
        guard.execute("taking the write lock", "BEGIN IMMEDIATE")?;
        let moved = self.execute("checkpointing", "PRAGMA replica.wal_checkpoint(PASSIVE)");
        guard.execute("giving the write lock back", "ROLLBACK")?;
        moved.map(|()| true)
    }
}
