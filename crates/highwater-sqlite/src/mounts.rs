//! Which image a file name stands for, between the call that opens a connection and SQLite's own opening of
//! the file, which takes the entry out. So each image is opened once, and nothing is left behind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::image::Image;

/// An image that two own: SQLite's file handle, and the caller who asks what changed.
pub(crate) type Shared = Arc<Mutex<Image>>;

const PREFIX: &str = "snapshot-";

static NEXT: AtomicU64 = AtomicU64::new(1);
static WAITING: Mutex<Option<HashMap<u64, Shared>>> = Mutex::new(None);

/// An image that waits for being opened; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Mount(u64);

impl Mount {
    pub(crate) fn new(image: Shared) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get_or_insert_default().insert(id, image);
        Self(id)
    }

    /// The name under which SQLite opens it.
    pub(crate) fn name(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        take_id(self.0);
    }
}

/// The image of that name, once.
pub(crate) fn take(name: &str) -> Option<Shared> {
    take_id(name.strip_prefix(PREFIX)?.parse().ok()?)
}

fn take_id(id: u64) -> Option<Shared> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.remove(&id)
}
