//! How much of the cache one namespace may have, in images and bytes, so that no tenant fills it.
//!
//! Older wishes stay: an image is judged only by those that were used before it, so that a new one never drives out one
//! that is there. An image of several namespaces is cached as long as one of them has room, and counts in each that has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Image, Moment};

/// What a namespace may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bound {
    /// Images; none: no bound.
    pub images: Option<u64>,
    /// Bytes, as they were fetched.
    pub bytes: Option<u64>,
}

/// The bounds of all namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Where nothing else is said.
    pub default: Bound,
    /// Of these namespaces.
    pub namespaces: BTreeMap<String, Bound>,
}

/// An image that Pods want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The image.
    pub image: Image,
    /// Whose Pods want it. None: a person made its object, who is bounded by nothing here.
    pub namespaces: BTreeSet<Arc<str>>,
    /// First use, which the image's object remembers.
    pub since: Moment,
    /// Its size, once that is known; until then it is taken for empty, since what is not fetched fills nothing.
    pub bytes: Option<u64>,
}

/// Why an image is not cached: each of its namespaces is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverBound {
    /// The first of them by name.
    pub namespace: Arc<str>,
    /// What is full there.
    pub full: Full,
}

/// Which bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// So many images are allowed.
    Images(u64),
    /// So many bytes are allowed, and the image has so many.
    Bytes {
        /// Allowed.
        allowed: u64,
        /// Taken by older ones.
        taken: u64,
        /// Its own.
        own: u64,
    },
}

impl Bounds {
    fn of(&self, namespace: &str) -> Bound {
        self.namespaces.get(namespace).copied().unwrap_or(self.default)
    }

    /// Images over the bound. The others are cached.
    pub fn over(&self, claims: &[Claim]) -> BTreeMap<Image, OverBound> {
        let mut by_age: Vec<&Claim> = claims.iter().collect();
        by_age.sort_by(|a, b| (a.since, &a.image).cmp(&(b.since, &b.image)));
        let mut taken: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let mut over = BTreeMap::new();
        for claim in by_age {
            let own = claim.bytes.unwrap_or_default();
            let mut full = None;
            let mut has_room = claim.namespaces.is_empty();
            for namespace in &claim.namespaces {
                let (images, bytes) = taken.entry(namespace).or_default();
                match self.of(namespace).check((*images, *bytes), own) {
                    None => {
                        has_room = true;
                        *images += 1;
                        *bytes = bytes.saturating_add(own);
                    }
                    Some(reached) => {
                        full.get_or_insert(OverBound { namespace: Arc::clone(namespace), full: reached });
                    }
                }
            }
            if let (false, Some(full)) = (has_room, full) {
                over.insert(claim.image.clone(), full);
            }
        }
        over
    }
}

impl Bound {
    fn check(self, (images, bytes): (u64, u64), own: u64) -> Option<Full> {
        if let Some(allowed) = self.images.filter(|allowed| images >= *allowed) {
            return Some(Full::Images(allowed));
        }
        let allowed = self.bytes.filter(|allowed| bytes.saturating_add(own) > *allowed)?;
        Some(Full::Bytes { allowed, taken: bytes, own })
    }
}

#[cfg(test)]
mod tests;
