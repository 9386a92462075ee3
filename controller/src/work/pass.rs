//! The pass: all pins are compared with all objects, which is what finally counts. What is missing is put, what nobody wants goes if the brake lets it, and
//! the set is declared complete if it is.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::pinning::{cached, need};
use super::survey::{Survey, Surveyed};
use super::{Done, Work, telling};
use crate::cluster_cache::{AsOf, CacheError, ClusterCache, Pin, PinState};
use crate::decide::brake::Ruling;
use crate::decide::pins::{self, CachePin, Listing, Wish};
use crate::decide::platforms::{Alike, Platform, Platforms};
use crate::decide::{Image, Moment};
use crate::world::{World, now};

/// What the objects say in a pass.
struct Wants {
    wishes: Vec<Wish>,
    /// Images whose object was seen to be deleted.
    deleted: BTreeSet<Image>,
    /// What is pinned of these stays.
    untouched: BTreeSet<Image>,
    is_listed: bool,
}

impl Work {
    /// Compares all pins with all objects.
    pub(super) fn begin_pass(&mut self) {
        if self.pass_runs || Instant::now() < self.next_pass {
            return;
        }
        let (listed, deleted) = {
            let known = self.shared.world.known();
            (known.listed, known.deleted.len())
        };
        if !listed.images {
            // What was held back went with its list: no word helps, and whoever is told one would say it of another set.
            self.conditions.brake.clear();
        }
        if !listed.everything() || !self.burst.is_over(deleted, Instant::now()) {
            self.next_pass = Instant::now() + super::PASS_SOON;
            return;
        }
        self.pass_runs = true;
        self.pass_began = Instant::now();
        let (cache, world) = (self.shared.cache.clone(), Arc::clone(&self.shared.world));
        let observe = self.shared.settings.observe;
        self.write(list(cache, world, observe), |result| Done::Listed { result });
    }

    pub(super) fn listed(&mut self, result: Result<(Option<AsOf>, Vec<Pin>), CacheError>) {
        self.pass_runs = false;
        self.next_pass = Instant::now() + super::PASS;
        // Whatever was deleted until now is acted on below.
        self.shared.world.known().is_deleted_anew = false;
        match &result {
            Ok(_) => self.cache_said(None),
            // Without the list of pins nothing can be done, whoever's fault it is.
            Err(error) => {
                self.shared.metrics.cache_failed();
                self.cache_is_away(error);
            }
        }
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
        let seen: HashSet<Image> = listed.iter().map(|pin| pin.image.clone()).collect();
        let watched = std::mem::take(&mut self.pins.watched);
        let is_kept = |image: &Image| seen.contains(image) || watched.contains(image);
        let mut changed: Vec<Image> = self.pins.known.keys().filter(|image| !is_kept(image)).cloned().collect();
        self.pins.known.retain(|image, _| is_kept(image));
        for pin in listed {
            let image = pin.image.clone();
            let known = self.pins.known.get(&image);
            if !watched.contains(&image) && known != Some(&pin) {
                if telling::is_news(known, &pin) {
                    changed.push(image.clone());
                }
                // The cache came to have it by itself, and with it its registry's word.
                if pin.state == PinState::Complete && known.is_some_and(|known| known.state != PinState::Complete) {
                    self.upstream.doubt(&image);
                    self.rounds.soon(&image, now());
                }
                self.pins.known.insert(image, pin);
            }
        }
        self.pins.watched = watched;
        if self.pins.is_listed {
            // What is lost is said at once, and not when its turn to be fetched comes.
            for image in changed {
                self.look_because_of(&image);
            }
        } else {
            self.pins.is_listed = true;
            self.remember_platforms();
            self.look_at_everything();
        }
        self.tell_of_unreadable();
        if self.shared.settings.observe {
            self.shared.metrics.passed("observed");
            self.report();
            let deleted = self.shared.world.known().deleted.iter().cloned().collect();
            self.settle(deleted);
        } else {
            self.act_on(as_of, &seen);
            self.report();
        }
        self.pass_took = self.pass_began.elapsed();
    }

    /// For which machines images were kept before this process knew of any: some may have no node just now. Of images for which somebody names platforms
    /// that says nothing.
    fn remember_platforms(&self) {
        let mut known = self.shared.world.known();
        let named: BTreeSet<String> = known
            .objects
            .values()
            .filter(|object| !object.spec.platforms.is_empty())
            .map(|object| object.image.name().to_owned())
            .collect();
        let pins = self.pins.known.iter().filter(|(image, _)| !named.contains(image.name()));
        let platforms: BTreeSet<Platform> = pins
            .filter_map(|(_, pin)| match &pin.platforms {
                Platforms::All => None,
                Platforms::These(these) => Some(these.iter().cloned()),
            })
            .flatten()
            .collect();
        known.remembered.learn(platforms, std::time::Instant::now());
    }

    /// What all objects want, and what is not to be touched whatever they want.
    fn wants(&mut self, now: Moment) -> Wants {
        let shared = Arc::clone(&self.shared);
        let known = shared.world.known();
        let is_skipped = |image: &&Image| known.registries.rules.skipped(image).is_some();
        let Survey { claims, images } = self.survey(&known, now);
        self.judge(&known, claims);
        let mut wishes = Vec::with_capacity(images.len());
        for Surveyed { image, platforms, follow } in images {
            // Its pin goes as any that nobody wants: a bound that was set too low is a matter for the brake.
            if self.over(&image).is_some() {
                self.turns.give_up(&image);
                continue;
            }
            wishes.push(self.wish_of(&image, follow, &platforms));
        }
        let unreadable = known.unreadable.images(&self.pins.known.keys());
        // While there is an object of which nobody can tell its image, it may be any.
        let is_listed = known.listed.images && unreadable.is_some();
        // What a Pod uses and has no object yet (again) is not what nobody needs.
        let waits_for_its_object = |image: &&Image| {
            !known.by_image.contains_key(*image)
                && !known.deleted.contains(*image)
                && !is_skipped(image)
                && self.over(image).is_none()
                && known.index.image(image, now).is_some_and(|wanted| wanted.is_used())
        };
        let used = self.pins.known.keys().filter(waits_for_its_object).cloned();
        let untouched: BTreeSet<Image> = unreadable.unwrap_or_default().into_iter().chain(used).collect();
        Wants { wishes, deleted: known.deleted.clone(), untouched, is_listed }
    }

    fn act_on(&mut self, as_of: Option<AsOf>, seen: &HashSet<Image>) {
        let now = now();
        let Wants { wishes, deleted, untouched, is_listed } = self.wants(now);
        let cached: Vec<CachePin> = self
            .pins
            .known
            .iter()
            .filter(|(image, _)| seen.contains(*image) && !self.pins.leaving.contains(*image))
            .map(|(image, pin)| {
                // Also while it is tried again: of many some always are.
                let has_failed =
                    matches!(pin.state, PinState::Waiting | PinState::Refused) || self.turns.has_failed(image);
                cached(image, pin, has_failed)
            })
            .collect();
        let word = self.word();
        let listing = Listing {
            is_complete: is_listed,
            deleted: &deleted,
            word: word.as_deref(),
            let_go: &self.let_go,
            untouched: &untouched,
        };
        let plan = pins::plan(&wishes, &cached, listing, &mut self.brake, now);
        self.leave_a_note();
        // What is on its way out may still fail to go.
        self.let_go.retain(|image| self.pins.leaving.contains(image));
        self.let_go.extend(plan.let_go.iter().cloned());
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
                    self.events.of_brake(&message);
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
        let leaving: BTreeSet<Image> = plan.delete.iter().cloned().collect();
        for image in plan.delete.iter().take(1_000) {
            self.turns.give_up(image);
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
                let since = self.declared.elapsed();
                if since >= 2 * super::DECLARED {
                    let minutes = since.as_secs() / 60;
                    self.conditions.declared.set(format!(
                        "for {minutes} minutes the set of images was never complete: {why}; on a bucket nothing is removed meanwhile, of any cluster"
                    ));
                }
            }
        }
    }

    /// Their deletion was acted on.
    fn settle(&mut self, images: Vec<Image>) {
        {
            let mut known = self.shared.world.known();
            for image in &images {
                known.deleted.remove(image);
                // What is written from now on is of another object, unless this one is there still: a registry that is skipped, a bound.
                if !known.by_image.contains_key(image) {
                    self.budget.forget(image);
                }
            }
        }
        for image in images {
            self.look_soon(image);
        }
    }

    pub(super) fn unpin(&mut self, image: Image) {
        let Some(reference) = telling::reference(&image) else { return };
        if !self.pins.leaving.insert(image.clone()) {
            return;
        }
        self.pins.to_leave.push_back((image, reference));
        self.begin_unpins();
    }

    /// However many are to go, a few at a time are asked for.
    fn begin_unpins(&mut self) {
        while self.pins.leaving.len() - self.pins.to_leave.len() < super::UNPINS {
            let Some((image, reference)) = self.pins.to_leave.pop_front() else { return };
            let cache = self.shared.cache.clone();
            self.write(async move { cache.delete(&reference).await }, move |result| Done::Unpinned { image, result });
        }
    }

    pub(super) fn unpinned(&mut self, image: &Image, result: Result<(), CacheError>) {
        self.pins.leaving.remove(image);
        self.cache_said(result.as_ref().err());
        match result {
            Ok(()) => {
                let has_object = self.shared.world.known().by_image.contains_key(image);
                let why = match (has_object, image.is_digest()) {
                    (true, _) => "its CachedImage says why",
                    (false, true) => "no Pod runs this digest any more, and it has no CachedImage",
                    (false, false) => "it has no CachedImage any more",
                };
                tracing::info!(%image, "no longer kept: {why}");
                self.pins.known.remove(image);
                self.settle(vec![image.clone()]);
            }
            // The next pass tries again.
            Err(error) => {
                tracing::debug!(%image, "not unpinned: {error}");
                if error.is_of_the_whole_cache() {
                    for (image, _) in std::mem::take(&mut self.pins.to_leave) {
                        self.pins.leaving.remove(&image);
                    }
                }
            }
        }
        self.begin_unpins();
    }

    pub(super) fn declared(&mut self, result: Result<(), CacheError>) {
        match result {
            Ok(()) => {
                tracing::debug!("the set of pins is declared complete");
                self.declared = Instant::now();
                self.conditions.declared.clear();
            }
            Err(CacheError::Incomplete { reason }) => tracing::debug!("not declared: {reason}"),
            Err(error) => {
                self.cache_said(Some(&error));
                tracing::warn!("the set of pins could not be declared complete: {error}");
            }
        }
    }
}

/// All pins, and the beginning of a declaration before that. What is known already is not in memory a second time: of 100,000 pins that is most.
async fn list(cache: ClusterCache, world: Arc<World>, observe: bool) -> Result<(Option<AsOf>, Vec<Pin>), CacheError> {
    let as_of = if observe { None } else { Some(cache.begin_declaration().await?) };
    let (mut pins, mut alike) = (Vec::new(), Alike::default());
    let mut pages = std::pin::pin!(cache.pages());
    while let Some(page) = pages.next().await {
        // Without the rest of the list nobody knows what there is.
        let page: Vec<Pin> = page?.into_iter().collect::<Result<_, _>>()?;
        let known = world.known();
        pins.extend(page.into_iter().map(|mut pin| {
            if let Some((image, _)) = known.by_image.get_key_value(&pin.image) {
                pin.image = image.clone();
            }
            pin.platforms = alike.one(pin.platforms);
            pin
        }));
    }
    Ok((as_of, pins))
}

#[cfg(test)]
mod tests;
