//! All objects by name, which counts how many of them are looked at: what a change costs must not grow with their number, and whoever goes through all of
//! them for one change is found out by that (`larder_controller_objects_visited_total`, and a case in `tests/controller`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Object;

/// Objects, by name.
#[derive(Debug, Default)]
pub struct Objects {
    all: BTreeMap<String, Arc<Object>>,
    visited: AtomicU64,
}

impl Objects {
    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Arc<Object>> {
        self.visit();
        self.all.get(name)
    }

    /// All of them, in the order of their names. Not for a single change.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.all.values().inspect(|_| self.visit())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many were looked at since this was last asked.
    pub fn take_visited(&self) -> u64 {
        self.visited.swap(0, Ordering::Relaxed)
    }

    pub(super) fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        self.all.insert(object.name.clone(), object)
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Object>> {
        self.all.remove(name)
    }

    fn visit(&self) {
        self.visited.fetch_add(1, Ordering::Relaxed);
    }
}
