//! How many images of each registry are wanted, cached, gone. Kept with each change of an image, so that nobody goes through all of them to count.

use std::collections::{BTreeMap, BTreeSet};

use crate::decide::Image;

/// What is known of the images of a registry that are wanted, and not skipped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// All of them.
    pub known: usize,
    /// Those that its registry no longer has.
    pub missing_upstream: usize,
    /// Those that are not in the cache.
    pub not_cached: BTreeSet<Image>,
}

impl Tally {
    /// How many are in the cache.
    pub fn cached(&self) -> usize {
        self.known.saturating_sub(self.not_cached.len())
    }
}

/// What counts of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// It is in the cache.
    pub is_cached: bool,
    /// Its registry says that it has it no longer.
    pub is_gone: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Tallies {
    images: BTreeMap<Image, Counted>,
    registries: BTreeMap<Box<str>, Tally>,
}

impl Tallies {
    /// An image is so from now on; `None`: it is not wanted any more.
    pub fn count(&mut self, image: &Image, now: Option<Counted>) {
        let before = match now {
            Some(now) => self.images.insert(image.clone(), now),
            None => self.images.remove(image),
        };
        if before == now {
            return;
        }
        let tally = match self.registries.get_mut(image.registry()) {
            Some(tally) => tally,
            None => self.registries.entry(image.registry().into()).or_default(),
        };
        if let Some(before) = before {
            tally.known = tally.known.saturating_sub(1);
            tally.missing_upstream = tally.missing_upstream.saturating_sub(usize::from(before.is_gone));
            tally.not_cached.remove(image);
        }
        if let Some(now) = now {
            tally.known += 1;
            tally.missing_upstream += usize::from(now.is_gone);
            if !now.is_cached {
                tally.not_cached.insert(image.clone());
            }
        }
        if tally.known == 0 {
            self.registries.remove(image.registry());
        }
    }

    /// Those of a registry, if any of its images is wanted.
    pub fn of(&self, registry: &str) -> Option<&Tally> {
        self.registries.get(registry)
    }

    /// All registries of which images are wanted.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.registries.iter().map(|(registry, tally)| (&**registry, tally))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(number: usize) -> Image {
        Image::parse(&format!("r{}.example.com/a:{number}", number % 3)).unwrap()
    }

    proptest! {
        #[test]
        fn they_are_what_one_counts_who_goes_through_all(
            changes in prop::collection::vec((0_usize..9, prop::option::of((any::<bool>(), any::<bool>()))), 0..60),
        ) {
            let (mut tallies, mut images) = (Tallies::default(), BTreeMap::new());
            for (number, now) in changes {
                let now = now.map(|(is_cached, is_gone)| Counted { is_cached, is_gone });
                tallies.count(&image(number), now);
                match now {
                    Some(now) => images.insert(image(number), now),
                    None => images.remove(&image(number)),
                };
            }
            for registry in ["r0.example.com", "r1.example.com", "r2.example.com"] {
                let of: Vec<_> = images.iter().filter(|(image, _)| image.registry() == registry).collect();
                let tally = tallies.of(registry).cloned().unwrap_or_default();
                prop_assert_eq!(tally.known, of.len());
                prop_assert_eq!(tally.cached(), of.iter().filter(|(_, counted)| counted.is_cached).count());
                prop_assert_eq!(tally.missing_upstream, of.iter().filter(|(_, counted)| counted.is_gone).count());
                prop_assert_eq!(tallies.of(registry).is_some(), !of.is_empty());
            }
        }
    }
}
