//! Giving up root for ever, in-process, before any other thread exists.
//!
//! Invariant: afterwards the process is that user with no supplementary groups, no capabilities, and nothing that it
//! executes can gain any. Done in-process because a program below a 0700 home could not be executed again as another user.

use crate::config::User;
use anyhow::Context as _;
use nix::sys::prctl;
use nix::unistd::{Uid, getegid, geteuid, getgroups, setgid, setgroups, setuid};

/// Whether there is anything to give up.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Becomes `user`. Without root nothing changes but that no privileges can be gained.
pub(crate) fn drop_to(user: User) -> anyhow::Result<()> {
    prctl::set_no_new_privs().context("no_new_privs")?;
    if !is_root() {
        if geteuid() != user.uid {
            tracing::warn!(user = %geteuid(), wanted = %user.uid, "not started by root: the proxy runs as whoever started it");
        }
        return Ok(());
    }
    setgroups(&[]).context("drop supplementary groups")?;
    setgid(user.gid).with_context(|| format!("become group {}", user.gid))?;
    setuid(user.uid).with_context(|| format!("become user {}", user.uid))?;
    // Changing users made the process undumpable, so its own /proc/self/fd would belong to root.
    prctl::set_dumpable(true).context("make /proc/self readable again")?;
    anyhow::ensure!(
        user.uid.is_root() || (geteuid() == user.uid && getegid() == user.gid && setuid(Uid::from_raw(0)).is_err()),
        "root was not given up"
    );
    let groups = getgroups().context("list groups")?;
    anyhow::ensure!(groups.iter().all(|group| *group == user.gid), "groups were not given up: {groups:?}");
    Ok(())
}
