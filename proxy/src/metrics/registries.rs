//! Which registries have label values of their own, and which series belong to them.
//!
//! Whoever pulls can name any host, so a name alone gets none: only a registry that answered, or that we hold something of.
//! There are [`MOST`] at a time; the one that was not counted for the longest time gives way, with all of its series.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use larder_oci::Registry;

use super::{OriginLabels, RequestLabels, StaleLabels};

/// Registries with a label value of their own.
pub(super) const MOST: usize = 100;

/// What all the others are counted as.
const OTHER: &str = "other";

/// The series of one registry that have more labels than its name.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) requests: HashSet<RequestLabels>,
    pub(super) origin: HashSet<OriginLabels>,
    pub(super) stale: HashSet<StaleLabels>,
    used: u64,
}

#[derive(Debug, Default)]
pub(super) struct Registries {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clock: u64,
    known: HashMap<String, Series>,
}

impl State {
    fn used(&mut self, name: &str) -> Option<&mut Series> {
        self.clock += 1;
        let series = self.known.get_mut(name)?;
        series.used = self.clock;
        Some(series)
    }
}

impl Registries {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry's own label value, or that of all the others.
    pub(super) fn label(&self, registry: &Registry) -> String {
        let name = registry.as_str();
        self.lock().used(name).map_or(OTHER, |_| name).to_owned()
    }

    /// Gives the registry a label value of its own; returns whose series have to go for it.
    pub(super) fn admit(&self, registry: &Registry) -> Option<(String, Series)> {
        let (name, mut state) = (registry.as_str(), self.lock());
        if state.used(name).is_some() {
            return None;
        }
        let oldest = if state.known.len() >= MOST {
            let oldest = state.known.iter().min_by_key(|(_, series)| series.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| state.known.remove_entry(&name))
        } else {
            None
        };
        let used = state.clock;
        state.known.insert(name.to_owned(), Series { used, ..Series::default() });
        oldest
    }

    /// Notes a series of the registry with this label value.
    pub(super) fn note(&self, label: &str, note: impl FnOnce(&mut Series)) {
        if let Some(series) = self.lock().known.get_mut(label) {
            note(series);
        }
    }
}
