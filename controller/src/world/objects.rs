//! All objects by name. As text they take less room than as values, and there may be 100,000 of them; whoever looks at one has it as a value.
//!
//! It counts how many are looked at: what a change costs must not grow with their number, and whoever goes through all of them for one change is found out by
//! that (`larder_controller_objects_visited_total`, and a case in `tests/controller`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_api::{CachedImageSpec, CachedImageStatus};

use super::Object;
use crate::decide::expiry::MadeBy;
use crate::decide::{Image, Moment};

/// Objects, by name.
#[derive(Debug, Default)]
pub struct Objects {
    all: BTreeMap<Box<str>, Kept>,
    visited: AtomicU64,
}

impl Objects {
    /// One of them.
    pub fn get(&self, name: &str) -> Option<Arc<Object>> {
        let (name, kept) = self.all.get_key_value(name)?;
        self.visit();
        kept.object(name)
    }

    /// All of them, in the order of their names. Not for a single change.
    pub fn values(&self) -> impl Iterator<Item = Arc<Object>> {
        self.all.iter().inspect(|_| self.visit()).filter_map(|(name, kept)| kept.object(name))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many were looked at since this was last asked.
    pub fn take_visited(&self) -> u64 {
        self.visited.swap(0, Ordering::Relaxed)
    }

    /// Gives the one that it takes the place of.
    pub(super) fn insert(&mut self, object: Object) -> Option<Arc<Object>> {
        let before = self.remove(&object.name);
        self.all.insert(object.name.as_str().into(), Kept::of(object));
        before
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Object>> {
        let (name, kept) = self.all.remove_entry(name)?;
        kept.object(&name)
    }

    fn visit(&self) {
        self.visited.fetch_add(1, Ordering::Relaxed);
    }
}

/// One of them, without its name.
#[derive(Debug)]
enum Kept {
    Text {
        image: Image,
        generation: Option<i64>,
        created: Moment,
        made_by: MadeBy,
        /// UID, version, spec and status.
        text: Box<[u8]>,
    },
    /// One that does not come back from a text as it was.
    Value(Arc<Object>),
}

impl Kept {
    fn of(object: Object) -> Self {
        let Object { name, uid, resource_version, generation, created, made_by, image, spec, status } = &object;
        let text = serde_json::to_vec(&(uid, resource_version, spec, status)).unwrap_or_default();
        let kept = Self::Text {
            image: image.clone(),
            generation: *generation,
            created: *created,
            made_by: *made_by,
            text: text.into_boxed_slice(),
        };
        // Nothing is lost, whatever becomes of these types.
        if kept.object(name).is_some_and(|back| *back == object) { kept } else { Self::Value(Arc::new(object)) }
    }

    fn object(&self, name: &str) -> Option<Arc<Object>> {
        let (image, generation, created, made_by, text) = match self {
            Self::Value(object) => return Some(Arc::clone(object)),
            Self::Text { image, generation, created, made_by, text } => (image, generation, created, made_by, text),
        };
        let (uid, resource_version, spec, status): (String, String, CachedImageSpec, CachedImageStatus) =
            serde_json::from_slice(text).ok()?;
        Some(Arc::new(Object {
            name: name.to_owned(),
            uid,
            resource_version,
            generation: *generation,
            created: *created,
            made_by: *made_by,
            image: image.clone(),
            spec,
            status,
        }))
    }
}

#[cfg(test)]
mod tests {
    use larder_api::cached_image::{Cached, HeldDigest, UsedBy};
    use larder_api::condition::set;
    use larder_api::{CachedImage, Time};

    use super::*;

    #[test]
    fn one_comes_back_as_it_was_and_takes_less_room() {
        let time = Time(k8s_openapi::jiff::Timestamp::from_second(1_700_000_000).unwrap());
        let mut object = CachedImage::of(&larder_oci::ImageReference::parse("ghcr.io/team/app:v1").unwrap());
        object.metadata.uid = Some("9f0c".to_owned());
        object.metadata.resource_version = Some("12".to_owned());
        let mut status = CachedImageStatus {
            digest: Some("sha256:00".to_owned()),
            digests: vec![HeldDigest { digest: "sha256:00".to_owned(), upstream: true, pods: 3, cached: true }],
            used_by: Some(UsedBy { count: 3, pods: vec!["shop/web".to_owned()] }),
            last_used: Some(time.clone()),
            ..CachedImageStatus::default()
        };
        set(&mut status.conditions, Cached::Complete, "12 MiB are kept, verified", Some(1), &time);
        object.status = Some(status);
        let object = Object::of(object).unwrap();
        let name = object.name.clone();
        let mut objects = Objects::default();
        assert!(objects.insert(object.clone()).is_none());
        assert_eq!(*objects.get(&name).unwrap(), object);
        assert!(matches!(objects.all.values().next(), Some(Kept::Text { .. })), "it is kept as a text");
        let newer = Object { resource_version: "13".to_owned(), ..object.clone() };
        assert_eq!(*objects.insert(newer.clone()).unwrap(), object);
        assert_eq!(objects.values().map(|object| object.resource_version.clone()).collect::<Vec<_>>(), ["13"]);
        assert_eq!(objects.take_visited(), 2);
        assert_eq!(*objects.remove(&name).unwrap(), newer);
        assert!(objects.is_empty());
    }
}
