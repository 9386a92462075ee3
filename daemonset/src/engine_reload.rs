//! Tells an engine that reads its files only when it is told to (CRI-O) that they changed.

use crate::node::Node;
use anyhow::Context as _;
use larder_node_agent::engine::Reload;
use larder_node_agent::engine::detect::Process;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Sends the running engine the signal that it reloads by. Nothing is to be done for one that reads its files at every pull,
/// or that does not run. Whether it took the news is proved by asking it for an image, not by this.
pub(crate) fn reload(node: &Node) -> anyhow::Result<bool> {
    let Reload::Signal(signal) = node.engine.reload() else { return Ok(false) };
    let Some(running) = &node.running else { return Ok(false) };
    let signal = Signal::from_named_raw(signal).with_context(|| format!("{signal} is no signal"))?;
    send(&running.found.process, signal)?;
    tracing::info!(pid = running.found.process.pid, engine = node.engine.name(), "told to read its files again");
    Ok(true)
}

/// Takes hold of the process before looking whether it is still the one: a number may have been given to another, which the
/// signal could end.
fn send(process: &Process, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw).context("no process id")?;
    let held = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("take hold of process {pid:?}"))?;
    anyhow::ensure!(process.is_running(), "the engine (process {}) has ended", process.pid);
    pidfd_send_signal(&held, signal).with_context(|| format!("send {signal:?} to process {}", process.pid))
}

#[cfg(test)]
mod tests {
    use super::send;
    use larder_node_agent::engine::detect::Process;
    use rustix::process::Signal;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    #[test]
    fn only_the_process_that_was_seen_gets_the_signal() {
        // Not SIGHUP, which whoever started the tests may have had ignored.
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let seen = Process::read(child.id()).unwrap();
        let other = Process { start_ticks: seen.start_ticks + 1, ..seen.clone() };
        assert!(send(&other, Signal::USR1).unwrap_err().to_string().contains("has ended"));
        assert_eq!(child.try_wait().unwrap(), None);
        send(&seen, Signal::USR1).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::USR1.as_raw()));
        assert!(send(&seen, Signal::USR1).is_err());
    }
}
