//! Blobs that the first of two sources (the cluster cache before the registry; a bucket before the cache) gave badly, and what that means
//! for the next question: pure but for the clock's value.
//!
//! A body that broke once may well have been a replica that ended: asking again costs the registry nothing. One that breaks again, or
//! bytes that are not those of the digest, are for the other source.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_oci::Digest;
use tokio::time::Instant;

use crate::store::Name;

/// How long it is remembered.
const MEMORY: Duration = Duration::from_mins(10);

/// Blobs that are remembered; beyond it the one that was given first gives way.
const BLOBS: usize = 4096;

/// Bodies of one blob that break before the other source is asked first.
const BREAKS: u32 = 2;

/// Who is asked for a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The first source, then the other one.
    Usual,
    /// The other one, then the first.
    Reversed,
    /// The other one alone.
    OtherOnly,
}

#[derive(Debug)]
struct Given {
    at: Instant,
    breaks: u32,
    wrong: bool,
}

/// What the first source gave.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    given: Mutex<HashMap<(Name, Digest), Given>>,
}

impl Doubts {
    pub(crate) fn order(&self, name: &Name, digest: &Digest, now: Instant) -> Order {
        match self.lock().get(&(name.clone(), digest.clone())) {
            Some(given) if now.duration_since(given.at) >= MEMORY => Order::Usual,
            Some(Given { wrong: true, .. }) => Order::OtherOnly,
            Some(Given { breaks: BREAKS.., .. }) => Order::Reversed,
            _ => Order::Usual,
        }
    }

    /// The first source gives it.
    pub(crate) fn gives(&self, name: &Name, digest: &Digest, now: Instant) {
        let mut all = self.lock();
        let key = (name.clone(), digest.clone());
        if all.len() >= BLOBS && !all.contains_key(&key) {
            all.retain(|_, given| now.duration_since(given.at) < MEMORY);
            if all.len() >= BLOBS
                && let Some(oldest) = all.iter().min_by_key(|(_, given)| given.at).map(|(key, _)| key.clone())
            {
                all.remove(&oldest);
            }
        }
        let given = all.entry(key).or_insert(Given { at: now, breaks: 0, wrong: false });
        if now.duration_since(given.at) >= MEMORY {
            *given = Given { at: now, breaks: 0, wrong: false };
        }
    }

    /// Its body broke off.
    pub(crate) fn broke(&self, name: &Name, digest: &Digest, now: Instant) {
        if let Some(given) = self.lock().get_mut(&(name.clone(), digest.clone())) {
            given.breaks += 1;
            given.at = now;
        }
    }

    /// What came turned out wrong. Whether it may have been the first source's, and this is news.
    pub(crate) fn wrong(&self, name: &Name, digest: &Digest, now: Instant) -> bool {
        let mut all = self.lock();
        let Some(given) = all.get_mut(&(name.clone(), digest.clone())) else { return false };
        if given.wrong || now.duration_since(given.at) >= MEMORY {
            return false;
        }
        (given.wrong, given.at) = (true, now);
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Name, Digest), Given>> {
        // Nothing that holds it can panic half-way through a change.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::testing::{digest, name};

    #[tokio::test(start_paused = true)]
    async fn one_break_is_forgiven_two_reverse_the_order_and_wrong_bytes_end_it_for_a_while() {
        let (doubts, app, blob, start) = (Doubts::default(), name("team/app"), digest(b"1"), Instant::now());
        assert!(!doubts.wrong(&app, &blob, start), "it never gave it");
        doubts.gives(&app, &blob, start);
        doubts.broke(&app, &blob, start);
        assert_eq!(doubts.order(&app, &blob, start), Order::Usual);
        doubts.broke(&app, &blob, start);
        assert_eq!(doubts.order(&app, &blob, start), Order::Reversed);
        assert!(doubts.wrong(&app, &blob, start));
        assert!(!doubts.wrong(&app, &blob, start), "the other one is no better");
        assert_eq!(doubts.order(&app, &blob, start), Order::OtherOnly);
        assert_eq!(doubts.order(&name("team/other"), &blob, start), Order::Usual);
        let later = start + MEMORY;
        assert_eq!(doubts.order(&app, &blob, later), Order::Usual);
        doubts.gives(&app, &blob, later);
        assert_eq!(doubts.order(&app, &blob, later), Order::Usual);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let doubts = Doubts::default();
        for number in 0..2 * BLOBS {
            tokio::time::advance(Duration::from_micros(1)).await;
            doubts.gives(&name(&format!("team/app{number}")), &digest(b"1"), Instant::now());
        }
        assert_eq!(doubts.lock().len(), BLOBS);
    }
}
