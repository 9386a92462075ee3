//! The small records by which a pin's image is given, beside its blobs: that this repository delivers them, and what its tag means.
//!
//! Where they are lost they are written anew from the pin, and no registry is asked. What that rests on: a pin is put complete only by who has seen its
//! repository deliver all of it ([`Pins::put`](super::Pins::put)), to somebody without credentials, for nothing else is pinned. So no right is made up; a pin
//! that never was complete proves nothing. When that was is not in it, so such a record is as old as can be: whatever a registry says comes after it, and what
//! rests on it is given only where the registry says nothing.

use std::time::SystemTime;

use larder_oci::{Digest, ImageReference, ManifestReference, Tag};

use super::Content;
use crate::store::{Link, Name, TagRecord};

/// Of which repository an image is.
pub(crate) fn name_of(image: &ImageReference) -> Name {
    Name { registry: image.registry.clone(), repository: image.repository.clone() }
}

/// The tag by which it is asked for, if it is by one.
pub(crate) fn tag_of(image: &ImageReference) -> Option<Tag> {
    match image.manifest_reference() {
        ManifestReference::Tag(tag) => Some(tag),
        ManifestReference::Digest(_) => None,
    }
}

/// Those that are not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lacking {
    pub(crate) links: Vec<Digest>,
    /// There is none, or it means something that is not there, so that nobody can be given it.
    pub(crate) tag: Option<Tag>,
}

/// What is to be written in their place.
pub(crate) struct Anew {
    pub(crate) name: Name,
    pub(crate) links: Vec<Link>,
    pub(crate) tag: Option<(Tag, TagRecord)>,
}

impl Lacking {
    /// Of an image that is or was complete.
    pub(crate) fn anew(self, image: &ImageReference, content: &Content) -> Anew {
        if self != Self::default() {
            tracing::info!(%image, links = self.links.len(), tag = self.tag.is_some(),
                "records of a pinned image are not there; they are written anew, as the pin knows them");
        }
        Anew {
            name: name_of(image),
            links: self.links.into_iter().map(link).collect(),
            tag: self.tag.map(|tag| (tag, tag_record(content))),
        }
    }
}

/// Its media type is in the manifest itself.
pub(crate) fn link(digest: Digest) -> Link {
    Link { digest, media_type: None, size: None, public: true, confirmed_at: SystemTime::UNIX_EPOCH }
}

pub(crate) fn tag_record(content: &Content) -> TagRecord {
    TagRecord { digest: content.root.clone(), checked_at: SystemTime::UNIX_EPOCH }
}
