//! What an engine wants changed, in words that know no engine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::masked::masked_bytes;
use crate::host::{Checksum, bytes_as_text, path_as_text};

/// What a name holds, as far as a plan cares: what was observed there, or what we put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Expected {
    /// Nothing.
    Absent,
    /// A link, whatever it leads to.
    Link {
        /// As written in the link.
        #[serde(with = "path_as_text")]
        target: PathBuf,
    },
    /// A regular file (never through a link: use [`crate::host::resolve`] first).
    File {
        /// Of its bytes.
        sha256: Checksum,
    },
    /// A directory, whatever is in it.
    Directory,
}

impl Expected {
    /// A file with these bytes.
    pub fn file(bytes: &[u8]) -> Self {
        Self::File { sha256: Checksum::of(bytes) }
    }

    /// A link with this target.
    pub fn link(target: impl Into<PathBuf>) -> Self {
        Self::Link { target: target.into() }
    }
}

/// What a name shall hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Wanted {
    /// A link of ours.
    Link {
        /// As written in the link.
        #[serde(with = "path_as_text")]
        target: PathBuf,
    },
    /// A file of ours; render it with [`super::marker::sealed`], so that it is known again without the journal.
    File {
        /// All of it.
        #[serde(with = "bytes_as_text")]
        bytes: Vec<u8>,
        /// Permission bits of a new file; a file that is replaced keeps its owner and extended attributes.
        mode: u32,
    },
    /// An administrator's file with our marked block in it. Everything else about the file stays.
    Splice {
        /// The whole file with the block.
        #[serde(with = "bytes_as_text")]
        bytes: Vec<u8>,
    },
    /// A directory; one that is there already is fine and stays the administrator's.
    Directory {
        /// Permission bits of a new one.
        mode: u32,
    },
    /// Nothing: a link or file goes; a directory only if it is empty and the journal says that we made it.
    Absent,
}

/// One name, from what was observed to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Absolute in the engine's root. Parents that are missing are made, and belong to us.
    #[serde(with = "path_as_text")]
    pub path: PathBuf,
    /// What the engine's adapter saw when it planned. When something else is there now, nothing is changed.
    pub before: Expected,
    /// What shall be there.
    pub after: Wanted,
    /// For the person who reads the plan: a fragment such as "asks the proxy for every registry".
    pub why: String,
    /// It means nothing once the agent or the node has stopped (a link into `/proc` or `/run`), and may vanish then.
    pub volatile: bool,
    /// What was observed is ours though the journal may not know it (the state folder was lost): undoing removes it.
    pub adopt: bool,
}

impl Change {
    /// A lasting change of something that is not known to be ours.
    pub fn new(path: impl Into<PathBuf>, before: Expected, after: Wanted, why: impl Into<String>) -> Self {
        Self { path: path.into(), before, after, why: why.into(), volatile: false, adopt: false }
    }

    /// See [`Change::volatile`].
    #[must_use]
    pub fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }

    /// See [`Change::adopt`].
    #[must_use]
    pub fn adopting(self) -> Self {
        Self { adopt: true, ..self }
    }
}

impl Wanted {
    /// What [`super::verify`] then finds there.
    pub fn expected(&self) -> Expected {
        match self {
            Self::Link { target } => Expected::Link { target: target.clone() },
            Self::File { bytes, .. } | Self::Splice { bytes } => Expected::file(bytes),
            Self::Directory { .. } => Expected::Directory,
            Self::Absent => Expected::Absent,
        }
    }
}

/// What is to be changed, in the order in which it is done; undone in reverse.
///
/// Values only: making one touches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One change a path.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// To be shown: the same plan, with the secrets in what it writes hidden ([`super::masked`]). Not to be applied.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut shown = self.clone();
        for change in &mut shown.changes {
            if let Wanted::File { bytes, .. } | Wanted::Splice { bytes } = &mut change.after {
                *bytes = masked_bytes(bytes).into_owned().into_bytes();
            }
        }
        shown
    }

    /// The change of this path.
    pub fn change(&self, path: &Path) -> Option<&Change> {
        self.changes.iter().find(|change| change.path == path)
    }
}

impl FromIterator<Change> for Plan {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        Self { changes: changes.into_iter().collect() }
    }
}
