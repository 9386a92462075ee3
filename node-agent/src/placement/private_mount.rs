//! A small file system that only this process's mount namespace has: it goes when the last of its processes goes, and
//! `/proc/<pid>/root/<mount point>/…` stops leading there in the very moment in which *this* process dies.
//!
//! Invariant: entered while the process has one thread, before any runtime. Mounts of the host still arrive here
//! (propagation is slave), none of ours leaves.

use super::PlacementError;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Room for some hundred files of a few hundred bytes.
const MOUNT_OPTIONS: &str = "mode=0755,size=4m,nr_inodes=4096";

/// Proof that the process is in a mount namespace of its own with a private tmpfs mounted there.
#[derive(Debug, Clone)]
pub struct PrivateMount {
    /// Without symbolic links: through another process's `/proc` an absolute link would lead out of our root.
    point: PathBuf,
}

impl PrivateMount {
    /// Leaves the mount namespace that the process was started in and mounts a tmpfs at `point`, which is created.
    ///
    /// Fails without `CAP_SYS_ADMIN`, and when there is more than one thread; then nothing has changed but that the
    /// folder may exist.
    pub fn enter(point: &Path) -> Result<Self, PlacementError> {
        let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        if threads != 1 {
            return Err(PlacementError::Threads { threads });
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(point)
            .map_err(|source| PlacementError::io(point, source))?;
        let point = fs::canonicalize(point).map_err(|source| PlacementError::io(point, source))?;
        let denied = |what: &'static str| move |cause: nix::Error| PlacementError::Namespace { what, cause };
        unshare(CloneFlags::CLONE_NEWNS).map_err(denied("leave the mount namespace"))?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).map_err(denied("make mounts slave"))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("larder"), &point, Some("tmpfs"), flags, Some(MOUNT_OPTIONS)).map_err(denied("mount a tmpfs"))?;
        // An empty folder may be what is left under the mount for others to see: what links name lies in it, not at it.
        Ok(Self { point })
    }

    /// Where it is mounted, in our own root.
    pub fn point(&self) -> &Path {
        &self.point
    }
}
