//! Readiness: what a process waits for, and what is wrong with it now.
//!
//! A [`Latch`] is something that has to happen once; the process is ready when all of them were dropped, so a part that
//! never came up cannot be reported as ready. A [`Condition`] is something that may be wrong at any time, with a text that
//! says what. Those that still leave the process doing its work are shown and do not make it unready.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a condition means while it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The process does its work, but somebody should look.
    Degraded,
    /// The process does not do its work.
    NotReady,
}

#[derive(Debug, Default)]
struct State {
    latches: BTreeMap<u64, &'static str>,
    next_latch: u64,
    conditions: BTreeMap<&'static str, (Severity, String)>,
}

/// The readiness of one process. Clones are the same readiness.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

impl Readiness {
    /// Ready, as nothing is waited for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something that has to happen before the process is ready; it has happened when the latch is dropped.
    pub fn latch(&self, name: &'static str) -> Latch {
        let mut state = lock(&self.state);
        let id = state.next_latch;
        state.next_latch += 1;
        state.latches.insert(id, name);
        Latch { state: Arc::clone(&self.state), id }
    }

    /// Something that may be wrong while the process does its work all the same.
    pub fn condition(&self, name: &'static str) -> Condition {
        Condition { state: Arc::clone(&self.state), name, severity: Severity::Degraded }
    }

    /// Something without which the process does not do its work.
    pub fn requirement(&self, name: &'static str) -> Condition {
        Condition { state: Arc::clone(&self.state), name, severity: Severity::NotReady }
    }

    /// The conditions that are set, by name, for metrics.
    pub fn set_conditions(&self) -> Vec<(&'static str, Severity)> {
        lock(&self.state).conditions.iter().map(|(name, (severity, _))| (*name, *severity)).collect()
    }

    /// What is wrong now, by name, for who tells of it elsewhere.
    pub fn told(&self) -> BTreeMap<&'static str, String> {
        lock(&self.state).conditions.iter().map(|(name, (_, text))| (*name, text.clone())).collect()
    }

    /// What `/readyz` says now.
    pub fn report(&self) -> Report {
        let state = lock(&self.state);
        let mut lines: Vec<String> = state.latches.values().map(|name| format!("waiting: {name}")).collect();
        let mut ready = lines.is_empty();
        for (name, (severity, text)) in &state.conditions {
            let word = match severity {
                Severity::Degraded => "degraded",
                Severity::NotReady => {
                    ready = false;
                    "not ready"
                }
            };
            lines.push(format!("{word}: {name}: {text}"));
        }
        Report { ready, lines }
    }
}

/// Readiness at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Nothing is waited for, and nothing that is required is wrong.
    pub ready: bool,
    /// What is waited for and what is wrong, one line each.
    pub lines: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", if self.ready { "ready" } else { "not ready" })?;
        self.lines.iter().try_for_each(|line| writeln!(formatter, "{line}"))
    }
}

/// Something that has not happened yet. Drop it when it has.
#[derive(Debug)]
#[must_use = "the process is ready as far as this latch goes when it is dropped"]
pub struct Latch {
    state: Arc<Mutex<State>>,
    id: u64,
}

impl Drop for Latch {
    fn drop(&mut self) {
        lock(&self.state).latches.remove(&self.id);
    }
}

/// Something that may be wrong. Clones are the same condition.
#[derive(Debug, Clone)]
pub struct Condition {
    state: Arc<Mutex<State>>,
    name: &'static str,
    severity: Severity,
}

impl Condition {
    /// It is wrong, and this is how. True when that is news: what to log once.
    pub fn set(&self, text: impl Into<String>) -> bool {
        let text = text.into().replace('\n', "; ");
        let value = (self.severity, text);
        let mut state = lock(&self.state);
        let news = state.conditions.get(self.name) != Some(&value);
        state.conditions.insert(self.name, value);
        news
    }

    /// It is in order. True when it was wrong before.
    pub fn clear(&self) -> bool {
        lock(&self.state).conditions.remove(self.name).is_some()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_latch_was_dropped() {
        let readiness = Readiness::new();
        let (first, second) = (readiness.latch("store"), readiness.latch("store"));
        assert_eq!(readiness.report().to_string(), "not ready\nwaiting: store\nwaiting: store\n");
        drop(first);
        assert!(!readiness.report().ready);
        drop(second);
        assert_eq!(readiness.report().to_string(), "ready\n");
    }

    #[test]
    fn a_condition_is_shown_and_only_a_requirement_makes_unready() {
        let readiness = Readiness::new();
        let (disk, key) = (readiness.condition("store"), readiness.requirement("key"));
        assert!(disk.set("the disk is full"));
        assert!(!disk.set("the disk is full"), "the same text is no news");
        assert!(disk.clone().set("the disk is full\nsince noon"), "another text is");
        assert_eq!(readiness.report().to_string(), "ready\ndegraded: store: the disk is full; since noon\n");
        key.set("lost");
        assert_eq!(
            readiness.told(),
            BTreeMap::from([("key", "lost".to_owned()), ("store", "the disk is full; since noon".to_owned())])
        );
        assert!(!readiness.report().ready);
        assert!(key.clear() && disk.clear() && !disk.clear());
        assert_eq!(readiness.report(), Report { ready: true, lines: Vec::new() });
    }
}
