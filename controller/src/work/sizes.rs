//! In `--mode observe`: how large images are, asked of the cluster cache, which fetches their manifests for that and nothing else.
//!
//! Manifests count as pulls where pulls are counted (Docker Hub), so it is one image at a time, slowly, each once, and a registry that limits us or does not
//! answer is left alone for long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Done, Work, telling};
use crate::cluster_cache::{CacheError, Code, Planned};
use crate::decide::platforms::Platforms;
use crate::decide::{Image, expiry};
use crate::world::now;

/// Between two images of Docker Hub: 36 in six hours, in which it gives a hundred pulls to nobody in particular.
const GAP: Duration = Duration::from_mins(10);

/// The same of any other registry.
const GAP_OF_OTHERS: Duration = Duration::from_secs(1);

/// A registry that limits, or does not answer, is left alone for so long.
const REST: Duration = Duration::from_hours(1);

/// Until it is looked again whether there is one to ask for.
const LOOK: Duration = Duration::from_secs(10);

/// What is known of sizes.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// None: it cannot be known, and is not asked for again.
    known: BTreeMap<Image, Option<u64>>,
    not_before: BTreeMap<Box<str>, Instant>,
    is_asked: bool,
}

impl Sizes {
    pub(super) fn of(&self, image: &Image) -> Option<u64> {
        self.known.get(image).copied().flatten()
    }

    fn may_ask(&self, image: &Image, at: Instant) -> bool {
        !self.known.contains_key(image)
            && self.not_before.get(image.registry()).is_none_or(|not_before| *not_before <= at)
    }

    fn asked(&mut self, image: &Image, at: Instant) {
        self.is_asked = true;
        let gap = if image.registry() == "docker.io" { GAP } else { GAP_OF_OTHERS };
        self.not_before.insert(image.registry().into(), at + gap);
    }

    fn answered(&mut self, image: &Image, answer: &Result<Planned, CacheError>, at: Instant) {
        self.is_asked = false;
        match answer {
            Ok(Planned { bytes: Some(bytes), .. }) => {
                self.known.insert(image.clone(), Some(*bytes));
            }
            Ok(Planned { code: Some(Code::NotFound), .. }) | Err(CacheError::Refused { .. }) => {
                self.known.insert(image.clone(), None);
            }
            Ok(_) | Err(_) => {
                self.not_before.insert(image.registry().into(), at + REST);
            }
        }
    }
}

impl Work {
    /// Asks for the size of one image that Pods use, if it is time.
    pub(super) fn ask_size(&mut self) {
        if !self.shared.settings.observe
            || !self.pins.is_listed
            || self.sizes.is_asked
            || Instant::now() < self.next_size
        {
            return;
        }
        let at = Instant::now();
        self.next_size = at + GAP_OF_OTHERS;
        let (image, platforms) = {
            let known = self.shared.world.known();
            let is_wanted = |image: &&Image| {
                let used = telling::use_of(known.index.image(image, now()).as_ref());
                expiry::wants_object(image, used, &self.rules, now())
            };
            let next = known.index.images().filter(|image| self.sizes.may_ask(image, at)).find(is_wanted);
            let Some(image) = next.cloned() else {
                self.next_size = at + LOOK;
                return;
            };
            (image, Platforms::of(&BTreeSet::new(), &known.platforms(std::time::Instant::now())))
        };
        let Some(reference) = telling::reference(&image) else { return };
        self.sizes.asked(&image, at);
        let cache = self.shared.cache.clone();
        self.write(async move { cache.plan(&reference, &platforms.words()).await }, |result| Done::Sized {
            image,
            result,
        });
    }

    pub(super) fn sized(&mut self, image: &Image, result: &Result<Planned, CacheError>) {
        self.cache_said(result.as_ref().err());
        let why = match result {
            Ok(planned) => planned.error.clone(),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            tracing::debug!(%image, "its size is not known: {why}");
        }
        self.sizes.answered(image, result, Instant::now());
        self.report();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_asked_slowly_and_left_alone_where_it_does_not_answer() {
        let (mut sizes, start) = (Sizes::default(), Instant::now());
        let (hub, other, gone) = ("alpine:3", "ghcr.io/a/b:1", "ghcr.io/a/gone:1");
        let [hub, other, gone] = [hub, other, gone].map(|image| Image::parse(image).unwrap());
        sizes.asked(&hub, start);
        let planned = |bytes, code| Ok(Planned { bytes, code, error: None });
        sizes.answered(&hub, &planned(Some(7), None), start);
        assert_eq!((sizes.of(&hub), sizes.of(&other)), (Some(7), None));
        let nginx = Image::parse("nginx").unwrap();
        assert!(
            !sizes.may_ask(&hub, start + GAP) && !sizes.may_ask(&nginx, start) && sizes.may_ask(&nginx, start + GAP)
        );
        assert!(sizes.may_ask(&other, start));
        let refused = CacheError::Refused { status: 403, code: Some(Code::Private), reason: "no".into() };
        sizes.answered(&gone, &Err(refused), start);
        let missing = Image::parse("ghcr.io/a/missing:1").unwrap();
        sizes.answered(&missing, &planned(None, Some(Code::NotFound)), start);
        assert!(
            !sizes.may_ask(&gone, start + REST)
                && !sizes.may_ask(&missing, start + REST)
                && sizes.may_ask(&other, start)
        );
        sizes.answered(&other, &planned(None, None), start);
        assert!(!sizes.may_ask(&other, start + GAP) && sizes.may_ask(&other, start + REST));
    }
}
