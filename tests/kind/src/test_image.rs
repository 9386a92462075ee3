//! Images for cases: they run (Kubernetes' `pause` waits for a signal), and each one has bytes of its own.

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
    let root = folder.join("root");
    std::fs::create_dir_all(&root).with_context(|| format!("could not make {}", root.display()))?;
    compile_pause(machine, &root.join("pause"))?;
    std::fs::set_permissions(root.join("pause"), std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(root.join("content"), content)?;
    let layer = Layer::pack(&root, &folder.join("layer.tar"))?;
    let file = folder.join("image.tar");
    let configuration = Configuration { entrypoint: &["/pause"], ..Configuration::default() };
    archive(NAME, &[layer], &configuration, &file)?;
    Ok(file)
}
