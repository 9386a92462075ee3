//! `UpstreamRegistries`: made of a registry whose images the cache has, told how it is doing, asked when nothing is heard of it.
//!
//! What the caches see of registries is heard every few seconds from each of their replicas; what is made of it is decided in
//! [`standing`](crate::decide::standing) and [`registry`](crate::decide::registry). Objects that people made or edited are told how their registry is, and
//! otherwise left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource as _};
use larder_api::UpstreamRegistry;
use larder_oci::Registry;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::budget::{Budget, OF_A_REGISTRY};
use super::registry_status::{self, Facts};
use super::telling::Worth;
use super::{ANSWER, Done, Work};
use crate::FIELD_MANAGER;
use crate::cluster_cache::{CacheError, Heard};
use crate::decide::Moment;
use crate::decide::health::Reachable;
use crate::decide::registry::{UNUSED, to_make};
use crate::decide::rounds::Quota;
use crate::decide::standing::{Standing, ask_at};
use crate::decide::turns::Limit;
use crate::registries::Upstream;
use crate::world::{Source, Tally, now};

/// Between two questions to the caches how registries are.
const HEAR: Duration = Duration::from_secs(2);

/// The same while none of them says it.
const HEAR_AGAIN: Duration = Duration::from_secs(10);

/// Until something that could not be written is written again.
const AGAIN: Duration = Duration::from_secs(10);

/// Standings of registries that have no object and no image are kept for so long.
const FORGET: Duration = Duration::from_hours(1);

/// How something ended.
pub(super) enum Ended {
    /// The caches were asked how registries are.
    Heard(Result<Heard, CacheError>),
    /// An object was made or written.
    Written { registry: Box<str>, result: Box<Result<UpstreamRegistry, kube::Error>> },
    /// An object was deleted, that nobody needs.
    Deleted { registry: Box<str>, result: Result<(), kube::Error> },
}

/// What is known of registries.
pub(super) struct Registries {
    api: Api<UpstreamRegistry>,
    marks: BTreeMap<SocketAddr, String>,
    standings: BTreeMap<Box<str>, Standing>,
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
        self.ask_registries();
        self.make_registries();
        self.tell_registries();
        self.delete_registries();
    }

    pub(super) fn registries_ended(&mut self, ended: Ended) {
        match ended {
            Ended::Heard(heard) => self.heard(heard),
            Ended::Written { registry, result } => self.registry_written(&registry, *result),
            Ended::Deleted { registry, result } => {
                self.registries.writing.remove(&registry);
                match result {
                    Ok(()) => tracing::info!(%registry, "no image is of it any more: its UpstreamRegistry is deleted"),
                    Err(error) => {
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
        let mut changed = Vec::new();
        for (registry, reports) in heard.reports {
            let standing = self.registries.standings.entry(registry.clone()).or_default();
            if standing.learn(reports, now) {
                tracing::info!(%registry, "{}", match standing.reachable() {
                    Reachable::Not(_) => "the registry cannot be reached",
                    Reachable::Since(_) | Reachable::Unknown => "the registry answers",
                });
                changed.push(registry.clone());
            }
            self.heed_quota(&registry, now);
        }
        // Seen at once.
        self.registries.next_look = Instant::now();
        if !changed.is_empty() {
            self.look_at_images_of(&changed);
        }
    }

    /// The condition of an image says whether its registry can be reached.
    fn look_at_images_of(&mut self, registries: &[Box<str>]) {
        let known = self.shared.world.known();
        let is_of = |image: &&crate::decide::Image| registries.iter().any(|registry| **registry == *image.registry());
        let images: Vec<_> = known.by_image.keys().filter(is_of).cloned().collect();
        drop(known);
        for image in images {
            self.look_soon(image);
        }
    }

    /// Nothing that the registry counts is taken beyond what is not kept for pulls.
    fn heed_quota(&mut self, registry: &str, now: Moment) {
        let said = self.shared.world.known().registries.rules.of(registry).cloned().unwrap_or_default();
        let mut limit = Limit { at_a_time: said.images_at_a_time, not_before: None };
        let standing = self.registries.standings.get(registry);
        if let Some(quota) = standing.and_then(|standing| standing.quota)
            && let Some(remaining) = quota.remaining
        {
            let keep =
                said.keep_quota.zip(quota.limit).map(|(percent, limit)| limit.saturating_mul(percent).div_ceil(100));
            let reset = quota.at.after(quota.window.unwrap_or(Duration::from_hours(1)));
            let per_window = |limit: u64| u32::try_from(limit).ok().filter(|limit| *limit > 0);
            let refill = quota.window.zip(quota.limit.and_then(per_window)).map(|(window, limit)| window / limit);
            self.rounds.quota(registry, Quota { remaining, reset, refill }, keep);
            limit.not_before = keep.filter(|keep| remaining <= *keep).map(|_| reset);
        }
        if let Some(until) = standing.and_then(|standing| standing.peace).filter(|until| *until > now) {
            self.rounds.rest(registry, until);
        }
        self.turns.limit(registry, limit);
    }

    /// People said something else of registries than before.
    pub(super) fn registries_changed(&mut self) {
        let hosts: Vec<Box<str>> = {
            let known = self.shared.world.known();
            self.rules = known.registries.rules.rules(self.shared.settings.rules.default);
            known.registries.rules.0.keys().cloned().collect()
        };
        let heard: Vec<Box<str>> = self.registries.standings.keys().cloned().collect();
        let now = now();
        for registry in hosts.iter().chain(&heard) {
            self.heed_quota(registry, now);
        }
        self.registries.next_look = Instant::now();
        self.look_at_everything();
        self.pass_soon();
    }

    /// Asks those of which nothing was heard for long, or which failed just now: an outage is to be seen also where nobody pulls.
    fn ask_registries(&mut self) {
        if self.shared.settings.observe || self.pins.trouble.is_some() {
            return;
        }
        let now = now();
        let hosts: Vec<Box<str>> =
            self.shared.world.known().tallies.all().map(|(registry, _)| Box::from(registry)).collect();
        for registry in hosts {
            if self.registries.asking.contains(&registry) {
                continue;
            }
            let standing = self.registries.standings.get(&registry);
            let asked = self.registries.asked.get(&registry).copied();
            if ask_at(standing, asked, now) > now {
                continue;
            }
            let Some(image) = self.rounds.soonest(&registry).cloned() else { continue };
            self.registries.asked.insert(registry.clone(), now);
            if self.ask(image) {
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

    fn make_registries(&mut self) {
        if self.shared.settings.observe {
            return;
        }
        let at = Instant::now();
        let missing: Vec<Box<str>> = {
            let known = self.shared.world.known();
            if !known.registries.is_known {
                return;
            }
            let cached = known.tallies.all().map(|(registry, of)| (registry, of.cached()));
            let has_object = |registry: &str| {
                known.registries.of(registry).is_some()
                    || self.registries.writing.contains(registry)
                    || self.registries.again.get(registry).is_some_and(|again| *again > at)
            };
            to_make(cached, has_object, known.registries.all().len()).into_iter().map(Box::from).collect()
        };
        for registry in missing {
            let Ok(parsed) = Registry::parse(&registry) else { continue };
            let name = UpstreamRegistry::of(&parsed).metadata.name.unwrap_or_default();
            let patch = json!({
                "apiVersion": UpstreamRegistry::api_version(&()), "kind": UpstreamRegistry::kind(&()),
                "metadata": { "name": name }, "spec": { "registry": &*registry },
            });
            let api = self.registries.api.clone();
            // Not forced: whoever made it a moment ago knows better.
            self.write_registry(registry, "registry", async move {
                api.patch(&name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(&patch)).await
            });
        }
    }

    fn tell_registries(&mut self) {
        let (at, now) = (Instant::now(), now());
        let mut reasons = BTreeMap::<(&'static str, &'static str), usize>::new();
        let told: Vec<(Box<str>, Upstream, larder_api::UpstreamRegistryStatus)> = {
            let shared = Arc::clone(&self.shared);
            let known = shared.world.known();
            let mut told = Vec::new();
            for object in known.registries.all() {
                let registry = object.registry().filter(|_| object.counts());
                let key = registry.clone().unwrap_or_else(|| object.name.as_str().into());
                let none = Tally::default();
                let counts = self.pins.is_listed.then(|| known.tallies.of(&key).unwrap_or(&none));
                let standing = self.registries.standings.get(&key);
                let status = registry_status::status(&Facts { object, counts, standing, now });
                registry_status::count(&status, &mut reasons);
                let worth = registry_status::worth(&object.status, &status, now);
                let may = worth != Worth::Nothing
                    && !self.registries.writing.contains(&key)
                    && self.registries.again.get(&key).is_none_or(|again| *again <= at)
                    && self.registries.budget.at(&key, worth, at) <= at;
                if may {
                    told.push((key, object.clone(), status));
                }
            }
            told
        };
        self.shared
            .metrics
            .registries(reasons.iter().map(|((condition, reason), count)| (*condition, *reason, *count)));
        for (registry, object, status) in told {
            let patch = json!({
                "apiVersion": UpstreamRegistry::api_version(&()), "kind": UpstreamRegistry::kind(&()),
                "metadata": { "name": object.name, "uid": object.uid, "resourceVersion": object.resource_version },
                "status": status,
            });
            let api = self.registries.api.clone();
            self.write_registry(registry, "registry_status", async move {
                api.patch_status(&object.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&patch)).await
            });
        }
        self.registries.budget.forget_old(at);
    }

    fn write_registry(
        &mut self,
        registry: Box<str>,
        kind: &'static str,
        write: impl Future<Output = Result<UpstreamRegistry, kube::Error>> + Send + 'static,
    ) {
        self.registries.writing.insert(registry.clone());
        self.registries.budget.spent(&registry, Instant::now());
        self.shared.metrics.wrote(kind);
        let write = async move { timeout(ANSWER, write).await.unwrap_or_else(|_| Err(super::objects::no_answer())) };
        self.write(write, move |result| Done::Registries(Ended::Written { registry, result: Box::new(result) }));
    }

    fn registry_written(&mut self, registry: &str, result: Result<UpstreamRegistry, kube::Error>) {
        self.registries.writing.remove(registry);
        match result {
            Ok(object) => {
                self.registries.again.remove(registry);
                if let Some(object) = Upstream::of(object) {
                    self.shared.world.change(|known| known.registry(object, Source::Answer));
                }
                self.registries.next_look = Instant::now();
            }
            // Somebody else changed it, or is there already: the watch says what is.
            Err(error) if matches!(crate::api_server::code(&error), Some(404 | 409)) => {
                self.registries.again.insert(registry.into(), Instant::now() + Duration::from_secs(1));
            }
            Err(error) => {
                tracing::warn!(
                    registry,
                    "its UpstreamRegistry cannot be written: {}",
                    crate::api_server::words(&error)
                );
                self.registries.again.insert(registry.into(), Instant::now() + AGAIN);
            }
        }
    }

    /// Those that the controller made and nobody edited, and of which no image has been for long.
    fn delete_registries(&mut self) {
        let (at, now) = (Instant::now(), now());
        let (mut due, mut present) = (Vec::new(), BTreeSet::new());
        {
            let shared = Arc::clone(&self.shared);
            let known = shared.world.known();
            for object in known.registries.all().filter(|object| object.is_ours_alone) {
                let Some(registry) = object.registry() else { continue };
                if known.tallies.of(&registry).is_some() {
                    self.registries.unused.remove(&registry);
                    continue;
                }
                let since = *self.registries.unused.entry(registry.clone()).or_insert(at);
                let may = !self.registries.writing.contains(&registry)
                    && self.registries.again.get(&registry).is_none_or(|again| *again <= at);
                if may && at.duration_since(since) >= UNUSED {
                    due.push((registry.clone(), object.clone()));
                }
                present.insert(registry);
            }
            self.registries.standings.retain(|registry, standing| {
                known.tallies.of(registry).is_some() || standing.heard().is_some_and(|heard| now.since(heard) < FORGET)
            });
        }
        self.registries.unused.retain(|registry, _| present.contains(registry));
        for (registry, object) in due {
            self.registries.writing.insert(registry.clone());
            self.shared.metrics.wrote("registry_expiry");
            let api = self.registries.api.clone();
            let preconditions =
                Preconditions { uid: Some(object.uid), resource_version: Some(object.resource_version) };
            let parameters = DeleteParams::default().preconditions(preconditions);
            let delete = async move {
                let deleted = timeout(ANSWER, api.delete(&object.name, &parameters)).await;
                deleted.unwrap_or_else(|_| Err(super::objects::no_answer())).map(drop)
            };
            self.write(delete, move |result| Done::Registries(Ended::Deleted { registry, result }));
        }
    }
}
