//! Proxies that outlived their agent: found by the run folder on their command line, and killed before another is started.
//!
//! Invariant: called by who holds the run folder's lock and starts the proxy itself, so no agent is behind what is found.
//! A proxy sees to its own end ([`crate::parent`]); this is for one that could not, and holds the store and the port.

use anyhow::Context as _;
use larder_node_agent::listener::{self, Owner};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// One that waits for a disk that hangs stays; starting another is tried again and again anyway.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Marks the child of an agent, in this order. See `agent::arguments`.
pub(crate) const CHILD: [&str; 3] = ["proxy", "--until-stdin-closes", "--run-folder"];

/// Kills every proxy that an agent before us started for this run folder.
pub(crate) fn kill_all(run_folder: &Path) {
    for owner in found(run_folder) {
        match kill(&owner) {
            Ok(true) => tracing::warn!(pid = owner.pid, "a proxy outlived its agent: killed"),
            Ok(false) => tracing::error!(pid = owner.pid, "a proxy outlived its agent, was killed and is still there"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "a proxy outlived its agent"),
        }
    }
}

fn found(run_folder: &Path) -> Vec<Owner> {
    let Ok(ours) = fs::metadata(run_folder) else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let leftover = |pid: u32| {
        let process = Path::new("/proc").join(pid.to_string());
        let started = listener::started(pid)?;
        let line = fs::read(process.join("cmdline")).ok()?;
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let folder = words.windows(4).find_map(|words| match words {
            [rest @ .., folder] if rest.iter().zip(CHILD).all(|(word, wanted)| *word == wanted.as_bytes()) => {
                Some(Path::new(OsStr::from_bytes(folder)))
            }
            _ => None,
        })?;
        // The same words in another container are about another folder.
        let theirs = fs::metadata(process.join("root").join(folder.strip_prefix("/").ok()?)).ok()?;
        let same = (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) && pid != std::process::id();
        same.then(|| Owner { pid, command: "a leftover proxy".to_owned(), started })
    };
    pids.filter_map(leftover).collect()
}

/// Whether it went.
fn kill(owner: &Owner) -> anyhow::Result<bool> {
    crate::child::kill_others(owner).context("kill it")?;
    let deadline = Instant::now() + GONE_WITHIN;
    while Instant::now() < deadline {
        // What is not our child is reaped by others; a zombie holds nothing any more.
        if has_ended(owner) {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(false)
}

fn has_ended(owner: &Owner) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", owner.pid)).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    listener::started(owner.pid) != Some(owner.started) || matches!(state, None | Some("Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::{CHILD, found, kill_all};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    /// Waits for its standard input, and has a proxy's command line.
    fn process(run_folder: &Path) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", "echo; read line"]).args(CHILD).arg(run_folder).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // It says when it runs: before that its command line is ours.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        child
    }

    #[test]
    fn kills_the_proxy_of_this_folder_and_no_other() {
        let (ours, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut leftover, mut bystander) = (process(ours.path()), process(others.path()));
        let pids: Vec<u32> = found(ours.path()).iter().map(|owner| owner.pid).collect();
        assert_eq!(pids, [leftover.id()]);
        kill_all(ours.path());
        assert!(!leftover.wait().unwrap().success());
        assert_eq!(bystander.try_wait().unwrap(), None);
        drop(bystander.stdin.take());
        bystander.wait().unwrap();
    }
}
