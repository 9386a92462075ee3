//! All objects by name. As compressed text they take less room than as values, and there may be 100,000 of them; whoever looks at one has it as a value.
//!
//! It counts how many are looked at: what a change costs must not grow with their number, and whoever goes through all of them for one change is found out by
//! that (`larder_controller_objects_visited_total`, and a case in `tests/controller`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_api::{CachedImageSpec, CachedImageStatus};
use lz4_flex::block::{compress_with_dict, decompress_with_dict};

use super::Object;
use crate::decide::expiry::MadeBy;
use crate::decide::{Image, Moment};

/// Objects, by name.
#[derive(Debug, Default)]
pub struct Objects {
    all: BTreeMap<Arc<str>, Kept>,
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
    pub(super) fn insert(&mut self, name: Arc<str>, object: Object) -> Option<Arc<Object>> {
        let before = self.remove(&name);
        self.all.insert(name, Kept::of(object));
        before
    }

    /// A name, of which there is one in memory.
    pub(super) fn name(&self, name: &str) -> Arc<str> {
        self.all.get_key_value(name).map_or_else(|| name.into(), |(known, _)| Arc::clone(known))
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Object>> {
        let (name, kept) = self.all.remove_entry(name)?;
        kept.object(&name)
    }

    fn visit(&self) {
        self.visited.fetch_add(1, Ordering::Relaxed);
    }
}

/// What nearly every object says: whatever stands here costs each of them a few bytes. Nothing depends on it but memory. That conditions are what is said
/// nowadays, a test sees.
const USUAL: &str = concat!(
    r#"{"lastTransitionTime":"2026-","message":"the cluster cache has not been asked for it yet: others are first","observedGeneration":1,"reason":"Pending","status":"Unknown","type":"Cached"}"#,
    r#""progress":{"bytesKnown":,"bytesFetched":,"blobsKnown":,"blobsFetched":}"expiresAt":"2026-"lastPull":"2026-"#,
    r#"{"lastTransitionTime":"2026-","message":"nobody has asked its registry yet: its turn comes within the interval","observedGeneration":1,"reason":"NotChecked","status":"Unknown","type":"UpstreamAvailable"}"#,
    r#"{"lastTransitionTime":"2026-","message":"its registry does not say what the tag means now: see the condition UpstreamAvailable","observedGeneration":1,"reason":"NotChecked","status":"Unknown","type":"UpToDate"}"#,
    r#"{"lastTransitionTime":"2026-","message":"a digest means the same for ever","observedGeneration":1,"reason":"ByDigest","status":"True","type":"UpToDate"}"#,
    r#"["12345678-","resourceVersion",{"image":"docker.io/library/","retain":false,"platforms":["linux/amd64","linux/arm64"]},"#,
    r#"{"observedGeneration":1,"digest":"sha256:","upstreamDigest":"sha256:","upstreamChecked":"2026-","digests":[{"digest":"sha256:","upstream":true,"pods":0,"cached":true}],"#,
    r#""platforms":["linux/amd64","linux/arm64"],"sizeBytes":,"usedBy":{"count":1,"pods":["default/"]},"namespaces":["default"],"firstUsed":"2026-","lastUsed":"2026-","conditions":["#,
    r#"{"lastTransitionTime":"2026-","message":" MiB are kept, verified","observedGeneration":1,"reason":"Complete","status":"True","type":"Cached"},"#,
    r#"{"lastTransitionTime":"2026-","message":"docker.io has it","observedGeneration":1,"reason":"Present","status":"True","type":"UpstreamAvailable"},"#,
    r#"{"lastTransitionTime":"2026-","message":"the tag means at its registry what is cached","observedGeneration":1,"reason":"Same","status":"True","type":"UpToDate"}]}]"#,
);

/// Beside what an object's text is compressed.
fn usual(image: &Image) -> Vec<u8> {
    [USUAL.as_bytes(), image.as_str().as_bytes()].concat()
}

/// One of them, without its name.
#[derive(Debug)]
enum Kept {
    Text {
        image: Image,
        /// [`Said`], compressed.
        text: Box<[u8]>,
        /// Of the text as it was.
        length: u32,
    },
    /// One that does not come back from a text as it was.
    Value(Arc<Object>),
}

/// UID, version, generation, when it was made (milliseconds since 1970), whether by a person, spec and status.
type Said<I, S, T> = (I, I, Option<i64>, u64, bool, S, T);

impl Kept {
    fn of(object: Object) -> Self {
        let Object { name, uid, resource_version, generation, created, made_by, image, spec, status } = &object;
        let is_of_a_person = *made_by == MadeBy::Person;
        let said: Said<&str, &CachedImageSpec, &CachedImageStatus> =
            (uid, resource_version, *generation, created.millis(), is_of_a_person, spec, status);
        let text = serde_json::to_vec(&said).unwrap_or_default();
        let kept = Self::Text {
            image: image.clone(),
            // Copied: what comes out has room for the worst, and to cut that off would leave a hole behind each of 100,000.
            text: compress_with_dict(&text, &usual(image)).as_slice().into(),
            length: u32::try_from(text.len()).unwrap_or_default(),
        };
        // Nothing is lost, whatever becomes of these types.
        if kept.object(name).is_some_and(|back| *back == object) { kept } else { Self::Value(Arc::new(object)) }
    }

    fn object(&self, name: &str) -> Option<Arc<Object>> {
        let (image, text, length) = match self {
            Self::Value(object) => return Some(Arc::clone(object)),
            Self::Text { image, text, length } => (image, text, *length),
        };
        let text = decompress_with_dict(text, usize::try_from(length).ok()?, &usual(image)).ok()?;
        let said: Said<String, CachedImageSpec, CachedImageStatus> = serde_json::from_slice(&text).ok()?;
        let (uid, resource_version, generation, created, is_of_a_person, spec, status) = said;
        Some(Arc::new(Object {
            name: name.to_owned(),
            uid,
            resource_version,
            generation,
            created: Moment::from_millis(created),
            made_by: if is_of_a_person { MadeBy::Person } else { MadeBy::Controller },
            image: image.clone(),
            spec,
            status,
        }))
    }
}

#[cfg(test)]
mod tests {
    use larder_api::cached_image::{HeldDigest, UsedBy};
    use larder_api::condition::set;
    use larder_api::{CachedImage, Condition, Time};
    use larder_oci::{Algorithm, Digest};

    use super::*;
    use crate::decide::conditions::{self, Beside, Had, Upstream, cached, up_to_date, upstream_available};
    use crate::decide::health::Reachable;

    fn time() -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(1_700_000_000).unwrap())
    }

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"app")
    }

    /// In the words of the controller.
    fn said(image: &Image, pin: &conditions::Pin, kept: Option<&Digest>, upstream: &Upstream) -> Vec<Condition> {
        let mut all = Vec::new();
        let said = cached(pin, &Beside::default(), None);
        set(&mut all, said.reason, &said.message, Some(1), &time());
        let said = upstream_available(image, upstream, Reachable::default(), Had::Now, true);
        set(&mut all, said.reason, &said.message, Some(1), &time());
        let said = up_to_date(image, kept, upstream, false);
        set(&mut all, said.reason, &said.message, Some(1), &time());
        all
    }

    #[test]
    fn what_nearly_every_object_says_is_what_is_said_nowadays() {
        use conditions::Pin::{Complete, None as NoPin};
        let (tag, by_digest) = ("docker.io/library/app:v1".to_owned(), format!("docker.io/library/app@{}", digest()));
        let (digest, has) = (digest(), Upstream::Has(digest()));
        let cases = [
            (&tag, NoPin, &Upstream::NotAsked),
            (&tag, Complete(12 << 20), &Upstream::NotAsked),
            (&tag, Complete(12 << 20), &has),
            (&by_digest, Complete(12 << 20), &has),
        ];
        for (image, pin, upstream) in cases {
            for condition in said(&Image::parse(image).unwrap(), &pin, Some(&digest), upstream) {
                let text = serde_json::to_string(&condition).unwrap();
                let (_, text) = text.split_once("\"message\":\"").unwrap();
                let text = text.trim_start_matches("12.0");
                assert!(USUAL.contains(text), "{text} is not in what is taken for usual");
            }
        }
    }

    #[test]
    fn one_comes_back_as_it_was_and_takes_less_room() {
        let time = time();
        let mut object = CachedImage::of(&larder_oci::ImageReference::parse("ghcr.io/team/app:v1").unwrap());
        object.metadata.uid = Some("c687af60-4373-4417-9d16-64a8f4c14ae5".to_owned());
        object.metadata.resource_version = Some("12".to_owned());
        let digest = digest();
        let mut status = CachedImageStatus {
            observed_generation: Some(1),
            digest: Some(digest.to_string()),
            upstream_digest: Some(digest.to_string()),
            upstream_checked: Some(time.clone()),
            digests: vec![HeldDigest { digest: digest.to_string(), upstream: true, pods: 3, cached: true }],
            platforms: vec!["linux/amd64".to_owned()],
            used_by: Some(UsedBy { count: 3, pods: vec!["shop/web".to_owned()] }),
            namespaces: vec!["shop".to_owned()],
            first_used: Some(time.clone()),
            last_used: Some(time.clone()),
            ..CachedImageStatus::default()
        };
        let image = Image::parse("ghcr.io/team/app:v1").unwrap();
        let said = said(&image, &conditions::Pin::Complete(12 << 20), Some(&digest), &Upstream::Has(digest.clone()));
        status.conditions = said;
        object.status = Some(status);
        let object = Object::of(object).unwrap();
        let name = object.name.clone();
        let mut objects = Objects::default();
        assert!(objects.insert(objects.name(&name), object.clone()).is_none());
        assert_eq!(*objects.get(&name).unwrap(), object);
        let Some(Kept::Text { text, length, .. }) = objects.all.values().next() else { panic!("it is no text") };
        assert!(text.len() * 5 < *length as usize * 2, "{length} bytes are kept as {}", text.len());
        let newer = Object { resource_version: "13".to_owned(), ..object.clone() };
        assert_eq!(*objects.insert(objects.name(&name), newer.clone()).unwrap(), object);
        assert_eq!(objects.values().map(|object| object.resource_version.clone()).collect::<Vec<_>>(), ["13"]);
        assert_eq!(objects.take_visited(), 2);
        assert_eq!(*objects.remove(&name).unwrap(), newer);
        assert!(objects.is_empty());
    }
}
