//! The programs that the harness starts.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// `larder-node` as it was just built: `LARDER_NODE`, or beside the folder of this test program.
pub fn larder_node() -> Result<PathBuf> {
    if let Ok(path) = std::env::var("LARDER_NODE") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe()?;
    let path = test.parent().and_then(Path::parent).context("test program has no target folder")?.join("larder-node");
    anyhow::ensure!(path.exists(), "{} is not there; build it with `cargo build -p larder-node`", path.display());
    Ok(path)
}
