//! The records beside the blobs. Values; how they are written is each store's own matter.

use std::fmt;
use std::time::SystemTime;

use larder_oci::{Digest, Registry, Repository};

/// A repository of a registry. What the store knows is known per name: bytes are shared between names, evidence is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The registry that the reference names, never an endpoint that stands in for it.
    pub registry: Registry,
    /// The repository in it.
    pub repository: Repository,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// Evidence: this repository was seen to deliver this content (its bytes, or a 200 to a HEAD).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What was delivered.
    pub digest: Digest,
    /// The `Content-Type` that the origin gave it, for manifests.
    pub media_type: Option<String>,
    /// Its length in bytes.
    pub size: Option<u64>,
    /// Whether the origin gave it to someone without credentials.
    pub public: bool,
    /// When the origin last confirmed it.
    pub confirmed_at: SystemTime,
}

/// What a tag meant when the origin was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRecord {
    /// The manifest or index that it named.
    pub digest: Digest,
    /// When the origin said so.
    pub checked_at: SystemTime,
}

/// Where the bytes of an unfinished blob came from, so that it can be resumed with a Range request that is known to mean the
/// same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialOrigin {
    /// Whom to ask for the rest.
    pub name: Name,
    /// The `ETag` of the answer that it was read from, as it stood in the header.
    pub etag: Option<String>,
    /// The blob's whole length in bytes, if the origin said so.
    pub total: Option<u64>,
}
