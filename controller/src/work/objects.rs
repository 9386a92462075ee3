//! `CachedImages`: made where a Pod wants an image, and told how it is. Their end is [`expire`](super::expire).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Resource as _;
use kube::api::{Patch, PatchParams};
use larder_api::{CachedImage, cached_image, upstream_registry};
use larder_oci::{Algorithm, Digest};
use serde_json::json;
use tokio::time::Instant;

use super::notes::{Arrival, notes};
use super::telling::{self, Facts, Worth};
use super::{ANSWER, Done, LOOKS, Told, WRITES, Work};
use crate::FIELD_MANAGER;
use crate::api_server::answered;
use crate::decide::conditions::{NotPinned, Upstream};
use crate::decide::expiry;
use crate::decide::index::Wanted;
use crate::decide::platforms::{Platform, Platforms};
use crate::decide::{Image, Moment};
use crate::events::Note;
use crate::world::{Known, Object, Source, now};

/// What is to be done with an image's objects.
enum Look {
    Nothing,
    Later(Instant),
    Make(Image),
    Tell(Box<(Arc<Object>, cached_image::CachedImageStatus)>),
}

/// What nobody can do of what an object says, although the API server let it through. The rest of it is done.
fn ignored(spec: &larder_api::CachedImageSpec) -> Option<String> {
    let platforms = spec.platforms.iter().filter_map(|text| crate::decide::platforms::Platform::parse(text).err());
    let platforms = platforms.map(|error| format!("spec.platforms: {error}"));
    let expiry = spec.expiry().err().map(|error| format!("spec.expiry: {error}"));
    let all: Vec<String> = platforms.chain(expiry).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// So that one can ask what of a registry is not safe. Longer names do not fit into a label.
fn labels(image: &larder_oci::ImageReference) -> BTreeMap<&'static str, String> {
    let name = upstream_registry::name::of(&image.registry);
    [(larder_api::labels::REGISTRY, name)].into_iter().filter(|(_, name)| name.len() <= 63).collect()
}

pub(super) fn applying() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

impl Work {
    /// What changes with time alone is looked at now and then, each image at a time of its own.
    pub(super) fn look_by_time(&mut self) {
        for image in self.by_time.take(now()) {
            self.look_soon(image);
        }
    }

    /// Looks at images whose time has come.
    pub(super) fn look(&mut self) {
        // Until everything is listed there is nothing to be said of any of them; the end of a list wakes.
        self.may_look = self.is_all_listed();
        if !self.may_look {
            return;
        }
        let now = Instant::now();
        for _ in 0..LOOKS {
            if self.writing.len() >= WRITES {
                return;
            }
            let Some(image) = self.looks.take_due(now) else { return };
            if self.writing.contains(&image) {
                // Looked at again when that has ended.
                continue;
            }
            match self.look_at(&image) {
                Look::Nothing => {}
                Look::Later(at) => {
                    self.looks.insert(image, at);
                }
                Look::Make(image) => self.make(image),
                Look::Tell(told) => {
                    let (object, status) = *told;
                    self.tell(&object, &status);
                }
            }
        }
    }

    fn look_at(&mut self, image: &Image) -> Look {
        self.shared.metrics.looked();
        let shared = Arc::clone(&self.shared);
        let known = shared.world.known();
        if !known.listed.everything() {
            return Look::Later(Instant::now() + Duration::from_millis(200));
        }
        let now = now();
        let wanted = known.index.image(image, now);
        let objects: Vec<Arc<Object>> = known.objects_of(image).collect();
        if objects.is_empty() && known.unreadable.has(image) {
            return Look::Nothing;
        }
        if objects.is_empty() {
            let used = telling::use_of(wanted.as_ref());
            // Deleted by hand: first its pin goes, then it comes back.
            let is_leaving = known.deleted.contains(image);
            let wants = expiry::wants_object(image, used, &self.rules, now);
            let has_room = !wants || is_leaving || self.has_room(&known, image);
            drop(known);
            self.rounds.unwatch(image);
            self.ends.remove(image);
            self.by_time.unwatch(image);
            self.pins.refused.remove(image);
            if !wants || wanted.is_none() {
                if !is_leaving {
                    shared.world.known().index.forget(image);
                }
                self.digests.remove(image);
                self.upstream.remove(image);
                self.arriving.remove(image);
                return Look::Nothing;
            }
            if is_leaving {
                return Look::Nothing;
            }
            if shared.settings.observe {
                // It is forgotten when its time is over, which nobody else says.
                self.by_time.watch(image, telling::LAST_USE, now);
                return Look::Nothing;
            }
            if !has_room {
                // However many there were, only those are remembered that somebody still wants. A pass sees when there is room.
                if !used.is_used && !used.has_ended {
                    shared.world.known().index.forget(image);
                    self.forget_over(image);
                }
                return Look::Nothing;
            }
            let at = self.budget.at(image, Worth::News, Instant::now());
            return if at > Instant::now() { Look::Later(at) } else { Look::Make(image.clone()) };
        }
        if shared.settings.observe {
            return Look::Nothing;
        }
        let platforms = Self::platforms(&objects, &known);
        let interval = known.registries.rules.interval(image, shared.settings.monitoring);
        let follows = self.follows(&known, image, &objects, wanted.as_ref());
        drop(known);
        self.note_the_end(image, &objects, wanted.as_ref(), now);
        self.by_time.watch(image, telling::LAST_USE, now);
        self.wish(image, &objects, wanted.as_ref(), now);
        for object in objects {
            if self.must_wait_for_pins(&object) {
                // With the list, or when it is to be said that there is none, all are looked at.
                continue;
            }
            let status = self.status_of(&object, wanted.as_ref(), (&platforms, follows), now);
            let worth = telling::worth(&object.status, &status, interval);
            if worth == Worth::Nothing {
                continue;
            }
            let at = self.budget.at(image, worth, Instant::now());
            if at > Instant::now() {
                return Look::Later(at);
            }
            return Look::Tell(Box::new((object, status)));
        }
        Look::Nothing
    }

    /// Until this process has seen the pins, what another one said of an image is the best that is known; unless the cache does not say for so long that
    /// that is what is to be said.
    fn must_wait_for_pins(&self, object: &Object) -> bool {
        let is_told_of_trouble = self.pins.trouble.words(Instant::now()).is_some();
        !self.pins.is_listed && !is_told_of_trouble && !object.status.conditions.is_empty()
    }

    /// For which machines an image is kept that has these objects.
    pub(super) fn platforms(objects: &[Arc<Object>], known: &Known) -> Platforms {
        Self::platforms_on(objects, known, &known.platforms(std::time::Instant::now()))
    }

    /// The same, where the nodes are of these.
    pub(super) fn platforms_on(objects: &[Arc<Object>], known: &Known, nodes: &BTreeSet<Platform>) -> Platforms {
        let own =
            |object: &Object| object.spec.platforms.iter().filter_map(|text| Platform::parse(text).ok()).collect();
        let mut all = objects.iter().map(|object| Platforms::of(&own(object), nodes));
        let first = all.next().unwrap_or_default();
        let mut wanted = all.fold(first, |platforms, more| platforms.and(&more));
        // Whoever writes to an object decides what is fetched beside what Pods need, and not in its place.
        let is_used =
            |object: &Arc<Object>| known.index.image(&object.image, now()).is_some_and(|wanted| wanted.is_used());
        if objects.iter().any(|object| !object.spec.platforms.is_empty()) && objects.iter().any(is_used) {
            wanted = wanted.and(&Platforms::of(&BTreeSet::new(), nodes));
        }
        // However many objects ask for however much: what the nodes need comes first.
        wanted.at_most(cached_image::MOST_PLATFORMS, nodes)
    }

    fn status_of(
        &self,
        object: &Object,
        wanted: Option<&Wanted>,
        (platforms, follows): (&Platforms, bool),
        now: Moment,
    ) -> cached_image::CachedImageStatus {
        let none = Upstream::NotAsked;
        let (upstream, checked) = match self.upstream.get(&object.image) {
            Some((upstream, at)) => (upstream, Some(*at)),
            None => (&none, None),
        };
        let pin = match self.pins.trouble.words(Instant::now()) {
            Some(words) => Err(words),
            None => Ok(self.pins.known.get(&object.image)),
        };
        let beside: BTreeMap<Digest, bool> = self
            .digests
            .get(&object.image)
            .into_iter()
            .flatten()
            .map(|(digest, _)| {
                let pin = self.pins.known.get(&object.image.at(digest));
                (digest.clone(), pin.is_some_and(|pin| pin.held().is_some()))
            })
            .collect();
        let facts = Facts {
            object,
            wanted,
            pin,
            digests: &beside,
            not_pinned: self.not_pinned(object, now),
            ignored: ignored(&object.spec),
            refused: self.pins.refused.get(&object.image).map(String::as_str),
            registry: self.registries.reachable(object.image.registry()),
            upstream,
            checked,
            is_watched: self.rounds.watches(&object.image),
            platforms,
            follows,
            rules: &self.rules,
            now,
        };
        telling::status(&facts)
    }

    fn not_pinned(&self, object: &Object, now: Moment) -> Option<NotPinned> {
        let image = &object.image;
        let skipped = self.shared.world.known().registries.rules.skipped(image).map(NotPinned::Skipped);
        let over = || self.over(image).cloned().map(NotPinned::OverBound);
        let kept = || self.registries.kept_for_pulls(image.registry(), now).map(NotPinned::QuotaKept);
        skipped.or_else(over).or_else(kept)
    }

    fn make(&mut self, image: Image) {
        let Some(reference) = telling::reference(&image) else { return };
        let object = CachedImage::of(&reference);
        let mut name = object.metadata.name.clone().unwrap_or_default();
        if self.squatted.contains(&image) {
            // Nobody knows this process's identity before it is there.
            let own = Digest::of(Algorithm::Sha256, format!("{}\n{image}", self.shared.identity).as_bytes());
            name = format!("{name}-{}", own.hex().get(..16).unwrap_or_default());
        }
        let patch = json!({
            "apiVersion": CachedImage::api_version(&()), "kind": CachedImage::kind(&()),
            "metadata": { "name": name, "labels": labels(&reference) }, "spec": { "image": image.as_str() },
        });
        let api = self.api.clone();
        self.begin_write(
            image,
            None,
            "object",
            async move { api.patch(&name, &applying(), &Patch::Apply(&patch)).await },
        );
    }

    fn tell(&mut self, object: &Object, status: &cached_image::CachedImageStatus) {
        let patch = json!({
            "apiVersion": CachedImage::api_version(&()), "kind": CachedImage::kind(&()),
            "metadata": { "name": object.name, "uid": object.uid, "resourceVersion": object.resource_version },
            "status": status,
        });
        let api = self.api.clone();
        let name = object.name.clone();
        let known = self.arriving.contains(&object.image);
        let mut arrival = if known { Arrival::OnTheWay } else { Arrival::None };
        let mut said = notes(&object.status, status, &mut arrival);
        let is_new = object.status.observed_generation != object.generation;
        if let Some(words) = ignored(&object.spec).filter(|_| is_new) {
            said.push(Note::warning("Invalid", format!("ignored, until it is corrected: {words}")));
        }
        let told = Told { name: name.clone(), uid: object.uid.clone(), notes: said, arrival };
        self.begin_write(object.image.clone(), Some(told), "status", async move {
            api.patch_status(&name, &applying(), &Patch::Apply(&patch)).await
        });
    }

    fn begin_write(
        &mut self,
        image: Image,
        told: Option<Told>,
        kind: &'static str,
        write: impl Future<Output = Result<CachedImage, kube::Error>> + Send + 'static,
    ) {
        self.writing.insert(image.clone());
        self.budget.spent(&image, Instant::now());
        self.shared.metrics.wrote(kind);
        self.write(answered(ANSWER, write), move |result| Done::Written {
            image,
            told,
            kind,
            result: Box::new(result),
        });
    }

    pub(super) fn written(
        &mut self,
        image: &Image,
        told: Option<Told>,
        kind: &'static str,
        result: Result<CachedImage, kube::Error>,
    ) {
        self.writing.remove(image);
        match result {
            Ok(object) => {
                self.conditions.api.clear();
                if let Some(told) = told {
                    self.note(image, told);
                }
                if let Some(object) = Object::of(object) {
                    self.shared.world.known().object(object, Source::Answer);
                }
                self.see_size(image);
                self.look_soon(image.clone());
            }
            // Its name is an object's of another image, which cannot be changed: somebody took it. Another name does as well.
            Err(error)
                if crate::api_server::code(&error) == Some(422)
                    && !self.shared.world.known().by_image.contains_key(image)
                    && self.squatted.insert(image.clone()) =>
            {
                tracing::warn!(%image, "the name of its CachedImage is taken by one of another image: it gets another name");
                // Nothing was written.
                self.budget.forget(image);
                self.look_soon(image.clone());
            }
            // Somebody else changed it, or it is gone: the watch says what is.
            Err(error) if matches!(crate::api_server::code(&error), Some(404 | 409)) => {
                if let Some(Told { name, uid, .. }) = told.filter(|_| crate::api_server::is_no_such_object(&error)) {
                    self.shared.world.known().object_missing(&name, &uid, std::time::Instant::now());
                }
                self.looks.insert(image.clone(), Instant::now() + Duration::from_secs(1));
            }
            Err(error) => {
                let words = crate::api_server::words(&error);
                self.shared.metrics.write_failed(kind);
                self.conditions.api.set(format!("{image}: {words}; it is tried again"));
                if self.refusals.is_news(&words, Instant::now()) {
                    tracing::warn!(%image, "its CachedImage cannot be written: {words}");
                }
                self.looks.insert(image.clone(), Instant::now() + Duration::from_secs(10));
            }
        }
    }

    /// Its status says so from now on. What was written although nobody heard of it is not told: the status says it.
    fn note(&mut self, image: &Image, told: Told) {
        let Told { name, uid, notes, arrival } = told;
        match arrival {
            Arrival::OnTheWay => self.arriving.insert(image.clone()),
            Arrival::None => self.arriving.remove(image),
        };
        for note in notes {
            self.events.of_image(&name, &uid, note);
        }
    }
}
