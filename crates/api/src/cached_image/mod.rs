//! CachedImage: one image reference that is wanted, by a Pod or by a person, and what the cluster cache has of it.

pub mod name;
mod reasons;
mod status;

use std::time::Duration;

use kube::CustomResource;
use larder_oci::{ImageReference, ReferenceError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::Column;
use crate::schema;
use crate::span::{self, SpanError};

pub use reasons::{Cached, UpToDate, UpstreamAvailable};
pub use status::{CachedImageStatus, HeldDigest, Kept, MOST_DIGESTS, MOST_NAMESPACES, MOST_PODS, Progress, UsedBy};

/// Most platforms that one image may name.
pub const MOST_PLATFORMS: usize = 32;

/// What `kubectl get` prints.
pub(crate) const COLUMNS: &[Column] = &[
    Column::new("Image", "string", ".spec.image", "The reference."),
    Column::new(
        "Cached",
        "string",
        ".status.conditions[?(@.type=='Cached')].status",
        "True: it can be pulled while its registry is away.",
    ),
    Column::new("Why", "string", ".status.conditions[?(@.type=='Cached')].reason", "Why it is cached, or is not."),
    Column::new(
        "Upstream",
        "string",
        ".status.conditions[?(@.type=='UpstreamAvailable')].reason",
        "What its registry says of it: Present, Gone, Denied, Unreachable…",
    ),
    Column::new(
        "Current",
        "string",
        ".status.conditions[?(@.type=='UpToDate')].status",
        "Whether what is cached is what the registry has.",
    ),
    Column::new("Pods", "integer", ".status.usedBy.count", "How many Pods use it."),
    Column::new(
        "Expires",
        "string",
        ".status['expiresAt','kept']",
        "When it leaves the cache, or what keeps it (Retained, Applied); empty while a Pod uses it.",
    ),
    Column::new("Age", "date", ".metadata.creationTimestamp", "How long it has been there."),
    Column::wide("Size", "integer", ".status.sizeBytes", "Bytes in the cache."),
    Column::wide("Digest", "string", ".status.digest", "What is cached for the reference."),
    Column::wide("Last used", "date", ".status.lastUsed", "When a Pod last used it."),
];

/// What is wanted. Images that Pods use get an object by themselves; make one by hand to have an image before a Pod needs it.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "CachedImage",
    plural = "cachedimages",
    shortname = "ci",
    category = "larder",
    status = "CachedImageStatus",
    derive = "PartialEq",
    selectable = ".spec.image",
    doc = "An image that the cluster cache keeps, so that it can be pulled while its registry is down, slow or no longer has it."
)]
#[serde(rename_all = "camelCase")]
pub struct CachedImageSpec {
    /// The image, in full, with a tag or a digest: docker.io/library/alpine:3. It cannot be changed.
    #[schemars(length(min = 3, max = schema::LONGEST_IMAGE), extend("x-kubernetes-validations" = schema::image()))]
    pub image: String,
    /// Keep it although no Pod uses it, until the object is deleted or this is false again: then it goes as it would have without.
    #[serde(default)]
    pub retain: bool,
    /// The platforms to keep, as linux/amd64 or linux/arm/v7. Empty: those of the cluster's nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::platforms")]
    pub platforms: Vec<String>,
    /// How long it is kept after its last use, as 30d, 12h or 1d12h. Nothing: what its UpstreamRegistry says, else the controller's default; if somebody else than the controller made or applies the object, until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), extend("x-kubernetes-validations" = schema::span()))]
    pub expiry: Option<String>,
    /// Whether what its tag means is fetched again when its registry gives that tag to something else. Nothing: yes where a Pod of imagePullPolicy Always uses it,
    /// else what its UpstreamRegistry says, else the controller's default, which is no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

impl CachedImageSpec {
    /// The image, parsed.
    pub fn reference(&self) -> Result<ImageReference, ReferenceError> {
        ImageReference::parse(&self.image)
    }

    /// How long it is kept after its last use, if that is said.
    pub fn expiry(&self) -> Result<Option<Duration>, SpanError> {
        self.expiry.as_deref().map(span::parse).transpose()
    }
}

impl CachedImage {
    /// The object of an image, with the name that every writer gives it.
    pub fn of(image: &ImageReference) -> Self {
        let image = name::normalised(image);
        Self::new(&name::of(&image), CachedImageSpec { image: image.to_string(), ..CachedImageSpec::default() })
    }

    /// Whether it has the name that every writer gives to its image. Objects made by hand may have any.
    pub fn has_the_name_of_its_image(&self) -> bool {
        let Ok(image) = self.spec.reference() else { return false };
        self.metadata.name.as_deref() == Some(name::of(&image).as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_an_image_has_its_name_and_its_image_in_full() {
        let image = CachedImage::of(&ImageReference::parse("alpine").unwrap());
        assert_eq!(image.spec.image, "docker.io/library/alpine:latest");
        assert!(image.has_the_name_of_its_image());
        let by_hand = CachedImage::new("mine", image.spec.clone());
        assert!(!by_hand.has_the_name_of_its_image());
        assert_eq!(by_hand.spec.reference().unwrap(), image.spec.reference().unwrap());
    }
}
