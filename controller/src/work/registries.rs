//! `UpstreamRegistries`: made of a registry whose images the cache has, told how it is doing, asked when nothing is heard of it.
//!
//! What the caches see of registries is heard every few seconds from each of their replicas; what is made of it is decided in
//! [`standing`](crate::decide::standing) and [`registry`](crate::decide::registry). Objects that people made or edited are told how their registry is, and
//! otherwise left alone (`objects`).

mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use larder_api::UpstreamRegistry;
use tokio::time::Instant;

use super::budget::{Budget, OF_A_REGISTRY};
use super::{Done, QUESTIONS_AT_ALL, Told, Work};
use crate::cluster_cache::{CacheError, Heard};
use crate::decide::health::Reachable;
use crate::decide::outages::Outages;
use crate::decide::quota::{KeptQuota, QuotaHold};
use crate::decide::registry::{Asked, to_ask};
use crate::decide::rounds::Quota;
use crate::decide::standing::{Standing, ask_at};
use crate::decide::turns::Limit;
use crate::decide::{Image, Moment};
use crate::world::now;

/// Between two questions to the caches how registries are.
const HEAR: Duration = Duration::from_secs(2);

/// The same while none of them says it.
const HEAR_AGAIN: Duration = Duration::from_secs(10);

/// Until something that could not be written is written again.
const AGAIN: Duration = Duration::from_secs(10);

/// How something ended.
pub(super) enum Ended {
    /// The caches were asked how registries are.
    Heard(Result<Heard, CacheError>),
    /// An object was made or written.
    Written {
        registry: Box<str>,
        told: Option<Told>,
        kind: &'static str,
        result: Box<Result<UpstreamRegistry, kube::Error>>,
    },
    /// An object was deleted, that nobody needs.
    Deleted { registry: Box<str>, result: Result<(), kube::Error> },
}

/// What is known of registries.
pub(super) struct Registries {
    api: Api<UpstreamRegistry>,
    marks: BTreeMap<SocketAddr, String>,
    standings: BTreeMap<Box<str>, Standing>,
    /// What is said of those whose quota is kept for pulls.
    holds: BTreeMap<Box<str>, QuotaHold>,
    /// What was told of outages to who does not look.
    outages: Outages,
    budget: Budget<Box<str>>,
    writing: BTreeSet<Box<str>>,
    /// What could not be written is not written before that.
    again: BTreeMap<Box<str>, Instant>,
    /// Since when no image is of a registry that has an object.
    unused: BTreeMap<Box<str>, Instant>,
    /// When a registry was asked by itself last, and whether it has not answered yet.
    asked: BTreeMap<Box<str>, Moment>,
    asking: BTreeSet<Box<str>>,
    next_hearing: Instant,
    hears: bool,
    next_look: Instant,
}

impl Registries {
    pub(super) fn new(client: kube::Client) -> Self {
        let begin = Instant::now();
        Self {
            api: Api::all(client),
            marks: BTreeMap::new(),
            standings: BTreeMap::new(),
            holds: BTreeMap::new(),
            outages: Outages::default(),
            budget: Budget::of(OF_A_REGISTRY),
            writing: BTreeSet::new(),
            again: BTreeMap::new(),
            unused: BTreeMap::new(),
            asked: BTreeMap::new(),
            asking: BTreeSet::new(),
            next_hearing: begin,
            hears: false,
            next_look: begin,
        }
    }

    /// When there is something to do.
    pub(super) fn wakes_at(&self) -> Instant {
        if self.hears { self.next_look } else { self.next_look.min(self.next_hearing) }
    }

    /// Whether a registry can be reached.
    pub(super) fn reachable(&self, registry: &str) -> Reachable {
        self.standings.get(registry).map(Standing::reachable).unwrap_or_default()
    }

    /// Whether the caches have said what they met of registries.
    fn has_heard(&self) -> bool {
        !self.marks.is_empty()
    }

    /// What is said of an image that waits because what is left of its registry's quota is kept for pulls.
    pub(super) fn kept_for_pulls(&self, registry: &str, now: Moment) -> Option<String> {
        Some(self.holds.get(registry)?.said(now)?.words(registry))
    }
}

impl Work {
    /// What there is to do of registries now.
    pub(super) fn look_at_registries(&mut self) {
        let at = Instant::now();
        if !self.registries.hears && at >= self.registries.next_hearing {
            self.registries.hears = true;
            let (cache, marks) = (self.shared.cache.clone(), self.registries.marks.clone());
            self.write(async move { cache.registries(&marks, now).await }, |heard| {
                Done::Registries(Ended::Heard(heard))
            });
        }
        if at < self.registries.next_look {
            return;
        }
        self.registries.next_look = at + HEAR;
        if !self.shared.world.known().listed.everything() {
            return;
        }
        self.forget_registries();
        if self.shared.settings.observe {
            // What they would say is counted, and none of them is made, told or deleted.
            self.registries_to_tell();
            return;
        }
        self.ask_registries();
        self.make_registries();
        self.tell_registries();
        self.delete_registries();
        self.tell_of_outages();
    }

    pub(super) fn registries_ended(&mut self, ended: Ended) {
        match ended {
            Ended::Heard(heard) => self.heard(heard),
            Ended::Written { registry, told, kind, result } => self.registry_written(&registry, told, kind, *result),
            Ended::Deleted { registry, result } => {
                self.registries.writing.remove(&registry);
                match result {
                    Ok(()) => tracing::info!(%registry, "no image is of it any more: its UpstreamRegistry is deleted"),
                    Err(error) => {
                        if !matches!(crate::api_server::code(&error), Some(404 | 409)) {
                            self.shared.metrics.write_failed("registry_expiry");
                        }
                        let words = crate::api_server::words(&error);
                        tracing::debug!(%registry, "its UpstreamRegistry is not deleted: {words}");
                        self.registries.again.insert(registry, Instant::now() + AGAIN);
                    }
                }
            }
        }
    }

    fn heard(&mut self, heard: Result<Heard, CacheError>) {
        self.registries.hears = false;
        let heard = match heard {
            Ok(heard) => heard,
            Err(error) => {
                self.registries.next_hearing = Instant::now() + HEAR_AGAIN;
                tracing::debug!("nobody says how registries are: {error}");
                return;
            }
        };
        self.registries.next_hearing = Instant::now() + HEAR;
        self.registries.marks = heard.marks;
        let now = now();
        let mut changed = BTreeSet::new();
        for (registry, reports) in heard.reports {
            let standing = self.registries.standings.entry(registry.clone()).or_default();
            if standing.learn(reports, now) {
                tracing::info!(%registry, "{}", match standing.reachable() {
                    Reachable::Not(_) => "the registry cannot be reached",
                    Reachable::Since(_) | Reachable::Unknown => "the registry answers",
                });
                changed.insert(registry.clone());
            }
            if self.heed_quota(&registry, now) {
                changed.insert(registry);
            }
        }
        // Seen at once.
        self.registries.next_look = Instant::now();
        if !changed.is_empty() {
            self.look_at_images_of(&changed);
        }
    }

    /// The condition of an image says whether its registry can be reached, and what it is and does may be what is said of that.
    fn look_at_images_of(&mut self, registries: &BTreeSet<Box<str>>) {
        let known = self.shared.world.known();
        let is_of = |image: &&Image| registries.contains(image.registry());
        let images: Vec<Image> = known.by_image.keys().chain(known.index.images()).filter(is_of).cloned().collect();
        drop(known);
        for image in images {
            self.look_soon(image);
        }
    }

    /// Nothing that the registry counts is taken beyond what is not kept for pulls. Whether something else is to be said of its images because of that.
    fn heed_quota(&mut self, registry: &str, now: Moment) -> bool {
        let said = self.shared.world.known().registries.rules.of(registry).cloned().unwrap_or_default();
        let mut limit = Limit { at_a_time: said.images_at_a_time, not_before: None };
        let standing = self.registries.standings.get(registry);
        let mut kept = None;
        if let Some(quota) = standing.and_then(|standing| standing.quota)
            && let Some(remaining) = quota.remaining
        {
            let keep =
                said.keep_quota.zip(quota.limit).map(|(percent, limit)| limit.saturating_mul(percent).div_ceil(100));
            let reset = quota.resets_at().unwrap_or(quota.at.after(Duration::from_hours(1)));
            let per_window = |limit: u64| u32::try_from(limit).ok().filter(|limit| *limit > 0);
            let refill = quota.window.zip(quota.limit.and_then(per_window)).map(|(window, limit)| window / limit);
            self.rounds.quota(registry, Quota { remaining, reset, refill }, keep);
            limit.not_before = keep.filter(|keep| remaining <= *keep).map(|_| reset).filter(|reset| *reset > now);
            kept = said.keep_quota.zip(limit.not_before).map(|(percent, until)| KeptQuota { percent, until });
        }
        if let Some(until) = standing.and_then(|standing| standing.peace).filter(|until| *until > now) {
            self.rounds.rest(registry, until);
        }
        self.turns.limit(registry, limit);
        let mut hold = self.registries.holds.remove(registry).unwrap_or_default();
        let is_news = hold.learn(kept, now);
        if hold.said(now).is_some() {
            self.registries.holds.insert(registry.into(), hold);
        }
        is_news
    }

    /// What people have said of registries until now.
    pub(super) fn begin_registries(&mut self) {
        let all = self.shared.world.known().registries.rules.0.keys().cloned().collect();
        self.registries_changed(&all);
    }

    /// People said something else of these registries than before.
    pub(super) fn registries_changed(&mut self, changed: &BTreeSet<Box<str>>) {
        self.rules = self.shared.world.known().registries.rules.rules(self.shared.settings.rules.default);
        let now = now();
        for registry in changed {
            // What was said before was of another percentage.
            self.registries.holds.remove(registry);
            self.heed_quota(registry, now);
        }
        self.registries.next_look = Instant::now();
        self.look_at_images_of(changed);
        self.pass_soon();
    }

    /// Asks those of which nothing was heard for long, or which failed just now: an outage is to be seen also where nobody pulls.
    fn ask_registries(&mut self) {
        if self.pins.trouble.is_some() {
            return;
        }
        let now = now();
        let due: Vec<Box<str>> = {
            let shared = Arc::clone(&self.shared);
            let known = shared.world.known();
            let idle = known.tallies.all().filter(|(registry, _)| !self.registries.asking.contains(*registry));
            let all = idle.map(|(registry, tally)| {
                let last = self.registries.asked.get(registry).copied();
                Asked {
                    registry,
                    cached: tally.cached(),
                    has_object: known.registries.of(registry).is_some(),
                    last,
                    due: ask_at(self.registries.standings.get(registry), last, now),
                }
            });
            to_ask(all, now).into_iter().map(Box::from).collect()
        };
        for registry in due {
            // The rest is for images whose turn it is.
            if self.under_way() >= QUESTIONS_AT_ALL / 2 {
                return;
            }
            let Some(image) = self.rounds.soonest(&registry).cloned() else { continue };
            if self.ask(image) {
                self.registries.asked.insert(registry.clone(), now);
                self.registries.asking.insert(registry);
            }
        }
    }

    /// One of a registry's images was asked for.
    pub(super) fn registry_was_asked(&mut self, registry: &str) {
        if self.registries.asking.remove(registry) {
            // What came of it is known to the cache now.
            self.registries.next_hearing = self.registries.next_hearing.min(Instant::now());
        }
    }
}
