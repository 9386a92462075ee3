//! An upper bound of what the store occupies, on the disk: so that the size limit holds from the first byte, before anything was
//! counted, and also for a process that is killed again and again before it has counted.
//!
//! Invariant: what the store occupies is never more than the record says. The record is raised in steps, before the bytes come.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::{layout, record};
use crate::store::lease::lock;
use crate::store::{StoreError, document};

#[derive(Debug, Serialize, Deserialize)]
struct CeilingFile {
    version: u64,
    at_most: u64,
}

pub(super) struct Ceiling {
    /// What there may have been when the store was opened.
    at_open: u64,
    /// All that was written since then, whatever became of it.
    written: AtomicU64,
    saved: AtomicU64,
    saving: Mutex<()>,
}

impl Ceiling {
    pub(super) fn load(folder: &Folder) -> Result<Self, StoreError> {
        let at_open = record::read::<CeilingFile>(folder, layout::CEILING)?.map_or(0, |file| file.at_most);
        let (written, saved) = (AtomicU64::new(0), AtomicU64::new(at_open));
        Ok(Self { at_open, written, saved, saving: Mutex::default() })
    }

    /// Counts bytes that are about to be written.
    pub(super) fn add(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What there is at most, for as long as nothing better is known.
    pub(super) fn estimate(&self) -> u64 {
        self.at_open.saturating_add(self.written.load(Ordering::Relaxed))
    }

    /// Whether the record has to be raised before `used` bytes are there.
    pub(super) fn is_reached(&self, used: u64) -> bool {
        used > self.saved.load(Ordering::SeqCst)
    }

    /// Writes down that there are at most `at_most` bytes, which is asked once nobody else is writing it down.
    pub(super) fn save(
        &self,
        at_most: impl FnOnce() -> u64,
        write: impl FnOnce(&str, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.saving);
        // Whoever adds from here on waits for us; who added before is in the number that we are about to be told.
        let before = self.saved.swap(0, Ordering::SeqCst);
        let at_most = at_most();
        let file = CeilingFile { version: document::VERSION, at_most };
        let written = write(layout::CEILING, &serde_json::to_vec(&file).unwrap_or_default());
        self.saved.store(if written.is_ok() { at_most } else { before }, Ordering::SeqCst);
        written
    }
}
