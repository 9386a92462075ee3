//! What CRI-O is told about registries now: every file that the library reads, read once, ours apart.
//!
//! Everything is bounded, because others write these files. The flow goes on in `plan`, which reads nothing more.

use std::path::{Path, PathBuf};

use super::authorities::{self, Authorities};
use super::document::{self, Document, Form};
use super::paths::{self, Paths};
use super::settings::{self, Settings};
use super::{Crio, policies, signatures};
use crate::change::marker::{self, Ownership};
use crate::engine::file_bytes::FileBytes;
use crate::engine::version::Version;
use crate::host::{Host, HostError, Kind};

const MAX_FILE: u64 = 1 << 20;

/// Since this release a file that is gone between listing and opening is passed over (c/image 5.34).
const DANGLING_IS_ABSENT: Version = Version::new(1, 32, 0);

/// All that planning needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The engine's version, as it says itself.
    pub version: Option<Version>,
    /// What of `crio.conf` matters.
    pub settings: Settings,
    /// Which files count.
    pub paths: Paths,
    /// Those that are there, ours left out, in the order in which they count.
    pub files: Vec<ReadFile>,
    /// Drop-ins of ours.
    pub ours: Vec<OurFile>,
    /// The library fails, or we cannot tell what it reads: nothing is planned.
    pub problems: Vec<Problem>,
    /// `registries.d`.
    pub signatures: signatures::Signatures,
    /// `certs.d`.
    pub authorities: Authorities,
    /// Whether signatures are asked for at all.
    pub policies: policies::Policies,
}

/// Somebody's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFile {
    /// Where.
    pub path: PathBuf,
    /// What it says.
    pub document: Document,
}

/// A file of ours, by its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurFile {
    /// Where.
    pub path: PathBuf,
    /// All of it.
    pub bytes: FileBytes,
    /// Somebody changed it since we wrote it.
    pub edited: bool,
}

/// Why nothing is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, as a fragment.
    pub message: String,
}

impl Problem {
    pub(super) fn new(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: message.into() }
    }
}

/// What came of reading a file that others write.
pub(super) enum Reading {
    Bytes(Vec<u8>),
    Absent,
    Problem(String),
}

pub(super) fn read(host: &dyn Host, path: &Path) -> Result<Reading, HostError> {
    match host.read(path, MAX_FILE) {
        Ok(contents) => Ok(Reading::Bytes(contents.bytes)),
        Err(HostError::NotFound { .. }) => Ok(Reading::Absent),
        Err(HostError::TooLarge { .. }) => Ok(Reading::Problem("is too large".to_owned())),
        // A device is never opened here; of this one it is known what is in it.
        Err(HostError::WrongKind { found: Kind::Other, .. }) if host.metadata(path)?.is_null_device => {
            Ok(Reading::Bytes(Vec::new()))
        }
        Err(HostError::WrongKind { found, .. }) => Ok(Reading::Problem(format!("is a {found}"))),
        Err(HostError::Loop { .. }) => Ok(Reading::Problem("leads through a loop of links".to_owned())),
        Err(error) => Err(error),
    }
}

impl Crio {
    pub(super) fn look(&self, host: &dyn Host) -> Result<Observation, HostError> {
        let home = paths::home_file(&self.home);
        // As os.Stat sees it: a dangling link is not there.
        let home_file_exists = match host.metadata(&home) {
            Ok(_) => true,
            Err(HostError::NotFound { .. } | HostError::WrongKind { .. }) => false,
            Err(error) => return Err(error),
        };
        let settings = settings::read(host, self)?;
        let mut observation = Observation {
            version: self.version,
            policies: policies::read(host, self, &settings),
            settings,
            paths: Paths::of(self, home_file_exists),
            files: Vec::new(),
            ours: Vec::new(),
            problems: Vec::new(),
            signatures: signatures::read(host, self)?,
            authorities: authorities::read_all(host, self),
        };
        observation.read_main(host)?;
        for directory in observation.paths.directories.clone() {
            observation.read_directory(host, &directory)?;
        }
        Ok(observation)
    }
}

impl Observation {
    fn read_main(&mut self, host: &dyn Host) -> Result<(), HostError> {
        let path = self.paths.main.clone();
        match read(host, &path)? {
            Reading::Bytes(bytes) => self.take(&path, &bytes, Form::Main),
            Reading::Absent if self.paths.main_is_named => self.problems.push(Problem::new(&path, "is not there")),
            Reading::Absent => {}
            Reading::Problem(message) => self.problems.push(Problem::new(&path, message)),
        }
        Ok(())
    }

    /// As `filepath.WalkDir` goes through it: a directory that is itself a link has nothing in it.
    fn read_directory(&mut self, host: &dyn Host, directory: &Path) -> Result<(), HostError> {
        match host.link_metadata(directory).map(|metadata| metadata.kind) {
            Ok(Kind::Directory) => {}
            Ok(_) => {
                // What is beyond a link is read by c/image 5.42, and by nobody before.
                self.problems.push(Problem::new(directory, "is no directory, so nothing in it is read"));
                return Ok(());
            }
            Err(HostError::NotFound { .. } | HostError::WrongKind { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        // Sorted by name already.
        for entry in host.list(directory)? {
            let path = directory.join(&entry.name);
            if entry.kind == Kind::Directory || !entry.name.as_encoded_bytes().ends_with(b".conf") {
                continue;
            }
            match read(host, &path)? {
                Reading::Bytes(bytes) => match marker::ownership(&bytes) {
                    Ownership::Foreign => self.take(&path, &bytes, Form::DropIn),
                    ownership => {
                        let edited = ownership == Ownership::Edited;
                        self.ours.push(OurFile { path, bytes: bytes.into(), edited });
                    }
                },
                Reading::Absent if self.version.is_none_or(|version| version >= DANGLING_IS_ABSENT) => {}
                Reading::Absent => self.problems.push(Problem::new(&path, "is a link that leads nowhere")),
                Reading::Problem(message) => self.problems.push(Problem::new(&path, message)),
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, bytes: &[u8], form: Form) {
        match document::parse(bytes, form) {
            Ok(document) => self.files.push(ReadFile { path: path.to_owned(), document }),
            Err(error) => self.problems.push(Problem::new(path, error.to_string())),
        }
    }
}
