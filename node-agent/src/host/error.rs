//! What can be wrong with a call to the node's files.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Kind;

/// Why a host call failed. Everything names its path, as seen in the engine's root.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Nothing has that name.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// Something has that name already.
    #[error("{} exists already", path.display())]
    AlreadyExists {
        /// The path.
        path: PathBuf,
    },
    /// A directory with entries was to be removed.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The path.
        path: PathBuf,
    },
    /// It is something else than the call is about.
    #[error("{} is a {found}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: Kind,
    },
    /// More bytes, or more entries, than we are ready to take in.
    #[error("{} has more than {limit} bytes or entries", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// Someone changed it since it was observed.
    #[error("{} was changed by someone else meanwhile", path.display())]
    Changed {
        /// The path.
        path: PathBuf,
    },
    /// The file system cannot be written to: a condition of the node, not a fault of ours.
    #[error("{} is on a read-only file system", path.display())]
    ReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// No space, no inodes or no quota left.
    #[error("no space left for {}", path.display())]
    Full {
        /// The path.
        path: PathBuf,
    },
    /// We may not.
    #[error("no permission for {}: {}", path.display(), advice_on_denial(nix::unistd::geteuid().is_root()))]
    Denied {
        /// The path.
        path: PathBuf,
    },
    /// Too many links, or one that only the kernel can follow (`/proc/<pid>/root`).
    #[error("{} leads through a loop of links, or through one of /proc", path.display())]
    Loop {
        /// The path.
        path: PathBuf,
    },
    /// Not an absolute path without `.` and `..`.
    #[error("{} is not an absolute path without . and ..", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// Another process holds the lock.
    #[error("{} is held by {holder}", path.display())]
    Locked {
        /// The path.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The kernel has no `openat2` (Linux 5.6), or something filters it.
    #[error("the kernel offers no openat2 (Linux 5.6 or later, not filtered by seccomp), without which links could lead out of {}", path.display())]
    NoOpenat2 {
        /// The root.
        path: PathBuf,
    },
    /// Anything else.
    #[error("failed to {operation} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said. Not a `source`, because it is in the text already.
        cause: io::Error,
    },
}

/// What whoever was refused can do, root or not.
pub(crate) fn advice_on_denial(is_root: bool) -> &'static str {
    if is_root {
        "root is refused too: look whether it is immutable (lsattr), and whether a security module or a missing capability is in the \
         way"
    } else {
        "run it as root"
    }
}

impl HostError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        use io::ErrorKind;
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound => Self::NotFound { path },
            ErrorKind::AlreadyExists => Self::AlreadyExists { path },
            ErrorKind::DirectoryNotEmpty => Self::NotEmpty { path },
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { path },
            ErrorKind::PermissionDenied => Self::Denied { path },
            _ if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => Self::Loop { path },
            _ => Self::Io { operation, path, cause: source },
        }
    }

    /// The path that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::NotFound { path }
            | Self::AlreadyExists { path }
            | Self::NotEmpty { path }
            | Self::WrongKind { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Changed { path }
            | Self::ReadOnly { path }
            | Self::Full { path }
            | Self::Denied { path }
            | Self::Loop { path }
            | Self::BadPath { path }
            | Self::Locked { path, .. }
            | Self::NoOpenat2 { path }
            | Self::Io { path, .. } => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::advice_on_denial;

    #[test]
    fn root_is_not_told_to_be_root() {
        assert_eq!(advice_on_denial(false), "run it as root");
        let advice = advice_on_denial(true);
        assert!(!advice.contains("as root") && advice.contains("lsattr") && advice.contains("capability"), "{advice}");
    }
}
