//! What containerd is told about registries now: its configuration and every registry directory, read once.
//!
//! What is ours is marked while reading, so that `plan` sees what was there without us. Everything is bounded: others
//! write these files. The flow goes on in `plan`, which reads nothing more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::config::{self, Configuration, Lookup};
use super::hosts::{self, AdminChain, ClientPair, HostsError};
use super::{Containerd, intent, splice};
use crate::engine::file_bytes::FileBytes;
use crate::engine::ownership::is_our_link;
use crate::engine::version::Version;
use crate::host::{Host, HostError, Kind, Timestamp};

/// No node has more registries; what is beyond is not looked at, and reported.
const MAX_DIRECTORIES: usize = 4096;
const MAX_CERTIFICATE: u64 = 1 << 20;

/// The kernel tells when it started in whole seconds, so a process seems up to that much older than it is; a clock that was
/// set since adds its share.
const START_IS_KNOWN_TO: i64 = 2;

/// All that planning needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The engine's version, as it says itself.
    pub version: Option<Version>,
    /// What its configuration comes to.
    pub configuration: Configuration,
    /// The configuration was written after the engine started, so it may not be in effect.
    pub configuration_is_newer: bool,
    /// The directories that it looks into, in order. With the literal path, that one alone.
    pub roots: Vec<Root>,
    /// The directories that somebody meant it to look into, and that it does not (the literal path only).
    pub meant: Vec<Root>,
}

/// A directory of registry directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// As the engine sees it.
    pub path: PathBuf,
    /// By name.
    pub directories: BTreeMap<String, Directory>,
    /// It could not be read, or not all of it.
    pub problem: Option<String>,
}

/// What has the name of a registry's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directory {
    /// A link of ours, to this target.
    Ours(PathBuf),
    /// A link that leads nowhere: to containerd it is not there, but the name is taken.
    Dangling,
    /// Neither a directory nor a link to one.
    Foreign,
    /// A directory that an administrator, a distribution or another program made.
    Theirs(Box<Theirs>),
}

/// Somebody's directory for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theirs {
    /// `hosts.toml` in it.
    pub hosts: HostsFile,
    /// `*.crt`: they count when there is no usable `hosts.toml`.
    pub certificates: Vec<PathBuf>,
    /// `*.cert` with its `*.key`.
    pub clients: Vec<ClientPair>,
    /// The text of every CA that its chain names and that could be read.
    pub authorities: BTreeMap<PathBuf, String>,
    /// What all of it comes to, without us.
    pub chain: AdminChain,
}

/// The name `hosts.toml` in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostsFile {
    /// Nothing has it.
    Absent,
    /// A link of ours, to this target.
    Ours(PathBuf),
    /// A link of somebody else, a special file, or something that cannot be read: not to be edited.
    Foreign(&'static str),
    /// A file.
    File {
        /// All of it.
        bytes: FileBytes,
        /// Without our block, when it holds one.
        without_us: Option<FileBytes>,
        /// containerd does not read it, or not for certain, and why.
        error: Option<HostsError>,
    },
}

impl Containerd {
    pub(super) fn look(&self, host: &dyn Host) -> Result<Observation, HostError> {
        let configuration = config::load(host, &self.config, &self.working_directory, self.version)?;
        let (roots, meant) = match &configuration.lookup {
            Lookup::None => (Vec::new(), Vec::new()),
            Lookup::Roots(paths) => (self.read_roots(host, paths)?, Vec::new()),
            Lookup::Literal { path, meant } => {
                (self.read_roots(host, std::slice::from_ref(path))?, self.read_roots(host, meant)?)
            }
        };
        let configuration_is_newer = match (self.started, configuration.modified) {
            (Some(started), Some(modified)) => is_newer(modified, started),
            _ => false,
        };
        Ok(Observation { version: self.version, configuration, configuration_is_newer, roots, meant })
    }

    fn read_roots(&self, host: &dyn Host, paths: &[PathBuf]) -> Result<Vec<Root>, HostError> {
        paths.iter().map(|path| self.read_root(host, path)).collect()
    }

    fn read_root(&self, host: &dyn Host, path: &Path) -> Result<Root, HostError> {
        let mut root = Root { path: path.to_owned(), directories: BTreeMap::new(), problem: None };
        let entries = match host.list(path) {
            Ok(entries) => entries,
            Err(HostError::NotFound { .. }) => return Ok(root),
            Err(error @ (HostError::WrongKind { .. } | HostError::TooLarge { .. } | HostError::Loop { .. })) => {
                root.problem = Some(error.to_string());
                return Ok(root);
            }
            Err(error) => return Err(error),
        };
        if entries.len() > MAX_DIRECTORIES {
            root.problem = Some(format!("{} has more than {MAX_DIRECTORIES} entries", path.display()));
            return Ok(root);
        }
        for entry in entries {
            // What is no text is no registry.
            let Some(name) = entry.name.to_str() else { continue };
            if matches!(entry.kind, Kind::File | Kind::Other) && name != "_default" {
                continue;
            }
            let directory = self.read_entry(host, &path.join(name), entry.kind)?;
            root.directories.insert(name.to_owned(), directory);
        }
        Ok(root)
    }

    fn read_entry(&self, host: &dyn Host, path: &Path, kind: Kind) -> Result<Directory, HostError> {
        match kind {
            Kind::Link => {
                let target = host.read_link(path)?;
                if is_our_link(&target) {
                    return Ok(Directory::Ours(target));
                }
                match host.metadata(path) {
                    Ok(metadata) if metadata.kind == Kind::Directory => self.read_theirs(host, path),
                    Ok(_) | Err(HostError::Loop { .. }) => Ok(Directory::Foreign),
                    Err(HostError::NotFound { .. }) => Ok(Directory::Dangling),
                    Err(error) => Err(error),
                }
            }
            Kind::Directory => self.read_theirs(host, path),
            Kind::File | Kind::Other => Ok(Directory::Foreign),
        }
    }

    fn read_theirs(&self, host: &dyn Host, path: &Path) -> Result<Directory, HostError> {
        let mut certificates = Vec::new();
        let mut clients = Vec::new();
        let entries = host.list(path)?;
        for entry in &entries {
            let Some(name) = entry.name.to_str().filter(|_| entry.kind != Kind::Directory) else { continue };
            if name.strip_suffix(".crt").is_some() {
                certificates.push(path.join(name));
            } else if let Some(stem) = name.strip_suffix(".cert") {
                let key = format!("{stem}.key");
                let has_key = entries.iter().any(|entry| entry.name.to_str() == Some(&key));
                clients.push((path.join(name), has_key.then(|| path.join(&key))));
            }
        }
        certificates.sort();
        clients.sort();
        let of_certificates = AdminChain {
            server: hosts::Endpoint { ca: certificates.clone(), client: clients.clone(), ..hosts::Endpoint::default() },
            hosts: Vec::new(),
        };
        let (hosts, chain) = match self.read_hosts(host, path)? {
            (hosts, Some(chain)) => (hosts, chain),
            (hosts, None) => (hosts, of_certificates),
        };
        let mut authorities = BTreeMap::new();
        for authority in chain.endpoints().flat_map(|endpoint| &endpoint.ca) {
            // One that cannot be read fails the engine's pulls as well; it is not ours to repair.
            if let Ok(contents) = host.read(authority, MAX_CERTIFICATE)
                && let Ok(text) = String::from_utf8(contents.bytes)
            {
                authorities.insert(authority.clone(), text);
            }
        }
        Ok(Directory::Theirs(Box::new(Theirs { hosts, certificates, clients, authorities, chain })))
    }

    fn read_hosts(&self, host: &dyn Host, directory: &Path) -> Result<(HostsFile, Option<AdminChain>), HostError> {
        let path = directory.join("hosts.toml");
        let mut foreign = None;
        match host.link_metadata(&path) {
            Err(HostError::NotFound { .. }) => return Ok((HostsFile::Absent, None)),
            Err(error) => return Err(error),
            Ok(metadata) => match metadata.kind {
                Kind::File => {}
                Kind::Link => {
                    let target = host.read_link(&path)?;
                    if is_our_link(&target) {
                        return Ok((HostsFile::Ours(target), None));
                    }
                    foreign = Some("is somebody's link");
                }
                Kind::Directory | Kind::Other => return Ok((HostsFile::Foreign("is no file"), None)),
            },
        }
        let bytes = match host.read(&path, hosts::MAX_HOSTS_FILE as u64) {
            Ok(contents) => FileBytes::from(contents.bytes),
            Err(HostError::NotFound { .. }) => return Ok((HostsFile::Foreign("is a link that leads nowhere"), None)),
            Err(HostError::TooLarge { .. } | HostError::WrongKind { .. } | HostError::Loop { .. }) => {
                return Ok((HostsFile::Foreign("cannot be read"), None));
            }
            Err(error) => return Err(error),
        };
        let without_us = splice::unsplice(&bytes).map(FileBytes::from);
        let theirs: &[u8] = without_us.as_deref().unwrap_or(&bytes);
        if theirs.is_empty() {
            return Ok((HostsFile::File { bytes, without_us, error: None }, None));
        }
        match (hosts::parse(theirs, directory, self.version), foreign) {
            (Ok(chain), None) => Ok((HostsFile::File { bytes, without_us, error: None }, Some(chain))),
            (Err(error), None) => Ok((HostsFile::File { bytes, without_us, error: Some(error) }, None)),
            (Ok(chain), Some(why)) => Ok((HostsFile::Foreign(why), Some(chain))),
            (Err(_), Some(why)) => Ok((HostsFile::Foreign(why), None)),
        }
    }
}

impl Observation {
    /// Which directory containerd takes for `host` among `roots`, ours left out; `None` in place of a host for `_default`.
    pub(super) fn find<'roots>(roots: &'roots [Root], host: Option<&str>) -> Option<Place<'roots>> {
        roots.iter().enumerate().find_map(|(index, root)| {
            let names = host.into_iter().flat_map(|host| [intent::directory_of_host(host), host.to_owned()]);
            names.chain(std::iter::once("_default".to_owned())).find_map(|name| {
                match root.directories.get_key_value(&name) {
                    Some((name, Directory::Theirs(theirs))) => Some(Place { index, name, theirs }),
                    _ => None,
                }
            })
        })
    }
}

fn is_newer(modified: Timestamp, started: Timestamp) -> bool {
    let at_the_latest = Timestamp { seconds: started.seconds.saturating_add(START_IS_KNOWN_TO), ..started };
    modified > at_the_latest
}

/// Somebody's directory, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'roots> {
    /// Of the root.
    pub(super) index: usize,
    /// The directory's own name.
    pub(super) name: &'roots str,
    pub(super) theirs: &'roots Theirs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_written_just_before_the_start_is_not_newer() {
        let at = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
        let started = at(1000, 500_000_000);
        for older in [at(999, 0), at(1000, 500_000_001), at(1001, 900_000_000), at(1002, 500_000_000)] {
            assert!(!is_newer(older, started), "{older:?}");
        }
        for newer in [at(1002, 500_000_001), at(1003, 0)] {
            assert!(is_newer(newer, started), "{newer:?}");
        }
    }
}
