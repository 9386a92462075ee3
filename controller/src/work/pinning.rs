//! The cache's side: pins are put when it is their turn, followed until they are there, compared with all objects in a pass, and deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use larder_api::cached_image;
use larder_api::condition::get;
use tokio::time::{Instant, sleep};

use super::telling;
use super::{Done, Work};
use crate::cluster_cache::{AsOf, CacheError, ClusterCache, Pin, PinState};
use crate::decide::brake::Ruling;
use crate::decide::conditions::Upstream;
use crate::decide::index::Wanted;
use crate::decide::pins::{self, CachePin, Listing, Wish};
use crate::decide::platforms::{Platform, Platforms};
use crate::decide::turns::Need;
use crate::decide::{Image, Moment, digests};
use crate::world::{Object, now};

/// How long one request waits for a pin.
const WAIT: Duration = Duration::from_secs(5);

/// Longer than the longest fetch that anybody waits for: its place is given to another then.
const LONGEST: Duration = Duration::from_mins(30);

fn platforms_of(pin: &Pin) -> Platforms {
    let these: BTreeSet<Platform> = pin.platforms.iter().filter_map(|text| Platform::parse(text).ok()).collect();
    if these.is_empty() { Platforms::All } else { Platforms::These(these) }
}

fn words(platforms: &Platforms) -> Vec<String> {
    match platforms {
        Platforms::All => Vec::new(),
        Platforms::These(these) => these.iter().map(ToString::to_string).collect(),
    }
}

impl Work {
    /// Sees that what an image's objects want is in the queue.
    pub(super) fn wish(
        &mut self,
        image: &Image,
        objects: &[Object],
        wanted: Option<&Wanted>,
        platforms: &Platforms,
        now: Moment,
    ) {
        self.keep_digests(image, objects, wanted, now);
        if !image.is_digest() && !self.shared.settings.observe {
            self.rounds.watch(image, self.shared.settings.monitoring, now);
        }
        // Before the list nobody knows what is there; a mass of requests for what is would be all that comes of it.
        if self.shared.settings.observe || !self.pins.is_listed {
            return;
        }
        let wish = self.wish_of(image, wanted, platforms);
        let need = need(wanted);
        for (pin, platforms) in pins::wanted(&[wish]) {
            let is_there = self
                .pins
                .known
                .get(&pin)
                .is_some_and(|known| known.state == PinState::Complete && platforms_of(known) == platforms);
            if !is_there && !self.pins.watched.contains(&pin) && !self.pins.leaving.contains(&pin) {
                self.turns.wait(&pin, need);
            }
        }
    }

    fn wish_of(&self, image: &Image, wanted: Option<&Wanted>, platforms: &Platforms) -> Wish {
        let upstream = match self.upstream.get(image) {
            Some((Upstream::Has(digest), _)) => Some(digest.clone()),
            _ => None,
        };
        Wish {
            image: image.clone(),
            digests: self.digests.get(image).into_iter().flatten().map(|(digest, _)| digest.clone()).collect(),
            platforms: platforms.clone(),
            follow: wanted.is_some_and(|wanted| wanted.is_always),
            upstream,
        }
    }

    fn keep_digests(&mut self, image: &Image, objects: &[Object], wanted: Option<&Wanted>, now: Moment) {
        if image.is_digest() {
            return;
        }
        let recorded = self.digests.remove(image).unwrap_or_else(|| {
            // From before this process: when they were used last nobody knows, so it was now.
            let held = objects.iter().flat_map(|object| &object.status.digests).filter(|held| held.pods > 0);
            held.filter_map(|held| larder_oci::Digest::parse(&held.digest).ok()).map(|digest| (digest, now)).collect()
        });
        let running = wanted.map(|wanted| wanted.digests.clone()).unwrap_or_default();
        let kept = digests::keep(&recorded, &running, now);
        if !kept.is_empty() {
            self.digests.insert(image.clone(), kept);
        }
    }

    /// Begins what it is the turn of.
    pub(super) fn take_turns(&mut self) {
        for image in self.turns.next(now()) {
            let Some(reference) = telling::reference(&image) else {
                self.turns.done(&image);
                continue;
            };
            let platforms = {
                let known = self.shared.world.known();
                let all: Vec<Object> = self.owners(&image, &known);
                if all.is_empty() {
                    drop(known);
                    self.turns.done(&image);
                    continue;
                }
                self.platforms(&all, &known)
            };
            self.pins.watched.insert(image.clone());
            let (cache, progress) = (self.shared.cache.clone(), self.progress.0.clone());
            let name = image.clone();
            let fetch = async move {
                let mut pin = cache.put(&reference, &words(&platforms), WAIT).await?;
                let end = Instant::now() + LONGEST;
                while matches!(pin.state, PinState::Queued | PinState::Fetching) && Instant::now() < end {
                    // Nobody waits for who would hear of it.
                    let _ = progress.try_send(Done::Progress { image: name.clone(), pin: pin.clone() });
                    sleep(Duration::from_secs(1)).await;
                    pin = cache.get(&reference).await?.ok_or_else(|| CacheError::Refused {
                        status: 404,
                        reason: "somebody deleted the pin while it was fetched".to_owned(),
                    })?;
                }
                Ok(pin)
            };
            self.write(fetch, move |result| Done::Fetched { image, result });
        }
    }

    /// Objects because of which something is pinned: its own, and for a digest those of its tags that keep it.
    fn owners(&self, pin: &Image, known: &crate::world::Known) -> Vec<Object> {
        let mut owners: Vec<Object> = known.objects_of(pin).map(|object| Object::clone(object)).collect();
        if let Some(digest) = pin.digest() {
            let beside =
                self.digests.iter().filter(|(image, kept)| image.name() == pin.name() && kept.contains_key(&digest));
            owners.extend(beside.flat_map(|(image, _)| known.objects_of(image)).map(|object| Object::clone(object)));
        }
        owners
    }

    /// The images whose status a pin is part of.
    fn look_because_of(&mut self, pin: &Image) {
        let images: BTreeSet<Image> = {
            let known = self.shared.world.known();
            self.owners(pin, &known).into_iter().map(|object| object.image).collect()
        };
        for image in images {
            self.look_soon(image);
        }
    }

    pub(super) fn progressed(&mut self, image: Image, pin: Pin) {
        if self.pins.watched.contains(&image) {
            self.pins.known.insert(image.clone(), pin);
            self.look_because_of(&image);
        }
    }

    pub(super) fn fetched(&mut self, image: &Image, result: Result<Pin, CacheError>) {
        self.pins.watched.remove(image);
        self.cache_said(result.as_ref().err());
        match result {
            Ok(pin) => {
                let outcome = match pin.state {
                    PinState::Complete => "complete",
                    PinState::Queued | PinState::Fetching => "slow",
                    PinState::Waiting => "failed",
                    PinState::Refused => "refused",
                };
                self.shared.metrics.fetched(outcome);
                if pin.state == PinState::Complete {
                    self.turns.done(image);
                } else {
                    self.turns.failed(image, now());
                }
                self.pins.known.insert(image.clone(), pin);
            }
            Err(error) => {
                self.shared.metrics.fetched("error");
                tracing::debug!(%image, "not pinned: {error}");
                self.turns.failed(image, now());
            }
        }
        self.look_because_of(image);
    }

    /// Compares all pins with all objects.
    pub(super) fn begin_pass(&mut self) {
        if self.pass_runs || Instant::now() < self.next_pass {
            return;
        }
        if !self.shared.world.known().listed.everything() {
            self.next_pass = Instant::now() + super::PASS_SOON;
            return;
        }
        self.pass_runs = true;
        let (cache, observe) = (self.shared.cache.clone(), self.shared.settings.observe);
        self.write(list(cache, observe), |result| Done::Listed { result });
    }

    pub(super) fn listed(&mut self, result: Result<(Option<AsOf>, Vec<Pin>), CacheError>) {
        self.pass_runs = false;
        self.next_pass = Instant::now() + super::PASS;
        self.cache_said(result.as_ref().err());
        let (as_of, listed) = match result {
            Ok(listed) => listed,
            Err(error) => {
                self.shared.metrics.passed("failed");
                tracing::debug!("no pass: {error}");
                // What Pods want has its object also while the cache is away.
                let wanted = {
                    let known = self.shared.world.known();
                    let is_used =
                        |image: &&Image| known.index.image(image, now()).is_some_and(|wanted| wanted.is_used());
                    known.deleted.iter().filter(is_used).cloned().collect()
                };
                self.settle(wanted);
                self.next_pass = Instant::now() + Duration::from_secs(5);
                return;
            }
        };
        let seen: BTreeSet<Image> = listed.iter().map(|pin| Image::of(pin.image.clone())).collect();
        let watched = std::mem::take(&mut self.pins.watched);
        self.pins.known.retain(|image, _| seen.contains(image) || watched.contains(image));
        for pin in listed {
            let image = Image::of(pin.image.clone());
            if !watched.contains(&image) && self.pins.known.get(&image) != Some(&pin) {
                self.pins.known.insert(image.clone(), pin);
                self.looks.entry(image).or_insert_with(Instant::now);
            }
        }
        self.pins.watched = watched;
        if !self.pins.is_listed {
            self.pins.is_listed = true;
            self.look_at_everything();
        }
        self.count_reasons();
        if self.shared.settings.observe {
            self.shared.metrics.passed("observed");
            let deleted = self.shared.world.known().deleted.iter().cloned().collect();
            self.settle(deleted);
            return;
        }
        self.act_on(as_of, &seen);
    }

    fn act_on(&mut self, as_of: Option<AsOf>, seen: &BTreeSet<Image>) {
        let now = now();
        let (wishes, deleted, is_listed) = {
            let shared = std::sync::Arc::clone(&self.shared);
            let known = shared.world.known();
            let images: Vec<Image> = known.by_image.keys().cloned().collect();
            let mut wishes = Vec::with_capacity(images.len());
            for image in images {
                let objects: Vec<Object> = known.objects_of(&image).map(|object| Object::clone(object)).collect();
                let wanted = known.index.image(&image, now);
                self.keep_digests(&image, &objects, wanted.as_ref(), now);
                let platforms = self.platforms(&objects, &known);
                wishes.push(self.wish_of(&image, wanted.as_ref(), &platforms));
            }
            (wishes, known.deleted.clone(), known.listed.images)
        };
        let cached: Vec<CachePin> = self
            .pins
            .known
            .iter()
            .filter(|(image, _)| seen.contains(*image) && !self.pins.leaving.contains(*image))
            .map(|(image, pin)| CachePin {
                image: image.clone(),
                platforms: platforms_of(pin),
                digest: pin.digest.clone(),
                is_complete: pin.state == PinState::Complete,
            })
            .collect();
        let word = self.word();
        let listing = Listing { is_complete: is_listed, deleted: &deleted, word: word.as_deref() };
        let plan = pins::plan(&wishes, &cached, listing, &mut self.brake, now);
        match &plan.ruling {
            Ruling::Go => {
                self.shared.metrics.held(0);
                if self.conditions.brake.clear() {
                    tracing::info!("the brake is released");
                }
            }
            Ruling::Hold(hold) => {
                self.shared.metrics.held(hold.to_go);
                // The word stands right behind the sign of equality.
                let message = hold.message(&self.shared.settings.how_to_release).replace("= ", "=");
                if self.conditions.brake.set(message.clone()) {
                    tracing::warn!("{message}");
                    self.events.publish_brake(&message);
                }
            }
        }
        for put in &plan.put {
            if !self.pins.watched.contains(&put.image) {
                let known = self.shared.world.known();
                let wanted = known.index.image(&put.image, now);
                drop(known);
                self.turns.wait(&put.image, need(wanted.as_ref()));
            }
        }
        // What was deleted by hand comes back once its pin is on its way out, or is held back.
        self.pass_deleted = deleted.clone();
        let leaving: BTreeSet<Image> = plan.delete.iter().cloned().collect();
        for image in plan.delete.iter().take(1_000) {
            self.unpin(image.clone());
        }
        let settle: Vec<Image> = deleted.into_iter().filter(|image| !leaving.contains(image)).collect();
        self.settle(settle);
        let is_everything_listed = self.shared.world.known().listed.everything();
        match (pins::may_declare(is_everything_listed, &plan), as_of) {
            (Ok(()), Some(as_of)) => {
                let cache = self.shared.cache.clone();
                self.write(async move { cache.declare(as_of).await }, |result| Done::Declared { result });
                self.shared.metrics.passed("declared");
            }
            (Ok(()), None) => {}
            (Err(why), _) => {
                self.shared.metrics.passed("not_declared");
                tracing::debug!("not declared: {why}");
            }
        }
    }

    /// Their deletion was acted on.
    fn settle(&mut self, images: Vec<Image>) {
        {
            let mut known = self.shared.world.known();
            for image in &images {
                known.deleted.remove(image);
            }
        }
        for image in images {
            self.pass_deleted.remove(&image);
            self.budget.forget(&image);
            self.look_soon(image);
        }
    }

    fn unpin(&mut self, image: Image) {
        let Some(reference) = telling::reference(&image) else { return };
        if !self.pins.leaving.insert(image.clone()) {
            return;
        }
        self.turns.give_up(&image);
        let cache = self.shared.cache.clone();
        self.write(async move { cache.delete(&reference).await }, move |result| Done::Unpinned { image, result });
    }

    pub(super) fn unpinned(&mut self, image: &Image, result: Result<(), CacheError>) {
        self.pins.leaving.remove(image);
        self.cache_said(result.as_ref().err());
        match result {
            Ok(()) => {
                tracing::info!(%image, "no longer kept: it has no CachedImage any more");
                self.pins.known.remove(image);
                self.settle(vec![image.clone()]);
            }
            // The next pass tries again.
            Err(error) => tracing::debug!(%image, "not unpinned: {error}"),
        }
    }

    pub(super) fn declared(&mut self, result: Result<(), CacheError>) {
        match result {
            Ok(()) => tracing::debug!("the set of pins is declared complete"),
            Err(CacheError::Incomplete { reason }) => tracing::debug!("not declared: {reason}"),
            Err(error) => {
                self.cache_said(Some(&error));
                tracing::warn!("the set of pins could not be declared complete: {error}");
            }
        }
    }

    fn count_reasons(&self) {
        let mut counts = std::collections::BTreeMap::<(&'static str, String), usize>::new();
        {
            use larder_api::condition::Reason as _;
            let known = self.shared.world.known();
            for object in known.objects.values() {
                let conditions = &object.status.conditions;
                let cached = get::<cached_image::Cached>(conditions).map(|reason| ("Cached", reason.as_str()));
                let upstream = get::<cached_image::UpstreamAvailable>(conditions)
                    .map(|reason| ("UpstreamAvailable", reason.as_str()));
                let current = get::<cached_image::UpToDate>(conditions).map(|reason| ("UpToDate", reason.as_str()));
                for (condition, reason) in [cached, upstream, current].into_iter().flatten() {
                    *counts.entry((condition, reason.to_owned())).or_default() += 1;
                }
            }
        }
        self.shared
            .metrics
            .images(counts.iter().map(|((condition, reason), count)| (*condition, reason.as_str(), *count)));
    }
}

fn need(wanted: Option<&Wanted>) -> Need {
    wanted.map_or_else(Need::default, |wanted| Need {
        is_of_daemon_set: wanted.is_of_daemon_set,
        nodes: wanted.nodes,
        pods: wanted.used_by,
    })
}

/// All pins, and the beginning of a declaration before that.
async fn list(cache: ClusterCache, observe: bool) -> Result<(Option<AsOf>, Vec<Pin>), CacheError> {
    let as_of = if observe { None } else { Some(cache.begin_declaration().await?) };
    let mut pins = Vec::new();
    let mut listed = std::pin::pin!(cache.pins());
    while let Some(pin) = listed.next().await {
        match pin {
            Ok(pin) => pins.push(pin),
            // Without the rest of the list nobody knows what there is.
            Err(error) => return Err(error),
        }
    }
    Ok((as_of, pins))
}
