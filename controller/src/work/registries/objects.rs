//! The objects: made where the cache has an image of a registry, told how it is, deleted when nobody needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Resource as _;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use larder_api::{UpstreamRegistry, UpstreamRegistryStatus};
use larder_oci::Registry;
use serde_json::json;
use tokio::time::Instant;

use super::{AGAIN, Ended};
use crate::FIELD_MANAGER;
use crate::api_server::answered;
use crate::decide::registry::{UNUSED, to_make};
use crate::decide::standing::SILENT;
use crate::registries::Upstream;
use crate::work::notes::Arrival;
use crate::work::objects::applying;
use crate::work::registry_status::{self, Facts};
use crate::work::telling::Worth;
use crate::work::{ANSWER, Done, Told, WRITES, Work};
use crate::world::{Source, Tally, now};

impl Work {
    pub(super) fn make_registries(&mut self) {
        let at = Instant::now();
        let missing: Vec<Box<str>> = {
            let known = self.shared.world.known();
            if !known.registries.is_known() {
                return;
            }
            let cached = known.tallies.all().map(|(registry, of)| (registry, of.cached()));
            let has_object = |registry: &str| {
                known.registries.of(registry).is_some()
                    || self.registries.writing.contains(registry)
                    || self.registries.again.get(registry).is_some_and(|again| *again > at)
            };
            let being_made =
                self.registries.writing.iter().filter(|registry| known.registries.of(registry).is_none()).count();
            let room = WRITES.saturating_sub(self.registries.writing.len());
            let missing = to_make(cached, has_object, (known.registries.all().count(), being_made));
            missing.into_iter().take(room).map(Box::from).collect()
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
            self.write_registry(registry, None, "registry", async move {
                api.patch(&name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(&patch)).await
            });
        }
    }

    /// Those of which there is something new to say, and what. The reasons that all of them give are counted.
    pub(super) fn registries_to_tell(&mut self) -> Vec<(Box<str>, Upstream, UpstreamRegistryStatus)> {
        let (at, now) = (Instant::now(), now());
        let mut reasons = BTreeMap::<(&'static str, &'static str), usize>::new();
        let mut told = Vec::new();
        {
            let shared = Arc::clone(&self.shared);
            let known = shared.world.known();
            for object in known.registries.all() {
                let registry = object.registry().filter(|_| object.counts());
                let key = registry.clone().unwrap_or_else(|| object.name.as_str().into());
                let none = Tally::default();
                let counts = self.pins.is_listed.then(|| known.tallies.of(&key).unwrap_or(&none));
                let standing = self.registries.standings.get(&key);
                let has_heard = self.registries.has_heard();
                let status = registry_status::status(&Facts { object, counts, standing, has_heard, now });
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
        }
        self.shared
            .metrics
            .registries(reasons.iter().map(|((condition, reason), count)| (*condition, *reason, *count)));
        self.registries.budget.forget_old(at);
        told
    }

    pub(super) fn tell_registries(&mut self) {
        for (registry, object, status) in self.registries_to_tell() {
            if self.registries.writing.len() >= WRITES {
                // Whichever is written next looks again.
                return;
            }
            let patch = json!({
                "apiVersion": UpstreamRegistry::api_version(&()), "kind": UpstreamRegistry::kind(&()),
                "metadata": { "name": object.name, "uid": object.uid, "resourceVersion": object.resource_version },
                "status": status,
            });
            let api = self.registries.api.clone();
            let (notes, arrival) = (Vec::new(), Arrival::None);
            let told = Told { name: object.name.clone(), uid: object.uid.clone(), notes, arrival };
            self.write_registry(registry, Some(told), "registry_status", async move {
                api.patch_status(&object.name, &applying(), &Patch::Apply(&patch)).await
            });
        }
    }

    fn write_registry(
        &mut self,
        registry: Box<str>,
        told: Option<Told>,
        kind: &'static str,
        write: impl Future<Output = Result<UpstreamRegistry, kube::Error>> + Send + 'static,
    ) {
        self.registries.writing.insert(registry.clone());
        self.registries.budget.spent(&registry, Instant::now());
        self.shared.metrics.wrote(kind);
        self.write(answered(ANSWER, write), move |result| {
            Done::Registries(Ended::Written { registry, told, kind, result: Box::new(result) })
        });
    }

    pub(super) fn registry_written(
        &mut self,
        registry: &str,
        told: Option<Told>,
        kind: &'static str,
        result: Result<UpstreamRegistry, kube::Error>,
    ) {
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
                if let Some(Told { name, uid, .. }) = told.filter(|_| crate::api_server::is_no_such_object(&error)) {
                    let now = std::time::Instant::now();
                    self.shared.world.change(|known| known.registry_missing(&name, &uid, now));
                }
                self.registries.again.insert(registry.into(), Instant::now() + Duration::from_secs(1));
            }
            Err(error) => {
                self.shared.metrics.write_failed(kind);
                tracing::warn!(
                    registry,
                    "its UpstreamRegistry cannot be written: {}",
                    crate::api_server::words(&error)
                );
                self.registries.again.insert(registry.into(), Instant::now() + AGAIN);
            }
        }
    }

    /// What their objects say of outages is told to who does not look.
    pub(super) fn tell_of_outages(&mut self) {
        let now = Instant::now().into_std();
        let mut told = Vec::new();
        let known = self.shared.world.known();
        self.registries.outages.keep_only(|registry| known.registries.of(registry).is_some());
        for object in known.registries.all().filter(|object| object.counts()) {
            let Some(registry) = object.registry() else { continue };
            let answers = registry_status::answers(&object.status);
            if let Some(outage) = self.registries.outages.see(&registry, answers, now) {
                let note = registry_status::note(outage, &registry, &object.status);
                told.extend(note.map(|note| (object.name.clone(), object.uid.clone(), note)));
            }
        }
        drop(known);
        for (name, uid, note) in told {
            self.events.of_registry(&name, &uid, note);
        }
    }

    /// Nothing is remembered of registries for longer than it is of use.
    pub(super) fn forget_registries(&mut self) {
        let (at, now) = (Instant::now(), now());
        let known = self.shared.world.known();
        self.registries.again.retain(|_, again| *again > at);
        self.registries.asked.retain(|registry, _| known.tallies.of(registry).is_some());
        self.registries.holds.retain(|_, hold| hold.said(now).is_some());
        self.registries.standings.retain(|registry, standing| {
            // How it was is no word about how it is when the next image of it comes.
            let is_silent = standing.heard().is_none_or(|heard| now.since(heard) >= SILENT);
            known.tallies.of(registry).is_some() || !is_silent || standing.peace.is_some_and(|until| until > now)
        });
    }

    /// Those that the controller made and nobody edited, and of which no image has been for long.
    pub(super) fn delete_registries(&mut self) {
        let at = Instant::now();
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
        }
        self.registries.unused.retain(|registry, _| present.contains(registry));
        for (registry, object) in due {
            if self.registries.writing.len() >= WRITES {
                return;
            }
            self.registries.writing.insert(registry.clone());
            self.shared.metrics.wrote("registry_expiry");
            let api = self.registries.api.clone();
            let preconditions =
                Preconditions { uid: Some(object.uid), resource_version: Some(object.resource_version) };
            let parameters = DeleteParams::default().preconditions(preconditions);
            let delete = async move { answered(ANSWER, api.delete(&object.name, &parameters)).await.map(drop) };
            self.write(delete, move |result| Done::Registries(Ended::Deleted { registry, result }));
        }
    }
}
