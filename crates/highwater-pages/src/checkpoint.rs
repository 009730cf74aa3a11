//! Keeping the log of a copy that only receives from growing without end.
//!
//! An application's own commits checkpoint the log as they go. A copy that is only pulled into has
//! nobody who would: Highwater's connections never checkpoint by themselves, because SQLite before
//! 3.51.3 can corrupt a database when one connection writes and another checkpoints at the same
//! time, and the application's SQLite may be that old. So this checkpoint runs while another
//! connection of ours holds the write lock: nobody can write meanwhile, whatever their version.

use crate::error::Result;
use crate::replica::{JournalMode, Replica};

/// The log is left alone until it has about as many pages as SQLite's own automatic checkpoint
/// waits for.
const PAGES: u64 = 1000;

impl Replica {
    /// Moves the log's pages into the file if the log has grown large and nobody is in the way.
    /// Blocks writers for as long as it takes, and nobody else. Returns whether it ran.
    pub fn checkpoint_if_large(&self) -> Result<bool> {
        if self.journal_mode()? != JournalMode::Wal {
            return Ok(false);
        }
        let bytes = std::fs::metadata(self.wal_path()).map_or(0, |meta| meta.len());
        if bytes <= PAGES * self.page_size()?.frame_size() {
            return Ok(false);
        }
        let guard = self.reopen()?;
        guard.execute("taking the write lock", "BEGIN IMMEDIATE")?;
        let moved = self.execute("checkpointing", "PRAGMA replica.wal_checkpoint(PASSIVE)");
        guard.execute("giving the write lock back", "ROLLBACK")?;
        moved.map(|()| true)
    }
}
