//! How much there is: one sum for what is finished and what is being written, so that a blob that passes from one to the other never
//! counts twice. A store whose limit is close would take the moment for being full.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes, in whole blocks of the disk.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    all: AtomicU64,
    unfinished: AtomicU64,
}

impl Occupancy {
    /// Everything: exact as soon as all that was here at start has been counted.
    pub(super) fn all(&self) -> u64 {
        self.all.load(Ordering::SeqCst)
    }

    /// What is being written, or was left unfinished.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished.load(Ordering::SeqCst)
    }

    /// More of what is unfinished.
    pub(super) fn grow(&self, bytes: u64) {
        self.all.fetch_add(bytes, Ordering::SeqCst);
        self.unfinished.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Less of what is unfinished.
    pub(super) fn shrink(&self, bytes: u64) {
        self.all.fetch_sub(bytes, Ordering::SeqCst);
        self.unfinished.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// What is finished was `before` and is `after`, of which `claimed` bytes were counted as unfinished until now.
    pub(super) fn change(&self, before: u64, after: u64, claimed: u64) {
        // Wrapping sums of differences: the total is exact as soon as every change has arrived.
        self.all.fetch_add(after.wrapping_sub(before).wrapping_sub(claimed), Ordering::SeqCst);
        self.unfinished.fetch_sub(claimed, Ordering::SeqCst);
    }
}
