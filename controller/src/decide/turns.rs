//! Whose turn it is to be fetched: at most so many at a time, fair between registries, what most nodes need first.
//!
//! Registries take turns: the one with the fewest under way, of those the one that had its turn longest ago. Within a
//! registry what most nodes need goes first, but every fourth turn is for what has waited longest. No registry has more
//! than half of the places, so that one that hangs leaves room for the rest, unless a person says how many. What failed rests, and comes back behind
//! those that wait. So an image before which `n` of its registry have waited longer is fetched within `4 (n + 1)` turns of
//! its registry, whatever else comes and fails: a property in the tests.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::backoff::Backoff;
use super::{Image, Moment};

/// Every so many turns of a registry are for what has waited longest.
const FOR_THE_OLDEST: u64 = 4;

/// How much something is needed: greater is sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Need {
    /// A `DaemonSet` brings it to every node.
    pub is_of_daemon_set: bool,
    /// Nodes that have Pods of it.
    pub nodes: usize,
    /// Pods of it.
    pub pods: usize,
}

/// Images that wait, and those that are under way.
#[derive(Debug)]
pub struct Turns {
    at_most: usize,
    backoff: Backoff,
    seed: String,
    images: BTreeMap<Image, State>,
    registries: BTreeMap<Box<str>, Registry>,
    /// Failed ones, by when they are tried again.
    resting: BTreeSet<(Moment, Image)>,
    under_way: usize,
    taken: u64,
    arrivals: u64,
}

#[derive(Debug, Clone, Copy)]
struct State {
    need: Need,
    arrived: u64,
    failures: u32,
    /// What is wanted of it was tried, and failed.
    has_failed: bool,
    place: At,
    /// Is under way, and not wanted any more.
    is_given_up: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Ready,
    Resting(Moment),
    UnderWay,
}

#[derive(Debug, Default)]
struct Registry {
    by_need: BTreeSet<(Reverse<Need>, u64, Image)>,
    by_age: BTreeSet<(u64, Image)>,
    under_way: usize,
    turns: u64,
    last_turn: u64,
    limit: Limit,
}

impl Registry {
    /// Nothing of it waits or is under way, and nothing is said of it.
    fn is_idle(&self) -> bool {
        self.by_age.is_empty() && self.under_way == 0 && self.limit == Limit::default()
    }
}

/// What holds for one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// Images at a time, where a person says so.
    pub at_a_time: Option<usize>,
    /// Nothing is begun before that: what is left of its quota is for pulls.
    pub not_before: Option<Moment>,
}

impl Turns {
    /// At most `at_most` at a time; `seed` is this process's own, for the jitter.
    pub fn new(at_most: usize, backoff: Backoff, seed: impl Into<String>) -> Self {
        Self {
            at_most: at_most.max(1),
            backoff,
            seed: seed.into(),
            images: BTreeMap::new(),
            registries: BTreeMap::new(),
            resting: BTreeSet::new(),
            under_way: 0,
            taken: 0,
            arrivals: 0,
        }
    }

    /// It is to be fetched. One that waits already keeps its place in time and gets this need.
    pub fn wait(&mut self, image: &Image, need: Need) {
        let arrived = self.arrivals;
        if let Some(state) = self.images.get(image).copied() {
            if state.place == At::Ready {
                self.leave(image, state);
                self.enter(image, State { need, ..state });
            } else if let Some(state) = self.images.get_mut(image) {
                state.need = need;
                state.is_given_up = false;
            }
            return;
        }
        self.arrivals += 1;
        self.enter(
            image,
            State { need, arrived, failures: 0, has_failed: false, place: At::Ready, is_given_up: false },
        );
    }

    /// It is not to be fetched any more. What is under way goes on until [`Self::done`] or [`Self::failed`].
    pub fn give_up(&mut self, image: &Image) {
        match self.images.get_mut(image) {
            Some(state) if state.place == At::UnderWay => state.is_given_up = true,
            Some(state) => {
                let state = *state;
                self.leave(image, state);
                self.images.remove(image);
            }
            None => {}
        }
    }

    /// The next ones, which are under way from now on.
    pub fn next(&mut self, now: Moment) -> Vec<Image> {
        self.follow_the_clock(now);
        while let Some((at, image)) = self.resting.first().cloned()
            && at <= now
        {
            self.resting.pop_first();
            if let Some(state) = self.images.get(&image).copied() {
                // Behind those that have not had their turn yet.
                let arrived = self.arrivals;
                self.arrivals += 1;
                self.enter(&image, State { place: At::Ready, arrived, ..state });
            }
        }
        self.registries.retain(|_, registry| {
            registry.limit.not_before = registry.limit.not_before.filter(|at| *at > now);
            // Whoever writes Pods chooses how many registries are ever named.
            !registry.is_idle()
        });
        let mut next = Vec::new();
        while self.under_way < self.at_most
            && let Some(image) = self.pick()
        {
            next.push(image);
        }
        next
    }

    /// When [`Self::next`] may have something to say that it has not now, if nothing else happens.
    pub fn wakes_at(&self) -> Option<Moment> {
        let held = self.registries.values().filter(|registry| !registry.by_age.is_empty());
        let held = held.filter_map(|registry| registry.limit.not_before);
        self.resting.first().map(|(at, _)| *at).into_iter().chain(held).min()
    }

    /// What holds for a registry from now on.
    pub fn limit(&mut self, registry: &str, limit: Limit) {
        match self.registries.get_mut(registry) {
            Some(known) => known.limit = limit,
            None if limit == Limit::default() => {}
            None => self.registries.entry(registry.into()).or_default().limit = limit,
        }
    }

    /// It is there.
    pub fn done(&mut self, image: &Image) {
        if self.landed(image).is_some() {
            self.images.remove(image);
        }
    }

    /// It failed: when it is tried again.
    pub fn failed(&mut self, image: &Image, now: Moment) -> Option<Moment> {
        let state = self.landed(image)?;
        if state.is_given_up {
            self.images.remove(image);
            return None;
        }
        let failures = state.failures.saturating_add(1);
        let at = now.after(self.backoff.delay(failures, &self.seed, image.as_str()));
        self.resting.insert((at, image.clone()));
        self.images.insert(image.clone(), State { failures, has_failed: true, place: At::Resting(at), ..state });
        Some(at)
    }

    /// Whether it failed when it was tried last, also while it is tried again.
    pub fn has_failed(&self, image: &Image) -> bool {
        self.images.get(image).is_some_and(|state| state.has_failed)
    }

    /// Something else is wanted of it than what was tried before. It waits no less for that.
    pub fn is_wanted_otherwise(&mut self, image: &Image) {
        if let Some(state) = self.images.get_mut(image) {
            state.has_failed = false;
        }
    }

    /// How many are ready, resting after a failure, under way.
    pub fn lengths(&self) -> (usize, usize, usize) {
        let ready = self.registries.values().map(|registry| registry.by_age.len()).sum();
        (ready, self.resting.len(), self.under_way)
    }

    /// Places that one registry may have.
    pub fn per_registry(&self) -> usize {
        self.at_most.div_ceil(2)
    }

    /// A clock that was set back lets nothing rest for longer than it would have from now.
    fn follow_the_clock(&mut self, now: Moment) {
        let latest = now.after(self.backoff.longest.saturating_mul(2));
        while let Some((at, image)) = self.resting.last().cloned()
            && at > latest
        {
            self.resting.pop_last();
            self.resting.insert((latest, image.clone()));
            if let Some(state) = self.images.get_mut(&image) {
                state.place = At::Resting(latest);
            }
        }
    }

    fn pick(&mut self) -> Option<Image> {
        let usual = self.per_registry();
        let may = |registry: &Registry| {
            let Limit { at_a_time, not_before } = registry.limit;
            registry.under_way < at_a_time.unwrap_or(usual).max(1) && not_before.is_none()
        };
        let turn = self.taken + 1;
        let (_, registry) = self
            .registries
            .iter_mut()
            .filter(|(_, registry)| !registry.by_age.is_empty() && may(registry))
            .min_by_key(|(_, registry)| (registry.under_way, registry.last_turn))?;
        registry.turns += 1;
        registry.last_turn = turn;
        let image = if registry.turns.is_multiple_of(FOR_THE_OLDEST) {
            registry.by_age.first().map(|(_, image)| image.clone())
        } else {
            registry.by_need.first().map(|(_, _, image)| image.clone())
        }?;
        registry.under_way += 1;
        self.taken = turn;
        self.under_way += 1;
        let state = self.images.get(&image).copied()?;
        self.leave(&image, state);
        self.images.insert(image.clone(), State { place: At::UnderWay, ..state });
        Some(image)
    }

    fn landed(&mut self, image: &Image) -> Option<State> {
        let state = self.images.get(image).copied().filter(|state| state.place == At::UnderWay)?;
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(registry) = self.registries.get_mut(image.registry()) {
            registry.under_way = registry.under_way.saturating_sub(1);
        }
        Some(state)
    }

    fn enter(&mut self, image: &Image, state: State) {
        // A new one goes behind those that wait.
        let new = || Registry { last_turn: self.taken, ..Registry::default() };
        let registry = self.registries.entry(image.registry().into()).or_insert_with(new);
        registry.by_need.insert((Reverse(state.need), state.arrived, image.clone()));
        registry.by_age.insert((state.arrived, image.clone()));
        self.images.insert(image.clone(), state);
    }

    fn leave(&mut self, image: &Image, state: State) {
        if let At::Resting(at) = state.place {
            self.resting.remove(&(at, image.clone()));
        }
        if let Some(registry) = self.registries.get_mut(image.registry()) {
            registry.by_need.remove(&(Reverse(state.need), state.arrived, image.clone()));
            registry.by_age.remove(&(state.arrived, image.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
