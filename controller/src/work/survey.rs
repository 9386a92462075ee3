//! What a pass reads of the objects, in one walk: they are kept compressed, and reading 100,000 of them is most of what a pass costs.

use std::sync::Arc;
use std::time::Instant;

use super::Work;
use super::bounding::claim_of;
use crate::decide::bounds::Claim;
use crate::decide::platforms::{Alike, Platforms};
use crate::decide::{Image, Moment};
use crate::world::{Known, Object};

/// All of it.
pub(super) struct Survey {
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
            claims: Vec::with_capacity(known.by_image.len()),
            images: Vec::with_capacity(known.by_image.len()),
        };
        let (mut alike, nodes) = (Alike::default(), known.platforms(Instant::now()));
        for image in known.by_image.keys() {
            let objects: Vec<Arc<Object>> = known.objects_of(image).collect();
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
