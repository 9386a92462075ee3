//! What was there before us, durable before the first change.
//!
//! A folder of ours on the node holds one folder an apply, `apply-000007/`, with `manifest.json` and the copies that it
//! names. The manifest is written last, so a folder without one is what a kill left and means nothing. An apply takes
//! over every record of the one before; the one with the highest number is therefore the whole truth, and the others go
//! once it is complete. Paths, modes and times are in the manifest, only bytes are in copies.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ChangeError, Expected, present::Present};
use crate::host::{Attributes, Checksum, Host, HostError, Kind, Lock, Occupant, Owner, parent, path_as_text};

const VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
const LARGEST_MANIFEST: u64 = 64 * 1024 * 1024;
/// What an administrator wrote may hold secrets (headers with tokens).
const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// What was at a path before us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Original {
    Absent,
    Link {
        #[serde(with = "path_as_text")]
        target: PathBuf,
        owner: Owner,
    },
    File {
        sha256: Checksum,
        attributes: Attributes,
        /// In memory until it is written as the copy of that checksum.
        #[serde(skip)]
        bytes: Vec<u8>,
    },
}

impl Original {
    pub(super) fn of(present: &Present) -> Self {
        match present {
            Present::Link { target, metadata } => Self::Link { target: target.clone(), owner: metadata.owner },
            Present::File { bytes, attributes, .. } => Self::file(bytes.clone(), attributes.clone()),
            Present::Absent | Present::Directory | Present::Other => Self::Absent,
        }
    }

    pub(super) fn file(bytes: Vec<u8>, attributes: Attributes) -> Self {
        Self::File { sha256: Checksum::of(&bytes), attributes, bytes }
    }

    pub(super) fn has_bytes(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    pub(super) fn expected(&self) -> Expected {
        match self {
            Self::Absent => Expected::Absent,
            Self::Link { target, .. } => Expected::Link { target: target.clone() },
            Self::File { sha256, .. } => Expected::File { sha256: *sha256 },
        }
    }
}

/// One path that we changed, or were about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(with = "path_as_text")]
    pub(super) path: PathBuf,
    pub(super) original: Original,
    /// Everything that may be there by our doing: what this apply puts there, and what one before it left.
    pub(super) placed: Vec<Expected>,
    /// An administrator's file with our block in it.
    pub(super) splice: bool,
    pub(super) volatile: bool,
    pub(super) why: String,
}

impl Record {
    /// Whether this is there by our doing.
    pub(super) fn expects(&self, present: &Present) -> bool {
        self.placed.iter().any(|placed| present.is(placed))
    }
}

/// How far an apply has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Progress {
    /// Any of its changes may or may not have happened.
    Started,
    /// All have.
    Applied,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    pub(super) progress: Progress,
    /// Folders that were made to hold the journal's folder.
    made: Vec<PathBuf>,
    /// In the order in which they were changed.
    pub(super) records: Vec<Record>,
}

#[derive(Debug, Clone)]
pub(super) struct Apply {
    pub(super) number: u64,
    pub(super) manifest: Manifest,
}

/// The folder of the journal, locked.
pub(super) struct Journal<'h> {
    host: &'h dyn Host,
    folder: &'h Path,
    made: Vec<PathBuf>,
    _lock: Lock,
}

impl<'h> Journal<'h> {
    /// Makes the folder if needed and locks it.
    pub(super) fn open(host: &'h dyn Host, folder: &'h Path) -> Result<Self, HostError> {
        let made = host.make_parents(folder)?;
        if host.metadata(folder).is_err() {
            match host.create_directory(folder, PRIVATE_FOLDER) {
                Ok(()) | Err(HostError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
            host.sync_directory(parent(folder)?)?;
        }
        let lock = host.lock(&folder.join("lock"), &holder())?;
        Ok(Self { host, folder, made, _lock: lock })
    }

    /// The journal's folder as it is, for those who only look.
    pub(super) fn peek(host: &dyn Host, folder: &Path) -> Result<Option<Apply>, ChangeError> {
        let Some(number) = numbers(host, folder)?.into_iter().rev().find(|number| has_manifest(host, folder, *number))
        else {
            return Ok(None);
        };
        load(host, folder, number).map(Some)
    }

    /// The apply that holds the whole truth, with the bytes of its copies.
    pub(super) fn latest(&self) -> Result<Option<Apply>, ChangeError> {
        Self::peek_all(self.host, self.folder)
    }

    /// As [`Journal::latest`], for those who only look.
    pub(super) fn peek_all(host: &dyn Host, folder: &Path) -> Result<Option<Apply>, ChangeError> {
        let Some(mut apply) = Self::peek(host, folder)? else { return Ok(None) };
        for record in &mut apply.manifest.records {
            if let Original::File { sha256, bytes, .. } = &mut record.original {
                let copy = folder_of(folder, apply.number).join(sha256.to_string());
                *bytes = host.read(&copy, LARGEST_MANIFEST)?.bytes;
                if Checksum::of(bytes) != *sha256 {
                    return Err(ChangeError::Journal {
                        path: copy,
                        reason: "a copy has other bytes than it had".into(),
                    });
                }
            }
        }
        Ok(Some(apply))
    }

    /// Which apply holds the truth, if any does.
    pub(super) fn number(&self) -> Result<Option<u64>, HostError> {
        let numbers = numbers(self.host, self.folder)?;
        Ok(numbers.into_iter().rev().find(|number| has_manifest(self.host, self.folder, *number)))
    }

    /// Writes a new apply with its copies. When this returns, all of it is durable.
    pub(super) fn start(&self, previous: Option<&Apply>, records: Vec<Record>) -> Result<Apply, HostError> {
        let newest = numbers(self.host, self.folder)?.last().copied().unwrap_or_default();
        let mut made = self.made.clone();
        made.extend(previous.iter().flat_map(|apply| apply.manifest.made.iter().cloned()));
        let manifest = Manifest { version: VERSION, progress: Progress::Started, made, records };
        let apply = Apply { number: newest.saturating_add(1), manifest };
        let folder = folder_of(self.folder, apply.number);
        self.host.create_directory(&folder, PRIVATE_FOLDER)?;
        for record in &apply.manifest.records {
            if let Original::File { sha256, bytes, .. } = &record.original {
                let copy = folder.join(sha256.to_string());
                if !self.host.exists(&copy)? {
                    self.host.write(&copy, bytes, &Attributes::new(PRIVATE_FILE), &Occupant::Absent)?;
                }
            }
        }
        self.host.sync_directory(self.folder)?;
        self.save(&apply)?;
        Ok(apply)
    }

    /// Replaces the manifest of an apply.
    pub(super) fn save(&self, apply: &Apply) -> Result<(), HostError> {
        let path = folder_of(self.folder, apply.number).join(MANIFEST);
        let json = serde_json::to_vec_pretty(&apply.manifest).map_err(|error| HostError::Io {
            operation: "write",
            path: path.clone(),
            cause: error.into(),
        })?;
        self.host.write(&path, &json, &Attributes::new(PRIVATE_FILE), &self.host.occupant(&path)?)
    }

    /// Removes every apply but this one, also what a kill left of one.
    pub(super) fn keep_only(&self, keep: Option<u64>) -> Result<(), HostError> {
        // Oldest first: what an older one says must never become the truth again.
        for number in numbers(self.host, self.folder)?.into_iter().filter(|number| Some(*number) != keep) {
            self.remove(number)?;
        }
        Ok(())
    }

    /// Removes one apply: its manifest first, from when on it means nothing.
    pub(super) fn remove(&self, number: u64) -> Result<(), HostError> {
        let folder = folder_of(self.folder, number);
        let manifest = folder.join(MANIFEST);
        let unlink = |path: &Path| match self.host.occupant(path)? {
            Occupant::Absent => Ok(()),
            occupant @ Occupant::Is(_) => self.host.remove(path, &occupant),
        };
        unlink(&manifest)?;
        self.host.sync_directory(&folder)?;
        for entry in self.host.list(&folder)?.into_iter().filter(|entry| entry.kind == Kind::File) {
            unlink(&folder.join(entry.name))?;
        }
        self.host.remove_directory(&folder)?;
        self.host.sync_directory(self.folder)
    }

    /// Removes the folder itself when nothing is left to undo; what others put there, or beside it, stays.
    pub(super) fn close(self, last: Option<&Manifest>) -> Result<(), HostError> {
        self.keep_only(None)?;
        let lock = self.folder.join("lock");
        self.host.remove(&lock, &self.host.occupant(&lock)?)?;
        let mut made: Vec<&Path> = self.made.iter().map(PathBuf::as_path).collect();
        made.extend(last.iter().flat_map(|manifest| manifest.made.iter().map(PathBuf::as_path)));
        made.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for folder in std::iter::once(self.folder).chain(made) {
            match self.host.remove_directory(folder) {
                Ok(()) => self.host.sync_directory(parent(folder)?)?,
                Err(HostError::NotFound { .. }) => {}
                Err(HostError::NotEmpty { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where the copy of a record's original lies.
pub(super) fn copy_of(folder: &Path, number: u64, original: &Original) -> Option<String> {
    match original {
        Original::File { sha256, .. } => Some(folder_of(folder, number).join(sha256.to_string()).display().to_string()),
        Original::Absent | Original::Link { .. } => None,
    }
}

/// What every version of a manifest has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn folder_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("apply-{number:06}"))
}

fn has_manifest(host: &dyn Host, folder: &Path, number: u64) -> bool {
    // What cannot be looked at counts as there: reading it then says what is wrong.
    host.exists(&folder_of(folder, number).join(MANIFEST)).unwrap_or(true)
}

fn load(host: &dyn Host, folder: &Path, number: u64) -> Result<Apply, ChangeError> {
    let path = folder_of(folder, number).join(MANIFEST);
    let contents = host.read(&path, LARGEST_MANIFEST)?;
    let damaged = |reason: String| ChangeError::Journal { path: path.clone(), reason };
    let Versioned { version } = serde_json::from_slice(&contents.bytes).map_err(|error| damaged(error.to_string()))?;
    if version != VERSION {
        return Err(damaged(format!("its version is {version}, and this program knows {VERSION}")));
    }
    let manifest = serde_json::from_slice(&contents.bytes).map_err(|error| damaged(error.to_string()))?;
    Ok(Apply { number, manifest })
}

/// The applies that have a folder, oldest first.
fn numbers(host: &dyn Host, folder: &Path) -> Result<Vec<u64>, HostError> {
    let entries = match host.list(folder) {
        Err(HostError::NotFound { .. }) => return Ok(Vec::new()),
        other => other?,
    };
    let number = |name: &str| -> Option<u64> {
        let number = name.strip_prefix("apply-")?.parse().ok()?;
        (folder_of(Path::new(""), number) == Path::new(name)).then_some(number)
    };
    let mut numbers: Vec<u64> = entries
        .iter()
        .filter(|entry| entry.kind == Kind::Directory)
        .filter_map(|entry| number(entry.name.to_str()?))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What a second agent is told about this one.
fn holder() -> String {
    let program = std::env::args_os().next().map(PathBuf::from);
    let name = program.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    format!("{name} (process {})", std::process::id())
}
