//! One at a time for each key: whoever comes second finds what the first has brought.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::store::lease::lock;

/// Entries beyond which those that nobody waits for are dropped.
const TIDY: usize = 64;

pub(super) struct Turns<K> {
    waiting: Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::default() }
    }

    /// Waits until nobody else has this key. The turn lasts as long as what is returned.
    pub(super) async fn take(&self, key: &K) -> OwnedMutexGuard<()> {
        let turn = {
            let mut waiting = lock(&self.waiting);
            if let Some(turn) = waiting.get(key).and_then(Weak::upgrade) {
                turn
            } else {
                if waiting.len() >= TIDY {
                    waiting.retain(|_, turn| turn.strong_count() > 0);
                }
                let turn = Arc::new(tokio::sync::Mutex::new(()));
                waiting.insert(key.clone(), Arc::downgrade(&turn));
                turn
            }
        };
        turn.lock_owned().await
    }
}
