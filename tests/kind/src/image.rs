//! Images as files: layers from folders, and archives in the format of `docker save`, which Docker, crane and containerd all read.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cache::hexadecimal;
use crate::command;

/// An uncompressed layer.
#[derive(Clone, Debug)]
pub struct Layer {
    file: PathBuf,
    digest: String,
}

/// What is run in a container of the image, and how it is stopped.
#[derive(Clone, Debug, Default)]
pub struct Configuration<'a> {
    /// The program and its arguments.
    pub entrypoint: &'a [&'a str],
    /// `NAME=VALUE`.
    pub environment: &'a [&'a str],
    /// The signal that asks it to end, when that is not SIGTERM.
    pub stop_signal: Option<&'a str>,
}

impl Layer {
    /// Packs a folder into `file`. The same content gives the same bytes.
    pub fn pack(folder: &Path, file: &Path) -> Result<Self> {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--mtime=@0", "--numeric-owner", "--format=gnu", "--file"]);
        command::run(tar.arg(file).arg("--directory").arg(folder).arg("."))?;
        Self::read(file)
    }

    /// A layer that was packed before.
    pub fn read(file: &Path) -> Result<Self> {
        let mut hasher = Sha256::new();
        let mut reader = File::open(file).with_context(|| format!("could not read {}", file.display()))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = std::io::Read::read(&mut reader, &mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
        Ok(Self { file: file.to_owned(), digest: format!("sha256:{}", hexadecimal(&hasher.finalize())) })
    }
}

/// Writes an archive with one image.
pub fn archive(reference: &str, layers: &[Layer], configuration: &Configuration<'_>, file: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let names: Vec<String> = (0..layers.len()).map(|number| format!("layer-{number}.tar")).collect();
    for (layer, name) in layers.iter().zip(&names) {
        std::os::unix::fs::symlink(std::path::absolute(&layer.file)?, folder.path().join(name))?;
    }
    std::fs::write(folder.path().join("config.json"), configuration.document(layers).to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [reference], "Layers": names}]);
    std::fs::write(folder.path().join("manifest.json"), manifest.to_string())?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--dereference", "--file"]).arg(file).arg("--directory").arg(folder.path());
    command::run(tar.args(["manifest.json", "config.json"]).args(names))?;
    Ok(())
}

impl Configuration<'_> {
    fn document(&self, layers: &[Layer]) -> Value {
        let mut config = json!({"Entrypoint": self.entrypoint, "Env": self.environment});
        if let (Some(signal), Some(config)) = (self.stop_signal, config.as_object_mut()) {
            config.insert("StopSignal".to_owned(), signal.into());
        }
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>()},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_what_its_manifest_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        std::fs::write(folder.path().join("root/file"), "text").unwrap();
        let layer = Layer::pack(&folder.path().join("root"), &folder.path().join("layer")).unwrap();
        let again = Layer::pack(&folder.path().join("root"), &folder.path().join("again")).unwrap();
        assert_eq!(layer.digest, again.digest);
        let configuration = Configuration { entrypoint: &["/file"], stop_signal: Some("SIGINT"), ..Default::default() };
        let file = folder.path().join("image.tar");
        archive("example.com/image:1", std::slice::from_ref(&layer), &configuration, &file).unwrap();
        let listed = command::run(Command::new("tar").arg("-tvf").arg(&file)).unwrap();
        assert!(listed.contains("manifest.json") && listed.contains("layer-0.tar") && !listed.contains(" -> "));
        let config = command::run(Command::new("tar").arg("-xOf").arg(&file).arg("config.json")).unwrap();
        assert!(config.contains(&layer.digest) && config.contains("SIGINT"), "{config}");
    }
}
