//! Repositories that need credentials, remembered for a while, so that private images cost the origin nothing extra.
//!
//! One that gives us something is not private, whatever it said before, and that is remembered as well: what it refuses then
//! is that one thing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Name;

/// Repositories that are remembered; beyond it the one that is forgotten first anyway gives way.
const REPOSITORIES: usize = 4096;

#[derive(Debug)]
pub(super) struct Denied {
    time: Duration,
    known: Mutex<HashMap<Name, Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    is_denied: bool,
    until: Instant,
}

impl Denied {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, known: Mutex::default() }
    }

    /// It needs credentials.
    pub(super) fn note(&self, name: &Name) {
        self.remember(name, true);
    }

    /// It gave something to one without credentials.
    pub(super) fn note_public(&self, name: &Name) {
        self.remember(name, false);
    }

    fn remember(&self, name: &Name, is_denied: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if known.len() >= REPOSITORIES && !known.contains_key(name) {
            known.retain(|_, known| known.until > now);
            if known.len() >= REPOSITORIES
                && let Some(first) = known.iter().min_by_key(|(_, known)| known.until).map(|(name, _)| name.clone())
            {
                known.remove(&first);
            }
        }
        known.insert(name.clone(), Known { is_denied, until: now + self.time });
    }

    pub(super) fn contains(&self, name: &Name) -> bool {
        self.known(name) == Some(true)
    }

    /// Whether it gave something, and refused nothing since.
    pub(super) fn is_public(&self, name: &Name) -> bool {
        self.known(name) == Some(false)
    }

    fn known(&self, name: &Name) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|known| known.until > Instant::now()).map(|known| known.is_denied)
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::{Registry, Repository};

    use super::*;

    fn name(number: usize) -> Name {
        Name {
            registry: Registry::parse("reg.example.com").unwrap(),
            repository: Repository::parse(&format!("team/app{number}")).unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_forgotten_after_a_while_and_bounded() {
        let denied = Denied::new(Duration::from_mins(5));
        denied.note(&name(0));
        assert!(denied.contains(&name(0)) && !denied.contains(&name(1)));
        tokio::time::advance(Duration::from_mins(6)).await;
        assert!(!denied.contains(&name(0)));
        denied.note(&name(0));
        denied.note_public(&name(0));
        assert!(!denied.contains(&name(0)) && denied.is_public(&name(0)));
        for number in 0..2 * REPOSITORIES {
            denied.note(&name(number));
        }
        assert_eq!(denied.known.lock().unwrap().len(), REPOSITORIES);
    }
}
