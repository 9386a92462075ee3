//! How much of the cache one namespace may have, in images and bytes, so that no tenant fills it.
//!
//! Older wishes stay: an image is judged only by those that were used before it, so that a new one never drives out one
//! that is there. An image of several namespaces is cached as long as one of them has room, and counts in each that has.
//! Between two looks at all of them a new image is the youngest, so it can be judged by itself ([`Ledger::admit`]).

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

/// Who has how much, and what is over.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Images and bytes of each namespace.
    taken: BTreeMap<Arc<str>, (u64, u64)>,
    /// With how many bytes.
    counted: BTreeMap<Image, u64>,
    over: BTreeMap<Image, OverBound>,
}

impl Bounds {
    fn of(&self, namespace: &str) -> Bound {
        self.namespaces.get(namespace).copied().unwrap_or(self.default)
    }

    /// All of them, the oldest first.
    pub fn judge(&self, claims: &[Claim]) -> Ledger {
        let mut by_age: Vec<&Claim> = claims.iter().collect();
        by_age.sort_by(|a, b| (a.since, &a.image).cmp(&(b.since, &b.image)));
        let mut ledger = Ledger::default();
        for claim in by_age {
            ledger.admit(self, claim);
        }
        ledger
    }
}

impl Ledger {
    /// One that is younger than those before it. Whether there is room for it; one that was counted keeps its place.
    pub fn admit(&mut self, bounds: &Bounds, claim: &Claim) -> bool {
        if self.counted.contains_key(&claim.image) {
            return true;
        }
        let own = claim.bytes.unwrap_or_default();
        let mut full = None;
        let mut has_room = claim.namespaces.is_empty();
        for namespace in &claim.namespaces {
            let (images, bytes) = self.taken.entry(Arc::clone(namespace)).or_default();
            match bounds.of(namespace).check((*images, *bytes), own) {
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
        match full {
            Some(full) if !has_room => {
                self.over.insert(claim.image.clone(), full);
                false
            }
            _ => {
                self.over.remove(&claim.image);
                self.counted.insert(claim.image.clone(), own);
                true
            }
        }
    }

    /// The size of one that was counted became known. Whether each of its namespaces is beyond its bound by that: then all of them are to be judged anew.
    pub fn grow(&mut self, bounds: &Bounds, claim: &Claim) -> bool {
        let (Some(counted), Some(own)) = (self.counted.get_mut(&claim.image), claim.bytes) else { return false };
        let before = std::mem::replace(counted, own);
        if before == own {
            return false;
        }
        let mut is_beyond = !claim.namespaces.is_empty();
        for namespace in &claim.namespaces {
            let (_, bytes) = self.taken.entry(Arc::clone(namespace)).or_default();
            *bytes = bytes.saturating_sub(before).saturating_add(own);
            is_beyond &= bounds.of(namespace).bytes.is_some_and(|allowed| *bytes > allowed);
        }
        is_beyond
    }

    /// It is over the bound, and nobody wants it any more.
    pub fn forget(&mut self, image: &Image) {
        self.over.remove(image);
    }

    /// Why it is over the bound, if it is.
    pub fn over(&self, image: &Image) -> Option<&OverBound> {
        self.over.get(image)
    }

    /// Everything that is over the bound.
    pub fn all_over(&self) -> &BTreeMap<Image, OverBound> {
        &self.over
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
