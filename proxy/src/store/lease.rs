//! Who has a blob open. Eviction asks here first; readers never wait for a disk here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_oci::Digest;

/// Takes a lock that nobody holds across a panic that matters: what it guards is a count, right after every step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Held {
    readers: usize,
    leaving: bool,
}

/// The blobs that are open, and those that are being removed at this moment.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<Digest, Held>>,
}

impl Leases {
    /// A lease, or `None` while the blob is being removed: it counts as gone already.
    pub(super) fn take(self: &Arc<Self>, digest: &Digest) -> Option<Lease> {
        let mut held = lock(&self.held);
        if held.get(digest).is_some_and(|held| held.leaving) {
            return None;
        }
        held.entry(digest.clone()).or_default().readers += 1;
        Some(Lease { leases: Arc::clone(self), digest: digest.clone() })
    }

    /// Whether anybody has it open.
    pub(super) fn is_held(&self, digest: &Digest) -> bool {
        lock(&self.held).get(digest).is_some_and(|held| held.readers > 0)
    }

    /// Announces that a blob is being removed; `None` if somebody has it open. At most one caller per digest at a time (the
    /// store's own lock sees to that).
    pub(super) fn leave_unless_held(self: &Arc<Self>, digest: &Digest) -> Option<Leaving> {
        let mut held = lock(&self.held);
        if held.get(digest).is_some_and(|held| held.readers > 0) {
            return None;
        }
        held.entry(digest.clone()).or_default().leaving = true;
        Some(Leaving { leases: Arc::clone(self), digest: digest.clone() })
    }

    /// The same, though somebody has it open: for damaged blobs.
    pub(super) fn leave(self: &Arc<Self>, digest: &Digest) -> Leaving {
        lock(&self.held).entry(digest.clone()).or_default().leaving = true;
        Leaving { leases: Arc::clone(self), digest: digest.clone() }
    }

    fn change(&self, digest: &Digest, change: impl FnOnce(&mut Held)) {
        let mut held = lock(&self.held);
        if let Some(entry) = held.get_mut(digest) {
            change(entry);
            if entry.readers == 0 && !entry.leaving {
                held.remove(digest);
            }
        }
    }
}

/// While it lives its blob is not evicted.
#[derive(Debug)]
pub(super) struct Lease {
    leases: Arc<Leases>,
    digest: Digest,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.change(&self.digest, |held| held.readers -= 1);
    }
}

/// While it lives its blob cannot be leased.
#[derive(Debug)]
pub(super) struct Leaving {
    leases: Arc<Leases>,
    digest: Digest,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.leases.change(&self.digest, |held| held.leaving = false);
    }
}
