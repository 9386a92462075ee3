//! The machine: whether clusters can run on it at all, where what is built for them is kept, and what it needs that others do not.
//!
//! Invariant: one run at a time. Names of containers, of the network and of the cluster are the same for all runs, so that a later one
//! finds what an earlier one left.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use larder_test_parts::Parts;

use crate::bounds::Capabilities;

/// Sockets and process ids, which no reboot survives.
pub(crate) const RUN: &str = "/run/larder-test-kind";

/// A machine on which a cluster may be made, taken until this is dropped.
pub struct Machine {
    /// The real programs.
    pub parts: Parts,
    /// Everything that is built for clusters.
    pub folder: PathBuf,
    /// What has to stand in front of runc, where that is so.
    pub runtime: Option<PathBuf>,
    _turn: File,
}

impl Machine {
    /// Waits for its turn. `runtime` is the program `runc-within-bounds`, which is used only where the kernel gives too little.
    pub fn take(parts: Parts, runtime: &Path) -> Result<Self> {
        fs::create_dir_all(RUN).with_context(|| format!("could not make {RUN}"))?;
        let path = Path::new(RUN).join("lock");
        let turn = File::create(&path).with_context(|| format!("could not make {}", path.display()))?;
        if turn.try_lock().is_err() {
            parts.progress("another run has a cluster on this machine; waiting for it");
            turn.lock().with_context(|| format!("could not lock {}", path.display()))?;
        }
        let folder = parts.cache().join("kind");
        fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        let runtime = if Capabilities::bounding()?.are_too_few() {
            // A copy, for a Docker that outlives this run must not lose its runtime to the next compilation.
            let copy = folder.join("runc-within-bounds");
            let fresh = folder.join(".runc-within-bounds");
            fs::copy(runtime, &fresh).with_context(|| format!("could not copy {}", runtime.display()))?;
            fs::rename(&fresh, &copy).with_context(|| format!("could not make {}", copy.display()))?;
            Some(copy)
        } else {
            None
        };
        Ok(Self { parts, folder, runtime, _turn: turn })
    }
}

/// Why no cluster can run here, if that is so.
pub fn unfit() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("kind's nodes are Linux containers".to_owned());
    }
    if !fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0) {
        return Some("node images are made by root only".to_owned());
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !has_cgroups(&mounts) {
        return Some("no cgroups are mounted at /sys/fs/cgroup".to_owned());
    }
    None
}

fn has_cgroups(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        let (folder, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        folder.starts_with("/sys/fs/cgroup") && kind.starts_with("cgroup")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_are_seen() {
        assert!(has_cgroups("proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"));
        assert!(has_cgroups("tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"));
        assert!(!has_cgroups("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"));
    }
}
