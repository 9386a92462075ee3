//! Bounds of namespaces: what is over one gets no object and no pin, and that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Work;
use crate::decide::bounds::{Claim, Ledger, OverBound};
use crate::decide::expiry::MadeBy;
use crate::decide::{Image, Moment};
use crate::events::Note;
use crate::world::{Known, Object};

/// A namespace hears of it once in this time, however many images are over its bound.
const TOLD_AGAIN: Duration = Duration::from_hours(1);

/// Images of which it is remembered that their being left out was logged. Of more nothing is logged, rather than of all again and again.
const REMEMBERED: usize = 10_000;

/// Of what was said that it is over a bound.
#[derive(Debug, Default)]
pub(super) struct Told {
    images: BTreeSet<Image>,
    namespaces: BTreeMap<Arc<str>, Instant>,
}

impl Told {
    /// Whether nothing was said of it yet.
    pub(super) fn may_be_first(&self, image: &Image) -> bool {
        self.images.len() < REMEMBERED && !self.images.contains(image)
    }

    /// The same, and from now on something was.
    pub(super) fn is_first(&mut self, image: &Image) -> bool {
        self.may_be_first(image) && self.images.insert(image.clone())
    }
}

/// What an image takes of which namespaces. Of one with an object of a person's nobody's room is taken.
pub(super) fn claim(known: &Known, image: &Image) -> Claim {
    let objects: Vec<Arc<Object>> = known.objects_of(image).collect();
    claim_of(known, image, &objects)
}

/// The same of one that has these objects.
pub(super) fn claim_of(known: &Known, image: &Image, objects: &[Arc<Object>]) -> Claim {
    let (mut namespaces, first_used) = known.index.owners(image);
    let (mut bytes, mut since, mut is_of_a_person) = (None, first_used, false);
    for object in objects {
        // The controller retains nothing: that is a person's word as well.
        is_of_a_person |= object.made_by == MadeBy::Person || object.spec.retain;
        bytes = bytes.max(object.status.size_bytes.and_then(|bytes| u64::try_from(bytes).ok()));
        since = Some(since.map_or(object.created, |since| since.min(object.created)));
        if namespaces.is_empty() {
            namespaces = object.status.namespaces.iter().map(|namespace| namespace.as_str().into()).collect();
        }
    }
    if is_of_a_person {
        namespaces.clear();
    }
    Claim { image: image.clone(), namespaces, since: since.unwrap_or(Moment::END), bytes }
}

impl Work {
    /// Counts everything anew, by what those claim that have an object. Images that now have room are looked at, and so are those that have it no longer.
    pub(super) fn judge(&mut self, known: &Known, claims: Vec<Claim>) {
        let before = self.ledger.take();
        let ledger = self.ledger_of(known, claims, before.as_ref());
        if let Some(before) = before {
            let (was, is) = (before.all_over(), ledger.all_over());
            let now_in = was.keys().filter(|image| !is.contains_key(*image));
            let now_out = is.keys().filter(|image| !was.contains_key(*image));
            for image in now_in.chain(now_out).cloned().collect::<Vec<_>>() {
                self.look_soon(image);
            }
        }
        self.ledger = Some(ledger);
    }

    /// Of everything that has an object, which is in `claims`, and of what is over a bound and may have room by now.
    fn ledger_of(&self, known: &Known, mut claims: Vec<Claim>, before: Option<&Ledger>) -> Ledger {
        let waiting = before.map(Ledger::all_over).into_iter().flat_map(BTreeMap::keys);
        let waiting = waiting.filter(|image| !known.by_image.contains_key(*image));
        claims.extend(waiting.map(|image| claim(known, image)));
        self.shared.settings.bounds.judge(&claims)
    }

    /// Whether there is room for an object of this image; if not, that is said.
    pub(super) fn has_room(&mut self, known: &Known, image: &Image) -> bool {
        let mut ledger = self.ledger.take().unwrap_or_else(|| {
            let claims = known.by_image.keys().map(|image| claim(known, image)).collect();
            self.ledger_of(known, claims, None)
        });
        let has_room = ledger.admit(&self.shared.settings.bounds, &claim(known, image));
        let over = ledger.over(image).cloned();
        self.ledger = Some(ledger);
        if let Some(over) = over {
            self.say_over(image, &over);
        }
        has_room
    }

    /// Why an image is over the bound, if it is.
    pub(super) fn over(&self, image: &Image) -> Option<&OverBound> {
        self.ledger.as_ref()?.over(image)
    }

    /// What was fetched before anybody knew how large it is goes soon where there is no room for it.
    pub(super) fn see_size(&mut self, image: &Image) {
        let bounds = &self.shared.settings.bounds;
        let Some(ledger) = &mut self.ledger else { return };
        let claim = claim(&self.shared.world.known(), image);
        if ledger.grow(bounds, &claim) {
            self.pass_soon();
        }
    }

    /// Nobody wants it any more.
    pub(super) fn forget_over(&mut self, image: &Image) {
        if let Some(ledger) = &mut self.ledger {
            ledger.forget(image);
        }
    }

    fn say_over(&mut self, image: &Image, over: &OverBound) {
        if self.told_over.is_first(image) {
            tracing::info!(%image, "not cached: {over}");
        }
        let namespaces = &mut self.told_over.namespaces;
        let now = Instant::now();
        namespaces.retain(|_, at| at.elapsed() < TOLD_AGAIN);
        if !self.shared.settings.observe && !namespaces.contains_key(&over.namespace) {
            namespaces.insert(Arc::clone(&over.namespace), now);
            self.events.of_namespace(&over.namespace, Note::warning("OverLimit", format!("{image}: {over}")));
        }
    }
}
