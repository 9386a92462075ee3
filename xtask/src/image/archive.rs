//! The image as one archive: an OCI layout, and beside it what `docker load` looks for, so that every loader finds its own.

use anyhow::{Context as _, Result};
use larder_oci::{Algorithm, Digest, media_type};
use serde_json::{Value, json};

use super::layer::{Layer, USER};
use super::programs::Architecture;

/// What the image says of itself.
pub(crate) struct Described {
    /// Name and tag.
    pub(crate) reference: String,
    pub(crate) architecture: Architecture,
    /// The commit.
    pub(crate) revision: String,
    /// RFC 3339.
    pub(crate) created: String,
}

pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
    /// Of the manifest.
    pub(crate) digest: String,
}

/// Wraps one layer.
pub(crate) fn wrap(layer: &Layer, described: &Described) -> Result<Archive> {
    let mut blobs = Blobs::default();
    let layer_descriptor = blobs.add("application/vnd.oci.image.layer.v1.tar+gzip", layer.compressed.clone());
    let config = blobs.add("application/vnd.oci.image.config.v1+json", to_bytes(&config(layer, described))?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": [layer_descriptor],
        "annotations": labels(described),
    });
    let mut manifest = blobs.add(media_type::OCI_MANIFEST, to_bytes(&manifest)?);
    let digest = text_of(&manifest, "digest");
    let platform = json!({"os": "linux", "architecture": described.architecture.name()});
    let names = json!({
        // containerd and skopeo each look for their own.
        "io.containerd.image.name": described.reference,
        "org.opencontainers.image.ref.name": described.reference.rsplit(':').next(),
    });
    if let Some(manifest) = manifest.as_object_mut() {
        manifest.insert("platform".to_owned(), platform);
        manifest.insert("annotations".to_owned(), names);
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [manifest]});
    let for_docker = json!([{
        "Config": path_of(&config), "RepoTags": [described.reference], "Layers": [path_of(&layer_descriptor)],
    }]);
    let mut files = vec![
        ("oci-layout".to_owned(), to_bytes(&json!({"imageLayoutVersion": "1.0.0"}))?),
        ("index.json".to_owned(), to_bytes(&index)?),
        ("manifest.json".to_owned(), to_bytes(&for_docker)?),
    ];
    files.extend(blobs.files);
    Ok(Archive { bytes: pack(&files)?, digest })
}

fn labels(described: &Described) -> Value {
    json!({
        "org.opencontainers.image.title": "larder",
        "org.opencontainers.image.description": "Keeps a cluster's container images on hand while their registry is away",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        "org.opencontainers.image.revision": described.revision,
        "org.opencontainers.image.created": described.created,
        "org.opencontainers.image.licenses": "Apache-2.0",
    })
}

fn config(layer: &Layer, described: &Described) -> Value {
    json!({
        "architecture": described.architecture.name(),
        "os": "linux",
        "created": described.created,
        "config": {
            "User": format!("{USER}:{USER}"),
            "Env": ["PATH=/usr/local/bin"],
            "Cmd": ["larder-node", "--help"],
            "WorkingDir": "/",
            "Labels": labels(described),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id.to_string()]},
        "history": [{"created": described.created, "created_by": "cargo xtask image"}],
    })
}

#[derive(Default)]
struct Blobs {
    files: Vec<(String, Vec<u8>)>,
}

impl Blobs {
    /// Takes a blob in; its descriptor.
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()});
        self.files.push((path_of(&descriptor), bytes));
        descriptor
    }
}

fn path_of(descriptor: &Value) -> String {
    format!("blobs/{}", text_of(descriptor, "digest").replace(':', "/"))
}

fn text_of(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("could not write JSON")
}

/// One archive of all files, none of which has a time of its own.
fn pack(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_mtime(0);
        builder.append_data(&mut header, path, bytes.as_slice()).with_context(|| format!("could not pack {path}"))?;
    }
    builder.into_inner().context("could not end the archive")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::super::layer;
    use super::super::programs::Program;
    use super::*;

    #[test]
    fn every_loader_finds_its_own() {
        let program = Program { name: "larder-node".to_owned(), bytes: b"x".to_vec() };
        let layer = layer::pack(&[program], 1_000).unwrap();
        let described = Described {
            reference: "reg.example.com:5000/larder:1.2.3".to_owned(),
            architecture: Architecture::Amd64,
            revision: "abc".to_owned(),
            created: "2026-01-01T00:00:00Z".to_owned(),
        };
        let archive = wrap(&layer, &described).unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive.bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        let json = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
        for (path, bytes) in files.iter().filter(|(path, _)| path.starts_with("blobs/")) {
            let digest = Digest::of(Algorithm::Sha256, bytes).to_string();
            assert_eq!(*path, format!("blobs/{}", digest.replace(':', "/")));
        }
        let entry = &json("index.json")["manifests"][0];
        assert_eq!(entry["digest"], archive.digest);
        assert_eq!(entry["annotations"]["io.containerd.image.name"], described.reference);
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
        let manifest = json(&path_of(entry));
        let config = json(&path_of(&manifest["config"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["rootfs"]["diff_ids"][0], layer.diff_id.to_string());
        let docker = &json("manifest.json")[0];
        assert_eq!(docker["RepoTags"][0], described.reference);
        assert!(files.contains_key(docker["Layers"][0].as_str().unwrap()));
        assert!(files.contains_key(docker["Config"].as_str().unwrap()));
    }
}
