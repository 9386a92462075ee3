//! Objects that say something and were deleted: what they said holds for a little longer.
//!
//! Deleting the definition deletes its objects first, one by one, and then the kind is gone. Nobody meant by that to fetch what was skipped, or to keep shorter
//! what was kept for long. So what goes is believed when nothing more has gone for a while, and where the kind itself went, once it has been there again for
//! an hour without it. Nodes go by much the same (`crates/upstream-registries/src/watching.rs`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What goes is believed after that: longer than the API server takes from the deletion of the last object of a kind, whose end it looks for every five seconds,
/// until it knows the kind no longer.
const BELIEVED: Duration = Duration::from_secs(30);

/// What went with its kind is believed so long after that is there again.
const RESTORED: Duration = Duration::from_hours(1);

/// Names of objects, and when it is believed that they are gone.
#[derive(Debug, Default)]
pub(super) struct Going(BTreeMap<String, Instant>);

impl Going {
    /// It was deleted; perhaps all of them are.
    pub(super) fn goes(&mut self, name: &str, now: Instant) {
        let at = now + BELIEVED;
        self.0.insert(name.to_owned(), at);
        for other in self.0.values_mut() {
            *other = at.max(*other);
        }
    }

    /// There is one of that name.
    pub(super) fn stays(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The kind was missing, and is there again.
    pub(super) fn kind_is_back(&mut self, now: Instant) {
        for at in self.0.values_mut() {
            *at = now + RESTORED;
        }
    }

    /// Whether it goes.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Those that are gone for good.
    pub(super) fn take_believed(&mut self, now: Instant) -> Vec<String> {
        let believed: Vec<String> = self.0.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in &believed {
            self.0.remove(name);
        }
        believed
    }
}
