//! What registries say of images now: asked through the cache by HEAD, spread over the interval.

use std::sync::Arc;

use larder_api::cached_image::UpToDate;
use larder_api::condition::get;
use larder_oci::Digest;

use super::telling;
use super::{Done, QUESTIONS, QUESTIONS_AT_ALL, Work};
use crate::cluster_cache::{CacheError, Code, Revalidation};
use crate::decide::Image;
use crate::decide::conditions::Upstream;
use crate::world::{Object, now};

impl Work {
    /// Asks for those whose time has come.
    pub(super) fn check(&mut self) {
        if self.pins.trouble.is_some() || self.shared.settings.observe {
            return;
        }
        let room = QUESTIONS_AT_ALL.saturating_sub(self.under_way());
        for (image, is_its_turn) in self.rounds.take_at_most(room, now()) {
            if is_its_turn {
                self.upstream.turn(&image);
            }
            // It may not answer, and the rest of the cluster needs the cache as well: then another time, which the image has already.
            self.ask(image);
        }
    }

    /// Questions that are under way.
    pub(super) fn under_way(&self) -> usize {
        self.questions.values().sum()
    }

    /// Asks for one of them, if there is room at its registry. Whether it is asked.
    pub(super) fn ask(&mut self, image: Image) -> bool {
        let Some(reference) = telling::reference(&image) else { return false };
        let questions = self.questions.entry(image.registry().into()).or_default();
        if *questions >= QUESTIONS {
            return false;
        }
        *questions += 1;
        let cache = self.shared.cache.clone();
        self.write(async move { cache.revalidate(&reference).await }, move |result| Done::Checked { image, result });
        true
    }

    pub(super) fn checked(&mut self, image: &Image, result: Result<Revalidation, CacheError>) {
        self.registry_was_asked(image.registry());
        if let Some(questions) = self.questions.get_mut(image.registry()) {
            *questions = questions.saturating_sub(1);
            if *questions == 0 {
                self.questions.remove(image.registry());
            }
        }
        let said = match result {
            Ok(said) => match (said.upstream, said.verdict.as_deref()) {
                (Some(digest), _) => Upstream::Has(self.as_pinned(image, digest)),
                (None, Some("not_found")) => Upstream::Gone,
                (None, Some("denied")) => Upstream::Denied,
                (None, Some("rate_limited")) => Upstream::Limited,
                (None, Some("server_error")) => Upstream::Failing(said.error.unwrap_or_default()),
                (None, _) => Upstream::NoAnswer(said.error.unwrap_or_else(|| "it does not say why".to_owned())),
            },
            Err(CacheError::Refused { code: Some(Code::Private), .. }) => Upstream::Denied,
            Err(error) => {
                self.cache_said(Some(&error));
                tracing::debug!(%image, "not checked: {error}");
                return;
            }
        };
        self.shared.metrics.checked(match said {
            Upstream::Has(_) => "present",
            Upstream::Gone => "gone",
            Upstream::Denied => "denied",
            Upstream::Limited => "rate_limited",
            Upstream::Failing(_) => "failing",
            Upstream::NoAnswer(_) | Upstream::NotAsked => "unreachable",
        });
        self.upstream.insert(image.clone(), (said, now()));
        let held = self.pins.known.get(image).and_then(crate::cluster_cache::Pin::held);
        let has_moved = self.upstream.to_follow(image).is_some_and(|there| held.is_some_and(|held| held != there));
        if has_moved && self.is_to_follow(image) {
            self.pass_soon();
        }
        self.look_soon(image.clone());
    }

    /// The digest as it is in memory already, where the cache has what the registry says, which is so of nearly all images.
    fn as_pinned(&self, image: &Image, digest: Digest) -> Digest {
        let pinned = self.pins.known.get(image).and_then(|pin| pin.digest.as_ref());
        pinned.filter(|pinned| **pinned == digest).cloned().unwrap_or(digest)
    }

    /// Whether its pin follows its tag, and nobody has heard yet that it moved.
    fn is_to_follow(&self, image: &Image) -> bool {
        let known = self.shared.world.known();
        let objects: Vec<Arc<Object>> = known.objects_of(image).collect();
        let is_said = |object: &Arc<Object>| get::<UpToDate>(&object.status.conditions) == Some(UpToDate::Moved);
        let wanted = known.index.image(image, now());
        !objects.iter().any(is_said) && self.follows(&known, image, &objects, wanted.as_ref())
    }
}
