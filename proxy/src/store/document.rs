//! Links, tags and pins as they are written down: JSON, each with a version and the names of what it is about.
//!
//! Every store that keeps them beyond the process writes the same documents, wherever it puts them. One that stands in the wrong
//! place (a disk that folds case, an object that was moved by hand) is not about what was asked for, and counts as absent.

use std::time::SystemTime;

use larder_oci::{Digest, ImageReference, Registry, Repository, Tag};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Link, Name, TagRecord};
use crate::pins::{Content, Holder, KeptPin, Pin, PinName, Place, Platform, Platforms};

/// Version of each document, apart from the layout's: a reader that meets another one takes it as absent.
pub(super) const VERSION: u64 = 1;

/// More than any document of ours has, but for pins.
pub(super) const MAXIMUM_LENGTH: usize = 64 << 10;

/// More than any pin's document has: [`crate::pins::MAXIMUM_DIGESTS`] twice, in the longer algorithm.
pub(super) const MAXIMUM_PIN_LENGTH: usize = 5 << 20;

/// Why bytes are no document that this program reads.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is of version {0}")]
    Version(u64),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    match serde_json::from_slice(bytes)? {
        Versioned { version: VERSION } => Ok(serde_json::from_slice(bytes)?),
        Versioned { version } => Err(Unreadable::Version(version)),
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct LinkDocument {
    version: u64,
    registry: Registry,
    repository: Repository,
    digest: Digest,
    media_type: Option<String>,
    size: Option<u64>,
    public: bool,
    confirmed_at: SystemTime,
}

impl LinkDocument {
    pub(super) fn new(name: &Name, link: Link) -> Self {
        Self {
            version: VERSION,
            registry: name.registry.clone(),
            repository: name.repository.clone(),
            digest: link.digest,
            media_type: link.media_type,
            size: link.size,
            public: link.public,
            confirmed_at: link.confirmed_at,
        }
    }

    /// What it says, if it is about that.
    pub(super) fn of(self, name: &Name, digest: &Digest) -> Option<Link> {
        let about_it = self.registry == name.registry && self.repository == name.repository && self.digest == *digest;
        about_it.then_some(Link {
            digest: self.digest,
            media_type: self.media_type,
            size: self.size,
            public: self.public,
            confirmed_at: self.confirmed_at,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct TagDocument {
    version: u64,
    registry: Registry,
    repository: Repository,
    tag: Tag,
    digest: Digest,
    checked_at: SystemTime,
}

impl TagDocument {
    pub(super) fn new(name: &Name, tag: &Tag, record: TagRecord) -> Self {
        Self {
            version: VERSION,
            registry: name.registry.clone(),
            repository: name.repository.clone(),
            tag: tag.clone(),
            digest: record.digest,
            checked_at: record.checked_at,
        }
    }

    /// What it says, if it is about that.
    pub(super) fn of(self, name: &Name, tag: &Tag) -> Option<TagRecord> {
        let about_it = self.registry == name.registry && self.repository == name.repository && self.tag == *tag;
        about_it.then_some(TagRecord { digest: self.digest, checked_at: self.checked_at })
    }
}

/// A pin. The reference stands in it as text, in full.
#[derive(Serialize, Deserialize)]
pub(super) struct PinDocument {
    version: u64,
    holder: String,
    image: String,
    /// Absent: all of them.
    platforms: Option<Vec<String>>,
    put_at: SystemTime,
    complete: bool,
    content: Option<ContentDocument>,
    older: Option<ContentDocument>,
    /// Absent: no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    older_lacks: bool,
}

#[derive(Serialize, Deserialize)]
struct ContentDocument {
    root: Digest,
    bytes: u64,
    digests: Vec<Digest>,
}

impl From<Content> for ContentDocument {
    fn from(content: Content) -> Self {
        Self { root: content.root, bytes: content.bytes, digests: content.digests.into_iter().collect() }
    }
}

impl From<ContentDocument> for Content {
    fn from(document: ContentDocument) -> Self {
        Self { root: document.root, bytes: document.bytes, digests: document.digests.into_iter().collect() }
    }
}

impl PinDocument {
    pub(super) fn new(kept: KeptPin) -> Self {
        let KeptPin { pin: Pin { name, platforms, put_at, content }, complete, older, older_lacks } = kept;
        let platforms = match platforms {
            Platforms::All => None,
            Platforms::Only(platforms) => Some(platforms.iter().map(ToString::to_string).collect()),
        };
        Self {
            version: VERSION,
            holder: name.holder.to_string(),
            image: name.image.to_string(),
            platforms,
            put_at,
            complete,
            content: content.map(Into::into),
            older: older.map(Into::into),
            older_lacks,
        }
    }

    /// What it says, if it is about that.
    pub(super) fn of(self, place: &Place) -> Option<KeptPin> {
        let holder = Holder::parse(&self.holder).ok()?;
        let name = PinName { holder, image: ImageReference::parse(&self.image).ok()? };
        if name.place() != *place {
            return None;
        }
        let platforms = match self.platforms {
            None => Platforms::All,
            Some(texts) => {
                Platforms::Only(texts.iter().map(|text| Platform::parse(text)).collect::<Result<_, _>>().ok()?)
            }
        };
        let pin = Pin { name, platforms, put_at: self.put_at, content: self.content.map(Into::into) };
        let (older, older_lacks) = (self.older.map(Into::into), self.older_lacks);
        Some(KeptPin { pin, complete: self.complete, older, older_lacks })
    }
}
