//! The cache's side: pins are put when it is their turn and followed until they are there. What goes is the matter of the [pass](super::pass).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::telling;
use super::{Done, QUESTIONS_AT_ALL, Work};
use crate::cluster_cache::{CacheError, Pin, PinState};
use crate::decide::index::Wanted;
use crate::decide::pins::{CachePin, ToDo, Wish};
use crate::decide::platforms::Platforms;
use crate::decide::turns::Need;
use crate::decide::{Image, Moment, digests, registry};
use crate::world::{Known, Object, now};

/// How long one request waits for a pin.
const WAIT: Duration = Duration::from_secs(5);

/// Longer than the longest fetch that anybody waits for: its place is given to another then.
const LONGEST: Duration = Duration::from_mins(30);

/// The same of what the cache fetches by itself: nobody who has to be put is to wait for that.
const LOOKED_AT: Duration = Duration::from_secs(30);

/// What the cache said to a wish that it will not take, however often it is asked; nothing where another time may do.
fn refusal(error: &CacheError) -> Option<String> {
    match error {
        CacheError::Refused { status: 400 | 403 | 413 | 422, reason, .. } if reason.is_empty() => {
            Some("the cluster cache does not take this wish, and does not say why: see its log".to_owned())
        }
        CacheError::Refused { status: 400 | 403 | 413 | 422, reason, .. } => {
            Some(format!("the cluster cache does not take this wish: {reason}"))
        }
        _ => None,
    }
}

impl Work {
    /// Sees that what an image's objects want is in the queue.
    pub(super) fn wish(&mut self, image: &Image, objects: &[Arc<Object>], wanted: Option<&Wanted>, now: Moment) {
        let (skipped, interval) = {
            let known = self.shared.world.known();
            let rules = &known.registries.rules;
            let interval = rules.interval(image, self.shared.settings.monitoring);
            (rules.skipped(image).is_some(), interval)
        };
        if skipped {
            self.rounds.unwatch(image);
            self.turns.give_up(image);
            return;
        }
        self.keep_digests(image, objects, wanted, now);
        if !self.shared.settings.observe {
            self.rounds.watch(image, interval, now);
        }
        // Before the list nobody knows what is there; a mass of requests for what is would be all that comes of it.
        if self.shared.settings.observe || !self.pins.is_listed || self.over(image).is_some() {
            return;
        }
        let need = need(wanted);
        let beside = self.digests.get(image).into_iter().flatten().map(|(digest, _)| image.at(digest));
        let pins: Vec<Image> = std::iter::once(image.clone()).chain(beside).collect();
        let shared = Arc::clone(&self.shared);
        let known = shared.world.known();
        for pin in pins.into_iter().filter(|pin| !self.pins.watched.contains(pin) && !self.pins.leaving.contains(pin)) {
            match self.to_do(&pin, &known) {
                Some((ToDo::ByItself | ToDo::Put, _)) => self.turns.wait(&pin, need),
                // It may rest after a failure, and have come by itself.
                Some((ToDo::Nothing, _)) | None => self.turns.give_up(&pin),
            }
        }
    }

    /// Whether its pin follows its tag.
    pub(super) fn follows(
        &self,
        known: &Known,
        image: &Image,
        objects: &[Arc<Object>],
        wanted: Option<&Wanted>,
    ) -> bool {
        let said = objects.iter().map(|object| object.spec.follow);
        let of_registry = known.registries.rules.follow(image, self.shared.settings.follow);
        registry::follow(said, wanted.is_some_and(|wanted| wanted.is_always), of_registry)
    }

    /// How often its registry is asked for it.
    fn interval(&self, image: &Image) -> Duration {
        self.shared.world.known().registries.rules.interval(image, self.shared.settings.monitoring)
    }

    pub(super) fn wish_of(&self, image: &Image, follow: bool, platforms: &Platforms) -> Wish {
        Wish {
            image: image.clone(),
            digests: self.digests.get(image).into_iter().flatten().map(|(digest, _)| digest.clone()).collect(),
            platforms: platforms.clone(),
            follow,
            upstream: self.upstream.to_follow(image).cloned(),
        }
    }

    /// Keeps what Pods run beside a tag, and ran within the hour. Whether something goes or comes.
    pub(super) fn keep_digests(
        &mut self,
        image: &Image,
        objects: &[Arc<Object>],
        wanted: Option<&Wanted>,
        now: Moment,
    ) -> bool {
        if image.is_digest() {
            return false;
        }
        let recorded = self
            .digests
            .get(image)
            .cloned()
            .unwrap_or_else(|| objects.iter().flat_map(|object| digests::of_status(&object.status, now)).collect());
        let none = BTreeMap::new();
        let running = wanted.map_or(&none, |wanted| &wanted.digests);
        let kept = digests::keep(&recorded, running, now);
        let has_changed = !kept.keys().eq(recorded.keys());
        self.digests.set(image, kept);
        has_changed
    }

    /// Begins what it is the turn of.
    pub(super) fn take_turns(&mut self) {
        // A pass asks every few seconds; whoever failed because of that rests for nothing.
        if self.pins.trouble.is_some() {
            return;
        }
        loop {
            let next = self.turns.next(now());
            if next.is_empty() {
                return;
            }
            for image in next {
                self.take_turn(image);
            }
        }
    }

    fn take_turn(&mut self, image: Image) {
        let to_do = {
            let known = self.shared.world.known();
            self.to_do(&image, &known).filter(|(to_do, _)| *to_do != ToDo::Nothing)
        };
        let (Some(reference), Some((to_do, platforms))) = (telling::reference(&image), to_do) else {
            // Its place is for another.
            self.turns.done(&image);
            return;
        };
        if self.pins.known.get(&image).is_none_or(|pin| pin.platforms != platforms) {
            self.turns.is_wanted_otherwise(&image);
        }
        self.pins.watched.insert(image.clone());
        let (cache, progress) = (self.shared.cache.clone(), self.progress.0.clone());
        let name = image.clone();
        let fetch = async move {
            // Somebody may have deleted it meanwhile.
            let pinned = if to_do == ToDo::ByItself { cache.get(&reference).await? } else { None };
            let (mut pin, was_put) = match pinned {
                Some(pin) => (pin, false),
                None => (cache.put(&reference, &platforms.words(), WAIT).await?, true),
            };
            let end = Instant::now() + if was_put { LONGEST } else { LOOKED_AT };
            while matches!(pin.state, PinState::Queued | PinState::Fetching) && Instant::now() < end {
                // Nobody waits for who would hear of it.
                let _ = progress.try_send(Done::Progress { image: name.clone(), pin: pin.clone() });
                sleep(Duration::from_secs(1)).await;
                pin = cache.get(&reference).await?.ok_or_else(|| CacheError::Refused {
                    status: 404,
                    code: None,
                    reason: "somebody deleted the pin while it was fetched".to_owned(),
                })?;
            }
            Ok((pin, was_put))
        };
        self.write(fetch, move |result| Done::Fetched { image, result });
    }

    /// What there is to do for a pin, and for which machines it is wanted, by all objects that want it; nothing where there is none.
    fn to_do(&self, image: &Image, known: &Known) -> Option<(ToDo, Platforms)> {
        let owners = self.owners(image, known);
        if owners.is_empty() {
            return None;
        }
        let platforms = Self::platforms(&owners, known);
        let Some(pin) = self.pins.known.get(image) else { return Some((ToDo::Put, platforms)) };
        // Nobody wants a tag but its own objects, and a digest follows nothing.
        let follow =
            !image.is_digest() && self.follows(known, image, &owners, known.index.image(image, now()).as_ref());
        let followed = self.upstream.to_follow(image).filter(|_| follow);
        Some((cached(image, pin, false).to_do(&platforms, followed), platforms))
    }

    /// Objects because of which something is pinned: its own, and for a digest those of its tags that keep it.
    fn owners(&self, pin: &Image, known: &Known) -> Vec<Arc<Object>> {
        let beside = self.digests.tags(pin).flat_map(|image| known.objects_of(image));
        known.objects_of(pin).chain(beside).collect()
    }

    /// The images whose status a pin is part of.
    pub(super) fn look_because_of(&mut self, pin: &Image) {
        let images: BTreeSet<Image> = {
            let known = self.shared.world.known();
            self.owners(pin, &known).into_iter().map(|object| object.image.clone()).collect()
        };
        for image in images {
            self.look_soon(image);
        }
    }

    pub(super) fn progressed(&mut self, image: &Image, pin: Pin) {
        if self.pins.watched.contains(image) {
            self.pins.known.insert(image.clone(), pin);
            self.look_because_of(image);
        }
    }

    /// Who fetches an image has its registry's word of it. Where that is not known, the registry is asked, out of turn, and as any other time within what it allows.
    fn heard_by_fetching(&mut self, image: &Image, pin: &Pin) {
        if !self.rounds.watches(image) {
            return;
        }
        let (now, interval) = (now(), self.interval(image));
        if pin.state == PinState::Complete {
            // What a node's pull was told before that is no word of this fetch, which may have found everything in the cache. The cache writes it down once a minute,
            // so after such a pull the registry is asked once more than need be.
            let confirmed = pin.confirmed_at.filter(|at| *at >= pin.put_at && now.since(*at) <= interval);
            if let (Some(at), Some(digest)) = (confirmed, &pin.digest)
                // The cache's clock may be ahead.
                && self.upstream.hear(image, digest, at.min(now))
            {
                return;
            }
            self.upstream.doubt(image);
        }
        if self.upstream.get(image).is_none() && telling::refusal(pin).is_none() {
            self.rounds.soon(image, now);
        }
    }

    /// What became of a pin, and whether it was put, or came by itself.
    pub(super) fn fetched(&mut self, image: &Image, result: Result<(Pin, bool), CacheError>) {
        self.pins.watched.remove(image);
        self.cache_said(result.as_ref().err());
        match result {
            Ok((pin, was_put)) => {
                self.pins.refused.remove(image);
                let found = pin.digest.as_ref().filter(|_| was_put && pin.state == PinState::Complete);
                let differs = found.is_some_and(|found| self.upstream.put(image, found));
                if differs {
                    let is_asked = self.under_way() < QUESTIONS_AT_ALL && self.ask(image.clone());
                    if !is_asked {
                        self.rounds.soon(image, now());
                    }
                } else {
                    self.heard_by_fetching(image, &pin);
                }
                let outcome = match pin.state {
                    PinState::Complete => "complete",
                    PinState::Queued | PinState::Fetching => "slow",
                    PinState::Waiting => "failed",
                    PinState::Refused => "refused",
                };
                self.shared.metrics.fetched(outcome);
                // What is only slow goes on in the cache by itself, and a pass sees when it is there.
                match pin.state {
                    PinState::Complete | PinState::Queued | PinState::Fetching => self.turns.done(image),
                    PinState::Waiting | PinState::Refused => {
                        self.turns.failed(image, now());
                    }
                }
                // Lists do not say that.
                self.pins.known.insert(image.clone(), Pin { confirmed_at: None, ..pin });
            }
            Err(error) => {
                self.shared.metrics.fetched("error");
                tracing::debug!(%image, "not pinned: {error}");
                if let Some(words) = refusal(&error) {
                    self.pins.refused.insert(image.clone(), words);
                }
                self.turns.failed(image, now());
            }
        }
        self.look_because_of(image);
    }
}

/// A pin as the rules see it; whether it was tried and cannot be had.
pub(super) fn cached(image: &Image, pin: &Pin, has_failed: bool) -> CachePin {
    CachePin {
        image: image.clone(),
        platforms: pin.platforms.clone(),
        digest: pin.digest.clone(),
        is_complete: pin.state == PinState::Complete,
        has_failed,
    }
}

pub(super) fn need(wanted: Option<&Wanted>) -> Need {
    wanted.map_or_else(Need::default, |wanted| Need {
        is_of_daemon_set: wanted.is_of_daemon_set,
        nodes: wanted.nodes,
        pods: wanted.used_by,
    })
}
