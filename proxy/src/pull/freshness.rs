//! How long a tag's cached answer is held back for the origin's.
//!
//! Each registry has a budget. One that answers late, but answers, gets more, up to a bound; one that answers fast gives it
//! back. While a registry lets its budget pass without any answer since, the next requests hardly wait: an outage costs the
//! budget once, and not on each request. Asking goes on in the background all the same, and the first answer ends it.
//!
//! Anybody can name a registry. One is remembered only once it answered, or once we hold something of it, and the one that
//! was not used for the longest time gives way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_oci::Registry;

use super::Limits;

/// Registries that are remembered at once; the rest have the budget that all begin with.
const REGISTRIES: usize = 1024;

#[derive(Debug)]
pub(super) struct Freshness {
    shortest: Duration,
    longest: Duration,
    overdue: Duration,
    registries: Mutex<HashMap<Registry, Record>>,
    clock: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    budget: Duration,
    is_overdue: bool,
    /// Of [`Freshness::clock`], which counts questions.
    used: u64,
}

impl Freshness {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            shortest: limits.freshness,
            longest: limits.freshness_longest,
            overdue: limits.freshness_overdue,
            registries: Mutex::default(),
            clock: AtomicU64::new(0),
        }
    }

    /// How long to wait for an answer of this registry.
    pub(super) fn budget(&self, registry: &Registry) -> Duration {
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        registries.get_mut(registry).map_or(self.shortest, |record| {
            record.used = used;
            if record.is_overdue { self.overdue.min(record.budget) } else { record.budget }
        })
    }

    /// A budget passed without an answer, of a registry that something in the store is from.
    pub(super) fn passed(&self, registry: &Registry) {
        self.with(registry, |record| record.is_overdue = true);
    }

    /// The registry answered, whatever it said, after `elapsed`.
    pub(super) fn answered(&self, registry: &Registry, elapsed: Duration) {
        self.with(registry, |record| {
            record.is_overdue = false;
            record.budget = if elapsed >= record.budget {
                (elapsed + elapsed / 4).min(self.longest)
            } else if elapsed < record.budget / 2 {
                record.budget.mul_f32(0.875).max(self.shortest)
            } else {
                record.budget
            };
        });
    }

    fn with(&self, registry: &Registry, change: impl FnOnce(&mut Record)) {
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if !registries.contains_key(registry) && registries.len() >= REGISTRIES {
            let oldest = registries.iter().min_by_key(|(_, record)| record.used).map(|(registry, _)| registry.clone());
            registries.retain(|registry, _| Some(registry) != oldest.as_ref());
        }
        let initial = Record { budget: self.shortest, is_overdue: false, used };
        let record = registries.entry(registry.clone()).or_insert(initial);
        record.used = used;
        change(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freshness() -> (Freshness, Registry) {
        (Freshness::new(&Limits::default()), Registry::parse("reg.example.com").unwrap())
    }

    #[test]
    fn a_registry_that_is_slow_but_answers_gets_more_time_up_to_a_bound_and_gives_it_back() {
        let (freshness, registry) = freshness();
        assert_eq!(freshness.budget(&registry), Duration::from_secs(3));
        freshness.answered(&registry, Duration::from_secs(4));
        assert_eq!(freshness.budget(&registry), Duration::from_secs(5));
        freshness.answered(&registry, Duration::from_secs(20));
        assert_eq!(freshness.budget(&registry), Duration::from_secs(8));
        for _ in 0..20 {
            freshness.answered(&registry, Duration::from_millis(100));
        }
        assert_eq!(freshness.budget(&registry), Duration::from_secs(3));
    }

    #[test]
    fn an_outage_costs_the_budget_once() {
        let (freshness, registry) = freshness();
        freshness.passed(&registry);
        assert_eq!(freshness.budget(&registry), Duration::from_millis(250));
        freshness.answered(&registry, Duration::from_millis(20));
        assert_eq!(freshness.budget(&registry), Duration::from_secs(3));
    }

    #[test]
    fn whoever_names_registries_fills_nothing_and_the_oldest_gives_way() {
        let (freshness, registry) = freshness();
        freshness.answered(&registry, Duration::from_secs(4));
        let other = |number: usize| Registry::parse(&format!("r{number}.example.com")).unwrap();
        for number in 0..2 * REGISTRIES {
            assert_eq!(freshness.budget(&other(number)), Duration::from_secs(3));
        }
        assert_eq!(freshness.registries.lock().unwrap().len(), 1);
        for number in 0..2 * REGISTRIES {
            freshness.answered(&other(number), Duration::from_secs(6));
            assert_eq!(freshness.budget(&registry), Duration::from_secs(5), "it is in use");
        }
        assert_eq!(freshness.registries.lock().unwrap().len(), REGISTRIES);
        assert_eq!(freshness.budget(&other(0)), Duration::from_secs(3), "forgotten");
        assert_eq!(freshness.budget(&other(2 * REGISTRIES - 1)), Duration::from_secs_f64(7.5));
    }
}
