//! Images for cases: they run (Kubernetes' `pause` waits for a signal), and each one has bytes of its own.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::image::{Configuration, Layer, archive};
use crate::machine::Machine;
use crate::system_images::compile_pause;

/// What an archive calls its image, for those who load it into nodes.
pub const NAME: &str = "larder.test/runnable:1";

/// Writes an archive into `folder` with an image whose bytes depend on `content`.
pub fn runnable(machine: &Machine, folder: &Path, content: &str) -> Result<PathBuf> {
    large(machine, folder, content, 0)
}

/// The same with a layer of so many bytes and some more, which do not compress.
pub fn large(machine: &Machine, folder: &Path, content: &str, bytes: u64) -> Result<PathBuf> {
    let root = folder.join("root");
    std::fs::create_dir_all(&root).with_context(|| format!("could not make {}", root.display()))?;
    compile_pause(machine, &root.join("pause"))?;
    std::fs::set_permissions(root.join("pause"), std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(root.join("content"), content)?;
    let mut noise = std::fs::File::open("/dev/urandom").context("could not open /dev/urandom")?.take(bytes);
    if bytes > 0 {
        std::io::copy(&mut noise, &mut std::fs::File::create(root.join("noise"))?)?;
    }
    let layer = Layer::pack(&root, &folder.join("layer.tar"))?;
    let file = folder.join("image.tar");
    let configuration = Configuration { entrypoint: &["/pause"], ..Configuration::default() };
    archive(NAME, &[layer], &configuration, &file)?;
    Ok(file)
}
