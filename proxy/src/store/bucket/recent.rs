//! What was learnt of the bucket a moment ago. Requests are money, and a pull asks for the same things several times.
//!
//! Bounded: the longest unused goes first.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::store::lease::lock;

pub(super) struct Recent<K, V> {
    capacity: usize,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// By use; each key once.
    order: BTreeMap<u64, K>,
    uses: u64,
}

struct Entry<V> {
    value: V,
    learnt: Instant,
    used: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Recent<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::new(State { entries: HashMap::new(), order: BTreeMap::new(), uses: 0 }) }
    }

    pub(super) fn note(&self, key: K, value: V) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.uses += 1;
        let entry = Entry { value, learnt: Instant::now(), used: state.uses };
        if let Some(before) = state.entries.insert(key.clone(), entry) {
            state.order.remove(&before.used);
        }
        state.order.insert(state.uses, key);
        while state.entries.len() > self.capacity
            && let Some((_, oldest)) = state.order.pop_first()
        {
            state.entries.remove(&oldest);
        }
    }

    /// What was noted, if `fresh` says so of it and its age.
    pub(super) fn get<Q>(&self, key: &Q, fresh: impl FnOnce(&V, Duration) -> bool) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let entry = state.entries.get_mut(key)?;
        if !fresh(&entry.value, entry.learnt.elapsed()) {
            return None;
        }
        state.uses += 1;
        if let Some(key) = state.order.remove(&entry.used) {
            state.order.insert(state.uses, key);
        }
        entry.used = state.uses;
        Some(entry.value.clone())
    }

    pub(super) fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut state = lock(&self.state);
        if let Some(entry) = state.entries.remove(key) {
            state.order.remove(&entry.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_is_forgotten_first() {
        let recent = Recent::new(3);
        let always = |_: &u8, _: Duration| true;
        for key in ["a", "b", "c"] {
            recent.note(key, 1);
        }
        assert_eq!(recent.get("a", always), Some(1));
        recent.note("c", 2);
        recent.note("d", 1);
        assert_eq!(recent.get("b", always), None);
        recent.note("e", 1);
        assert_eq!(["a", "c", "d", "e"].map(|key| recent.get(key, always)), [None, Some(2), Some(1), Some(1)]);
        recent.forget("c");
        assert_eq!(recent.get("c", always), None);
        assert_eq!(recent.get("d", |value, age| *value == 1 && age > Duration::from_mins(1)), None);
    }
}
