//! What a manifest or an index refers to.
//!
//! Only the few members that say which content belongs to an image are read; the bytes themselves are never written
//! anew, because their digest is their name.

use serde::Deserialize;

use crate::{Digest, DigestError};

/// How many descriptors one manifest may hold. The largest images have some 130 layers; an index of a distribution's
/// every platform, some dozens.
const MAX_CHILDREN: usize = 4096;

/// What a manifest refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Manifests of an index.
    pub manifests: Vec<ChildDescriptor>,
    /// The config and the layers of a manifest; of an old one (schema 1) its layers, whose size it does not state.
    pub blobs: Vec<ChildDescriptor>,
    /// Whether the first of the blobs is a config.
    pub has_config: bool,
    /// The `mediaType` that the document states of itself.
    pub media_type: Option<String>,
}

impl Children {
    /// The same without the config, which nobody reads of some kinds of artifacts.
    #[must_use]
    pub fn without_config(mut self) -> Self {
        if std::mem::take(&mut self.has_config) {
            self.blobs.remove(0);
        }
        self
    }
}

/// One thing that a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildDescriptor {
    /// Its identity.
    pub digest: Digest,
    /// Its size in bytes, as the manifest states it.
    pub size: u64,
    /// Its media type, as the manifest states it.
    pub media_type: String,
    /// `os/architecture[/variant]`, for a manifest of an index.
    pub platform: Option<String>,
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of a manifest's shape.
    #[error("manifest is not valid JSON of a manifest's shape: {0}")]
    Json(serde_json::Error),
    /// A descriptor without a usable digest.
    #[error("manifest refers to a malformed digest: {0}")]
    Digest(DigestError),
    /// More descriptors than any image has.
    #[error("manifest refers to more than {MAX_CHILDREN} things")]
    TooMany,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    fs_layers: Vec<OldLayer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldLayer {
    blob_sum: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    media_type: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

/// Reads an OCI or Docker manifest, also an old one, or an index.
pub fn children(bytes: &[u8]) -> Result<Children, ManifestError> {
    let document: Document = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    if document.manifests.len() + document.layers.len() + document.fs_layers.len() > MAX_CHILDREN {
        return Err(ManifestError::TooMany);
    }
    Ok(Children {
        has_config: document.config.is_some(),
        manifests: document.manifests.into_iter().map(child).collect::<Result<_, _>>()?,
        blobs: document
            .config
            .into_iter()
            .chain(document.layers)
            .map(child)
            .chain(document.fs_layers.iter().map(old_layer))
            .collect::<Result<_, _>>()?,
        media_type: document.media_type,
    })
}

fn old_layer(layer: &OldLayer) -> Result<ChildDescriptor, ManifestError> {
    let digest = Digest::parse(&layer.blob_sum).map_err(ManifestError::Digest)?;
    Ok(ChildDescriptor { digest, size: 0, media_type: String::new(), platform: None })
}

fn child(descriptor: Descriptor) -> Result<ChildDescriptor, ManifestError> {
    let platform = descriptor.platform.map(|platform| match platform.variant {
        Some(variant) if !variant.is_empty() => format!("{}/{}/{variant}", platform.os, platform.architecture),
        _ => format!("{}/{}", platform.os, platform.architecture),
    });
    Ok(ChildDescriptor {
        digest: Digest::parse(&descriptor.digest).map_err(ManifestError::Digest)?,
        size: descriptor.size,
        media_type: descriptor.media_type,
        platform,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    #[test]
    fn an_index_and_a_manifest() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{digest}","size":3,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}]}}"#
        );
        let read = children(index.as_bytes()).unwrap();
        assert_eq!(read.manifests[0].platform.as_deref(), Some("linux/arm/v7"));
        assert!(read.blobs.is_empty());
        let manifest =
            format!(r#"{{"config":{{"digest":"{digest}","size":1}},"layers":[{{"digest":"{digest}","size":2}}]}}"#);
        let sizes: Vec<_> = children(manifest.as_bytes()).unwrap().blobs.iter().map(|blob| blob.size).collect();
        assert_eq!(sizes, [1, 2]);
        let old = format!(r#"{{"schemaVersion":1,"fsLayers":[{{"blobSum":"{digest}"}}]}}"#);
        assert_eq!(children(old.as_bytes()).unwrap().blobs[0].digest, digest);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "[]",
            "null",
            r#"{"layers":3}"#,
            r#"{"layers":[{"digest":"sha256:../x"}]}"#,
            r#"{"layers":[{"digest":"x","size":-1}]}"#,
        ] {
            assert!(children(text.as_bytes()).is_err(), "{text}");
        }
        let many = format!(r#"{{"layers":[{}]}}"#, vec![r#"{"digest":"x"}"#; MAX_CHILDREN + 1].join(","));
        assert!(matches!(children(many.as_bytes()), Err(ManifestError::TooMany)));
    }
}
