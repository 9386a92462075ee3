//! Why nothing, or not everything, could be changed or undone.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::Expected;
use crate::host::{HostError, path_as_text};

/// Why an apply or a restore failed. Unless it says otherwise, the node's files are as they were before.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The files said no: read-only, full, held by a second agent ([`HostError::Locked`]), or changed meanwhile.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Someone else has changed what we were going to change. Nothing was touched.
    #[error("{}", listed(conflicts))]
    Conflicts {
        /// All of them.
        conflicts: Vec<Conflict>,
    },
    /// The journal cannot be read; without it nothing is undone, and nothing new is done.
    #[error(
        "the journal {} is damaged: {reason}; move its folder {} away to go on without it: what was there before us is \
         then put back by hand, from the copies in it (links of ours are still known and taken away)",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    Journal {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A change failed, and so did taking back what had been done. The journal has everything: run restore, or apply again.
    #[error("{cause}; {} could not be put back ({undo}); restore will", shown(left))]
    HalfDone {
        /// The first failure.
        cause: Box<HostError>,
        /// Why undoing failed.
        undo: Box<HostError>,
        /// What is still changed.
        left: Vec<PathBuf>,
    },
}

/// Something of ours, or something that we were to change, that someone else has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Where.
    #[serde(with = "path_as_text")]
    pub path: PathBuf,
    /// What is there now; `None` is a device, a socket or a pipe.
    pub found: Option<Expected>,
    /// What about it.
    pub reason: Reason,
    /// Where the bytes lie that were there before us, if we keep any.
    pub backup: Option<String>,
}

/// What is wrong with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is not what was observed when the plan was made.
    NotAsObserved,
    /// We had put something there, and someone edited or replaced it.
    EditedByOther,
    /// It is of a kind that the change cannot replace (a directory where a file is wanted, or the reverse).
    WrongKind,
    /// A directory that we did not make was to be removed.
    NotOurs,
}

impl fmt::Display for Conflict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.reason {
            Reason::NotAsObserved => write!(formatter, "{path} is not what was observed"),
            Reason::EditedByOther => write!(formatter, "{path} is ours and was changed by someone else"),
            Reason::WrongKind => write!(formatter, "{path} is of another kind than the change is about"),
            Reason::NotOurs => write!(formatter, "{path} is a directory that we did not make"),
        }?;
        match &self.backup {
            Some(backup) => write!(formatter, " (what was there before us: {backup})"),
            None => Ok(()),
        }
    }
}

fn listed(conflicts: &[Conflict]) -> String {
    conflicts.iter().map(Conflict::to_string).collect::<Vec<_>>().join("; ")
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
