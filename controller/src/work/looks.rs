//! What is to be looked at, and when. Whatever is added, and the next one, cost the same however many wait: with 100,000 images a look through all of them
//! for each change would be all that this process does (a test counts comparisons).

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

/// Things, each once, by the time at which they are to be looked at.
#[derive(Debug)]
pub(super) struct Looks<K> {
    at: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
    /// Before anything else.
    first: Instant,
}

impl<K: Ord + Clone> Looks<K> {
    pub(super) fn new() -> Self {
        Self { at: BTreeMap::new(), order: BTreeSet::new(), first: Instant::now() }
    }

    /// At that time, whatever was said before.
    pub(super) fn insert(&mut self, key: K, at: Instant) {
        if let Some(before) = self.at.insert(key.clone(), at) {
            if before == at {
                return;
            }
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((at, key));
    }

    /// At once, before those that wait: a place in the queue that is not lost when it is wanted again.
    pub(super) fn insert_first(&mut self, key: K) {
        self.insert(key, self.first);
    }

    /// Not at all.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(at) = self.at.remove(key) {
            self.order.remove(&(at, key.clone()));
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The one that has been due for longest.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    pub(super) fn len(&self) -> usize {
        self.at.len()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Ordering;
    use std::time::Duration;

    use super::*;

    thread_local! {
        static COMPARED: Cell<u64> = const { Cell::new(0) };
    }

    /// Counts how often it is compared.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Counting(u32);

    impl Ord for Counting {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARED.with(|compared| compared.set(compared.get() + 1));
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counting {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    #[test]
    fn each_once_in_the_order_of_its_time() {
        let (mut looks, now) = (Looks::new(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        looks.insert("late", after(9));
        looks.insert("moved", after(1));
        looks.insert("moved", after(3));
        looks.insert("soon", after(2));
        looks.insert("gone", after(1));
        looks.remove(&"gone");
        assert_eq!((looks.next(), looks.len()), (Some(after(2)), 3));
        assert_eq!(looks.take_due(now), None);
        looks.insert_first("urgent");
        assert_eq!(looks.take_due(after(5)), Some("urgent"));
        assert_eq!(looks.take_due(after(5)), Some("soon"));
        assert_eq!(looks.take_due(after(5)), Some("moved"));
        assert_eq!(looks.take_due(after(5)), None);
        assert_eq!(looks.len(), 1);
    }

    /// What a change costs while `many` others wait.
    fn comparisons(many: u32) -> u64 {
        let (mut looks, now) = (Looks::new(), Instant::now());
        for key in 0..many {
            looks.insert(Counting(key), now + Duration::from_secs(u64::from(key % 60)));
        }
        COMPARED.with(|compared| compared.set(0));
        for key in 0..100 {
            looks.insert(Counting(key * (many / 100)), now);
            assert!(looks.next().is_some());
            assert!(looks.take_due(now).is_some());
        }
        COMPARED.with(Cell::get)
    }

    #[test]
    fn a_change_costs_the_same_however_many_wait() {
        let (few, many) = (comparisons(1_000), comparisons(100_000));
        // A hundred times as many: their logarithm, twice at most, and not a hundred times the comparisons.
        assert!(many < few * 3, "{few} comparisons with 1,000 that wait, {many} with 100,000");
    }
}
