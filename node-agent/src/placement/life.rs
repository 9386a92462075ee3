//! Which folders under `/run` belong to an agent that lives, and which were left by one that was killed.
//!
//! Beside each folder of an agent lies a file that its agent has locked. The kernel lets go of the lock with the process, so a lock
//! that can be had says that nobody needs the folder any more. A folder without such a file was made by hand, to outlive its maker.

use super::PlacementError;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".agent";

/// Held for as long as the folder is in use.
#[derive(Debug)]
pub(super) struct Life {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Life {
    /// For the folder that is called `withdrawn` when it is withdrawn.
    pub(super) fn begin(withdrawn: &Path) -> Result<Self, PlacementError> {
        let mut path = withdrawn.with_extension("").into_os_string();
        path.push(SUFFIX);
        let path = PathBuf::from(path);
        // It gets its name locked: in between, another agent's sweep would take it for a leftover.
        let unlocked = path.with_extension("agent.new");
        let begin = || {
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unlocked)?;
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
            fs::rename(&unlocked, &path)?;
            Ok(lock)
        };
        let lock = begin().map_err(|source: io::Error| PlacementError::io(&path, source))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder is gone.
    pub(super) fn end(&self) -> Result<(), PlacementError> {
        remove(&self.path, fs::remove_file)
    }
}

/// Removes what killed agents left in `parent`. A link that led there dangles from now on, which is a withdrawal. What cannot be
/// removed is there for the next one.
pub(super) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        // The second form is one that was being made when its agent was killed.
        let name = name.to_str().map(|name| name.strip_suffix(".new").unwrap_or(name));
        let Some(hidden) = name.and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        let Some(announced) = hidden.strip_prefix('.').filter(|name| name.starts_with("larder-")) else { continue };
        // A link here would be somebody else's.
        let file = fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NOFOLLOW).open(&path);
        let Ok(Ok(_lock)) = file.map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock)) else { continue };
        let folders = [parent.join(announced), parent.join(format!("{hidden}.withdrawn"))];
        let removed = folders.iter().try_for_each(|folder| remove(folder, fs::remove_dir_all));
        match removed.and_then(|()| remove(&path, fs::remove_file)) {
            Ok(()) => tracing::info!(folder = announced, "removed what a killed agent left"),
            Err(error) => tracing::warn!(%error, "what a killed agent left could not be removed"),
        }
    }
}

fn remove(path: &Path, how: impl FnOnce(PathBuf) -> io::Result<()>) -> Result<(), PlacementError> {
    match how(path.to_owned()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PlacementError::io(path, error)),
        _ => Ok(()),
    }
}
