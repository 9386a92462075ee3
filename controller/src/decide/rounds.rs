//! When each image is looked at where it comes from: once an interval, spread evenly over it, within what the registry
//! still allows.
//!
//! An image's time within the interval is its name's own fraction, so neither a restart, nor new images, nor another
//! interval make many fall together. What is overdue waits for its next time, for the same reason. Whatever a registry's
//! quota does not allow waits for the quota, in order, and takes no more of it than comes back.

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
    /// When there are all of them again, at the latest.
    pub reset: Moment,
    /// How often one of them comes back, if it says so.
    pub refill: Option<Duration>,
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
    images: BTreeMap<Image, (Moment, Duration)>,
    /// When it would have been the turn of those that are looked at before that.
    early: BTreeMap<Image, Moment>,
    registries: BTreeMap<Box<str>, Registry>,
    latest: Moment,
    /// The registry that was looked at last when there was not room for all.
    last: Box<str>,
}

#[derive(Debug, Default)]
struct Registry {
    due: BTreeSet<(Moment, Image)>,
    pace: Pace,
}

#[derive(Debug, Default)]
struct Pace {
    quota: Option<Quota>,
    /// What is left to pulls until the reset: half of the most that remained.
    reserve: u64,
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
        self.place(image, next(image, interval, now), interval);
    }

    /// It is to be looked at out of its turn, as soon as its registry allows it.
    pub fn soon(&mut self, image: &Image, now: Moment) {
        if let Some((at, interval)) = self.images.get(image).copied() {
            let own = self.early.get(image).copied().unwrap_or(at);
            self.unwatch(image);
            self.place(image, now, interval);
            self.early.insert(image.clone(), own);
        }
    }

    /// Whether it is looked at.
    pub fn watches(&self, image: &Image) -> bool {
        self.images.contains_key(image)
    }

    /// It is not to be looked at any more.
    pub fn unwatch(&mut self, image: &Image) {
        self.early.remove(image);
        if let Some((at, _)) = self.images.remove(image)
            && let Some(registry) = self.registries.get_mut(image.registry())
        {
            registry.due.remove(&(at, image.clone()));
        }
    }

    /// What a registry said of its quota, and how much of it is left to pulls: half of the most that remained, unless it is said.
    pub fn quota(&mut self, registry: &str, quota: Quota, keep: Option<u64>) {
        let pace = &mut self.registries.entry(registry.into()).or_default().pace;
        pace.reserve = keep.unwrap_or_else(|| pace.reserve.max(quota.remaining.div_ceil(2)));
        pace.quota = Some(quota);
    }

    /// A registry wants to be left in peace until then.
    pub fn rest(&mut self, registry: &str, until: Moment) {
        let pace = &mut self.registries.entry(registry.into()).or_default().pace;
        pace.next = pace.next.max(until);
    }

    /// The image of a registry whose time comes next.
    pub fn soonest(&self, registry: &str) -> Option<&Image> {
        self.registries.get(registry)?.due.first().map(|(_, image)| image)
    }

    /// Those that are looked at now. Each has its next time already: whoever fails to look does so in the next round.
    pub fn take(&mut self, now: Moment) -> Vec<Image> {
        self.take_at_most(usize::MAX, now).into_iter().map(|(image, _)| image).collect()
    }

    /// Those of them for which there is room, of one registry after the other, and whether it is their own turn. The others stay due.
    pub fn take_at_most(&mut self, most: usize, now: Moment) -> Vec<(Image, bool)> {
        self.follow_the_clock(now);
        // Whoever writes Pods chooses how many registries are ever named.
        self.registries.retain(|_, registry| !registry.due.is_empty() || !registry.pace.is_over(now));
        let is_due = |registry: &Registry| registry.due.first().is_some_and(|(at, _)| *at <= now);
        let due = self.registries.iter().filter(|(_, registry)| is_due(registry));
        let mut due: Vec<Box<str>> = due.map(|(name, _)| name.clone()).collect();
        let first = due.partition_point(|name| *name <= self.last);
        due.rotate_left(first);
        let mut taken = Vec::new();
        for name in due {
            if taken.len() >= most {
                break;
            }
            let Some(registry) = self.registries.get_mut(&name) else { continue };
            while taken.len() < most
                && let Some((at, image)) = registry.due.first()
                && *at <= now
                && registry.pace.take(now)
            {
                taken.push((image.clone(), self.early.remove(image).is_none_or(|own| own <= now)));
                registry.due.pop_first();
            }
            if taken.len() >= most {
                self.last = name;
            }
        }
        for (image, _) in &taken {
            if let Some((_, interval)) = self.images.get(image).copied() {
                self.place(image, next(image, interval, now), interval);
            }
        }
        taken
    }

    /// When the next one is due and its registry allows it.
    pub fn wakes_at(&self) -> Option<Moment> {
        let of_one = |registry: &Registry| registry.due.first().map(|(at, _)| registry.pace.next.max(*at));
        self.registries.values().filter_map(of_one).min()
    }

    /// A clock that was set back leaves everything due long after: it begins anew.
    fn follow_the_clock(&mut self, now: Moment) {
        if self.latest.since(now) > Duration::from_secs(1) {
            self.early.clear();
            for (image, (_, interval)) in std::mem::take(&mut self.images) {
                if let Some(registry) = self.registries.get_mut(image.registry()) {
                    registry.due.clear();
                    registry.pace.next = now;
                }
                self.images.insert(image, (now, interval));
            }
            let all: Vec<_> = self.images.iter().map(|(image, (_, interval))| (image.clone(), *interval)).collect();
            for (image, interval) in all {
                self.place(&image, next(&image, interval, now), interval);
            }
        }
        self.latest = now;
    }

    fn place(&mut self, image: &Image, at: Moment, interval: Duration) {
        self.images.insert(image.clone(), (at, interval));
        self.registries.entry(image.registry().into()).or_default().due.insert((at, image.clone()));
    }
}

impl Pace {
    /// Nothing of it is of use any more.
    fn is_over(&self, now: Moment) -> bool {
        self.next <= now && self.quota.is_none_or(|quota| quota.reset <= now)
    }

    /// Takes one of what the registry allows: what it leaves beside the reserve, evenly until the reset.
    fn take(&mut self, now: Moment) -> bool {
        if self.quota.is_some_and(|quota| quota.reset <= now) {
            self.quota = None;
            self.reserve = 0;
        }
        let least = Duration::from_secs(1) / A_SECOND;
        let gap = match &self.quota {
            None => least,
            Some(Quota { remaining, reset, refill }) => match (remaining.saturating_sub(self.reserve), refill) {
                // What comes back may go. Where a check costs nothing, as mostly, it would never be anybody's turn otherwise: the reset is as far away
                // as it was with each answer that tells it.
                (0, Some(refill)) => least.max(*refill),
                (0, None) => {
                    self.next = *reset;
                    return false;
                }
                (some, _) => (reset.since(now) / u32::try_from(some).unwrap_or(u32::MAX)).max(least),
            },
        };
        if self.next > now {
            return false;
        }
        if let Some(quota) = &mut self.quota {
            quota.remaining = quota.remaining.saturating_sub(1);
        }
        // Who comes every second takes a second's.
        self.next = self.next.max(now.before(Duration::from_secs(1))).after(gap);
        true
    }
}

#[cfg(test)]
mod tests;
