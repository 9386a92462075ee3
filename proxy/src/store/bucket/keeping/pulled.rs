//! When pulls of this cluster were pinned last, whichever replica did: what the listing for their declaration has shown, by the bucket's clock.
//! For people: nothing is decided by it.
//!
//! A replica hears of its own clients only. Of the others' it knows what they wrote down: a pin of `pull` is renewed at most once a day in each
//! process, and listed every few minutes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::pins::Place;
use crate::store::lease::lock;
use crate::store::removal::BucketTime;

/// Images of which it is remembered.
const MOST: usize = 200_000;

/// What the last listing that came to its end has shown.
#[derive(Debug, Default)]
pub(in crate::store::bucket) struct Pulled(Mutex<Seen>);

/// What one listing shows, by the first 64 bits of the hash in its place.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<u64, u64>);

fn short(place: &Place) -> Option<u64> {
    u64::from_str_radix(place.key().get(..16)?, 16).ok()
}

impl Seen {
    /// A pin, and when it was written.
    pub(super) fn note(&mut self, place: &Place, at: BucketTime) {
        if let Some(short) = short(place).filter(|_| self.0.len() < MOST) {
            self.0.insert(short, at.0);
        }
    }
}

impl Pulled {
    pub(super) fn replace(&self, seen: Seen) {
        *lock(&self.0) = seen;
    }

    pub(super) fn at(&self, place: &Place) -> Option<SystemTime> {
        let seconds = *lock(&self.0).0.get(&short(place)?)?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }
}
