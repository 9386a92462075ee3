//! A proxy ends with the agent that started it, also when it is frozen and the agent is killed: then nobody else would free
//! the pulls that wait for it.
//!
//! The kernel sends SIGKILL when the *thread* that started us ends. That is the agent's supervising thread, which ends
//! only after the proxy did, or with its process.

use anyhow::Context as _;
use nix::sys::{prctl, signal::Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Called before privileges are given up, and after: becoming another user takes the signal away again.
pub(crate) fn end_with_it() -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("end with the agent")?;
    anyhow::ensure!(!is_gone(), "the agent is gone already");
    Ok(())
}

/// Whether nobody holds the other end of our standard input any more. A parent's number could be anybody's: the end of an
/// agent before the call above makes another process our parent, and which that is depends on who is around.
fn is_gone() -> bool {
    let input = std::io::stdin();
    let mut descriptors = [PollFd::new(&input, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut descriptors, Some(&at_once)).is_ok()
        && descriptors.iter().any(|descriptor| descriptor.revents().contains(PollFlags::HUP))
}
