//! The end of `CachedImages` whose time has come: decided from what is known, held back where too many would go at once, and verified against the API server
//! itself, its clock as well as its Pods, before anything is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::DeserializeGuard;
use larder_api::CachedImage;
use tokio::time::Instant;

use super::{ANSWER, Done, EXPIRY, Work, telling};
use crate::api_server::{Heard, answered, code, words};
use crate::decide::brake::Hold;
use crate::decide::clock::Off;
use crate::decide::index::Wanted;
use crate::decide::{Image, Moment, expiring, expiry};
use crate::pods::ApiPod;
use crate::world::{Known, Object, now};

/// Pods in a page of the list that is the last word before a deletion.
const PAGE: u32 = 500;

/// Objects that are deleted after one such list.
const AT_A_TIME: usize = 500;

/// For how long an image that is due is left alone after the API server named a Pod that uses it: one that does not count (a filter), or one that came just now.
const SPARED: Duration = Duration::from_hours(1);

/// Images that are asked for a sign that something is due.
const CANDIDATES: usize = 500;

/// The end of an image is looked at again after this time, however far it is.
const LONGEST_END: Duration = Duration::from_hours(1);

/// Between two looks at all images pass so many times what one takes.
const PAUSES: u32 = 50;

/// An object that is due.
#[derive(Debug)]
pub(super) struct Due {
    image: Image,
    name: String,
    as_seen: expiry::Preconditions,
}

/// What became of images that were due.
#[derive(Debug, Default)]
pub(super) struct Expired {
    gone: Vec<Due>,
    /// A Pod uses them, as the API server says.
    spared: Vec<Image>,
    /// What our clock is, if it is wrong.
    off: Option<Off>,
    /// Why there is no more.
    error: Option<Failed>,
    /// Deletions that were asked for.
    asked: usize,
}

/// What the API server did not do, in its words.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    /// Say who uses them.
    Look(String),
    /// Delete one.
    Delete(String),
}

impl Work {
    /// Deletes what is due and may go.
    pub(super) fn begin_expiry(&mut self) {
        if self.expiry_runs || self.shared.settings.observe || Instant::now() < self.next_expiry {
            return;
        }
        self.next_expiry = Instant::now() + EXPIRY;
        self.budget.forget_old(Instant::now());
        let at = Instant::now();
        self.spared.retain(|_, until| *until > at);
        let candidates = self.candidates();
        let known = self.shared.world.known();
        if !known.listed.everything() {
            return;
        }
        // Only if there is something, all are looked at: what would go is measured as a whole, and not in small portions.
        let has_some =
            self.expiring.is_under_way() || candidates.iter().any(|image| self.due(&known, image, now()).is_some());
        let began = Instant::now();
        let all = known.by_image.keys().filter(|_| has_some);
        let due: BTreeMap<Image, DueOf> =
            all.filter_map(|image| Some((image.clone(), self.due(&known, image, now())?))).collect();
        let there = known.by_image.len();
        drop(known);
        self.next_expiry = self.next_expiry.max(Instant::now() + began.elapsed() * PAUSES);
        // What keeps another object loses nothing.
        let whole: BTreeSet<Image> = due.iter().filter(|(_, due)| due.is_all).map(|(image, _)| image.clone()).collect();
        let word = self.word();
        let (may_go, held) = self.expiring.rule(there, &whole, word.as_deref(), now());
        let may_go = |image: &Image, due: &DueOf| !due.is_all || may_go.contains(image);
        let going: Vec<Due> = due
            .into_iter()
            .filter(|(image, due)| may_go(image, due))
            .flat_map(|(_, due)| due.objects)
            .take(AT_A_TIME)
            .collect();
        self.leave_a_note();
        self.tell_of_expiry(held.as_ref());
        if going.is_empty() && held.is_none() {
            self.conditions.clock.clear();
            return;
        }
        self.expiry_runs = true;
        let pods = Api::all(self.shared.client.clone());
        let expiring = expire(self.api.clone(), pods, self.shared.heard.clone(), going);
        self.write(expiring, |result| Done::Expired { result });
    }

    /// What is due of an image.
    fn due(&self, known: &Known, image: &Image, now: Moment) -> Option<DueOf> {
        if self.spared.contains_key(image) {
            return None;
        }
        let rules = &self.rules;
        // No Pod makes an end come earlier, so most are done with.
        let may_be_due = |object: &Object| {
            let object = expiry::Object { was_used: false, ..telling::of_object(object, expiry::Use::default()) };
            expiry::due(image, &object, expiry::Use::default(), rules, now).is_some()
        };
        let there: Vec<Arc<Object>> = known.objects_of(image).collect();
        if !there.iter().any(|object| may_be_due(object)) {
            return None;
        }
        let wanted = known.index.image(image, now);
        let used = telling::use_of(wanted.as_ref());
        let one = |object: &Arc<Object>| {
            let as_seen = expiry::due(image, &telling::of_object(object, used), used, rules, now)?;
            Some(Due { image: image.clone(), name: object.name.clone(), as_seen })
        };
        let objects: Vec<Due> = there.iter().filter_map(one).collect();
        // With one of which the cache has nothing, and gets nothing, nothing is lost.
        let has_something = there.iter().any(|object| !telling::of_object(object, used).is_never_had);
        let is_all = objects.len() == there.len() && has_something;
        (!objects.is_empty()).then_some(DueOf { objects, is_all })
    }

    /// When there is something to expire of an image, if nothing else happens.
    pub(super) fn note_the_end(
        &mut self,
        image: &Image,
        objects: &[Arc<Object>],
        wanted: Option<&Wanted>,
        now: Moment,
    ) {
        let used = telling::use_of(wanted);
        let rules = &self.rules;
        let ends = objects.iter().filter_map(|object| {
            match expiry::until(image, &telling::of_object(object, used), used, rules, now) {
                expiry::Until::Expires(at) => Some(at),
                expiry::Until::Used | expiry::Until::Retained | expiry::Until::Deleted => None,
            }
        });
        match ends.min() {
            // A clock that is set is noticed within the hour.
            Some(at) => self.ends.insert(image.clone(), Instant::now() + at.since(now).min(LONGEST_END)),
            None => self.ends.remove(image),
        }
    }

    /// Images whose end is near, and no others: however many there are, nobody goes through all of them to see whether there are any. Each comes again, until
    /// a look at it says that it has no end, or another one.
    fn candidates(&mut self) -> Vec<Image> {
        let now = Instant::now();
        let due: Vec<Image> = std::iter::from_fn(|| self.ends.take_due(now)).take(CANDIDATES).collect();
        for image in &due {
            self.ends.insert(image.clone(), now + EXPIRY);
        }
        due
    }

    pub(super) fn tell_of_unreadable(&self) {
        let (message, (objects, pods), references) = {
            let known = self.shared.world.known();
            (known.unreadable.message(), known.unreadable.count(), known.index.unreadable().count())
        };
        for (kind, count) in [("cachedimages", objects), ("pods", pods), ("references", references)] {
            self.shared.metrics.unreadable(kind, count);
        }
        match message {
            Some(message) => {
                if self.conditions.unreadable.set(message.clone()) {
                    tracing::warn!("{message}");
                }
            }
            None => {
                self.conditions.unreadable.clear();
            }
        }
    }

    fn tell_of_expiry(&mut self, hold: Option<&Hold>) {
        self.shared.metrics.expiry_held(hold.map_or(0, |hold| hold.to_go));
        let Some(hold) = hold else {
            if self.conditions.expiry.clear() {
                tracing::info!("expiry is held back no longer");
            }
            return;
        };
        let message = expiring::message(hold, &self.shared.settings.how_to_release);
        if self.conditions.expiry.set(message.clone()) {
            tracing::warn!("{message}");
            self.events.of_brake(&message);
        }
    }

    pub(super) fn expired(&mut self, result: Expired) {
        self.expiry_runs = false;
        let Expired { gone, spared, off, error, asked } = result;
        for _ in 0..asked {
            self.shared.metrics.wrote("expiry");
        }
        if let Some(off) = off {
            if self.conditions.clock.set(off.to_string()) {
                tracing::warn!("{off}");
            }
        } else if error.is_none() {
            self.conditions.clock.clear();
        }
        match error {
            None => {}
            Some(Failed::Look(words)) => tracing::warn!("what is to expire could not be looked at: {words}"),
            Some(Failed::Delete(words)) => {
                self.shared.metrics.write_failed("expiry");
                tracing::warn!("what has expired could not be deleted: {words}");
            }
        }
        let until = Instant::now() + SPARED;
        self.spared.extend(spared.into_iter().map(|image| (image, until)));
        for Due { image, name, as_seen } in gone {
            tracing::info!(%image, "expired: no Pod has used it for as long as it is kept");
            self.let_go.insert(image);
            // The watch says it later.
            self.shared.world.change(|known| known.object_gone(&name, Some(&as_seen.uid), true));
        }
    }
}

/// What is due of an image.
#[derive(Debug)]
struct DueOf {
    objects: Vec<Due>,
    /// It has no other objects, and the cache something of it.
    is_all: bool,
}

/// Deletes those of them that may go. Every Pod is looked at once, a page at a time.
async fn expire(api: Api<CachedImage>, pods: Api<DeserializeGuard<ApiPod>>, heard: Heard, due: Vec<Due>) -> Expired {
    let mut done = Expired::default();
    let mut used: BTreeSet<Image> = BTreeSet::new();
    // Where nothing may go a single Pod says what time it is.
    let mut page = ListParams::default().limit(if due.is_empty() { 1 } else { PAGE });
    loop {
        let listed = match answered(ANSWER, pods.list(&page)).await {
            Ok(listed) => listed,
            Err(error) => return Expired { error: Some(Failed::Look(words(&error))), ..done },
        };
        if let Err(off) = heard.clock() {
            return Expired { off: Some(off), ..done };
        }
        if due.is_empty() {
            return done;
        }
        for pod in &listed.items {
            match &pod.0 {
                Ok(pod) => {
                    let pod = crate::pods::pod(pod).filter(|pod| pod.ended.is_none());
                    used.extend(pod.iter().flat_map(|pod| &pod.uses).filter_map(|used| used.image().ok()));
                }
                // Nobody knows what it uses.
                Err(error) => {
                    let (namespace, name) = (&error.metadata.namespace, &error.metadata.name);
                    let name =
                        format!("{}/{}", namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
                    let words = format!("Pod {name} cannot be read, so nothing expires: {}", error.error);
                    return Expired { error: Some(Failed::Look(words)), ..done };
                }
            }
        }
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    for due in due {
        if used.contains(&due.image) {
            done.spared.push(due.image);
            continue;
        }
        let expiry::Preconditions { uid, resource_version } = due.as_seen.clone();
        let preconditions = Preconditions { uid: Some(uid), resource_version: Some(resource_version) };
        let parameters = DeleteParams::default().preconditions(preconditions);
        done.asked += 1;
        match answered(ANSWER, api.delete(&due.name, &parameters)).await {
            // Somebody's finalizer is on it: it is there until that is gone, and the watch says when.
            Ok(answer) if answer.is_left() => {}
            Ok(_) => done.gone.push(due),
            // It was changed, or is gone: another time, if at all.
            Err(error) if matches!(code(&error), Some(404 | 409)) => {}
            Err(error) => {
                done.error = Some(Failed::Delete(words(&error)));
                break;
            }
        }
    }
    done
}

#[cfg(test)]
mod tests;
