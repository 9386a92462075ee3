//! What registries said of images when they were asked last, and whether it may be acted on.
//!
//! A pin that is put asks the registry itself, and may find something else than the check before it: the tag moved again meanwhile, or the registry answers
//! whoever only asks and not whoever fetches. Then it differs from what was said for as long as that counts. So a check is acted on once: what a put found
//! instead uses it up, the registry is asked again to say what is true, and the next put is for when the image's own turn to be checked comes.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::Digest;

use crate::decide::conditions::Upstream;
use crate::decide::{Image, Moment};

#[derive(Debug, Default)]
pub(super) struct Upstreams {
    said: BTreeMap<Image, (Upstream, Moment)>,
    /// They were put since their turn came last, and something else came of it than was said.
    used_up: BTreeSet<Image>,
}

impl Upstreams {
    /// What was said of it, and when.
    pub(super) fn get(&self, image: &Image) -> Option<&(Upstream, Moment)> {
        self.said.get(image)
    }

    /// It was asked for.
    pub(super) fn insert(&mut self, image: Image, said: (Upstream, Moment)) {
        self.said.insert(image, said);
    }

    /// Its registry is known to have said so when it was fetched: counts if that was later than what it said to whoever asked. Whether it counts.
    pub(super) fn hear(&mut self, image: &Image, digest: &Digest, at: Moment) -> bool {
        let counts = self.said.get(image).is_none_or(|(_, asked)| *asked < at);
        if counts {
            self.said.insert(image.clone(), (Upstream::Has(digest.clone()), at));
        }
        counts
    }

    /// The cache has it now: that its registry would not give it, as it said before that, may not be so any more.
    pub(super) fn doubt(&mut self, image: &Image) {
        if matches!(self.said.get(image), Some((Upstream::Gone | Upstream::Denied, _))) {
            self.said.remove(image);
        }
    }

    /// Nobody wants it any more.
    pub(super) fn remove(&mut self, image: &Image) {
        self.said.remove(image);
        self.used_up.remove(image);
    }

    /// What the cache should have, if that is known and was not tried already.
    pub(super) fn to_follow(&self, image: &Image) -> Option<&Digest> {
        match self.said.get(image) {
            Some((Upstream::Has(digest), _)) if !self.used_up.contains(image) => Some(digest),
            _ => None,
        }
    }

    /// Its own turn to be checked has come.
    pub(super) fn turn(&mut self, image: &Image) {
        self.used_up.remove(image);
    }

    /// It was put, and is this. Whether its registry is to be asked what it means: something else was said.
    pub(super) fn put(&mut self, image: &Image, digest: &Digest) -> bool {
        let differs = matches!(self.said.get(image), Some((Upstream::Has(said), _)) if said != digest);
        if differs {
            self.said.remove(image);
            self.used_up.insert(image.clone());
        }
        differs
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::Algorithm;

    use super::*;
    use crate::decide::brake::Brake;
    use crate::decide::pins::{CachePin, Listing, Why, Wish, plan};
    use crate::decide::platforms::Platforms;

    fn digest(name: &str) -> Digest {
        Digest::of(Algorithm::Sha256, name.as_bytes())
    }

    /// An image that follows its tag, and its pin.
    struct Stage {
        upstreams: Upstreams,
        image: Image,
        pinned: Digest,
    }

    impl Stage {
        fn new(pinned: &str) -> Self {
            let image = Image::parse("reg.example.com/app:1").unwrap();
            Self { upstreams: Upstreams::default(), image, pinned: digest(pinned) }
        }

        fn says(&mut self, name: &str) {
            self.upstreams.insert(self.image.clone(), (Upstream::Has(digest(name)), Moment::from_seconds(1)));
        }

        /// What a pass puts, and whether it declares.
        fn pass(&self) -> (Vec<Why>, bool) {
            let (image, platforms) = (self.image.clone(), Platforms::All);
            let upstream = self.upstreams.to_follow(&image).cloned();
            let wish = Wish {
                image: image.clone(),
                digests: BTreeSet::new(),
                platforms: platforms.clone(),
                follow: true,
                upstream,
            };
            let digest = Some(self.pinned.clone());
            let pin = CachePin { image, platforms, digest, is_complete: true, has_failed: false };
            let none = BTreeSet::new();
            let listing = Listing { is_complete: true, deleted: &none, word: None, let_go: &none, untouched: &none };
            let plan = plan(&[wish], &[pin], listing, &mut Brake::default(), Moment::from_seconds(2));
            (plan.put.iter().map(|put| put.why).collect(), plan.is_settled)
        }

        /// A put finds this.
        fn finds(&mut self, name: &str) -> bool {
            self.pinned = digest(name);
            self.upstreams.put(&self.image, &self.pinned)
        }
    }

    #[test]
    fn what_was_heard_later_counts() {
        let (image, mut upstreams) = (Image::parse("reg.example.com/app:1").unwrap(), Upstreams::default());
        let at = Moment::from_seconds;
        let said = |upstreams: &Upstreams| upstreams.get(&image).cloned();
        assert!(upstreams.hear(&image, &digest("a"), at(5)));
        assert_eq!(said(&upstreams), Some((Upstream::Has(digest("a")), at(5))));
        upstreams.doubt(&image);
        assert!(said(&upstreams).is_some(), "nothing speaks against it");
        upstreams.insert(image.clone(), (Upstream::Gone, at(9)));
        assert!(!upstreams.hear(&image, &digest("a"), at(8)));
        assert_eq!(said(&upstreams), Some((Upstream::Gone, at(9))), "it was deleted after that");
        assert!(upstreams.hear(&image, &digest("a"), at(10)));
        assert_eq!(said(&upstreams), Some((Upstream::Has(digest("a")), at(10))));
        for refusal in [Upstream::Gone, Upstream::Denied] {
            upstreams.insert(image.clone(), (refusal, at(11)));
            upstreams.doubt(&image);
            assert_eq!(said(&upstreams), None);
        }
    }

    #[test]
    fn a_tag_that_moved_twice_is_put_once_and_the_set_is_declared() {
        let mut stage = Stage::new("a");
        stage.says("a");
        assert_eq!(stage.pass(), (vec![], true));
        // For other machines, hours after that check: meanwhile it means something else.
        assert!(stage.finds("b"), "asked what it means now");
        assert_eq!(stage.pass(), (vec![], true));
        stage.says("b");
        assert_eq!(stage.pass(), (vec![], true));
        assert!(!stage.finds("b"), "it is what was said");
    }

    #[test]
    fn a_registry_that_says_one_thing_and_gives_another_is_asked_no_more_than_usually() {
        let mut stage = Stage::new("a");
        stage.says("b");
        assert_eq!(stage.pass(), (vec![Why::TagMoved], false));
        assert!(stage.finds("a"));
        assert_eq!(stage.pass(), (vec![], true));
        stage.says("b");
        assert_eq!(stage.pass(), (vec![], true), "that was tried");
        assert_eq!(stage.upstreams.get(&stage.image).map(|(said, _)| said), Some(&Upstream::Has(digest("b"))));
        // Its turn comes again.
        stage.upstreams.turn(&stage.image);
        stage.says("b");
        assert_eq!(stage.pass(), (vec![Why::TagMoved], false));
        assert!(!stage.finds("b"));
        assert_eq!(stage.pass(), (vec![], true));
        stage.says("c");
        assert_eq!(stage.pass(), (vec![Why::TagMoved], false));
    }
}
