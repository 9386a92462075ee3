//! Larder's own programs, as they were just built: what tests run against the real ones.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// `larder-node` as it was just built: `LARDER_NODE`, or beside the folder of this test program.
pub fn larder_node() -> Result<PathBuf> {
    built("larder-node", "LARDER_NODE")
}

/// `larder-cache` as it was just built: `LARDER_CACHE_PROGRAM` (`LARDER_CACHE` is a URL, for `larder-node`), or beside the folder of
/// this test program.
pub fn larder_cache() -> Result<PathBuf> {
    built("larder-cache", "LARDER_CACHE_PROGRAM")
}

/// `larder-controller` as it was just built: `LARDER_CONTROLLER`, or beside the folder of this test program.
pub fn larder_controller() -> Result<PathBuf> {
    built("larder-controller", "LARDER_CONTROLLER")
}

fn built(name: &str, variable: &str) -> Result<PathBuf> {
    if let Ok(path) = std::env::var(variable) {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe()?;
    let path = test.parent().and_then(Path::parent).context("test program has no target folder")?.join(name);
    anyhow::ensure!(path.exists(), "{} is not there; build it with `cargo build -p {name}`", path.display());
    Ok(path)
}
