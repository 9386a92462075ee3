//! Digests that are kept beside tags, and when Pods last ran them: found by the tag, and the tags by the digest, without a walk through all of them.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::Digest;

use crate::decide::{Image, Moment};

#[derive(Debug, Default)]
pub(super) struct Beside {
    of: BTreeMap<Image, BTreeMap<Digest, Moment>>,
    /// By the reference of the digest's own pin.
    tags: BTreeMap<Image, BTreeSet<Image>>,
}

impl Beside {
    /// Those of an image; nothing where nobody has looked at what it keeps yet.
    pub(super) fn get(&self, image: &Image) -> Option<&BTreeMap<Digest, Moment>> {
        self.of.get(image)
    }

    /// Images because of which a digest is kept that is pinned as `pin`.
    pub(super) fn tags(&self, pin: &Image) -> impl Iterator<Item = &Image> {
        self.tags.get(pin).into_iter().flatten()
    }

    /// Keeps these, and no others. That there are none is remembered: what a status says of former ones counts once.
    pub(super) fn set(&mut self, image: &Image, kept: BTreeMap<Digest, Moment>) {
        let before = self.of.insert(image.clone(), kept).unwrap_or_default();
        let Some(kept) = self.of.get(image) else { return };
        let gone: Vec<Image> =
            before.keys().filter(|digest| !kept.contains_key(*digest)).map(|digest| image.at(digest)).collect();
        let new: Vec<Image> =
            kept.keys().filter(|digest| !before.contains_key(*digest)).map(|digest| image.at(digest)).collect();
        for pin in new {
            self.tags.entry(pin).or_default().insert(image.clone());
        }
        for pin in gone {
            self.unlink(&pin, image);
        }
    }

    /// Nothing is known of it.
    pub(super) fn remove(&mut self, image: &Image) {
        for digest in self.of.remove(image).unwrap_or_default().into_keys() {
            self.unlink(&image.at(&digest), image);
        }
    }

    fn unlink(&mut self, pin: &Image, image: &Image) {
        if let Some(tags) = self.tags.get_mut(pin) {
            tags.remove(image);
            if tags.is_empty() {
                self.tags.remove(pin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::Algorithm;

    use super::*;

    #[test]
    fn tags_are_found_by_their_digests_as_long_as_they_keep_them() {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let kept = |digests: &[&str]| digests.iter().map(|text| (digest(text), Moment::from_seconds(1))).collect();
        let image = |text: &str| Image::parse(text).unwrap();
        let (one, two, other) = (image("app:1"), image("app:2"), image("other:1"));
        let mut beside = Beside::default();
        beside.set(&one, kept(&["a", "b"]));
        beside.set(&two, kept(&["b"]));
        beside.set(&other, kept(&["b"]));
        let tags = |beside: &Beside, text: &str| beside.tags(&one.at(&digest(text))).cloned().collect::<Vec<_>>();
        assert_eq!(tags(&beside, "a"), std::slice::from_ref(&one));
        // Of this repository only: another one's digest is a pin of its own.
        assert_eq!(tags(&beside, "b"), [one.clone(), two.clone()]);
        beside.set(&one, kept(&["b", "c"]));
        assert_eq!((tags(&beside, "a"), tags(&beside, "c")), (vec![], vec![one.clone()]));
        beside.remove(&two);
        assert_eq!(tags(&beside, "b"), std::slice::from_ref(&one));
        beside.set(&one, BTreeMap::new());
        assert_eq!(beside.get(&one), Some(&BTreeMap::new()), "what its status said is not asked again");
        beside.remove(&one);
        assert_eq!(beside.get(&one), None);
        beside.remove(&other);
        assert!(beside.tags.is_empty() && beside.of.is_empty());
    }
}
