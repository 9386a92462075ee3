//! Doing something with the files as another process of this node sees them: its mount namespace and its root.
//!
//! Invariant: only a thread of its own goes there, and ends there. What it starts sees what that process sees.

use anyhow::{Context as _, anyhow};
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};
use std::fs::File;

/// Runs `act` on a thread that sees files as process `pid` does.
pub(super) fn as_seen_by<T: Send>(pid: u32, act: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("as-seen-by".to_owned()).spawn_scoped(scope, || {
            enter(pid).with_context(|| format!("see the files as process {pid} does"))?;
            act()
        });
        thread
            .context("start a thread")?
            .join()
            .map_err(|_| anyhow!("the thread as seen by process {pid} ended badly"))?
    })
}

fn enter(pid: u32) -> anyhow::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(format!("/proc/{pid}/root").as_str(), flags, Mode::empty())?;
    // Root and working directory are shared among threads until then.
    unshare(CloneFlags::CLONE_FS).context("a root of its own")?;
    setns(&namespace, CloneFlags::CLONE_NEWNS).context("enter the mount namespace")?;
    fchdir(&root).context("enter the root")?;
    chroot(".").context("enter the root")?;
    Ok(())
}
