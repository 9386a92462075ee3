//! Blobs that were not there, or not as they should be, until somebody looks at the pins that reach them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use larder_oci::Digest;
use tokio::sync::Notify;

/// More than these are forgotten: who looks at all pins in turn finds them.
const MAXIMUM: usize = 10_000;

/// Told by whoever reads, asked by whoever looks after pins.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    digests: Mutex<BTreeSet<Digest>>,
    told: Notify,
}

impl Lost {
    fn digests(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One was not there, or is dropped.
    pub(crate) fn tell(&self, digest: &Digest) {
        let mut digests = self.digests();
        if digests.len() < MAXIMUM && digests.insert(digest.clone()) {
            drop(digests);
            self.told.notify_one();
        }
    }

    /// Waits for some.
    pub(crate) async fn next(&self) -> BTreeSet<Digest> {
        loop {
            let digests = std::mem::take(&mut *self.digests());
            if !digests.is_empty() {
                return digests;
            }
            self.told.notified().await;
        }
    }
}
