//! What goes wrong in a store. None of it fails a pull; it decides whether something is kept.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use larder_oci::Digest;

/// Whether a store can be used at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreHealth {
    /// Reads and writes.
    Ok,
    /// Reads, but has no room and could make none. Checked again in the background.
    Full,
    /// Reads; the disk refuses to be written.
    ReadOnly,
    /// Reads what can be read; writing fails for another reason: rights, missing folders, a disk with errors.
    Unusable,
    /// Its folder was removed, and could not be made again.
    Gone,
    /// Reads and writes here; the bucket behind it does not answer, and is owed what comes meanwhile.
    Detached,
    /// An operation did not come back in time. Everything is refused at once until a try in the background succeeds.
    NotAnswering,
}

impl StoreHealth {
    /// For messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Unusable => "unusable",
            Self::Gone => "gone",
            Self::Detached => "detached",
            Self::NotAnswering => "not-answering",
        }
    }

    /// Whether starting to store something makes sense.
    pub fn writable(self) -> bool {
        matches!(self, Self::Ok | Self::Detached)
    }

    /// Whether looking for something makes sense.
    pub fn readable(self) -> bool {
        self != Self::NotAnswering
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room, and nothing that may be evicted.
    #[error("no room in the store: {reason}")]
    Full {
        /// Which bound was reached.
        reason: String,
    },
    /// The disk refuses to be written.
    #[error("{} cannot be written: the disk is read-only", path.display())]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
    },
    /// The store's own folder is not there any more.
    #[error("the folder {} was removed: {reason}", path.display())]
    Gone {
        /// The store's folder.
        path: PathBuf,
        /// Why there is no other in its place.
        reason: String,
    },
    /// The disk does not come back, now or since a little while.
    #[error("disk does not answer: {operation} took longer than {limit:?}, or the disk is known to hang")]
    NotAnswering {
        /// What was asked of it.
        operation: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// A record or folder that is not what we write.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not those of the digest.
    #[error("content of {expected} has digest {actual}")]
    Mismatch {
        /// What it was to be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// Somebody is already writing this blob.
    #[error("{digest} is being written already")]
    InUse {
        /// The blob.
        digest: Digest,
    },
    /// Another process has this folder.
    #[error("store {} is in use by {}", path.display(), holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The store's folder.
        path: PathBuf,
        /// The process that wrote itself into the lock file.
        holder: Option<u32>,
    },
    /// Written by a newer Larder.
    #[error("store {} has layout version {found}, this program knows up to {known}: use the newer program, or another folder", path.display())]
    NewerLayout {
        /// The store's folder.
        path: PathBuf,
        /// The version in it.
        found: u64,
        /// The version that this program writes.
        known: u64,
    },
    /// The folder holds something else.
    #[error("{} is no store and not empty (it holds {entry:?}): give Larder a folder of its own", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// Something in it that is not ours.
        entry: String,
    },
    /// The bucket did not do it, or is left alone because it did not do others.
    #[error("could not {operation} {place}: {reason}")]
    Bucket {
        /// What was asked of it.
        operation: &'static str,
        /// The bucket, and the key if there is one.
        place: String,
        /// What it said.
        reason: String,
    },
    /// Anything else that the system said.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl StoreError {
    /// The error of a system call on `path`, told apart by what it means for the store.
    pub(crate) fn from_io(path: impl Into<PathBuf>, error: io::Error) -> Self {
        let path = path.into();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { reason: format!("{}: {error}", path.display()) }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            _ => Self::Io { path, error },
        }
    }
}
