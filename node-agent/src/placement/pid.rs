//! Our own process id as the engine's `/proc` shows it: with process namespaces nested either way, numbers differ.
//!
//! Nothing is computed from namespace files: the one process of the engine's `/proc` through whose root our unguessable
//! folder can be seen is us.

use super::PlacementError;
use std::fs;
use std::path::{Path, PathBuf};

/// The path of `folder` (absolute in our root, without links) that the process `engine` can follow,
/// `/proc/<we, as it sees us>/root/<folder>`.
pub(super) fn path_for_engine(engine: u32, folder: &Path) -> Result<PathBuf, PlacementError> {
    let engine_proc = PathBuf::from(format!("/proc/{engine}/root/proc"));
    let inside = folder.strip_prefix("/").unwrap_or(folder);
    let leads_to_us = |pid: &str| engine_proc.join(pid).join("root").join(inside).is_dir();
    let as_seen = |pid: &str| Path::new("/proc").join(pid).join("root").join(inside);

    let ours = std::process::id().to_string();
    if leads_to_us(&ours) {
        return Ok(as_seen(&ours));
    }
    let entries = fs::read_dir(&engine_proc).map_err(|source| PlacementError::io(&engine_proc, source))?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        // A process that shares our mount namespace but not our life is not us: our own child, for one.
        .filter(|pid| is_this_process(&engine_proc.join(pid)))
        .find(|pid| leads_to_us(pid))
        .map(|pid| as_seen(&pid))
        .ok_or(PlacementError::NotSeenByEngine { engine })
}

/// Whether that folder of some `/proc` is this very process: the last number of `NSpid` is the innermost.
fn is_this_process(folder: &Path) -> bool {
    let innermost = |status: String| {
        let line = status.lines().find(|line| line.starts_with("NSpid:"))?.to_owned();
        line.split_whitespace().last().map(str::to_owned)
    };
    let same_namespace = match (fs::read_link(folder.join("ns/pid")), fs::read_link("/proc/self/ns/pid")) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => false,
    };
    same_namespace
        && fs::read_to_string(folder.join("status")).ok().and_then(innermost) == Some(std::process::id().to_string())
}
