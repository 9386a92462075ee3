//! A disk of its own: small, or only not as full as the machine's may be.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

/// A small file system that ends with the test.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it somewhere.
    pub fn mount(megabytes: u32) -> Result<Self> {
        let folder = crate::node::folder()?.keep();
        let size = format!("size={megabytes}m,mode=0755");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "larder-test"]).arg(&folder).status()?;
        ensure!(status.success(), "failed to mount a tmpfs at {}", folder.display());
        Ok(Self(folder))
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}
