//! An image as everything here speaks of it: the reference in full, as the engines understand what a Pod wrote.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use larder_oci::{Digest, ImageReference, ManifestReference, ReferenceError, Registry};

/// A reference in full: `nginx` is `docker.io/library/nginx:latest`. Has a tag or a digest, never both: where both are
/// written the digest decides and the engines drop the tag (containerd by `reference.ParseDockerRef`, CRI-O before it
/// asks), so `a:1@sha256:…` and `a@sha256:…` are one image.
///
/// Cheap to clone, and small where thousands of Pods name the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Image(Arc<str>);

impl Image {
    /// Parses what a Pod, or a person, wrote.
    pub fn parse(written: &str) -> Result<Self, ReferenceError> {
        Ok(Self::of(ImageReference::parse(written)?))
    }

    /// The image that a reference means.
    pub fn of(mut reference: ImageReference) -> Self {
        if reference.digest.is_some() {
            reference.tag = None;
        }
        Self(reference.to_string().into())
    }

    /// The reference in full, which is what the control API and `CachedImage.spec.image` call it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Registry and repository, without tag or digest.
    pub fn name(&self) -> &str {
        let end = self.0.find('@').unwrap_or_else(|| {
            let path = self.0.rfind('/').unwrap_or(0);
            self.0.get(path..).and_then(|last| last.find(':')).map_or(self.0.len(), |colon| path + colon)
        });
        self.0.get(..end).unwrap_or(&self.0)
    }

    /// The registry's name, `host[:port]`.
    pub fn registry(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// The tag, where it has one.
    pub fn tag(&self) -> Option<&str> {
        self.0.get(self.name().len()..).and_then(|rest| rest.strip_prefix(':'))
    }

    /// The digest, where it has one.
    pub fn digest(&self) -> Option<Digest> {
        self.0.split_once('@').and_then(|(_, digest)| Digest::parse(digest).ok())
    }

    /// Whether it names content, which never changes.
    pub fn is_digest(&self) -> bool {
        self.0.contains('@')
    }

    /// The same repository's image of this digest.
    #[must_use]
    pub fn at(&self, digest: &Digest) -> Self {
        Self(format!("{}@{digest}", self.name()).into())
    }

    /// Its parts.
    pub fn reference(&self) -> Result<ImageReference, ReferenceError> {
        ImageReference::parse(&self.0)
    }

    /// What a registry is asked for: registry, repository, tag or digest.
    pub fn asked(&self) -> Result<(Registry, larder_oci::Repository, ManifestReference), ReferenceError> {
        let reference = self.reference()?;
        let manifest = reference.manifest_reference();
        Ok((reference.registry, reference.repository, manifest))
    }
}

impl Borrow<str> for Image {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({})", self.0)
    }
}

#[cfg(test)]
mod tests;
