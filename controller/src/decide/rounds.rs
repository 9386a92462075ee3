//! When each image is looked at where it comes from: once an interval, spread evenly over it, within what the registry
//! still allows.
//!
//! An image's time within the interval is its name's own fraction, so neither a restart, nor new images, nor another
//! interval make many fall together. What is overdue waits for its next time, for the same reason. Whatever a registry's
//! quota does not allow waits for the quota, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::spread::{fraction, part};
use super::{Image, Moment};

/// Checks a registry gets in a second at most, where it says nothing of a quota.
pub const A_SECOND: u32 = 10;

/// What a registry still allows, from its answers' headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests that remain.
    pub remaining: u64,
    /// When there are all of them again.
    pub reset: Moment,
}

/// The first time of an image's own after `now`.
pub fn next(image: &Image, interval: Duration, now: Moment) -> Moment {
    let interval = interval.max(Duration::from_secs(1));
    let length = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let own = part(interval, fraction("round", image.as_str()));
    let begin = Moment::from_millis(now.millis() / length * length);
    let at = begin.after(own);
    if at > now { at } else { at.after(interval) }
}

/// Which images are due when.
#[derive(Debug, Default)]
pub struct Rounds {
    due: BTreeSet<(Moment, Image)>,
    images: BTreeMap<Image, (Moment, Duration)>,
    registries: BTreeMap<Box<str>, Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    quota: Option<Quota>,
    /// Not before.
    next: Moment,
}

impl Rounds {
    /// It is to be looked at this often. Nothing changes for one that is so already.
    pub fn watch(&mut self, image: &Image, interval: Duration, now: Moment) {
        if self.images.get(image).is_some_and(|(_, before)| *before == interval) {
            return;
        }
        self.unwatch(image);
        self.at(image, next(image, interval, now), interval);
    }

    /// It is not to be looked at any more.
    pub fn unwatch(&mut self, image: &Image) {
        if let Some((at, _)) = self.images.remove(image) {
            self.due.remove(&(at, image.clone()));
        }
    }

    /// What a registry said of its quota.
    pub fn quota(&mut self, registry: &str, quota: Option<Quota>) {
        self.registries.entry(registry.into()).or_default().quota = quota;
    }

    /// Those that are looked at now. Each has its next time already: whoever fails to look does so in the next round.
    pub fn take(&mut self, now: Moment) -> Vec<Image> {
        let mut taken = Vec::new();
        let mut full: BTreeSet<Box<str>> = BTreeSet::new();
        let due: Vec<(Moment, Image)> = self.due.iter().take_while(|(at, _)| *at <= now).cloned().collect();
        for (at, image) in due {
            if full.contains(image.registry()) {
                continue;
            }
            let pace = self.registries.entry(image.registry().into()).or_default();
            if !pace.take(now) {
                full.insert(image.registry().into());
                continue;
            }
            let Some((_, interval)) = self.images.get(&image).copied() else { continue };
            self.due.remove(&(at, image.clone()));
            self.at(&image, next(&image, interval, now), interval);
            taken.push(image);
        }
        taken
    }

    /// When the next one is due, or its registry allows it.
    pub fn wakes_at(&self) -> Option<Moment> {
        let paced = |(at, image): &(Moment, Image)| {
            self.registries.get(image.registry()).map_or(*at, |pace| pace.next.max(*at))
        };
        self.due.iter().map(paced).min()
    }

    fn at(&mut self, image: &Image, at: Moment, interval: Duration) {
        self.images.insert(image.clone(), (at, interval));
        self.due.insert((at, image.clone()));
    }
}

impl Pace {
    /// Takes one of what the registry allows: half of what remains, evenly until the reset; the other half is for pulls.
    fn take(&mut self, now: Moment) -> bool {
        let gap = match self.quota {
            Some(quota) if quota.reset > now => {
                if quota.remaining < 2 {
                    self.next = self.next.max(quota.reset);
                    return false;
                }
                let half = u32::try_from(quota.remaining / 2).unwrap_or(u32::MAX);
                (quota.reset.since(now) / half).max(Duration::from_secs(1) / A_SECOND)
            }
            Some(_) | None => Duration::from_secs(1) / A_SECOND,
        };
        if self.next > now {
            return false;
        }
        if let Some(quota) = &mut self.quota {
            quota.remaining = quota.remaining.saturating_sub(1);
        }
        self.next = now.after(gap);
        true
    }
}
