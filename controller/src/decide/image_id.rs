//! Which manifest a container runs, from `status.containerStatuses[].imageID`.
//!
//! Runtimes write there what they like: containerd and CRI-O a repository with the digest of the manifest or index that
//! was pulled, dockershim the same behind `docker-pullable://`; and each of them, for images that it knows by no
//! repository (loaded by hand), the bare digest of the configuration, which no registry knows as a manifest.

use larder_oci::{Digest, ImageReference};

use super::Image;

/// What an image ID says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Running {
    /// Runs this manifest or index of the image's own repository.
    Manifest(Digest),
    /// Nothing yet: the container has not been created.
    NotYet,
    /// The digest of a configuration: the image came from no registry, or the runtime does not say from which.
    Configuration,
    /// A manifest, known by another repository: the same content was pulled by another name, and whether this
    /// repository has it nobody said.
    Elsewhere(Image),
    /// Nothing that is understood.
    Unreadable,
}

impl Running {
    /// The digest that may be pinned in the image's repository.
    pub fn digest(self) -> Option<Digest> {
        match self {
            Self::Manifest(digest) => Some(digest),
            Self::NotYet | Self::Configuration | Self::Elsewhere(_) | Self::Unreadable => None,
        }
    }
}

/// What `image_id` says of a container whose Pod names `image`.
pub fn running(image: &Image, image_id: &str) -> Running {
    let id = image_id.split_once("://").map_or(image_id, |(_, id)| id);
    if id.is_empty() {
        return Running::NotYet;
    }
    if !id.contains('@') {
        return if is_configuration(id) { Running::Configuration } else { Running::Unreadable };
    }
    let Ok(reference) = ImageReference::parse(id) else { return Running::Unreadable };
    let Some(digest) = reference.digest.clone() else { return Running::Unreadable };
    let known_as = Image::of(reference);
    if known_as.name() == image.name() { Running::Manifest(digest) } else { Running::Elsewhere(known_as) }
}

/// `sha256:…`, or the hexadecimal characters alone, as CRI-O writes them.
fn is_configuration(id: &str) -> bool {
    Digest::parse(id).is_ok() || Digest::parse(&format!("sha256:{id}")).is_ok()
}

#[cfg(test)]
mod tests;
