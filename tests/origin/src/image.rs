//! Images that an engine can really unpack, made from a seed.

use std::collections::BTreeMap;

use bytes::Bytes;
use larder_oci::{Algorithm, Digest, media_type};
use serde_json::json;

/// One platform of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// For example `amd64`.
    pub architecture: String,
    /// The manifest for it.
    pub manifest: Digest,
    /// Config first, then the layers.
    pub blobs: Vec<Digest>,
}

/// What to make.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// The size of each layer's one file, in bytes.
    pub layers: Vec<usize>,
    /// Architectures; the operating system is always linux.
    pub architectures: Vec<&'static str>,
    /// The same seed makes the same bytes.
    pub seed: u64,
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self { layers: vec![300_000, 1000], architectures: vec!["amd64", "arm64"], seed: 1 }
    }
}

/// An image as a registry holds it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The index.
    pub index: Digest,
    /// Its platforms.
    pub platforms: Vec<Platform>,
    /// Index and manifests, with their media types.
    pub manifests: BTreeMap<Digest, (String, Bytes)>,
    /// Configs and layers.
    pub blobs: BTreeMap<Digest, Bytes>,
}

impl Image {
    /// Makes an image with an index.
    pub fn build(spec: &ImageSpec) -> Self {
        let mut image = Self {
            index: Digest::of(Algorithm::Sha256, b""),
            platforms: Vec::new(),
            manifests: BTreeMap::new(),
            blobs: BTreeMap::new(),
        };
        let descriptors: Vec<_> =
            spec.architectures.iter().map(|architecture| image.add_platform(architecture, spec)).collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": descriptors});
        image.index = image.add_manifest(media_type::OCI_INDEX, &index);
        image
    }

    /// The platform of the machine that the tests run on.
    pub fn host_platform(&self) -> &Platform {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        self.platforms
            .iter()
            .find(|platform| platform.architecture == architecture)
            .expect("image has the host's platform")
    }

    /// Bytes of config and layers of the host's platform.
    pub fn host_size(&self) -> u64 {
        self.host_platform().blobs.iter().map(|digest| self.blobs[digest].len() as u64).sum()
    }

    /// The largest layer of the host's platform.
    pub fn largest_layer(&self) -> Digest {
        self.host_platform()
            .blobs
            .iter()
            .max_by_key(|digest| self.blobs[*digest].len())
            .expect("image has layers")
            .clone()
    }

    fn add_platform(&mut self, architecture: &str, spec: &ImageSpec) -> serde_json::Value {
        let layers: Vec<Bytes> = spec
            .layers
            .iter()
            .enumerate()
            .map(|(number, size)| layer(number, *size, spec.seed ^ fold(architecture.as_bytes())))
            .collect();
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| {
                json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": self.add_blob(layer.clone()), "size": layer.len()})
            })
            .collect();
        // Layers are not compressed, so each layer's digest is its diff id.
        let diff_ids: Vec<_> = descriptors.iter().map(|descriptor| descriptor["digest"].clone()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/pause"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = Bytes::from(config.to_string());
        let config_digest = self.add_blob(config.clone());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
            "layers": descriptors,
        });
        let digest = self.add_manifest(media_type::OCI_MANIFEST, &manifest);
        let size = self.manifests[&digest].1.len();
        let blobs = std::iter::once(config_digest)
            .chain(layers.iter().map(|layer| Digest::of(Algorithm::Sha256, layer)))
            .collect();
        self.platforms.push(Platform { architecture: architecture.to_owned(), manifest: digest.clone(), blobs });
        json!({
            "mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        })
    }

    fn add_manifest(&mut self, media_type: &str, document: &serde_json::Value) -> Digest {
        let bytes = Bytes::from(document.to_string());
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        self.manifests.insert(digest.clone(), (media_type.to_owned(), bytes));
        digest
    }

    fn add_blob(&mut self, bytes: Bytes) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }
}

/// A tar archive with one file of `size` bytes that no compression could shrink.
fn layer(number: usize, size: usize, seed: u64) -> Bytes {
    let content = noise(size, seed.wrapping_add(number as u64));
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(Vec::with_capacity(size + 4096));
    archive.append_data(&mut header, format!("layer-{number}"), content.as_slice()).expect("tar in memory");
    Bytes::from(archive.into_inner().expect("tar in memory"))
}

/// `size` bytes of xorshift64* noise.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn fold(bytes: &[u8]) -> u64 {
    bytes.iter().fold(17, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_whole_and_the_same_each_time() {
        let image = Image::build(&ImageSpec::default());
        assert_eq!(image.index, Image::build(&ImageSpec::default()).index);
        assert_ne!(image.index, Image::build(&ImageSpec { seed: 2, ..ImageSpec::default() }).index);
        for platform in &image.platforms {
            let children = larder_oci::children(&image.manifests[&platform.manifest].1).unwrap();
            for blob in children.blobs {
                assert_eq!(image.blobs[&blob.digest].len() as u64, blob.size);
            }
        }
    }
}
