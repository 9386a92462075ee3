//! An image as a folder: the OCI image layout, which real tools push from.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Image;

/// The OCI image layout (image specification, "OCI Image Layout").
pub struct OciLayout;

impl OciLayout {
    /// Writes `image` into `folder`, which is made.
    pub fn write(folder: &Path, image: &Image) -> Result<()> {
        let write = |path: &str, bytes: &[u8]| {
            let path = folder.join(path);
            std::fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))
        };
        std::fs::create_dir_all(folder.join("blobs/sha256"))?;
        write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        for (digest, bytes) in &image.blobs {
            write(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        }
        for (digest, (_, bytes)) in &image.manifests {
            write(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        }
        // The image's own index is the layout's: its bytes, and so its digest, stay what they are when it is pushed.
        let (_, index) = image.manifests.get(&image.index).context("image has no index")?;
        let parsed: serde_json::Value = serde_json::from_slice(index)?;
        anyhow::ensure!(parsed["manifests"] != json!(null), "index has no manifests");
        write("index.json", index)
    }
}
