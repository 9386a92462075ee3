//! What the API server has and this program cannot read: of a definition that is older or newer, as a rule.
//!
//! Nothing is lost because of it, and it is never silent: of a `CachedImage` what is pinned stays, and where nobody can tell which image it is of, nothing is
//! removed at all; of a Pod nobody knows what it uses, so nothing expires. `/readyz` and a metric say so.

use std::collections::{BTreeMap, BTreeSet};

use larder_api::CachedImage;

use crate::decide::Image;

/// Names in a text for people.
const NAMED: usize = 3;

/// All of it.
#[derive(Debug, Default)]
pub struct Unreadable {
    objects: BTreeMap<String, Of>,
    pods: BTreeSet<String>,
}

/// Which image a `CachedImage` is of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Of {
    Image(Image),
    /// Its `spec.image` is a text and names none, so nothing can be pinned of it.
    None,
    /// It has no `spec.image` that is a text.
    Unknown,
}

impl Unreadable {
    /// A `CachedImage` with this for `spec.image`, if that is a text.
    pub fn object(&mut self, name: &str, image: Option<&str>) {
        let of = match image {
            Some(image) => Image::parse(image).map_or(Of::None, Of::Image),
            None => Of::Unknown,
        };
        self.objects.insert(name.to_owned(), of);
    }

    /// It is gone, or can be read now: which image it was of.
    pub fn object_gone(&mut self, name: &str) -> Option<Image> {
        match self.objects.remove(name)? {
            Of::Image(image) => Some(image),
            Of::None | Of::Unknown => None,
        }
    }

    /// A Pod.
    pub fn pod(&mut self, namespace: &str, name: &str) {
        self.pods.insert(format!("{namespace}/{name}"));
    }

    /// It is gone, or can be read now.
    pub fn pod_gone(&mut self, namespace: &str, name: &str) {
        if !self.pods.is_empty() {
            self.pods.remove(&format!("{namespace}/{name}"));
        }
    }

    /// All Pods are listed anew.
    pub fn no_pods(&mut self) {
        self.pods.clear();
    }

    /// How many objects, and how many Pods.
    pub fn count(&self) -> (usize, usize) {
        (self.objects.len(), self.pods.len())
    }

    /// Whether an image has such an object.
    pub fn has(&self, image: &Image) -> bool {
        self.objects.iter().any(|(name, of)| match of {
            Of::Image(its) => its == image,
            Of::None => false,
            Of::Unknown => is_name_of(name, image),
        })
    }

    /// The images that such objects are of, of which there may be `pins`. `None`: of one of them nobody can tell.
    pub fn images<'a>(&self, pins: &(impl Iterator<Item = &'a Image> + Clone)) -> Option<BTreeSet<Image>> {
        let mut images = BTreeSet::new();
        for (name, of) in &self.objects {
            match of {
                Of::Image(image) => images.extend([image.clone()]),
                Of::None => {}
                Of::Unknown => images.extend([pins.clone().find(|image| is_name_of(name, image))?.clone()]),
            }
        }
        Some(images)
    }

    /// What is wrong, and what to do.
    pub fn message(&self) -> Option<String> {
        let few = |names: Vec<&str>| {
            let more = names.len().saturating_sub(NAMED);
            let names = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
            if more > 0 { format!("{names} and {more} more") } else { names }
        };
        let objects = (!self.objects.is_empty()).then(|| {
            let names = few(self.objects.keys().map(String::as_str).collect());
            format!(
                "CachedImages cannot be read: {names}. What is pinned of them stays, and nothing at all is removed where nobody can tell which image one is \
                 of. Is their definition of this release? Else delete them: what Pods use comes back"
            )
        });
        let pods = (!self.pods.is_empty()).then(|| {
            let names = few(self.pods.iter().map(String::as_str).collect());
            format!("Pods cannot be read: {names}. Nobody knows which images they use, so none expires")
        });
        let all: Vec<String> = objects.into_iter().chain(pods).collect();
        (!all.is_empty()).then(|| all.join(". "))
    }
}

/// Whether the controller would call an object of this image so.
fn is_name_of(name: &str, image: &Image) -> bool {
    let Ok(reference) = image.reference() else { return false };
    let own = CachedImage::of(&reference).metadata.name.unwrap_or_default();
    !own.is_empty() && name.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Image {
        Image::parse(text).unwrap()
    }

    #[test]
    fn what_is_pinned_of_them_is_known_by_image_or_by_name() {
        let (nginx, redis) = (image("nginx:1"), image("redis:7"));
        let pins = [nginx.clone(), redis.clone()];
        let name = CachedImage::of(&redis.reference().unwrap()).metadata.name.unwrap();
        let mut unreadable = Unreadable::default();
        assert_eq!(unreadable.images(&pins.iter()), Some(BTreeSet::new()));
        unreadable.object("mine", Some("nginx:1"));
        unreadable.object("none", Some("No Image"));
        unreadable.object(&name, None);
        assert_eq!(unreadable.images(&pins.iter()), Some(pins.clone().into()));
        assert!(unreadable.has(&nginx) && unreadable.has(&redis) && !unreadable.has(&image("nginx:2")));
        assert_eq!(unreadable.count(), (3, 0));
        // One of which nobody can tell: it may be any.
        unreadable.object("another", None);
        assert_eq!(unreadable.images(&pins.iter()), None);
        assert_eq!(unreadable.object_gone("another"), None);
        assert_eq!(unreadable.object_gone("mine"), Some(nginx));
        assert_eq!(unreadable.images(&pins.iter()), Some([redis].into()));
    }

    #[test]
    fn what_a_person_reads() {
        let mut unreadable = Unreadable::default();
        assert_eq!(unreadable.message(), None);
        for number in 0..5 {
            unreadable.object(&format!("image-{number}"), None);
        }
        unreadable.pod("shop", "web");
        insta::assert_snapshot!(unreadable.message().unwrap());
        unreadable.pod_gone("shop", "web");
        assert_eq!(unreadable.count(), (5, 0));
    }
}
