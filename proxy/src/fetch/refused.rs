//! What failed a short while ago and is refused until the engine has gone to the origin.
//!
//! containerd resumes after a truncated answer at the same mirror; one that stops at the same byte three times makes it
//! give up the pull, one that refuses makes it go on at the origin.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_oci::Digest;
use tokio::time::Instant;

use crate::store::Name;

/// Entries that are remembered; beyond it the one that ends first gives way.
const ENTRIES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Refused {
    until: Mutex<HashMap<(Name, Digest), Instant>>,
}

impl Refused {
    /// Refuses it for as long as `time` from now on; never shorter than was said before.
    pub(super) fn note(&self, name: &Name, digest: &Digest, time: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let key = (name.clone(), digest.clone());
        if let Some(end) = until.get_mut(&key) {
            *end = (*end).max(now + time);
            return;
        }
        if until.len() >= ENTRIES {
            until.retain(|_, end| *end > now);
        }
        if until.len() >= ENTRIES
            && let Some(first) = until.iter().min_by_key(|(_, end)| **end).map(|(key, _)| key.clone())
        {
            until.remove(&first);
        }
        until.insert(key, now + time);
    }

    pub(super) fn contains(&self, name: &Name, digest: &Digest) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(&(name.clone(), digest.clone())).is_some_and(|end| *end > Instant::now())
    }
}
