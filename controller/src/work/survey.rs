//! What a pass reads of the objects, in one walk: they are kept compressed, and reading 100,000 of them is most of what a pass costs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use larder_api::cached_image::{Cached, UpToDate, UpstreamAvailable};
use larder_api::condition::{Reason, get};

use super::Work;
use super::bounding::claim_of;
use crate::decide::bounds::Claim;
use crate::decide::platforms::{Alike, Platforms};
use crate::decide::{Image, Moment};
use crate::metrics::Metrics;
use crate::world::{Known, Object, Objects};

/// All of it.
pub(super) struct Survey {
    pub(super) counts: Counts,
    /// What each image takes of its namespaces.
    pub(super) claims: Vec<Claim>,
    /// Those that are not skipped.
    pub(super) images: Vec<Surveyed>,
}

/// What its objects say of an image.
pub(super) struct Surveyed {
    pub(super) image: Image,
    /// For which machines it is kept.
    pub(super) platforms: Platforms,
    /// Whether its pin follows its tag.
    pub(super) follow: bool,
}

impl Work {
    /// Reads all of them.
    pub(super) fn survey(&mut self, known: &Known, now: Moment) -> Survey {
        let mut survey = Survey {
            counts: Counts::default(),
            claims: Vec::with_capacity(known.by_image.len()),
            images: Vec::with_capacity(known.by_image.len()),
        };
        let (mut alike, nodes) = (Alike::default(), known.platforms(Instant::now()));
        for image in known.by_image.keys() {
            let objects: Vec<Arc<Object>> = known.objects_of(image).collect();
            for object in &objects {
                survey.counts.add(object);
            }
            survey.claims.push(claim_of(known, image, &objects));
            if known.registries.rules.skipped(image).is_some() {
                continue;
            }
            let wanted = known.index.image(image, now);
            if self.keep_digests(image, &objects, wanted.as_ref(), now) {
                // Its status says so soon, lest another leader takes it for kept.
                self.look_soon(image.clone());
            }
            let platforms = alike.one(Self::platforms_on(&objects, known, &nodes));
            let follow = self.follows(known, image, &objects, wanted.as_ref());
            survey.images.push(Surveyed { image: image.clone(), platforms, follow });
        }
        survey
    }
}

/// How many have a reason of a condition. Reasons that no image has are counted too, so that a series never ends.
pub(super) struct Counts(BTreeMap<(&'static str, &'static str), usize>);

impl Default for Counts {
    fn default() -> Self {
        fn none<R: Reason>() -> impl Iterator<Item = ((&'static str, &'static str), usize)> {
            R::ALL.iter().map(|reason| ((R::CONDITION, reason.as_str()), 0))
        }
        Self(none::<Cached>().chain(none::<UpstreamAvailable>()).chain(none::<UpToDate>()).collect())
    }
}

impl Counts {
    /// Of all of them, where nothing else is to be known of them.
    pub(super) fn of(objects: &Objects) -> Self {
        let mut counts = Self::default();
        for object in objects.values() {
            counts.add(&object);
        }
        counts
    }

    fn add(&mut self, object: &Object) {
        self.count::<Cached>(object);
        self.count::<UpstreamAvailable>(object);
        self.count::<UpToDate>(object);
    }

    fn count<R: Reason>(&mut self, object: &Object) {
        if let Some(reason) = get::<R>(&object.status.conditions) {
            *self.0.entry((R::CONDITION, reason.as_str())).or_default() += 1;
        }
    }

    pub(super) fn tell(self, metrics: &Metrics) {
        for ((condition, reason), count) in self.0 {
            metrics.images(condition, reason, count);
        }
    }
}
